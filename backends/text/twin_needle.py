"""The embedded model's autoregressive twin looking for needles: LongLLaDA's control."""

from __future__ import annotations

import math

from backends import embedded
from backends.lazy import F, torch
from backends.registry import method
from backends.spec import Events
from backends.text.longllada import ANSWER, DRAWS, gone_on, lengths_up_to, notes, probe, rope_of, told
from backends.text.tasks import FIND_NEEDLE, FindNeedle


@method("twin_needle", task=FIND_NEEDLE, needs={"text", "twin"}, paper=False, prepare=lambda model, **_: embedded.load_twin())
def twin_needle(job: FindNeedle, model) -> Events:
    """The autoregressive twin.

    The same layers, tokens and trained length, taught to read from left to right: what becomes of its perplexity beyond that length, where a
    diffusion model keeps its own.

    LongLLaDA's comparison with autoregressive models (Liu et al., arXiv 2506.14429, section 3) at our size (train/text_twin.py).
    """
    net, tokenizer = embedded.load_twin()
    trained = rope_of(model)[2]
    lengths = lengths_up_to(round(job.reach * trained), trained)

    def count(text: str) -> int:
        return len(model.template(text))

    def row(text: str, said: list[int] = ()):
        return torch.tensor([[*model.template(text), *said]], device=model.device)

    def answer(rng, length, depth) -> tuple[str, str, str]:
        text, right = notes(count, rng, length, depth)
        return text, model.text(gone_on(model, net, tokenizer, row(text), ANSWER)).strip(), right

    def perplexity(rng, length) -> float:
        lost = 0.0
        for text, said in (notes(count, rng, length, 1.0) for _ in range(DRAWS)):
            tokens = model.tokens(said)
            logits = net(input_ids=row(text, tokens), logits_to_keep=len(tokens) + 1).logits[0, :-1].float()
            lost += float(F.cross_entropy(logits, torch.tensor(tokens, device=logits.device))) / DRAWS
            model.nfe += 1
        return math.exp(lost)

    yield from told(job, lengths, trained, probe(job, lengths, answer, perplexity))
