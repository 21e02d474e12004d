"""Vox-E (arXiv 2303.12048): a captured object edited by its words, its density tied to what it was, the edit's extent cut out of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends.lazy import torch
from backends.registry import method
from backends.scene.attention_grids import attention_of, extent, lifted, merged, sides_of, telling
from backends.scene.capturing import Captured, captured
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Resolution, Scale, Views, distil, watched
from backends.scene.tasks import EDIT_OBJECT, EditObject
from backends.scene.turning import turning, turntable
from backends.scene.volume import Volume
from backends.spec import BadInput, Choice, Events, Image, Images, Metric, Note, Result, Slider, Step, TextKnob, Toggle
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

ELEMENTS = 4 * 64 * 64  # of the latents that the paper's weight stands against
LOOKED = tuple(Camera(15.0 * k, e, 2.8) for k, e in enumerate((10.0, 35.0, -5.0, 50.0) * 6))  # where attention is read
Local = Annotated[
    str, Choice(("by the words", "local", "global"), help="local: kept where the cut finds the edit; by the words: where they follow the source's")
]


def decorrelation(density: Tensor, original: Tensor) -> Tensor:
    """L_dc of two grids (eq. 4): one less their correlation, 0 to 2."""
    one, other = density - density.mean(), original - original.mean()
    return 1 - (one * other).mean() / (one.square().mean() * other.square().mean()).clamp_min(1e-24).sqrt()


def falling(i: int, iterations: int, high: float) -> float:
    """The highest noise level at iteration `i`: ×0.75 every 600 of the paper's 8000 from the 4200th on, and never below 0.22."""
    return min(high, max(0.22, high * 0.75 ** max(0, 8000 * (i + 1) // iterations // 600 - 6)))


@method("voxe", task=EDIT_OBJECT, needs={"image", "cfg", "gradients", "cross_attention"})
def voxe(
    job: EditObject, model, iterations: Iterations = 250, scale: Scale = 25.0, low: Low = 0.02, high: High = 0.98, size: Resolution = 48, grid: Grid = 40,
    views: Views = 2, captures: Captured = 100,
    regulariser: Annotated[str, Choice(("correlation", "L2 on the grid", "L1 on the views", "none"), help="what ties the density, or the views, to what they were")] = "correlation",
    weight: Annotated[float, Slider(0, 100000, 100, help="of it, against Stable Diffusion's 16384 latents as in the paper")] = 4000.0,
    annealed: Annotated[bool, Toggle(help="lower the highest noise level in the second half")] = True,
    extent_of_edit: Local = "by the words",
    edit_words: Annotated[str, TextKnob(80, help="words whose attention marks the edit; empty: those that the source lacks")] = "",
    fits: Annotated[int, Slider(10, 1500, 10, help="steps in which attention is lifted into voxels")] = 100,
    smooth: Annotated[float, Slider(0, 1, 0.01, help="total variation of the attention grids")] = 0.01,
) -> Events:  # fmt: skip
    """Vox-E.

    The captured object is pulled towards the new words, while its density must stay correlated with what it was. For an edit of a part, the
    model's attention to the new words is lifted into voxels, a graph cut finds the part, and all else becomes the original again.

    Sella et al., arXiv 2303.12048, L = L_SDS + λ·(1 − corr(f, g)) on raw densities (eq. 4); its noise levels, attention at t = 200 as plain
    probabilities, L1 and TV of the lifted grids, seeds, edges 5·exp(−‖Δcolour‖/0.1) as in the official code. That code edits with SD 2.0, not
    2.1, takes 0.035 for the lifting in one script and 0.028 in another, and its cut knows seeds and colours alone: the terms of
    single voxels are commented out. λ counts against SD's 16384 latents, as there, ours are fewer and it is scaled; the paper's 200 is a
    hundredth of the pull here (norms of the gradients of density), so the default is larger. Its ablations, L2 of the grids and L1 of the views of a step,
    take the same λ; L2 is divided by twice the original's variance, for then it is 1 − corr of a small change that leaves mean and variance as they are.
    Where we differ: 40³ voxels and 250 steps of two views, not 160³ and 8000 of one, with the studio's rates; attention is read once from 24
    views and each side's scaled to its own largest, since small networks look at additions less; articles and the like take no part; the
    grids of attention begin at sigmoid(−4), not sigmoid(−20), from where few steps lead nowhere, and are lifted at a rate of 0.1; what no seed reaches is
    the original. Guidance is 25, between what makes an object here (4) and the paper's 100: from a captured object less of it changes little.
    """
    generator = torch.Generator().manual_seed(job.seed)
    prior = Prior(model, job.prompt, generator, scale)
    words = telling(edit_words.replace(",", " ")) or [w for w in telling(job.prompt) if w not in telling(job.source)]
    source = job.source.lower().rstrip(" .,").split()
    follows = job.prompt.lower().split()[: len(source)] == source and bool(words)
    if extent_of_edit == "local" and not words:
        raise BadInput("The prompt has no word that the source lacks; give what the object shall be, as in “a cactus wearing a party hat”.")
    local = extent_of_edit == "local" or extent_of_edit == "by the words" and follows
    edit, others = sides_of(prior, job, words) if local else ([], [])
    more = fits if local else 0
    if not local:
        yield Note("The edit is of the whole object; its extent is not cut out.")

    original = yield from captured(job.shape, grid, captures, job.seed, iterations + more, model.device)
    edited = original.copy().requires_grad_()
    pulls = distil(edited, prior, generator, iterations, edited.rates(), size, views,
                   lambda i: prior.level(low, falling(i, iterations, high) if annealed else high), tied(edited, original, regulariser, weight))  # fmt: skip
    shown = yield from watched(pulls, edited, prior, iterations, captures, more)
    found = edited = edited.copy()
    if local:
        found, grids, segment = yield from refined(edited, original, prior, generator, edit, others, fits, smooth, captures + iterations)
        shown += (pictured(edited, grids, segment, words),)
        yield Metric("voxels of the edit", int(segment.sum()), aside=f"of {grid}³")
    yield Metric("correlation of the density with the source's", 1 - float(decorrelation(found.density, original.density)), "higher")
    yield Result(turntable(found), (*shown, Images((Image(difference(found, original), "density gained (red) and lost (blue), front"),))))


def tied(edited: Volume, original: Volume, regulariser: str, weight: float):
    """The regulariser of `distil`, a loss a latent: there the prior's pull is summed over the latents, as in the paper over SD's."""
    gaps = {
        "none": lambda seen, look: 0.0,
        "correlation": lambda seen, look: decorrelation(edited.density, original.density),
        "L2 on the grid": lambda seen, look: (edited.density - original.density).square().mean() / (2 * original.density.var(correction=0)),
        "L1 on the views": lambda seen, look: (seen.picture - original.seen(look.cameras, seen.picture.shape[-1], look.ground).picture).abs().mean(),
    }
    return lambda seen, look: weight / ELEMENTS * gaps[regulariser](seen, look)


def refined(edited, original, prior, generator, edit, others, fits, smooth, before) -> Generator[Step, None, tuple[Volume, Volume, Tensor]]:
    """Steps of lifting attention into voxels; returns the merged volume, the grids of attention and the segment of the edit."""
    cameras = list(LOOKED)
    maps = torch.cat([attention_of(edited, prior, cameras[k : k + 4], edit, others) for k in range(0, len(cameras), 4)])
    maps = maps / maps.amax((0, 2, 3), keepdim=True).clamp_min(1e-6)
    for i, grids in enumerate(lifted(edited.density, cameras, maps, generator, fits, smooth), 1):
        yield Step(before + i, before + fits, lambda i=i, grids=grids: turning(attended(edited, grids, 0), i), keep=lambda: turntable(edited))
    segment = extent(edited, grids, generator)
    return merged(edited, original, segment), grids, segment


def attended(edited: Volume, grids: Volume, of: int) -> Volume:
    """The edited volume coloured by its attention, black to white at the strongest."""
    strength = grids.features.detach()[:, of : of + 1].sigmoid()
    solid = edited.density.detach() > 0
    return Volume(edited.density.detach(), (strength / strength[solid].max() if solid.any() else strength).expand(-1, 3, -1, -1, -1), colours=False)


def pictured(edited: Volume, grids: Volume, segment: Tensor, words: list[str]) -> Images:
    """The attention in the voxels, to the edit and to the rest, and the segment."""
    red = torch.where(segment, 1.0, 0.0)
    parts = Volume(edited.density.detach(), torch.stack([0.25 + 0.65 * red, 0.35 - 0.15 * red, 0.75 - 0.6 * red])[None], colours=False)
    labels = (f"attention to “{' '.join(words)}”", "attention to the rest", "the cut: the edit in red")
    return Images(tuple(Image(turning(v, 0).pixels, label) for v, label in zip((attended(edited, grids, 0), attended(edited, grids, 1), parts), labels)))


def difference(found: Volume, original: Volume, side: int = 144) -> np.ndarray:
    """(side, side, 3) uint8: what became denser in red and what less dense in blue, summed along the view from the front."""
    change = (found.opacity() - original.opacity()).sum(0).flip(0).cpu().numpy()  # rows from the top
    change = change / max(float(np.abs(change).max()), 1e-6)
    picture = 1 - np.stack([(-change).clip(0), np.abs(change), change.clip(0)], -1)
    rows = np.arange(side) * len(change) // side
    return (picture[rows][:, rows] * 255).round().astype(np.uint8)
