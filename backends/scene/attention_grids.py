"""Cross-attention lifted from views into voxels, and the extent of an edit found in it (Vox-E, arXiv 2303.12048, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.image.attention_maps import attention_maps, concept_maps, words_of
from backends.lazy import F, torch
from backends.scene.graph_cut import cut
from backends.scene.volume import Volume, smoothness
from backends.spec import BadInput
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

    from backends.scene.distill import Prior
    from backends.scene.tasks import EditObject

LEVEL = 200  # of the noise, of 1000, at which attention is looked at
SILENT = frozenset(["a", "an", "the", "of", "in", "on", "with", "and", "wearing"])  # their attention is on edges and grounds, or on all of the object
SHOWN, RENDERED = 64, 24  # px of the views that the model is shown, and of the grids' renders


def telling(text: str) -> list[str]:
    """Words that name something, in order."""
    return [w for w in (w.strip(",.").lower() for w in text.split()) if w and w not in SILENT]


def sides_of(prior: Prior, job: EditObject, words: list[str]) -> tuple[list[int], list[int]]:
    """Tokens of `words`, the edit's, and of the words that source and prompt share; all others of the prompt where they share none."""
    (cond,) = prior.model.encode(job.prompt)
    missing = [w for w in words if not cond.rows(w)]
    if missing:
        raise BadInput(f"The model does not read “{missing[0]}” in the prompt; name words of the prompt as the edit's.")
    edit = {row for w in words for row in cond.rows(w)}
    span, shared = words_of(cond), {row for w in telling(job.source) if w not in words for row in cond.rows(w)}
    others = shared - edit or set(range(span.start, span.stop)) - edit
    if not others:
        raise BadInput("The prompt names the edit alone; name the object too, as in “a cactus wearing a party hat”.")
    return sorted(edit), sorted(others)


def attention_of(volume: Volume, prior: Prior, cameras: list[Camera], edit: list[int], others: list[int]) -> Tensor:
    """(n, 2, side, side): the attention of views to the edit's tokens and to the others, the largest of each, not scaled."""
    with torch.no_grad():
        each = attention_in(prior.see(volume.seen(cameras, SHOWN, 0.75).picture), prior, cameras, edit + others)
    return torch.stack([each[:, : len(edit)].amax(1), each[:, len(edit) :].amax(1)], 1)


def attention_in(z: Tensor, prior: Prior, cameras: list[Camera], rows: list[int]) -> Tensor:
    """(n, len(rows), side, side): the attention of views z (n, C, h, w), in the prior's space, to each of the prompt's tokens `rows`."""
    with torch.no_grad(), attention_maps(prior.model) as store:
        alpha, sigma = prior.model.alpha_sigma(LEVEL)
        prior.model.x0s(alpha * z + sigma * prior.noise(z), LEVEL, cond := prior.cond(cameras))
        return concept_maps(store.average(), cond, [[row] for row in rows], sharpen=0)


def lifted(density: Tensor, cameras: list[Camera], maps: Tensor, generator, steps: int, smooth: float, rate: float = 0.1, views: int = 3) -> Iterator[Volume]:
    """Fit grids, a feature a map, whose renders match maps (n, C, h, w) where there is something to see; yields after each step."""
    grids = Volume(density, torch.full((1, maps.shape[1], *density.shape[2:]), -4.0, device=density.device))
    grids.features.requires_grad_(True)
    optimiser = torch.optim.Adam([grids.features], rate)
    wanted = F.interpolate(maps, (RENDERED, RENDERED), mode="bilinear")
    for _ in range(steps):
        chosen = torch.randperm(len(cameras), generator=generator)[:views].tolist()
        with torch.enable_grad():
            seen = grids.seen([cameras[c] for c in chosen], RENDERED, 0.0, generator)
            there = (seen.opacity > 0.5).float()
            gap = (there * (seen.picture - wanted[chosen]).abs()).sum() / there.sum().clamp_min(1)
            (gap + smooth * smoothness(grids.features)).backward()
        optimiser.step(), optimiser.zero_grad()
        yield grids
    grids.features.requires_grad_(False)


def extent(edited: Volume, grids: Volume, generator, near: float = 0.992, k: float = 5.0) -> Tensor:
    """(R, R, R) bool: the voxels of the edit. `grids`: attention to the edit and to the rest of the prompt; `near`: of the surest voxel's
    probability, from which a voxel is a seed of the edit.

    The official code's numbers of seeds are for grids of 160³; here they go with the surface, (R/160)².
    """
    solid = F.max_pool3d(edited.density, 3, 1, 1)[0, 0] > 0
    share = (edited.density.shape[-1] / 160) ** 2
    probability = grids.features.softmax(1)[0, 0].masked_fill(~solid, 0)
    inside = solid & (probability >= near * probability.max())
    outside = _some(solid & (probability < 0.5), int(5000 * share), generator)
    if inside.sum() < 300 * share:  # too few are sure: those most attended to
        inside = _strongest(grids.features[0, 0].masked_fill(~solid, -1e9), int(300 * share)) & solid
    colours = edited.features[0].sigmoid().permute(1, 2, 3, 0)
    return torch.from_numpy(cut(*(t.cpu().numpy() for t in (colours, solid, inside, outside)), k)).to(solid.device)


def merged(edited: Volume, original: Volume, segment: Tensor) -> Volume:
    """The edited volume within the segment (R, R, R), the original, to the bit, outside."""
    return Volume(*(torch.where(segment, one, other) for one, other in zip(edited.parameters(), original.parameters())), original.colours)


def _some(mask: Tensor, n: int, generator) -> Tensor:
    rows = mask.flatten().nonzero()[:, 0]
    kept = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    kept[rows[torch.randperm(len(rows), generator=generator)[:n].to(rows)]] = True
    return kept.view(mask.shape)


def _strongest(values: Tensor, n: int) -> Tensor:
    kept = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    kept[values.flatten().topk(max(n, 1)).indices] = True
    return kept.view(values.shape)
