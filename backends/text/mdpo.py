"""MDPO: reinforcement learning in which every step of decoding is rewarded for the answer it would give."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated

from backends.lazy import torch
from backends.registry import method
from backends.spec import Choice, Events, Slider
from backends.text.learning import learn, spread
from backends.text.reinforce import Rollout, clipped, compared, replayed, rewards, standardised
from backends.text.tasks import TRAIN_TEXT, TrainText
from backends.text.tracerl import RATE, Rate, Sure, Temperature, slices

if TYPE_CHECKING:
    from torch import Tensor


def step_advantages(reward: Tensor) -> Tensor:
    """(T, …) advantages before normalisation from the rewards (T, …) of each step's filled answer.

    a_t = (r_t − r_{t−1} + 1) + mean over later steps of r_u; the first step counts r_1 + 1, the last has r_T for its mean.
    """
    gained = reward - torch.cat([torch.zeros_like(reward[:1]), reward[:-1]]) + 1
    later = torch.stack([reward[t + 1 :].mean(0) if t + 1 < len(reward) else reward[-1] for t in range(len(reward))])
    return gained + later


def normalised(gains: Tensor, group: Tensor) -> Tensor:
    """(T, R) made comparable within each step and prompt: less the mean, over the standard deviation + 1e-4."""
    _, gap, std = compared(gains, group)
    return gap / (std + 1e-4)


def step_loss(model, kept: int = 4, beta: float = 0.02, rewarded: str = "every step"):
    """The loss of one update, as learning.py takes it; `model`: the reference, from which the policy is not to go far."""
    reference = copy.copy(model)  # the weights as they are; only the policy's are trained

    def lose(policy, made: Rollout, reward: Tensor, prompts) -> None:
        steps = range(len(made.filled))
        if rewarded == "every step":
            reward = rewards(policy, prompts, made, torch.stack([tokens for tokens, _ in made.filled]))  # (T, R)
        if float(reward.std()) == 0.0:
            return
        if rewarded == "every step":
            gains = normalised(step_advantages(reward), made.group)
            chosen = gains.abs().sum(1).topk(min(kept, len(steps))).indices.tolist()
        else:
            gains = normalised(reward[None].expand(len(steps), -1), made.group)
            chosen = torch.randperm(len(steps))[:kept].tolist()
        length = made.step.shape[1]
        for t in chosen:
            tokens, old = made.filled[t]
            canvas = made.at(t, policy.mask)
            masked = made.step >= t
            rows = masked.any(1)
            logp = replayed(policy, made, canvas, tokens)
            with torch.no_grad():
                far = logp - replayed(reference, made, canvas, tokens)
            pull = 0.5 * (logp - (logp - far).detach()).square()  # the reference's log-probabilities are constants
            gained = clipped(logp, old, gains[t][:, None]) * (length / masked.sum(1, keepdim=True).clamp_min(1))
            weight = old.exp() * masked
            ((beta * pull - gained) * weight).sum(1)[rows].div(length).sum().div(len(made.ids) * len(chosen)).backward()

    return lose


@method("mdpo", task=TRAIN_TEXT, needs={"text", "masked", "trainable"})
def mdpo(
    job: TrainText, model, rate: Rate = RATE, kept: Annotated[int, Slider(1, 16, 1, help="decoding steps trained on, those with the largest advantages")] = 2,
    beta: Annotated[float, Slider(0, 0.5, 0.01, help="pull towards the model as it was")] = 0.02,
    rewarded: Annotated[str, Choice(("every step", "the end"), help="which answers are rewarded: each step's, or the last alone")] = "every step",
    temperature: Temperature = 0.4, threshold: Sure = 1.01,
    per_step: Annotated[int, Slider(1, 8, 1, help="tokens revealed a step")] = 2,
) -> Events:  # fmt: skip
    """MDPO: masked diffusion policy optimisation.

    Half-way through decoding, the answer that could be read off is often right already, and then goes wrong. MDPO fills in all
    masks at each step, rewards that answer, and trains the steps that made it better or worse.

    He et al., arXiv 2508.13148, sections 3 and 4: advantages of each step from the rewards before and after it, normalised within
    the prompt's answers; the steps with the largest sum of absolute advantages; PPO's clip, weighed by L over the number of masked
    tokens and by each token's confidence; β·½(log-ratio to the reference)². Left out: the curriculum of prompts that show
    over-denoising. Each rollout is trained on once, so that the clip has nothing to cut. The paper's learning rate, 7e-7, is for billions of parameters.
    """
    yield from learn(job, model, rate, temperature, threshold, step_loss(model, kept, beta, rewarded), per_step)


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

    The usual way: answers are rewarded when they are done, and trained under masks drawn at random, as in pre-training.

    Policy gradient with diffu-GRPO's advantages (Zhao et al., arXiv 2504.12216), under as many random masks as the answers' traces have
    steps, so that it costs what TraceRL costs; prompts nearly always or never right are left out as there.
    """

    yield from learn(job, model, rate, temperature, threshold, random_loss)
