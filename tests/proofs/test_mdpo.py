"""MDPO: in few steps, after as many updates as rewards at the end had, more held-out problems are answered rightly than before and than with those.

Answers are decoded in four steps (2 tokens a step of a sum, 4 of a countdown) and in half as many as tokens, as in training, which for a sum is four
as well. RCR is compared with confidence on the model as it
was and as MDPO left it. The arms were trained on a GPU (backends/train/text_rl.py). Identities (advantages, RCR's masks):
tests/test_text_training.py and tests/test_text_methods.py.
"""

import numpy as np
import pytest
import torch
from measure_rewards import WEIGHTS, arm, asked, state_gains, state_gap

from backends import models
from backends.evaluate.text_mdm import answer
from backends.text.decoding import Reader, Rule
from backends.worlds import text

PROBLEMS, SINGLY = 320, 160  # of each kind; of those that RCR answers one by one


def answered(model, decoder, seed: int) -> np.ndarray:
    """(SINGLY,) 1 where a held-out countdown is right in half as many steps as tokens; `decoder` as evaluate/text_mdm.py has it."""
    some, length = asked("countdown", seed, SINGLY), text.LENGTHS["countdown"]
    return np.array([float(text.check(p, answer(model, p, length, decoder, length // 2)) or 0) for p in some])


@pytest.mark.proof
@torch.no_grad()
def test_rewards_at_every_step_help_more(proof):
    proof.models = WEIGHTS
    arms = {"before": models.load("text-mdm"), "rewards at the end": arm("end", proof.seed), "MDPO": arm("mdpo", proof.seed)}
    state_gains(proof, "MDPO", arms, "quarter", "in four steps", PROBLEMS)
    state_gains(proof, "MDPO", arms, "half", "in eight steps", PROBLEMS, ("countdown",))
    for name, said in (("before", "the model as it was"), ("MDPO", "MDPO's")):
        rcr, confidence = (answered(arms[name], decoder, proof.seed) for decoder in (None, (Reader, Rule(), 0)))
        state_gap(proof, f"held-out countdowns in half as many steps as tokens on {said}, end tokens last, right with RCR over confidence", rcr, confidence)
    proof.close()
