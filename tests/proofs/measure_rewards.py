"""What the proofs of reward training share: the arms as they were kept (train/text_rl.py) and what they answer rightly."""

import copy

import numpy as np
import torch
from measure import interval

from backends import models
from backends.text import reinforce
from backends.text.adapter import apply
from backends.train.text_rl import TRAINED, decoders
from backends.worlds import text

FOLDER, PART = models.ASSETS / "text-rl", 64  # rows decoded together
WEIGHTS = ["text-mdm", "text-rl"]


def arm(name: str, seed: int):
    """The text model as an arm left it; the proof's seed goes round the training seeds that are kept, which is one: intervals are of problems alone."""
    files = sorted(FOLDER.glob(f"{name}-*.safetensors"))
    model = copy.copy(models.load("text-mdm"))
    model.net = copy.deepcopy(model.net)
    apply(model.net, files[seed % len(files)])
    return model


def asked(kind: str, seed: int, n: int) -> list[str]:
    """n held-out problems of a kind; text_rl measures itself on those of seed 1."""
    return reinforce.problems(kind, 1000 + seed, n, held_out=True)


def right(model, decoder: str, seed: int, n: int, kinds=TRAINED) -> np.ndarray:
    """(len(kinds) · n,) 1 where a held-out problem is answered rightly by one of text_rl's decoders."""
    found = []
    for kind in kinds:
        torch.manual_seed(seed)
        length, some = text.LENGTHS[kind], asked(kind, seed, n)
        for part in (some[i : i + PART] for i in range(0, n, PART)):
            found.append(reinforce.rewards(model, part, reinforce.roll_out(model, part, 1, length, **decoders(length)[decoder])).cpu().numpy())
    return np.concatenate(found)


def state_gains(proof, name: str, arms: dict, decoder: str, how: str, n: int, kinds=TRAINED) -> None:
    """The arm `name` answers more held-out problems of each kind rightly than each other, all decoded in one way; n of each kind."""
    found = {each: right(model, decoder, proof.seed, n, kinds).reshape(len(kinds), n) for each, model in arms.items()}
    for other in (each for each in arms if each != name):
        for i, kind in enumerate(kinds):
            state_gap(proof, f"held-out {kind}s {how}, right with {name} over {other}", found[name][i], found[other][i])


def state_gap(proof, what: str, one: np.ndarray, other: np.ndarray) -> None:
    """`one` answers more problems rightly than `other`, problem by problem."""
    gap, shares = one - other, f"{100 * one.mean():.1f} % against {100 * other.mean():.1f}"
    print(f"{what}: {shares}", flush=True)
    proof.state(
        f"{what} (share more, low end of the 95 % interval)", interval(gap)[0], ">", 0, baseline=float(other.mean()), n=len(gap), interval=interval(gap)
    )
