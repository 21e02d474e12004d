"""What is seen of a field while it changes and at the end: one view that goes round, and a whole turntable with a mesh.

A field (Volume, LatentField, Gaussians) has `seen(cameras, size, background, generator)` -> Rendered, and `mesh()`; Gaussians `ply()` as well.
"""

from __future__ import annotations

import numpy as np

from backends.spec import Image, Turntable
from backends.worlds.objects_render import Camera

FRAMES, SIDE, DISTANCE, ELEVATION = 24, 96, 2.9, 15.0
GROUND = 0.93  # the grey on which objects are shown


def turning(field, step: int, side: int = SIDE) -> Image:
    """The field from a camera that goes round by 5° a step."""
    return Image(pixels(field, [Camera(5.0 * step % 360, ELEVATION, DISTANCE)], side)[0])


def around(n: int) -> list[Camera]:
    """The cameras of a turntable of n frames."""
    return [Camera(360 * k / n, ELEVATION, DISTANCE) for k in range(n)]


def turntable(field, frames: int = FRAMES, side: int = SIDE) -> Turntable:
    cameras = around(frames)
    return Turntable(
        np.concatenate([pixels(field, cameras[k : k + 4], side) for k in range(0, frames, 4)]),
        field.mesh(),
        splats=field.ply() if hasattr(field, "ply") else b"",
    )


def pixels(field, cameras: list[Camera], side: int) -> np.ndarray:
    """(n, side, side, 3) uint8 on the studio's ground."""
    return (field.seen(cameras, side, GROUND).picture.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
