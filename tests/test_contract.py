"""What every method owes, checked for all that are registered, on a tiny random model."""

import io
import json
import pickle

import numpy as np
import PIL.Image
import pytest

from backends import METHODS, TASKS, BadInput, headless, jobs, models, recipe, run, stills
from backends.scene import turning, watching
from backends.spec import Audio, Cube, Heat, Image, Metric, Outcome, Plot, Result, Slider, Spectrogram, Step, Tokens, Turntable
from backends.worlds import emoji

# Few steps and small budgets, so that all methods together stay within seconds; SMALL stands where a test asks for no other value.
QUICK = {"steps": 4, "N": 5, "budget": 2, "iterations": 2, "captures": 10, "inner_steps": 2, "loops": 1, "adapt": 10, "rounds": 2}
SMALL = {"times": 1.0, "grid": 16, "views": 1, "size": 16}
SHORT = {"source": "a cactus", "length": 16, "reach": 1.0, "needles": 1, "form": "name, age", "score": "さ:A4:1 く:B4:1", "shrink": True}
SOUND = Audio((0.3 * np.random.default_rng(0).uniform(-1, 1, 8000)).astype(np.float32), 16_000)


@pytest.fixture(autouse=True)
def small_turntables(monkeypatch):
    """Objects are seen from four sides at 32 px: most of their tests' time went into drawing and judging what is not looked at here."""
    for draws, defaults in ((turning.turning, (32,)), (turning.turntable, (4, 32))):
        monkeypatch.setattr(draws, "__defaults__", defaults)
    monkeypatch.setattr(watching, "SIDE", 32)


def job_of(task):
    """A job with every field filled in."""
    from backends.spec import Picture, Prompt, Shape, Sound, Spectra
    from backends.worlds import cubes

    picture = emoji.render(emoji.sample(np.random.default_rng(2)))
    mask = np.zeros_like(picture)
    mask[32:96, 32:96] = 255
    job, pictures = {"seed": 1}, {}
    for name, mark in recipe.marks(task.job).items():
        if isinstance(mark, Prompt) and (mark.required or name == "prompt"):
            job[name] = "a cat next to a cactus"
        if name in SHORT:
            job[name] = SHORT[name]
        if isinstance(mark, Picture):
            pixels = mask if mark.mask_of else picture
            pictures[recipe.digest(pixels)] = pixels
            job[name] = {"sha256": recipe.digest(pixels)}
        if isinstance(mark, Spectra):
            cube = cubes.generated(side=16, bands=4)
            pictures[recipe.digest(cube)] = cube
            job[name] = {"sha256": recipe.digest(cube)}
        if isinstance(mark, Shape):
            job[name] = "cactus"
        if isinstance(mark, Sound) and mark.required:
            pictures[recipe.digest(SOUND)] = SOUND
            job[name] = {"sha256": recipe.digest(SOUND)}
    return job, pictures


def quick(found):
    return {k.name: min(max((SMALL | QUICK)[k.name], k.control.low), k.control.high) for k in found.knobs if k.name in SMALL | QUICK}


def events_of(slug, knobs=None, stack=()):
    found = METHODS[slug]
    job, pictures = job_of(found.task)
    arm = {"method": slug, "knobs": quick(found) | (knobs or {}), "stack": list(stack)}
    return list(run({"task": found.task.slug, "job": job, "arms": [arm]}, pictures))


def state():
    """What a method may not change: weights, buffers, forwards and attention processors of the loaded networks."""
    found = {}
    for name, model in models._cache.items():
        found[name] = {k: float(v.double().sum()) for k, v in model.net.state_dict().items()}
        found[name] |= {k: float(v.double().sum()) for k, v in model.net.named_buffers()}
        found[name]["forward"] = "forward" in model.net.__dict__
        found[name]["processors"] = {n: type(p) for n, p in getattr(model.net, "attn_processors", {}).items()}
    return found


def outcome(events):
    closing = events[-1].event
    assert isinstance(closing, Outcome)
    return closing


@pytest.mark.parametrize("slug", list(METHODS))
def test_it_shows_its_steps_and_gives_one_result_the_same_each_time(tiny, slug):
    before = state()
    events = events_of(slug)
    assert not outcome(events).error
    steps = [e.event for e in events if isinstance(e.event, Step)]
    results = [e.event for e in events if isinstance(e.event, Result)]
    assert len(results) == 1 and steps
    kinds = (Image, Cube) if METHODS[slug].task.pictures else (Tokens, Heat, Plot, Audio, Spectrogram, Turntable)
    seen = (Image,) if METHODS[slug].task.slug.endswith("_object") else kinds  # an object turns while it is made
    assert all(isinstance(s.show, seen) for s in steps if s.show is not None)
    assert any(s.show is not None for s in steps)
    value = results[0].value
    assert isinstance(value, kinds)
    if isinstance(value, Turntable):
        assert value.frames.ndim == 4 and value.frames.dtype == np.uint8
    if isinstance(value, Image):
        side = models.get(METHODS[slug].task.model).side
        assert value.pixels.shape == (side, side, 3) and value.pixels.dtype == np.uint8
    if isinstance(value, Cube):
        assert value.values.dtype == np.float32 and value.picture.pixels.shape == (*value.values.shape[:2], 3)
    if isinstance(value, Tokens):
        assert len(value.pieces) == len(value.confidence) == len(value.marks) and "m" not in value.marks.rstrip("m")
        assert len(value.past) >= sum(isinstance(e.event, Step) for e in events)
    if isinstance(value, Audio):
        assert value.samples.ndim == 1 and value.samples.dtype == np.float32 and np.abs(value.samples).max() <= 1
    for metric in (e.event for e in events if isinstance(e.event, Metric)):
        assert np.isfinite(metric.value), metric
    for plot in (m for s in steps for m in s.aside if isinstance(m, Plot)):
        for xs, ys in plot.series.values():
            assert len(xs) == len(ys) and np.isfinite([float(y) for y in ys]).all()
    again = outcome(events_of(slug)).value
    assert repr(value) == repr(again) and all(
        np.array_equal(getattr(value, part, 0), getattr(again, part, 0)) for part in ("pixels", "samples", "frames", "values")
    )
    assert state() == before  # it leaves the networks as it found them
    for event in events:  # on ZeroGPU all of it comes from another process
        Portable(io.BytesIO()).dump(jobs.portable(event))


class Portable(pickle.Pickler):
    """Takes no functions, which pickle refuses, and no tensors."""

    def reducer_override(self, held):
        assert not type(held).__module__.startswith("torch"), type(held)
        return NotImplemented


@pytest.mark.parametrize("slug", list(METHODS))
def test_closed_early_it_leaves_nothing_behind(tiny, slug):
    found = METHODS[slug]
    job, pictures = job_of(found.task)
    before = state()
    events = run({"task": found.task.slug, "job": job, "arms": [{"method": slug, "knobs": quick(found)}]}, pictures)
    next(events)
    events.close()
    assert state() == before


def ends():
    """(method, knob at its low end, the next one at its high end): each knob meets both in as many runs as there are knobs."""
    for found in METHODS.values():
        sliders = [k.name for k in found.knobs if isinstance(k.control, Slider)]
        yield from ((found.slug, low, high) for low, high in zip(sliders, sliders[1:] + sliders[:1]))


@pytest.mark.parametrize(("slug", "low", "high"), list(ends()))
def test_the_ends_of_a_knob_give_a_picture_or_a_sentence(tiny, slug, low, high):
    knobs, found = {k.name: k for k in METHODS[slug].knobs}, []
    for name, value in ((low, knobs[low].control.low), (high, knobs[high].control.high)):
        value = max(knobs[name].control.low, min(value, QUICK[name])) if name in QUICK else value
        found.append({name: int(value) if knobs[name].kind is int else float(value)})
    if low != high and outcome(events_of(slug, found[0] | found[1])).value is not None:
        return
    for alone in found:  # a sentence about one may hide what the other would have done
        end = outcome(events_of(slug, alone))
        assert end.value is not None or (end.error and "log holds" not in end.error), end.error


def pairs():
    for top in METHODS.values():
        for below in METHODS.values():
            if below.slot and below.slot in top.holds and below.slot != top.slot and below.task is top.task:
                yield top.slug, below.slug


@pytest.mark.parametrize(("top", "below"), list(pairs()))
def test_pieces_stack_or_are_refused_with_a_sentence(tiny, top, below):
    try:
        end = outcome(events_of(top, stack=[{"method": below}]))
    except BadInput as refused:  # by the recipe: the two are known to clash
        assert str(refused).endswith(".")
        return
    assert end.value is not None or (end.error and "log holds" not in end.error), end.error


def test_every_task_has_its_baseline_and_examples_that_run(tiny):
    for task in TASKS.values():
        assert METHODS[task.baseline].task is task
        for example in task.examples:
            for arm in example.get("arms", ()):
                assert arm["method"] in METHODS


@pytest.mark.parametrize("slug", list(TASKS))
def test_a_grid_of_every_task_gives_its_cells_and_one_picture_of_them(tiny, slug):
    job, pictures = job_of(TASKS[slug])
    arm = {"method": TASKS[slug].baseline, "knobs": quick(METHODS[TASKS[slug].baseline])}
    given = {"task": slug, "job": job, "arms": [arm], "grid": {"x": {"axis": "seed", "values": [1, 2]}}}
    task, whole, inputs = recipe.whole(given, pictures)
    cells = [e.event for e in run(whole, inputs) if isinstance(e.event, Outcome)]
    assert len(cells) == 2 and all(cell.value is not None and not cell.error for cell in cells)
    assert [cell.recipe["job"]["seed"] for cell in cells] == [1, 2]
    sheet = PIL.Image.open(io.BytesIO(headless.sheet(whole, stills.stills(cells), inputs)))
    assert sheet.width >= 2 * 80 and json.loads(sheet.text[recipe.KEY])["grid"] == whole["grid"]
