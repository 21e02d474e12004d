"""What the judge of the object world says of an object while it is made: a curve, and the seconds until it said yes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.lazy import torch
from backends.scene.turning import SIDE, around, pixels
from backends.spec import Metric, Plot
from backends.worlds.objects import thing_in

if TYPE_CHECKING:
    from backends.denoiser import Denoiser

BAR, LOOKS, SIDES = 0.5, 20, 4  # the score to reach, how often the judge looks in a run, and at how many sides


class Watch:
    """Looks at `field` from SIDES of its turntable, LOOKS times in `iterations`, or at each of fewer; at nothing when the prompt names no object of the world.

    `model`: whose clock counts (`elapsed`, which the runner keeps). Looking is for a Step's `aside`, which is drawn while that clock stands.
    """

    def __init__(self, field, prompt: str, model: Denoiser, iterations: int):
        self.field, self.thing, self.model, self.every = field, thing_in(prompt), model, math.ceil(iterations / LOOKS)
        self.at, self.scores, self.seconds, self.told = [], [], [], False

    def look(self, i: int, last: bool = False) -> tuple[Plot, ...]:
        """The curve until step `i`, whose score is taken when it is due; that of the `last` always is."""
        if self.thing is None:
            return ()
        if not self.at or i >= self.at[-1] + self.every or (last and i > self.at[-1]):
            from backends.metrics.objects import agreement

            with torch.no_grad():
                self.scores.append(agreement(pixels(self.field, around(SIDES), SIDE), self.thing))
            self.at.append(i), self.seconds.append(self.model.elapsed)
        curves = {"judge's score, 0 to 1": (self.at, self.scores), "to reach": ([self.at[0], max(i, self.at[0] + 1)], [BAR, BAR])}
        return (Plot(curves),)

    def reached(self) -> Iterator[Metric]:
        """The seconds until the first score of BAR; nothing when there was none, or it was told before, after an earlier stage."""
        for score, seconds in zip(self.scores, self.seconds):
            if score >= BAR and not self.told:
                self.told = True
                yield Metric(f"seconds to a judge's score of {BAR}", seconds, "lower", f"looked at {SIDES} sides every {self.every} steps")
                return
