"""LongLLaDA: keys further away than the trained length are found with the enlarged base, and not without it.

Its identity (the published constants) stands in tests/test_text_methods.py.

Why its effects fail, measured with 24 notes a cell: the embedded model's attention rests on its middle rotary angles. Without scaling it finds the
first key in 96 % of notes of 64 tokens and in 71 % of 128; a base 1.5 times as large leaves 92 and 13 %, the rule's 8 times 13 and 4 %, while keys
at the end of 256 tokens rise from 83 to 96 % at 1.5 times and fall to 17 at 8. More notes of the full length in training come first.
"""

import numpy as np
import pytest
from measure import interval

from backends import models
from backends.spec import Result
from backends.text.longllada import DRAWS, longllada, unscaled
from backends.text.tasks import FindNeedle

REACH, NEEDLES = 3, 4


@pytest.mark.proof
def test_far_keys_are_found_with_the_enlarged_base(proof):
    proof.models = ["text-mdm"]
    model, job = models.load("text-mdm"), FindNeedle(reach=REACH, needles=NEEDLES, seed=proof.seed)
    maps, curves = {}, {}
    for name, method, knobs in (("unscaled", unscaled, {}), ("ntk", longllada, {}), ("interpolation", longllada, {"scaling": "interpolation"})):
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
    proof.state("far keys found without scaling (share)", found["unscaled"].mean(), "<=", 0.2, n=n)
    proof.state("far keys found with the enlarged base (share)", found["ntk"].mean(), ">=", 0.7, baseline=float(found["unscaled"].mean()), n=n,
                interval=interval(found["ntk"] - found["unscaled"]))  # fmt: skip
    near = [c for c, length in enumerate(lengths) if length <= trained]
    proof.state(
        "keys within the trained length lost by scaling (share)", (maps["unscaled"] - maps["ntk"])[:, near].mean(), "<=", 0.1, n=len(near) * 5 * NEEDLES
    )
    rise = curves["unscaled"][-1] / curves["unscaled"][0]
    proof.state(
        "perplexity of an answer whose key is near, without scaling, longest over shortest notes",
        rise,
        "<=",
        1.5,
        baseline=float(curves["unscaled"][0]),
        n=DRAWS,
    )
    proof.close()
