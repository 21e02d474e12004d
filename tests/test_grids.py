"""X/Y grids: what a recipe may ask for, what its cells are, and what a run of them leaves."""

import copy
import dataclasses
import io
import json
import time
import zipfile

import numpy as np
import PIL.Image
import pytest

import backends
from backends import __main__ as command
from backends import estimates, grids, headless, jobs, models, recipe, stills
from backends.spec import BadInput, Outcome, Text
from backends.store import Store
from ui import boards, cells, compare, grid, history, results, running, views
from ui.results import Shown

TASK = backends.TASKS["text_to_image"]
STEPS, SEEDS = {"axis": "knob:steps", "values": [2, 3]}, {"axis": "seed", "values": "4, 5"}


def asked(x=STEPS, y=..., arm=None, **parts) -> dict:
    """Without y seeds, unless x varies them."""
    y = (None if x.get("axis") == "seed" else SEEDS) if y is ... else y
    axes = {"x": x} | ({"y": y} if y else {})
    return {"task": "text_to_image", "job": {"prompt": "a cat", "seed": 3}, "arms": [arm or {"method": "ddim"}], "grid": axes} | parts


def axis(name, values) -> dict:
    return {"axis": name, "values": values}


# --- reading ---


def test_a_grid_gives_an_arm_a_cell_and_its_recipe_comes_back():
    task, job, arms = recipe.parse(asked())
    assert [(a.knobs["steps"], a.job) for a in arms] == [(2, {"seed": 4}), (3, {"seed": 4}), (2, {"seed": 5}), (3, {"seed": 5})]
    assert job.seed == 3 and {a.method for a in arms} == {"ddim"}
    _, whole, _ = recipe.whole(asked())
    assert len(whole["arms"]) == 1 and whole["grid"]["y"] == axis("seed", [4, 5])
    assert recipe.parse(json.dumps(whole)) == (task, job, arms) and recipe.whole(whole)[1] == whole
    assert [(c["job"]["seed"], c["arms"][0]["knobs"]["steps"]) for c in grids.cells(whole)] == [(4, 2), (4, 3), (5, 2), (5, 3)]
    assert all(recipe.parse(c)[2][0].knobs == a.knobs for c, a in zip(grids.cells(whole), arms)), "a cell's recipe is a plain one"
    assert grids.names(whole)[1] == "steps 3 · seed 4"


@pytest.mark.parametrize(
    ("text", "values"),
    [("10, 20,40", [10, 20, 40]), ("1-4", [1, 2, 3, 4]), ("10..50 step 20", [10, 30, 50]), ("1 to 2, 9", [1, 2, 9]), ("3, 3, 3", [3])],
)
def test_numbers_may_be_a_text(text, values):
    assert recipe.whole(asked(axis("knob:steps", text), None))[1]["grid"]["x"]["values"] == values


def test_ranges_of_fractions_are_exact_to_the_eye():
    assert recipe.whole(asked(axis("knob:rescale", "0.1..0.3 step 0.1"), None))[1]["grid"]["x"]["values"] == [0.1, 0.2, 0.3]


def test_methods_keep_the_knobs_that_they_have_and_pieces_have_axes():
    arm = {"method": "ddim", "knobs": {"steps": 7, "rescale": 0.5}, "stack": [{"method": "faster_diffusion"}]}
    _, _, arms = recipe.parse(asked(axis("method", ["ddim", "adaptive_guidance"]), axis("knob:threshold", [0.99, 0.9]), arm))
    assert [a.knobs.get("threshold") for a in arms] == [None, 0.99, None, 0.9], "the axis is left out where the method lacks the knob"
    assert [a.knobs.get("rescale") for a in arms] == [0.5, None, 0.5, None] and {a.knobs["steps"] for a in arms} == {7}
    _, _, arms = recipe.parse(asked(axis("knob:faster_diffusion.noise", [0, 0.001]), None, arm))
    assert [a.stack[0].knobs["noise"] for a in arms] == [0, 0.001]


def test_the_input_is_an_axis_too():
    _, _, arms = recipe.parse(asked(axis("job:prompt", "a red cat, asleep | a dog"), None))
    assert [a.job for a in arms] == [{"prompt": "a red cat, asleep"}, {"prompt": "a dog"}]


def test_models_run_one_after_another_whichever_axis_is_theirs():
    given = asked(axis("model", ["emoji-ldm", "emoji-dit"]), axis("seed", [1, 2]))
    assert [c["model"] for c in grids.cells(recipe.whole(given)[1])] == ["emoji-ldm"] * 2 + ["emoji-dit"] * 2
    assert grids.places(recipe.whole(given)[1]["grid"]) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("task", backends.TASKS.values(), ids=list(backends.TASKS))
def test_every_task_offers_axes_that_its_own_recipe_takes(task):
    arm = compare.first_state(task)["arms"][0]
    for name, rule in grids.axes(task, arm).items():
        values = grid._offered(task, arm, name, rule) or "some words | other words"
        given = {"task": task.slug, "model": task.model, "job": {}, "arms": [arm], "grid": {"x": axis(name, values)}}
        assert recipe.arms_of_cells(task, copy.deepcopy(given)), name


BAD = {
    "a list": (asked(grid=[]), "A grid is an object"),
    "no x": (asked(grid={"y": SEEDS}), "A grid is an object"),
    "an axis without a name": (asked({"values": [1]}), "The X axis must be an object"),
    "two arms": (asked(arms=[{"method": "ddim"}] * 2), "varies one arm; the recipe has 2"),
    "an unknown axis": (asked(axis("mood", [1])), "no axis is called mood; there are method, seed, model, knob:steps"),
    "an unknown knob": (asked(axis("knob:zeal", [1])), "no chosen method has a knob zeal; there are steps, scale"),
    "a knob of no chosen method": (asked(axis("knob:threshold", [0.9]), axis("method", ["ddim", "euler"])), "no chosen method has a knob threshold"),
    "the same twice": (asked(SEEDS, SEEDS), "Both axes vary the same, seed"),
    "no values": (asked(axis("seed", [])), "has no values"),
    "no text": (asked(axis("seed", " , ")), "has no values"),
    "values that are none": (asked(axis("seed", [None])), "a list of numbers or words"),
    "a word": (asked(axis("seed", "many")), "“many” is no number and no range"),
    "a range down": (asked(axis("seed", "9-3")), "must go up"),
    "a range without a step": (asked(axis("knob:scale", "1.5-3")), "say the step"),
    "a step of nothing": (asked(axis("seed", "1-3 step 0")), "by a step above 0"),
    "a range without an end": (asked(axis("knob:scale", "1-1e999 step 1")), "must go up"),
    "a range of millions": (asked(axis("seed", "1-4000000000")), "alone asks for"),
    "too many cells": (asked(axis("seed", "1-10"), axis("knob:steps", "1-4")), "at most 36 cells; 10 × 4 are 40"),
    "a seed and a half": (asked(axis("seed", [1, 1.5])), "seed must be a whole number"),
    "a negative seed": (asked(axis("seed", "-4")), "from 0 to"),
    "a value out of range": (asked(axis("knob:steps", [5, 500])), r"Cell 2 \(steps 500 · seed 4\), DDIM.*from 1 to 100"),
    "an unknown method": (asked(axis("method", ["ddim", "magic"])), "no method is called magic"),
    "a method of another task": (asked(axis("method", ["ddim", "storm"])), "belongs to"),
    "an unknown model": (asked(axis("model", ["emoji-ldm", "nobody"])), "No model is called nobody"),
    "a path": (asked(axis("model", ["../x"])), "path"),
    "an empty prompt": (asked(axis("job:prompt", [" "])), "Prompt is empty"),
    "a job that its task refuses": (
        {"task": "sing", "job": {"score": "さ:A4:15 さ:A4:15"}, "arms": [{"method": "auxiliary"}], "grid": {"x": axis("job:tempo", [120, 40])}},
        r"Cell 2 \(tempo 40\): .* s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_gets_a_sentence(name):
    given, sentence = BAD[name]
    with pytest.raises(BadInput, match=sentence):
        recipe.parse(given)


# --- running ---


def outcomes(given: dict, **kw) -> list[Outcome]:
    return [e.event for e in backends.run(given, **kw) if isinstance(e.event, Outcome)]


def test_a_cells_own_recipe_reproduces_its_bits(tiny):
    made = outcomes(asked(axis("method", ["ddim", "euler"]), SEEDS, {"method": "ddim", "knobs": {"steps": 2}}))
    assert len({o.value.pixels.tobytes() for o in made}) == 4
    for outcome in made:
        assert "grid" not in outcome.recipe and len(outcome.recipe["arms"]) == 1
        (alone,) = outcomes(outcome.recipe)
        assert (alone.value.pixels == outcome.value.pixels).all()
    assert [o.recipe["job"]["seed"] for o in made] == [4, 4, 5, 5]


def test_a_cell_runs_on_its_own_model(tiny):
    made = outcomes(asked(axis("seed", [1, 2]), axis("model", ["emoji-ldm", "objects-ldm"]), {"method": "ddim", "knobs": {"steps": 2}}))
    assert [o.recipe["model"] for o in made] == ["emoji-ldm"] * 2 + ["objects-ldm"] * 2 and not any(o.error for o in made)
    (alone,) = outcomes(made[3].recipe)
    assert (alone.value.pixels == made[3].value.pixels).all()


@pytest.fixture
def studio(tmp_path, monkeypatch, tiny):
    made = jobs.Executor(Store(tmp_path / "data"))
    monkeypatch.setattr(jobs, "_studio", [made])
    yield made
    made.close()
    running._tickets.clear()


def ended(studio, given) -> jobs.Run:
    run = studio.submit(given, {}, "me")
    with studio.watch(run) as feed:
        for _ in feed:
            pass
    return run


def test_a_grid_runs_through_the_queue_and_leaves_one_picture_and_one_recipe(studio, tmp_path):
    assert studio.guess(recipe.whole(asked())[1], {}) is None
    run = ended(studio, asked())
    assert run.state == "done" and studio.guess(run.given, {}) > 0, "its cells taught how long cells take"
    kept = studio.find(run.id, "me")
    assert len(kept.given["arms"]) == 1 and kept.given["grid"] == run.given["grid"]
    board = boards.board(kept, ["a"])
    board.begin()
    with studio.watch(kept) as feed:
        board.see(list(feed))
    shown = next(v for v in board.end() if isinstance(v, Shown))
    assert shown.grid.count("data-cell") == shown.grid.count("data:image/jpeg") == 4 and "Contact sheet" in shown.grid and "waiting" not in shown.grid
    archive = zipfile.ZipFile(shown.bundle)
    names = archive.namelist()
    assert len(names) == 4 + 3 and {"unnoise-grid.png", "recipe.json", "figures.csv"} < set(names)
    assert "steps 3 · seed 5" in archive.read("figures.csv").decode()
    (tmp_path / "sheet.png").write_bytes(archive.read("unnoise-grid.png"))
    found, pictures = recipe.from_file(tmp_path / "sheet.png")
    assert recipe.whole(found, pictures)[1] == kept.given and len(found["outcome"]["arms"]) == 4
    assert compare.state_of(found)["grid"] == kept.given["grid"], "dropped on the page it fills the grid's axes"
    left, top = stills.SIDE, 2 * stills.HEAD
    size = PIL.Image.open(io.BytesIO(archive.read("unnoise-grid.png"))).size
    assert size == (left + 2 * (160 + stills.GAP), top + 2 * (160 + stills.GAP)), "cells of 160 px, as the pictures have 128"
    row = history._row(studio.store.ended("me")[0][0])
    assert row.count("<img") == 1 and "grid of steps × seed, 4 cells" in row


def test_stop_keeps_the_cells_that_are_there(studio):
    stops = iter([False] * 6)
    made = outcomes(asked(axis("knob:steps", [2, 50]), None), stop=lambda: next(stops, True))
    assert len(made) == 2 and made[1].stopped
    drawn = cells.frame("x", recipe.whole(asked())[1]["grid"], [views.Live("waiting") for _ in range(4)])
    assert drawn.count("waiting for its turn") == 4


def test_the_command_line_writes_the_sheet(tiny, tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(asked()))
    assert command.main(["run", str(tmp_path / "r.json"), "--out", str(tmp_path / "out")]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["complete"] and len(last["recipe"]["outcome"]["arms"]) == 4
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"recipe.json", headless.SHEET, *(f"{i}-ddim.png" for i in range(1, 5))}
    assert recipe.from_file(tmp_path / "out" / headless.SHEET)[0]["grid"] == last["recipe"]["grid"]


def test_a_model_that_is_loaded_on_the_way_does_not_count_as_a_cells_time(studio, monkeypatch):
    learned = []
    monkeypatch.setattr(estimates, "learn", lambda store, cell, arm, pictures, seconds: learned.append((cell["model"], seconds)))
    resolve, card = models.resolve, models.get("emoji-ldm-weak")
    monkeypatch.setitem(models.CARDS, card.name, dataclasses.replace(card, loader="its:loader"))

    def load(card):
        time.sleep(1.0)
        return models._cache["emoji-ldm"]

    monkeypatch.setattr(models, "resolve", lambda path: load if path == "its:loader" else resolve(path))
    ended(studio, asked(axis("model", ["emoji-ldm", card.name]), None, {"method": "ddim", "knobs": {"steps": 1}}))
    assert [name for name, _ in learned] == ["emoji-ldm", card.name] and learned[1][1] < 0.9


# --- drawing ---


def test_a_sheet_shows_words_and_leaves_empty_what_is_missing():
    axes = recipe.whole(asked(axis("method", ["ddim", "adaptive_guidance"]), axis("job:prompt", ["a" * 300, "b c"])))[1]["grid"]
    made = {0: np.full((40, 20, 3), 9, np.uint8), 1: "some words " * 40}
    drawn = stills.sheet(axes, made)
    assert drawn.shape == (2 * stills.HEAD + 2 * 168, stills.SIDE + 2 * 88, 3) and drawn.dtype == np.uint8
    assert (drawn[stills.HEAD * 2 + 80, stills.SIDE + 40] == 9).all(), "a still keeps its shape and fills its cell"
    assert stills.still(Text(" many\nwords " * 99)).endswith("…")


def test_a_cell_tells_its_figures_and_escapes_what_it_shows():
    live = views.Live()
    live.see(backends.ArmEvent(0, Outcome(0, 1.25, 8, 1.0, (backends.spec.Metric('"<b>', 0.5, "higher"),), Text("<b>"), {}), 1.25, 8))
    html = cells.cell(3, live, '"<b>')
    assert 'data-cell="3"' in html and "1.2 s" in html and "<b>&lt;b&gt;" not in html and html.count("<b>") == 0
    assert "&quot;higher&quot;" in html and "NFE" in html


GIVEN = {
    "knobs and methods": {"x": axis("knob:scale", [2.0, 5.5]), "y": axis("method", ["ddim", "euler"])},
    "a knob that the arm lacks": {"x": axis("method", ["ddim", "adaptive_guidance"]), "y": axis("knob:threshold", [0.95, 0.99])},
    "long words": {"x": axis("job:prompt", ["a cat " * 30 + "and", "b"]), "y": axis("knob:mode", ["AG"])},
    "one axis": {"x": axis("seed", [3, 4])},
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_page_shows_the_axes_of_a_recipe(name):
    import gradio as gr

    arm = {"method": "adaptive_guidance" if name == "long words" else "ddim"}
    with gr.Blocks():
        panel = grid.draw(TASK, compare.state_of({"arms": [arm], "grid": GIVEN[name]}), Shown())
    made = panel.changed(tuple(c.value for c in panel.sources))
    assert panel.frame.open and recipe.whole(asked(arm=arm, grid=made))[1]["grid"] == GIVEN[name]


def test_the_page_offers_a_grid_that_runs():
    import gradio as gr

    with gr.Blocks():
        panel = grid.draw(TASK, compare.state_of({"arms": [{"method": "ddim"}]}), Shown())
    values = tuple(c.value for c in panel.sources)
    assert not panel.frame.open and panel.changed(values) is None and len(recipe.parse(asked(grid=panel.filled(values)))[2]) == 9


def test_the_page_says_how_many_cells_there_are_or_what_is_wrong(studio):
    column = type("Column", (), {"filled": lambda self, values: {"method": "ddim", "knobs": {"steps": values[0]}, "stack": []}, "sources": [None]})()
    panel = grid.Panel([None] * 6, None, None, None, [], {"method"})
    tell = grid.teller(TASK, ("prompt", "model"), column, panel)
    assert ">2 × 3 = 6 cells<" in tell("a cat", "", 3, "knob:scale", "2, 3", [], "seed", "1-3", [])
    assert ">2 cells<" in tell("a cat", "", 3, "method", "", ["ddim", "euler"], "", "", [])
    assert "from 1 to 15" in tell("a cat", "", 3, "knob:scale", "99", [], "", "", [])
    ended(studio, asked(axis("knob:scale", [2, 3]), None, {"method": "ddim", "knobs": {"steps": 2}}))
    said = tell("a cat", "", 2, "knob:scale", "2, 3", [], "", "", [])
    assert "2 cells, about " in said and said.endswith(" s</p>")


def test_a_result_of_a_grid_is_named_after_its_cell(tiny):
    made = outcomes(asked(y=None))
    whole = recipe.whole(asked(y=None))[1]
    shown = results.summary(whole, {}, made)
    assert [title for title, _ in shown.pictures] == ["1 · steps 2", "2 · steps 3"] and "steps 3" in shown.table and len(results.under(shown)) == results.UNDER
