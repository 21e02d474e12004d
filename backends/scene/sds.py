"""SDS (arXiv 2209.14988): a 3D object from a frozen text-to-image model, view by view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from backends.lazy import torch
from backends.registry import method
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Resolution, Scale, Views, distil, watched
from backends.scene.tasks import MAKE_OBJECT, MakeObject
from backends.scene.turning import turntable
from backends.scene.volume import Rendered, Volume, smoothness
from backends.spec import Events, Result, Slider, Toggle


def opaque(seen: Rendered):
    """How much of the views is covered, as DreamFusion's appendix counts it."""
    return (seen.opacity.square() + 0.01).sqrt().mean()


def sparse_and_smooth(volume: Volume, sparse: float, weight: Callable[[int], float] = lambda i: 1.0):
    """The regularisers of a volume made from nothing: little opacity, neighbours alike; `weight(i)` of both at iteration i."""
    return lambda seen, look: weight(look.i) * (sparse * 0.05 * opaque(seen) + 0.02 * smoothness(volume.density))


@method("sds", task=MAKE_OBJECT, needs={"image", "cfg", "gradients"}, paper=False)
def sds(
    job: MakeObject, model, iterations: Iterations = 400, scale: Scale = 4.0, low: Low = 0.02, high: High = 0.98, size: Resolution = 48, grid: Grid = 40,
    views: Views = 2, by_view: Annotated[bool, Toggle(help="“front view”, “side view” … after the prompt, by the camera")] = True,
    sparse: Annotated[float, Slider(0, 5, 0.1, help="pull towards empty space")] = 0.1,
) -> Events:  # fmt: skip
    """SDS: score distillation sampling.

    A soft ball of voxels is looked at from all sides; each view is noised, and a model of pictures that knows the prompt says how the noise should
    have been. The difference, sent back through the renderer, shapes the ball until every view looks right.

    Poole et al., arXiv 2209.14988: w(t) = σ², no gradient through the network, view words after the prompt, a density that starts as a blob.
    Where we differ: a voxel grid and no MLP, kept sparse and smooth where the paper turns normals outwards, one timestep for the views of a step,
    cameras as the priors know them (40° wide, 2.5 to 3 away, a tenth from above), colours without shading by normals, and a plain ground whose grey is drawn at each step instead of
    a learnt environment: our priors were trained on such grounds. Guidance is 4 and not 100: from a true view's latents with noise of level 0.5 the
    embedded prior's estimate is 0.3 off at 3, 0.9 at 10 and 2.4 at 25 (root mean square). Large models want the paper's.
    """
    generator = torch.Generator().manual_seed(job.seed)
    prior = Prior(model, job.prompt, generator, scale, by_view)
    volume = Volume.blob(grid, job.seed, model.device).requires_grad_()
    pulls = distil(volume, prior, generator, iterations, volume.rates(), size, views, lambda i: prior.level(low, high), sparse_and_smooth(volume, sparse))
    shown = yield from watched(pulls, volume, prior, iterations)
    yield Result(turntable(volume), shown[1:])
