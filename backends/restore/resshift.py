"""Residual shifting (ResShift, arXiv 2307.12348): a chain of few steps from the low-resolution picture to the high-resolution one.

    q(x_t | x0, y0) = N(x0 + η_t (y0 − x0), κ² η_t I),   √η_t rising geometrically from 0.1 to 0.99

Read from the official code (zsyOAOA/ResShift): the exponent of √η's growth is spaced as linspace(0, 1, T)^0.3. `walk` draws from
the posterior, or goes SinSR's deterministic way (arXiv 2311.14760, eq. 7), which keeps the noise of the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from backends.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

KAPPA, T = 2.0, 15


class Shift:
    """`eta`: (T,) in fp64, η_1 to η_T; timesteps count from 0 as the network sees them."""

    def __init__(self, steps: int = T, kappa: float = KAPPA, start: float = 0.1, end: float = 0.99, power: float = 0.3):
        self.steps, self.kappa, self._tables = steps, kappa, {}
        self.eta = (start * (end / start) ** (torch.linspace(0, 1, steps, dtype=torch.float64) ** power)) ** 2

    def at(self, t, like: Tensor) -> Tensor:
        """η_t of timesteps (B,) or one, to be multiplied with `like`."""
        key = like.device, like.dtype
        if key not in self._tables:
            self._tables[key] = self.eta.to(*key)
        return self._tables[key][t].view(-1, 1, 1, 1)

    def noised(self, x0: Tensor, y0: Tensor, t, noise: Tensor) -> Tensor:
        eta = self.at(t, x0)
        return x0 + eta * (y0 - x0) + self.kappa * eta.sqrt() * noise

    def start(self, y0: Tensor, noise: Tensor) -> Tensor:
        """x_T, which no longer knows x0."""
        return y0 + self.kappa * self.at(self.steps - 1, y0).sqrt() * noise

    def scaled(self, x: Tensor, t) -> Tensor:
        """What the network is given: x_t with a standard deviation of about 1."""
        return x / (1 + self.kappa**2 * self.at(t, x)).sqrt()

    def back(self, x: Tensor, x0: Tensor, y0: Tensor, t: int, noise: Tensor | None) -> Tensor:
        """x_{t−1} from x_t and an estimate of x0: drawn from the posterior with `noise`, deterministic where it is None."""
        if t == 0:
            return x0
        eta, before = self.at(t, x), self.at(t - 1, x)
        if noise is None:
            error = (x - x0 - eta * (y0 - x0)) / eta.sqrt()
            return x0 + before * (y0 - x0) + before.sqrt() * error
        mean = before / eta * x + (eta - before) / eta * x0
        return mean + self.kappa * (before / eta * (eta - before)).sqrt() * noise

    def walk(self, estimate: Callable[[Tensor, int], Tensor], y0: Tensor, generator, deterministic: bool = False) -> Iterator[Tensor]:
        """The estimates of x0, one a step; `estimate(x_t, t)` is the network's."""
        draw = lambda: torch.randn(y0.shape, generator=generator).to(y0)  # noqa: E731
        x = self.start(y0, draw())
        for t in reversed(range(self.steps)):
            x0 = estimate(x, t)
            yield x0
            x = self.back(x, x0, y0, t, None if deterministic else draw())


def estimate(net, shift: Shift, x: Tensor, t, y0: Tensor, low: Tensor) -> Tensor:
    """x0 as an embedded network has it: y0 and what it adds."""
    return y0 + net(shift.scaled(x, t), t, low).float()
