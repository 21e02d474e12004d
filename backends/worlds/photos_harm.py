"""How pictures of the photo world lose pixels, in batches where the pictures are: for training and its held-out figures.

Bicubic down as PIL does it, at times noise and JPEG on the small picture (worlds/faces.py's codec), and bicubic back to size, which is
what the networks look at.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from backends.lazy import F, torch
from backends.worlds.faces import YCC, jpeg

if TYPE_CHECKING:
    from torch import Tensor

SIDES, ODDS = (16, 32, 48, 64, 96), (0.12, 0.55, 0.13, 0.12, 0.08)  # px that are left of 128; multiples of 16, for the codec
DIRTY = 0.4  # share of small pictures with noise up to 8/255 and JPEG from quality 60 on


def scaled(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bicubic (a = −0.5), smoothed where it shrinks: PIL's to within rounding."""
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)


def small(x: Tensor, side: int, rng=None, dirty: float = 0.0) -> Tensor:
    """(B, 3, side, side) in [-1, 1] of square pictures, rounded to 8 bits; a share `dirty` of them with noise and JPEG."""
    y = scaled(x, side).clamp(-1, 1) / 2 + 0.5
    if dirty:
        draw = lambda *shape: torch.rand(shape, device=x.device, generator=rng)  # noqa: E731
        noisy = y + torch.randn(y.shape, device=x.device, generator=rng) * draw(len(y), 1, 1, 1) * 8 / 255
        y = torch.where(draw(len(y), 1, 1, 1) < dirty, jpeg(noisy, (60 + 40 * draw(len(y))).round()), y)
    return (y * 255).round().clamp(0, 255) / 127.5 - 1


def lowered(x: Tensor, rng=None, dirty: float = DIRTY, parts: int = 4) -> Tensor:
    """What a network sees of (B, 3, 128, 128): `parts` of the batch, each at a size of its own, brought back to 128 px."""
    sides = random.choices(SIDES, ODDS, k=parts)
    return torch.cat([scaled(small(part, side, rng, dirty), x.shape[-1]).clamp(-1, 1) for part, side in zip(x.chunk(parts), sides)])


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B,) PSNR in dB of pictures in [-1, 1]."""
    return -10 * ((a.clamp(-1, 1) - b) / 2).square().mean((1, 2, 3)).clamp_min(1e-10).log10()


def high_band(x: Tensor, above: float = 0.25) -> Tensor:
    """(B,) energy of the luma at spatial frequencies from `above` cycles a pixel on, a pixel."""
    grey = (x.float() * x.new_tensor(YCC[0]).view(3, 1, 1)).sum(1) * torch.outer(torch.hann_window(x.shape[-2]), torch.hann_window(x.shape[-1])).to(x)
    fy, fx = torch.fft.fftfreq(x.shape[-2], device=x.device)[:, None], torch.fft.rfftfreq(x.shape[-1], device=x.device)
    far = (fy.square() + fx.square()).sqrt() >= above
    return (torch.fft.rfft2(grey, norm="ortho").abs().square() * far).sum((1, 2)) / grey[0].numel()
