"""EzAudio's own checkpoints: a small random one, laid out and named as OpenSound publishes it, runs through the whole recipe.

Once, and outside these tests, the readers were held against the official code on random weights: haidog-yaqub/EzAudio's MaskDiT agreed with
EzDiT within 2e-6 (with and without an edit), stable-audio-tools' Oobleck with diffusers' bit by bit.
"""

import dataclasses

import pytest
import torch

from backends import cards, models, run
from backends.audio import ezaudio_hub
from backends.nets.ez_dit import EzDiT
from backends.spec import Outcome
from tests import checkpoints

CARD = next(c for c in cards.HUB if c.name == "ezaudio-l")
SMALL = ezaudio_hub.VAE | dict(encoder_hidden_size=4, channel_multiples=[1, 2, 2, 2], decoder_channels=4, decoder_input_channels=4)


def official_transformer(net: EzDiT) -> dict:
    """The network's tensors under MaskDiT's names, rotary frequencies as it stores them."""
    out = {}
    for name, tensor in net.state_dict().items():
        for ours, theirs in (("time_ada_head.", "time_ada_final."), ("norm_head.", "final_block.norm."), ("head_conv.", "final_block.final_layer."),
                             ("mlp.inside.", "mlp.net.0.proj."), ("mlp.out.", "mlp.net.2."), ("adaln.table", "adaln.scale_shift_table")):  # fmt: skip
            name = name.replace(ours, theirs)
        head, _, rest = name.partition(".")
        head = {"embed": "patch_embed.proj", "time_embed": "time_embed.mlp", "head": "final_block.linear"}.get(head, head)
        out[name if name == "mask_embed" else f"model.{head}" + (f".{rest}" if rest else "")] = tensor
    return out | {"model.mid_block.attn.rotary.inv_freq": torch.ones(4)}


def official_autoencoder(vae) -> dict:
    """Named as stable-audio-tools numbers its layers; snakes without the two axes of length 1."""
    depth, out = len(vae.encoder.block), {}
    unit = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
    for name, tensor in vae.state_dict().items():
        side, part, *rest = name.split(".")
        if part == "block":
            i, layer, *rest = rest
            encoder = side == "encoder"
            if layer.startswith("res_unit"):
                inner, *rest = rest
                where = f"{int(i) + 1}.layers.{int(layer[-1]) - 1 + (0 if encoder else 2)}.layers.{unit[inner]}"
            else:
                where = f"{int(i) + 1}.layers.{({'snake1': 3, 'conv1': 4} if encoder else {'snake1': 0, 'conv_t1': 1})[layer]}"
        else:
            where = {"conv1": 0, "snake1": depth + 1, "conv2": depth + 2}[part]
        out[f"autoencoder.{side}.layers.{where}.{'.'.join(rest)}"] = tensor.flatten() if rest[-1] in ("alpha", "beta") else tensor
    return out | {"discriminator.weight": torch.ones(1)}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(folder, the network, the autoencoder) of a checkpoint as published, with a T5 in text/."""
    folder = tmp_path_factory.mktemp("ezaudio")
    torch.manual_seed(0)
    net = EzDiT(channels=4, dim=32, depth=4, heads=16, mlp_ratio=4.0, context_dim=32, rank=2).eval()
    vae = ezaudio_hub.autoencoder(SMALL).eval()
    for p in (*net.parameters(), *vae.parameters()):
        p.data += 0.05 * torch.randn_like(p)
    for file, what in zip(CARD.options["files"], ({"model": official_transformer(net)}, {"state_dict": official_autoencoder(vae)}), strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(what, folder / file)
    checkpoints.t5(32).save_pretrained(folder / "text")
    checkpoints.t5_tokenizer().save_pretrained(folder / "text")
    return folder, net, vae


@pytest.fixture
def card(published):
    found = dataclasses.replace(CARD, source=str(published[0]), revision="main", options=CARD.options | {"vae": SMALL})
    models.clear()
    before, models.CARDS[CARD.name] = models.CARDS.get(CARD.name), found
    yield found
    models.clear()
    if before is None:
        del models.CARDS[CARD.name]
    else:
        models.CARDS[CARD.name] = before


def test_names_and_shapes_lead_back(published):
    folder, net, vae = published
    read = ezaudio_hub.read_transformer(folder / CARD.options["files"][0], 16).eval()
    x, states = torch.randn(2, 4, 9), torch.randn(2, 5, 32)
    with torch.no_grad():
        assert torch.equal(read(x, torch.tensor([1, 999]), states), net(x, torch.tensor([1, 999]), states))
        again, wave = ezaudio_hub.read_autoencoder(folder / CARD.options["files"][1], SMALL).eval(), torch.randn(1, 1, 4800)
        assert torch.equal(again.encode(wave).latent_dist.mean, vae.encode(wave).latent_dist.mean)
        assert vae.encode(wave).latent_dist.mean.shape == (1, 4, 10)
        assert torch.equal(again.decode(x).sample, vae.decode(x).sample)


def test_recipes_run(card):
    recipe = {"task": "text_to_audio", "model": card.name, "job": {"prompt": "a cat in a red hat", "seconds": 0.5},
              "arms": [{"method": m, "knobs": {"steps": 3}} for m in ("ddim_audio", "ezaudio")]}  # fmt: skip
    outcomes = [e.event for e in run(recipe) if isinstance(e.event, Outcome)]
    assert [o.error for o in outcomes] == ["", ""] and [o.nfe for o in outcomes] == [6, 6]
    assert outcomes[0].value.rate == 24_000 and len(outcomes[0].value.samples) == 12_000


def test_texts_are_padded_masked_and_cut(card):
    model = models.load(card.name)
    cond, long = model.encode("a cat", "cat " * 120)
    assert cond.embeds.shape == (1, 100, 32) and 0 < cond.extra["encoder_attention_mask"].sum() < 20 and not cond.cut
    assert long.extra["encoder_attention_mask"].all() and "cat" in long.cut


def test_a_pickle_with_code_is_refused(published, card, tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("code ran",)

    file = published[0] / CARD.options["files"][0]
    whole = file.read_bytes()
    try:
        torch.save({"model": Evil()}, file)
        with pytest.raises(models.BadInput, match="can't be read"):
            models.load(card.name)
        file.write_bytes(b"not a checkpoint")
        with pytest.raises(models.BadInput, match="can't be read"):
            models.load(card.name)
    finally:
        file.write_bytes(whole)


def test_only_the_named_files_are_fetched():
    from backends.download import patterns

    assert patterns(CARD) == ["ckpts/s3/ezaudio_s3_l.pt", "ckpts/vae/1m.pt"]
