"""The networks that enlarge pictures, behind one face, and a picture of any size cut into what they take."""

from __future__ import annotations

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
PREVIEW = 64  # latents a side of a preview
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


class Canvas:
    """A small picture, and the large one of `size` on its way, in latents (1, 8, h, w).

    `low`: the small picture brought to that size, its edge mirrored to a multiple of MULTIPLE; what every network sees. Networks see tiles
    of 256 px that fade into each other at every call, so that all of a picture is at one step.
    """

    def __init__(self, model: Upscaler, small: np.ndarray, size: tuple[int, int]):
        self.model, self.size, self.small = model, size, small
        low = from_uint8(resized(small, size), model.device)
        pads = [-n % MULTIPLE for n in size]
        mode = "reflect" if all(p < n for p, n in zip(pads, size)) else "replicate"
        self.low = F.pad(low, (0, pads[1], 0, pads[0]), mode=mode)
        self.shape = tuple(n // FACTOR for n in self.low.shape[-2:])
        self.tiles = Tiles(*self.shape, TILE, OVERLAP)
        self.y0 = self.on_tiles(model.net["vae"].latents)  # the latents of `low`

    def noise(self, generator) -> Tensor:
        return torch.randn(self.y0.shape, generator=generator).to(self.y0)

    def on_tiles(self, run: Callable[..., Tensor], *latents: Tensor, scale: int = 1) -> Tensor:
        """`run(low, *latents)` tile by tile, its answers `scale` times the latents' size."""
        return tiled(run, self.tiles, BATCH, (self.low, FACTOR), *((z, 1) for z in latents), scale=scale)

    def called(self, net, x: Tensor, t: int) -> Tensor:
        """A denoiser's answer."""
        return self.on_tiles(lambda low, x: net(x, torch.full((len(x),), int(t), device=x.device), low).float(), x)

    def decoded(self, z: Tensor, run: Callable[..., Tensor] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 by the plain decoder, or by `run(low, z)`.

        What the autoencoder loses of the small picture is given back: low + D(z) − D(y0). Latents that say nothing new give `low`.
        """
        run = run or (lambda low, z: self.model.net["vae"].pixels(z))
        new, old = (self.on_tiles(run, part, scale=FACTOR) for part in (z, self.y0))
        return self.cropped(self.low + new - old)

    def cropped(self, x: Tensor) -> np.ndarray:
        return as_uint8(x[..., : self.size[0], : self.size[1]])

    def preview(self, z: Tensor) -> Image:
        """What z shows, at once: half or a quarter of the size where the picture is large, for half the latents decode to half the picture."""
        h, w = (n / FACTOR for n in self.size)
        while max(z.shape[-2:]) > PREVIEW:
            z, h, w = F.avg_pool2d(z, 2, ceil_mode=True), h / 2, w / 2
        pixels = as_uint8(self.model.net["vae"].pixels(z))
        return Image(pixels[: max(1, round(FACTOR * h)), : max(1, round(FACTOR * w))])


def load_embedded(card: Card) -> Upscaler:
    from backends.nets import eight_bits
    from backends.nets.sr_decoders import FaDecoder, LiifDecoder
    from backends.nets.sr_unet import SrUNet
    from backends.nets.sr_vae import SrAutoencoder

    where = device()
    folders = {"shift": "shift", "student": "student", "regression": "student-ld", "single": "moe/single", "aligned": "aligned"}
    folders |= {f"stage{i}": f"moe/stage{i}" for i in range(STAGES)}
    home = ASSETS / card.source
    nets = {"vae": SrAutoencoder.from_pretrained(home / "vae", torch_dtype=torch.float32),
            "fa": eight_bits.load(FaDecoder, home / "fa"), "liif": eight_bits.load(LiifDecoder, home / "liif")}  # fmt: skip
    nets |= {name: eight_bits.load(SrUNet, home / folder) for name, folder in folders.items()}
    for net in nets.values():
        net.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)
    return Upscaler(card, nets, where)
