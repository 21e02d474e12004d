"""A method in one file: copy it into backends/image/ and the tab, the API, the command line and the contract tests have it."""

from typing import Annotated

from backends.image.sampling import Guided, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.registry import method
from backends.spec import Events, Guidance, Metric, Plot, Slider, Steps

Fade = Annotated[float, Slider(0, 1, 0.05, help="how much of the guidance is gone at the last step")]


class Fading(Guided):
    """Classifier-free guidance whose scale falls along a line."""

    def __init__(self, scale: float, fade: float):
        super().__init__(scale)
        self.first, self.fade, self.scales = scale, fade, []

    def __call__(self, evaluate, cond, uncond, i, n):
        self.scale = 1 + (self.first - 1) * (1 - self.fade * i / max(1, n - 1))
        self.scales.append(self.scale)
        return super().__call__(evaluate, cond, uncond, i, n)

    def aside(self):
        """What is drawn beside the picture at each step."""
        return (Plot({"guidance": ([i + 1.0 for i in range(len(self.scales))], list(self.scales))}, y="scale"),)

    def report(self):
        """Figures for the table under the arms."""
        return [Metric("mean guidance", sum(self.scales) / len(self.scales))]


@method("fading_guidance", task=TEXT_TO_IMAGE, needs={"cfg"}, holds={"patch", "walk"}, paper=False)
def fading_guidance(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 7.0, fade: Fade = 1.0) -> Events:
    """Fading guidance.

    Guides strongly while the picture takes shape and hardly at all while its details do.

    The third paragraph and what follows are for readers of the code: the paper, its equation, where this differs. `paper=False`: it is in no list of papers.
    """
    return sample(job, model, steps=steps, guide=Fading(scale, fade), stack=stack)
