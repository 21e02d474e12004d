"""The task “Clean a photo”: noise, blur or rain is taken out of a picture of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends.lazy import torch
from backends.restore import harming
from backends.spec import Choice, Job, Picture, Slider, Task, Toggle

if TYPE_CHECKING:
    from torch import Tensor

KINDS = {"noise": "denoise", "blur": "deblur", "rain": "derain"}  # harm -> the restorers' name of the task


@dataclass(frozen=True)
class CleanPhoto(Job):
    """With a strength above 0 the picture is good and is harmed first: then it is the reference that the figures compare with."""

    image: Annotated[np.ndarray | None, Picture(longest=1024, smallest=16, help="a harmed picture, or a good one to harm first")] = None
    harm: Annotated[str, Choice(harming.KINDS, help="what is to be taken out")] = "noise"
    strength: Annotated[float, Slider(0, 1, 0.05, help="how much of it is put in first; 0: the picture has it already")] = 0.5
    real: Annotated[bool, Toggle(help="the make that no clean answers were seen of: grains over several pixels, motion in dim light, slanting rain")] = True


CLEAN_PHOTO = Task(
    "restore_image", "Clean a photo", CleanPhoto, baseline="source_only", model="restorers", metrics="backends.metrics.clean:clean_photo",
    help="Noise, blur or rain is taken out of a picture. The restorers saw clean answers for one make of each harm; Noise-DA learned the other without.",
    examples=(
        {"title": "dogs under grainy noise", "job": {"image": "photo_dogs.png", "harm": "noise", "strength": 0.5, "seed": 1},
         "arms": [{"method": "source_only"}, {"method": "noise_da"}]},
        {"title": "a dandelion in slanting rain", "job": {"image": "photo_dandelion.png", "harm": "rain", "strength": 0.5, "seed": 2},
         "arms": [{"method": "source_only"}, {"method": "unshuffled"}, {"method": "noise_da"}]},
        {"title": "brushes out of focus, as the restorers learned it", "job": {"image": "photo_brushes.png", "harm": "blur", "strength": 0.4, "real": False, "seed": 3},
         "arms": [{"method": "classical"}, {"method": "source_only"}, {"method": "noise_da"}]},
        {"title": "brushes moved in dim light, a blur without answers", "job": {"image": "photo_brushes.png", "harm": "blur", "strength": 0.3, "seed": 5},
         "arms": [{"method": "source_only"}, {"method": "unshuffled"}, {"method": "noise_da"}]},
        {"title": "dogs · adapted to this picture while you watch", "job": {"image": "photo_dogs.png", "harm": "noise", "strength": 0.6, "seed": 4},
         "arms": [{"method": "source_only"}, {"method": "noise_da", "knobs": {"adapt": 120}}]},
    ),
)  # fmt: skip


def harmed(job: CleanPhoto) -> np.ndarray:
    """(H, W, 3) uint8: what the arms are given, the same for the same seed wherever it is made."""
    if not job.strength:
        return job.image
    generator = torch.Generator().manual_seed(job.seed)
    return as_pixels(harming.harmed(as_tensor(job.image), job.harm, job.strength, job.real, generator))


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255


def as_pixels(x: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of (1, 3, H, W)."""
    return (x[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
