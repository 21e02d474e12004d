"""The losses of Noise-DA (Liao et al., arXiv 2406.18516; official code KangLiao929/Noise-DA): what training and the live adaptation share.

A restorer G, ŷ = x + G(x), is trained on pairs (s, c) of a synthetic harm. A diffusion network F predicts the noise in c, seeing the restored
synthetic picture ŝ and a restored real one r̂ of another scene, in either order. It does so well only where both are clean, so its
loss, sent back into G, pulls r̂ to clean pictures without one answer for r.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backends.lazy import F, torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

STEPS, BETAS = 1000, (1e-6, 0.01)
MARGIN, CHARBONNIER = 0.1, 1e-3
WEIGHT = 0.2  # of the noise loss, at the end


class Losses(NamedTuple):
    total: Tensor
    synthetic: Tensor  # Charbonnier's distance of ŝ and c
    noise: Tensor  # ½[MSE + triplet]; 0 where F takes no part
    error: Tensor  # the MSE of ε alone


def gammas() -> Tensor:
    """(1000,) ᾱ of β linear from 1e-6 to 0.01."""
    return torch.cumprod(1 - torch.linspace(*BETAS, STEPS, dtype=torch.float64), 0).float()


def levels(n: int, device="cpu", generator: Generator | None = None) -> Tensor:
    """(n,) noise levels γ: t of 1 to 999, then evenly between γ_t and γ_{t−1}."""
    bar = gammas().to(device)
    t = torch.randint(1, STEPS, (n,), device=device, generator=generator)
    return bar[t - 1] + (bar[t] - bar[t - 1]) * torch.rand(n, device=device, generator=generator)


def weight(progress: float, final: float = WEIGHT) -> float:
    """α at a share of the training, 0 to 1: final·(2/(1 + e^{−5p}) − 1)."""
    return final * (2 / (1 + math.exp(-5 * min(progress, 1.0))) - 1)


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).square() + CHARBONNIER**2).sqrt().mean()


def swapped(a: Tensor, b: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """The channel shuffle: each pair of the batch changes places with p = ½."""
    swap = torch.rand(len(a), 1, 1, 1, device=a.device, generator=generator) > 0.5
    return torch.where(swap, b, a), torch.where(swap, a, b)


def losses(restorer, noiser, clean: Tensor, synthetic: Tensor, real: Tensor | None, alpha: float, shuffle: bool = True, contrast: bool = True,
           generator: Generator | None = None) -> Losses:  # fmt: skip
    """One batch, each (B, 3, H, W) in [0, 1]. `noiser` None: the source-only restorer. Without `shuffle` F is given (ŝ, r̂) in this order.

    `contrast`: the residual-swapping negatives s + G(r), r + G(s) and the triplet loss; without, L_noise is the MSE alone, as in the official
    code's extended mode.
    """
    if noiser is None:
        distance = charbonnier(synthetic + restorer(synthetic).float(), clean)
        return Losses(distance, distance, torch.zeros_like(distance), torch.zeros_like(distance))
    added_s, added_r = restorer(torch.cat([synthetic, real])).float().chunk(2)
    pairs = [(synthetic + added_s, real + added_r)] + [(synthetic + added_r, real + added_s)] * contrast
    distance = charbonnier(pairs[0][0], clean)
    level = levels(len(clean), clean.device, generator)
    eps = torch.randn(clean.shape, device=clean.device, generator=generator)
    at = level.view(-1, 1, 1, 1)
    noisy = at.sqrt() * clean + (1 - at).sqrt() * eps
    if shuffle:
        pairs = [swapped(*pair, generator) for pair in pairs]
    n = len(pairs)
    guess = noiser(noisy.repeat(n, 1, 1, 1), torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs]), level.repeat(n)).float()
    error, *wrong = ((g - eps).square().mean() for g in guess.chunk(n))
    noise = (error + F.relu(error - wrong[0] + MARGIN)) / 2 if contrast else error
    return Losses(distance + alpha * noise, distance, noise, error)
