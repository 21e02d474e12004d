"""What the proofs of enlarging share: held-out crops, pictures of the arms, figures a picture."""

import time

import numpy as np
import torch

from backends import METHODS
from backends.denoiser import from_uint8
from backends.metrics import perceptual
from backends.restore.upscale_task import Upscale, given
from backends.spec import Result, Step
from backends.worlds import photos
from backends.worlds.photos_harm import high_band, psnr

SIDE, FACTOR = 128, 4


def jobs(seed: int, n: int, side: int = SIDE, factor: float = FACTOR) -> list[Upscale]:
    """Crops of scikit-image's photographs, which no training saw, to be made smaller first."""
    return [Upscale(image=crop, factor=factor, shrink=True, seed=1000 * seed + i) for i, crop in enumerate(photos.test_crops(n, side, seed))]


def drawn(model, slug: str, asked: list[Upscale], **knobs) -> torch.Tensor:
    """(n, 3, H, W) in [-1, 1]: each job's result."""
    found = []
    for job in asked:
        with torch.no_grad():
            *_, last = (event for event in METHODS[slug].function(job, model, **knobs) if isinstance(event, Step | Result))
        found.append(from_uint8(last.value.pixels))
    return torch.cat(found)


def originals(asked: list[Upscale]) -> torch.Tensor:
    return torch.cat([from_uint8(given(job).reference) for job in asked])


def figures(made: torch.Tensor, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Each picture's PSNR in dB, LPIPS-like, and |ln| of its high band's energy against the original's."""
    with torch.no_grad():
        off = (high_band(made) / high_band(x).clamp_min(1e-9)).clamp_min(1e-9).log().abs()
        return {"PSNR": psnr(made, x).numpy(), "LPIPS-like": perceptual.distance(made, x).numpy(), "|ln high band|": off.numpy()}


def seconds(run, times: int = 3) -> float:
    """The least of some runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        with torch.no_grad():
            run()
        found.append(time.perf_counter() - start)
    return min(found)
