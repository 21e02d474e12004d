"""The loop of reward training: draw answers, weigh them, update a copy of the model, show how it goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.lazy import torch
from backends.spec import Events, Metric, Plot, Result, Step
from backends.text import reinforce
from backends.text.reinforce import Rollout
from backends.text.tasks import TrainText
from backends.worlds import text

if TYPE_CHECKING:
    from torch import Tensor

TESTED, DECODED = 96, (0.0, 0.9)  # held-out problems, and how all arms' are decoded: temperature, and how sure a token must be to appear beside others
RANK = 16  # of the change that is trained


def learn(job: TrainText, model, rate: float, temperature: float, threshold: float, lose: Callable[..., None], per_step: int = 1) -> Events:
    """Updates of a copy of the model, of low rank. `lose(policy, rollout, reward)` adds the gradients of its loss to the copy.

    The curve shows the share of right answers that were drawn, as each method draws them, and before the first and after the last update the share
    of held-out problems answered rightly, for which all methods decode alike.
    """
    how = (temperature, threshold, per_step)
    length, tests = text.LENGTHS[job.problem], reinforce.problems(job.problem, job.seed, TESTED, held_out=True)
    with reinforce.trained_copy(model, RANK) as policy:
        optimiser = adamw(policy, rate)
        before, drawn = reinforce.accuracy(policy, tests, length, *DECODED), []
        yield Step(1, job.updates + 1, curve(drawn, before))  # measuring takes as long as some updates
        for i in range(job.updates):
            made, reward = update(policy, optimiser, job, i, lose, *how)
            drawn.append(float(reward.mean()))
            yield Step(i + 2, job.updates + 1, curve(drawn, before), (reinforce.shown(policy, made, int(reward.argmax())),))
        after = reinforce.accuracy(policy, tests, length, *DECODED)
    said = f"of {TESTED} held-out problems, likeliest tokens, threshold {DECODED[1]:g}; so few tell it to within {200 * math.sqrt(0.25 / TESTED):.0f} points"
    yield Metric("right before (%)", 100 * before)
    yield Metric("right after (%)", 100 * after, "higher", said)
    yield Result(curve(drawn, before, after))


def adamw(policy, rate: float):
    return torch.optim.AdamW([p for p in policy.net.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.95), weight_decay=0.0)


def update(
    policy, optimiser, job: TrainText, i: int, lose: Callable[..., None], temperature: float, threshold: float, per_step: int = 1
) -> tuple[Rollout, Tensor]:
    """The i-th step of the optimiser, on answers drawn anew; (those, their rewards)."""
    prompts = reinforce.problems(job.problem, job.seed + 1 + i, job.prompts)
    made = reinforce.roll_out(policy, prompts, job.answers, text.LENGTHS[job.problem], temperature, threshold, per_step)
    reward = reinforce.rewards(policy, prompts, made)
    with torch.enable_grad():
        lose(policy, made, reward, prompts)
    torch.nn.utils.clip_grad_norm_(policy.net.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return made, reward


def curve(drawn: list[float], before: float, after: float | None = None) -> Plot:
    steps = [float(i + 1) for i in range(len(drawn))]
    across = [1.0, max(2.0, len(drawn))]
    lines = {"drawn answers": (steps, [100 * d for d in drawn]), "held out, before": (across, [100 * before] * 2)}
    if after is not None:
        lines["held out, after"] = (across, [100 * after] * 2)
    return Plot(lines, x="update", y="right (%)")


def spread(made: Rollout, reward: Tensor) -> Tensor:
    """(R,) bool: answers to the prompts that 20 to 80 % of their answers get right: from the others there is little to learn."""
    share = reinforce.compared(reward, made.group)[0]
    return (share > 0.199) & (share < 0.801)
