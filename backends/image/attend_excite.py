"""Attend-and-Excite (arXiv 2301.13826): every concept must hold at least one place of the attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from backends.image.astar import Concepts
from backends.image.attention_maps import MapGuided
from backends.image.concept_words import chosen
from backends.image.sampling import Guided, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.registry import method
from backends.spec import Events, Guidance, Metric, Slider, Steps

if TYPE_CHECKING:
    from torch import Tensor

Alpha = Annotated[
    float, Slider(0, 1, 0.01, help="length of a move towards the neglected concept, as a share of the noise present; 0 leaves the sampler as it is")
]
Until = Annotated[float, Slider(0, 1, 0.05, help="fraction of the steps that are moved")]
Refinements = Annotated[int, Slider(0, 20, 1, help="most moves at a step whose threshold is not met")]
# Fractions of the run (official code: steps 0, 10 and 20 of 50) -> attention that the weakest concept must reach.
THRESHOLDS = {0.0: 0.05, 0.2: 0.5, 0.4: 0.8}


class AttendExcite(MapGuided):
    def __init__(self, *args, until=0.5, refinements=20, **kwargs):
        super().__init__(*args, **kwargs)
        self.until, self.refinements, self.moves = until, refinements, 0
        self.curves = {f"1 − max attention, {w}": [] for w in self.words}

    def loss(self, maps, i) -> Tensor:
        """The weakest concept's 1 − max A."""
        losses = (1 - maps.amax((2, 3))).clamp_min(0)  # (B, concepts)
        self.latest = losses.detach().mean(0).tolist()
        return losses.amax(1)

    def before_step(self, x, i, noise):
        n = len(self.timesteps)
        if i >= self.until * n:
            return x
        wanted = next((v for f, v in THRESHOLDS.items() if round(f * n) == i), None)
        moved, loss = self.descend(x, i)
        for _ in range(self.refinements if wanted and self.alpha else 0):
            if float(loss.max()) <= 1 - wanted:
                break
            self.moves += 1
            x = moved
            moved, loss = self.descend(x, i)
        for line, value in zip(self.curves.values(), self.latest):
            line.append(value)
        self.moves += bool(self.alpha)
        return moved

    def report(self):
        return [Metric("moves", self.moves, "lower")]


@method("attend_excite", task=TEXT_TO_IMAGE, needs={"cfg", "unet", "cross_attention", "gradients"}, holds={"wrap"}, paper=False)
def attend_excite(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, concepts: Concepts = "", alpha: Alpha = 0.05,
                  until: Until = 0.5, refinements: Refinements = 20) -> Events:  # fmt: skip
    """Attend-and-Excite.

    The state is moved so that the most neglected concept of the prompt wins at least one spot of the attention; at three
    early steps the move is repeated until a threshold is met.

    Chefer et al., arXiv 2301.13826, with the constants of the official code: second softmax of 100·A without the start
    token, 3×3 smoothing, thresholds 0.05, 0.5, 0.8 at 0, 20 and 40 % of the steps, the first half of the steps moved. Its
    step, 20·√(1 → ½) times the gradient, belongs to Stable Diffusion's latents; here a move is a share of the noise present.
    There the start token and the last are dropped; we drop all padding, as that code does for SD 2.1.
    """
    cond = model.encode(job.prompt)[0]
    words, rows = chosen(concepts, cond)
    patch = AttendExcite(alpha, words, rows, cond, until=until, refinements=refinements)
    return sample(job, model, steps=steps, guide=Guided(scale), patches=(patch,), stack=stack)
