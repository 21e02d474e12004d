"""What reinforcement learning of masked diffusion language models shares: rollouts with their trace, rewards, the loss on a state.

A rollout remembers at which step each token appeared, so that training can go back to the very states that decoding went through.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import torch
from backends.spec import Tokens
from backends.text.canvas import predict, until_end
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

    def counts(self, eos: int) -> Tensor:
        return until_end(self.ids[:, self.start :], eos)

    def at(self, since: Tensor | int, mask: int) -> Tensor:
        """The canvas (R, P + L) in which every token that appeared at step `since` or later is masked."""
        ids = self.ids.clone()
        ids[:, self.start :][self.step >= since] = mask
        return ids

    def rows(self, keep: Tensor) -> Rollout:
        return Rollout(self.ids[keep], self.seen[keep], self.start, self.step[keep], self.logp[keep], self.temperature, self.group[keep],
                       [(f[keep], p[keep]) for f, p in self.filled])  # fmt: skip


def roll_out(model, prompts: list[str], answers: int, length: int, temperature: float, threshold: float = 0.9, per_step: int = 1) -> Rollout:
    """`answers` to each prompt by dynamic low-confidence decoding: at each step all tokens at least `threshold` sure, else the best `per_step`."""
    rows = [model.template(p) for p in prompts for _ in range(answers)]
    start = max(map(len, rows))
    ids = torch.full((len(rows), start + length), model.mask, device=model.device)
    seen = torch.ones_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, start - len(row) : start], seen[i, : start - len(row)] = torch.tensor(row, device=ids.device), False
        ids[i, : start - len(row)] = model.eos
    made = Rollout(ids, seen, start, torch.full((len(rows), length), -1, device=ids.device), torch.zeros(len(rows), length, device=ids.device), temperature,
                   torch.arange(len(prompts), device=ids.device).repeat_interleave(answers))  # fmt: skip
    for i in range(length):
        masked = ids[:, start:] == model.mask
        if not masked.any():
            break
        with torch.no_grad():
            logits = model.logits(ids, attention_mask=seen)[:, start:]
        tokens, _ = predict(logits, temperature)
        logp = _logp(logits, tokens, temperature)
        sure = logp.exp().masked_fill(~masked, -1)
        best = torch.zeros_like(masked).scatter_(1, sure.topk(min(per_step, length), 1).indices, True)
        chosen = masked & ((sure >= threshold) | best)
        made.filled.append((torch.where(masked, tokens, ids[:, start:]), torch.where(masked, logp, 0.0)))
        ids[:, start:] = torch.where(chosen, tokens, ids[:, start:])
        made.step[chosen], made.logp[chosen] = i, logp[chosen]
    return made


def _logp(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probability of tokens under the distribution they are sampled from; at temperature 0 under the model's own."""
    return (logits / (temperature or 1.0)).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def replayed(model, made: Rollout, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
    """(R, L) log-probabilities of the answers' tokens, or of `tokens`, given the canvas `ids`; with gradients where they are on."""
    tokens = made.ids[:, made.start :] if tokens is None else tokens
    return _logp(model.logits(ids, attention_mask=made.seen)[:, made.start :], tokens, made.temperature)


def rewards(model, prompts: list[str], made: Rollout, answers: Tensor | None = None) -> Tensor:
    """(R,) 1 where an answer is right, else 0 (a form's share of right fields)."""
    rows = made.ids[:, made.start :] if answers is None else answers
    return torch.tensor([text.check(prompts[g], model.text(row)) or 0.0 for g, row in zip(made.group.tolist(), rows)], device=made.ids.device)


def standardised(reward: Tensor, group: Tensor) -> Tensor:
    """(R,) reward less its prompt's mean, over its prompt's standard deviation; 0 where all answers fared alike."""
    out = torch.zeros_like(reward)
    for g in group.unique():
        mine = group == g
        r = reward[mine]
        out[mine] = (r - r.mean()) / r.std().clamp_min(1e-6) if len(r) > 1 and r.std() > 0 else 0.0
    return out


def clipped(logp: Tensor, old: Tensor, advantage: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's objective of each token, min(ρA, clip(ρ, 1 ± clip)·A), to be raised."""
    ratio = (logp - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def k3(logp: Tensor, other: Tensor) -> Tensor:
    """Schulman's estimate of KL(policy ‖ other) at tokens drawn from the policy: e^d − d − 1, d = other − logp."""
    gap = other - logp
    return gap.exp() - gap - 1


@contextmanager
def trained_copy(model):
    """A MaskPredictor of its own weights, trainable, around a copy of the model's network; the model stays as it was."""
    mine = copy.copy(model)
    mine.net = copy.deepcopy(model.net).requires_grad_(True)
    mine.net._forward_pre_hooks.clear()  # the copy's counter would count for itself
    mine.nfe = 0
    mine.net.register_forward_pre_hook(lambda module, args, kwargs: model._count(module, args, kwargs), with_kwargs=True)
    yield mine


def accuracy(model, prompts: list[str], length: int) -> float:
    """Share of prompts answered rightly, the surest token first, one a step."""
    made = roll_out(model, prompts, 1, length, 0.0, threshold=2.0)
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
