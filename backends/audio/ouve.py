"""The Ornstein-Uhlenbeck process with exploding variance between clean speech and a noisy or denoised centre (SGMSE+, StoRM).

Richter et al., arXiv 2208.05830, and Lemercier et al., arXiv 2212.11851, section II. x, y: (B, 2, F, frames) warped spectrograms;
t in (0, 1], 0 is clean. Noise is complex: σ(t) is the deviation of a complex number, σ/√2 that of its real and of its imaginary part,
and the score is (mean − x)/σ², as in the official code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from backends.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

THETA, SIGMA_MIN, SIGMA_MAX = 1.5, 0.05, 0.5
T_EPS = 0.03  # the least time trained and sampled
LAMBDA = math.log(SIGMA_MAX / SIGMA_MIN)
PART = math.sqrt(0.5)  # deviation of the real and of the imaginary part of complex noise of deviation 1


def mean(x0, y, t):
    decay = torch.exp(-THETA * t)
    return decay * x0 + (1 - decay) * y


def std(t):
    variance = SIGMA_MIN**2 * torch.exp(-2 * THETA * t) * torch.expm1(2 * (THETA + LAMBDA) * t) * LAMBDA / (THETA + LAMBDA)
    return variance.sqrt()


def diffusion(t):
    """g(t)."""
    return SIGMA_MIN * torch.exp(LAMBDA * t) * math.sqrt(2 * LAMBDA)


def score_of(x0, x, y, t):
    """The score at x when the speech is x0."""
    return (mean(x0, y, t) - x) / std(t) ** 2


def preconditioning(t, spread: float):
    """(skip, out, into): x0 − y is estimated as skip·u + out·network(into·u, …) from u = x − y, where x0 − y deviates by `spread`.

    Skip is the best linear estimate, out the deviation of what it leaves, so that input and target of the network are of size 1 at every t
    (Karras et al., arXiv 2206.00364, section 5, for this process).
    """
    decay, sigma2 = torch.exp(-THETA * t), (PART * std(t)) ** 2
    total = (decay * spread) ** 2 + sigma2
    return decay * spread**2 / total, spread * (sigma2 / total).sqrt(), total.rsqrt()


def reverse(score: Callable, y: Tensor, steps: int, generator: Generator | None = None, corrector: bool = False,
            snr: float = 0.5, posterior: bool = False) -> Iterator[Tensor]:  # fmt: skip
    """Yield the mean after each step, from y + σ(1)·noise at t = 1 down to T_EPS; `score(x, t)` with t (B,).

    Each step: one annealed Langevin step of size 2(snr·σ)² where `corrector`, then the reverse-diffusion predictor, an Euler step of
    the reverse equation. That leaves more noise than the next time has: at T_EPS 1.4 times as much in 30 steps, 2.6 in 10, 12 in 5.
    `posterior`: instead a draw of the state at the next time given this one and the speech that the score tells, as in DDPM; it yields
    that speech.
    """

    def noise():
        return PART * torch.randn(y.shape, generator=generator, device=generator.device if generator else y.device).to(y)

    times = torch.linspace(1.0, T_EPS, steps).to(y)
    x = y + std(times[0]) * noise()
    for i, t in enumerate(times):
        at, last = t.expand(len(y)), i + 1 == steps
        if corrector:
            size = 2 * (snr * std(t)) ** 2
            x = x + size * score(x, at) + (2 * size).sqrt() * noise()
        if posterior:
            moved = score(x, at) * std(t) ** 2  # mean − x
            centre = y + (x + moved - y) * torch.exp(THETA * t)
            if not last:
                ahead, decay = times[i + 1], torch.exp(-THETA * (t - times[i + 1]))
                there = (std(ahead) / std(t)) ** 2  # of this state's noise, what it holds of the next one's
                x = mean(centre, y, ahead) - decay * there * moved + std(ahead) * (1 - decay**2 * there).clamp_min(0).sqrt() * noise()
        else:
            length = t if last else t - times[i + 1]
            g2 = diffusion(t) ** 2 * length
            centre = x - THETA * (y - x) * length + g2 * score(x, at)
            x = centre + g2.sqrt() * noise()
        yield centre
