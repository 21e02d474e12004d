"""SDS on one picture: on a Gaussian it finds the mean, and each knob does what it says."""

import analytic
import numpy as np
import pytest
import torch

from backends import run
from backends.image.sds_picture import Canvas, Latents
from backends.scene.distill import distil
from backends.spec import Images, Outcome, Plot, Result, Step

PROMPT = "a cat next to a cactus"


def arm(seed=3, negative="", **knobs):
    """The events of one arm of three iterations."""
    job = {"prompt": PROMPT, "negative": negative, "seed": seed}
    recipe = {"task": "text_to_image", "job": job, "arms": [{"method": "sds_picture", "knobs": {"iterations": 3} | knobs}]}
    events = [e.event for e in run(recipe)]
    assert isinstance(events[-1], Outcome) and not events[-1].error, events[-1].error
    return events


def test_latents_come_to_the_mean_of_a_gaussian():
    """A sampler draws from N(μ, s²); score distillation seeks its most likely point (card of SDS: ‖x − μ‖ < 0.05)."""
    model, mean = analytic.mixture(torch.tensor([[0.7, -0.3]]), 0.3), torch.tensor([0.7, -0.3]).view(1, 2, 1, 1)
    model.encode_text = lambda text: analytic.weights(1.0)
    prior = Latents(model, "", torch.Generator().manual_seed(0), 1.0, by_view=False)
    canvas = Canvas(torch.zeros(1, 2, 1, 1), True)
    rates = [{"params": [canvas.values], "lr": 0.02}]
    steps = distil(canvas, prior, prior.generator, 400, rates, 1, 1, lambda i: prior.level(0.02, 0.6), lambda seen, look: 0.0)
    late = torch.stack([pulled.z for pulled in steps][200:]).mean(0)  # the rate is constant, so that it goes about the mean
    assert float((late - mean).norm()) < 0.05


@pytest.mark.parametrize("of", ["latents", "pixels"])
def test_a_step_shows_the_estimate_the_pull_and_curves(tiny, of):
    events = arm(of=of)
    steps, (end,) = [e for e in events if isinstance(e, Step)], [e for e in events if isinstance(e, Result)]
    assert [(s.i, s.n) for s in steps] == [(1, 3), (2, 3), (3, 3)] and events[-1].nfe == 6
    assert isinstance(end.aside[0], Images) and isinstance(end.aside[1], Plot)
    assert end.value.pixels.shape == (tiny.side, tiny.side, 3) and end.value.pixels.std() > 0


def test_seed_guidance_and_negative_prompt_count_and_a_run_repeats(tiny):
    plain, again, other, strong, against = (arm(**k)[-1].value.pixels for k in ({}, {}, {"seed": 4}, {"scale": 50.0}, {"negative": "a dog"}))
    assert np.array_equal(plain, again)
    assert all(not np.array_equal(plain, p) for p in (other, strong, against))
