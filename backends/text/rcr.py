"""RCR, the decoder of MDPO's paper: a token that was decoded earlier with less confidence than others have now is masked again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from backends.lazy import torch
from backends.registry import method
from backends.spec import Events, Metric, Result, Step, Toggle
from backends.text.canvas import Canvas, best, one_of, predict, shares
from backends.text.decoding import Block, Steps, Temperature, blocks_of
from backends.text.tasks import WRITE_TEXT, WriteText

if TYPE_CHECKING:
    from torch import Tensor


def remask(canvas: Canvas, inside: Tensor, count: int, ends_last: bool = False) -> None:
    """Mask the `count` least sure positions of a block again, whenever they were decoded; with `ends_last` end tokens before all others."""
    least = best(ends_last * one_of(canvas.ids, canvas.model.ends).float() - canvas.confidence, inside & ~canvas.given, count)
    canvas.put(least, torch.full_like(canvas.ids, canvas.model.mask), canvas.confidence)


def running_confidence(canvas: Canvas, steps: int, block: int, temperature: float, ends_last: bool = False):
    """Fill the canvas block by block; yields (step, steps, tokens masked again that had been decoded before)."""
    length = len(canvas.ids) - canvas.start
    blocks, at, done = blocks_of(length, block), torch.arange(len(canvas.ids), device=canvas.ids.device), 0
    each = max(1, steps // blocks)
    for b in range(blocks):
        inside = (at >= canvas.start + b * block) & (at < canvas.start + (b + 1) * block)
        plan = shares(int((canvas.masked & inside).sum()), min(each, block))
        for i in range(len(plan)):
            masked, logits = canvas.masked, canvas.model.logits(canvas.ids[None])[0]
            ids, confidence = predict(logits, temperature)
            canvas.put(masked & inside, ids, confidence)
            remask(canvas, inside, sum(plan[i + 1 :]), ends_last)
            done += 1
            yield done, blocks * len(plan), int((canvas.masked & ~masked).sum())


@method("rcr", task=WRITE_TEXT, needs={"text", "masked"}, paper=False)
def rcr(
    job: WriteText, model, steps: Steps = 64, block: Block = 0, temperature: Temperature = 0.0,
    ends_last: Annotated[bool, Toggle(help="end tokens wait until no word is left to reveal, and are masked again before any word")] = True,
) -> Events:  # fmt: skip
    """RCR: running-confidence remasking.

    LLaDA's decoder never takes a token back. RCR remembers how sure the model was of each token when it was predicted, and at
    each step masks the least sure ones again, however long ago they were decoded; a token predicted anew brings its new
    confidence.

    He et al., arXiv 2508.13148, section 4.3: the decoder of MDPO's paper, which needs no training (mdpo.py is its training). `ends_last` is ours.
    """
    canvas = Canvas.after(model, model.encode(job.prompt, job.length), job.length)
    before, revised = model.nfe, 0
    for i, n, back in running_confidence(canvas, steps, block or model.block or job.length, temperature, ends_last):
        revised += back
        yield Step(i, n, canvas.show())
    yield Metric("tokens per NFE", canvas.written() / (model.nfe - before), "higher")
    yield Metric("tokens taken back", revised)
    yield Result(canvas.final())
