"""What the proofs of reward training share: the arms as they were kept (train/text_rl.py), what they answer rightly, a short training here."""

import copy

import numpy as np
import torch
from measure import interval

from backends import models
from backends.text import learning, reinforce
from backends.text.adapter import apply
from backends.text.tasks import TrainText
from backends.text.tracerl import RATE
from backends.train.text_rl import TRAINED, decoders

FOLDER, PART = models.ASSETS / "text-rl", 64  # rows decoded together
WEIGHTS = ["text-mdm", "text-rl"]


def arm(name: str, seed: int):
    """The text model as an arm left it; the proof's seed goes round the training seeds that are kept."""
    files = sorted(FOLDER.glob(f"{name}-*.safetensors"))
    model = copy.copy(models.load("text-mdm"))
    model.net = copy.deepcopy(model.net)
    apply(model.net, files[seed % len(files)])
    return model


def right(model, decoder: str, seed: int, n: int, kinds=TRAINED) -> np.ndarray:
    """(len(kinds) · n,) 1 where a held-out problem is answered rightly by one of text_rl's decoders."""
    found = []
    for kind in kinds:
        torch.manual_seed(seed)
        length, some = learning.LENGTHS[kind], reinforce.problems(kind, 1000 + seed, n, held_out=True)  # text_rl measures itself on those of 1
        for part in (some[i : i + PART] for i in range(0, n, PART)):
            found.append(reinforce.rewards(model, part, reinforce.roll_out(model, part, 1, length, **decoders(length)[decoder])).cpu().numpy())
    return np.concatenate(found)


def state_gap(proof, what: str, one: np.ndarray, other: np.ndarray) -> None:
    """`one` answers more problems rightly than `other`, problem by problem."""
    gap, shares = one - other, f"{100 * one.mean():.1f} % against {100 * other.mean():.1f}"
    print(f"{what}: {shares}", flush=True)
    proof.state(
        f"{what} (share more, low end of the 95 % interval)", interval(gap)[0], ">", 0, baseline=float(other.mean()), n=len(gap), interval=interval(gap)
    )


def state_live(proof, lose, temperature: float, threshold: float, per_step: int = 1) -> None:
    """A training as short as the tab's, at its default knobs: held-out sums drawn as in training, before and after."""
    how = (temperature, threshold, per_step)
    model, job = models.load("text-mdm"), TrainText(seed=10_000 + 100 * proof.seed)
    tests, length = reinforce.problems(job.problem, job.seed, 5 * PART, held_out=True), learning.LENGTHS[job.problem]

    def drawn(policy):
        torch.manual_seed(job.seed)
        parts = [tests[i : i + PART] for i in range(0, len(tests), PART)]
        return np.concatenate([reinforce.rewards(policy, p, reinforce.roll_out(policy, p, 1, length, *how)).cpu().numpy() for p in parts])

    with reinforce.trained_copy(model, learning.RANK) as policy:
        before, optimiser = drawn(policy), learning.adamw(policy, RATE)
        for i in range(job.updates):
            learning.update(policy, optimiser, job, i, lose, *how)
        state_gap(proof, f"held-out {job.problem}s drawn rightly after {job.updates} updates here, over before", drawn(policy), before)
