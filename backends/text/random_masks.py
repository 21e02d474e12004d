"""Random masks: the usual reward training of masked diffusion language models, TraceRL's baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.lazy import torch
from backends.registry import method
from backends.spec import Events
from backends.text.learning import learn, spread
from backends.text.reinforce import Rollout, clipped, replayed, standardised
from backends.text.tasks import TRAIN_TEXT, TrainText
from backends.text.tracerl import RATE, Rate, Sure, Temperature, slices

if TYPE_CHECKING:
    from torch import Tensor


def random_loss(policy, made: Rollout, reward: Tensor, prompts) -> None:
    """The loss of one update, as learning.py takes it; on the same answers and in as many passes as TraceRL."""
    keep = spread(made, reward)
    if not keep.any():
        return
    gain, made = standardised(reward, made.group)[keep], made.rows(keep)
    counts, passes = made.counts(policy.ends), len(slices(made, 1))
    for _ in range(passes):
        hidden = (torch.rand(made.step.shape, device=gain.device) < torch.rand(len(gain), 1, device=gain.device)) & counts
        canvas = made.ids.clone()
        canvas[:, made.start :][hidden] = policy.mask
        logp = replayed(policy, made, canvas)
        gained = clipped(logp, logp.detach(), gain[:, None])
        (-(gained * hidden).sum(1) / counts.sum(1)).mean().div(passes).backward()


@method("random_masks", task=TRAIN_TEXT, needs={"text", "masked", "trainable"}, paper=False)
def random_masks(job: TrainText, model, rate: Rate = RATE, temperature: Temperature = 1.0, threshold: Sure = 0.9) -> Events:
    """Random masks, rewarded at the end.

    The usual way: answers are rewarded when they are done, and trained under masks drawn at random over their words and end.

    Policy gradient with GRPO's advantages, under as many random masks as the answers' traces have steps, so that it costs what TraceRL costs;
    prompts nearly always or never right are left out as there. It is near diffu-GRPO (Zhao et al., arXiv 2504.12216), which divides no advantage
    by its prompt's deviation and hides the whole answer and some of the prompt. Padding behind the end stays seen, so that an answer's length is known to it.
    """
    yield from learn(job, model, rate, temperature, threshold, random_loss)
