"""What reinforcement learning of masked diffusion language models shares: rollouts with their trace, rewards, the loss on a state.

A rollout remembers at which step each token appeared, so that training can go back to the very states that decoding went through.
"""

from __future__ import annotations

import copy
import functools
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import torch
from backends.spec import Tokens
from backends.text.adapter import low_rank
from backends.text.canvas import gumbel, until_end
from backends.worlds import text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Rollout:
    """R answers of L tokens. `ids` (R, P + L): prompts, padded on the left (`seen` is false there), and answers; `start`: P.

    `step` (R, L): when each token appeared, from 0 on; `logp` (R, L): its log-probability then, at the sampling temperature.
    `filled`: (tokens, log-probabilities), each (R, L), of every step: the masked tokens filled with that step's prediction.
    `group` (R,): which prompt. `counts` (R, L): the answers' tokens up to their first end token; what follows is padding.
    """

    ids: Tensor
    seen: Tensor
    start: int
    step: Tensor
    logp: Tensor
    temperature: float
    group: Tensor
    filled: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def counts(self, ends: tuple[int, ...]) -> Tensor:
        return until_end(self.ids[:, self.start :], ends)

    def at(self, since: Tensor | int, mask: int) -> Tensor:
        """The canvas (R, P + L) in which every token that appeared at step `since` or later is masked."""
        ids = self.ids.clone()
        ids[:, self.start :][self.step >= since] = mask
        return ids

    def rows(self, keep: Tensor) -> Rollout:
        keep = keep.nonzero()[:, 0]
        return Rollout(self.ids[keep], self.seen[keep], self.start, self.step[keep], self.logp[keep], self.temperature, self.group[keep],
                       [(f[keep], p[keep]) for f, p in self.filled])  # fmt: skip


def roll_out(model, prompts: list[str], answers: int, length: int, temperature: float, threshold: float = 0.9, per_step: int = 1) -> Rollout:
    """`answers` to each prompt by dynamic low-confidence decoding: at each step all tokens at least `threshold` sure, else the best `per_step`.

    A step evaluates only the rows that are not done, and draws only masked tokens.
    """
    asked = [model.template(p) for p in prompts]
    start = max(map(len, asked))
    ids = torch.full((len(prompts), start + length), model.mask)
    seen = torch.ones_like(ids, dtype=torch.bool)
    for i, row in enumerate(asked):
        gap = start - len(row)
        ids[i, :start], seen[i, :gap] = torch.tensor([model.eos] * gap + row), False
    group = torch.arange(len(prompts)).repeat_interleave(answers).to(model.device)
    ids, seen = ids.to(model.device)[group], seen.to(model.device)[group]
    step, kept, filled = torch.full_like(ids[:, start:], -1), torch.zeros(ids[:, start:].shape, device=model.device), []
    for i in range(length):
        answer = ids[:, start:]
        masked = answer == model.mask
        live = masked.any(1)
        if not live.any():
            break
        with torch.no_grad():
            logits = model.answers(ids[live], length, attention_mask=seen[live])[masked[live]]  # (masked tokens, V)
            drawn = gumbel(logits, temperature).argmax(-1)
            tokens = answer.masked_scatter(masked, drawn)
            logp = torch.zeros_like(kept).masked_scatter(masked, _logp(logits, drawn, temperature))
        best = logp.masked_fill(~masked, -torch.inf).topk(min(per_step, length), 1).indices
        chosen = masked & ((logp.exp() >= threshold) | torch.zeros_like(masked).scatter_(1, best, True))
        filled.append((tokens, logp))
        ids[:, start:] = torch.where(chosen, tokens, answer)
        step, kept = step.masked_fill(chosen, i), torch.where(chosen, logp, kept)
    return Rollout(ids, seen, start, step, kept, temperature, group, filled)


def _logp(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probability of tokens under the distribution they are sampled from; at temperature 0 under the model's own."""
    return (logits / (temperature or 1.0)).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def replayed(model, made: Rollout, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
    """(R, L) log-probabilities of the answers' tokens, or of `tokens`, given the canvas `ids`; with gradients where they are on."""
    tokens = made.ids[:, made.start :] if tokens is None else tokens
    return _logp(model.answers(ids, tokens.shape[1], attention_mask=made.seen), tokens, made.temperature)


def rewards(model, prompts: list[str], made: Rollout, answers: Tensor | None = None) -> Tensor:
    """(…, R) 1 where an answer is right, else 0 (a form's share of right fields), of `answers` (…, R, L) or the rollout's own."""
    rows = made.ids[:, made.start :] if answers is None else answers

    @functools.cache  # what is filled in half-way is often what was there a step before
    def right(asked: int, row: tuple[int, ...]) -> float:
        return text.check(prompts[asked], model.text(row)) or 0.0

    asked = made.group.expand(rows.shape[:-1]).flatten().tolist()
    found = [right(a, tuple(row)) for a, row in zip(asked, rows.reshape(-1, rows.shape[-1]).tolist())]
    return torch.tensor(found, device=made.ids.device).view(rows.shape[:-1])


def compared(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean of its prompt, difference from it, its prompt's standard deviation), each of values (…, R)."""
    member = torch.nn.functional.one_hot(group).to(values)  # (R, prompts)
    count = member.sum(0)
    mean = (values @ member / count)[..., group]
    gap = values - mean
    return mean, gap, (gap.square() @ member / (count - 1).clamp_min(1)).sqrt()[..., group]


def standardised(reward: Tensor, group: Tensor) -> Tensor:
    """(R,) reward less its prompt's mean, over its prompt's standard deviation; 0 where all answers fared alike."""
    _, gap, std = compared(reward, group)
    return torch.where(std > 1e-6, gap / std.clamp_min(1e-6), 0.0)


def clipped(logp: Tensor, old: Tensor, advantage: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's objective of each token, min(ρA, clip(ρ, 1 ± clip)·A), to be raised."""
    ratio = (logp - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def k3(logp: Tensor, other: Tensor) -> Tensor:
    """Schulman's estimate of KL(policy ‖ other) at tokens drawn from the policy: e^d − d − 1, d = other − logp."""
    gap = other - logp
    return gap.exp() - gap - 1


@contextmanager
def trained_copy(model, rank: int = 0):
    """A MaskPredictor around a copy of the model's network of which all weights are trained, or with a `rank` a change of low rank; the model stays as it was."""
    mine = copy.copy(model)
    mine.net = copy.deepcopy(model.net).requires_grad_(True)
    if rank:
        low_rank(mine.net, rank)
    mine.net._forward_pre_hooks.clear()  # the copy's counter would count for itself
    mine.nfe = 0
    mine.net.register_forward_pre_hook(lambda module, args, kwargs: model._count(module, args, kwargs), with_kwargs=True)
    yield mine


def accuracy(model, prompts: list[str], length: int, temperature: float, threshold: float, per_step: int = 1) -> float:
    """Share of prompts answered rightly, one answer each, decoded as `roll_out` does."""
    made = roll_out(model, prompts, 1, length, temperature, threshold, per_step)
    return float(rewards(model, prompts, made).mean())


def problems(kind: str, seed: int, n: int, held_out: bool = False) -> list[str]:
    """n prompts of a kind; held out ones are of those no training has seen."""
    rng = np.random.default_rng([text.HELD_OUT_SEED, seed, int(held_out)])
    return [text.draw(rng, kind, held_out).prompt for _ in range(n)]


def shown(model, made: Rollout, row: int) -> Tokens:
    """One answer with its trace: a step for each at which tokens appeared."""
    answer, steps, sure = made.ids[row, made.start :], made.step[row], made.logp[row].exp()
    past = []
    for i in range(int(steps.max()) + 1):
        marks = "".join("n" if s == i else "k" if s < i else "m" for s in steps.tolist())
        pieces = tuple(model.piece(int(t)) if s <= i else "" for t, s in zip(answer, steps.tolist()))
        past.append(Tokens(pieces, tuple(round(float(c), 3) if s <= i else 0.0 for c, s in zip(sure, steps.tolist())), marks, model.text(answer)))
    return Tokens(past[-1].pieces, past[-1].confidence, past[-1].marks, past[-1].text, tuple(past))
