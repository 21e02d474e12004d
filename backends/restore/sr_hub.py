"""The publishers' checkpoints of ResShift (zsyOAOA), of one-step students in its form (TAD-SR, SinSR) and of MoE-SR (amandaa/moe_sr), as an Upscaler.

ResShift's lie in its repository's releases: the host names a folder with `resshift_*.pth` and `autoencoder_vq_f4.pth`. TAD-SR's authors have released no
weights that we know; a student of ResShift has its teacher's layout, so one named `tadsr*.pth` or `SinSR*.pth` beside those two is read. MoE-SR's are
`moe_stage0.ckpt` to `moe_stage3.ckpt` and `vq-f4/fa_vae.pth`. Pickles are read with `weights_only`.

These networks predict x0 or ε outright and their decoders a whole picture, so nothing is given back or drawn towards the small picture (`relative`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from backends.denoiser import from_uint8
from backends.download import fetch, reading
from backends.lazy import F, diffusers, torch
from backends.models import Card, device
from backends.restore.face_hub import file_in, tensors
from backends.restore.resshift import Shift
from backends.restore.upscale_task import resized
from backends.restore.upscaler import FACTOR, STAGES, Upscaler, padded
from backends.spec import BadInput

if TYPE_CHECKING:
    from torch import Tensor

VQ = dict(channels=(128, 256, 512), layers=2, codes=8192)  # autoencoder_vq_f4
STARTS = {15: 0.02, 4: 0.1}  # √η_1 by the chain's length: the configurations' least noise 0.04 and 0.2, divided by κ
NET = "model.diffusion_model."


class Published(Upscaler):
    """Its denoisers see the small picture as it is, one px a latent; its edge is mirrored to a multiple of `multiple` px of that."""

    relative, multiple, colours = False, 64, False

    def given(self, small, size):
        at = tuple(-(-n // FACTOR) for n in size)
        seen = padded(from_uint8(resized(small, at), self.device), self.multiple)
        return F.interpolate(seen, scale_factor=FACTOR, mode="bicubic"), seen, 1, tuple(FACTOR * n for n in at)

    def coloured(self, x: Tensor, low: Tensor) -> Tensor:
        """MoE-SR's colour correction: each channel with the mean and the deviation of `low`'s (AdaIN)."""
        if not self.colours:
            return x
        apart = lambda v: (v.var((2, 3), keepdim=True) + 1e-5).sqrt()  # noqa: E731
        return (x - x.mean((2, 3), keepdim=True)) / apart(x) * apart(low) + low.mean((2, 3), keepdim=True)


def vq(state: dict[str, Tensor]):
    """diffusers' VQModel of tensors in LDM's names, called as the embedded autoencoder is."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    n = len(VQ["channels"])
    net = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n, block_out_channels=VQ["channels"], layers_per_block=VQ["layers"],
        latent_channels=3, num_vq_embeddings=VQ["codes"], scaling_factor=1.0,
    )  # fmt: skip
    net.load_state_dict(convert_ldm_vae_checkpoint(state, net.config) | {"quantize.embedding.weight": state["quantize.embedding.weight"]})

    class Autoencoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def latents(self, x):
            return self.net.encode(x).latents.float()

        def pixels(self, z):
            return self.net.decode(z).sample.float()

    return Autoencoder()


def refiner_of(state: dict[str, Tensor]):
    """MoE-SR's decoder around the autoencoder's own: the encoder's features of the small picture fused in, a U-Net of AFF blocks before the head."""
    from backends.nets.aff import AffUNet
    from backends.nets.published_sr import Fusion

    class Refiner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fusion_layer_1, self.unet_1 = Fusion(VQ["channels"][1]), AffUNet(VQ["channels"][0])

        def forward(self, vae, z, low):
            encoder, decoder = vae.net.encoder, vae.net.decoder
            seen = encoder.down_blocks[0](encoder.conv_in(low))
            for block in encoder.down_blocks[1].resnets:
                seen = block(seen, None)
            h = decoder.mid_block(decoder.conv_in(vae.net.post_quant_conv(vae.net.quantize(z)[0])))
            h = decoder.up_blocks[0](h)
            for block in decoder.up_blocks[1].resnets:
                h = block(h, None)
            h = decoder.up_blocks[1].upsamplers[0](self.fusion_layer_1(seen, h))
            h = decoder.conv_norm_out(self.unet_1(decoder.up_blocks[2](h)))
            return decoder.conv_out(F.silu(h)).float()

    net = Refiner()
    net.load_state_dict({k.removeprefix("decoder."): v for k, v in state.items() if k.startswith(("decoder.fusion_layer_1.", "decoder.unet_1."))})
    return net


def swin(path: Path):
    from backends.nets import published_sr

    net = published_sr.SwinUNet(**published_sr.RESSHIFT)
    net.load_state_dict(tensors(path))
    return net


def resshift(card: Card) -> Upscaler:
    """ResShift's network, and a student's where the card says so."""
    folder = Path(card.source)
    teacher, autoencoder = file_in(folder, card.title, "resshift_*.pth"), file_in(folder, card.title, "autoencoder_vq_f4*.pth")
    steps = re.search(r"_s(\d+)", teacher.name)
    if steps is None or int(steps[1]) not in STARTS:
        raise BadInput(f"{teacher.name} does not say how many steps it takes; keep the publishers' name, with _s15 or _s4 in it.")
    nets = {"vae": vq(tensors(autoencoder)), "shift": swin(teacher)}
    if "tadsr" in card.capabilities:
        nets["student"] = swin(file_in(folder, card.title, "tadsr*.pth", "SinSR*.pth"))
    model = Published(card, nets, device())
    model.shift = Shift(int(steps[1]), start=STARTS[int(steps[1])])
    return model


def averages(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's tensors of a Lightning checkpoint: the moving averages, kept under names without dots, where there are some."""
    found = {k.removeprefix(NET): v for k, v in state.items() if k.startswith(NET)}
    return {k: state.get("model_ema." + f"diffusion_model.{k}".replace(".", ""), v) for k, v in found.items()}


def moe_sr(card: Card) -> Upscaler:
    from backends.nets import published_sr

    folder = fetch(card)
    decoder = tensors(found_in(folder, card, "vq-f4/fa_vae.pth", "fa_vae.pth"))
    nets = {"vae": vq({k: v for k, v in decoder.items() if not k.startswith(("decoder.fusion_layer_1.", "decoder.unet_1."))}), "fa": refiner_of(decoder)}
    for i in range(STAGES):
        net = published_sr.MoeUNet(**published_sr.MOE)
        net.load_state_dict(published_sr.averaged(averages(tensors(found_in(folder, card, f"moe_stage{i}.ckpt")))))
        nets[f"stage{i}"] = net
    model = Published(card, nets, device())
    model.colours = True
    return model


def found_in(folder: Path, card: Card, *names: str) -> Path:
    """The first of `names` that lies somewhere under a folder; raises BadInput."""
    for name in names:
        if found := sorted(folder.rglob(name)):
            return found[0]
    raise BadInput(f"{card.title} lacks {names[0]}; the folder that the host names in UNNOISE_MODELS must hold it.")


def load(card: Card) -> Upscaler:
    """Find, read and place a checkpoint; raises BadInput when there is none or it can't be read."""
    # torch.load tells of a broken or refused file in many ways.
    with reading(card, Exception, mend="they must be as the publishers released them", other="the embedded model"):
        model = {"resshift": resshift, "moe_sr": moe_sr}[card.options["kind"]](card)
        model.net.eval().requires_grad_(False).to(model.device)
    return model
