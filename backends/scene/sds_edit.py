"""SDS alone as an editor: the baseline of the methods that keep an object what it was."""

from __future__ import annotations

from backends.lazy import torch
from backends.registry import method
from backends.scene.capturing import Captured, captured
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Resolution, Scale, Views, distil, watched
from backends.scene.tasks import EDIT_OBJECT, EditObject
from backends.scene.turning import turntable
from backends.spec import Events, Result


@method("sds_edit", task=EDIT_OBJECT, needs={"image", "cfg", "gradients"}, paper=False)
def sds_edit(
    job: EditObject, model, iterations: Iterations = 250, scale: Scale = 25.0, low: Low = 0.02, high: High = 0.98, size: Resolution = 48, grid: Grid = 40,
    views: Views = 2, captures: Captured = 100,
) -> Events:  # fmt: skip
    """SDS from the captured object.

    The captured object is pulled towards the new words view by view, with nothing that holds on to what it was.

    Poole et al., arXiv 2209.14988, begun from a volume fitted to views of the object instead of a blob: what Vox-E (arXiv 2303.12048)
    compares with as the edit without its regularisation.
    """
    generator = torch.Generator().manual_seed(job.seed)
    volume = yield from captured(job.shape, grid, captures, job.seed, iterations, model.device)
    prior, edited = Prior(model, job.prompt, generator, scale), volume.copy().requires_grad_()
    pulls = distil(edited, prior, generator, iterations, edited.rates(), size, views, lambda i: prior.level(low, high), lambda seen, look: 0.0)
    shown = yield from watched(pulls, edited, prior, iterations, captures)
    yield Result(turntable(edited), shown[1:])
