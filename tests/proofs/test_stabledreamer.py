"""StableDreamer: falling noise makes the last gradients agree, and objects have fewer faces at their backs, at no loss of the object itself.

Twelve common objects of the world: of six an accessory and a look on two that the prior never saw on them, another accessory on a third; voxels in both arms,
so that the falling noise is the one difference: the Gaussians are not judged here, nor a first stage in pixels, whose prior is not trained. Faces are
counted on objects whose own back the judge takes for no front. How far gradients agree is asked of fields that stand still, those that the two arms ended
with, at the levels that each range draws from in its last quarter: ‖mean‖²/variance, so that neither the gradients' size, which goes with the noise,
nor where an arm came to rest decides. Its identities stand in tests/test_gaussians.py.
"""

import numpy as np
import pytest
import torch
from measure import interval
from measure_objects import edits, outcome

from backends import models
from backends.metrics.objects import agreement, means, turn
from backends.scene import stabledreamer
from backends.scene.distill import Prior
from backends.scene.tasks import MakeObject
from backends.scene.turning import FRAMES, GROUND, SIDE, around, turntable
from backends.worlds import objects

STEPS, MARGIN, SYMMETRIC = 300, 0.05, 0.3
DRAWS, SIDES, PX = 16, 8, 64
LOW, HIGH, END = 0.02, 0.98, 0.3
# The highest noise levels of the last quarter.
LATE = {"falling": [HIGH + (END - HIGH) * (0.75 + 0.25 * k / (DRAWS - 1)) for k in range(DRAWS)], "constant": [HIGH] * DRAWS}


def of(job: MakeObject, model, thing: objects.Thing, monkeypatch, annealed: bool):
    """(the field at the end, share of front seen from behind, agreement)."""
    fields = []
    with monkeypatch.context() as patch:
        patch.setattr(stabledreamer, "turntable", lambda field: fields.append(field) or turntable(field))
        made = stabledreamer.stabledreamer(job, model, iterations=STEPS, low=LOW, high=HIGH, end=END, form="voxels", size=PX, annealed=annealed)
        frames = outcome(made)[0].frames
    return fields[-1], means(frames, thing)["faces"], agreement(frames, thing)


def consent(fields: list, job: MakeObject, model, tops: list[float]) -> float:
    """‖mean‖²/variance of the gradients of all sides of the fields, a draw of level and noise for each of `tops`; the mean's square without what the variance adds."""
    signal = noise = 0.0
    for field in fields:
        prior = Prior(model, job.prompt, torch.Generator().manual_seed(job.seed), 4.0)
        sides = around(SIDES)
        z, cond = prior.see(field.seen(sides, PX, GROUND).picture), prior.cond(sides)
        drawn = torch.stack([prior.score(z, cond, prior.level(LOW, top)).gradient for top in tops])
        noise += float(drawn.var(0).sum())
        signal += float(drawn.mean(0).square().sum() - drawn.var(0).sum() / len(drawn))
    return signal / noise


@pytest.mark.proof
@torch.no_grad()
def test_falling_noise_makes_fewer_faces(proof, monkeypatch):
    proof.models = ["objects-ldm", "objects-judge"]
    model, rows, truths, clear = models.load("objects-ldm"), [], [], []
    for i, (source, wanted) in enumerate(edits(proof.seed, common=True)):
        thing = wanted if i % 6 in (0, 1, 4) else source
        job = MakeObject(prompt=objects.caption(thing), seed=1000 * proof.seed + i)
        fields, *figures = zip(*(of(job, model, thing, monkeypatch, annealed) for annealed in (True, False)))
        clear.append([consent(fields, job, model, tops) for tops in LATE.values()])
        rows.append(np.transpose(figures))
        truth = turn(objects.mesh(thing), FRAMES, SIDE)
        truths.append((means(truth, thing)["faces"], agreement(truth, thing)))
    (faces, agreed), (more, plain) = np.array(rows).transpose(1, 2, 0)
    (backs, best), (falling, constant), n = np.array(truths).T, np.array(clear).T, len(rows)
    band = interval(falling - constant)
    proof.state(f"‖mean‖²/variance of the last quarter's gradients at a fixed object, more than under the constant range (low end of the 95 % interval; means {falling.mean():.2f} and {constant.mean():.2f})",
                band[0], ">", 0, baseline=float(constant.mean()), n=n, interval=band)  # fmt: skip
    told = backs < SYMMETRIC
    faces, more = faces[told], more[told]
    band = interval(more - faces)
    proof.state(f"fronts that the judge sees from behind, fewer than under the constant range (low end of the 95 % interval; means {faces.mean():.2f} and {more.mean():.2f})",
                band[0], ">", 0, baseline=float(more.mean()), n=len(faces), interval=band)  # fmt: skip
    band = interval(agreed - plain)
    proof.state(f"agreement with the prompt, more than under the constant range (low end of the 95 % interval; means {agreed.mean():.2f} and {plain.mean():.2f})",
                band[0], ">=", -MARGIN, baseline=float(plain.mean()), n=n, interval=band)  # fmt: skip
    proof.state("agreement with the prompt, as a share of true renders'", agreed.mean() / best.mean(), ">=", 0.5, baseline=float(best.mean()), n=n)
    proof.close()
