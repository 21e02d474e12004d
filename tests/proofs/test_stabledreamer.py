"""StableDreamer: falling noise calms the last gradients, and objects have fewer faces at their backs, at no loss of the object itself.

Common objects of the world, half with an accessory or a look that the prior never saw on them; voxels in both arms, so that the falling noise is
the one difference. Its identities stand in tests/test_gaussians.py.
"""

import numpy as np
import pytest
import torch
from measure import interval
from measure_objects import agreement, edits, outcome

from backends import models
from backends.metrics.objects import around
from backends.metrics.objects_judge import probabilities
from backends.scene.stabledreamer import stabledreamer
from backends.scene.tasks import MakeObject
from backends.worlds import objects

STEPS, MARGIN = 300, 0.05


def of(job: MakeObject, model, thing: objects.Thing, **knobs) -> tuple[float, float, float]:
    """(variance of the pull in the last quarter, share of front seen from behind, agreement)."""
    found, _, (curves, *_) = outcome(stabledreamer(job, model, iterations=STEPS, **knobs))
    behind = [objects.view_of(c.azimuth, 0) == "back" for c in around(len(found.frames))]
    fronts = probabilities(found.frames[behind])["view"][:, objects.VIEWS.index("front")].mean()
    return float(np.var(curves.series["pull"][1][-STEPS // 4 :])), float(fronts), agreement(found.frames, thing)


@pytest.mark.proof
@torch.no_grad()
def test_falling_noise_makes_fewer_faces(proof):
    proof.models = ["objects-ldm", "objects-judge"]
    model, rows = models.load("objects-ldm"), []
    for i, (source, wanted) in enumerate(edits(proof.seed, common=True)):
        thing = (source, wanted)[i % 2]
        job = MakeObject(prompt=objects.caption(thing), seed=1000 * proof.seed + i)
        rows.append([of(job, model, thing, form="voxels", annealed=annealed) for annealed in (True, False)])
    (variance, faces, agreed), (constant, more, plain) = np.array(rows).transpose(1, 2, 0)
    n = len(rows)
    proof.state("variance of the pull in the last quarter, as a share of the constant range's (high end of the 95 % interval)", interval(variance / constant)[1], "<", 1,
                baseline=float(constant.mean()), n=n, interval=interval(variance / constant))  # fmt: skip
    band = interval(more - faces)
    proof.state(f"fronts that the judge sees from behind, fewer than under the constant range (low end of the 95 % interval; means {faces.mean():.2f} and {more.mean():.2f})",
                band[0], ">", 0, baseline=float(more.mean()), n=n, interval=band)  # fmt: skip
    band = interval(agreed - plain)
    proof.state(f"agreement with the prompt, more than under the constant range (low end of the 95 % interval; means {agreed.mean():.2f} and {plain.mean():.2f})",
                band[0], ">=", -MARGIN, baseline=float(plain.mean()), n=n, interval=band)  # fmt: skip
    proof.close()
