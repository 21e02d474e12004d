"""The runner: equal conditions for every arm, honest figures, and nothing left behind."""

import dataclasses

import numpy as np
import pytest

from backends import METHODS, BadInput, models, run, runner
from backends.registry import method
from backends.spec import Audio, Held, Image, Metric, Note, Outcome, Result, Slider, Spectrogram, Step

RECIPE = {"task": "text_to_image", "job": {"prompt": "a cat", "seed": 3}}


def outcomes(arms, **kw):
    return [e.event for e in run(RECIPE | {"arms": arms}, **kw) if isinstance(e.event, Outcome)]


def arm(name="ddim", **knobs):
    return {"method": name, "knobs": {"steps": 4} | knobs}


def test_same_seed_same_bits_whatever_ran_before(tiny):
    alone = outcomes([arm("euler")])[0].value.pixels
    np.random.rand()
    after = outcomes([arm("ddim"), arm("adaptive_guidance"), arm("euler")])[2].value.pixels
    assert (alone == after).all()


def test_the_process_wide_random_state_restarts_for_each_arm(tiny):
    @method("draws", task=METHODS["ddim"].task, paper=False)
    def draws(job, model):
        """Draws.

        From every source of chance that a library could use.
        """
        import random

        import torch

        row = [torch.rand(()).item(), np.random.rand(), random.random()]
        yield Result(Image((np.array(row) * 255).astype(np.uint8).reshape(1, 1, 3)))

    try:
        alone = outcomes([{"method": "draws"}])[0].value.pixels
        after = [o.value.pixels for o in outcomes([{"method": "draws"}, arm("euler"), {"method": "draws"}])]
    finally:
        del METHODS["draws"]
    assert (alone == after[0]).all() and (alone == after[2]).all()


def test_what_is_drawn_beside_the_picture_is_off_the_clock_and_only_when_shown(tiny, monkeypatch):
    import time

    asked = []

    def slow(i):
        time.sleep(0.2)
        asked.append(i)
        return (Image(np.zeros((1, 1, 3), np.uint8)),)

    @method("shows", task=METHODS["ddim"].task, paper=False)
    def shows(job, model):
        """Shows.

        Three quick steps with something slow beside them.
        """
        for i in (1, 2, 3):
            yield Step(i, 3, None, lambda i=i: slow(i))
        yield Result(Image(np.zeros((1, 1, 3), np.uint8)))

    monkeypatch.setattr(runner, "PREVIEW_SECONDS", 1e9)
    try:
        events = [e.event for e in run(RECIPE | {"arms": [{"method": "shows"}]})]
    finally:
        del METHODS["shows"]
    assert asked == [1, 3] or asked == [3], "the first may be shown, the last always is"
    assert events[-1].seconds < 0.1 and all(len(e.aside) == 1 for e in events if isinstance(e, Step))


def test_a_step_may_leave_what_it_shows_to_a_function(tiny, monkeypatch):
    asked = []

    @method("plays", task=METHODS["ddim"].task, paper=False)
    def plays(job, model):
        """Plays.

        Steps whose sound costs something to make.
        """
        for i in range(1, 5):
            yield Step(i, 4, lambda i=i: asked.append(i) or Spectrogram(np.zeros((2, 2)), i, 1e3), keep=lambda i=i: Audio(np.zeros(8, np.float32), i))
        yield Result(Audio(np.zeros(8, np.float32), 9))

    monkeypatch.setattr(runner, "PREVIEW_SECONDS", 1e9)
    asks = iter([False] * 4)
    try:
        whole = [e.event for e in run(RECIPE | {"arms": [{"method": "plays"}]})]
        assert asked == [e.show.seconds for e in whole if isinstance(e, Step)] == [4], "the last step alone is shown"
        *_, stopped = (e.event for e in run(RECIPE | {"arms": [{"method": "plays"}]}, stop=lambda: next(asks, True)))
    finally:
        del METHODS["plays"]
    assert whole[-1].value.rate == 9 and stopped.stopped
    assert stopped.value.rate == 3 and asked == [4], "what is kept is made once the arm is stopped"


def test_a_further_model_is_loaded_while_the_clock_stands(tiny, monkeypatch):
    card, resolve, now, clock, loaded = models.get("emoji-ldm-weak"), models.resolve, runner._now, [], []

    def load(card):
        loaded.append(len(clock) % 2)  # the clock is read before and after each piece of work
        return tiny

    monkeypatch.setitem(models.CARDS, card.name, dataclasses.replace(card, loader="its:loader"))
    monkeypatch.setattr(models, "resolve", lambda path: load if path == "its:loader" else resolve(path))
    monkeypatch.setattr(runner, "_now", lambda: clock.append(0) or now())
    piece = {"method": "adaptive_guidance", "knobs": {"steps": 2}, "stack": [{"method": "w2sd", "knobs": {"pair": "model"}}]}
    for given in (arm("w2sd", steps=2, pair="model"), piece):
        models._cache.pop(card.name, None)
        (end,) = outcomes([given])
        assert not end.error and end.nfe == 2 * 2 + 2 * 2
    assert loaded == [0, 0]
    models._cache.pop(card.name)
    assert not outcomes([arm("w2sd", steps=2)])[0].error and len(loaded) == 2, "only the pair “model” takes one"


def test_what_a_long_prompt_loses_is_said(tiny):
    words = " ".join(["a cat next to a cactus"] * 8) + " under a zebra"
    notes = [e.event.text for e in run(RECIPE | {"job": {"prompt": words}, "arms": [arm()]}) if isinstance(e.event, Note)]
    assert len(notes) == 1 and "under a zebra" in notes[0]
    assert not [e for e in run(RECIPE | {"arms": [arm()]}) if isinstance(e.event, Note)]


def test_another_seed_gives_another_picture(tiny):
    one = outcomes([arm()])[0].value.pixels
    RECIPE_2 = RECIPE | {"job": {"prompt": "a cat", "seed": 4}, "arms": [arm()]}
    other = [e.event for e in run(RECIPE_2) if isinstance(e.event, Outcome)][0].value.pixels
    assert (one != other).any()


def test_evaluations_are_counted_at_the_network(tiny):
    guided, plain, late = outcomes([arm(scale=5), arm(scale=1), arm(scale=5, start=0.5)])
    assert (guided.nfe, plain.nfe, late.nfe) == (8, 4, 6)


def test_an_arm_can_be_stopped_within_one_step(tiny):
    steps = []

    def stop():
        return len(steps) >= 2

    last = None
    for event in run(RECIPE | {"arms": [arm(steps=50), arm()]}, stop=stop):
        if isinstance(event.event, Step):
            steps.append(event.event.i)
        last = event
    assert last.arm == 0 and last.event.stopped  # the second arm never starts
    assert last.nfe <= 2 * (max(steps) + 1)
    assert last.event.value.pixels.shape == (128, 128, 3)  # what there is, is kept
    assert last.event.recipe["outcome"]["stopped"]


def paused(arms, at: int, asks: int, **kw):
    """Events of a run that is paused once step `at` is shown and asked `asks` times before it goes on."""
    seen, left = [], iter(range(asks))
    for event in run(
        RECIPE | {"arms": arms}, pause=lambda: any(isinstance(e.event, Step) and e.event.i >= at for e in seen) and next(left, None) is not None, **kw
    ):
        seen.append(event)
    return seen


def test_a_paused_arm_goes_on_where_it_was_and_its_clock_stood(tiny, monkeypatch):
    (plain,) = outcomes([arm("euler", steps=6)])
    monkeypatch.setattr(runner, "PREVIEW_SECONDS", 0)
    events = paused([arm("euler", steps=6), arm(steps=2)], at=2, asks=8)
    (k,) = (k for k, e in enumerate(events) if isinstance(e.event, Held))
    assert 200 < events[k].event.left <= runner.HOLD_SECONDS
    assert (events[k - 1].event.i, events[k + 1].event.i) == (3, 4), "what is held is shown, and the next step follows"
    first, second = (e.event for e in events if isinstance(e.event, Outcome))
    assert (first.value.pixels == plain.value.pixels).all() and first.nfe == plain.nfe and not second.error
    assert first.seconds < plain.seconds + 0.3, "eight waits of 50 ms are not the arm's seconds"
    assert not runner._ACCELERATOR.locked()


def test_a_run_is_not_held_for_ever(tiny, monkeypatch):
    monkeypatch.setattr(runner, "HOLD_SECONDS", 0.12)
    events = paused([arm(steps=3), arm(steps=3)], at=1, asks=10_000)
    assert [e.event.left for e in events if isinstance(e.event, Held)] == [0.12, 0], "it is told once, and once that it goes on"
    assert [e.event.stopped for e in events if isinstance(e.event, Outcome)] == [False, False]


def test_a_paused_run_can_be_stopped(tiny):
    asks = []

    def stop():
        asks.append(0)
        return len(asks) > 40

    events = paused([arm(steps=50), arm()], at=2, asks=10_000, stop=stop)
    assert events[-1].event.stopped and events[-1].event.value is not None and isinstance(events[-2].event, Held)


def test_closing_unwinds_the_method(tiny):
    closed = []

    @method("left_open", task=METHODS["ddim"].task, paper=False)
    def left_open(job, model):
        """Left open.

        Waits to be closed.
        """
        try:
            for i in range(9):
                yield Step(i + 1, 9)
        finally:
            closed.append(True)

    try:
        events = run(RECIPE | {"arms": [{"method": "left_open"}]})
        next(events)
        events.close()
        assert closed
        assert not runner._ACCELERATOR.locked()
    finally:
        del METHODS["left_open"]


def test_a_failing_arm_says_so_and_the_next_one_runs(tiny, monkeypatch):
    @method("breaks", task=METHODS["ddim"].task, paper=False)
    def breaks(job, model):
        """Breaks.

        Always.
        """
        yield Step(1, 2)
        raise RuntimeError("CPU out of memory: tried to allocate")

    try:
        broken, fine = outcomes([{"method": "breaks"}, arm()])
    finally:
        del METHODS["breaks"]
    assert "memory" in broken.error and broken.value is None
    assert not fine.error and fine.value is not None


def test_the_recipe_of_a_result_makes_it_again(tiny):
    first = outcomes([arm("adaptive_guidance", threshold=0.95)])[0]
    again = [e.event for e in run(first.recipe) if isinstance(e.event, Outcome)][0]
    assert (first.value.pixels == again.value.pixels).all()


def test_a_method_that_does_not_fit_the_model_is_refused(tiny):
    @method("wants_wings", task=METHODS["ddim"].task, needs={"wings"}, paper=False)
    def wants_wings(job, model):
        """Wants wings.

        It does.
        """
        yield Result(Image(np.zeros((8, 8, 3), np.uint8)))

    try:
        assert "needs wings" in outcomes([{"method": "wants_wings"}])[0].error
    finally:
        del METHODS["wants_wings"]


def test_an_unknown_model_is_refused():
    with pytest.raises(BadInput, match="No model is called nonesuch"):
        list(run(RECIPE | {"model": "nonesuch", "arms": [arm()]}))


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two methods"):
        method("ddim", task=METHODS["ddim"].task)(lambda job, model: iter(()))


@pytest.mark.parametrize("slug", [m for m in METHODS])
def test_every_method_explains_itself(slug):
    found = METHODS[slug]
    assert 20 < len(found.summary) < 600, "the docstring's second paragraph is the card's summary"
    assert found.task.baseline in METHODS
    for knob in found.knobs:
        assert knob.check(knob.default, "default") == knob.default
        if isinstance(knob.control, Slider):
            with pytest.raises(BadInput):
                knob.check(knob.control.high + 1, "too far")


def test_figures_of_the_task_stand_before_the_methods_own_and_take_the_place_of_their_names():
    before = [Metric("own", 1.0), Metric("both", 2.0)]
    assert [(m.name, m.value) for m in runner.joined([Metric("task's", 3.0), Metric("both", 4.0)], before)] == [("task's", 3.0), ("both", 4.0), ("own", 1.0)]
