"""SDS (arXiv 2209.14988): a 3D object from a frozen text-to-image model, view by view."""

from __future__ import annotations

from typing import Annotated

from backends.lazy import torch
from backends.registry import method
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Resolution, Scale, pull, shown, some_cameras, strength
from backends.scene.tasks import MAKE_OBJECT, MakeObject
from backends.scene.turning import turning, turntable
from backends.scene.volume import Volume, render, smoothness
from backends.spec import Events, Image, Images, Plot, Result, Slider, Step, Toggle


@method("sds", task=MAKE_OBJECT, needs={"image", "cfg", "gradients"}, paper=False)
def sds(
    job: MakeObject, model, iterations: Iterations = 400, scale: Scale = 25.0, low: Low = 0.02, high: High = 0.98, size: Resolution = 48, grid: Grid = 40,
    views: Annotated[int, Slider(1, 8, 1, help="cameras in each step")] = 2,
    by_view: Annotated[bool, Toggle(help="“front view”, “side view” … after the prompt, by the camera")] = True,
    sparse: Annotated[float, Slider(0, 5, 0.1, help="pull towards empty space")] = 0.5,
) -> Events:  # fmt: skip
    """SDS: score distillation sampling.

    A soft ball of voxels is looked at from all sides; each view is noised, and a model of pictures that knows the prompt says how the noise should
    have been. The difference, sent back through the renderer, shapes the ball until every view looks right.

    Poole et al., arXiv 2209.14988: w(t) = σ², no gradient through the network, view words after the prompt, a density that starts as a blob.
    Where we differ: a voxel grid and no MLP, colours without shading by normals, guidance 25 and not 100, and a plain ground whose grey is drawn
    at each step instead of a learnt environment: our priors were trained on such grounds.
    """
    generator = torch.Generator().manual_seed(job.seed)
    prior = Prior(model, job.prompt, generator, scale, by_view)
    volume = Volume.blob(grid, job.seed, model.device).requires_grad_()
    optimiser = torch.optim.Adam([{"params": [volume.density], "lr": 0.01}, {"params": [volume.features], "lr": 0.08}])
    pulls, opaque, at = [], [], []
    curves = lambda: Plot({"pull": (at, pulls), "opacity": (at, opaque)}, x="iteration")  # noqa: E731
    for i in range(iterations):
        cameras = some_cameras(generator, views)
        with torch.enable_grad():
            seen = render(volume, cameras, size, 48, 0.5 + 0.5 * float(torch.rand((), generator=generator)), generator)
            z = prior.see(seen.picture)
            scored = prior.score(z, prior.cond(cameras), prior.level(low, high))
            empty = (seen.opacity.square() + 0.01).sqrt().mean()
            (pull(z, scored.gradient) + sparse * z[0].numel() * 0.05 * empty + z[0].numel() * 0.02 * smoothness(volume.density)).backward()
        optimiser.step(), optimiser.zero_grad()
        at.append(i + 1), pulls.append(float(scored.gradient.square().mean().sqrt())), opaque.append(float(seen.opacity.mean()))

        def aside(scored=scored, z=z):
            view, estimate = Image(shown(prior, z), "the view"), Image(shown(prior, scored.target), f"one-step estimate x̂, t = {scored.t:.2f}")
            return Images((view, estimate, Image(strength(scored.gradient, model.side), "pull"))), curves()

        yield Step(i + 1, iterations, lambda i=i: turning(volume, i), aside, keep=lambda: turntable(volume))
    yield Result(turntable(volume), (curves(),))
