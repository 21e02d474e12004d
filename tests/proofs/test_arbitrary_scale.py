"""Arbitrary scale: one latent decoded at several sizes shows one picture, more of it than resampling, at a cost of diffusion that is always the same.

On crops of scikit-image's photographs, which no training saw. Decoders are compared behind one UNet, and the alignment of the UNet by itself. Thresholds 0.95 and 1.2 are the method card's. Its identities stand in
tests/test_upscale.py.
"""

import numpy as np
import pytest
import torch
from measure import interval
from measure_upscale import drawn, figures, jobs, originals, seconds

from backends import models
from backends.image.conditions import LUMA
from backends.metrics.image import ssim
from backends.restore.arbitrary_scale import at_any_size, fixed
from backends.restore.upscale_baselines import diffused
from backends.restore.upscale_task import given, resized

N, STEPS = 16, 25


def gradient(pixels: np.ndarray) -> float:
    """Mean energy of the differences of neighbours."""
    grey = pixels @ np.array(LUMA)
    return float((np.diff(grey, axis=0) ** 2).mean() + (np.diff(grey, axis=1) ** 2).mean())


@pytest.mark.proof
def test_one_latent_at_any_size(proof):
    proof.models = ["sr"]
    model, asked = models.load("photos-sr"), jobs(proof.seed, N)
    alike, sharper = {1.5: [], 2.0: [], 3.3: []}, []
    for job in asked:
        small = given(job).small
        canvas = fixed(model, small)
        with torch.no_grad():
            *_, (_, z) = diffused(canvas, lambda t: model.net["aligned"], STEPS, 0.0, job.seed)
            sizes = {f: tuple(round(f * n) for n in small.shape[:2]) for f in (1.0, *alike)}
            at = {f: at_any_size(canvas, z, size) for f, size in sizes.items()}
        for f, found in alike.items():
            found.append(ssim(resized(at[f], sizes[1.0]), at[1.0]))
        sharper.append(gradient(at[3.3]) / gradient(resized(small, sizes[3.3])))
    for f, found in alike.items():
        proof.state(
            f"SSIM of ×{f:g}, brought to ×1, with ×1 (low end of the 95 % interval of the mean)", interval(found)[0], ">=", 0.95, n=N, interval=interval(found)
        )
    proof.state("energy of differences at ×3.3 for bicubic's 1 (low end of the 95 % interval of the mean)", interval(sharper)[0], ">=", 1.2, baseline=1.0, n=N,
                interval=interval(sharper))  # fmt: skip

    for factor in (2.5, 3.3, 6.0):
        some = jobs(proof.seed, N, side=round(factor * 32), factor=factor)
        x = originals(some)
        found = {name: figures(drawn(model, slug, some, **knobs), x) for name, slug, knobs in (
            ("the implicit decoder", "arbitrary_scale", {"aligned": False}), ("it behind the aligned UNet", "arbitrary_scale", {}),
            ("fixed, then bicubic", "fixed_decoder", {}), ("bicubic", "bicubic", {}))}  # fmt: skip
        for one, other, figure, sign in (
            ("the implicit decoder", "fixed, then bicubic", "PSNR", 1),
            ("the implicit decoder", "fixed, then bicubic", "LPIPS-like", -1),
            ("it behind the aligned UNet", "the implicit decoder", "LPIPS-like", -1),
            ("it behind the aligned UNet", "bicubic", "LPIPS-like", -1),
        ):
            a, b = found[one][figure], found[other][figure]
            band = interval(sign * (a - b))
            what = f"×{factor:g}: {figure} of {one} {'over' if sign > 0 else 'below'} that of {other} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
            proof.state(what, band[0], ">", 0, baseline=float(b.mean()), n=N, interval=band)

    canvas = fixed(model, given(asked[0]).small)
    torch.set_num_threads(1)
    diffusion = seconds(lambda: list(diffused(canvas, lambda t: model.net["aligned"], STEPS, 0.0, 0)), 2)
    near, far = (seconds(lambda n=n: at_any_size(canvas, canvas.y0, (n, n)), 2) for n in (64, 256))
    proof.state(f"times that ×8 takes as long as ×2 in all ({diffusion + near:.2f} and {diffusion + far:.2f} s; pixels: 16 times as many)",
                (diffusion + far) / (diffusion + near), "<", 2, n=2)  # fmt: skip
    proof.close()
