"""Figures under each arm of “Clean a photo”: how near it comes to the good picture, or, where there is none, how it looks by itself."""

import numpy as np

from backends.image.conditions import LUMA
from backends.metrics.image import psnr, sharpness, ssim
from backends.restore import clean_task
from backends.restore.clean_task import CleanPhoto
from backends.spec import Image, Media, Metric

LARGEST = 512  # px of a side for LPIPS-like, whose features take memory


def clean_photo(job: CleanPhoto, value: Media, reference: Media | None) -> list[Metric]:
    if not isinstance(value, Image):
        return []
    given = clean_task.harmed(job)
    if value.pixels.shape != given.shape:  # stopped while only a part was shown
        return []
    if not job.strength:
        return [
            Metric("sharpness", sharpness(value.pixels), "", f"{sharpness(given):.3g} as given"),
            Metric("structure in what was taken out", pattern(given, value.pixels), "lower", "correlation of neighbours; white noise has 0"),
        ]
    return [
        Metric("PSNR, dB", psnr(value.pixels, job.image), "higher", f"{psnr(given, job.image):.2f} as given"),
        Metric("SSIM", ssim(value.pixels, job.image), "higher", f"{ssim(given, job.image):.3f} as given"),
        Metric("LPIPS-like", lpips(value.pixels, job.image), "lower", f"{lpips(given, job.image):.3f} as given"),
    ]


def lpips(a: np.ndarray, b: np.ndarray) -> float:
    from backends import inputs
    from backends.denoiser import from_uint8
    from backends.metrics import perceptual
    from backends.models import device

    one, two = (from_uint8(inputs.shrunk(p, LARGEST), device()) for p in (a, b))
    return float(perceptual.distance(one, two))


def pattern(given: np.ndarray, made: np.ndarray) -> float:
    """Correlation of what was taken out with itself a pixel further, the mean of down and across: 0 for white noise, near 1 for shapes."""
    rest = (given.astype(float) - made) @ np.array(LUMA)
    rest -= rest.mean()
    power = max(float((rest**2).mean()), 1e-12)
    return float(((rest[1:] * rest[:-1]).mean() + (rest[:, 1:] * rest[:, :-1]).mean()) / (2 * power))
