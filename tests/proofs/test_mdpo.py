"""MDPO: training on every step's answer wins held-out problems, more than rewards at the end alone; RCR loses none.

Its identities (advantages, RCR's masks) stand in tests/test_text_training.py and tests/test_text_methods.py.
"""

import numpy as np
import pytest
from measure import interval
from test_tracerl import state_gains, won

from backends import models
from backends.evaluate.text_mdm import LENGTHS, answer
from backends.text.decoding import Reader, Rule
from backends.text.mdpo import step_loss
from backends.worlds import text

PROBLEMS = 120


@pytest.mark.proof
def test_rewards_at_every_step_help_more(proof):
    proof.models = ["text-mdm"]
    model = models.load("text-mdm")
    gains = [won(model, step_loss(model, rewarded=rewarded), proof.seed, 0.4, 1.01) for rewarded in ("every step", "the end")]
    state_gains(proof, "MDPO", gains[0], "rewards at the end", gains[1])
    rng, length = np.random.default_rng([text.HELD_OUT_SEED, proof.seed]), LENGTHS["countdown"]
    some = [text.draw(rng, "countdown", for_test=True).prompt for _ in range(PROBLEMS)]
    right = {name: np.array([text.check(p, answer(model, p, length, decoder, length // 2)) for p in some]) for name, decoder in (("RCR", None), ("confidence", (Reader, Rule(), 0)))}  # fmt: skip
    gap = right["RCR"] - right["confidence"]
    proof.state("right countdowns won by RCR over confidence, half as many steps as tokens (share, low end of the 95 % interval)", interval(gap)[0], ">", 0, baseline=float(right["confidence"].mean()),
                n=PROBLEMS, interval=interval(gap))  # fmt: skip
    proof.close()
