"""TraceRL: after as many updates the model answers more held-out problems rightly than before, and than with random masks.

Its identities (one training a token, replay, advantages) stand in tests/test_text_training.py.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.text import reinforce
from backends.text.learning import LENGTHS, adamw, update
from backends.text.mdpo import random_loss
from backends.text.tasks import TrainText
from backends.text.tracerl import trace_loss

RUNS, UPDATES, TESTED, RATE = 2, 20, 150, 1e-4


def won(model, lose, seed: int, temperature: float, threshold: float) -> np.ndarray:
    """(RUNS · TESTED,) for each held-out countdown: 1 won by training, −1 lost, 0 as before."""
    rows, length = [], LENGTHS["countdown"]
    for run in range(RUNS):
        job = TrainText(problem="countdown", updates=UPDATES, prompts=8, answers=8, seed=1000 * (seed * RUNS + run))  # update i draws from seed + 1 + i
        tests = reinforce.problems("countdown", job.seed, TESTED, held_out=True)
        torch.manual_seed(job.seed)

        def right(policy, tests=tests):
            return reinforce.rewards(policy, tests, reinforce.roll_out(policy, tests, 1, length, 0.0, threshold=2.0)).cpu().numpy()

        with torch.no_grad(), reinforce.trained_copy(model) as policy:
            before, optimiser = right(policy), adamw(policy, RATE)
            for i in range(UPDATES):
                update(policy, optimiser, job, i, temperature, threshold, lose)
            rows.append(right(policy) - before)
    return np.concatenate(rows)


def state_gains(proof, name: str, mine: np.ndarray, other: str, theirs: np.ndarray) -> None:
    gap = mine - theirs
    proof.state(f"held-out countdowns won by {name} (share, low end of the 95 % interval)", interval(mine)[0], ">", 0, n=len(mine), interval=interval(mine))
    proof.state(f"held-out countdowns won by {name} over {other}, as many updates (share, low end of the 95 % interval)", interval(gap)[0], ">", 0,
                baseline=float(theirs.mean()), n=len(gap), interval=interval(gap))  # fmt: skip


@pytest.mark.proof
def test_training_on_the_trace_helps_more(proof):
    proof.models = ["text-mdm"]
    model = models.load("text-mdm")
    state_gains(proof, "TraceRL", won(model, trace_loss(), proof.seed, 1.0, 0.9), "random masks", won(model, random_loss, proof.seed, 1.0, 0.9))
    proof.close()
