"""How a good picture goes bad: noise, blur and rain, each of two makes.

“Synthetic” is the make that a paired training set would have; “real” is another make of the same harm, of which a restorer sees no clean
answers: noise whose grains spread over some pixels, motion in dim light, thicker and slanting rain. All runs in batches where the pictures are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backends.lazy import F, torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

KINDS = ("noise", "blur", "rain")
SIGMA = 50.0  # of noise at strength 1, in 1/255
GRAIN = (0.7, 1.1)  # px: how far a grain of the real noise spreads
OUT_OF_FOCUS = 4.0  # px: σ of the synthetic blur at strength 1
MOTION = 22.0  # px: length of the real blur at strength 1
SPAN = 12  # px from a kernel's middle to its edge


def harmed(clean: Tensor, kind: str, strength: float | Tensor, real: bool = False, generator: Generator | None = None) -> Tensor:
    """(B, 3, H, W) in [0, 1] to the same. `strength`: 0 to 1, one number or (B,); directions and grains are drawn by `generator`, of the pictures' device."""
    amount = torch.as_tensor(strength, device=clean.device, dtype=torch.float32).expand(len(clean)).view(-1, 1, 1, 1)
    make = {"noise": _noise, "blur": _blur, "rain": _rain}[kind]
    return make(clean.float(), amount, real, generator).clamp(0, 1)


def _noise(x: Tensor, amount: Tensor, real: bool, generator) -> Tensor:
    """Gaussian of one deviation; real: the same deviation, but neighbours alike."""
    noise = torch.randn(x.shape, device=x.device, generator=generator)
    if real:
        kernel = gaussian(_between(*GRAIN, x, generator), torch.zeros_like(amount))
        noise = convolved(noise, kernel / kernel.square().sum((2, 3), keepdim=True).sqrt())
    return x + amount * SIGMA / 255 * noise


def _blur(x: Tensor, amount: Tensor, real: bool, generator) -> Tensor:
    """Out of focus (a Gaussian, at times not round), with noise of 1/255; real: moved along a line, with that of dim light, 5/255."""
    angle = _between(0, math.pi, x, generator)
    if real:
        kernel = line(2 + (MOTION - 2) * amount, torch.full_like(amount, 0.6), angle)
    else:
        sigma = 0.3 + OUT_OF_FOCUS * amount
        kernel = gaussian(sigma, angle, sigma * _between(0.6, 1, x, generator))
    return convolved(x, kernel) + torch.randn(x.shape, device=x.device, generator=generator) * (5 if real else 1) / 255


def _rain(x: Tensor, amount: Tensor, real: bool, generator) -> Tensor:
    """Thin streaks that fall, added; real: broad slanting ones that cover what is behind them."""
    slant = _between(-0.3, 0.3, x, generator) if not real else _between(0.5, 1.0, x, generator) * _sign(x, generator)
    length, width = (_between(11, 21, x, generator), 1.1) if real else (_between(7, 15, x, generator), 0.6)
    drops = torch.rand(len(x), 1, *x.shape[2:], device=x.device, generator=generator)
    weight = _between(0.4, 1, drops, generator, drops.shape)
    drops = (drops < 0.006 * (0.4 + amount)).float() * weight
    kernel = line(length, torch.full_like(amount, width), slant + math.pi / 2)
    streaks = (convolved(drops, kernel / kernel.amax((2, 3), keepdim=True)) * (0.3 + (0.6 if real else 0.3) * amount)).clamp(0, 0.9)
    return x * (1 - streaks) + 0.9 * streaks if real else x + streaks


def _between(low: float, high: float, x: Tensor, generator, shape=None) -> Tensor:
    return low + (high - low) * torch.rand(shape or (len(x), 1, 1, 1), device=x.device, generator=generator)


def _sign(x: Tensor, generator) -> Tensor:
    return (torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < 0.5).float() * 2 - 1


def _axes(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Px along and across a direction, (B, 1, K, K) each."""
    at = torch.arange(-SPAN, SPAN + 1, device=angle.device, dtype=torch.float32)
    y, x = at.view(1, 1, -1, 1), at.view(1, 1, 1, -1)
    return angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x


def gaussian(sigma: Tensor, angle: Tensor, across: Tensor | None = None) -> Tensor:
    """(B, 1, K, K) kernels of sum 1; all arguments (B, 1, 1, 1), σ in px along `angle` and across it."""
    along, over = _axes(angle)
    kernel = (-(along / sigma).square() / 2 - (over / (sigma if across is None else across)).square() / 2).exp()
    return kernel / kernel.sum((2, 3), keepdim=True)


def line(length: Tensor, width: Tensor, angle: Tensor) -> Tensor:
    """(B, 1, K, K) kernels of sum 1: a stroke `length` px long and, as a Gaussian's σ, `width` px broad."""
    along, over = _axes(angle)
    kernel = (length / 2 - along.abs() + 0.5).clamp(0, 1) * (-(over / width).square() / 2).exp()
    return kernel / kernel.sum((2, 3), keepdim=True)


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """Each picture with its own kernel, as a product of spectra; edges are mirrored. Pictures smaller than SPAN repeat their edge."""
    h, w = x.shape[-2:]
    wide = F.pad(x, (SPAN,) * 4, mode="reflect" if min(h, w) > SPAN else "replicate")
    size = wide.shape[-2:]
    centred = torch.zeros(len(kernel), 1, *size, device=x.device)
    centred[..., : 2 * SPAN + 1, : 2 * SPAN + 1] = kernel
    out = torch.fft.irfft2(torch.fft.rfft2(wide) * torch.fft.rfft2(centred.roll((-SPAN, -SPAN), (2, 3))), s=size)
    return out[..., SPAN : SPAN + h, SPAN : SPAN + w]
