"""ED-NeRF against SDS in the same mask and SDS through the pixels: how much is edited, what else changes, in which time; and what the refinement layer repairs.

Twelve edits (evaluate/objects.py): six of common objects of the world, six of other models of known names; of each six four that the prior never saw. Judged
on the frames of the turntable, from a height of no capture. The bar of one percent outside the mask is the card's; who may move at all is decided
by the method, so that SDS in the same mask keeps to it too, hence the two are compared, and both with what a viewer of SDS without a mask sees change.
"""

import dataclasses
import time

import numpy as np
import pytest
import torch
from measure import interval
from measure_objects import gain, outcome

from backends import models
from backends.evaluate.objects import edits
from backends.metrics.objects import agreement, kept, turn
from backends.scene.capturing import posed
from backends.scene.ednerf import ednerf
from backends.scene.latent_field import fit
from backends.scene.sds_edit import sds_edit
from backends.scene.tasks import EditObject
from backends.scene.turning import FRAMES, SIDE, turntable
from backends.spec import Step
from backends.worlds import objects

MARGIN, OUTSIDE = 0.05, "change outside the mask, of that inside (%)"
LAYERS = "trained on", "from nothing", "none"


def decibels(frames: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(((frames.astype(float) - truth) ** 2).mean() / 255**2))


def clocked(events, captures: int, steps: int, spent: list):
    """The events; to `spent` the seconds of the whole and of a step of the edit, which follows `captures` steps."""
    began = captured = time.perf_counter()
    for event in events:
        if isinstance(event, Step) and event.i == captures:
            captured = time.perf_counter()
        yield event
    spent.append((time.perf_counter() - began, (time.perf_counter() - captured) / steps))


@pytest.mark.proof
@torch.no_grad()
def test_latents_are_edited_where_the_words_part(proof):
    proof.models = ["objects-ldm", "objects-judge", "objects-refine"]
    model, said, outside, rest, repaired, seconds = models.load("objects-ldm"), [], [], [], [], []
    own, bare = model.card, dataclasses.replace(model.card, options={})
    for i, (shape, source, wanted) in enumerate(edits(proof.seed, common=True)):
        job = EditObject(shape=shape, source=objects.caption(source), prompt=objects.caption(wanted), seed=1000 * proof.seed + i)
        truth, fitted = turn(job.shape, FRAMES, SIDE), []
        for layer in LAYERS:
            model.card = bare if layer == "from nothing" else own
            *_, (field, _) = fit(model, *posed(job.shape, size=model.side), 40, 100, job.seed, layer != "none")
            fitted.append(decibels(turntable(field).frames, truth))
        repaired.append(fitted)
        model.card, scores, out, stayed, spent = own, [], [], [], []
        for events in (
            clocked(ednerf(job, model), 240, 120, spent),
            clocked(ednerf(job, model, score="SDS"), 240, 120, spent),
            clocked(sds_edit(job, model), 100, 250, spent),
        ):
            found, figures, _ = outcome(events)
            scores.append(agreement(found.frames, wanted)), out.append(figures.get(OUTSIDE, np.nan)), stayed.append(kept(found.frames, truth)[2])
        said.append([*scores, agreement(truth, wanted)]), outside.append(out[:2]), seconds.append(np.divide(spent[0], spent[2]))
        if wanted.accessory:
            rest.append(stayed)
    (delta, masked, plain, before), (ours, theirs) = np.array(said).T, np.array(outside).T
    (still, _, moved), (whole, step), (trained, fresh, raw) = np.array(rest).T, np.array(seconds).T, np.array(repaired).T
    n = len(delta)
    proof.state("change outside the mask, % of that inside (root mean square over latents; baseline: SDS in the same mask)", ours.mean(), "<=", 1,
                baseline=float(theirs.mean()), n=n, interval=interval(ours))  # fmt: skip
    gain(proof, "change outside the mask, % of that inside, less than of SDS in the same mask", ours, theirs, sign=-1)
    gain(proof, "dB below the source's top in edits that add something there, more than SDS through the pixels", still, moved)
    for name, other in (("SDS in the same mask", masked), ("SDS through the pixels", plain)):
        gain(proof, f"prompt score, no more than {MARGIN} below {name}", delta, other, ">=", -MARGIN, says=f", the source {before.mean():.2f}")
    gain(proof, "prompt score, more than of the source", delta, before)
    for what, share in (
        ("the whole edit at the defaults of both (240 steps of capture and 120 of the edit; 100 and 250)", whole),
        ("a step of the edit", step),
    ):
        band = interval(share)
        proof.state(f"seconds of {what}, as a share of SDS through the pixels (high end of the 95 % interval)", band[1], "<", 1, n=n, interval=band)
    gain(proof, "dB on unseen views of captures of 100 steps, more with the refinement layer than without", trained, raw)
    gain(proof, "dB on unseen views of captures of 100 steps, more with a layer that was trained on other objects than with one from nothing", trained, fresh)
    proof.close()
