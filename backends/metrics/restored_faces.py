"""Figures under each arm of “Restore a face”: how near it comes to the good face, or, where there is none, how it looks by itself.

LAFR and InterLCM were trained with LPIPS-like, LAFR with MTCNN's points too; the identity's network trained none of the arms.
"""

import numpy as np

from backends.denoiser import from_uint8
from backends.image.conditions import LUMA
from backends.lazy import F, torch
from backends.metrics import faces as judges
from backends.metrics import perceptual
from backends.metrics.image import psnr, ssim
from backends.models import device
from backends.restore import face_task
from backends.restore.face_task import RestoreFace
from backends.spec import Image, Media, Metric

COARSE = 8  # px a side of what “keeps to the input” compares


def restore_face(job: RestoreFace, value: Media, reference: Media | None) -> list[Metric]:
    if not isinstance(value, Image):
        return []
    given = face_task.given(job, value.pixels.shape[0])
    made, y = (from_uint8(p, device()) for p in (value.pixels, given.y))
    own = [
        Metric("sharpness", float(sharpness(made)), "", f"{float(sharpness(y)):.3g} as given"),
        Metric("surely a face, %", 100 * float(judges.points(made)[0]), "higher"),
        Metric("keeps to the input, dB", agreement(value.pixels, given.y), "higher", f"in {COARSE}×{COARSE} means"),
    ]
    if given.reference is None:
        return [*own, Metric("identity to the input", float(alike(made, y)), "higher")]
    x, part = from_uint8(given.reference, device()), []
    if given.hole is not None:
        inside = [
            -10 * float(np.log10(max(1e-10, ((p[given.hole] / 255.0 - given.reference[given.hole] / 255.0) ** 2).mean()))) for p in (value.pixels, given.y)
        ]
        part.append(Metric("PSNR in the hole, dB", inside[0], "higher", f"{inside[1]:.2f} filled smoothly"))
    if job.grey:
        part.append(Metric("colours off", *coloured(value.pixels, given)))
    return [
        *part,
        Metric("PSNR, dB", psnr(value.pixels, given.reference), "higher", f"{psnr(given.y, given.reference):.2f} as given"),
        Metric("SSIM", ssim(value.pixels, given.reference), "higher", f"{ssim(given.y, given.reference):.3f} as given"),
        Metric("LPIPS-like", float(perceptual.distance(made, x)), "lower", f"{float(perceptual.distance(y, x)):.3f} as given"),
        Metric("identity", float(alike(made, x)), "higher", f"{float(alike(y, x)):.3f} as given"),
        Metric("eyes, nose, mouth off, %", float(apart(made, x)), "lower", f"{float(apart(y, x)):.2f} as given"),
        *own,
    ]


def coloured(pixels: np.ndarray, given) -> tuple[float, str, str]:
    """A Metric's value, direction and aside: root mean square of what Cb and Cr, 0 to 255, are off; the grey picture's own beside it."""

    def off(a):
        d = a.astype(float) - given.reference
        luma = d @ np.array(LUMA)
        return float(np.sqrt(np.mean([((d[..., c] - luma) * s) ** 2 for c, s in ((2, 0.564), (0, 0.713))])))

    return off(pixels), "lower", f"{off(given.y):.2f} grey"


def alike(a, b):
    """(B,) cosine of two faces' identities: 1 for one picture, about 0.15 for two faces."""
    return (judges.identity(a) * judges.identity(b)).sum(1)


def apart(a, b):
    """(B,) mean distance between the five points of two faces, in percent of the side."""
    return 100 * (judges.points(a)[1] - judges.points(b)[1]).norm(dim=-1).mean(1)


def sharpness(x):
    """(B,) variance of the grey values' Laplacian, values from 0 to 255, of (B, 3, H, W) in [-1, 1]."""
    grey = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True) * 127.5
    return F.conv2d(grey, grey.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]).var((1, 2, 3))


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of two pictures' means over COARSE×COARSE fields, which no degradation changes much."""
    a, b = (F.adaptive_avg_pool2d(torch.from_numpy(p.astype(np.float32)).permute(2, 0, 1), COARSE) for p in (a, b))
    return float(min(100.0, 10 * np.log10(255**2 / max(float((a - b).square().mean()), 1e-12))))
