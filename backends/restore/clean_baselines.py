"""What stands beside Noise-DA without a network: scikit-image's filters."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from backends.registry import method
from backends.restore import clean_task
from backends.restore.clean_task import CLEAN_PHOTO, CleanPhoto
from backends.spec import Events, Image, Result, Slider, Step

Reach = Annotated[
    float,
    Slider(0.2, 3, 0.1, help="noise: how alike patches must be, in deviations of the noise; blur: σ of the blur that is undone, in px; rain: px of the window"),
]


@method("classical", task=CLEAN_PHOTO, needs={"photo"}, paper=False)
def classical(job: CleanPhoto, model, reach: Reach = 1.0) -> Events:
    """Classical filter.

    No learning: patches that look alike are averaged against noise, a Wiener filter undoes a Gaussian blur, and what stands out brightly from the
    pixels beside it is taken for rain.

    scikit-image: `denoise_nl_means` with σ from the finest detail (Buades et al. 2005), `wiener`, and the smaller of the picture and a morphological
    opening across, where they differ by more than a twentieth.
    """
    pixels = clean_task.harmed(job)
    made = {"noise": _alike, "blur": _wiener, "rain": _opened}[job.harm](pixels.astype(np.float32) / 255, reach)
    value = Image((made.clip(0, 1) * 255).round().astype(np.uint8), before=pixels)
    yield Step(1, 1, value)
    yield Result(value)


def _alike(x: np.ndarray, reach: float) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    fine = (x[1:, 1:] - x[1:, :-1] - x[:-1, 1:] + x[:-1, :-1]) / 2  # Haar's diagonal detail, whose median tells σ (Donoho & Johnstone 1994)
    sigma = float(np.median(np.abs(fine)) / 0.6745)
    return denoise_nl_means(x, patch_size=5, patch_distance=6, h=0.8 * reach * max(sigma, 1e-3), sigma=sigma, fast_mode=True, channel_axis=-1)


def _wiener(x: np.ndarray, reach: float) -> np.ndarray:
    from skimage.restoration import wiener

    at = np.arange(-12, 13)
    kernel = np.exp(-(at[:, None] ** 2 + at**2) / (2 * (2 * reach) ** 2))
    wide = np.pad(x, ((24, 24), (24, 24), (0, 0)), mode="symmetric")  # else the picture's edges ring
    made = np.stack([wiener(wide[..., c], kernel / kernel.sum(), balance=0.05, clip=False) for c in range(3)], -1)
    return made[24:-24, 24:-24]


def _opened(x: np.ndarray, reach: float) -> np.ndarray:
    from skimage.morphology import opening

    size = 2 * round(2 * reach) + 1
    made = np.stack([opening(x[..., c], np.ones((1, size), np.uint8)) for c in range(3)], -1)
    return np.where((x - made).min(-1, keepdims=True) > 0.05, made, x)
