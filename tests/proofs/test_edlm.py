"""EDLM: in few steps, choosing among candidates by the energy gives more right answers and likelier stories; a turned sign fewer.

Its identity (two tied tokens) stands in tests/test_text_methods.py. Right answers are the independent judge: SmolLM2, which
judges stories, is the energy itself.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.evaluate.text_mdm import LENGTHS
from backends.metrics import text as metric
from backends.text import edlm
from backends.text.canvas import Canvas
from backends.text.tasks import WriteText
from backends.worlds import text
from backends.worlds.text_build import stories

STEPS, K, PROBLEMS, STORIES = 4, 8, 60, 16


def written(model, prompt: str, length: int, k: int, kind: str, seed: int) -> str:
    torch.manual_seed(seed)
    canvas, job = Canvas.after(model, model.encode(prompt, length), length), WriteText(prompt=prompt, length=length)
    sign = -1 if kind == "sign turned" else 1

    def energy(ids, under):
        if kind == "autoregressive":
            return edlm.language_energy(job, model, ids, canvas.start) + under
        return sign * edlm.learnt_energy(canvas, ids)

    with torch.no_grad():
        list(edlm.denoise(canvas, STEPS, k, (0.0, 1.0), 1.0, energy))
    return model.text(canvas.ids[canvas.start :])


@pytest.mark.proof
def test_whole_answers_fit_together(proof):
    proof.models = ["text-mdm"]
    model, rng = models.load("text-mdm"), np.random.default_rng([text.HELD_OUT_SEED, proof.seed])
    some = [text.draw(rng, kind, for_test=True) for kind in ("sum", "countdown", "sudoku") for _ in range(PROBLEMS // 3)]
    arms = {"plain": (1, "trained"), "trained": (K, "trained"), "sign turned": (K, "sign turned")}
    right = {name: np.array([text.check(e.prompt, written(model, e.prompt, LENGTHS[e.kind], k, kind, proof.seed + i)) for i, e in enumerate(some)]) for name, (k, kind) in arms.items()}  # fmt: skip
    for one, other in (("trained", "plain"), ("trained", "sign turned")):
        gap = right[one] - right[other]
        proof.state(f"right answers in {STEPS} steps, {one} over {other} (low end of the 95 % interval)", interval(gap)[0], ">", 0, baseline=float(right[other].mean()),
                    n=PROBLEMS, interval=interval(gap))  # fmt: skip
    topics = [p.split(" #")[0] for p, _ in stories() if text.held_out(p)][:STORIES]
    told = {k: [written(model, p, 64, k, "autoregressive", proof.seed + i) for i, p in enumerate(topics)] for k in (1, K)}
    loss = {k: np.log([metric.perplexity(p, s) for p, s in zip(topics, rows)]) for k, rows in told.items()}
    gap = loss[1] - loss[K]
    proof.state(f"log-perplexity of stories under SmolLM2 won by {K} candidates (low end of the 95 % interval)", interval(gap)[0], ">", 0,
                baseline=float(loss[1].mean()), n=len(topics), interval=interval(gap))  # fmt: skip
    words = {k: np.mean([metric.entropy(s) for s in rows]) for k, rows in told.items()}
    proof.state("bits of word entropy lost meanwhile", words[1] - words[K], "<=", 0.3, baseline=float(words[1]), n=len(topics))
    proof.close()
