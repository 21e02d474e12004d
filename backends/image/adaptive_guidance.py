"""Adaptive Guidance (arXiv 2312.12487): stop evaluating the unconditional branch once it agrees."""

from typing import Annotated

from backends.image import linear_ag
from backends.image.sampling import Guided, SchedulerWalk, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.lazy import F
from backends.registry import method
from backends.spec import BadInput, Choice, Events, Guidance, Metric, Note, Plot, Slider, Steps

Threshold = Annotated[float, Slider(0.9, 1, 0.0001, help="cosine from which on guidance stops")]
Warmup = Annotated[float, Slider(0, 1, 0.05, help="fraction of the steps that are always guided")]
Mode = Annotated[str, Choice(("AG", "LinearAG"), help="AG stops guidance by the threshold; LinearAG also estimates every other early step")]


class AdaptiveGuide(Guided):
    """Guides until cos(x0_c, x0_u) ≥ threshold, then evaluates the condition alone."""

    def __init__(self, threshold: Threshold = 0.998, warmup: Warmup = 0.25, scale: float = 5.0):
        super().__init__(scale)
        self.threshold, self.warmup = threshold, warmup
        self.cosines, self.stopped = {}, None  # step -> cosine; a walk may ask several times a step

    def __call__(self, evaluate, cond, uncond, i, n):
        if self.stopped is not None or self.idle(i, n):
            return evaluate(cond)[0]
        u, c = evaluate(uncond, cond)
        self.cosines[i] = float(F.cosine_similarity(u.flatten(1), c.flatten(1)).min())
        if self.cosines[i] >= self.threshold and i + 1 >= self.warmup * n:
            self.stopped = i + 1
        return self.mix(u, c)

    def aside(self):
        marks = {} if self.stopped is None else {"guidance stops": float(self.stopped)}
        xs = [i + 1.0 for i in self.cosines]
        line = ([1.0, max(2.0, *xs)], [self.threshold] * 2) if xs else ([], [])
        return (Plot({"cos(x0 with, x0 without prompt)": (xs, list(self.cosines.values())), "threshold": line}, y="cosine", marks=marks),)

    def report(self):
        return [Metric("guided steps", len(self.cosines), "lower")]


@method("adaptive_guidance", task=TEXT_TO_IMAGE, needs={"cfg"}, slot="wrap", piece=AdaptiveGuide, holds={"patch", "walk"})
def adaptive_guidance(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, mode: Mode = "AG", threshold: Threshold = 0.998, warmup: Warmup = 0.25) -> Events:  # fmt: skip
    """Adaptive Guidance.

    The predictions with and without the prompt grow alike while the picture forms; once their cosine passes a
    threshold the second evaluation is dropped and each later step costs half.

    Castillo et al., arXiv 2312.12487. AG takes the cosine of the x0 predictions where the paper takes that of
    ε: on a small model noise dominates ε and its cosine is above 0.99 from the first step on. x0 agrees in its
    background long before its objects, hence a threshold above the paper's 0.991: on this model guidance tells until the end, and 0.998 saves
    14 % of the evaluations without a loss of agreement with the prompt, 0.995 saves 23 % and 0.99 saves 31 %, with one of 1.5 and 5 points (24 prompts). LinearAG guides
    truly at every other step of the first half and at the others with x0_u estimated as Σ a·x0_c + Σ b·x0_u
    over what was evaluated so far; the second half goes without guidance. Its scalar weights hold for one
    model, step count, scale, sampler and negative prompt: for the embedded model's defaults they were fitted
    on 100 prompts, the paper took 200 (`python -m backends.train.linear_ag`), for other settings they are fitted at the first run,
    on 8, and kept while the studio runs. The paper regresses ε, and on all past terms, estimates included.
    """
    guide = AdaptiveGuide(threshold, warmup, scale) if mode == "AG" else (yield from _linear(job, model, stack, steps, scale))
    yield from sample(job, model, steps=steps, guide=guide, stack=stack)


def _linear(job, model, stack, steps, scale):
    """LinearAG's guide, its weights fitted first when these settings are new."""
    if scale == 1:  # the condition alone: there is no unconditional prediction to estimate, nor one to fit on
        return Guided(scale)

    def make_walk(m, n):
        return stack["walk"](m, n) if "walk" in stack else SchedulerWalk(m, n, "ddim")

    walk = make_walk(model, steps)
    if not isinstance(walk, SchedulerWalk):
        raise BadInput("LinearAG needs a sampler that evaluates one state a step; choose mode AG here.")
    key = linear_ag.key(model, steps, scale, walk.kind, job.negative)
    linear = linear_ag.known(key, model)
    if linear is None:
        yield Note(f"First run with these settings: LinearAG's weights are fitted on {linear_ag.LIVE_PROMPTS} prompts.")
        before = model.nfe
        linear = yield from linear_ag.fit(model, make_walk, steps, scale, job.negative, linear_ag.LIVE_PROMPTS)
        linear_ag.remember(key, linear)
        yield Metric("evaluations for fitting", model.nfe - before, "lower")
    return linear_ag.LinearGuide(scale, linear)
