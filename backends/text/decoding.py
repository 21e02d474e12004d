"""The decoding loop of masked diffusion language models, and the two ways to reuse keys and values within it.

Each step evaluates the canvas and reveals some masked tokens: a fixed number (LLaDA), or all that are sure enough
(Fast-dLLM). Blocks are done from left to right; one block as long as the answer is plain diffusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from backends.lazy import torch
from backends.spec import BadInput, Slider
from backends.text.canvas import Canvas, best, one_of, predict, scores, shares

if TYPE_CHECKING:
    from torch import Tensor

Steps = Annotated[int, Slider(1, 256, 1, help="evaluations of the canvas; each reveals an even share of the tokens, one at least", tried=(2, 4, 8))]
Block = Annotated[
    int, Slider(0, 256, 4, help="tokens of a block, done left to right; must divide the length; 0: one block, or the model's own blocks", tried=(0, 4))
]
Temperature = Annotated[float, Slider(0, 1.5, 0.05, help="0 takes the likeliest token")]


class Reader:
    """Logits (N, V) of the canvas, guided: l_u + (w + 1)(l_c − l_u), where the unconditional branch sees the prompt masked.

    w = 0 is no guidance and costs one evaluation a step instead of two (Nie et al., arXiv 2502.09992).
    """

    def __init__(self, model, guidance: float = 0.0):
        self.model, self.guidance = model, guidance
        self.computed = self.asked = 0  # tokens sent through the network, and tokens a plain pass would have sent

    def begin(self, canvas: Canvas, low: int, high: int) -> None:
        """A block starts."""

    def rows(self, canvas: Canvas) -> Tensor:
        """(1 or 2, N): the canvas; with guidance also without its prompt."""
        ids = canvas.ids[None]
        if not self.guidance:
            return ids
        blind = ids.clone()
        blind[:, : canvas.start] = self.model.mask
        return torch.cat([ids, blind])

    def guided(self, logits: Tensor) -> Tensor:
        if not self.guidance:
            return logits[0]
        sees, blind = logits
        out = blind + (self.guidance + 1) * (sees - blind)
        out[:, self.model.mask] = float("-inf")  # −∞ − −∞ is no number
        return out

    def __call__(self, canvas: Canvas) -> Tensor:
        rows = self.rows(canvas)
        self._tally(rows, rows.shape[1])
        return self.guided(self.model.logits(rows))

    def _tally(self, rows: Tensor, sent: int) -> None:
        self.asked += rows.numel()
        self.computed += len(rows) * sent


class BlockCache(Reader):
    """Fast-dLLM's caches (Wu et al., arXiv 2505.22618): a whole pass when a block starts, whose keys and values then stand for
    what lies outside the block: "prefix" before it alone, "dual" also behind it. Logits outside what was computed are −∞.
    `refresh`: steps between whole passes within a block; 1 caches nothing.
    """

    def __init__(self, model, guidance: float = 0.0, dual: bool = False, refresh: int = 10**9):
        super().__init__(model, guidance)
        self.dual, self.refresh, self.age = dual, refresh, 0

    def begin(self, canvas: Canvas, low: int, high: int) -> None:
        self.low, self.high, self.age = low, high, 0

    def __call__(self, canvas: Canvas) -> Tensor:
        rows = self.rows(canvas)
        end = self.high if self.dual else rows.shape[1]
        low = self.low - int(self.model.shift)  # whose states speak of the next token
        if self.age % self.refresh == 0:
            from transformers import DynamicCache

            cache = DynamicCache(config=self.model.net.config)
            logits = self.model.logits(rows, past_key_values=cache, use_cache=True)
            self.cache = self._outside(cache, low, end)
            self._tally(rows, rows.shape[1])
        else:
            positions = torch.arange(low, end, device=rows.device)[None]
            part = self.model.logits(rows[:, low:end], past_key_values=self.cache, use_cache=True, position_ids=positions)
            self.cache.crop(low - end)  # a negative length is taken off
            logits = part.new_full((len(rows), rows.shape[1], part.shape[-1]), float("-inf"))
            logits[:, self.low : end] = part[:, self.low - low :]
            self._tally(rows, end - low)
        self.age += 1
        return self.guided(logits)

    def _outside(self, cache, low: int, end: int):
        """A cache of the keys and values outside [low, end); keys carry their position already, so their order is free."""
        from transformers import DynamicCache

        kept = DynamicCache(config=self.model.net.config)
        for i, layer in enumerate(cache.layers):
            kept.update(*(torch.cat([m[:, :, :low], m[:, :, end:]], 2) for m in (layer.keys, layer.values)), i)
        return kept


@dataclass(frozen=True)
class Rule:
    """What a step reveals. `commit`: "steps", an even share of the masked tokens; "threshold", every token at least that sure;
    "factor", the most tokens n with (n + 1)(1 − c_n) < factor, c_n the n-th confidence. Never none.

    `late`: token ids that wait, however sure, until nothing else is left to reveal. Without it end tokens, which stand behind every
    answer and are the surest of all, come first and leave room for a few words (LLaDA's appendix B.4 sets their confidence to −∞).
    """

    order: str = "confidence"
    commit: str = "steps"
    threshold: float = 0.9
    factor: float = 1.0
    late: tuple[int, ...] = ()

    def choose(self, logits: Tensor, ids: Tensor, confidence: Tensor, among: Tensor, share: int) -> Tensor:
        """(N,) bool of the positions to reveal."""
        late = among & one_of(ids, self.late)
        if self.commit == "steps":
            score = scores(logits, confidence, self.order)
            return best(score if self.order == "left to right" else score - 1e6 * late, among, share)  # from the left the end comes last by itself
        among = among & ~late if (among & ~late).any() else among
        if self.commit == "threshold":
            sure = among & (confidence >= self.threshold)
            return sure if sure.any() else best(confidence, among, 1)
        ranked = confidence[among].sort(descending=True).values
        n = torch.arange(1, len(ranked) + 1, device=ranked.device)
        fits = ((n + 1) * (1 - ranked) < self.factor).nonzero()
        return best(confidence, among, int(fits.max()) + 1 if len(fits) else 1)


def blocks_of(length: int, block: int) -> int:
    """How many blocks an answer has; raises BadInput when they don't divide it."""
    if length % block:
        fit = [str(b) for b in range(2, length) if length % b == 0] or [str(length)]
        raise BadInput(f"The answer's {length} tokens can't be cut into blocks of {block}; choose {', '.join(fit)}, or 0 for a single one.")
    return length // block


def decode(canvas: Canvas, read: Reader, rule: Rule, steps: int, block: int, temperature: float = 0.0) -> Iterator[tuple[int, int]]:
    """Fill the canvas; yields (step, steps at most) after each one. `steps` are shared among the blocks, one each at least."""
    length = len(canvas.ids) - canvas.start
    blocks, at = blocks_of(length, block), torch.arange(len(canvas.ids), device=canvas.ids.device)
    each, done = max(1, steps // blocks), 0
    for b in range(blocks):
        low, high = canvas.start + b * block, canvas.start + (b + 1) * block
        inside = (at >= low) & (at < high)
        plan = [s for s in shares(int((canvas.masked & inside).sum()), each) if s]
        most = done + (len(plan) if rule.commit == "steps" else sum(plan)) + (blocks - b - 1) * (each if rule.commit == "steps" else block)
        read.begin(canvas, low, high)
        for share in plan if rule.commit == "steps" else iter(lambda: 1, None):
            among = canvas.masked & inside
            if not among.any():
                break
            logits = read(canvas)
            ids, confidence = predict(logits, temperature)
            canvas.put(rule.choose(logits, ids, confidence, among, share), ids, confidence)
            done += 1
            yield done, max(most, done)
