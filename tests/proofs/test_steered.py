"""Steered Diffusion: what is given is kept, better than by a critic on the noisy state; a judge's pull brings the object.

Its identities (replacing is exact, the gradient goes through the network, η = 0 uncorrected is DDIM) stand in
tests/test_conditions.py. Errors are mean squares for values in [0, 1] of the decoded result, nothing pasted over.
The bar is the card's 1e-3 for a filled hole, and ours for the other two. The autoencoder's own error on these scenes, 1.0e-3, is told
beside it and is no excuse.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.denoiser import from_uint8
from backends.image.steer_baselines import noisy_critic, unsteered
from backends.image.steered import steered
from backends.image.tasks import EditImage
from backends.spec import Metric, Result
from backends.worlds import emoji

STEPS, SCENES, SEEDS, PULL = 15, 6, 24, 1.0
KINDS = {"fill": {}, "colour": {"fill": False, "colour": True}, "enlarge ×4": {"fill": False, "enlarge": "4"}}


def jobs(seed: int, fields: dict) -> list[EditImage]:
    """Held-out scenes of two objects, worded; where a hole is asked, it lies over the front object."""
    found = []
    for i in range(SCENES):
        scene = emoji.sample(np.random.default_rng([emoji.HELD_OUT_SEED + 41, seed, i]), held_out=True, counts=(0, 1, 0, 0))
        mask, (x0, y0, x1, y1) = np.zeros((emoji.SIDE, emoji.SIDE, 3), np.uint8), emoji.boxes(scene)[1]
        mask[max(0, y0 - 4) : y1 + 4, max(0, x0 - 4) : x1 + 4] = 255
        found.append(EditImage(image=emoji.render(scene), mask=mask, prompt=emoji.caption(scene), seed=seed + i, **fields))
    return found


def last(events):
    """(error, the autoencoder's own, pixels) at a method's end."""
    metrics, value = {}, None
    for event in events:
        if isinstance(event, Metric):
            metrics[event.name] = event.value
        if isinstance(event, Result):
            value = event.value.pixels
    return metrics.get("condition error (MSE)"), metrics.get("error of the autoencoder alone"), value


@pytest.mark.proof
@torch.no_grad()
def test_conditions_are_kept_and_the_judge_pulls(proof):
    model = models.load("emoji-ldm")
    against_none, against_critic = [], []
    for kind, fields in KINDS.items():
        rows = []
        for job in jobs(proof.seed, fields):
            ours, floor, _ = last(steered(job, model, steps=STEPS))
            rows.append((ours, last(unsteered(job, model, steps=STEPS))[0], last(noisy_critic(job, model, steps=STEPS))[0], floor))
        ours, none, critic, floor = 1000 * np.array(rows).T
        against_none += list(np.log10(none / ours))
        against_critic += list(np.log10(critic / ours))
        proof.state(f"{kind}: 1000 × condition error, (the autoencoder's own {floor.mean():.3g}, no steering {none.mean():.3g}, critic on the noisy state {critic.mean():.3g})",
                    ours.mean(), "<=", floor.mean(), baseline=float(none.mean()), n=SCENES, interval=interval(ours))  # fmt: skip
    for what, gain, least in (
        ("no steering", against_none, 10), ("the critic on the noisy state, at equal steps", against_critic, 1),
    ):  # fmt: skip
        low, high = (10**v for v in interval(np.array(gain)))
        proof.state(f"condition error of {what} over ours (low end of the 95 % interval; mean ×{10 ** np.mean(gain):.1f})", low, ">=", least,
                    n=len(gain), interval=(low, high))  # fmt: skip
    pulled(proof, model)
    proof.close()


def pulled(proof, model) -> None:
    """Prompts of one common object, no guidance: the judge that steers, the one that does not, and the wrong sign."""
    from backends.metrics import detector

    rng = np.random.default_rng([emoji.HELD_OUT_SEED + 42, proof.seed])
    blank, names = np.full((emoji.SIDE, emoji.SIDE, 3), 128, np.uint8), [emoji.concepts()[c] for c in rng.choice(emoji.common(), SEEDS, replace=False)]
    seen = {"steers": [], "confirms": []}  # rows: no pull, ours, the sign turned, the critic on the noisy state
    for i, concept in enumerate(names):
        job = EditImage(image=blank, prompt=emoji.article(concept.name), fill=False, seed=proof.seed + i)
        made = [from_uint8(last(steered(job, model, steps=STEPS, scale=1.0, agree=a))[2], model.device) for a in (0.0, PULL, -PULL)]
        made.append(from_uint8(last(noisy_critic(job, model, steps=STEPS, scale=1.0, agree=PULL))[2], model.device))
        for name, key in (("main", "steers"), ("second", "confirms")):
            seen[key].append(detector.log_probs(torch.cat(made), [concept.index], name)[:, 0].exp().tolist())
    steers, confirms = np.array(seen["steers"]), np.array(seen["confirms"])
    proof.state("probability of the asked object, by the judge that steers", steers[:, 1].mean(), ">=", 0.8,
                baseline=float(steers[:, 0].mean()), n=SEEDS, interval=interval(steers[:, 1]))  # fmt: skip
    band = interval(confirms[:, 1] - confirms[:, 0])
    proof.state("the same gained over no pull, by the judge that does not steer (low end of the 95 % interval)", band[0], ">", 0,
                baseline=float(confirms[:, 0].mean()), n=SEEDS, interval=band)  # fmt: skip
    band = interval(confirms[:, 1] - confirms[:, 3])
    proof.state("the same gained over that judge on the noisy state (low end of the 95 % interval)", band[0], ">", 0,
                baseline=float(confirms[:, 3].mean()), n=SEEDS, interval=band)  # fmt: skip
    proof.state("probability of the asked object with the gradient's sign turned, less that without pull", (steers[:, 2] - steers[:, 0]).mean(), "<=", 0,
                baseline=float(steers[:, 0].mean()), n=SEEDS, interval=interval(steers[:, 2] - steers[:, 0]))  # fmt: skip
