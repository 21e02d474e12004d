"""Latent diffusion for super-resolution (LDM-SR, arXiv 2112.10752): noise becomes latents in the sight of the small picture.

The network gives a correction to y0, the small picture's latents, and so an estimate of x0, from which ε follows; a network of a million
parameters can't copy noise through itself to the 3 % that the last steps of an ε-model ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from backends.lazy import diffusers

if TYPE_CHECKING:
    from torch import Tensor

SCHEDULE = dict(beta_start=0.0015, beta_end=0.0155, beta_schedule="scaled_linear", clip_sample=False, timestep_spacing="trailing", prediction_type="sample")


def noised(bar: Tensor, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t; `bar`: ᾱ (1000,); t: (B,)."""
    a = bar[t].view(-1, 1, 1, 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def epsilon(bar: Tensor, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """ε of x_t and an estimate of x0."""
    a = bar[t].view(-1, 1, 1, 1)
    return (x - a.sqrt() * x0) / (1 - a).sqrt()


def ddim(estimate: Callable[[Tensor, int], Tensor], draw: Callable[[], Tensor], steps: int, eta: float) -> Iterator[tuple[int, Tensor]]:
    """(timestep, estimate of x0) of each step from noise; `estimate(x_t, t)` is the network's x0, `draw()` gives noise."""
    scheduler = diffusers.DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    x = draw()
    for t in scheduler.timesteps.tolist():
        x0 = estimate(x, t)
        yield t, x0
        x = scheduler.step(x0, t, x, eta=eta, variance_noise=draw() if eta else None).prev_sample
