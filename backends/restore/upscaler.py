"""The networks that enlarge pictures, behind one face, and a picture of any size cut into what they take."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from backends.denoiser import as_uint8, from_uint8
from backends.lazy import F, torch
from backends.models import ASSETS, Card, device
from backends.restore.tiling import Tiles, tiled
from backends.restore.upscale_task import resized
from backends.spec import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

TILE, OVERLAP, BATCH = 64, 16, 4  # latents a side of a tile and that two share; tiles at once
FACTOR, MULTIPLE = 4, 16  # px a latent; px of which the networks' pictures are multiples
STAGES = 4


class Upscaler:
    """`nfe` counts the denoisers' evaluations, one a tile; encoder and decoders are not among them."""

    def __init__(self, card: Card, nets: dict, where: str = "cpu"):
        self.card, self.net, self.device, self.nfe, self.elapsed = card, torch.nn.ModuleDict(nets), where, 0, 0.0
        for name, net in self.net.items():
            if name not in ("vae", "fa", "liif"):
                net.register_forward_pre_hook(self._count)

    def _count(self, _module, args):
        self.nfe += len(args[0])

    @contextlib.contextmanager
    def uncounted(self):
        """What is evaluated for the eye alone costs the arm nothing."""
        nfe = self.nfe
        try:
            yield
        finally:
            self.nfe = nfe


class Canvas:
    """A small picture, and the large one of `size` on its way, in latents (1, 8, h, w).

    `low`: the small picture brought to that size, its edge mirrored to a multiple of MULTIPLE; what every network sees. Networks see tiles
    of 256 px that fade into each other at every call, so that all of a picture is at one step.
    """

    def __init__(self, model: Upscaler, small: np.ndarray, size: tuple[int, int]):
        self.model, self.size, self.small = model, size, small
        self.low = from_uint8(resized(small, size), model.device)
        pads = [-n % MULTIPLE for n in size]
        mode = "reflect" if all(p < n for p, n in zip(pads, size)) else "replicate"
        self.low = F.pad(self.low, (0, pads[1], 0, pads[0]), mode=mode)
        self.shape = tuple(n // FACTOR for n in self.low.shape[-2:])
        self.tiles = Tiles(*self.shape, TILE, OVERLAP)
        self.broad = 1.5 * max(2.0, size[0] / small.shape[0])  # px: σ from which on the small picture is to be believed

    def noise(self, generator) -> Tensor:
        from backends.nets.sr_vae import CHANNELS

        return torch.randn((1, CHANNELS, *self.shape), generator=generator).to(self.model.device)

    @property
    def y0(self) -> Tensor:
        """The latents of `low`."""
        return self.model.net["vae"].latents(self.low)

    def on_tiles(self, run: Callable[..., Tensor], *latents: Tensor, scale: int = 1) -> Tensor:
        """`run(low, *latents)` tile by tile, its answers `scale` times the latents' size."""
        return tiled(run, self.tiles, BATCH, (self.low, FACTOR), *((z, 1) for z in latents), scale=scale)

    def called(self, net, x: Tensor, t: int) -> Tensor:
        """A denoiser's answer."""
        return self.on_tiles(lambda low, x: net(x, torch.full((len(x),), int(t), device=x.device), low).float(), x)

    def decoded(self, z: Tensor, run: Callable[..., Tensor] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 by the plain decoder, or by `run(low, z)`; broad colours are those of `low`."""
        run = run or (lambda low, z: self.model.net["vae"].pixels(z))
        return self.cropped(recoloured(self.on_tiles(run, z, scale=FACTOR), self.low, self.broad))

    def cropped(self, x: Tensor) -> np.ndarray:
        return as_uint8(x[..., : self.size[0], : self.size[1]])

    def preview(self, z: Tensor) -> Image:
        """What z shows by the linear way back, at once."""
        return Image(self.cropped(self.model.net["vae"].linear(z)))


def recoloured(x: Tensor, low: Tensor, sigma: float) -> Tensor:
    """x with what is broader than `sigma` px taken from `low`: StableSR's colour correction (arXiv 2305.07015), a Gaussian for its wavelets."""
    return x + blurred(low, sigma) - blurred(x, sigma)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """By a Gaussian, edges repeated."""
    reach = round(3 * sigma)
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = (-(at**2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None], groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), kernel[..., None], groups=x.shape[1])


def load_embedded(card: Card) -> Upscaler:
    from backends.nets import eight_bits
    from backends.nets.sr_decoders import FaDecoder, LiifDecoder
    from backends.nets.sr_unet import SrUNet
    from backends.nets.sr_vae import SrAutoencoder

    where = device()
    folders = {"shift": "shift", "student": "student", "regression": "student-ld", "single": "moe/single", "aligned": "aligned"}
    folders |= {f"stage{i}": f"moe/stage{i}" for i in range(STAGES)}
    kinds = {"vae": SrAutoencoder, "fa": FaDecoder, "liif": LiifDecoder}
    nets = {name: eight_bits.load(kind, ASSETS / card.source / name) for name, kind in kinds.items()}
    nets |= {name: eight_bits.load(SrUNet, ASSETS / card.source / folder) for name, folder in folders.items()}
    for net in nets.values():
        net.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)
    return Upscaler(card, nets, where)
