"""Figures under each arm of “Spectral cube”: how near it comes to the good cube, or, where there is none, how it looks by itself."""

import numpy as np

from backends.metrics.image import ssim
from backends.restore.cube_task import Problem, RestoreCube
from backends.spec import Cube, Media, Metric


def restore_cube(job: RestoreCube, value: Media, reference: Media | None) -> list[Metric]:
    if not isinstance(value, Cube):
        return []
    given = Problem(job).given.values
    if not job.harm:
        return [Metric("jumps from band to band", jumps(value.values), "", f"{jumps(given):.3g} as given" if given.shape == value.values.shape else "")]
    clean = job.cube.values
    return [
        Metric("PSNR, dB", psnr(value.values, clean), "higher", f"mean of the bands; {psnr(given, clean):.2f} as given"),
        Metric("SSIM", ssim(value.values, clean, 1.0), "higher", f"{ssim(given, clean, 1.0):.3f} as given"),
        Metric("spectral angle", angle(value.values, clean), "lower", f"degrees; {angle(given, clean):.1f} as given"),
    ]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over bands of the PSNR in dB, for values from 0 to 1; 100 at most for each."""
    return float(np.minimum(100, -10 * np.log10(np.maximum(((a - b).astype(float) ** 2).mean((0, 1)), 1e-12))).mean())


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over pixels of the angle between the two spectra, in degrees; where one is all 0 it counts as a right angle."""
    dot, lengths = (a * b).sum(-1, dtype=float), np.linalg.norm(a.astype(float), axis=-1) * np.linalg.norm(b.astype(float), axis=-1)
    return float(np.degrees(np.arccos(np.where(lengths > 0, dot / np.maximum(lengths, 1e-12), 0).clip(-1, 1))).mean())


def jumps(values: np.ndarray) -> float:
    """Root mean square of the second differences along the spectrum: noise has many."""
    return float(np.sqrt((np.diff(values.astype(float), 2, axis=2) ** 2).mean()))
