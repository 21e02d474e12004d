"""The survey's decoders: sure tokens together cost half the evaluations or less and few right answers; random order costs many.

Its identities (threshold above 1, threshold 0, caches renewed at every step) stand in tests/test_text_decoding.py. What saves work may lose
5 points of right answers.

The feature cache is measured on problems of 8 to 20 tokens, of which each step changes a twelfth of what the layers see, and on forms of 64 tokens,
nearer its paper's answers of 256. Confidence is compared with random order at one token a step and at two. End tokens wait in all arms alike.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.evaluate.text_mdm import answer
from backends.text.decoding import BlockCache, Reader, Rule
from backends.text.feature_cache import FeatureCache
from backends.worlds import text

SHORT, LONG, EACH = ("sum", "countdown", "sudoku"), ("profile",), 60
ARMS = {  # name -> (kinds, reader, rule, block)
    "one a step": (SHORT, Reader, Rule(), 0),
    "one a step, at random": (SHORT, Reader, Rule("random"), 0),
    "two a step": (SHORT, Reader, Rule(), 0),
    "two a step, at random": (SHORT, Reader, Rule("random"), 0),
    "threshold 0.9": (SHORT, Reader, Rule(commit="threshold"), 0),
    "blocks of 4": (SHORT, Reader, Rule(), 4),
    "dual cache": (SHORT, lambda m: BlockCache(m, dual=True), Rule(), 4),
    "forms": (LONG, Reader, Rule(), 0),
    "feature cache": (SHORT, lambda m: FeatureCache(m, prompt_every=16, answer_every=4), Rule(), 0),
    "feature cache on forms": (LONG, lambda m: FeatureCache(m, prompt_every=16, answer_every=4), Rule(), 0),
}


@pytest.mark.proof
def test_fewer_evaluations_for_as_many_right_answers(proof):
    proof.models = ["text-mdm"]
    model, right, spent, computed = models.load("text-mdm"), {}, {}, {}
    for name, (kinds, read, rule, block) in ARMS.items():
        torch.manual_seed(proof.seed)
        right[name], before, sent = [], model.nfe, []

        def reader(model, read=read, sent=sent):
            sent.append(read(model))
            return sent[-1]

        for kind in kinds:
            rng, length = np.random.default_rng([text.HELD_OUT_SEED, proof.seed, len(kind)]), text.LENGTHS[kind]
            for example in (text.draw(rng, kind, for_test=True) for _ in range(EACH)):
                right[name].append(
                    text.check(example.prompt, answer(model, example.prompt, length, (reader, rule, block), length // 2 if name.startswith("two") else length))
                )
        spent[name], computed[name] = model.nfe - before, sum(r.computed for r in sent) / sum(r.asked for r in sent)
    right = {k: np.array(v) for k, v in right.items()}
    n = len(right["one a step"])

    def loses(name, other):
        gap = right[name] - right[other]
        proof.state(f"right answers lost by {name} against {other} (share, high end of the 95 % interval)", -interval(gap)[0], "<=", 0.05, baseline=float(right[other].mean()), n=len(gap), interval=interval(gap))  # fmt: skip

    proof.state("evaluations of threshold 0.9 as a share of one a step", spent["threshold 0.9"] / spent["one a step"], "<=", 0.5, n=n)
    loses("threshold 0.9", "one a step")
    for many in ("one a step", "two a step"):
        gap = right[many] - right[f"{many}, at random"]
        proof.state(f"right answers won by confidence over random order, {many} (low end of the 95 % interval)", interval(gap)[0], ">", 0,
                    baseline=float(right[f"{many}, at random"].mean()), n=n, interval=interval(gap))  # fmt: skip
    for cached, plain in (("dual cache", "blocks of 4"), ("feature cache", "one a step"), ("feature cache on forms", "forms")):
        proof.state(f"tokens computed with the {cached}, share", computed[cached], "<=", 0.7, n=len(right[cached]))
        loses(cached, plain)
    proof.close()
