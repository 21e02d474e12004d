"""TraceRL: after as many updates as random masks had, more held-out problems are answered rightly than before and than with those.

As the paper does, answers are drawn at temperature 1 and decoded by a dynamic threshold of 0.9. The arms were trained on a GPU
(backends/train/text_rl.py); a training as short as the tab's, 16 updates of 64 answers, moves too little to be seen: 78.8 % of 320 sums
after it, 77.5 before. Identities (one training a token, replay, advantages): tests/test_text_training.py.
"""

import pytest
import torch
from measure_rewards import WEIGHTS, arm, state_gains

from backends import models

PROBLEMS = 640  # of each kind


@pytest.mark.proof
@torch.no_grad()
def test_training_on_the_trace_helps_more(proof):
    proof.models = WEIGHTS
    arms = {"before": models.load("text-mdm"), "random masks": arm("random", proof.seed), "TraceRL": arm("tracerl", proof.seed)}
    for decoder, how in (("drawn", "drawn at temperature 1"), ("sure", "decoded by a threshold of 0.9")):
        state_gains(proof, "TraceRL", arms, decoder, how, PROBLEMS)
    proof.close()
