"""The canvas: the tokens of prompt and answer, which of them are still masked, and how sure the model was of each.

What every decoder shares: the canvas itself, confidences, and how many tokens a step reveals.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backends.lazy import torch
from backends.spec import Tokens

if TYPE_CHECKING:
    from torch import Tensor

GIVEN, MASKED, NEW, KEPT, BACK = "gmnkr"  # the marks of Tokens


class Canvas:
    """`ids` (N,); `start`: where the answer begins; `confidence` (N,): probability at which each token was last predicted, 0–1."""

    def __init__(self, model, ids: Tensor, start: int):
        self.model, self.ids, self.start = model, ids, start
        self.given = ids != model.mask
        self.confidence = torch.where(self.given, 1.0, 0.0)  # what was given counts as certain
        self._before, self._past = ids.clone(), []

    @classmethod
    def after(cls, model, prompt: Tensor, length: int) -> Canvas:
        """A prompt, and `length` masked tokens after it."""
        return cls(model, torch.cat([prompt, prompt.new_full((length,), model.mask)]), len(prompt))

    @property
    def masked(self) -> Tensor:
        return self.ids == self.model.mask

    def put(self, where: Tensor, ids: Tensor, confidence: Tensor) -> None:
        """Write tokens at the positions where the mask `where` (N,) is true; `ids` and `confidence` are (N,)."""
        self.ids = torch.where(where, ids, self.ids)
        self.confidence = torch.where(where, confidence, self.confidence)

    def show(self) -> Tokens:
        """The answer now, marked against the last call; it joins the past that the last one carries."""
        now, before, mask = self.ids[self.start :].tolist(), self._before[self.start :].tolist(), self.model.mask
        given, sure = self.given[self.start :].tolist(), self.confidence[self.start :].tolist()
        marks = "".join(GIVEN if g else (MASKED if b == mask else BACK) if i == mask else NEW if i != b else KEPT for i, b, g in zip(now, before, given))
        pieces = tuple("" if i == mask else self.model.piece(i) for i in now)
        self._before = self.ids.clone()
        tokens = Tokens(pieces, tuple(round(c, 3) for c in sure), marks, self.model.text(now))
        self._past.append(tokens)
        return tokens

    def written(self) -> int:
        """Tokens of the answer that were not given, up to its first end token: padding behind it is no work done."""
        return int((~self.given[self.start :] & until_end(self.ids[self.start :], self.model.ends)).sum())

    def final(self) -> Tokens:
        """The answer, with every step on the way to it."""
        last = self._past[-1] if self._past else self.show()
        return Tokens(last.pieces, last.confidence, last.marks, last.text, tuple(self._past))


def one_of(ids: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """Bool, the shape of ids: which of them are one of `tokens`."""
    return torch.isin(ids, torch.tensor(tokens, dtype=ids.dtype, device=ids.device))


def until_end(answers: Tensor, ends: tuple[int, ...]) -> Tensor:
    """(…, L) bool: the tokens of answers (…, L) up to and with the first end token; what follows is padding."""
    ends = one_of(answers, ends).long()
    return ends.cumsum(-1) - ends == 0


def shares(total: int, steps: int) -> list[int]:
    """`total` tokens over `steps` steps as evenly as can be, the first ones taking the remainder."""
    return [total // steps + (i < total % steps) for i in range(steps)]


def gumbel(logits: Tensor, temperature: float) -> Tensor:
    """Logits whose argmax is a sample at `temperature` (0: the argmax itself), in float64: in float32 low temperatures lose
    their rare tokens (Zheng et al., arXiv 2409.02908)."""
    if temperature == 0:
        return logits
    noise = -torch.log(-torch.log(torch.rand_like(logits, dtype=torch.float64)))
    return logits.double() / temperature + noise


def predict(logits: Tensor, temperature: float = 0.0) -> tuple[Tensor, Tensor]:
    """(ids, confidence), each logits' shape less its last: what is put where, and its probability under the model."""
    ids = gumbel(logits, temperature).argmax(-1)
    return ids, logits.softmax(-1).gather(-1, ids[..., None])[..., 0]


def scores(logits: Tensor, confidence: Tensor, order: str) -> Tensor:
    """How much each position asks to be revealed next, under one of ORDERS (the survey's section on unmasking)."""
    if order == "random":
        return torch.rand_like(confidence)
    if order == "confidence":
        return confidence
    probs = logits.softmax(-1)
    if order == "margin":
        top = probs.topk(2, -1).values
        return top[..., 0] - top[..., 1]
    if order == "entropy":
        return torch.special.xlogy(probs, probs).sum(-1)
    if order == "left to right":
        return -torch.arange(len(confidence), device=confidence.device, dtype=confidence.dtype)
    raise ValueError(order)


ORDERS = ("confidence", "margin", "entropy", "random", "left to right")


def best(score: Tensor, among: Tensor, count: int) -> Tensor:
    """(N,) bool: the `count` highest-scoring positions of those where `among` is true."""
    chosen = torch.zeros_like(among)
    chosen[score.masked_fill(~among, -math.inf).topk(min(count, int(among.sum()))).indices] = True
    return chosen & among
