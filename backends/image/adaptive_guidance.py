"""Adaptive Guidance (arXiv 2312.12487): stop evaluating the unconditional branch once it agrees."""

from typing import Annotated

from backends.image.sampling import Guided, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.lazy import F
from backends.registry import method
from backends.spec import Events, Guidance, Metric, Plot, Slider, Steps

Threshold = Annotated[float, Slider(0.9, 1, 0.001, help="cosine from which on guidance stops")]
Warmup = Annotated[float, Slider(0, 1, 0.05, help="fraction of the steps that are always guided")]


class AdaptiveGuide(Guided):
    """Guides until cos(x0_c, x0_u) ≥ threshold, then evaluates the condition alone."""

    def __init__(self, threshold: Threshold = 0.991, warmup: Warmup = 0.25, scale: float = 5.0):
        super().__init__(scale)
        self.threshold, self.warmup = threshold, warmup
        self.cosines, self.stopped = [], None

    def __call__(self, evaluate, cond, uncond, i, n):
        if self.stopped is not None:
            return evaluate(cond)[0]
        u, c = evaluate(uncond, cond)
        self.cosines.append(float(F.cosine_similarity(u.flatten(1), c.flatten(1)).min()))
        if self.cosines[-1] >= self.threshold and i + 1 >= self.warmup * n:
            self.stopped = i + 1
        return self.mix(u, c)

    def aside(self):
        marks = {} if self.stopped is None else {"guidance stops": self.stopped}
        xs = [i + 1.0 for i in range(len(self.cosines))]
        line = ([1.0, max(2.0, float(len(xs)))], [self.threshold] * 2)
        return (Plot({"cos(x0 with, x0 without prompt)": (xs, list(self.cosines)), "threshold": line}, y="cosine", marks=marks),)

    def report(self):
        return [Metric("guided steps", len(self.cosines), "lower")]


@method("adaptive_guidance", task=TEXT_TO_IMAGE, needs={"cfg"}, slot="wrap", piece=AdaptiveGuide, holds={"patch", "walk"})
def adaptive_guidance(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, threshold: Threshold = 0.991, warmup: Warmup = 0.25) -> Events:  # fmt: skip
    """Adaptive Guidance.

    The predictions with and without the prompt grow alike while the picture forms; once their cosine passes a
    threshold the second evaluation is dropped and each later step costs half.

    Castillo et al., arXiv 2312.12487, AG. We take the cosine of the x0 predictions where the paper takes that
    of ε: on a small model noise dominates ε and its cosine is above 0.99 from the first step on.
    """
    return sample(job, model, steps=steps, guide=AdaptiveGuide(threshold, warmup, scale), stack=stack)
