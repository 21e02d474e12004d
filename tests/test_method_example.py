"""The method of docs/method.md, loaded as it is written: the contract holds for it, and form, API and MCP would offer it."""

import importlib.util
from pathlib import Path

import pytest

from backends import METHODS, headless, recipe, run
from ui import form

EXAMPLE = Path(__file__).resolve().parents[1] / "docs/examples/fading_guidance.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("backends.image.fading_guidance", EXAMPLE)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield METHODS["fading_guidance"]
    del METHODS["fading_guidance"]


def test_the_example_of_the_documentation_is_a_method(tiny, example):
    import test_contract as contract

    contract.test_it_shows_its_steps_and_gives_one_result_the_same_each_time(tiny, example.slug)
    contract.test_closed_early_it_leaves_nothing_behind(tiny, example.slug)
    assert example.title == "Fading guidance" and example.summary.startswith("Guides strongly") and example in form.methods(example.task)
    (said,) = (m for m in headless.describe() if m["slug"] == example.slug)
    assert [k["name"] for k in said["knobs"]] == ["steps", "scale", "fade"] and all(k["help"] for k in said["knobs"])
    given = {"task": "text_to_image", "job": {"prompt": "a cat"}, "arms": [{"method": example.slug, "knobs": {"steps": 5, "scale": 7.0}}]}
    *_, last = run(given)
    assert dict((m.name, m.value) for m in last.event.metrics)["mean guidance"] == pytest.approx(4.0), "from 7 to 1 along a line"
    with pytest.raises(recipe.BadInput, match="from 0 to 1"):
        recipe.parse(given | {"arms": [{"method": example.slug, "knobs": {"fade": 2}}]})
