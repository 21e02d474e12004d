"""ED-NeRF: the delta of two scores edits as much as SDS within the same mask and moves less outside; the refinement layer repairs latents; seconds.

Twelve edits (measure_objects): six of common objects of the world, six of other models of known names; of each six four that the prior never saw. Judged
on the frames of the turntable, from a height of no capture. The bar of one percent outside the mask is the card's; who may move at all is decided
by the method, so that SDS in the same mask keeps to it too, hence the two are compared.
"""

import time

import numpy as np
import pytest
import torch
from measure import interval
from measure_objects import edits, outcome

from backends import models
from backends.metrics.objects import agreement, turn
from backends.scene.capturing import posed
from backends.scene.ednerf import ednerf
from backends.scene.latent_field import fit
from backends.scene.sds_edit import sds_edit
from backends.scene.tasks import EditObject
from backends.scene.turning import FRAMES, SIDE, turntable
from backends.worlds import objects

MARGIN, OUTSIDE = 0.05, "change outside the mask, of that inside (%)"


def decibels(frames: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(((frames.astype(float) - truth) ** 2).mean() / 255**2))


@pytest.mark.proof
@torch.no_grad()
def test_latents_are_edited_where_the_words_part(proof):
    proof.models = ["objects-ldm", "objects-judge"]
    model, said, outside, repaired, seconds = models.load("objects-ldm"), [], [], [], []
    for i, (shape, source, wanted) in enumerate(edits(proof.seed, common=True)):
        job = EditObject(shape=shape, source=objects.caption(source), prompt=objects.caption(wanted), seed=1000 * proof.seed + i)
        truth, fitted = turn(job.shape, FRAMES, SIDE), []
        for refined in (True, False):
            *_, (field, _) = fit(model, *posed(job.shape, size=model.side), 40, 100, job.seed, refined)
            fitted.append(decibels(turntable(field).frames, truth))
        repaired.append(fitted[0] - fitted[1])
        scores, out, spent = [], [], []
        for events in (ednerf(job, model), ednerf(job, model, score="SDS"), sds_edit(job, model)):
            began = time.perf_counter()
            found, figures, _ = outcome(events)
            spent.append(time.perf_counter() - began)
            scores.append(agreement(found.frames, wanted)), out.append(figures.get(OUTSIDE, np.nan))
        said.append([*scores, agreement(truth, wanted)]), outside.append(out[:2]), seconds.append(spent[0] / spent[2])
    (delta, masked, plain, before), (ours, theirs) = np.array(said).T, np.array(outside).T
    n = len(delta)
    proof.state("change outside the mask, % of that inside (root mean square over latents; baseline: SDS in the same mask)", ours.mean(), "<=", 1,
                baseline=float(theirs.mean()), n=n, interval=interval(ours))  # fmt: skip
    band = interval(theirs - ours)
    proof.state("change outside the mask, % of that inside, SDS in the same mask less ED-NeRF (low end of the 95 % interval)", band[0], ">", 0,
                baseline=float(theirs.mean()), n=n, interval=band)  # fmt: skip
    for name, other in (("SDS in the same mask", masked), ("SDS through the pixels", plain)):
        band = interval(delta - other)
        proof.state(f"prompt score, ED-NeRF less {name} (low end of the 95 % interval; means {delta.mean():.2f} and {other.mean():.2f}, the source {before.mean():.2f})",
                    band[0], ">=", -MARGIN, baseline=float(other.mean()), n=n, interval=band)  # fmt: skip
    band = interval(delta - before)
    proof.state("prompt score, ED-NeRF less the source (low end of the 95 % interval)", band[0], ">", 0, baseline=float(before.mean()), n=n, interval=band)
    band = interval(seconds)
    proof.state("seconds of the whole edit at the defaults of both (240 steps of capture and 120 of the edit; 100 and 250), as a share of SDS through the "
                "pixels (high end of the 95 % interval)", band[1], "<", 1, n=n, interval=band)  # fmt: skip
    band = interval(repaired)
    proof.state(
        "dB on unseen views gained by the refinement layer in captures of 100 steps (low end of the 95 % interval)", band[0], ">", 0, n=n, interval=band
    )
    proof.close()
