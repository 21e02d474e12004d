"""My runs and the tabs that come back to a run, without a browser: what each visitor is shown, and nobody else."""

import asyncio
import re
import threading
import typing
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from test_jobs import Source, asked, ended, until
from test_store import MEDIA

from backends import jobs, spec, store
from backends.registry import TASKS
from backends.spec import BadInput
from backends.store import Store
from ui import compare, history, page, running, views, visitor

TASK = TASKS["text_to_image"]


def asks(name: str, session="", run="", **headers) -> SimpleNamespace:
    """A request of the visitor of that name."""
    token = f"{sum(name.encode()):032x}"
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return SimpleNamespace(session_hash=session or name, cookies={"unnoise": token}, query_params={"run": run} if run else {}, headers=named)


ME, YOU = asks("me"), asks("you")


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def studio(tmp_path, monkeypatch, source):
    made = jobs.Executor(Store(tmp_path), source)
    monkeypatch.setattr(jobs, "_studio", [made])
    yield made
    source.open = True
    source.let(1000)
    made.close()
    running._tickets.clear()


@pytest.fixture
def warned(monkeypatch):
    said = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: said.append(text))
    return said


def submit(studio, name="a cat", request=ME, **more):
    return studio.submit(asked(name, **more), {}, visitor.owner(request))


def rows_of(handler, request, *values) -> list:
    """All rows of a handler that streams."""

    async def all_():
        return [row async for row in handler(request, *values)]

    return asyncio.run(all_())


def columns(run) -> list:
    return [SimpleNamespace(id=f"{run.id}-{i}") for i in range(len(run.given["arms"]))]


# --- who asks ---


def served(**more) -> TestClient:
    app = Starlette(
        routes=[Route("/", lambda _: PlainTextResponse("page")), Route("/x", lambda _: PlainTextResponse("x"))], middleware=[Middleware(visitor.Cookie)]
    )
    return TestClient(app, headers={"accept": "text/html"}, **more)


def test_a_page_brings_a_cookie_that_scripts_can_not_read_and_keeps_it():
    client = served()
    said = client.get("/").headers["set-cookie"]
    token = re.fullmatch(r"unnoise=([0-9a-f]{32}); Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax", said)[1]
    assert token in client.get("/").headers["set-cookie"], "the same for another year"
    assert "set-cookie" not in client.get("/x", headers={"accept": "application/json"}).headers
    client.cookies.clear()
    assert token not in client.get("/", headers={"cookie": "unnoise=../../x"}).headers["set-cookie"], "what is no token is not taken"


def test_over_tls_it_may_stand_in_the_frame_of_a_space():
    for client, headers in ((served(base_url="https://studio"), {}), (served(), {"x-forwarded-proto": "https, http"})):
        said = client.get("/", headers=headers).headers["set-cookie"]
        assert said.startswith("__Host-unnoise=") and said.endswith("HttpOnly; SameSite=None; Secure; Partitioned")


def test_an_owner_is_no_token_and_without_a_cookie_the_session():
    assert visitor.owner(ME) != visitor.owner(YOU) and len(visitor.owner(ME)) == 32 and ME.cookies["unnoise"] not in visitor.owner(ME)
    assert visitor.owner(asks("me", "another window")) == visitor.owner(ME)
    bare = [SimpleNamespace(session_hash=s, cookies={"unnoise": "x"}, headers={}) for s in "ab"]
    assert visitor.owner(bare[0]) != visitor.owner(bare[1]) and all(visitor.owner(b).startswith(store.SESSION) for b in bare)


def test_without_a_cookie_all_sessions_of_an_address_wait_in_one_line():
    a, b, other = (
        SimpleNamespace(session_hash=s, cookies={}, headers={}, client=SimpleNamespace(host=h)) for s, h in (("a", "::1"), ("b", "::1"), ("c", "::2"))
    )
    assert visitor.line(a) == visitor.line(b) == visitor.at(a.client) != visitor.line(other)
    assert visitor.line(ME) == visitor.owner(ME) and visitor.line(SimpleNamespace(**vars(a) | {"client": None}))


def test_a_script_of_another_site_is_not_the_visitor():
    own = visitor.owner(ME)
    for headers in (
        {"sec_fetch_site": "same-origin", "origin": "https://a", "host": "b"},
        {"origin": "http://a:1", "host": "a:1"},
        {"origin": "https://a", "host": "b", "x_forwarded_host": "a"},
    ):
        assert visitor.owner(asks("me", **headers)) == own
    for headers in (
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil", "host": "a"},
        {"origin": "null", "host": "a"},
    ):
        assert visitor.owner(asks("me", **headers)) != own


# --- a tab and its run ---


def test_a_press_on_run_shows_the_queue_then_each_step_then_what_is_left(studio, source):
    submit(studio, "before", YOU, steps=1)
    column = SimpleNamespace(id="a", sources=[0], filled=lambda values: {"method": "ddim", "knobs": {"steps": values[0]}, "stack": []})
    go, rows = running.runner(TASK, ("prompt", "negative", "seed", "model"), [column]), []

    async def watch():
        async for row in go(ME, "a cat", "", 3, "emoji-ldm", 2):
            rows.append(row)

    thread = threading.Thread(target=asyncio.run, args=(watch(),))
    thread.start()
    until(lambda: any("next in the queue" in str(row[0]) for row in rows))
    source.let(9)
    thread.join(10)
    run = studio.store.ended(visitor.owner(ME))[0][0]
    assert f'data-run="{run.id}"' in rows[-1][0] and "done" in rows[-1][-1] and rows[-1][1].table
    assert not running._tickets


def test_a_page_that_is_loaded_again_goes_on_watching(studio, source):
    run = submit(studio, steps=4)
    source.let(2)
    until(lambda: run.progress.i == 2)
    state = compare.opened(TASK)(None, asks("me", "loaded again"))
    assert state["run"] == run.id and [a["method"] for a in state["arms"]] == ["ddim"] and state["job"]["prompt"] == "a cat"
    assert compare.opened(TASK)(None, asks("me", "once more")) == state, "the same, so that a tab is drawn once"
    assert compare.opened(TASKS["edit_image"])(None, ME).get("run") is None and compare.opened(TASK)({"own": 1}, ME) == {"own": 1}
    threading.Timer(0.3, source.let, (9,)).start()
    rows = rows_of(running.watcher(TASK, run.id, columns(run)), asks("me", "loaded again"))
    lines = [row[-1] for row in rows if isinstance(row[-1], str)]
    assert any("step 2/4" in line for line in lines) and "done · 4 steps" in lines[-1]
    assert compare.opened(TASK)(None, YOU).get("run") is None, "another visitor begins as ever"


def test_the_address_names_the_run_and_opens_it_with_its_results(studio, source):
    run, newer = submit(studio, steps=1), submit(studio, "newer", steps=1)
    source.let(2)
    ended(newer)
    assert compare.restored(ME) is None and compare.restored(asks("me", run=run.id)).id == run.id
    rows = rows_of(running.watcher(TASK, run.id, columns(run)), asks("me", run=run.id))
    assert "Kept, from" in rows[-1][0] and "The Answer" in rows[-1][-1] and rows[-1][1].recipe


def test_a_link_shows_nothing_to_others_until_it_is_shared_and_then_changes_nothing(studio, source):
    run = submit(studio, steps=2)
    other = asks("you", run=run.id)
    assert compare.restored(other) is None
    (row,) = rows_of(running.watcher(TASK, run.id, columns(run)), other)
    assert running.GONE in row[0] and "The Answer" not in str(row)
    studio.share(run.id, visitor.owner(ME), True)
    assert compare.restored(other).given["job"]["prompt"] == "a cat"
    source.let(1)
    until(lambda: run.progress.i)
    thread = threading.Thread(target=rows_of, args=(running.watcher(TASK, run.id, columns(run)), other))
    thread.start()
    until(lambda: running._tickets)
    running.stopper(TASK)(other), running.pauser(TASK, True)(other)
    assert not run.stopped() and not run.held()
    source.let(1)
    ended(run)
    thread.join(5)
    rows = rows_of(running.watcher(TASK, run.id, columns(run)), other)
    assert "Shared with you" in rows[-1][0] and "The Answer" in rows[-1][-1]


def test_stop_and_pause_find_the_tabs_own_run_alone(studio, source):
    run, task = submit(studio, steps=9), TASK.slug
    source.let(1)
    until(lambda: run.progress.i)
    running.take(ME, task, running.Ticket(run))
    running.stopper(TASK)(YOU), running.pauser(TASK, True)(YOU), running.pauser(TASKS["edit_image"], True)(ME)
    assert not run.stopped() and not run.held()
    running.pauser(TASK, True)(ME)
    assert run.held() and "pausing" in running.line(studio, run, running.Board(run.given, {}, ["a"]))
    running.pauser(TASK, False)(ME)
    assert not run.held()
    running.stopper(TASK)(ME)
    assert run.stopped()


def test_what_is_stopped_while_it_is_on_its_way_does_not_begin(studio, source):
    submit(studio, "before")
    running.waiter(TASK)(ME)
    running.stopper(TASK)(ME)
    column = SimpleNamespace(id="a", sources=[], filled=lambda _: {"method": "ddim", "knobs": {}, "stack": []})
    rows = rows_of(running.runner(TASK, ("prompt", "model"), [column]), ME, "a cat", "emoji-ldm")
    assert "not started" in rows[-1][-1] and source.ran in ([], ["before"])
    assert studio.store.ended(visitor.owner(ME))[0][0].state == "stopped"


def test_the_panel_says_that_it_is_paused_and_when_it_is_not_any_more():
    board = running.Board(asked() | {"model": TASK.model}, {}, ["a"])
    studio = SimpleNamespace(estimate=lambda _: 70.0, place=lambda _: 0)
    run = SimpleNamespace(id="x", state="running", held=lambda: False, stopped=lambda: False)
    said = []
    for event in (spec.Step(1, 3), spec.Held(200.0), spec.Held(30.0), spec.Held(0), spec.Step(2, 3)):
        board.see([spec.ArmEvent(0, event)])
        said.append(re.sub("<.*?>", "", running.line(studio, run, board)))
    assert said[0] == "running … about 70 s left" and "goes on in 4 min" in said[1] and "goes on in 30 s" in said[2]
    assert said[3] == said[4] and said[3].startswith("Paused long enough"), "the Pause button stays off"
    assert "paused at step 1 of 3" in board.see([spec.ArmEvent(0, spec.Step(1, 3)), spec.ArmEvent(0, spec.Held(9.0))])[-1]
    run.stopped = lambda: True
    assert "stopping after this step" in running.line(studio, run, board), "also where a step takes longer than what the press itself said stays"


@pytest.mark.parametrize("who", [ME, YOU])
def test_a_run_of_which_nothing_is_new_says_now_and_then_that_it_is_there(studio, source, monkeypatch, who):
    monkeypatch.setattr(running, "BEAT", 0.2)
    run = submit(studio, steps=2)
    source.let(1)
    until(lambda: run.progress.i)
    studio.share(run.id, visitor.owner(ME), True)
    threading.Timer(1.0, source.let, (2,)).start()
    beats = [html for html, *_ in rows_of(running.watcher(TASK, run.id, columns(run)), who) if "data-beat" in str(html)]
    assert len(set(beats)) >= 1 and all(html.startswith('<p data-beat="') and 'class="running"' in html for html in beats)


def test_a_run_that_can_not_begin_says_why_and_leaves_no_arm_loading(studio, source):
    run = ended(submit(studio, "refuse", arms=2))
    *_, last = rows_of(running.watcher(TASK, run.id, columns(run)), ME)
    assert "can&#x27;t be reached" in last[0]
    assert all("not started" in html and "loading" not in html for html in last[-2:])


def test_a_run_of_another_version_is_refused_with_a_sentence(studio, source):
    run = submit(studio, steps=1)
    run.given["arms"][0]["method"] = "no_such"
    with pytest.raises(BadInput, match="another version"):
        compare.state_of_run(run)
    assert compare.opened(TASK)(None, ME).get("run") is None
    assert "no_such" in history.now(visitor.owner(ME))
    run.given["arms"][0]["method"] = "ddim"


# --- the list ---


@pytest.fixture
def handlers():
    """The page's own handlers of “My runs”, and what opens a run."""
    with gr.Blocks() as blocks:
        parts = history.tab()
        history.wire(parts, lambda run, request: [run.id], [gr.State()])
    found = {name: next(f.fn for f in blocks.fns.values() if f.fn and f.fn.__name__ == name) for name in ("drawn", "refreshed", "pressed")}
    return SimpleNamespace(**found)


def press(handlers, act, run="", request=ME, query="", seen=("", 40)):
    return handlers.pressed(query, seen, SimpleNamespace(act=act, run=run), request)


def test_what_runs_stands_on_top_with_its_place_and_what_ended_under_it(studio, source, handlers):
    first, second = submit(studio, "first <b>", steps=4), submit(studio, "second", steps=1)
    source.let(2)
    until(lambda: first.progress.i == 2)
    active, past, seen = handlers.drawn("", ("", 40), ME)
    assert "step 2 of 4" in active and "next in the queue" in active and "first &lt;b&gt;" in active and "Nothing of yours" in past
    assert handlers.drawn("", ("", 40), YOU)[0] == ""
    press(handlers, "stop", second.id)
    assert second.state == "stopped" and "stopped" in handlers.drawn("", seen, ME)[1]
    active, past, again = handlers.refreshed("", ("", 40), ME)
    assert "second" in past and again[0] == second.id
    assert isinstance(handlers.refreshed("", again, ME)[1], dict), "what did not change is not sent again"
    source.let(2)
    ended(first)
    active, past, _ = handlers.drawn("", ("", 40), ME)
    assert active == "" and past.index("first &lt;b&gt;") > past.index("second") and "The Answer" in past and "MB" in past
    assert "first &lt;b&gt;" in handlers.drawn("answer FIRST", ("", 40), ME)[1] and "No run of yours fits" in handlers.drawn("nothing such", ("", 40), ME)[1]


def test_buttons_open_run_again_share_and_delete_ones_own_alone(studio, source, handlers, warned):
    run = submit(studio, steps=1)
    source.let(1)
    ended(run)
    for act in ("open", "again", "share", "delete", "stop"):
        press(handlers, act, run.id, YOU)
    assert len(warned) == 5 and set(warned) == {"That run is no longer kept."} and studio.find(run.id, visitor.owner(ME)) and source.ran == ["a cat"]
    assert press(handlers, "open", run.id)[0] == run.id
    assert "Stop sharing" in press(handlers, "share", run.id)[2] and studio.find(run.id, "anyone", shared=True)
    assert press(handlers, "open", run.id, YOU) and len(warned) == 6, "a shared run is opened by its link, not listed"
    assert "Share link" in press(handlers, "keep", run.id)[2] and not studio.find(run.id, "anyone", shared=True)
    again = press(handlers, "again", run.id)[0]
    assert again != run.id and studio.active(visitor.owner(ME))[0].id == again
    assert run.id not in press(handlers, "delete", run.id)[2] and studio.find(run.id, visitor.owner(ME)) is None


def test_long_lists_come_in_parts(studio, source, handlers):
    source.open = True
    for i in range(5):
        ended(submit(studio, f"run {i}", steps=1))
    _, past, seen = handlers.drawn("", ("", 3), ME)
    assert past.count("<article") == 3 and "2 more" in past
    shown = press(handlers, "more", seen=seen)
    assert shown[2].count("<article") == 5 and shown[3][1] == 43


@pytest.mark.parametrize("kind", typing.get_args(spec.Media), ids=lambda k: k.__name__)
def test_every_medium_has_its_thumbnail(kind):
    html = views.thumbnail(MEDIA[kind])
    assert len(html) < 8000 and ("<img" in html or "<svg" in html or 'class="words"' in html)
    assert "<b>" not in html


def test_a_medium_that_nobody_thought_of_shows_its_picture_or_its_words():
    import dataclasses

    film = dataclasses.make_dataclass("Film", ["rate", "frames"])(24, np.zeros((3, 8, 8, 3), np.uint8))
    motion = dataclasses.make_dataclass("Motion", ["joints", "caption"])(np.zeros((3, 22, 3), np.float32), "a walk")
    assert "data:image/jpeg" in views.thumbnail(film) and "a walk" in views.thumbnail(motion)
    assert "Odd" in views.thumbnail(dataclasses.make_dataclass("Odd", ["x"])(1))


def test_the_page_is_wired():
    blocks = page.build()
    names = {f.fn.__name__ for f in blocks.fns.values() if f.fn}
    assert {"from_address", "closed", "pressed", "refreshed"} <= names
