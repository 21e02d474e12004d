"""The task “Enlarge a picture”: what the arms are given, the same for all of them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import PIL.Image

from backends.spec import BadInput, Job, Picture, Slider, Task, Toggle

SMALLEST, LARGEST = 8, 2048 * 2048  # px of a side of the small picture; px of a result


@dataclass(frozen=True)
class Upscale(Job):
    """With `shrink` the picture is made smaller by the factor first; then it is the reference that the figures compare with."""

    image: Annotated[np.ndarray | None, Picture(longest=1024, help="the picture to enlarge")] = None
    factor: Annotated[float, Slider(1, 8, 0.1, unit="times", help="how much longer each side becomes; the networks saw ×1.3 to ×8, mostly ×4")] = 4.0
    shrink: Annotated[bool, Toggle(help="shrink it by the factor first, so that the picture itself is what should come back")] = False
    noise: Annotated[float, Slider(0, 30, 1, unit="of 255", help="noise put on the small picture; trained up to 8")] = 0.0
    quality: Annotated[int, Slider(5, 100, 1, help="JPEG of the small picture; trained down to 60, 100 leaves it out")] = 100

    def __post_init__(self):
        if self.image is None:
            return
        h, w = self.image.shape[:2]
        (small_h, small_w), (big_h, big_w) = sizes(self)
        if min(small_h, small_w) < SMALLEST:
            what = f"would have {small_w}×{small_h} pixels once shrunk; lower the factor or give a larger one" if self.shrink else "give a larger one"
            raise BadInput(f"The picture has {w}×{h} pixels and {what}: {SMALLEST} a side are needed.")
        if big_h * big_w > LARGEST:
            raise BadInput(f"The result would have {big_w}×{big_h} pixels; up to {LARGEST:,} (2048×2048) are made. Lower the factor or give a smaller picture.")


def sizes(job: Upscale) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the small picture and of the result."""
    h, w = job.image.shape[:2]
    if job.shrink:
        return (max(1, round(h / job.factor)), max(1, round(w / job.factor))), (h, w)
    return (h, w), (round(h * job.factor), round(w * job.factor))


ARMS = {slug: {"method": slug} for slug in ("bicubic", "resshift", "tadsr", "ldm_sr", "moe_sr", "fixed_decoder", "arbitrary_scale")}
UPSCALE = Task(
    "super_resolve", "Enlarge a picture", Upscale, baseline="bicubic", model="photos-sr", metrics="backends.metrics.upscaled:upscale",
    help="A small picture becomes a large one, by any factor from 1 to 8. Shrink a good one first, and the figures say what came back.",
    examples=(
        {"title": "dogs · fifteen steps and one", "job": {"image": "photo_dogs.png", "factor": 4, "shrink": True, "seed": 1},
         "arms": [ARMS["bicubic"], ARMS["resshift"], ARMS["tadsr"]]},
        {"title": "brushes · what each loss gives the one step", "job": {"image": "photo_brushes.png", "factor": 4, "shrink": True, "seed": 2},
         "arms": [ARMS["bicubic"], {"method": "tadsr", "knobs": {"losses": "regression alone"}}, ARMS["tadsr"]]},
        {"title": "a dandelion · experts of the noise, frequencies refined", "job": {"image": "photo_dandelion.png", "factor": 4, "shrink": True, "seed": 3},
         "arms": [ARMS["ldm_sr"], ARMS["moe_sr"]]},
        {"title": "dogs · two and a half times", "job": {"image": "photo_dogs.png", "factor": 2.5, "shrink": True, "seed": 4},
         "arms": [ARMS["bicubic"], ARMS["fixed_decoder"], ARMS["arbitrary_scale"]]},
        {"title": "brushes · noisy and compressed", "job": {"image": "photo_brushes.png", "factor": 4, "shrink": True, "noise": 6, "quality": 70, "seed": 5},
         "arms": [ARMS["bicubic"], ARMS["tadsr"], ARMS["moe_sr"]]},
    ),
)  # fmt: skip


class Given(NamedTuple):
    """`small`: (h, w, 3) uint8, what the arms get; `reference`: what should come of it, or None; `size`: (H, W) of a result."""

    small: np.ndarray
    reference: np.ndarray | None
    size: tuple[int, int]


def given(job: Upscale) -> Given:
    """The same for the same job, wherever it is made; raises BadInput without a picture."""
    if job.image is None:
        raise BadInput("Add a picture to enlarge.")
    (h, w), size = sizes(job)
    small = PIL.Image.fromarray(job.image)
    if job.shrink:
        small = small.resize((w, h), PIL.Image.BICUBIC)
    if job.noise:
        noise = np.random.default_rng(job.seed).normal(0, job.noise, (h, w, 3))
        small = PIL.Image.fromarray((np.asarray(small) + noise).round().clip(0, 255).astype(np.uint8))
    if job.quality < 100:
        file = io.BytesIO()
        small.save(file, "JPEG", quality=job.quality)
        small = PIL.Image.open(file).convert("RGB")
    return Given(np.asarray(small), job.image if job.shrink else None, size)


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic, to (height, width)."""
    return np.asarray(PIL.Image.fromarray(pixels).resize(size[::-1], PIL.Image.BICUBIC))
