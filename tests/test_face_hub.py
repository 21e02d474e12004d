"""DifFace's and InterLCM's published checkpoints, stood for by small random ones in their layout.

Once, and outside these tests, IDDPM, SwinIR and ClipVisualEncoder were held against the official code on random weights: names and shapes of all
tensors are the same at full size, outputs agreed within 2e-6 of the largest.
"""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModel

from backends.cards import HUB, hosted
from backends.nets import iddpm, swinir
from backends.nets.interlcm_visual import ClipVisualEncoder
from backends.restore import difface, face_hub, interlcm
from backends.restore.face_task import RestoreFace
from backends.spec import BadInput, Result
from backends.worlds import faces

JOB = RestoreFace(image=faces.examples()[1], blur=1.5, factor=3.0, seed=2)
SMALL_UNET = dict(block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=32, attention_head_dim=2, sample_size=8, norm_num_groups=16,
                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(iddpm, "FFHQ512", dict(side=64, width=32, multiples=(1, 2), blocks=(1, 2), attention=(32,)))
    monkeypatch.setattr(swinir, "FACES", dict(width=12, depths=(2, 2), heads=2, window=8, fold=8))


def card(name: str, folder, **options):
    found = next(c for c in HUB if c.name == name)
    return dataclasses.replace(found, source=str(folder), side=64, options=found.options | options)


def random(net, std=0.1):
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=std)
    return net


def result(events):
    with torch.no_grad():
        return next(e.value for e in events if isinstance(e, Result))


def difface_files(folder, prefix=""):
    prior, restorer = random(iddpm.IDDPM(**iddpm.FFHQ512)), random(swinir.SwinIR(**swinir.FACES))
    torch.save({prefix + k: v for k, v in prior.state_dict().items()}, folder / "iddpm_ffhq512_ema500000.pth")
    whole = restorer.state_dict() | {f"layers.0.residual_group.blocks.{i}.attn.relative_position_index": torch.zeros(64, 64) for i in range(2)}
    torch.save({"state_dict": whole}, folder / "swinir_restoration512_L1.pth")
    return prior, restorer


@pytest.mark.parametrize("prefix", ["", "module."])
def test_difface_is_read_and_runs(small, tmp_path, prefix):
    prior, restorer = difface_files(tmp_path, prefix)
    model = face_hub.load(card("difface-ffhq512", tmp_path))
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(model.noise_in(x, 400), prior(x, torch.tensor([400, 400]))[:, :3])
        assert torch.equal(model.restore(x), restorer((x + 1) / 2).clamp(0, 1) * 2 - 1)
    model.nfe = 0
    value = result(difface.difface(JOB, model, N=5))
    assert value.pixels.shape == (64, 64, 3) and model.nfe == 6 and np.isfinite(value.pixels).all()


def test_the_time_and_the_windows_matter(small):
    net, x = random(iddpm.IDDPM(**iddpm.FFHQ512)).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(net(x, torch.tensor([3])), net(x, torch.tensor([700])))
    y, n = torch.arange(2 * 16 * 24 * 3.0).view(2, 16, 24, 3), 8
    assert torch.equal(swinir.joined(swinir.windows(y, n), n, 16, 24), y) and torch.equal(swinir.windows(y, n)[1, 0], y[0, 0, 8])
    mask = swinir.parted(16, 24, 8, "cpu")
    assert not mask[0].any() and mask[-1].any(), "only windows at the far edges hold what was apart"


def interlcm_files(folder):
    unet = random(UNet2DConditionModel(**SMALL_UNET, time_cond_proj_dim=16))
    vae = random(AutoencoderKL(block_out_channels=(16,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                               norm_num_groups=16, latent_channels=4))  # fmt: skip
    clip = random(
        CLIPVisionModel(CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16))
    )
    unet.save_pretrained(folder / "lcm" / "unet"), vae.save_pretrained(folder / "lcm" / "vae"), clip.save_pretrained(folder / "clip")
    visual = random(ClipVisualEncoder(5, 32, sizes=(16, 24, 32)))
    spatial = random(ControlNetModel.from_unet(UNet2DConditionModel(**SMALL_UNET)), 0.01)
    for name, net in (("visual", visual), ("spatial", spatial)):
        torch.save({"params": {}, "params_ema": net.state_dict()}, folder / f"{name}_encoder_3step.pth")
    return visual, spatial, clip


def test_interlcm_is_read_and_runs(tmp_path):
    visual, spatial, clip = interlcm_files(tmp_path)
    model = face_hub.load(card("interlcm-ffhq512", tmp_path, sizes=(16, 24, 32)))
    assert all(torch.equal(a, b) for a, b in zip(model.net["encoders"].spatial.state_dict().values(), spatial.state_dict().values(), strict=True))
    y = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        tokens = model.prompt(y)
        seen = clip(torch.rand(1, 3, 32, 32))
        assert torch.equal(clip.post_layernorm(seen.last_hidden_state[:, 0]), seen.pooler_output), "transformers normalises the first token alone"
        assert tokens.shape == (1, 5, 32) and torch.equal(model.mended(tokens), visual(tokens)) and model.mended(tokens).shape == (1, 77, 32)
    model.nfe = 0
    value = result(interlcm.interlcm(JOB, model, steps=4))
    assert value.pixels.shape == (64, 64, 3) and model.nfe == 3


@pytest.mark.parametrize("name", ["difface-ffhq512", "interlcm-ffhq512"])
def test_a_folder_without_the_files_is_a_sentence(small, tmp_path, name):
    with pytest.raises(BadInput, match="folder that the host names|can't be read"):
        face_hub.load(card(name, tmp_path))
    if name.startswith("difface"):
        difface_files(tmp_path)
        (tmp_path / "iddpm_ffhq512_ema500000.pth").write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(BadInput, match="can't be read"):
            face_hub.load(card(name, tmp_path))


def test_they_are_offered_where_a_folder_is_named():
    assert not {"difface-ffhq512", "interlcm-ffhq512"} & {c.name for c in hosted(None)}
    assert [c.source for c in hosted("difface-ffhq512=/models/difface")] == ["/models/difface"]
