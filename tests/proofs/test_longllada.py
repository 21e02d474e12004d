"""LongLLaDA: keys further away than the trained length are found with an enlarged base, and not without it.

Its identity (the published constants) stands in tests/test_text_methods.py. The rule's base for the longest notes was
measured first, and failed; twice the trained base was added. The rule's loses near keys as well: a head of 64 dimensions has 32 whose angle goes full circle within 128 tokens, and a
base 8 times as large turns the fastest of those a third slower, by which values are read at a fixed distance from their key. text-mdm's own
attention rests on these angles still more than that of text-notes: 13 % of first keys of 64 tokens are left to it by the rule's base.
"""

import numpy as np
import pytest
from measure import interval

from backends import models
from backends.spec import Result
from backends.text.longllada import DRAWS, longllada, unscaled
from backends.text.tasks import FindNeedle
from backends.text.twin_needle import twin_needle

REACH, NEEDLES = 3, 4


@pytest.mark.proof
def test_far_keys_are_found_with_the_enlarged_base(proof):
    proof.models = ["text-mdm", "text-notes", "text-twin"]
    model, job = models.load("text-notes"), FindNeedle(reach=REACH, needles=NEEDLES, seed=proof.seed)
    maps, curves = {}, {}
    for name, method, knobs in (("unscaled", unscaled, {}), ("ntk", longllada, {}), ("twice", longllada, {"factor": 2.0}), ("twin", twin_needle, {})):
        result = next(e for e in method(job, model, **knobs) if isinstance(e, Result))
        lengths = [int(c) for c in result.value.columns]
        maps[name] = np.array(result.value.values)
        curves[name] = next(iter(result.aside[0].series.values()))[1]
    trained = model.net.config.max_position_embeddings
    beyond = [i for i, n in enumerate(lengths) if n > trained]
    # A key lies out of reach when more than the trained length separates it from its question: depth (1 − δ)·n > trained.
    far = [(r, c) for c in beyond for r, depth in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)) if (1 - depth) * lengths[c] > trained]
    found = {name: np.array([m[r, c] for r, c in far]) for name, m in maps.items()}
    n = len(far) * NEEDLES
    everywhere = {name: m[:, beyond] for name, m in maps.items()}
    within = np.array([maps["unscaled"][r, c] for c in beyond for r in range(5) if (r, c) not in far])
    proof.state(
        "near keys of notes beyond the trained length found without scaling: local perception (share)", within.mean(), ">=", 0.7, n=len(within) * NEEDLES
    )
    proof.state("far keys found without scaling (share)", found["unscaled"].mean(), "<=", 0.2, n=n)
    proof.state("far keys found with the rule's base (share)", found["ntk"].mean(), ">=", 0.7, baseline=float(found["unscaled"].mean()), n=n,
                interval=interval(found["ntk"] - found["unscaled"]))  # fmt: skip
    for name, shares in (("far keys", found), ("keys of notes beyond the trained length", everywhere)):
        gap = (shares["twice"] - shares["unscaled"]).ravel()
        proof.state(f"{name} found more often with twice the base than without scaling (share, low end of the 95 % interval)", interval(gap)[0], ">", 0,
                    baseline=float(shares["unscaled"].mean()), n=len(gap) * NEEDLES, interval=interval(gap))  # fmt: skip
    near = [c for c, length in enumerate(lengths) if length <= trained]
    for name, said in (("twice", "twice the base"), ("ntk", "the rule's base")):
        lost = (maps["unscaled"] - maps[name])[:, near].mean()
        proof.state(f"keys within the trained length lost by {said} (share)", lost, "<=", 0.1, n=len(near) * 5 * NEEDLES)
    rise, autoregressive = (curves[name][-1] / curves[name][0] for name in ("unscaled", "twin"))
    proof.state(
        "perplexity of an answer whose key is near, without scaling, longest over shortest notes",
        rise,
        "<=",
        1.5,
        baseline=float(curves["unscaled"][0]),
        n=DRAWS,
    )
    proof.state("the same rise for the autoregressive twin, over the diffusion model's (times)", autoregressive / rise, ">", 1, baseline=rise, n=DRAWS)
    proof.close()
