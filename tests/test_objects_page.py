"""Objects from the form to the files: how one is given, what a run leaves on its tab, in its zip and in a folder."""

import base64
import io
import json
import zipfile
from pathlib import Path
from urllib.parse import unquote

import gradio as gr
import numpy as np
import PIL.Image
import pytest
import trimesh

import backends
from backends import TASKS, headless, inputs, recipe
from backends.scene.turning import FRAMES
from backends.spec import ArmEvent, BadInput, Image, Outcome, Step, Turntable
from backends.worlds import objects
from ui import compare, form, results, shape, turntable, views

TASK = TASKS["edit_object"]
WORDS = {"source": "a ball", "prompt": "a red ball", "seed": 1}
ARM = {"method": "sds_edit", "knobs": {"iterations": 1, "captures": 10, "grid": 16, "size": 16, "views": 1}, "stack": []}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "ball.glb"
    path.write_bytes(trimesh.Scene(trimesh.creation.icosphere(1)).export(file_type="glb"))
    return path


def asked(value, arms=1) -> tuple[dict, dict]:
    job, meshes = form.job(TASK, ["shape", *WORDS], [value, *WORDS.values()])
    return {"schema": 1, "task": TASK.slug, "model": TASK.model, "job": job, "arms": [ARM] * arms}, meshes


@pytest.fixture(scope="module")
def ran(mine):
    """Two arms of an edit of a file of one's own: what is asked, its meshes, the rows that the page was given."""
    from backends import models
    from tests.boards import rows
    from tests.conftest import tiny_denoiser

    models.clear()
    models._cache["objects-ldm"] = tiny_denoiser(models.get("objects-ldm"))
    given, meshes = asked(inputs.mesh(mine), arms=2)
    yield given, meshes, rows(given, meshes, ["a", "b"])
    models.clear()


def test_an_object_of_the_studio_is_a_name_in_the_recipe_and_a_file_travels(mine):
    assert asked("cactus") == ({"schema": 1, "task": TASK.slug, "model": TASK.model, "job": {"shape": "cactus"} | WORDS, "arms": [ARM]}, {})
    given, meshes = asked(inputs.mesh(mine))
    assert list(meshes) == [given["job"]["shape"]["sha256"]]
    with pytest.raises(BadInput, match="Shape is missing; add an object"):
        recipe.parse(asked(None)[0])


@pytest.mark.parametrize("named", [True, False])
def test_what_was_given_stands_there_when_the_tab_is_drawn_anew(mine, named):
    given, meshes = asked("cactus" if named else inputs.mesh(mine))
    with gr.Blocks():
        held = form.panel(TASK, given["job"], meshes)["shape"].value
    if named:
        assert held == "cactus" and "cactus · 5,025 triangles" in shape.view(held)
    else:
        assert recipe.digest(held) == given["job"]["shape"]["sha256"] and "your own · 80 triangles" in shape.view(held)


def test_a_file_is_refused_on_the_page_in_the_words_of_the_api(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: warned.append(text))
    (tmp_path / "cut.glb").write_bytes(b"glTF\2\0\0\0")
    shape.taken(tmp_path / "cut.glb", "Shape")
    with pytest.raises(BadInput) as refused:
        inputs.mesh(tmp_path / "cut.glb", "Shape")
    assert warned == [str(refused.value)] and "cut off" in warned[0]


@pytest.mark.parametrize(("words", "told"), [("mtllib box.mtl\nusemtl red\n", True), ("", False)])
def test_the_page_says_that_materials_of_an_obj_are_left_out(tmp_path, monkeypatch, words, told):
    said = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: said.append(text))
    (tmp_path / "box.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\n{words}f 1 2 3\n")
    mesh, seen, _ = shape.taken(tmp_path / "box.obj", "Shape")
    assert len(mesh.faces) == 1 and "your own" in seen and len(said) == told and all("materials" in text and "GLB" in text for text in said)


def test_every_object_has_its_picture_and_its_cell(tmp_path):
    sheet = PIL.Image.open(shape.SHEET)
    alpha = np.asarray(sheet)[..., 3]
    assert shape.gallery().count("data-object=") == len(objects.OBJECTS)
    for i, name in enumerate(objects.OBJECTS):
        y, x = i // shape.COLUMNS * shape.CELL, i % shape.COLUMNS * shape.CELL
        assert (alpha[y : y + shape.CELL, x : x + shape.CELL] > 64).mean() > 0.02, name
    drawn, cell = np.asarray(shape.seen(objects.plain("teapot"), shape.CELL)), np.asarray(PIL.Image.open(shape.icon("teapot")))
    assert np.abs(drawn[..., 3].astype(int) - cell[..., 3]).mean() < 8, "the sheet is of these objects, in this order"


def test_an_example_is_told_by_its_prompt_and_its_object():
    names = [form.example_name(TASK, e) for e in TASK.examples]
    assert names[0].startswith("a cactus wearing a party hat") and form.example_picture(TASK, TASK.examples[0]).endswith("cactus.png")


def test_the_tab_shows_each_view_then_turntables_with_their_files(ran):
    given, meshes, rows = ran
    lives = [html for row in rows for html in row[-2:] if isinstance(html, str)]
    made = [html for html in lives if "step " in html]
    assert made and all('alt="the object so far"' in html and "data-frames" not in html for html in made if 'class="main"' in html)
    done = rows[-1][-2:]
    assert all(f'data-frames="{FRAMES}"' in html and '<input type="range"' in html for html in done)
    assert all(f"unnoise-{k}-sds_edit-1.{kind}" in html for k, html in enumerate(done, 1) for kind in ("glb", "webp"))


def test_a_result_dropped_on_the_page_fills_the_tab_with_its_object(ran, mine):
    given, meshes, rows = ran
    glb, film = (Path(unquote(part.split('"')[0])) for part in rows[-1][-2].split('href="gradio_api/file=')[1:])
    for path in (glb, film):
        found, came = recipe.from_file(path)
        task, job, arms = recipe.parse(found, came)
        assert task is TASK and arms[0].method == "sds_edit" and recipe.digest(job.shape) == recipe.digest(inputs.mesh(mine))
    state = compare.state_of(found, came)
    assert form._shape(state["job"]["shape"], state["pictures"]) is came[state["job"]["shape"]["sha256"]]
    inputs.mesh(glb)  # and its surface can be given again


def test_the_zip_holds_objects_and_their_turning(ran):
    shown = ran[2][-1][1]
    with zipfile.ZipFile(shown.bundle) as archive:
        names = archive.namelist()
        assert {f"unnoise-{k}-sds_edit-1.{kind}" for k in (1, 2) for kind in ("glb", "webp")} < set(names)
        turning = PIL.Image.open(io.BytesIO(archive.read("unnoise-1-sds_edit-1.webp")))
        whole = json.loads(archive.read("recipe.json"))
    assert turning.n_frames > 1 and turning.info.get("loop") == 0
    assert list(recipe.decode_inputs(whole["inputs"])) == list(ran[1])


def test_the_viewer_under_the_arms_is_given_places_not_paths(ran):
    shown = ran[2][-1][1]
    assert results.named(shown.solids) == [(f"{k} · SDS from the captured object, surface", k - 1) for k in (1, 2)]
    assert all(path.endswith(".glb") for _, path in shown.solids) and len(results.under(shown)) == results.UNDER


def test_results_are_written_with_their_recipe(ran, tmp_path):
    given, meshes, _ = ran
    *_, end = headless.run(given | {"arms": [ARM]}, meshes, tmp_path)
    files = {f["name"]: f["sha256"] for f in end["recipe"]["outcome"]["arms"][0]["files"]}
    assert set(files) == {"1-sds_edit.glb", "1-sds_edit.webp"} and end["complete"]
    assert len(list(tmp_path.glob("input-*.npz"))) == 1
    for name in ("recipe.json", "1-sds_edit.glb", "1-sds_edit.webp"):
        _, job, _ = recipe.parse(*recipe.from_file(tmp_path / name))
        assert recipe.digest(job.shape) in meshes


def outcome(value) -> Outcome:
    return Outcome(0, 1.0, 1, 1.0, (), value, {"task": "edit_object", "job": {"seed": 1}, "arms": [ARM], "outcome": {}})


def test_an_object_without_a_surface_is_its_sides_in_a_row(tmp_path):
    fog = Turntable(np.full((4, 8, 8, 3), 200, np.uint8), None, "<b>fog</b>")
    assert [ending for ending, *_ in headless.files_of(outcome(fog), {})] == [".png", ".webp"]
    html = views.media(fog, *results.taken(outcome(fog), {}))
    assert "no surface yet" in html and ">PNG</a>" in html and "<b>" not in html


@pytest.mark.parametrize("frames", [1, 5, 16, 100])
def test_any_number_of_frames_makes_one_small_picture(frames):
    rng = np.random.default_rng(0)
    html = turntable.html(Turntable(rng.integers(0, 255, (frames, 400, 400, 3), np.uint8) // 64 * 8, None))
    sheet = PIL.Image.open(io.BytesIO(base64.b64decode(html.split("base64,")[1].split(")")[0])))
    columns, rows = (int(html.split(f'data-{part}="')[1].split('"')[0]) for part in ("columns", "rows"))
    assert columns * rows >= frames and sheet.size == (columns * turntable.SIDE, rows * turntable.SIDE)


def test_a_view_is_shown_under_an_arm_only_where_no_picture_stands_above():
    step = ArmEvent(0, Step(1, 2, Image(np.zeros((8, 8, 3), np.uint8))), 0.1, 1)
    assert views.Live().see(step).main is None and "turntable" in views.Live(pictures=False).see(step).html


def test_a_recipe_of_the_studio_carries_no_copy_of_its_object(tmp_path):
    task, job, arms = recipe.parse(asked("cactus")[0])
    data = recipe.glb(objects.plain("crate"), recipe.build(task, job, arms), recipe.inputs_of(job))
    (tmp_path / "made.glb").write_bytes(data)
    found, came = recipe.from_file(tmp_path / "made.glb")
    assert came == {} and backends.recipe.parse(found)[1].shape is objects.plain("cactus")
