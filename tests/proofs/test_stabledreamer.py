"""StableDreamer: falling noise makes the last gradients agree, and objects have fewer faces at their backs, at no loss of the object itself.

Twelve common objects of the world: of six an accessory and a look on two that the prior never saw on them, another accessory on a third. Gaussians as
the method's own default has them, in both arms, so that the falling noise is the one difference; no first stage in pixels, whose prior is not trained.
Faces are counted on objects whose own back the judge takes for no front, and on them how surely the judge names the side that each frame shows. How far
gradients agree is asked of fields that stand still, those that the two arms ended with, at levels that each range draws from in its last quarter:
‖mean‖²/variance over noises of a level, in the mean over the levels, so that neither the gradients' size, nor how wide a range is, nor where an arm
came to rest decides. Its identities stand in tests/test_gaussians.py.
"""

import numpy as np
import pytest
import torch
from measure_objects import edits, gain, outcome

from backends import models
from backends.metrics.objects import agreement, means, scores, turn
from backends.scene import stabledreamer
from backends.scene.distill import Prior
from backends.scene.tasks import MakeObject
from backends.scene.turning import FRAMES, GROUND, SIDE, around, turntable
from backends.worlds import objects

STEPS, MARGIN, SYMMETRIC = 300, 0.05, 0.3
LEVELS, NOISES, SIDES, PX = 6, 6, 8, 64
LOW, HIGH, END = 0.02, 0.98, 0.3
# The highest noise levels of the last quarter.
LATE = {"falling": [HIGH + (END - HIGH) * (0.75 + 0.25 * k / (LEVELS - 1)) for k in range(LEVELS)], "constant": [HIGH] * LEVELS}


def told(frames: np.ndarray, thing: objects.Thing) -> float:
    """The judge's probability of the side that a frame shows, in the mean over the turntable."""
    shown = [objects.VIEWS.index(objects.view_of(c.azimuth, 0)) for c in around(len(frames))]
    return float(scores(frames, thing)["view"][np.arange(len(frames)), shown].mean())


def of(job: MakeObject, model, thing: objects.Thing, monkeypatch, annealed: bool):
    """(the field at the end, share of front seen from behind, sides told, agreement)."""
    fields = []
    with monkeypatch.context() as patch:
        patch.setattr(stabledreamer, "turntable", lambda field: fields.append(field) or turntable(field))
        made = stabledreamer.stabledreamer(job, model, iterations=STEPS, low=LOW, high=HIGH, end=END, size=PX, annealed=annealed)
        frames = outcome(made)[0].frames
    return fields[-1], means(frames, thing)["faces"], told(frames, thing), agreement(frames, thing)


def consent(fields: list, job: MakeObject, model, tops: list[float]) -> float:
    """‖mean‖²/variance of the gradients of all sides of the fields: NOISES draws at a level below each of `tops`; the mean's square without what the variance adds."""
    signal = noise = 0.0
    for field in fields:
        prior = Prior(model, job.prompt, torch.Generator().manual_seed(job.seed), 4.0)
        sides = around(SIDES)
        z, cond = prior.see(field.seen(sides, PX, GROUND).picture), prior.cond(sides)
        for level in (prior.level(LOW, top) for top in tops):
            drawn = torch.stack([prior.score(z, cond, level).gradient for _ in range(NOISES)])
            noise += float(drawn.var(0).sum())
            signal += float(drawn.mean(0).square().sum() - drawn.var(0).sum() / len(drawn))
    return signal / noise


@pytest.mark.proof
@torch.no_grad()
def test_falling_noise_makes_fewer_faces(proof, monkeypatch):
    proof.models = ["objects-ldm", "objects-judge"]
    model, rows, truths, clear = models.load("objects-ldm"), [], [], []
    for i, (_, source, wanted) in enumerate(edits(proof.seed, common=True, others=False)):
        thing = wanted if i % 6 in (0, 1, 4) else source
        job = MakeObject(prompt=objects.caption(thing), seed=1000 * proof.seed + i)
        fields, *figures = zip(*(of(job, model, thing, monkeypatch, annealed) for annealed in (True, False)))
        clear.append([consent(fields, job, model, tops) for tops in LATE.values()])
        rows.append(np.transpose(figures))
        truth = turn(objects.mesh(thing), FRAMES, SIDE)
        truths.append((means(truth, thing)["faces"], agreement(truth, thing)))
    (faces, sides, agreed), (more, fewer, plain) = np.array(rows).transpose(1, 2, 0)
    (backs, best), (falling, constant) = np.array(truths).T, np.array(clear).T
    clear = backs < SYMMETRIC

    gain(proof, "‖mean‖²/variance of the last quarter's gradients at a fixed object, more than under the constant range", falling, constant)
    gain(proof, "fronts that the judge sees from behind, fewer than under the constant range", faces[clear], more[clear], sign=-1)
    gain(proof, "the judge's probability of the side that is shown, more than under the constant range", sides[clear], fewer[clear])
    gain(proof, f"agreement with the prompt, no more than {MARGIN} below the constant range", agreed, plain, ">=", -MARGIN)
    proof.state("agreement with the prompt, as a share of true renders'", agreed.mean() / best.mean(), ">=", 0.5, baseline=float(best.mean()), n=len(agreed))
    proof.close()
