"""TraceRL: after as many updates the model answers more held-out problems rightly than before, and than with random masks.

Its identities (one training a token, replay, advantages) stand in tests/test_text_training.py.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.spec import Metric
from backends.text import learning
from backends.text.mdpo import random_masks
from backends.text.tasks import TrainText
from backends.text.tracerl import tracerl

RUNS, UPDATES = 3, 30


def gain(method, model, seed: int, **knobs) -> float:
    """Points won on held-out problems by training."""
    torch.manual_seed(seed)
    said = {e.name: e.value for e in method(TrainText(problem="sum", updates=UPDATES, seed=seed), model, **knobs) if isinstance(e, Metric)}
    return said["right after (%)"] - said["right before (%)"]


@pytest.mark.proof
def test_training_on_the_trace_helps_more(proof, monkeypatch):
    proof.models = ["text-mdm"]
    monkeypatch.setattr(learning, "TESTED", 200)
    model, seeds = models.load("text-mdm"), [100 * proof.seed + i for i in range(RUNS)]
    won = {name: np.array([gain(m, model, s) for s in seeds]) for name, m in (("TraceRL", tracerl), ("random masks", random_masks))}
    proof.state("points won on held-out sums by TraceRL", won["TraceRL"].mean(), ">", 0, n=RUNS * 200, interval=interval(won["TraceRL"]))
    gap = won["TraceRL"] - won["random masks"]
    proof.state(
        "points won over random masks, as many updates", gap.mean(), ">", 0, baseline=float(won["random masks"].mean()), n=RUNS * 200, interval=interval(gap)
    )
    proof.close()
