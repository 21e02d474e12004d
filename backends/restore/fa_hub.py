"""The publishers' frequency-augmented decoder of Stable Diffusion's autoencoder (arXiv 2310.12004, `amandaa/moe_sr` on the hub) behind the same Denoiser.

`first_stage_models/kl-f8/fa_vae.pth`: the autoencoder in the original LDM layout, its decoder's `unet_1` the U-Net of AFF blocks before the output
head. It is a pickle, read with `weights_only`. Of the repository no revision was found: the card is offered where the host pins one. Their
super-resolution UNets (`Unet/moe_stage{0..3}.ckpt`), which are not diffusers', are not read.
"""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

from backends import hub
from backends.download import fetch, reading
from backends.lazy import torch
from backends.models import Card
from backends.spec import BadInput

REFINES = "decoder.unet_1."


def load(card: Card):
    """Stable Diffusion of `card.options["base"]`, (repository, revision), with this card's decoder."""
    source, revision = card.options["base"]
    file = fetch(card) / card.options["files"][0]
    model = hub.load(dataclasses.replace(card, source=source, revision=revision, options=card.options["pipeline"]))
    with reading(card):
        refine(model.vae, file)
    model.card = card
    return model


def refine(vae, file: Path) -> None:
    """Give diffusers' AutoencoderKL the weights of `file` and the U-Net that they hold, in front of its output head; raises BadInput for another file."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    from backends.nets.aff import AffUNet

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        extra = {k.removeprefix(REFINES): v for k, v in state.items() if k.startswith(REFINES)}
        unet = AffUNet(vae.decoder.conv_norm_out.num_channels)
        unet.load_state_dict(extra)
        rest = convert_ldm_vae_checkpoint({k: v for k, v in state.items() if not k.startswith(REFINES)}, vae.config)
        missing, other = vae.load_state_dict(rest, strict=False)
    except (RuntimeError, KeyError, AttributeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"{file.name} can't be read as a frequency-augmented autoencoder ({type(error).__name__}); choose fa_vae.pth of kl-f8.") from error
    if lacks := [k for k in missing if k.startswith(("decoder.", "post_quant_conv."))] or other:
        raise BadInput(f"{file.name} is not of this autoencoder ({lacks[0]}); choose fa_vae.pth of kl-f8.")
    vae.decoder.conv_norm_out = torch.nn.Sequential(unet.to(vae.device, vae.dtype), vae.decoder.conv_norm_out)
    vae.eval().requires_grad_(False)
