"""The named endpoints through gradio_client: what they give, and a sentence for everything that can be wrong."""

import base64
import copy
import io
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from gradio_client import Client, handle_file
from test_jobs import asked, until

from backends import jobs, recipe

RECIPE = {"schema": 1, "task": "text_to_image", "job": {"prompt": "a cat", "seed": 3}, "arms": [{"method": "ddim", "knobs": {"steps": 2}}]}


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def changed(**parts):
    return copy.deepcopy(RECIPE) | parts


def refused(client, given, inputs=None) -> str:
    with pytest.raises(Exception) as error:
        client.predict(given, inputs or {}, api_name="/run")
    said = str(error.value)
    assert "Traceback" not in said and 10 < len(said) < 400, said
    return said


def encoded(image: PIL.Image.Image, kind="PNG", cut=None, **options) -> dict:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return {"x": base64.b64encode(out.getvalue()[:cut]).decode()}


def test_methods_and_a_run_and_its_files(client):
    methods = client.predict(api_name="/methods")
    assert {"ddim", "adaptive_guidance"} <= {m["slug"] for m in methods}
    result, files = client.predict(changed(arms=[*RECIPE["arms"], {"method": "euler", "knobs": {"steps": 2}}]), {}, api_name="/run")
    assert result["complete"] and len(result["outcome"]["arms"]) == len(files) == 2
    pixels = np.asarray(PIL.Image.open(files[0]))
    assert recipe.digest(pixels) == result["outcome"]["arms"][0]["files"][0]["sha256"]
    assert client.predict(RECIPE, {}, api_name="/run")[0]["outcome"]["arms"][0]["files"] == result["outcome"]["arms"][0]["files"], "same seed, same bits"


def test_a_grid_gives_its_sheet_and_its_cells_in_their_order(client):
    given = changed(
        arms=[{"method": "ddim", "knobs": {"steps": 1}}], grid={"x": {"axis": "seed", "values": "1-5"}, "y": {"axis": "knob:scale", "values": [1, 2]}}
    )
    result, files = client.predict(given, {}, api_name="/run")
    assert result["complete"] and [Path(f).name for f in files] == ["grid.png", *(f"{i}-ddim.png" for i in range(1, 11))]
    assert recipe.from_file(Path(files[0]))[0]["grid"] == result["grid"] and result["grid"]["x"]["values"] == [1, 2, 3, 4, 5]
    assert recipe.from_file(Path(files[7]))[0]["job"]["seed"] == 2, "a cell's file holds the cell's own recipe"
    assert "at most 36 cells" in refused(client, given | {"grid": {"x": {"axis": "seed", "values": "1-37"}}})


def test_an_object_comes_as_glb_and_turning(client):
    arm = {"method": "sds_edit", "knobs": {"iterations": 1, "captures": 10, "grid": 16, "size": 16, "views": 1}}
    edit = {"task": "edit_object", "job": {"shape": "crate", "source": "a crate", "prompt": "a red crate"}, "arms": [arm]}
    result, files = client.predict(edit, {}, api_name="/run")
    assert result["complete"] and sorted(f.rpartition(".")[2] for f in files) == ["glb", "webp"]
    found, _ = recipe.from_file(Path(next(f for f in files if f.endswith("glb"))))
    assert found["job"]["shape"] == "crate"


def test_compare_streams_each_event(client):
    job = client.submit(changed(arms=[{"method": "ddim", "knobs": {"steps": 4}}]), {}, api_name="/compare")
    job.result()
    kinds = [event["event"] for event, _ in job.outputs()]
    assert kinds[-1] == "end" and "step" in kinds and "outcome" in kinds


def test_calls_wait_in_the_pages_queue_and_closing_one_ends_it_alone(client, slow):
    source, queue = slow
    mine, yours = (queue.submit(asked(name, 2), {}, name) for name in ("mine", "yours"))
    until(lambda: source.ran == ["mine"])
    call = client.submit(asked("call", 50), {}, api_name="/compare")
    until(lambda: call.outputs())
    assert call.outputs()[0][0] == {"event": "queued", "place": 2, "seconds": None}
    source.let(5)
    until(lambda: any(event["event"] == "step" for event, _ in call.outputs()))
    assert source.ran == ["mine", "yours", "call"] and mine.state == yours.state == "done"
    (run,) = queue._running
    call.cancel()
    until(lambda: run.stopped())
    source.let(2)
    until(lambda: run.over)
    assert run.state == "stopped" and queue.store.used() and queue.find(run.id, run.owner) is None, "a call is in nobody's list"
    source.open = True
    assert client.predict(asked("next", 1), {}, api_name="/run")[0]["complete"]


def test_calls_without_a_cookie_take_the_turns_of_one_visitor(client, slow, monkeypatch):
    monkeypatch.setattr(jobs, "OWN", 3)
    source, queue = slow
    asking = f"{client.src.rstrip('/')}/gradio_api/call/run"

    def submitted(name: str, **headers) -> str:
        return httpx.post(asking, json={"data": [asked(name, 1), {}]}, headers=headers).json()["event_id"]

    first = submitted("first")
    until(lambda: source.ran == ["first"])
    for count in (1, 2, 3):
        submitted(f"behind {count}")
        until(lambda count=count: len(queue._order()) == count)
    assert "3 of your runs wait already" in httpx.get(f"{asking}/{submitted('one too many')}").text
    submitted("a visitor's", cookie=f"unnoise={'cd' * 16}")
    until(lambda: len(queue._order()) == 4)
    source.let(5)
    assert "event: complete" in httpx.get(f"{asking}/{first}", timeout=60).text
    until(lambda: len(source.ran) == 5 and not queue._running)
    assert source.ran == ["first", "a visitor's", "behind 1", "behind 2", "behind 3"] and queue.store.used() == 0


@pytest.mark.parametrize("endpoint", ["run", "compare"])
def test_a_call_whose_reader_has_gone_ends(client, slow, endpoint):
    source, queue = slow
    asking = f"{client.src.rstrip('/')}/gradio_api/call/{endpoint}"
    before = httpx.post(asking, json={"data": [asked("before", 50), {}]}).json()["event_id"]
    until(lambda: source.ran == ["before"])
    waits = httpx.post(asking, json={"data": [asked("waits", 1), {}]}).json()["event_id"]
    until(lambda: queue._order())
    (running,), (waiting,) = queue._running, queue._order()
    for event, run in ((waits, waiting), (before, running)):
        with pytest.raises(httpx.ReadTimeout), httpx.stream("GET", f"{asking}/{event}", timeout=1) as answer:
            answer.read()
        until(lambda run=run: run.over or run.stopped(), 30)
    source.let(1)
    until(lambda: running.over)
    assert (waiting.state, running.state) == ("stopped", "stopped") and source.ran == ["before"]


@pytest.mark.parametrize(
    "given, said",
    [
        (changed(arms=[{"method": "ddim", "knobs": {"steps": 1000}}]), "from 1 to 100"),
        (changed(arms=[{"method": "ddim", "knobs": {"steps": -1}}]), "from 1 to 100"),
        (changed(arms=[{"method": "ddim", "knobs": {"scale": "much"}}]), "number from"),
        (changed(arms=[{"method": "ddim", "knobs": {"spteps": 1}}]), "no knob"),
        (changed(arms=[{"method": "nothing"}]), "no method is called nothing"),
        (changed(arms=[]), "list of arms"),
        (changed(arms=[{"method": "ddim"}] * 7), "At most 6"),
        (changed(arms=[{"method": "ddim", "stack": [{"method": "euler"}]}]), "slot"),
        (changed(job={"prompt": ""}), "empty"),
        (changed(job={"prompt": "  \u0000 "}), "empty"),
        (changed(job={"prompt": "a" * 100_000}), "100,000 characters"),
        (changed(job={"prompt": "a", "seed": -1}), "whole number"),
        (changed(job={"prompt": "a", "file": "x"}), "does not take"),
        (changed(model="gpt-17"), "No model is called"),
        (changed(model="../../etc/passwd"), "path"),
        (changed(task="/etc/passwd"), "path"),
        (changed(task="nothing"), "No task"),
        (changed(schema=2), "newer version"),
        (changed(schema="x"), "whole number"),
        ([1, 2], "JSON object"),
        (None, "JSON object"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_recipes_are_refused_with_a_sentence(client, given, said):
    assert said in refused(client, given)


def test_bad_pictures_are_refused_with_a_sentence(client):
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    assert "can't be read" in refused(client, RECIPE, encoded(noise, cut=2000))
    assert "animation" in refused(client, RECIPE, encoded(noise, "GIF", save_all=True, append_images=[PIL.Image.new("RGB", (64, 64))]))
    assert "4096×4096" in refused(client, RECIPE, encoded(PIL.Image.new("1", (20_000, 20_000))))
    assert "base64" in refused(client, RECIPE, {"x": "not base64!"})
    assert "base64" in refused(client, RECIPE, {"x": 7})


def test_an_image_task_refuses_what_is_missing(client):
    edit = {"schema": 1, "task": "edit_image", "job": {"prompt": "a cat"}, "arms": [{"method": "steered"}]}
    assert "missing" in refused(client, edit)
    assert "did not come with it" in refused(client, edit | {"job": {"image": {"sha256": "0" * 64}}})
    assert "not by a path" in refused(client, edit | {"job": {"image": "/etc/passwd"}})
    black = np.zeros((128, 128, 3), np.uint8)
    named = {"sha256": recipe.digest(black)}
    said = refused_or_outcome(client, edit | {"job": {"image": named, "mask": named, "prompt": "a cat"}}, recipe.encode_inputs({"x": black}))
    assert "mask" in said.lower() or "paint" in said.lower(), said


def refused_or_outcome(client, given, inputs) -> str:
    """A mistake that only the method can see is told in its arm's outcome."""
    try:
        result, _ = client.predict(given, inputs, api_name="/run")
    except Exception as error:
        return str(error)
    return result["outcome"]["arms"][0]["error"]


def test_no_other_file_is_served_and_the_server_lives_on(client):
    for path in ("/etc/passwd", "app.py", "assets/papers.json"):
        assert httpx.get(f"{client.src.rstrip('/')}/gradio_api/file={path}").status_code in (403, 404)
    assert client.predict(RECIPE, {}, api_name="/run")[0]["complete"]


def test_a_voicebank_is_brought_and_named_by_a_recipe(client, tmp_path):
    from tests.tiny_bank import tiny

    made = client.predict("sing", [handle_file(tiny(tmp_path))], api_name="/bring")
    assert made["said"].startswith("Tiny can sing")
    given = {"task": "sing", "model": made["model"], "job": {"score": "さ:A4:1"}, "arms": [{"method": "diffsinger"}]}
    result, files = client.predict(given, {}, api_name="/run")
    assert result["complete"] and any(f.endswith(".flac") for f in files)
    assert "visitor brought and is not here" in refused(client, given | {"model": "voicebank-0123456789ab"})
    (tmp_path / "text.zip").write_bytes(b"hello")
    with pytest.raises(Exception, match="text is no whole zip file"):
        client.predict("sing", [handle_file(tmp_path / "text.zip")], api_name="/bring")
    with pytest.raises(Exception, match="takes no models of visitors"):
        client.predict("write_text", [handle_file(tmp_path / "text.zip")], api_name="/bring")


def test_the_visitors_own_votes_are_given_with_their_scores(client):
    from types import SimpleNamespace

    from backends import votes
    from ui import visitor

    assert client.predict("text_to_image", api_name="/votes") == {"task": "text_to_image", "scores": [], "votes": []}
    with pytest.raises(Exception, match="No task is called x"):
        client.predict("x", api_name="/votes")
    token, store = "ab" * 16, jobs.studio().store
    owner = visitor.owner(SimpleNamespace(cookies={"unnoise": token}, headers={}, session_hash="any"))
    given = RECIPE | {"model": "emoji-ldm", "arms": [{"method": m, "knobs": {}} for m in ("ddim", "euler")]}
    store.ask(votes.ballot("a blind run", owner, given, [1, 0]))
    assert store.vote("a blind run", owner, 1, [0, 1])
    told = Client(client.src, verbose=False, headers={"cookie": f"unnoise={token}"}).predict("text_to_image", api_name="/votes")
    assert [row["player"] for row in told["scores"]] == ["euler", "ddim"] and told["votes"][0]["best"] == 1
    assert client.predict("text_to_image", api_name="/votes")["votes"] == []
