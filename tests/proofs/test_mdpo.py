"""MDPO: training on every step's answer wins held-out problems, more than rewards at the end alone; RCR loses none.

Its identities (advantages, RCR's masks) stand in tests/test_text_training.py and tests/test_text_methods.py.
"""

import numpy as np
import pytest
from measure import interval
from test_tracerl import RUNS, gain

from backends import models
from backends.evaluate.text_mdm import LENGTHS, answer
from backends.text import learning
from backends.text.decoding import Reader, Rule
from backends.text.mdpo import mdpo, random_masks
from backends.worlds import text

PROBLEMS = 120


@pytest.mark.proof
def test_rewards_at_every_step_help_more(proof, monkeypatch):
    proof.models = ["text-mdm"]
    monkeypatch.setattr(learning, "TESTED", 200)
    model, seeds = models.load("text-mdm"), [100 * proof.seed + i for i in range(RUNS)]
    won = {name: np.array([gain(m, model, s) for s in seeds]) for name, m in (("MDPO", mdpo), ("at the end", random_masks))}
    proof.state("points won on held-out sums by MDPO", won["MDPO"].mean(), ">", 0, n=RUNS * 200, interval=interval(won["MDPO"]))
    gap = won["MDPO"] - won["at the end"]
    proof.state(
        "points won over rewards at the end, as many updates",
        gap.mean(),
        ">",
        0,
        baseline=float(won["at the end"].mean()),
        n=RUNS * 200,
        interval=interval(gap),
    )
    rng, length = np.random.default_rng([text.HELD_OUT_SEED, proof.seed]), LENGTHS["countdown"]
    some = [text.draw(rng, "countdown", for_test=True).prompt for _ in range(PROBLEMS)]
    right = {name: np.array([text.check(p, answer(model, p, length, decoder, length // 2)) for p in some]) for name, decoder in (("RCR", None), ("confidence", (Reader, Rule(), 0)))}  # fmt: skip
    gap = right["RCR"] - right["confidence"]
    proof.state("right countdowns won by RCR over confidence, half as many steps as tokens (share)", gap.mean(), ">=", 0, baseline=float(right["confidence"].mean()),
                n=PROBLEMS, interval=interval(gap))  # fmt: skip
    proof.close()
