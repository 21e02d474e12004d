"""The task “Spectral cube”: noise is taken out of a picture of many bands, missing values are filled in, or it is enlarged, from that cube alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends import cubes
from backends.lazy import torch
from backends.spec import BadInput, Choice, Cube, Image, Job, Plot, Slider, Spectra, Task, Toggle

if TYPE_CHECKING:
    from torch import Tensor

FACTORS = {"enlarge 2": 2, "enlarge 4": 4}


@dataclass(frozen=True)
class RestoreCube(Job):
    """With `harm` the cube is good and is harmed first: then it is the reference that the figures compare with."""

    cube: Annotated[Cube | None, Spectra(help="height × width × bands, as npy, npz, mat or a zip with ENVI's two files")] = None
    what: Annotated[str, Choice(("denoise", "complete", *FACTORS), help="what is to be done")] = "denoise"
    sigma: Annotated[float, Slider(0, 0.3, 0.01, help="deviation of the noise, for values from 0 to 1")] = 0.1
    kept: Annotated[float, Slider(0.05, 0.9, 0.05, help="complete: the share of the values that is not missing")] = 0.2
    harm: Annotated[bool, Toggle(help="put the harm in first; off: the cube has it, and where it is 0 a value is missing")] = True

    def __post_init__(self):
        if self.cube is None:
            return
        if self.what == "denoise" and not self.sigma:
            raise BadInput("There is no noise of deviation 0 to take out; set sigma above 0.")
        if self.what == "complete" and not self.harm and self.cube.low < 0:
            raise BadInput(
                "The cube holds values below 0, so 0 can't stand for what is missing; add a constant to all that are there, and keep 0 for the others."
            )
        if self.what == "complete" and not self.harm and (self.cube.values > 0).mean() < 0.01:
            raise BadInput("Fewer than 1 % of the cube's values are not 0, which stands for missing; there is too little to go by.")
        if (factor := FACTORS.get(self.what)) and self.harm and any(n % factor for n in self.cube.values.shape[:2]):
            h, w = self.cube.values.shape[:2]
            raise BadInput(f"The cube has {w}×{h} pixels, which can't be made {factor} times smaller; cut it to a multiple of {factor}.")
        h, w = self.size
        if factor and h * w * self.cube.values.shape[2] > cubes.MOST:
            raise BadInput(f"Enlarged {factor} times the cube would have more than {cubes.MOST:,} values; cut it first.")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        grown = 1 if self.harm else FACTORS.get(self.what, 1)
        h, w = self.cube.values.shape[:2]
        return h * grown, w * grown


CUBE = Task(
    "restore_cube", "Spectral cube", RestoreCube, baseline="truncated_svd", model="untrained", metrics="backends.metrics.cubes:restore_cube",
    help="A picture with dozens of bands instead of three. Each arm restores it from itself alone: there is no training set.",
    examples=(
        {"title": "three materials under noise", "job": {"cube": "cube_generated.npz", "what": "denoise", "sigma": 0.1, "seed": 1},
         "arms": [{"method": "truncated_svd", "knobs": {"rank": 3}}, {"method": "dds2m", "knobs": {"rank": 3}}]},
        {"title": "fields in Indiana, four values of five missing and the others noisy", "job": {"cube": "cube_indian_pines.npz", "what": "complete", "sigma": 0.1, "kept": 0.2, "seed": 2},
         "arms": [{"method": "truncated_svd", "knobs": {"rank": 5}}, {"method": "image_prior"}, {"method": "dds2m"}]},
        {"title": "three materials, twice as large", "job": {"cube": "cube_generated.npz", "what": "enlarge 2", "sigma": 0.02, "seed": 3},
         "arms": [{"method": "truncated_svd", "knobs": {"rank": 3}}, {"method": "dds2m", "knobs": {"rank": 3}}]},
    ),
)  # fmt: skip


class Problem:
    """A job as its arms meet it: `operator` (restore/degrading.py) and `y`, what was measured, (B, h, w) in [-1, 1], with noise of deviation `sigma` there.

    `given`: y as a cube of the result's size, to be shown beside it.
    """

    def __init__(self, job: RestoreCube, where: str = "cpu"):
        from backends.restore import degrading

        values = as_tensor(job.cube.values, where)
        self.job, self.sigma, (h, w) = job, 2 * job.sigma, job.size
        generator = torch.Generator().manual_seed(job.seed)
        if factor := FACTORS.get(job.what):
            self.operator = degrading.Shrunk(h, w, factor, where)
        else:
            mask = torch.ones_like(values)
            if job.what == "complete":
                mask = (torch.rand(values.shape, generator=generator) < job.kept).to(values) if job.harm else (values > -1).to(values)
            self.operator = degrading.Masked(mask)
        self.y = self.operator.measured(values) if job.harm or not factor else values
        if job.harm and self.sigma:
            noise = self.sigma * torch.randn(self.y.shape, generator=generator).to(where)
            self.y = self.y + (noise if factor else mask * noise)
        self.before = None
        self.given = self.cube(self.operator.guess(self.y) if factor else torch.where(mask > 0, self.y, -1.0))
        self.before = self.given.picture.pixels
        self.centre = h // 2, w // 2

    def cube(self, x: Tensor) -> Cube:
        """The Cube of (B, H, W) in [-1, 1], drawn in the job's cube's colours beside what was given."""
        of = self.job.cube
        whole = cubes.cube(as_values(x), of.wavelengths, of.low, of.high)
        return replace(whole, picture=Image(cubes.false_colour(whole, of), before=self.before))

    def spectra(self, cube: Cube) -> Plot:
        """The spectrum in the middle of the picture: as it was given, as it is restored, and as it is where that is known."""
        rows = {"given": self.given, "restored": cube} | ({"clean": self.job.cube} if self.job.harm else {})
        nm = list(self.job.cube.wavelengths) or list(range(1, cube.values.shape[2] + 1))
        at = self.centre
        return Plot({name: (nm, c.values[at].tolist()) for name, c in rows.items()}, x="nm" if self.job.cube.wavelengths else "band", y="value in the middle")


def as_tensor(values: np.ndarray, where: str = "cpu") -> Tensor:
    """(B, H, W) in [-1, 1] of (H, W, B) in [0, 1]."""
    return torch.tensor(values).permute(2, 0, 1).contiguous().to(where) * 2 - 1


def as_values(x: Tensor) -> np.ndarray:
    return ((x.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy()
