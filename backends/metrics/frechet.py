"""FD-EffNet: the Fréchet distance between two sets of pictures in EfficientNet-Lite0's 1280 features.

‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), the form of Heusel et al., arXiv 1706.08500, in another network's features: its
values are not FID and compare only with each other, at equal numbers of pictures. Always give it with its floor, the
distance between two sets of real pictures of that size: with few pictures the floor is far from nought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from backends.metrics.features import effnet

if TYPE_CHECKING:
    from torch import Tensor


@torch.no_grad()
def features(pixels: Tensor, batch: int = 32) -> Tensor:
    """(N, 1280) float64 pooled features; pixels: (N, 3, H, W) in [-1, 1]."""
    net = effnet(str(pixels.device))
    return torch.cat([net(p, (16,))[0].mean((2, 3)) for p in pixels.split(batch)]).double()


def distance(a: Tensor, b: Tensor) -> float:
    """Between two sets of features, (N, D) and (M, D).

    tr (Σ₁Σ₂)^½ is the nuclear norm of A Bᵀ / √((N−1)(M−1)) with A, B the centred features: no root of a D×D matrix
    is needed, and sets smaller than D are no trouble.
    """
    mean = (a.mean(0) - b.mean(0)).square().sum()
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    return float(mean + a.square().sum() + b.square().sum() - 2 * torch.linalg.matrix_norm(a @ b.T, "nuc"))
