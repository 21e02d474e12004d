"""The object of an edit: pictured from all sides, and a volume fitted to the pictures."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated

import numpy as np

from backends.scene.turning import turning, turntable
from backends.scene.volume import Volume, capture
from backends.spec import Mesh, Slider, Step
from backends.worlds.objects_render import Camera, render

Captured = Annotated[int, Slider(10, 1000, 10, help="steps in which the object is captured from its pictures")]
ELEVATIONS, SIDE = (10.0, 35.0, -8.0, 60.0), 64


def posed(shape: Mesh, n: int = 24, size: int = SIDE) -> tuple[np.ndarray, list[Camera]]:
    """(n, size, size, 4) float32 RGBA views of a mesh, premultiplied, and their cameras, all around at four heights."""
    cameras = [Camera(360 * k / n, ELEVATIONS[k % len(ELEVATIONS)], 2.8) for k in range(n)]
    return render(shape, cameras, size), cameras


def captured(shape: Mesh, grid: int, steps: int, seed: int, more: int, device="cpu") -> Generator[Step, None, Volume]:
    """Steps of a capture, which `more` follow; returns the volume (`yield from`). 30 dB on unseen views in 100 steps."""
    for step, volume in capture(*posed(shape), grid, steps, seed, device=device):
        yield Step(step, steps + more, lambda volume=volume, step=step: turning(volume, step), keep=lambda volume=volume: turntable(volume))
    return volume
