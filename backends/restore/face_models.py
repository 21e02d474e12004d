"""The face world's networks behind one face: a restorer, a prior on pixels, and what works on latents. Their loader.

Pictures are (B, 3, 64, 64) in [-1, 1], latents (B, 4, 16, 16).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.lazy import torch
from backends.models import ASSETS, Card, device
from backends.restore.consistency import boundary, embedded

if TYPE_CHECKING:
    from torch import Tensor

COUNTED = ("restorer", "pixels", "lcm", "finisher")  # networks whose calls are function evaluations


class FaceModel:
    """`nets`: by name: restorer, pixels, vae, lcm, encoders, adapter, encoder, finisher; `bars`: ᾱ by timestep of "pixels" and "latents".

    `nfe` counts evaluations of restorer, priors and finisher, one a row; the encoders', the codebook's and the autoencoder's are not among them.
    """

    guidance = 2.0  # that the consistency model is told

    def __init__(self, card: Card, nets: dict, bars: dict[str, Tensor], where: str = "cpu"):
        self.card, self.net, self.device, self.side, self.nfe = card, torch.nn.ModuleDict(nets), where, card.side, 0
        self.bars = {name: bar.to(where) for name, bar in bars.items()}
        for name in set(COUNTED) & set(nets):
            self.net[name].register_forward_pre_hook(self._count)

    def _count(self, _module, args):
        self.nfe += len(args[0])

    def noise(self, like: Tensor, seed: int):
        """A function that gives standard normal noise like a tensor, draw by draw; the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        return lambda: torch.randn(like.shape, generator=generator).to(like)

    # --- pixels ---

    def restore(self, y: Tensor) -> Tensor:
        """f(y), the restorer's estimate of the face."""
        return self.net["restorer"].restore(y)

    def noise_in(self, x: Tensor, t: int) -> Tensor:
        """ε of the unconditional prior on pixels."""
        return self.net["pixels"](x, torch.full((len(x),), t, device=x.device)).sample

    # --- latents ---

    def encode(self, pictures: Tensor) -> Tensor:
        return self.net["vae"].encode(pictures).latent_dist.mean * self.net["vae"].config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        return self.net["vae"].decode(z / self.net["vae"].config.scaling_factor).sample.clamp(-1, 1)

    def prompt(self, pictures: Tensor) -> Tensor:
        """What the networks on latents are asked for: the face in these pictures."""
        from backends.nets.face_prompt import prompt

        return prompt(pictures)

    def mended(self, tokens: Tensor) -> Tensor:
        """InterLCM's visual encoder: a degraded face's tokens to a prompt."""
        return self.net["encoders"].context(tokens)

    def consistency(self, z: Tensor, t: int, context: Tensor, picture: Tensor | None = None) -> Tensor:
        """f(z, t), the consistency model's estimate of x0; with a degraded picture the spatial encoder tells it where things are."""
        at, more = torch.full((len(z),), t, device=z.device), {}
        if picture is not None:
            project = self.net["lcm"].encoder_hid_proj or torch.nn.Identity()
            down, middle = self.net["encoders"].residuals(z, at, project(context), picture)
            more = dict(down_block_additional_residuals=down, mid_block_additional_residual=middle)
        w = embedded(torch.full((len(z),), self.guidance, device=z.device), self.net["lcm"].config.time_cond_proj_dim)
        eps, a = self.net["lcm"](z, at, encoder_hidden_states=context, timestep_cond=w, **more).sample, self.bars["latents"][t]
        return boundary(z, (z - (1 - a).sqrt() * eps) / a.sqrt(), t)

    def finisher(self, z: Tensor, t: int) -> Tensor:
        """ε of the latent prior after LAFR's change, which is asked for nothing."""
        from backends.nets.face_prompt import TOKENS, WIDTH

        return self.net["finisher"](z, torch.full((len(z),), t, device=z.device), encoder_hidden_states=z.new_zeros(len(z), TOKENS, WIDTH)).sample


def load_embedded(card: Card) -> FaceModel:
    import diffusers

    from backends.nets.face_encoders import FaceEncoders
    from backends.nets.face_unet import FaceUNet
    from backends.nets.latent_adapter import CodebookAdapter, LatentEncoder
    from backends.nets.patch_vae import PatchAutoencoderKL
    from backends.text import adapter

    unet = diffusers.UNet2DConditionModel
    parts = {
        "restorer": (FaceUNet, "faces-restorer"), "pixels": (FaceUNet, "faces-pixels"), "vae": (PatchAutoencoderKL, "faces-vae"), "lcm": (unet, "faces-lcm"),
        "encoders": (FaceEncoders, "faces-interlcm"), "adapter": (CodebookAdapter, "faces-lafr/adapter"), "encoder": (LatentEncoder, "faces-lafr/encoder"),
        "finisher": (unet, "faces-ldm"),
    }  # fmt: skip
    where = device()
    nets = {name: kind.from_pretrained(ASSETS / folder, torch_dtype=torch.float32) for name, (kind, folder) in parts.items()}
    adapter.apply(nets["finisher"], ASSETS / "faces-lafr" / "prior" / "adapter.safetensors")
    for net in nets.values():
        net.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)
    bars = {
        name: diffusers.DDIMScheduler.from_pretrained(ASSETS / folder).alphas_cumprod for name, folder in (("pixels", "faces-pixels"), ("latents", "faces-ldm"))
    }
    model = FaceModel(card, nets, bars, where)
    x = torch.zeros(1, 3, card.side, card.side, device=where)
    model.noise_in(model.restore(x), 0)  # kernels are chosen now, not in the first arm's time
    model.decode(model.consistency(model.encode(x), 499, model.prompt(x)))
    model.nfe = 0
    return model
