"""LongLLaDA: a larger base of the rotary embedding lets a diffusion language model read further than it was trained to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends.lazy import torch
from backends.registry import method
from backends.spec import Choice, Events, Heat, Metric, Note, Plot, Result, Slider, Step, Text
from backends.text import smollm
from backends.text.canvas import Canvas, best, one_of, predict
from backends.text.predictor import rope_base
from backends.text.tasks import FIND_NEEDLE, FindNeedle
from backends.worlds.text import HELD_OUT_SEED, recall_text

if TYPE_CHECKING:
    from torch import Tensor

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
ANSWER, DRAWS = 8, 8  # tokens of an answer; notes whose perplexity is taken together


def critical_dimension(d: int, base: float, trained: int) -> int:
    """d_c = 2⌈(d/2)·log_b(T/2π)⌉: dimensions of a head of size d whose angle went full circle within the T tokens trained on."""
    return 2 * math.ceil(d / 2 * math.log(trained / (2 * math.pi), base))


def ntk_factor(d: int, base: float, trained: int, target: int) -> float:
    """λ = (L/2π)^(d/d_c) / b: how much larger the base must be for `target` tokens; never below 1."""
    return max(1.0, (target / (2 * math.pi)) ** (d / critical_dimension(d, base, trained)) / base)


def rope_of(model) -> tuple[int, float, int]:
    """(head size, base, trained length) of a network with transformers' rotary embedding.

    A config's positions may be those of the model that it was made from: Dream's are Qwen2.5's 131,072, its context is 2,048.
    """
    config = model.net.config
    trained = min(model.context, config.max_position_embeddings)
    return 2 * len(model.net.model.rotary_emb.inv_freq), float(config.rope_parameters["rope_theta"]), trained


def notes(count: Callable[[str], int], rng: np.random.Generator, length: int, depth: float) -> tuple[str, str]:
    """(notes and question, answer), as many pairs as `length` tokens hold; the key asked for stands at `depth`."""
    seed, pairs = rng.integers(2**32), max(1, length // 10)
    while True:
        text, question, answer = recall_text(np.random.default_rng(seed), pairs, depth)
        over = count(f"{text} {question}") + ANSWER - length
        if over <= 0 or pairs == 1:
            return f"{text} {question}", answer
        pairs = max(1, pairs - max(1, over // 20))  # a pair takes some 10 to 15 tokens


def ask(read: Callable[[Tensor], Tensor], canvas: Canvas) -> str:
    """The answer, the surest token first, one a step, until all are there or the end is. `read` gives the answer's logits (ANSWER, V)."""
    ids, sure = canvas.ids.clone(), canvas.confidence.clone()
    while canvas.masked.any():
        ids[canvas.start :], sure[canvas.start :] = predict(read(canvas.ids))
        canvas.put(best(sure, canvas.masked, 1), ids, sure)
        ends = one_of(canvas.ids[canvas.start :], canvas.model.ends).nonzero()
        if len(ends) and not canvas.masked[canvas.start : canvas.start + int(ends[0])].any():
            break
    return canvas.model.text(canvas.ids[canvas.start :]).strip()


def gone_on(model, net, tokenizer, ids: Tensor, most: int) -> Tensor:
    """The likeliest tokens, `most` at most, that an autoregressive network puts behind `ids` (1, N); each is an evaluation of the arm's."""
    made = net.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id)[0, ids.shape[1] :]
    model.nfe += len(made)
    return made


def tells(said: str, right: str) -> bool:
    """Whether the first number said is the right one: models told to answer shortly and others are judged alike."""
    return re.findall(r"\d+", said)[:1] == [right]


def answer_loss(read: Callable[[Tensor], Tensor], model, ids: Tensor, said: list[int], rng: np.random.Generator) -> float:
    """Cross-entropy a token of an answer `said` after the prompt `ids`, k ~ U{1..all} of its tokens masked; `read` as in `ask`."""
    answer = torch.tensor(said + [model.eos] * (ANSWER - len(said)), device=ids.device)
    where = torch.tensor(rng.permutation(len(said))[: int(rng.integers(1, len(said) + 1))], device=ids.device)
    hidden = answer.clone()
    hidden[where] = model.mask
    return float(torch.nn.functional.cross_entropy(read(torch.cat([ids, hidden]))[where], answer[where]))


def lengths_up_to(longest: int, trained: int) -> list[int]:
    """The map's columns: halves of the trained length up to `longest`, in wider strides where these would be more than eight."""
    stride = trained // 2 * max(1, math.ceil(longest / (4 * trained)))
    return sorted({trained // 2, trained, *range(stride, longest + 1, stride), longest})


def shortened(text: str, right: str) -> str:
    """Notes and question with what stands far from both the key and the question left out."""
    question = text.rindex(" what is ")
    at = text.index(right)
    first, last = max(0, at - 40), min(question, at + len(right) + 40)
    return f"{'… ' if first else ''}{text[first:last]}{' …' if last < question else ''}{text[question:]}"


def probe(job: FindNeedle, lengths: list[int], answer: Callable, perplexity: Callable | None) -> Iterator[tuple[int, Heat, tuple]]:
    """Fill the map cell by cell; yields (cells done, map, asides). `answer(rng, length, depth)` gives the notes with their question, what was said, what is right."""
    found = [[math.nan] * len(lengths) for _ in DEPTHS]
    curve: dict[int, float] = {}
    labels = tuple(f"{100 * d:.0f} %" for d in DEPTHS), tuple(map(str, lengths))
    for done, (column, row) in enumerate(((c, r) for c in range(len(lengths)) for r in range(len(DEPTHS))), 1):
        rng = np.random.default_rng([HELD_OUT_SEED, job.seed, lengths[column], row])  # the same notes for every arm
        tried = [answer(rng, lengths[column], DEPTHS[row]) for _ in range(job.needles)]
        found[row][column] = sum(tells(said, right) for _, said, right in tried) / job.needles
        text, said, right = tried[-1]
        seen = Text(
            f"{lengths[column]} tokens, key at {DEPTHS[row]:.0%}: “{shortened(text, right)}” → {said or 'nothing'} {'✓' if tells(said, right) else '✗'}"
        )
        if perplexity and row == len(DEPTHS) - 1:
            curve[lengths[column]] = perplexity(rng, lengths[column])
        shown = Heat(*labels, tuple(map(tuple, found)), "tokens", "depth of the key")
        line = (Plot({"key at the end": ([float(k) for k in curve], list(curve.values()))}, x="tokens", y="perplexity of the answer"),)
        yield done, shown, (seen, *(line if len(curve) > 1 else ()))


def needles(job: FindNeedle, model, scaling: str, factor: float) -> Events:
    d, base, trained = rope_of(model)
    longest = round(job.reach * trained)
    lengths = lengths_up_to(longest, trained)
    factor = (factor or math.ceil(ntk_factor(d, base, trained, longest))) if scaling == "ntk" else 1.0
    squeeze = trained / longest if scaling == "interpolation" else 1.0

    def read(ids: Tensor) -> Tensor:
        positions = torch.arange(len(ids), device=ids.device, dtype=torch.float32)[None] * squeeze
        # All positions' logits would be 8 GB for 16,000 tokens.
        return model.answers(ids[None], ANSWER, position_ids=positions if squeeze < 1 else positions.long())[0]

    def count(text: str) -> int:
        return len(model.template(text))

    def encode(text: str) -> Tensor:
        return torch.tensor(model.template(text), device=model.device)  # model.encode would refuse what is past the trained length

    def answer(rng, length, depth) -> tuple[str, str, str]:
        text, right = notes(count, rng, length, depth)
        return text, ask(read, Canvas.after(model, encode(text), ANSWER)), right

    def perplexity(rng, length) -> float:
        """Of answers whose key stands right before the question: what is near is read, however much stands before it."""
        some = [notes(count, rng, length, 1.0) for _ in range(DRAWS)]
        return math.exp(sum(answer_loss(read, model, encode(text), model.tokens(said), rng) for text, said in some) / DRAWS)

    if longest <= trained and scaling != "off":
        yield Note(f"{model.card.title} was trained on {trained:,} tokens: these notes are within them, and there is nothing to scale.")
    with rope_base(model, factor * base) if factor != 1.0 else nullcontext():
        yield from told(job, lengths, trained, probe(job, lengths, answer, perplexity))
    yield Metric("base times", factor)


def told(job, lengths, trained, cells) -> Events:
    shown, aside = None, ()
    for done, shown, aside in cells:
        yield Step(done, len(lengths) * len(DEPTHS), shown, aside)
    values = np.array(shown.values)
    beyond = [i for i, n in enumerate(lengths) if n > trained]
    yield Metric("found (%)", 100 * float(values.mean()), "higher")
    if beyond:
        yield Metric("found beyond the trained length (%)", 100 * float(values[:, beyond].mean()), "higher")
    yield Result(shown, aside)


@method("longllada", task=FIND_NEEDLE, needs={"text", "masked", "rope"})
def longllada(
    job: FindNeedle, model, scaling: Annotated[str, Choice(("ntk", "interpolation"), help="a larger base, or positions squeezed into the trained range")] = "ntk",
    factor: Annotated[float, Slider(0, 200, 0.5, help="how many times larger the base; 0 computes it for the longest notes")] = 0.0,
) -> Events:  # fmt: skip
    """LongLLaDA: longer contexts without training.

    A diffusion language model keeps its perplexity far beyond the length it was trained on, but finds only what is near: its
    slow rotary angles never went full circle. A larger base slows all of them, and what is far away is found again.

    Liu et al., arXiv 2506.14429: the NTK rule, λ = (L/2π)^(d/d_c)/b, with the critical dimension d_c of "Scaling laws of
    RoPE-based extrapolation" (arXiv 2310.05209). Where we differ: the perplexity is of answers whose key is near, for this model was
    never trained to predict a prompt; keys and values of four digits stand in for the paper's essay with a needle.
    """
    return needles(job, model, scaling, factor)


@method("unscaled", task=FIND_NEEDLE, needs={"text", "masked", "rope"}, paper=False)
def unscaled(job: FindNeedle, model) -> Events:
    """The model as it was trained.

    The same notes and questions, with the rotary embedding left alone.
    """
    return needles(job, model, "off", 1.0)


@method("smollm_needle", task=FIND_NEEDLE, needs={"text", "rope"}, paper=False, prepare=lambda model, **_: smollm.load())
def smollm_needle(job: FindNeedle, model) -> Events:
    """SmolLM2, an autoregressive model.

    The same notes and questions, answered from left to right by a model trained on 8,192 tokens; lengths are counted in its tokens.

    Allal et al., arXiv 2502.02737.
    """
    net, tokenizer = smollm.load()

    def answer(rng, length, depth) -> tuple[str, str, str]:
        text, right = notes(lambda t: len(tokenizer(t)["input_ids"]), rng, length, depth)
        asked = text.replace(" what is ", "\nGive the number only: what is ")
        chat = tokenizer.apply_chat_template([{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True)
        made = gone_on(model, net, tokenizer, tokenizer(chat, return_tensors="pt")["input_ids"], 16)
        return text, tokenizer.decode(made, skip_special_tokens=True).strip(), right

    trained = rope_of(model)[2]  # of the card's model, whose arms stand beside
    lengths = lengths_up_to(round(job.reach * trained), trained)
    yield from told(job, lengths, net.config.max_position_embeddings, probe(job, lengths, answer, None))
