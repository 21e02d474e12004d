"""Adaptive Guidance: a quarter of the evaluations saved, nearer to full guidance than fewer steps at that cost.

Its identities (a threshold out of reach, LinearAG's weights, the mixture of Gaussians) stand in
tests/test_image_methods.py.
"""

import math

import numpy as np
import pytest
import torch
from measure import captions, draw, drawn, interval, psnr

from backends import models
from backends.image import linear_ag
from backends.image.adaptive_guidance import AdaptiveGuide
from backends.image.sampling import Guided, SchedulerWalk
from backends.registry import METHODS

STEPS, SCALE, PROMPTS = 25, 5.0, 32  # the defaults, for which LinearAG's weights are committed
DEFAULT = {k.name: k.default for k in METHODS["adaptive_guidance"].knobs}


class Skipping(linear_ag.LinearGuide):
    """LinearAG's control: the same evaluations, but the estimated steps go without guidance."""

    def __call__(self, evaluate, cond, uncond, i, n):
        return self.mix(*evaluate(uncond, cond)) if linear_ag.guided(i, n) else evaluate(cond)[0]


def weights(model):
    """LinearAG's weights: the committed ones, or fitted here when the model was trained on since."""
    key = linear_ag.key(model, STEPS, SCALE, "ddim", "")
    linear = linear_ag.known(key, model)
    fitting = linear_ag.fit(model, lambda m, n: SchedulerWalk(m, n, "ddim"), STEPS, SCALE, "", 24)
    while linear is None:
        try:
            next(fitting)
        except StopIteration as end:
            linear = end.value
    return linear


def _agreement(pixels, texts) -> np.ndarray:
    from backends.metrics import scorer

    with torch.no_grad():
        return 100 * np.array([float(scorer.cosines(p[None], [t])) for p, t in zip(pixels, texts)])


@pytest.mark.proof
def test_less_cost_and_nearer_than_fewer_steps(proof):
    model = models.load("emoji-ldm")
    with torch.no_grad():
        linear = weights(model)
    texts, seeds = captions(proof.seed, PROMPTS), list(range(proof.seed, proof.seed + PROMPTS))
    full = drawn(model, texts, seeds, lambda: Guided(SCALE), steps=STEPS)
    guides = [AdaptiveGuide(DEFAULT["threshold"], DEFAULT["warmup"], SCALE) for _ in texts]  # each prompt stops when it agrees
    made, cost = [], []
    for text, seed, guide in zip(texts, seeds, guides, strict=True):
        before = model.nfe
        made.append(draw(model, [text], [seed], guide, STEPS))
        cost.append(model.nfe - before)  # as counted at the network
    near, cost = psnr(torch.cat(made), full), np.array(cost)
    fewer, afford = np.zeros(PROMPTS), -(-cost // 2)  # guided steps for the same evaluations, rounded up
    for steps in set(afford.tolist()):
        rows = np.flatnonzero(afford == steps).tolist()
        fewer[rows] = psnr(drawn(model, [texts[r] for r in rows], [seeds[r] for r in rows], lambda: Guided(SCALE), steps=steps), full[rows])
    before = model.nfe
    lines = psnr(drawn(model, texts, seeds, lambda: linear_ag.LinearGuide(SCALE, linear), steps=STEPS), full)
    spent = (model.nfe - before) / PROMPTS
    skips = psnr(drawn(model, texts, seeds, lambda: Skipping(SCALE, linear), steps=STEPS), full)
    halves = psnr(drawn(model, texts, seeds, lambda: Guided(SCALE), steps=math.ceil(spent / 2)), full)
    saved = 1 - cost / (2 * STEPS)
    proof.state("AG saves this share of the evaluations", saved.mean(), ">=", 0.25, n=PROMPTS, interval=interval(saved))
    lost = _agreement(full, texts) - _agreement(torch.cat(made), texts)
    proof.state(
        "AG: agreement with the prompt lost against full guidance, 100 × cosine (high end of the 95 % interval)",
        interval(lost)[1],
        "<=",
        2,
        n=PROMPTS,
        interval=interval(lost),
    )
    band = interval(near - fewer)
    proof.state("AG: PSNR to full guidance above that of fewer guided steps at the same evaluations, dB (low end of the 95 % interval)", band[0], ">", 0,
                baseline=float(fewer.mean()), n=PROMPTS, interval=band)  # fmt: skip
    proof.state("LinearAG saves this share of the evaluations", 1 - spent / (2 * STEPS), ">=", 0.3, n=PROMPTS, kind="identity")
    band = interval(lines - skips)
    proof.state("LinearAG: PSNR to full guidance above that of leaving the estimated steps unguided, dB (low end)", band[0], ">", 0,
                baseline=float(skips.mean()), n=PROMPTS, interval=band)  # fmt: skip
    band = interval(lines - halves)
    proof.state("LinearAG: PSNR to full guidance above that of fewer guided steps at the same evaluations, dB (low end)", band[0], ">", 0,
                baseline=float(halves.mean()), n=PROMPTS, interval=band)  # fmt: skip
    proof.close()
