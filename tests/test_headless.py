"""`python -m backends`: the registry as JSON, and a recipe run to files."""

import json
from pathlib import Path

import numpy as np
import pytest

from backends import __main__ as command
from backends import headless, recipe
from backends.registry import METHODS

RECIPE = {"schema": 1, "task": "text_to_image", "job": {"prompt": "a cat", "seed": 3},
          "arms": [{"method": "ddim", "knobs": {"steps": 3}}, {"method": "adaptive_guidance", "knobs": {"steps": 3}}]}  # fmt: skip


def test_the_registry_is_json(capsys):
    assert command.main(["methods"]) == 0
    methods = {m["slug"]: m for m in json.loads(capsys.readouterr().out)}
    assert set(methods) == set(METHODS)
    steps = next(k for k in methods["ddim"]["knobs"] if k["name"] == "steps")
    assert (steps["type"], steps["low"], steps["high"], steps["default"]) == ("integer", 1, 100, 25)
    assert "emoji-ldm" in methods["ddim"]["cards"] and methods["adaptive_guidance"]["paper"]["arxiv"] == "2312.12487"


def test_a_recipe_runs_to_files_that_carry_it(tiny, tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(RECIPE))
    assert command.main(["run", str(tmp_path / "r.json"), "--out", str(tmp_path / "out")]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["event"] == "end" and events[-1]["complete"]
    assert [e["arm"] for e in events if e["event"] == "outcome"] == [0, 1]
    assert sum(e["event"] == "step" for e in events) >= 2
    again, _ = recipe.from_file(tmp_path / "out" / "2-adaptive_guidance.png")
    assert again["arms"][0]["method"] == "adaptive_guidance" and again["outcome"]["nfe"] > 0
    whole, _ = recipe.from_file(tmp_path / "out" / "recipe.json")
    assert len(recipe.parse(whole)[2]) == 2


def test_the_example_of_the_documentation_runs_as_it_is_written(tiny, tmp_path, capsys):
    example = Path(__file__).resolve().parents[1] / "docs/examples/recipe.json"
    assert command.main(["run", str(example), "--out", str(tmp_path)]) == 0
    assert {"1-ddim.png", "2-adaptive_guidance.png", "recipe.json"} <= {f.name for f in tmp_path.iterdir()}
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["complete"]


def test_the_exit_status_tells_of_a_stopped_or_refused_run(tiny, tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(RECIPE | {"arms": [{"method": "ddim", "knobs": {"steps": 1000}}]}))
    assert command.main(["run", str(tmp_path / "r.json"), "--out", str(tmp_path)]) == 2
    assert "from 1 to 100" in json.loads(capsys.readouterr().out)["error"]
    last = list(headless.run(RECIPE, {}, tmp_path, stop=lambda: True))[-1]
    assert last["complete"] is False


def test_inputs_are_written_beside_the_results(tiny, tmp_path):
    pixels = np.full((16, 16, 3), 7, np.uint8)
    assert headless.complete([{"error": "", "stopped": False}], 2) is False
    (tmp_path / "x.png").write_bytes(recipe.png(pixels, RECIPE, {recipe.digest(pixels): pixels}))
    _, pictures = recipe.from_file(tmp_path / "x.png")
    assert list(pictures) == [recipe.digest(pixels)]


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_missing_recipe_is_a_sentence(tmp_path, capsys, name):
    assert command.main(["run", str(tmp_path / name), "--out", str(tmp_path)]) == 2
    assert "error" in json.loads(capsys.readouterr().out)
