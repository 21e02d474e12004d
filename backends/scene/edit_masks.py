"""Where an edit goes: read from the model in many views, and brought together in space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.lazy import torch
from backends.scene.attention_grids import attention_in, sides_of, telling
from backends.scene.volume import nodes, read_off
from backends.spec import BadInput
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

    from backends.scene.distill import Prior
    from backends.scene.tasks import EditObject

HALFWAY, BATCH = 500, 6  # of the noise, of 1000, as in DiffEdit (arXiv 2210.11427); views at once


def differences(target: Prior, source: Prior, z: Tensor, cameras: list[Camera], draws: int = 2) -> Tensor:
    """(n, 1, h, w): how much the estimates for the two prompts differ at views z (n, C, h, w), noised half-way; a mean of `draws` noises."""
    total, (alpha, sigma) = 0.0, target.model.alpha_sigma(HALFWAY)
    with torch.no_grad():
        for _ in range(draws):
            one, other = target.model.x0s(alpha * z + sigma * target.noise(z), HALFWAY, target.cond(cameras), source.cond(cameras))
            total = total + (one - other).abs().mean(1, keepdim=True) / draws
    return total


def looked_at(target: Prior, job: EditObject, z: Tensor, cameras: list[Camera]) -> Tensor:
    """(n, 1, side, side): the attention of views z to the words that the prompt has and the source lacks."""
    words = [w for w in telling(job.prompt) if w not in telling(job.source)]
    if not words:
        raise BadInput("The prompt has no word that the source lacks; say what shall be new, or take the mask from where the predictions differ.")
    if "cross_attention" not in target.model.card.capabilities:
        raise BadInput("This model has no cross-attention to read a mask from; take the mask from where the predictions differ.")
    return attention_in(z, target, cameras, sides_of(target, job, words)[0]).amax(1, keepdim=True)


def extent(where: str, job: EditObject, target: Prior, source: Prior, z: Tensor, cameras: list[Camera], grid: int, share: float) -> Tensor:
    """(R, R, R) bool: the nodes of the edit."""
    if where == "everywhere":
        return torch.ones(grid, grid, grid, dtype=torch.bool, device=z.device)
    parts = [(z[k : k + BATCH], cameras[k : k + BATCH]) for k in range(0, len(z), BATCH)]
    return in_space(torch.cat([looked_at(target, job, *p) if where == "attention" else differences(target, source, *p) for p in parts]), cameras, grid, share)


def in_space(maps: Tensor, cameras: list[Camera], side: int, share: float) -> Tensor:
    """(R, R, R) bool: nodes at which views' maps (n, 1, h, w), in the mean over the views, come to `share` of the strongest node's."""
    points = nodes(side, maps.device)
    mean = sum(read_off(m, c, points)[:, 0] for m, c in zip(maps, cameras)) / len(maps)
    return (mean >= share * mean.max()).view(side, side, side)
