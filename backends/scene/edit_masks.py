"""Where an edit goes, read from the model in many views and brought together in space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.lazy import F, torch
from backends.scene.volume import Volume, march, nodes, rays_of, read_off
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

    from backends.scene.distill import Prior

HALFWAY = 500  # of the noise, of 1000, as DiffEdit (arXiv 2210.11427) takes it


def differences(z: Tensor, target: Prior, source: Prior, cameras: list[Camera], draws: int = 2) -> Tensor:
    """(n, 1, h, w): how much the predictions for the two prompts differ at z (n, C, h, w), noised half-way; a mean of `draws` noises."""
    total, (alpha, sigma) = 0.0, target.model.alpha_sigma(HALFWAY)
    with torch.no_grad():
        for _ in range(draws):
            one, other = target.model.x0s(alpha * z + sigma * target.noise(z), HALFWAY, target.cond(cameras), source.cond(cameras))
            total = total + (one - other).abs().mean(1, keepdim=True) / draws
    return total


def in_space(maps: Tensor, cameras: list[Camera], side: int, share: float) -> Tensor:
    """(R, R, R) bool: nodes at which views' maps (n, 1, h, w) come to `share` of the strongest node's, in the mean over the views."""
    points = nodes(side, maps.device)
    mean = sum(read_off(m, c, points)[:, 0] for m, c in zip(maps, cameras)) / len(maps)
    return (mean >= share * mean.max()).view(side, side, side)


def in_views(where: Tensor, cameras: list[Camera], side: int) -> Tensor:
    """(n, 1, side, side) of 0 and 1: cells of the views behind which nodes of `where` (R, R, R) lie; a quarter of a cell is enough."""
    solid = Volume(torch.where(where, 1.0, -1.0)[None, None], torch.zeros(1, 1, *where.shape, device=where.device), colours=False)
    eyes, ways = rays_of(cameras, 2 * side, where.device)
    _, opacity, _ = march(solid, eyes, ways)
    return (F.avg_pool2d(opacity.view(len(cameras), 1, 2 * side, 2 * side), 2) > 0.25).float()
