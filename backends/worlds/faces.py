"""The face world: 64×64 px faces of nobody, and the ways in which a picture of a face goes bad.

The faces were drawn by a generator trained on computer-made heads (`faces_build`). What is committed here no training has seen: `kept()`
to measure on, `examples()` to play with.

Degradations are those of blind face restoration: blur, then fewer pixels, then noise, then JPEG, then back to size (DifFace, arXiv
2212.06512, section 5.1, from Wang et al., arXiv 2101.04061). DifFace draws at 512 px a blur of σ 0.1–15, a factor of 0.8–32, noise of
0–20/255 and a JPEG quality of 30–100. Lengths here are an eighth of that, since the picture is: TRAINED. HARDER has more blur
and fewer pixels than any that is trained on. All of it runs in batches where the pictures are.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from backends.lazy import F, torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "faces"
SIDE = 64
HELD_OUT_SEED = 2**31  # torch's seeds from here on are kept from training; of a CPU's generator only 32 bits count
CANVAS = 80  # px that the smallest factor, 0.8, asks for; a multiple of 16, JPEG's largest block


@dataclass(frozen=True)
class Ranges:
    """From and to: blur σ in px, factor of pixels lost along a side, noise in 1/255, JPEG quality. Factors are drawn evenly in their logarithm."""

    blur: tuple[float, float]
    factor: tuple[float, float]
    noise: tuple[float, float]
    quality: tuple[float, float]


TRAINED = Ranges(blur=(0.0125, 1.875), factor=(0.8, 4), noise=(0, 20), quality=(30, 100))
HARDER = Ranges(blur=(1.875, 2.25), factor=(4, 5), noise=(5, 20), quality=(20, 40))


class Harm(NamedTuple):
    """How each picture of a batch is degraded; all (B,)."""

    blur: Tensor  # σ in px along the first axis; 0: none
    across: Tensor  # σ across it
    angle: Tensor  # of the first axis, in radians
    side: Tensor  # px that are left along a side, whole, 4 to CANVAS
    noise: Tensor  # standard deviation in 1/255
    quality: Tensor  # JPEG quality, 1 to 100


def harm(n: int, ranges: Ranges = TRAINED, generator: Generator | None = None) -> Harm:
    """n degradations at random, half of the blurs round."""
    u = torch.rand(7, n, generator=generator)

    def between(row: int, ends: tuple[float, float]):
        return ends[0] + (ends[1] - ends[0]) * u[row]

    blur, across = between(0, ranges.blur), between(1, ranges.blur)
    factor = between(4, tuple(math.log(f) for f in ranges.factor)).exp()
    return Harm(
        blur, torch.where(u[2] < 0.5, blur, across), math.pi * u[3], (SIDE / factor).round(), between(5, ranges.noise), between(6, ranges.quality).round()
    )


def chosen(blur: float = 0.0, factor: float = 1.0, noise: float = 0.0, quality: float = 100.0, stretch: float = 1.0, degrees: float = 0.0) -> Harm:
    """One degradation as sliders say it; `stretch`: how much longer the blur is along `degrees` than across."""
    return Harm(*(torch.tensor([float(v)]) for v in (blur, blur / stretch, math.radians(degrees), round(SIDE / factor), noise, quality)))


def degrade(faces: Tensor, how: Harm, generator: Generator | None = None) -> Tensor:
    """(B, 3, 64, 64) in [0, 1] to the same, degraded; the generator is that of the faces' device. Larger pictures, of a multiple of 64 px a side,
    are blurred and lose pixels in proportion.

    JPEG's rounding passes no gradient.
    """
    how, larger = Harm(*(part.to(faces.device, torch.float32).expand(len(faces)) for part in how)), faces.shape[-1] // SIDE
    how = how._replace(blur=how.blur * larger, across=how.across * larger, side=how.side * larger)
    x = resized(blurred(faces.float(), how, 16 * larger), SIDE * larger, how.side, CANVAS * larger)
    x = x + torch.randn(x.shape, device=x.device, generator=generator) * (how.noise / 255).view(-1, 1, 1, 1)
    x = jpeg(_edged(x, how.side), how.quality)
    return resized(x, how.side, torch.full_like(how.side, SIDE * larger), SIDE * larger).clamp(0, 1)


def blurred(x: Tensor, how: Harm, pad: int = 16) -> Tensor:
    """By a Gaussian, as a product of spectra; edges are mirrored for `pad` px."""
    h, w = x.shape[-2:]
    wide = F.pad(x, (pad,) * 4, mode="reflect")
    fy = 2 * math.pi * torch.fft.fftfreq(h + 2 * pad, device=x.device).view(1, -1, 1)
    fx = 2 * math.pi * torch.fft.rfftfreq(w + 2 * pad, device=x.device).view(1, 1, -1)
    cos, sin = how.angle.cos().view(-1, 1, 1), how.angle.sin().view(-1, 1, 1)
    along, across = (cos * fx + sin * fy) * how.blur.view(-1, 1, 1), (cos * fy - sin * fx) * how.across.view(-1, 1, 1)
    gain = (-(along.square() + across.square()) / 2).exp()
    out = torch.fft.irfft2(torch.fft.rfft2(wide) * gain[:, None], s=wide.shape[-2:])
    return out[..., pad : pad + h, pad : pad + w]


def resized(x: Tensor, before, after: Tensor, canvas: int) -> Tensor:
    """The top left before×before px of each picture as after×after px at the top left of a canvas, its last row and column repeated.

    Bilinear, smoothed where it shrinks, as PIL's BILINEAR.
    """
    before = torch.as_tensor(before, device=x.device, dtype=x.dtype).expand(len(x)).view(-1, 1, 1)
    after = after.to(x.dtype).view(-1, 1, 1)
    to = torch.minimum(torch.arange(canvas, device=x.device, dtype=x.dtype).view(1, -1, 1), after - 1)
    at = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype).view(1, 1, -1)
    step = before / after
    weights = (1 - (at + 0.5 - (to + 0.5) * step).abs() / step.clamp_min(1)).clamp_min(0) * (at < before)
    weights = (weights / weights.sum(2, keepdim=True))[:, None]
    return weights @ x @ weights.mT


def _edged(x: Tensor, side: Tensor) -> Tensor:
    """What lies beyond side×side px repeats the last row and column."""
    at = torch.minimum(torch.arange(x.shape[-1], device=x.device), side.long()[:, None] - 1)
    x = x.gather(2, at[:, None, :, None].expand(x.shape))
    return x.gather(3, at[:, None, None, :].expand(x.shape))


# The tables of ITU T.81, annex K.
LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
        18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)  # fmt: skip
CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99) + (99,) * 32
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF
RGB = np.linalg.inv(YCC).astype(np.float32)


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] as JPEG of a quality (B,) gives it back, chroma at half size; H and W multiples of 16.

    As libjpeg codes: 8×8 cosines, rounded by its tables. What it rounds between (samples, chroma's mean) is not.
    """
    rgb = (x.clamp(0, 1) * 255).round()
    ycc = torch.tensor(YCC, device=x.device)
    y, chroma = (torch.einsum("ij,bjhw->bihw", ycc, rgb)).split((1, 2), 1)
    scale = torch.where(quality < 50, 5000 / quality.clamp(1, 100), 200 - 2 * quality).floor().view(-1, 1)
    planes = []
    for plane, table, level in ((y, LUMA, 128.0), (F.avg_pool2d(chroma, 2), CHROMA, 0.0)):
        steps = ((scale * torch.tensor(table, device=x.device) + 50) / 100).floor().clamp(1, 255).view(-1, 1, 1, 1, 8, 8)
        planes.append(_coded(plane - level, steps) + level)
    chroma = F.interpolate(planes[1], scale_factor=2, mode="bilinear", align_corners=False)
    return torch.einsum("ij,bjhw->bihw", torch.tensor(RGB, device=x.device), torch.cat([planes[0], chroma], 1)).round().clamp(0, 255) / 255


def _coded(plane: Tensor, steps: Tensor) -> Tensor:
    """Every 8×8 block's cosine coefficients rounded to multiples of `steps`."""
    k = torch.arange(8, device=plane.device, dtype=plane.dtype)
    cosines = torch.cos(math.pi / 8 * k[:, None] * (k + 0.5)) / 2
    cosines[0] *= math.sqrt(0.5)
    blocks = plane.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    blocks = cosines.T @ ((cosines @ blocks @ cosines.T / steps).round() * steps) @ cosines
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)


# --- committed faces -------------------------------------------------------------------------------------------------


def tiles(sheet: np.ndarray) -> np.ndarray:
    """(n, 64, 64, 3) from a sheet of rows of faces."""
    h, w = (side // SIDE for side in sheet.shape[:2])
    return sheet.reshape(h, SIDE, w, SIDE, 3).swapaxes(1, 2).reshape(h * w, SIDE, SIDE, 3)


@functools.cache
def _sheet(name: str) -> np.ndarray:
    faces = tiles(np.asarray(Image.open(ASSETS / f"{name}.webp").convert("RGB")))
    faces.flags.writeable = False
    return faces


def kept() -> np.ndarray:
    """(64, 64, 64, 3) uint8: faces to measure on."""
    return _sheet("kept")


def examples() -> np.ndarray:
    """(12, 64, 64, 3) uint8: other faces, for the page."""
    return _sheet("examples")


def as_tensor(faces: np.ndarray) -> Tensor:
    """(B, 3, 64, 64) in [0, 1]."""
    return torch.tensor(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float() / 255
