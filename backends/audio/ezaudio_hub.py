"""EzAudio's own checkpoints (OpenSound/EzAudio) in our network and diffusers' AutoencoderOobleck.

ckpts/s3/ezaudio_s3_xl.pt or _l.pt holds the transformer under `model` (fitted out as api/ezaudio.py and ckpts/*.yml of haidog-yaqub/EzAudio say),
ckpts/vae/1m.pt the autoencoder under `state_dict` with the prefix `autoencoder.`, as stable-audio-tools names its layers. Texts are
read by FLAN-T5's encoder from its own repository, padded to 100 tokens. Pickles are read with `weights_only`: tensors, no code.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.audio.latent_audio import LatentAudio
from backends.denoiser import Cond
from backends.download import GB, fetch, reading
from backends.lazy import diffusers, torch
from backends.models import Card, device, whole
from backends.spec import BadInput

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 100
SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True,
                timestep_spacing="trailing", clip_sample=False)  # fmt: skip
VAE = dict(encoder_hidden_size=128, downsampling_ratios=[2, 4, 6, 10], channel_multiples=[1, 2, 4, 8], decoder_channels=128, decoder_input_channels=128,
           audio_channels=1, sampling_rate=24_000)  # fmt: skip
log = logging.getLogger(__name__)

# Their names -> ours, applied in turn.
TRANSFORMER = (
    (r"^model\.", ""),
    (r"^patch_embed\.proj\.", "embed."),
    (r"^time_embed\.mlp\.", "time_embed."),
    (r"^time_ada_final\.", "time_ada_head."),
    (r"^final_block\.norm\.", "norm_head."),
    (r"^final_block\.linear\.", "head."),
    (r"^final_block\.final_layer\.", "head_conv."),
    (r"\.mlp\.net\.0\.proj\.", ".mlp.inside."),
    (r"\.mlp\.net\.2\.", ".mlp.out."),
    (r"\.adaln\.scale_shift_table$", ".adaln.table"),
)


def transformer_tensors(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """MaskDiT's tensors under EzDiT's names; rotary frequencies, which are computed, are left out."""
    out = {}
    for name, tensor in found.items():
        if name.endswith("inv_freq"):
            continue
        for pattern, ours in TRANSFORMER:
            name = re.sub(pattern, ours, name)
        out[name] = tensor
    return out


def autoencoder_tensors(found: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """stable-audio-tools' Oobleck with `depth` blocks a side under diffusers' names.

    Theirs are numbered sequences: encoder 0 conv, 1…depth blocks, snake, conv; a block is three residual units, snake, conv; the decoder's
    blocks begin with snake and transposed conv; a unit is snake, conv, snake, conv.
    """
    unit = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}
    out = {}
    for name, tensor in found.items():
        whole, side, *rest = name.split(".")
        if whole != "autoencoder" or side not in ("encoder", "decoder"):
            continue  # what it was trained with, such as the discriminator
        _, layer, *rest = rest
        layer = int(layer)
        if layer == 0 or layer == depth + 2:
            path = ["conv1" if layer == 0 else "conv2", *rest]
        elif layer == depth + 1:
            path = ["snake1", *rest]
        else:
            inner, rest = int(rest[1]), rest[2:]
            first = 0 if side == "encoder" else 2
            if first <= inner < first + 3:
                path = ["block", str(layer - 1), f"res_unit{inner - first + 1}", unit[rest[1]], *rest[2:]]
            else:
                path = ["block", str(layer - 1), {3: "snake1", 4: "conv1"}[inner] if side == "encoder" else {0: "snake1", 1: "conv_t1"}[inner], *rest]
        snake = path[-1] in ("alpha", "beta")
        out[".".join([side, *path])] = tensor.view(1, -1, 1) if snake else tensor
    return out


def autoencoder(config: dict):
    """diffusers' class, with an encoder that gives mean and deviation of `decoder_input_channels` each; the stock one gives half of its width."""
    with torch.no_grad():
        vae = diffusers.AutoencoderOobleck(**config)
        inner = vae.encoder.conv2
        vae.encoder.conv2 = torch.nn.utils.weight_norm(torch.nn.Conv1d(inner.in_channels, 2 * config["decoder_input_channels"], 3, padding=1))
    return vae


def shape_of(tensors: dict[str, Tensor], heads: int) -> dict:
    """EzDiT's configuration, from the shapes of its tensors."""
    dim, width, _ = tensors["embed.weight"].shape
    return dict(
        channels=(width - 1) // 2, dim=dim, depth=2 * len({k.split(".")[1] for k in tensors if k.startswith("in_blocks.")}), heads=heads,
        mlp_ratio=tensors["mid_block.mlp.out.weight"].shape[1] / dim, context_dim=tensors["context_embed.0.weight"].shape[1],
        rank=tensors["mid_block.adaln.lora_a.weight"].shape[0] // 6,
    )  # fmt: skip


def read_transformer(path: Path, heads: int):
    from backends.nets.ez_dit import EzDiT

    tensors = transformer_tensors(torch.load(path, map_location="cpu", weights_only=True)["model"])
    net = EzDiT(**shape_of(tensors, heads))
    net.load_state_dict(tensors)
    return net


def read_autoencoder(path: Path, config: dict = VAE):
    vae = autoencoder(config)
    vae.load_state_dict(autoencoder_tensors(torch.load(path, map_location="cpu", weights_only=True)["state_dict"], len(config["downsampling_ratios"])))
    return vae


def text_encoder(folder: Path):
    """encode(text) -> Cond by the T5 in the folder."""
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    net = whole(T5EncoderModel, folder, local_files_only=True, use_safetensors=True, dtype=torch.float32).eval().requires_grad_(False)

    def encode(text: str) -> Cond:
        batch = tokenizer([text], max_length=TOKENS, padding="max_length", truncation=True, return_tensors="pt")
        there = batch.attention_mask.bool()
        states = net(input_ids=batch.input_ids, attention_mask=there).last_hidden_state
        whole = tokenizer(text)["input_ids"]
        cut = tokenizer.decode(whole[TOKENS - 1 :], skip_special_tokens=True) if len(whole) > TOKENS else ""
        tokens = tuple(tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist()))
        return Cond(text, states.to(device()), tokens, {"encoder_attention_mask": there.to(device())}, cut)

    return encode


def load(card: Card) -> LatentAudio:
    """Fetch, read and place a checkpoint; raises BadInput when the hub, the disk or the memory don't allow it."""
    import psutil

    options, where = card.options, device()
    folder = fetch(card)
    # A folder that the host named may hold the text encoder as well.
    words = folder / "text" if (folder / "text").is_dir() else fetch(replace(card, source=options["text"], revision=options["text_revision"], options={}))
    files = [folder / f for f in options["files"]]
    needed, free = sum(f.stat().st_size for f in (*files, *words.glob("*.safetensors")) if f.exists()), psutil.virtual_memory().available
    if needed * 1.1 > free:
        raise BadInput(f"{card.title} takes {needed / GB:.0f} GB of memory to load and {free / GB:.0f} GB are free here; choose a smaller model.")
    with reading(card, Exception):  # torch.load tells of a broken file in many ways
        net, vae = read_transformer(files[0], options["heads"]), read_autoencoder(files[1], options.get("vae", VAE))
        for part in (net, vae):
            part.eval().requires_grad_(False).to(where)
        return LatentAudio(card, net, vae, diffusers.DDIMScheduler(**SCHEDULE), text_encoder(words), where)
