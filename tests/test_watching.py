"""The judge's curve of an object in the making, and the seconds until it said yes."""

import types

import numpy as np
import pytest

from backends import run
from backends.metrics import objects as figures
from backends.scene import watching
from backends.scene.watching import LOOKS, SIDES, Watch
from backends.spec import Metric, Outcome, Plot, Step


@pytest.fixture
def scores(monkeypatch):
    """The scores that the judge gives one after another, 0 at the end; what it was shown is left out."""
    given = [0.1, 0.3, 0.6, 0.4]
    monkeypatch.setattr(watching, "pixels", lambda field, cameras, side: np.zeros((len(cameras), 8, 8, 3), np.uint8))
    monkeypatch.setattr(figures, "agreement", lambda frames, thing: given.pop(0) if given and len(frames) == SIDES else 0.0)
    return given


def test_it_looks_now_and_then_and_knows_when_the_bar_was_reached(scores):
    model = types.SimpleNamespace(elapsed=0.0)
    watch = Watch(None, "a red bus", model, 10 * LOOKS)
    for i in range(1, 36):
        model.elapsed = 2.0 * i
        (plot,) = watch.look(i, last=i == 35)
    assert plot.series == {"judge's score, 0 to 1": ([1, 11, 21, 31, 35], [0.1, 0.3, 0.6, 0.4, 0.0]), "to reach": ([1, 35], [0.5, 0.5])}
    (reached,) = watch.reached()
    assert list(watch.reached()) == [], "once, however many stages ask"
    assert reached.value == 42.0 and reached.better == "lower" and "every 10 steps" in reached.aside


def test_a_prompt_of_no_object_has_no_curve_and_a_bar_not_reached_no_seconds(scores):
    model = types.SimpleNamespace(elapsed=1.0)
    assert Watch(None, "a qualm of quoins", model, 9).look(1) == ()
    watch = Watch(None, "a bus", model, 40)
    watch.look(1), watch.look(2)
    assert watch.at == [1] and list(watch.reached()) == []


@pytest.mark.parametrize("method", ["sds", "stabledreamer"])
def test_the_curve_stands_beside_the_object_and_the_seconds_among_its_figures(tiny, monkeypatch, method):
    monkeypatch.setattr(figures, "agreement", lambda frames, thing: 0.7)
    knobs = {"iterations": 3, "grid": 16, "size": 16, "views": 1}
    events = [e for e in run({"task": "make_object", "job": {"prompt": "a bus"}, "arms": [{"method": method, "knobs": knobs}]})]
    steps = [e for e in events if isinstance(e.event, Step)]
    curves = [a.series for a in steps[-1].event.aside if isinstance(a, Plot)]
    assert list(curves[-1]) == ["judge's score, 0 to 1", "to reach"] and curves[0].keys() == {"pull", "opacity", "noise level t"}
    (seconds,) = (e.event for e in events if isinstance(e.event, Metric) and "judge's score" in e.event.name)
    assert seconds.value == pytest.approx(steps[0].seconds) and isinstance(events[-1].event, Outcome)
