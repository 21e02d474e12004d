"""Conditions on a picture: the maps, the methods on a small random model, and what can go wrong."""

import dataclasses
import re

import numpy as np
import pytest
import torch

import backends
from backends import recipe as recipes
from backends.denoiser import from_uint8
from backends.image.conditions import Given
from backends.image.tasks import EDIT_IMAGE, EditImage
from backends.spec import BadInput, Image, Images, Metric, Outcome, Plot, Result, Step
from backends.worlds import emoji

SCENE = emoji.sample(np.random.default_rng(emoji.HELD_OUT_SEED), held_out=True, counts=(0, 1, 0, 0))
PICTURE = emoji.render(SCENE)
MASK = np.zeros_like(PICTURE)
MASK[30:90, 40:100] = 255
KINDS = {
    "fill": dict(mask=MASK),
    "colour": dict(fill=False, colour=True),
    "enlarge": dict(fill=False, enlarge="4"),
    "all": dict(mask=MASK, colour=True, enlarge="2"),
}


def job(**fields):
    return EditImage(**dict(image=PICTURE) | fields)


def run(method, knobs=None, **fields):
    fields = dict(image=PICTURE) | fields
    pictures = {recipes.digest(v): v for v in fields.values() if isinstance(v, np.ndarray)}
    named = {k: {"sha256": recipes.digest(v)} if isinstance(v, np.ndarray) else v for k, v in fields.items()}
    given = {"task": "edit_image", "job": named, "arms": [{"method": method, "knobs": {"steps": 2} | (knobs or {})}]}
    return [e.event for e in backends.run(given, pictures)]


@pytest.mark.identity("steered", "replacing gives the nearest picture that agrees with what is given")
@pytest.mark.parametrize("kind", KINDS)
def test_replacing_is_the_nearest_picture_that_agrees(tiny, kind):
    given = Given(job(**KINDS[kind]), tiny)
    x = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    once = given.replaced(x)
    assert given.loss(x).min() > 0.01 and given.loss(once).max() < 1e-10
    assert torch.allclose(given.replaced(once), once, atol=1e-5)
    # Nearest: what was added is orthogonal to whatever changes nothing that is observed.
    free = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    free = free - given.back(given.observe(free))
    if kind != "all" and kind != "colour":  # these keep the chroma instead, which is not the nearest in RGB
        assert abs(((once - x) * free).sum()) < 1e-2 * (once - x).norm() * free.norm()
    assert given.observe(free).abs().max() < 1e-5


def test_painted_part_is_free_and_the_rest_known(tiny):
    given = Given(job(mask=MASK), tiny)
    other = -given.picture
    new = given.replaced(other)
    assert torch.equal(new[..., 30:90, 40:100], other[..., 30:90, 40:100])
    assert torch.allclose(new[..., :30, :], given.picture[..., :30, :], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["steered", "unsteered", "noisy_critic"])
def test_recipes_run(tiny, method, kind):
    events = run(method, **KINDS[kind], prompt="a cat", seed=4)
    assert not events[-1].error, events[-1].error
    assert sum(isinstance(e, Result) for e in events) == 1 and isinstance(events[-1], Outcome)
    steps = [e for e in events if isinstance(e, Step)]
    assert steps[-1].i == steps[-1].n == 2 and isinstance(steps[-1].show, Image)
    kinds = {type(m) for m in steps[-1].aside}
    assert kinds == {Images, Plot}
    assert len(steps[-1].aside[0].items) == (1 if method == "unsteered" else 3)
    named = {e.name: e.value for e in events if isinstance(e, Metric)}
    assert {"condition error (MSE)", "error of the autoencoder alone"} <= set(named)
    assert events[-1].nfe == 4
    again = run(method, **KINDS[kind], prompt="a cat", seed=4)
    assert np.array_equal(events[-1].value.pixels, again[-1].value.pixels)


def test_loops_repeat_each_step_and_no_prompt_takes_no_guidance(tiny):
    assert run("steered", {"loops": 3}, mask=MASK, prompt="a cat")[-1].nfe == 12
    assert run("steered", mask=MASK)[-1].nfe == 2


@pytest.mark.identity("steered", "η = 0 and nothing corrected is DDIM")
def test_walk_without_correction_or_noise_is_ddim(tiny):
    """η = 0 and nothing corrected: the same picture as the text-to-image baseline's."""
    text = {"task": "text_to_image", "job": {"prompt": "a cat", "seed": 4}, "arms": [{"method": "ddim", "knobs": {"steps": 2, "scale": 3.0}}]}
    plain = [e.event for e in backends.run(text)][-1]
    assert np.abs(run("unsteered", {"eta": 0.0}, prompt="a cat", seed=4, fill=False)[-1].value.pixels.astype(int) - plain.value.pixels).max() <= 1


@pytest.mark.identity("steered", "the gradient goes through the network")
def test_gradient_goes_through_the_network(tiny):
    """Against finite differences of loss(x0(x_t))."""
    from backends.image.steered import through

    (cond,) = tiny.encode("a cat")
    weights = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    x, direction = tiny.noise(0), tiny.noise(5)

    def loss(x0):
        return (x0 * weights).sum((1, 2, 3))

    def pull(**towards):
        return through(lambda x, t: tiny.x0s(x, t, cond)[0], x, 500, towards, lambda x0: x0)[1]

    gradient = pull(one=(1.0, loss))
    ahead, behind = (loss(tiny.x0s(x + s * 1e-2 * direction, 500, cond)[0]) for s in (1, -1))
    with torch.enable_grad():
        y = x.clone().requires_grad_()
        (raw,) = torch.autograd.grad(loss(tiny.x0s(y, 500, cond)[0]).sum(), y)
    assert float((ahead - behind) / 2e-2) == pytest.approx(float((raw * direction).sum()), rel=0.02)
    assert torch.allclose(gradient, raw / raw.square().mean().sqrt(), rtol=1e-4)
    assert torch.allclose(pull(one=(1.0, loss), other=(0.5, lambda x0: -loss(x0))), gradient / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(), "[Pp]aint"),
        (dict(mask=np.zeros_like(MASK)), "mask is empty"),
        (dict(mask=np.full_like(MASK, 255)), "Everything is painted"),
        (dict(mask=MASK[:64]), "paint it on this picture"),
        (dict(fill=False), "Nothing is asked"),
    ],
)
def test_mistakes_are_sentences(tiny, fields, sentence):
    assert re.search(sentence, run("steered", **fields)[-1].error)


def test_a_network_that_is_missing_is_named_with_its_knob(tiny, monkeypatch):
    monkeypatch.setattr("backends.metrics.detector.available", lambda *_: False)
    monkeypatch.setattr("backends.metrics.scorer.available", lambda: False)
    for pull in ("agree", "words"):
        assert f"not among this copy's models; set {pull} to 0" in run("steered", {pull: 0.2}, mask=MASK, prompt="a cat")[-1].error


def test_judge_needs_words_it_knows_and_its_own_world(tiny):
    assert "name one" in run("steered", {"agree": 0.2}, mask=MASK, prompt="xyzzy")[-1].error
    tiny.card = dataclasses.replace(tiny.card, capabilities=tiny.card.capabilities - {"emoji"})
    for pull in ("agree", "words"):
        assert "emoji world only" in run("steered", {pull: 0.2}, mask=MASK, prompt="a cat")[-1].error


def test_towers_pull_towards_any_prompt_and_features_towards_the_look(tiny):
    plain = run("steered", {"eta": 0.0, "scale": 1.0}, prompt="a cat", fill=False)[-1].value.pixels
    for pull, curve in (("words", "words"), ("look", "look")):
        events = run("steered", {pull: 1.0, "eta": 0.0, "scale": 1.0, "steps": 4}, prompt="a cat", fill=False)
        curves = [e for e in events if isinstance(e, Step)][-1].aside[1].series
        assert curve in curves and not events[-1].error and (events[-1].value.pixels != plain).any()
    assert "Write a prompt" in run("steered", {"words": 0.5}, mask=MASK)[-1].error


def test_the_look_is_of_what_is_given_alone(tiny):
    """What is painted over must not leak into the loss."""
    from backends.image.steering import appearance

    hidden = PICTURE.copy()
    hidden[MASK.max(-1) > 0] = 255 - hidden[MASK.max(-1) > 0]
    one, two = (appearance(Given(EditImage(image=p, mask=MASK), tiny)) for p in (PICTURE, hidden))
    pixels = from_uint8(PICTURE)
    assert float(one(pixels)) == pytest.approx(float(two(pixels)), abs=1e-6) and float(one(-pixels)) > float(one(pixels)) + 1e-3


def test_unsteered_needs_a_picture():
    with pytest.raises(BadInput, match="picture"):
        list(backends.run({"task": "edit_image", "job": {"prompt": "a cat"}, "arms": [{"method": "unsteered"}]}))


@pytest.mark.parametrize("number", range(len(EDIT_IMAGE.examples)))
def test_examples_run(tiny, number):
    from pathlib import Path

    from backends import inputs

    folder = Path(backends.__file__).resolve().parents[1] / "assets" / "examples"
    example = EDIT_IMAGE.examples[number]
    files = {k: inputs.picture(folder / v) for k, v in example["job"].items() if k in ("image", "mask")}
    arm = example["arms"][-1]
    outcome = run(arm["method"], arm.get("knobs"), **example["job"] | files)[-1]
    assert not outcome.error and outcome.value.pixels.shape == (128, 128, 3)


def test_keep_starts_from_the_picture_and_its_absence_is_said(tiny):
    from backends.image.steer_baselines import unsteered
    from backends.spec import Note

    def made(seed, keep):
        job = EditImage(image=np.full((128, 128, 3), seed, np.uint8), prompt="a cat", fill=False, keep=keep)
        return list(unsteered(job, tiny, steps=4))

    with torch.no_grad():
        dark, bright = (made(s, 0.5) for s in (0, 255))
        assert (dark[-1].value.pixels != bright[-1].value.pixels).any()
        assert len([e for e in dark if type(e).__name__ == "Step"]) == 2  # half of the steps are left
        dark, bright = (made(s, 0.0) for s in (0, 255))
    assert (dark[-1].value.pixels == bright[-1].value.pixels).all()
    assert any(isinstance(e, Note) and "raise keep" in e.text for e in dark)
