"""The survey's decoders: sure tokens together cost half the evaluations or less and few right answers; random order costs many.

Its identities (threshold above 1, threshold 0, caches renewed at every step) stand in tests/test_text_decoding.py.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.evaluate.text_mdm import LENGTHS, answer
from backends.text.decoding import BlockCache, Reader, Rule
from backends.text.feature_cache import FeatureCache
from backends.worlds import text

KINDS, EACH = ("sum", "countdown", "sudoku"), 40
ARMS = {  # name -> (reader, rule, block, steps at most)
    "one a step": (Reader, Rule(), 0, 10**6),
    "threshold 0.9": (Reader, Rule(commit="threshold"), 0, 10**6),
    "half the steps, by confidence": (Reader, Rule(), 0, 0.5),
    "half the steps, at random": (Reader, Rule("random"), 0, 0.5),
    "blocks of 4": (Reader, Rule(), 4, 10**6),
    "dual cache": (lambda m: BlockCache(m, dual=True), Rule(), 4, 10**6),
    "feature cache": (lambda m: FeatureCache(m, prompt_every=16, answer_every=4), Rule(), 0, 10**6),
}


@pytest.mark.proof
def test_fewer_evaluations_for_as_many_right_answers(proof):
    proof.models = ["text-mdm"]
    model, right, spent, computed = models.load("text-mdm"), {}, {}, {}
    for name, (read, rule, block, steps) in ARMS.items():
        torch.manual_seed(proof.seed)
        right[name], before, sent = [], model.nfe, []

        def reader(model, read=read, sent=sent):
            sent.append(read(model))
            return sent[-1]

        for kind in KINDS:
            rng, length = np.random.default_rng([text.HELD_OUT_SEED, proof.seed, len(kind)]), LENGTHS[kind]
            for example in (text.draw(rng, kind, for_test=True) for _ in range(EACH)):
                most = int(steps * length) if steps < 1 else length
                right[name].append(text.check(example.prompt, answer(model, example.prompt, length, (reader, rule, block), most)))
        spent[name], computed[name] = model.nfe - before, sum(r.computed for r in sent) / sum(r.asked for r in sent)
    right = {k: np.array(v) for k, v in right.items()}
    n = len(right["one a step"])

    def loses(name, other, most):
        gap = right[name] - right[other]
        proof.state(f"right answers lost by {name} against {other} (share)", -gap.mean(), "<=", most, baseline=float(right[other].mean()), n=n, interval=interval(gap))  # fmt: skip

    proof.state("evaluations of threshold 0.9 as a share of one a step", spent["threshold 0.9"] / spent["one a step"], "<=", 0.5, n=n)
    loses("threshold 0.9", "one a step", 0.03)
    gap = right["half the steps, by confidence"] - right["half the steps, at random"]
    proof.state("right answers won by confidence over random order, half the steps (low end of the 95 % interval)", interval(gap)[0], ">", 0,
                baseline=float(right["half the steps, at random"].mean()), n=n, interval=interval(gap))  # fmt: skip
    for cached, plain in (("dual cache", "blocks of 4"), ("feature cache", "one a step")):
        proof.state(f"tokens computed with the {cached}, share", computed[cached], "<=", 0.7, n=n)
        loses(cached, plain, 0.05)
    proof.close()
