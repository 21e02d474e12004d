"""A latent consistency model's steps (Luo et al., arXiv 2310.04378) from any estimate of x0: what InterLCM, its baselines and its training share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from backends.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

ORIGINAL = 50  # steps of the grid that the distillation jumped on
SCALE_WIDTH = 64  # numbers that tell the embedded network its guidance scale


def timesteps(steps: int, total: int = 1000, end: float = 1.0) -> list[int]:
    """LCMScheduler's: of 4 steps 999, 759, 499, 259; of 2 steps 999, 499. `end`: the share of the grid to begin at (img2img's strength)."""
    grid = [(i + 1) * (total // ORIGINAL) - 1 for i in range(max(steps, int(ORIGINAL * end)))][::-1]
    return [grid[i * len(grid) // steps] for i in range(steps)]


def embedded(scale: Tensor, width: int = SCALE_WIDTH) -> Tensor:
    """(B, width) of guidance scales (B,): sines and cosines of 1000·(w − 1), as diffusers' LCM pipeline."""
    rates = torch.exp(torch.arange(width // 2, device=scale.device) * -(math.log(10000.0) / (width // 2 - 1)))
    angles = 1000 * (scale - 1)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def boundary(z: Tensor, x0: Tensor, t: int | Tensor) -> Tensor:
    """f(z, t) = c_skip·z + c_out·x0, which at t = 0 is z; σ_data = 0.5, timesteps tenfold."""
    s = 10.0 * (t.view(-1, 1, 1, 1) if torch.is_tensor(t) else t)
    return 0.25 / (s**2 + 0.25) * z + s / (s**2 + 0.25) ** 0.5 * x0


def walk(x0: Tensor, times: list[int], bar: Tensor, noise: Callable[[], Tensor], f: Callable[[Tensor, int], Tensor]) -> Iterator[tuple[int, Tensor]]:
    """(t, the estimate of x0) of each step: x0 is noised to t, f estimates it anew. `bar`: ᾱ by timestep; with ᾱ_999 and no x0, begin at noise."""
    for t in times:
        z = bar[t].sqrt() * x0 + (1 - bar[t]).sqrt() * noise()
        x0 = f(z, t)
        yield t, x0
