"""What is seen of a volume while it changes and at the end: one view that goes round, and a whole turntable with a mesh."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backends.scene.volume import Volume, mesh_of
from backends.spec import Image, Turntable
from backends.worlds.objects_render import Camera

FRAMES, SIDE, DISTANCE, ELEVATION = 16, 72, 2.6, 15.0


def turning(volume: Volume, step: int, side: int = SIDE) -> Image:
    """The volume from a camera that goes round by 5° a step."""
    return Image(_pixels(volume, [Camera(5.0 * step % 360, ELEVATION, DISTANCE)], side)[0])


def turntable(volume: Volume, frames: int = FRAMES, side: int = SIDE, mesh: Callable = mesh_of) -> Turntable:
    """`mesh`: makes the volume's surface."""
    cameras = [Camera(360 * k / frames, ELEVATION, DISTANCE) for k in range(frames)]
    return Turntable(np.concatenate([_pixels(volume, cameras[k : k + 4], side) for k in range(0, frames, 4)]), mesh(volume))


def _pixels(volume: Volume, cameras: list[Camera], side: int) -> np.ndarray:
    return (volume.seen(cameras, side, 0.93).picture.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
