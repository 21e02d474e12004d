"""StableDreamer (arXiv 2312.02189): score distillation with falling noise, pixels before latents, on 3D Gaussians."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Annotated

from backends import models
from backends.lazy import torch
from backends.registry import method
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Pulled, Resolution, Scale, Views, distil, watched
from backends.scene.gaussians import Gaussians
from backends.scene.sds import opaque, sparse_and_smooth
from backends.scene.tasks import MAKE_OBJECT, MakeObject
from backends.scene.turning import turntable
from backends.scene.volume import Volume
from backends.scene.watching import Watch
from backends.spec import BadInput, Choice, Events, Metric, Result, Slider, TextKnob, Toggle

PIXELS, NEEDS = "objects-pixels", {"image", "cfg", "gradients"}
ROUNDS = 8  # between which Gaussians are added and dropped; none after the sixth, so that the last ones settle


def first_stage(model, geometry: float = 0.0, first: str = PIXELS, **knobs) -> tuple[str, ...]:
    """The model of the first stage, where there is one; raises BadInput when its card tells that it can't be that."""
    if not geometry:
        return ()
    if missing := NEEDS - models.get(first).capabilities:
        raise BadInput(f"{models.get(first).title} lacks {', '.join(sorted(missing))} and can't lead the first stage; name another model.")
    return (first,)


class Cloud:
    """Gaussians whose number changes on the way; what is asked of it goes to those that stand now."""

    def __init__(self, gaussians: Gaussians):
        self.now = gaussians.requires_grad_()

    def __getattr__(self, name):
        return getattr(self.now, name)


def grown(
    cloud: Cloud, prior: Prior, generator, iterations: int, size: int, views: int, level: Callable[[int], int], sparse: float,
    weight: Callable[[int], float], most: int,
) -> Iterator[Pulled]:  # fmt: skip
    """`distil` in rounds: after each, those pulled the most are split or stand twice, the faint ones go. `weight(i)`: of the regularisers."""
    rounds, done = min(ROUNDS, iterations), 0
    regular = lambda seen, look: weight(done + look.i) * sparse * (0.05 * opaque(seen) + 0.5 * cloud.now.scales.exp().square().mean())  # noqa: E731
    for k in range(rounds):
        n, pulled_by = iterations * (k + 1) // rounds - done, torch.zeros(len(cloud.now.means))

        def count(gradient, pulled_by=pulled_by) -> None:
            pulled_by += gradient.norm(dim=1).cpu()

        cloud.now.means.register_hook(count)
        for pulled in distil(cloud, prior, generator, n, cloud.rates(), size, views, lambda i, done=done: level(done + i), regular):
            yield dataclasses.replace(pulled, i=done + pulled.i)
        done += n
        if k < rounds - 2:
            cloud.now = cloud.now.densified(pulled_by.to(cloud.now.means.device), most, generator).requires_grad_()


@method("stabledreamer", task=MAKE_OBJECT, needs=NEEDS, loads=first_stage)
def stabledreamer(
    job: MakeObject, model, iterations: Iterations = 400, scale: Scale = 4.0, low: Low = 0.02, high: High = 0.98,
    end: Annotated[float, Slider(0.02, 0.98, 0.01, help="highest noise level at the last step, to which it falls evenly")] = 0.3,
    annealed: Annotated[bool, Toggle(help="let the highest noise level fall")] = True,
    form: Annotated[str, Choice(("Gaussians", "voxels"), help="what the object is made of")] = "Gaussians",
    geometry: Annotated[float, Slider(0, 1, 0.05, help="share of the steps led by another model, one of pixels in the paper, before the run's own")] = 0.0,
    first: Annotated[str, TextKnob(60, help="card of that model")] = PIXELS,
    splats: Annotated[int, Slider(50, 2000, 50, help="Gaussians to begin with; they may become three times as many")] = 300,
    size: Resolution = 64, grid: Grid = 40, views: Views = 2, sparse: Annotated[float, Slider(0, 5, 0.1, help="pull towards empty space")] = 0.1,
) -> Events:  # fmt: skip
    """StableDreamer.

    Score distillation seen for what it is: at each step the model says how the view should look, x̂, and the view is pulled there by a squared error.
    Looked at so, much noise gives many different answers, whose mean is a blur with faces on all sides; so the noise falls on the way. A prior in
    pixels can give the shape first and the latent one the colours after; the object is a cloud of 3D Gaussians.

    Guo et al., arXiv 2312.02189: w(t)(ε̂ − ε) as the gradient of ½·w·(α/σ)·‖z − sg(x̂)‖², the highest level falling linearly, two stages.
    Its repository holds no code; the abstract confirms the squared error, annealing, image before latent diffusion and Gaussians, but we could not
    check a constant (curve, ends, rates, regularisers): those are ours. Where we differ: some hundred Gaussians of one colour each at 64 px; those pulled
    the most are split in rounds, a share of all where 3DGS has a threshold; guidance as in `sds`; the first stage is off unless asked for.
    Ours too: with the noise the pull grows smaller, and the regularisers' weights follow its expected size, w·σα of data of unit variance in the mean over
    the levels, lest they come to lead: at 0.3 they are 0.52 of those at 0.98, the pull on the first ball's latents 0.46, on a captured teapot's 0.63.
    """
    generator = torch.Generator().manual_seed(job.seed)
    latent = Prior(model, job.prompt, generator, scale)
    before = round(geometry * iterations)
    leading = [(Prior(models.load(first), job.prompt, generator, scale), before)] if before else []
    stages = leading + ([(latent, iterations - before)] if before < iterations else [])
    field = Volume.blob(grid, job.seed, model.device).requires_grad_() if form == "voxels" else Cloud(Gaussians.ball(splats, job.seed, device=model.device))
    count, done = None if form == "voxels" else lambda: len(field.now.means), 0
    watch = Watch(field, job.prompt, model, iterations)
    for prior, n in stages:
        spent = prior.model.nfe

        def top(i: int, done=done) -> float:
            return high + (min(end, high) - high) * ((done + i) / max(1, iterations - 1) if annealed else 0.0)

        def level(i: int, prior=prior, top=top) -> int:
            return prior.level(low, top(i))

        whole = prior.size(low, high)

        def weight(i: int, prior=prior, top=top, whole=whole) -> float:
            return prior.size(low, top(i)) / whole

        if form == "voxels":
            pulls = distil(field, prior, generator, n, field.rates(), size, views, level, sparse_and_smooth(field, sparse, weight))
        else:
            pulls = grown(field, prior, generator, n, size, views, level, sparse, weight, 3 * splats)
        shown = yield from watched(pulls, field, prior, n, done, iterations - done - n, watch, count)
        done += n
        if prior.model is not model:  # which counts its own
            model.nfe += prior.model.nfe - spent
    if count:
        yield Metric("Gaussians", count())
    yield Result(turntable(field), shown[1:])
