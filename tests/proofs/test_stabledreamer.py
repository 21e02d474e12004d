"""What StableDreamer claims, asked here: falling noise makes the last gradients agree, and fewer faces at objects' backs, at no loss of the object itself;
a prior in pixels that leads the first steps gives the better shape.

Twelve common objects of the world: of six an accessory and a look on two that the prior never saw on them, another accessory on a third. Gaussians as
the method's own default has them, in all arms. Falling and constant noise are compared under the latent prior alone, so that they are the one difference;
then the same with falling noise whose first half the prior in pixels leads.
Faces are counted on objects whose own back the judge takes for no front, and on them how surely the judge names the side that each frame shows. How far
gradients agree is asked of fields that stand still, those that the two arms ended with, at levels that each range draws from in its last quarter, as
‖mean‖²/variance: over all that a range draws, levels and noises, which is what an optimiser meets, and over the noises of a level alone, so that the
range's width takes no part. The identities stand in tests/test_gaussians.py.
"""

import numpy as np
import pytest
import torch
from measure_objects import gain, outcome

from backends import models
from backends.evaluate.objects import edits
from backends.metrics.objects import agreement, means, scores, turn
from backends.scene import stabledreamer
from backends.scene.distill import Prior
from backends.scene.tasks import MakeObject
from backends.scene.turning import FRAMES, GROUND, SIDE, around, turntable
from backends.worlds import objects

STEPS, MARGIN, SYMMETRIC, PIXELS = 300, 0.05, 0.3, 0.5
LEVELS, NOISES, SIDES, PX = 12, 3, 8, 64
LOW, HIGH, END = 0.02, 0.98, 0.3
# The highest noise levels of the last quarter.
LATE = {"falling": [HIGH + (END - HIGH) * (0.75 + 0.25 * k / (LEVELS - 1)) for k in range(LEVELS)], "constant": [HIGH] * LEVELS}


def told(frames: np.ndarray, thing: objects.Thing) -> float:
    """The judge's probability of the side that a frame shows, in the mean over the turntable."""
    shown = [objects.VIEWS.index(objects.view_of(c.azimuth, 0)) for c in around(len(frames))]
    return float(scores(frames, thing)["view"][np.arange(len(frames)), shown].mean())


def of(job: MakeObject, model, thing: objects.Thing, monkeypatch, annealed: bool = True, geometry: float = 0.0):
    """(the field at the end, share of front seen from behind, sides told, agreement)."""
    fields = []
    with monkeypatch.context() as patch:
        patch.setattr(stabledreamer, "turntable", lambda field: fields.append(field) or turntable(field))
        made = stabledreamer.stabledreamer(job, model, iterations=STEPS, low=LOW, high=HIGH, end=END, size=PX, annealed=annealed, geometry=geometry)
        frames = outcome(made)[0].frames
    return fields[-1], means(frames, thing)["faces"], told(frames, thing), agreement(frames, thing)


def consent(fields: list, job: MakeObject, model, tops: list[float]) -> tuple[float, float]:
    """‖mean‖²/variance of the gradients of all sides of the fields, over all draws and within a level, at a level below each of `tops`.

    Squares of means are without what the variance adds to them.
    """
    whole, alone, within, between = 0.0, 0.0, 0.0, 0.0
    for field in fields:
        prior = Prior(model, job.prompt, torch.Generator().manual_seed(job.seed), 4.0)
        sides = around(SIDES)
        z, cond = prior.see(field.seen(sides, PX, GROUND).picture), prior.cond(sides)
        given = [torch.stack([prior.score(z, cond, level).gradient for _ in range(NOISES)]) for level in (prior.level(LOW, top) for top in tops)]
        drawn = torch.stack(given).flatten(2)  # (levels, noises, all)
        means, noise = drawn.mean(1), float(drawn.var(1).sum(-1).mean())
        spread = float(means.var(0).sum())
        within += noise
        between += max(spread - noise / NOISES, 0.0)
        whole += float(means.mean(0).square().sum()) - spread / len(tops)
        alone += float(means.square().sum(-1).mean()) - noise / NOISES
    return whole / (within + between), alone / within


@pytest.mark.proof
@torch.no_grad()
def test_falling_noise_makes_fewer_faces(proof, monkeypatch):
    proof.models = ["objects-ldm", "objects-pixels", "objects-judge"]
    model, rows, truths, clear = models.load("objects-ldm"), [], [], []
    for i, (_, source, wanted) in enumerate(edits(proof.seed, common=True, others=False)):
        thing = wanted if i % 6 in (0, 1, 4) else source
        job = MakeObject(prompt=objects.caption(thing), seed=1000 * proof.seed + i)
        fields, *figures = zip(*(of(job, model, thing, monkeypatch, **arm) for arm in ({}, {"annealed": False}, {"geometry": PIXELS})))
        clear.append([consent(fields[:2], job, model, tops) for tops in LATE.values()])
        rows.append(np.transpose(figures))
        truth = turn(objects.mesh(thing), FRAMES, SIDE)
        truths.append((means(truth, thing)["faces"], agreement(truth, thing)))
    (faces, sides, agreed), (more, fewer, plain), (less, surer, first) = np.array(rows).transpose(1, 2, 0)
    (backs, best), (falling, constant) = np.array(truths).T, np.array(clear).transpose(1, 0, 2)
    clear = backs < SYMMETRIC

    for over, ours, theirs in zip(("all levels drawn", "the noises of a level"), falling.T, constant.T):
        gain(proof, f"‖mean‖²/variance over {over} of the last quarter's gradients at a fixed object, more than under the constant range", ours, theirs)
    gain(proof, "fronts that the judge sees from behind, fewer than under the constant range", faces[clear], more[clear], sign=-1)
    gain(proof, "the judge's probability of the side that is shown, more than under the constant range", sides[clear], fewer[clear])
    gain(proof, f"agreement with the prompt, no more than {MARGIN} below the constant range", agreed, plain, ">=", -MARGIN)
    proof.state("agreement with the prompt, as a share of true renders'", agreed.mean() / best.mean(), ">=", 0.5, baseline=float(best.mean()), n=len(agreed))
    gain(proof, "fronts that the judge sees from behind, fewer with pixels first than with latents alone", less[clear], faces[clear], sign=-1)
    gain(proof, "the judge's probability of the side that is shown, more with pixels first than with latents alone", surer[clear], sides[clear])
    gain(proof, "agreement with the prompt, more with pixels first than with latents alone", first, agreed)
    proof.close()
