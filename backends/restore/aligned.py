"""The end of LAFR (arXiv 2505.23462): an aligned latent, noised a little, is finished by the prior in few steps. The method's and its training's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

START = 199  # the timestep to begin at, of 1000


def timesteps(steps: int, start: int = START) -> list[int]:
    """From `start` down, evenly: of 1 step 199; of 2 steps 199, 99."""
    return [(start + 1) * (steps - i) // steps - 1 for i in range(steps)]


def finish(z: Tensor, times: list[int], bar: Tensor, noise: Tensor, predict: Callable[[Tensor, int], Tensor]) -> Iterator[tuple[int, Tensor]]:
    """(t, the estimate of x0) of each DDIM step from z noised to times[0]; `predict`: ε, `bar`: ᾱ by timestep. Differentiable."""
    x0, eps = z, noise
    for t in times:
        a = bar[t]
        z = a.sqrt() * x0 + (1 - a).sqrt() * eps
        eps = predict(z, t)
        x0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
        yield t, x0
