"""The baselines: DDIM, Euler and DPM-Solver++ 2M with classifier-free guidance, by diffusers' schedulers."""

from typing import Annotated

from backends.image.sampling import Guided, SchedulerWalk, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.registry import method
from backends.spec import Events, Guidance, Slider, Steps

Rescale = Annotated[float, Slider(0, 1, 0.05, help="pull contrast back to the unguided prediction's")]
Start = Annotated[float, Slider(0, 1, 0.05, help="guide from this fraction of the steps on")]
Stop = Annotated[float, Slider(0, 1, 0.05, help="guide up to this fraction of the steps")]


def _piece(kind):
    def build():
        return lambda model, steps: SchedulerWalk(model, steps, kind)

    return build


@method("ddim", task=TEXT_TO_IMAGE, needs={"image"}, slot="walk", piece=_piece("ddim"), holds={"patch", "wrap"}, paper=False)
def ddim(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, rescale: Rescale = 0.0, start: Start = 0.0, stop: Stop = 1.0) -> Events:  # fmt: skip
    """DDIM with classifier-free guidance.

    The plain sampler everything here is compared with: each step evaluates the network with and without the
    prompt and moves along the difference.

    Song et al., arXiv 2010.02502; guidance arXiv 2207.12598, rescale 2305.08891, interval 2404.07724.
    Flow models take an Euler step instead, which is DDIM's equivalent there.
    """
    return sample(job, model, steps=steps, guide=Guided(scale, rescale, start, stop), stack=stack)


@method("euler", task=TEXT_TO_IMAGE, needs={"image"}, slot="walk", piece=_piece("euler"), holds={"patch", "wrap"}, paper=False)
def euler(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, rescale: Rescale = 0.0, start: Start = 0.0, stop: Stop = 1.0) -> Events:  # fmt: skip
    """Euler with classifier-free guidance.

    A first-order step of the probability-flow ODE in the noise-to-signal ratio σ, as in Karras et al.

    Karras et al., arXiv 2206.00364, by diffusers' EulerDiscreteScheduler.
    """
    return sample(job, model, steps=steps, guide=Guided(scale, rescale, start, stop), walk=_piece("euler")(), stack=stack)


@method("dpm", task=TEXT_TO_IMAGE, needs={"image"}, slot="walk", piece=_piece("dpm++"), holds={"patch", "wrap"}, paper=False)
def dpm(job: TextToImage, model, stack: dict, steps: Steps = 15, scale: Guidance = 5.0, rescale: Rescale = 0.0, start: Start = 0.0, stop: Stop = 1.0) -> Events:  # fmt: skip
    """DPM-Solver++ 2M with classifier-free guidance.

    A second-order multistep solver: it extrapolates from the previous prediction, so fewer steps suffice.

    Lu et al., arXiv 2211.01095, by diffusers' DPMSolverMultistepScheduler.
    """
    return sample(job, model, steps=steps, guide=Guided(scale, rescale, start, stop), walk=_piece("dpm++")(), stack=stack)
