"""Measure the text world's model: the bound on its perplexity, its accuracy on each kind of problem, and every decoder beside it.

    python -m backends.evaluate.text_mdm            # 64 held-out problems a kind
    python -m backends.evaluate.text_mdm --quick    # 16
    python -m backends.evaluate.text_mdm --card text-writer

Writes figures.json beside the weights. Problems are held out (one in ten of all there are, whatever the seed); the table of
decoders holds the share of right answers, tokens revealed an evaluation and seconds an answer, as the page shows them.
"""

import argparse
import json
import math
import time
from dataclasses import replace

import numpy as np
import torch

from backends import models
from backends.metrics import text as metric
from backends.text import rcr, smollm
from backends.text.canvas import Canvas, until_end
from backends.text.decoding import BlockCache, Reader, Rule, decode
from backends.text.feature_cache import FeatureCache
from backends.train.text_mdm import MIX, WRITER, Corpus, diffusion_loss
from backends.worlds import text
from backends.worlds.text_build import stories

DECODERS = {  # name -> (reader, rule, block), or None for RCR
    "random order": (Reader, Rule("random"), 0),
    "confidence, one a step": (Reader, Rule(), 0),
    "margin, one a step": (Reader, Rule("margin"), 0),
    "entropy, one a step": (Reader, Rule("entropy"), 0),
    "left to right": (Reader, Rule("left to right"), 0),
    "blocks of 4": (Reader, Rule(), 4),
    "threshold 0.9": (Reader, Rule(commit="threshold"), 0),
    "factor 1": (Reader, Rule(commit="factor"), 0),
    "prefix cache": (BlockCache, Rule(), 4),
    "dual cache": (lambda m: BlockCache(m, dual=True), Rule(), 4),
    "feature cache": (lambda m: FeatureCache(m, prompt_every=16, answer_every=4), Rule(), 0),
    "guided, w = 1": (lambda m: Reader(m, 1.0), Rule(), 0),
    "remasking (RCR)": None,
}


@torch.no_grad()
def decoded(model, prompt: str, length: int, decoder, steps: int = 10**6) -> Canvas:
    """The canvas filled as the page does it, end tokens waiting for words, until all up to the first end token stands: padding costs nothing."""
    canvas = Canvas.after(model, model.encode(prompt, length), length)
    if decoder is None:
        walk = rcr.running_confidence(canvas, min(steps, length), length, 0.0, ends_last=True)
    else:
        read, rule, block = decoder
        walk = decode(canvas, read(model), replace(rule, late=model.ends), min(steps, length), block or length)
    for _ in walk:
        wanted = until_end(canvas.ids[canvas.start :], model.ends)
        if not (wanted & canvas.masked[canvas.start :]).any():
            break
    return canvas


def answer(model, prompt: str, length: int, decoder, steps: int = 10**6) -> str:
    canvas = decoded(model, prompt, length, decoder, steps)
    return model.text(canvas.ids[canvas.start :])


def problems(kind: str, n: int) -> list[text.Example]:
    rng = np.random.default_rng(text.HELD_OUT_SEED + 7)
    return [text.draw(rng, kind, for_test=True) for _ in range(n)]


def decoders(model, n: int, kinds=("sum", "countdown", "sudoku")) -> list[dict]:
    rows = []
    for name, decoder in DECODERS.items():
        for kind in kinds:
            torch.manual_seed(0)
            some, before, start = problems(kind, n), model.nfe, time.perf_counter()
            made = [decoded(model, p.prompt, text.LENGTHS[kind], decoder) for p in some]
            right = [text.check(p.prompt, model.text(c.ids[c.start :])) for p, c in zip(some, made)]
            rows.append({"decoder": name, "kind": kind, "right": round(float(np.mean(right)), 3),
                         "tokens_per_nfe": round(sum(c.written() for c in made) / (model.nfe - before), 2), "seconds": round((time.perf_counter() - start) / n, 3)})  # fmt: skip
    return rows


@torch.no_grad()
def bounds(model, n: int, kinds: tuple[str, ...]) -> dict[str, float]:
    """Upper bound on the perplexity of a held-out answer's tokens, by kind."""
    corpus = Corpus(model.tokenizer)
    levels = ((torch.arange(n) + 0.5) / n).to(model.device)
    found = {}
    for kind in (k for k in kinds if corpus.kept.get(k, True)):
        torch.manual_seed(0)
        ids, may = (m.to(model.device) for m in corpus.batch(np.random.default_rng(text.HELD_OUT_SEED + 8), kind, n, for_test=True))
        found[kind] = round(math.exp(float(diffusion_loss(model.net, ids, may, corpus.mask, levels, model.device, model.shift).mean())), 3)
    return found


def evaluate(card: str, n: int) -> dict:
    model, confidence = models.load(card), DECODERS["confidence, one a step"]
    kinds = tuple(WRITER if card == "text-writer" else MIX)
    figures = {"perplexity_bound": bounds(model, max(32, n), kinds), "right": {}}
    for kind in (k for k in kinds if k in text.LENGTHS):
        figures["right"][kind] = round(
            float(np.mean([text.check(p.prompt, answer(model, p.prompt, text.LENGTHS[kind], confidence)) for p in problems(kind, n)])), 3
        )
    if "story" in kinds and smollm.available():
        told = [(p.split(" #")[0], s) for p, s in stories() if text.held_out(p)][: max(4, n // 2)]
        figures["stories"] = {"teacher": read(told), "writer": read([(p, answer(model, p, 64, confidence)) for p, _ in told])}
    ids = torch.full((1, 128), model.mask, device=model.device)
    timed = []
    for _ in range(5):
        start = time.perf_counter()
        with torch.no_grad():
            model.logits(ids)
        timed.append(time.perf_counter() - start)
    figures["seconds_step_128"] = round(float(np.median(timed)), 4)
    if card != "text-writer":
        figures["decoders"] = decoders(model, n)
    return figures


def read(told: list[tuple[str, str]]) -> dict:
    """What SmolLM2 thinks of stories, and how many words they draw from: a text that repeats itself has a low perplexity as well."""
    return {"perplexity_smollm2": round(float(np.median([metric.perplexity(p, s) for p, s in told if s.strip()])), 2),
            "word_entropy_bits": round(float(np.mean([metric.entropy(s) for _, s in told])), 2), "example": told[0][1]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", default="text-mdm")
    parser.add_argument("--quick", action="store_true", help="a quarter of the problems")
    args = parser.parse_args()
    figures = evaluate(args.card, 16 if args.quick else 64)
    print(json.dumps(figures, indent=1))
    folder = models.ASSETS / models.get(args.card).source
    if (folder / "training.json").exists():
        figures["training"] = json.loads((folder / "training.json").read_text())
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
