"""The networks that enlarge pictures, behind one face, and a picture of any size cut into what they take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backends.denoiser import as_uint8, from_uint8
from backends.lazy import F, torch
from backends.models import ASSETS, Card, device
from backends.restore.resshift import Shift
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
    """`nfe` counts the denoisers' evaluations, one a tile; encoder and decoders are not among them.

    `shift`: the residual shifting that `net["shift"]` and its students were trained for. `relative`: denoisers say what is new beside y0, and of what
    decoders say the low frequencies are left to the small picture, as with those trained here; the published ones (sr_hub.py) say all of it.
    """

    relative = True

    def __init__(self, card: Card, nets: dict, where: str = "cpu"):
        self.card, self.net, self.device, self.nfe, self.elapsed = card, torch.nn.ModuleDict(nets), where, 0, 0.0
        self.shift = Shift()
        for name, net in self.net.items():
            if name not in ("vae", "fa", "liif"):
                net.register_forward_pre_hook(self._count)

    def _count(self, _module, args):
        self.nfe += len(args[0])

    def given(self, small: np.ndarray, size: tuple[int, int]) -> tuple[Tensor, Tensor, int, tuple[int, int]]:
        """The small picture brought to `size`, its edge mirrored to a multiple of what the networks take; what the denoisers see of it and how many px of
        that a latent has a side; the part of the first that is the picture, in px."""
        low = padded(from_uint8(resized(small, size), self.device), MULTIPLE)
        return low, low, FACTOR, size

    def coloured(self, x: Tensor, low: Tensor) -> Tensor:
        """A decoded picture with the colours of `low` where the decoder needs that."""
        return x


def kept(made: Tensor, low: Tensor, factor: float) -> Tensor:
    """(B, C, H, W): the frequencies of `low`, a picture made `factor` times as large, that it knew when it was small, and all others of `made`.

    They part in a Gaussian which lets half through at the small picture's Nyquist frequency, 1/(2·factor) cycles a pixel.
    """
    sigma = 2 * factor * (math.log(2) / 2) ** 0.5 / math.pi
    reach = math.ceil(3 * sigma)
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=made.device) / sigma) ** 2)
    bell = (bell / bell.sum()).expand(made.shape[1], 1, 1, -1)
    off = F.pad(low - made, (reach,) * 4, mode="replicate")
    return made + F.conv2d(F.conv2d(off, bell, groups=len(bell)), bell.mT, groups=len(bell))


def padded(x: Tensor, multiple: int) -> Tensor:
    """The edge mirrored, or, in pictures smaller than that, repeated, down and to the right."""
    pads = [-n % multiple for n in x.shape[-2:]]
    mode = "reflect" if all(p < n for p, n in zip(pads, x.shape[-2:])) else "replicate"
    return F.pad(x, (0, pads[1], 0, pads[0]), mode=mode)


class Canvas:
    """A small picture, and the large one of `size` on its way, in latents (1, C, h, w).

    `low`, `seen`: the small picture as the autoencoder and as the denoisers see it (Upscaler.given). Networks see tiles
    of 256 px that fade into each other at every call, so that all of a picture is at one step.
    """

    def __init__(self, model: Upscaler, small: np.ndarray, size: tuple[int, int]):
        self.model, self.size, self.small = model, size, small
        self.low, self.seen, self.scale, self.span = model.given(small, size)
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
        run = lambda seen, x: net(x, torch.full((len(x),), int(t), device=x.device), seen).float()  # noqa: E731
        return tiled(run, self.tiles, BATCH, (self.seen, self.scale), (x, 1))

    def estimated(self, part: str, x: Tensor, t: int) -> Tensor:
        """x0 as the network `part` has it, from a state x_t of residual shifting."""
        out = self.called(self.model.net[part], self.model.shift.scaled(x, t), t)
        return self.y0 + out if self.model.relative else out

    def decoded(self, z: Tensor, run: Callable[..., Tensor] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 by the plain decoder, or by `run(low, z)`.

        What the small picture says, whole or lost by the autoencoder, is its own: `kept`.
        """
        new = self.on_tiles(run or (lambda low, z: self.model.net["vae"].pixels(z)), z, scale=FACTOR)
        if not self.model.relative:
            return self.cropped(self.model.coloured(new, self.low))
        return self.cropped(kept(new, self.low, self.size[0] / self.small.shape[0]))

    def cropped(self, x: Tensor) -> np.ndarray:
        pixels = as_uint8(x[..., : self.span[0], : self.span[1]])
        return pixels if self.span == self.size else resized(pixels, self.size)

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
