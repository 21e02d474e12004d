"""Figures under each arm of “Enlarge a picture”: how near it comes to the original, or, where there is none, how sharp it is."""

import numpy as np

from backends.denoiser import from_uint8
from backends.lazy import F
from backends.metrics import perceptual
from backends.metrics.image import psnr, sharpness, ssim
from backends.models import device
from backends.restore.upscale_task import Upscale, given, resized
from backends.spec import Image, Media, Metric
from backends.worlds.photos_harm import high_band

LARGEST = 768  # px of a side that LPIPS-like looks at, the middle of a larger picture: its features take memory


def upscale(job: Upscale, value: Media, reference: Media | None) -> list[Metric]:
    if not isinstance(value, Image):
        return []
    source = given(job)
    pixels = value.pixels if value.pixels.shape[:2] == source.size else resized(value.pixels, source.size)  # a stopped arm's preview
    small = resized(source.small, source.size)
    again = psnr(resized(pixels, source.small.shape[:2]), source.small)
    own = [
        Metric("sharpness", sharpness(pixels), "", f"{sharpness(small):.3g} bicubic"),
        Metric("shrunk again, dB", again, "higher", "PSNR to the small picture"),
    ]
    if source.reference is None:
        return own
    energy = band(source.reference)
    return [
        Metric("PSNR, dB", psnr(pixels, source.reference), "higher", f"{psnr(small, source.reference):.2f} bicubic"),
        Metric("SSIM", ssim(pixels, source.reference), "higher", f"{ssim(small, source.reference):.3f} bicubic"),
        Metric("LPIPS-like", lpips(pixels, source.reference), "lower", f"{lpips(small, source.reference):.3f} bicubic"),
        Metric("high band, % of the original's", 100 * band(pixels) / energy if energy else 0.0, "", f"{100 * band(small) / energy if energy else 0:.0f} bicubic"),
        *own,
    ]  # fmt: skip


def lpips(a: np.ndarray, b: np.ndarray) -> float:
    top, left = (max(0, (n - LARGEST) // 2) for n in a.shape[:2])
    one, two = (from_uint8(p[top : top + LARGEST, left : left + LARGEST], device()) for p in (a, b))
    if min(one.shape[-2:]) < 32:
        one, two = (F.interpolate(x, scale_factor=4) for x in (one, two))
    return float(perceptual.distance(one, two))


def band(pixels: np.ndarray) -> float:
    """Energy at the upper half of the spatial frequencies."""
    return float(high_band(from_uint8(pixels)))
