"""LPIPS-like: how different two pictures look, from ImageNet features.

Zhang et al., arXiv 1801.03924: at several depths the features are normalised over channels, and their squared
differences are averaged over the picture. Ours takes EfficientNet-Lite0 and no learnt channel weights (the paper's
uncalibrated variant), so its values compare only with each other. Differentiable with respect to both pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from backends.metrics.features import effnet

if TYPE_CHECKING:
    from torch import Tensor

TAPS = (0, 2, 4, 7, 10)


def distance(a: Tensor, b: Tensor, version: int = 0, taps: tuple[int, ...] = TAPS) -> Tensor:
    """(B,) distances, 0 for equal pictures; a, b: (B, 3, H, W) in [-1, 1]. `b` is brought to `a`'s size. `version`, `taps`: another EfficientNet, for trainings."""
    if a.shape[-2:] != b.shape[-2:]:
        b = F.interpolate(b, size=a.shape[-2:], mode="bilinear", antialias=True)
    net = effnet(str(a.device), version)
    total = 0
    for f, g in zip(net(a, taps), net(b, taps)):
        total = total + (_unit(f) - _unit(g)).square().sum(1).mean((1, 2))
    return total / len(taps)


def _unit(f: Tensor) -> Tensor:
    return f / (f.square().sum(1, keepdim=True) + 1e-8).sqrt()
