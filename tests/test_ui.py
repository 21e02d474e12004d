"""The page without a browser: forms from signatures, views, the catalogue, and how large the page is."""

import base64
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import gradio as gr
import numpy as np
import PIL.Image
import pytest
from gradio.data_classes import ImageData

import backends
from backends import headless, recipe
from backends.registry import METHODS, TASKS
from backends.spec import Audio, Cube, Image, Metric, Outcome, Plot, Shape, Step, Table, Text, Turntable
from backends.store import Kept
from ui import arms, catalogue, compare, form, history, page, results, running, upload, views

ROOT = Path(__file__).resolve().parents[1]
TASK = TASKS["text_to_image"]


def outcome(arm=0, pixels=None, **changes):
    made = {"task": "text_to_image", "job": {"seed": 1}, "arms": [{"method": "ddim"}], "outcome": {"seconds": 1.0}}
    return Outcome(**dict(arm=arm, seconds=1.0, nfe=10, peak_mb=1.0, metrics=(), value=pixels if pixels is None else Image(pixels), recipe=made) | changes)


def test_the_page_is_small_and_needs_no_torch():
    code = "import sys, json; from ui import page; c = page.build().get_config_file(); print(len(json.dumps(c, default=str)), 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert said[1] == "False"
    assert int(said[0]) <= 150 * 1024


def test_all_events_show_that_they_wait_on_one_small_component(monkeypatch):
    """Gradio's page walks through all of them at every step of any event, so that a page of many drawn tabs grew slow."""
    import asyncio

    from gradio.state_holder import SessionState

    tabs, build = [], compare.build
    monkeypatch.setattr(compare, "build", lambda task: tabs.append(build(task)) or tabs[-1])
    made = page.build()
    session, tab = SessionState(made), tabs[0]
    (drawing,) = [fn for fn in made.fns.values() if fn.renderable and (tab.state._id, "change") in fn.targets]
    session[tab.state._id] = compare.first_state(tab.task)
    asyncio.run(made.process_api(drawing, [None, None, None], state=session, session_hash="x", request=gr.Request(session_hash="x")))
    events = list(session.blocks_config.fns.values())
    assert len(events) > 80 and sum(fn.rendered_in is drawing.renderable for fn in events) > 20
    for fn in events:
        if fn.fn and fn.api_visibility == "private":
            assert [one.value for one in fn.show_progress_on or ()] == [page.HEADER], (fn.name, fn.targets)
    assert [one.value for one in drawing.show_progress_on] == [page.HEADER]


@pytest.mark.parametrize("slug", list(METHODS))
def test_every_knob_gets_a_component_that_holds_its_default(slug):
    with gr.Blocks():
        made = form.knobs(METHODS[slug].knobs + METHODS[slug].piece_knobs, {})
    for knob in METHODS[slug].knobs:
        component = made[knob.name]
        assert knob.check(component.value, "here") == knob.default
        if isinstance(component, gr.Slider):
            assert (component.minimum, component.maximum) == (knob.control.low, knob.control.high)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.slug)
def test_every_field_of_a_job_stands_in_the_panel(task):
    with gr.Blocks():
        made = form.panel(task, {}, {})
    rules = backends.recipe.marks(task.job)
    assert set(made) == set(rules)
    state = compare.first_state(task)
    assert 1 <= len(state["arms"]) <= 3
    assert all(arm["method"] in METHODS for arm in state["arms"])


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_knob_and_field_says_what_it_does(task):
    of = [m for m in METHODS.values() if m.task is task]
    assert all(k.control.help for m in of for k in m.knobs + m.piece_knobs)
    assert all(rule == "seed" or rule.help for rule in backends.recipe.marks(task.job).values()) and task.help


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_tab_opens_with_what_can_run_at_once(task):
    """Room, tab, Run: three clicks to the first result."""
    state, pictures = compare.first_state(task), {}
    for name, rule in backends.recipe.marks(task.job).items():
        if type(rule) in backends.recipe.KINDS and name in state["job"] and not (isinstance(rule, Shape) and isinstance(state["job"][name], str)):
            shown = form._given(state["job"][name], {}, backends.recipe.KINDS[type(rule)][1])
            state["job"] = state["job"] | {name: {"sha256": name}}
            pictures[name] = shown
    backends.recipe.parse(
        {"task": task.slug, "model": state["model"], "job": state["job"], "arms": [{k: a[k] for k in ("method", "knobs")} for a in state["arms"]]}, pictures
    )


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_examples_are_told_apart_by_their_names(task):
    names = [form.example_name(task, example) for example in task.examples]
    assert len(set(names)) == len(names) and not any(name.startswith(task.title) for name in names)


def test_a_painted_mask_becomes_white_on_black_and_an_unpainted_one_nothing():
    task = next((t for t in TASKS.values() if any(getattr(r, "mask_of", "") for r in backends.recipe.marks(t.job).values())), None)
    if task is None:
        pytest.skip("no task has a mask")
    rules = backends.recipe.marks(task.job)
    mask = next(n for n, r in rules.items() if getattr(r, "mask_of", ""))
    under = rules[mask].mask_of
    layer = np.zeros((16, 16, 4), np.uint8)
    editor = {"background": np.full((16, 16, 4), 200, np.uint8), "layers": [layer]}
    given, _ = form.job(task, [under], [editor])
    assert mask not in given and under in given
    layer[2:5, 2:5, 3] = 255
    given, pictures = form.job(task, [under], [editor])
    painted = pictures[given[mask]["sha256"]]
    assert painted[3, 3].tolist() == [255] * 3 and painted.sum() == 9 * 3 * 255
    kept = np.full((16, 16, 3), 255, np.uint8)
    layer[:] = 0
    given, pictures = form.job(task, [under, mask], [editor, kept])
    assert (pictures[given[mask]["sha256"]] == kept).all(), "a mask that came along holds until another is painted"
    given, _ = form.job(task, [under], [{"background": np.zeros((8, 8, 4), np.uint8), "layers": []}])
    assert under not in given, "an empty editor is no picture"


def test_what_stands_in_the_columns_becomes_the_recipes_arms():
    column = arms.Column("a1", "adaptive_guidance", ["faster_diffusion"], None, None, [(None, "steps"), (0, "noise")], [None, None])
    (arm,) = running.filled([column], (7, 0.001))
    assert arm == {"method": "adaptive_guidance", "knobs": {"steps": 7}, "stack": [{"method": "faster_diffusion", "knobs": {"noise": 0.001}}]}


def test_a_change_of_arms_first_takes_what_was_typed():
    state = compare.state_of({"arms": [{"method": "ddim"}], "job": {"prompt": "old"}})
    me = state["arms"][0]["id"]
    column = arms.Column(me, "ddim", [], None, None, [(None, "steps")], [None])
    change = arms.Change(None, lambda old, slug: [*old, arms.new(slug)], (None,))
    after = compare._changer(TASK, ("prompt", "seed", "model"), [column], change, threading.Lock())(state, "euler", "new", 4, "emoji-ldm", 9)
    assert after["job"] == {"prompt": "new", "seed": 4}
    assert [a["method"] for a in after["arms"]] == ["ddim", "euler"]
    assert after["arms"][0]["knobs"] == {"steps": 9}


def test_a_drawing_changes_once_and_what_changes_nothing_does_not_count():
    state, once = compare.state_of({"arms": [{"method": "ddim"}], "job": {}}), threading.Lock()
    same, more = (compare._changer(TASK, ("prompt", "model"), [], arms.Change(None, c), once) for c in (lambda old: old, lambda old: [*old, arms.new("euler")]))
    state |= {"job": {"prompt": "x"}, "model": "emoji-ldm"}
    assert same(state, "x", "emoji-ldm") == state
    assert len(more(state, "x", "emoji-ldm")["arms"]) == 2
    assert more(state, "x", "emoji-ldm")["__type__"] == "update", "a choice that is told of twice"


def test_a_picture_that_can_not_be_taken_loses_no_words():
    task, state = backends.TASKS["edit_image"], compare.state_of({"job": {"prompt": "old"}})
    broken = {"background": np.full((8, 8, 4), np.nan), "layers": []}
    change = arms.Change(None, lambda old: old)
    after = compare._changer(task, ("image", "prompt", "fill", "model"), [], change, threading.Lock())(state, broken, "new", False, "emoji-ldm")
    assert after["job"] == {"prompt": "new", "fill": False} and after["pictures"] == {}


def file_of(tmp_path, kind: str) -> Path:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path = tmp_path / kind
    if kind == "moves.gif":
        noise.save(path, save_all=True, append_images=[PIL.Image.new("RGB", (64, 64))])
    elif kind == "large.png":
        PIL.Image.new("1", (20_000, 20_000)).save(path)
    else:
        noise.save(path)
        path.write_bytes(path.read_bytes()[: 2000 if kind == "cut.png" else None])
    return path


@pytest.mark.parametrize(("kind", "said"), [("moves.gif", "animation"), ("cut.png", "can't be read"), ("large.png", "4096×4096")])
def test_the_page_refuses_an_upload_in_the_words_of_the_api(tmp_path, monkeypatch, kind, said):
    warned = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: warned.append(text))
    task = backends.TASKS["edit_image"]
    with gr.Blocks() as blocks:
        editor = form.panel(task, {}, {})["image"]
    assert not editor.sources and not editor.visible, "the editor itself takes no file: it would send a canvas, which hides what came"
    empty = next(b for b in blocks.blocks.values() if isinstance(b, upload.Upload))
    given = empty.preprocess(ImageData(path=str(file_of(tmp_path, kind)), orig_name=kind))  # as Gradio hands it to the handlers
    (take,) = (f.fn for f in blocks.fns.values() if f.targets[0] == (empty._id, "upload"))
    zone, drawn = take(given)
    assert zone.visible and not drawn.visible and drawn.value is None
    with pytest.raises(backends.BadInput) as api:
        backends.recipe.decode_inputs({"x": base64.b64encode(given.read_bytes()).decode()})
    with pytest.raises(backends.BadInput) as run:  # a task without a mask, or a press on Run before the handler has spoken
        form.job(task, ["image"], [given])
    sentences = [text.split(" ", 2)[2] for text in (str(api.value).replace("recipe's ", ""), f"The {warned[0]}", f"The {run.value}")]
    assert len(set(sentences)) == 1 and said in sentences[0]


def test_a_good_upload_goes_into_the_editor(tmp_path):
    shown = upload.taken(file_of(tmp_path, "good.png"), "Image", 32)
    assert shown.shape == (32, 32, 3)
    assert upload.taken(None, "Image", 32) is None


def test_a_large_upload_is_shrunk_with_its_mask():
    task = backends.TASKS["edit_image"]
    layer = np.zeros((3000, 2000, 4), np.uint8)
    layer[:1500, :, 3] = 255
    given, pictures = form.job(task, ["image"], [{"background": np.full((3000, 2000, 4), 200, np.uint8), "layers": [layer]}])
    image, mask = (pictures[given[name]["sha256"]] for name in ("image", "mask"))
    assert image.shape == mask.shape == (1024, 683, 3) and mask[:500].all() and not mask[530:].any()


def test_only_pieces_that_fit_are_offered():
    top = METHODS["adaptive_guidance"]
    offered = [m.slug for m in form.pieces(top, [])]
    assert "faster_diffusion" in offered and "adaptive_guidance" not in offered
    slot = METHODS["faster_diffusion"].slot
    assert all(METHODS[s.slug].slot != slot for s in form.pieces(top, ["faster_diffusion"]))


def test_text_is_escaped_wherever_it_is_shown():
    evil = "<img src=x onerror=alert(1)>"
    live = views.Live()
    live.error, live.notes = evil, [evil]
    live.aside = (
        Text(evil),
        Table((evil,), ((evil,),)),
        Plot({evil: ([0.0, 1.0], [0.0, 1.0])}, x=evil, y=evil, marks={evil: 0.5}),
        Image(np.zeros((4, 4, 3), np.uint8), evil),
    )
    entry = Kept("x", "me", {"task": "text_to_image", "job": {"prompt": evil}, "arms": [{"method": evil}]}, "failed", evil, 0.0, 0.0, 0.0, False, 0, " ")
    for html in (live.html, history._row(entry), views.thumbnail(Text(evil)), views.metrics_table([evil], [outcome(metrics=(Metric(evil, 1.0),))])):
        assert "<img src=x" not in html and "&lt;img" in html


def test_a_plot_is_crisp_and_survives_any_numbers():
    svg = views.plot(Plot({"curve": ([1, 2, 3], [0.9, 0.95, 0.99]), "threshold": ([1, 3], [0.97, 0.97])}, marks={"stops": 2.5}))
    assert svg.count("<polyline") == 2 and 'class="level"' in svg and "stops" in svg
    assert views.plot(Plot({"flat": ([1.0], [0.0])}))
    assert views.plot(Plot({"broken": ([1.0, 2.0], [float("nan"), float("inf")])})) == ""
    assert views.plot(Plot({})) == ""
    long = views.plot(Plot({"zigzag": (list(range(400)), [k % 2 for k in range(400)]), "level": ([0, 399], [0.5, 0.5])}))
    zigzag = re.search('points="(.*?)"', long)[1].split()
    assert len(zigzag) == 100 and len({p.split(",")[1] for p in zigzag}) == 1 and "means of 4" in long and 'class="s0"' in long


def test_the_metrics_table_marks_the_best_of_whole_results():
    rows = [
        outcome(0, nfe=50, metrics=(Metric("agreement", 0.4, "higher"),)),
        outcome(1, nfe=32, metrics=(Metric("agreement", 0.3, "higher"),)),
        outcome(2, nfe=1, stopped=True),
    ]
    html = views.metrics_table(["a", "b", "c"], rows)
    assert '<td class="best">32</td>' in html and '<td class="best">0.4</td>' in html and '<td class="best">1</td>' not in html
    assert "c (stopped)" in html


def test_the_difference_map():
    a, b = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    heat, said = views.difference(a, b)
    assert heat.shape == a.shape and "mean difference 0.0" in said
    assert "100 %" in views.difference(a, a + 255)[1]


def test_the_catalogue_reads_status_and_searches():
    papers = headless.papers()
    assert len(papers) == 79
    rows = catalogue.found("", "", "", "all")
    assert len(rows) == 79
    assert {p["slug"] for p, s in rows if s != "not here yet"} == {p["slug"] for p in papers} & {slug for slug, m in METHODS.items() if m.task.ready}
    assert [p["slug"] for p, _ in catalogue.found("attention segregation", "", "", "all")] == ["astar"]
    assert "No paper fits" in catalogue.html("no such words anywhere")
    proof = {
        "passed": True,
        "date": "2026-01-02",
        "stale": False,
        "statements": [{"kind": "effect", "statement": "a <b>", "value": 0.5, "op": ">=", "threshold": 0.4, "n": 9, "held": True}],
    }
    assert "1 of 1 statements hold: 0.5" in catalogue._proof(proof) and "2026-01-02" in catalogue._proof(proof) and "<b> " not in catalogue._proof(proof)
    failed = catalogue._proof(proof | {"passed": False, "statements": [*proof["statements"], proof["statements"][0] | {"value": 0.3, "held": False}]})
    assert "1 of 2 statements hold; not reproduced: 0.3" in failed
    assert "on earlier weights" in catalogue._proof(proof | {"stale": True})


def test_a_proof_on_other_weights_is_no_proof_of_these(tmp_path, monkeypatch):
    held = {"passed": True, "statements": [], "weights": {"emoji-ldm": headless.weights("emoji-ldm")}}
    (tmp_path / "proofs.json").write_text(json.dumps({"astar": held, "sage": held | {"weights": {"emoji-ldm": "0" * 12}}, "w2sd": {"passed": True}}))
    (tmp_path / "models").symlink_to(headless.ASSETS / "models")
    monkeypatch.setattr(headless, "ASSETS", tmp_path)
    proofs = headless.proofs()
    assert [catalogue.status({"slug": s}, proofs) for s in ("astar", "sage", "w2sd")] == ["proved here", "runs here", "runs here"]


@pytest.mark.parametrize("slug", sorted({p["slug"] for p in headless.papers()} & set(METHODS)))
def test_a_paper_opens_beside_its_baseline(slug):
    task, state = catalogue.opened(slug)
    assert slug in [a["method"] for a in state["arms"]]
    assert task == METHODS[slug].task.slug
    assert catalogue.opened("no_such") is None


def test_a_bundle_holds_pictures_recipe_and_figures(tmp_path, monkeypatch):
    import zipfile

    given = {
        "schema": 1,
        "task": "text_to_image",
        "model": "emoji-ldm",
        "job": {"prompt": "x", "seed": 1},
        "arms": [{"method": "ddim", "knobs": {}, "stack": []}] * 2,
    }
    seen = [outcome(i, np.full((8, 8, 3), 90 * i, np.uint8), metrics=(Metric("m", 2.0),)) for i in range(2)]
    shown = results.summary(given, {}, seen)
    names = zipfile.ZipFile(shown.bundle).namelist()
    assert {"recipe.json", "figures.csv", "unnoise-comparison.png"} < set(names) and len(names) == 5
    assert len(results.under(shown)) == results.UNDER
    assert json.loads(shown.recipe)["arms"] == given["arms"]
    assert results.summary(given, {}, seen).bundle == shown.bundle, "a run that is opened again leaves no second file"


def test_an_arm_that_is_removed_takes_its_row_picture_and_sound_with_it():
    arm = {"method": "ddim", "knobs": {}, "stack": []}
    given = {
        "schema": 1,
        "task": "text_to_image",
        "model": "emoji-ldm",
        "job": {"prompt": "x", "seed": 1},
        "arms": [arm, arm | {"method": "euler"}, arm | {"method": "w2sd"}],
    }
    far = Metric("PSNR to the first", 20.0), Metric("agreement", 0.5, "higher")
    seen = [outcome(i, np.full((8, 8, 3), 90 * i, np.uint8), seconds=3.0 - i, metrics=far[i == 0 :]) for i in range(3)]
    shown = results.summary(given, {}, seen)
    shown.arms = {name: (None, "") for name in "abc"}
    assert results.of(shown, "abc") is shown and results.of(shown, "abcd") is shown, "an arm that was added has no row"
    two = results.of(shown, "ac")
    assert two.table.count('scope="row"') == 2 and "Euler" not in two.table and 'class="arm-2"' in two.table and 'class="arm-3"' not in two.table
    assert [title[:4] for title, _ in two.pictures] == ["1 · ", "2 · "] and (two.pictures[1][1] == 180).all() and "PSNR to the first" in two.table
    last = results.of(shown, "bc")
    assert "PSNR to the first" not in last.table and "agreement" in last.table, "a figure against an arm that has gone says nothing"
    assert results.of(two, "c").table.count('scope="row"') == 1 and results.of(shown, "xy").table == "" == results.of(None, "a").table
    assert two.bundle == shown.bundle and two.recipe == shown.recipe, "the zip and the recipe are the run's"


@pytest.mark.parametrize(
    "value",
    [Image(np.full((8, 8, 3), 90, np.uint8)), Text("so it goes"), Audio(np.zeros(1600, np.float32), 16_000),
     Turntable(np.full((4, 16, 16, 3), 90, np.uint8), None), Cube(np.full((12, 9, 5), 0.4, np.float32))],
)  # fmt: skip
def test_a_bundle_has_a_sheet_of_the_arms_whatever_they_make(value, tmp_path):
    import zipfile

    given = {"schema": 1, "task": "text_to_image", "model": "emoji-ldm", "job": {"seed": 1}, "arms": [{"method": "ddim", "knobs": {}, "stack": []}] * 2}
    bundle = results.summary(given, {}, [outcome(i, value=value) for i in range(2)]).bundle
    sheet = Path(zipfile.ZipFile(bundle).extract("unnoise-comparison.png", tmp_path))
    assert PIL.Image.open(sheet).width > 2 * 80 and recipe.from_file(sheet)[0]["arms"] == given["arms"]


def test_the_live_line_follows_the_events():
    live = views.Live()
    assert "waiting" in live.html
    live.see(backends.ArmEvent(0, Step(3, 10, aside=(Text("hello"),)), 1.25, 6))
    assert "step 3/10" in live.html and "1.2 s" in live.html and "6 NFE" in live.html and "hello" in live.html
    live.see(backends.ArmEvent(0, outcome(stopped=True), 1.3, 6))
    assert "stopped at step 3 of 10" in live.html
    live.see(backends.ArmEvent(0, outcome(value=Text("a <result>")), 1.3, 6))
    assert '<div class="main"><p class="text">a &lt;result&gt;</p></div>' in live.html, "a result of another kind is shown as well"


def test_the_address_is_the_machines_own_by_default():
    import inspect

    assert inspect.signature(page.launch).parameters["host"].default == "127.0.0.1"
