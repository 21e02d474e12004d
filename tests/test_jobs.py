"""The queue: fair, watched from anywhere, stopped within a step, and alive whatever a run does."""

import contextvars
import errno
import functools
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from backends import estimates, jobs, recipe
from backends.feeds import Pile
from backends.jobs import Executor, Flag
from backends.spec import ArmEvent, Audio, BadInput, Held, Image, Metric, Note, Outcome, Result, Step, Text
from backends.store import Store

PIXELS = np.zeros((8, 8, 3), np.uint8)


def asked(prompt="a cat", steps=5, arms=1):
    return {"task": "text_to_image", "job": {"prompt": prompt}, "arms": [{"method": "ddim", "knobs": {"steps": steps}}] * arms}


class Source:
    """Steps that are made when the test lets go of them; what ran, in its order."""

    def __init__(self, open_=False):
        self.ran, self.gate, self.open, self.seconds = [], threading.Semaphore(0), open_, 0.0

    def __call__(self, given, pictures, stop, hold):
        self.ran.append(given["job"]["prompt"])
        if given["job"]["prompt"] == "raise":
            raise SystemExit("a method's own idea")
        if given["job"]["prompt"] == "refuse":
            raise BadInput("The hub can't be reached.")
        for arm, asked in enumerate(given["arms"]):
            n = asked["knobs"]["steps"]
            for i in range(1, n + 1):
                if not self.open and not self.gate.acquire(timeout=10):
                    raise TimeoutError
                time.sleep(self.seconds)
                yield ArmEvent(arm, Step(i, n, Image(PIXELS + i)), 0.1 * i, i)
                if hold():
                    yield ArmEvent(arm, Held(5.0), 0.1 * i, i)
                    while hold() and not stop():
                        time.sleep(0.01)
                if stop():
                    break
            yield ArmEvent(arm, Result(Text("said")), 1.0, n)
            recipe = given | {"arms": [asked], "outcome": {"stopped": stop()}}
            yield ArmEvent(arm, Outcome(arm, 1.0, i, 1.0, (Metric("m", 1.0),), Text("The Answer"), recipe, stopped=stop()), 1.0, i)
            if stop():
                return

    def let(self, steps=1):
        self.gate.release(steps)


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def studio(tmp_path, source):
    made = Executor(Store(tmp_path), source)
    yield made
    source.open = True
    source.let(1000)
    made.close()


def until(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def ended(run):
    until(lambda: run.over)
    return run


def test_owners_take_turns_and_the_oldest_of_one_is_next(studio, source):
    runs = {}
    for name, owner in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("b2", "b")):
        runs[name] = studio.submit(asked(name, 1), {}, owner)
        until(lambda: source.ran == ["a1"])
    assert [studio.place(runs[n]) for n in ("a1", "b1", "c1", "a2", "b2", "a3")] == [0, 1, 2, 3, 4, 5]
    assert [r.given["job"]["prompt"] for r in studio.active("a")] == ["a1", "a2", "a3"] and studio.active("nobody") == []
    source.let(6)
    for run in runs.values():
        ended(run)
    assert source.ran == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_one_who_watches_sees_where_it_stands_and_a_slow_one_only_the_newest(studio, source):
    run = studio.submit(asked(steps=4), {}, "me")
    source.let(2)
    until(lambda: run.progress.i == 2)
    with studio.watch(run) as first, studio.watch(run) as second:
        assert [e.event.i for e in first.take()] == [2] and first.take() == [], "a snapshot, not the whole way"
        source.let(2)
        kinds = [type(e.event).__name__ for e in second]
        assert kinds[-2:] == ["Result", "Outcome"] and "Step" in kinds and len(run.feeds) == 2
        ended(run)
        assert [e.event.i for e in first.take() if isinstance(e.event, Step)] == [4] and first.take() is None
    assert not run.feeds
    with studio.watch(studio.find(run.id, "me")) as later:  # from the store
        events = list(later)
    assert events[-1].event.value == Text("The Answer") and events[0].event.show is None and events[0].event.i == 4


def test_newer_previews_win_and_figures_and_notes_stay():
    pile = Pile([ArmEvent(0, Step(1, 9)), ArmEvent(0, Note("a")), ArmEvent(0, Metric("m", 1.0)), ArmEvent(1, Step(1, 9))])
    for event in (Step(2, 9), Note("b"), Metric("m", 2.0), Held(3.0), Step(3, 9)):
        pile.add(ArmEvent(0, event))
    assert [(e.arm, e.event) for e in pile] == [
        (0, Note("a")), (1, Step(1, 9)), (0, Note("b")), (0, Metric("m", 2.0)), (0, Held(3.0)), (0, Step(3, 9))
    ]  # fmt: skip


def test_stop_ends_within_a_step_and_what_waits_does_not_begin(studio, source):
    run, waits, other = studio.submit(asked(steps=50), {}, "me"), studio.submit(asked("waits"), {}, "me"), studio.submit(asked("other", 1), {}, "you")
    source.let(3)
    until(lambda: run.progress.i == 3)
    studio.stop(waits)
    assert waits.state == "stopped" and studio.place(other) == 1
    studio.stop(run)
    source.let(2)
    ended(run)
    ended(other)
    assert run.state == "stopped" and other.state == "done" and "waits" not in source.ran
    outcome = next(e.event for e in studio.watch(studio.find(run.id, "me")) if isinstance(e.event, Outcome))
    assert outcome.nfe == 4 and outcome.value is not None, "one step more at most, and what there is is kept"
    studio.stop(run)
    assert not list(Path(studio._flags.name).iterdir()), "a late press leaves nothing behind"


def test_pause_holds_and_resume_goes_on(studio, source):
    run, waits = studio.submit(asked(steps=3), {}, "me"), studio.submit(asked(), {}, "me")
    source.let(2)
    studio.pause(waits)
    assert not waits.held()
    until(lambda: run.progress.i)
    studio.pause(run)
    source.let(2)
    with studio.watch(run) as feed:
        assert any(isinstance(e.event, Held) for e in feed)  # waits for it
    until(lambda: run.progress.paused)
    time.sleep(0.1)
    assert run.state == "running"
    studio.pause(run, False)
    ended(run)


def test_the_worker_survives_whatever_a_run_does(studio, source):
    bad, refused, good = (studio.submit(asked(p, 1), {}, "me") for p in ("raise", "refuse", "good"))
    source.let(1)
    assert ended(good).state == "done" and bad.state == refused.state == "failed"
    assert refused.error == "The hub can't be reached." and "log" in bad.error and "idea" not in bad.error
    assert studio.find(refused.id, "me").error == refused.error


def test_a_full_disk_ends_no_run(studio, source, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(studio.store, "_write", full)
    run = studio.submit(asked(steps=1), {}, "me")
    source.let(1)
    with studio.watch(run) as feed:
        assert any(isinstance(e.event, Outcome) for e in feed)
    assert ended(run).state == "done"


def test_bad_recipes_and_a_full_queue_are_refused(studio, source, monkeypatch):
    with pytest.raises(BadInput, match="from 1 to 100"):
        studio.submit(asked(steps=1000), {}, "me")
    monkeypatch.setattr(jobs, "OWN", 2)
    monkeypatch.setattr(jobs, "MOST", 3)
    studio.submit(asked(), {}, "me")
    until(lambda: source.ran)
    for _ in range(2):
        studio.submit(asked(), {}, "me")
    with pytest.raises(BadInput, match="2 of your runs wait"):
        studio.submit(asked(), {}, "me")
    studio.submit(asked(), {}, "you")
    with pytest.raises(BadInput, match="3 runs wait"):
        studio.submit(asked(), {}, "another")


def test_those_who_ask_at_once_find_the_queue_as_short_as_those_who_ask_in_turn(studio, source, monkeypatch):
    monkeypatch.setattr(jobs, "OWN", 2)
    studio.submit(asked(), {}, "me")
    until(lambda: source.ran)
    begin, refused = studio.store.begin, []
    monkeypatch.setattr(studio.store, "begin", lambda *row: time.sleep(0.05) or begin(*row))

    def ask():
        try:
            studio.submit(asked(), {}, "me")
        except BadInput:
            refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(refused) == 6 and len(studio.active("me")) == 3 and not studio._coming


def test_inputs_that_would_fill_the_memory_do_not_wait_in_it(studio, source, monkeypatch):
    monkeypatch.setattr(jobs, "OWN_BYTES", 5000)
    monkeypatch.setattr(jobs, "BYTES", 8000)
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[0, 0] = 1
    given = {"task": "restore_image", "job": {"image": {"sha256": recipe.digest(picture)}}, "arms": [{"method": "classical"}]}
    runs = []
    monkeypatch.setattr(studio, "_source", lambda *_: (runs.append(0) or source.gate.acquire(timeout=10) or e for e in [ArmEvent(0, Note("x"))]))
    with_picture = functools.partial(studio.submit, given, {recipe.digest(picture): picture})
    with_picture("me")
    until(lambda: runs)
    with_picture("me")  # waits, with 3072 bytes
    with pytest.raises(BadInput, match="too large to take 0 MB more; try again"):
        with_picture("me")
    with_picture("you")
    with pytest.raises(BadInput, match="try again"):
        with_picture("another")
    studio.submit(asked(), {}, "another")


def test_another_visitor_finds_a_run_only_once_it_is_shared(studio, source):
    run = studio.submit(asked(steps=1), {}, "me")
    assert studio.find(run.id, "me") is run and studio.find(run.id, "you", shared=True) is None and studio.share(run.id, "you", True) is None
    studio.share(run.id, "me", True)
    assert studio.find(run.id, "you", shared=True) is run and studio.find(run.id, "you") is None
    source.let(1)
    ended(run)
    assert studio.find(run.id, "you", shared=True).given == run.given
    studio.share(run.id, "me", False)
    assert studio.find(run.id, "you", shared=True) is None and studio.find("../../etc/passwd", "you", shared=True) is None


def test_a_call_of_the_api_is_not_kept(studio, source):
    run = studio.submit(asked(steps=1), {}, "me", kept=False)
    assert studio.active("me") == [] and studio.find(run.id, "me") is None
    source.let(1)
    ended(run)
    assert studio.store.ended("me") == ([], 0) and studio.store.used() == 0


def test_owners_of_one_line_count_and_take_turns_as_one(studio, source, monkeypatch):
    monkeypatch.setattr(jobs, "OWN", 2)
    for name in ("a", "b", "c"):
        studio.submit(asked(name, 1), {}, name, line="one program")
        until(lambda: source.ran == ["a"])
    with pytest.raises(BadInput, match="2 of your runs wait"):
        studio.submit(asked("d", 1), {}, "d", line="one program")
    mine = studio.submit(asked("mine", 1), {}, "me")
    assert studio.place(mine) == 1 and [r.owner for r in studio.active("b")] == ["b"]
    source.let(4)
    ended(mine)
    until(lambda: source.ran == ["a", "mine", "b", "c"])


def test_a_session_that_is_over_leaves_no_runs(studio, source):
    done, runs, waits = (studio.submit(asked(name, 2), {}, "session-x") for name in ("done", "runs", "waits"))
    other = studio.submit(asked("other", 1), {}, "me")
    source.let(3)
    ended(other)
    until(lambda: done.over and runs.state == "running")
    studio.leave("session-x")
    source.let(2)
    assert ended(runs).state == ended(waits).state == "stopped" and source.ran == ["done", "other", "runs"]
    assert studio.find(done.id, "session-x") is studio.find(waits.id, "session-x") is None and studio.find(other.id, "me")


def test_what_nobody_watches_gives_way_to_those_who_wait(studio, source, monkeypatch):
    monkeypatch.setattr(jobs, "LEFT_SECONDS", 0.2)
    monkeypatch.setattr(jobs, "HELD_SECONDS", 0.1)
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.05)
    alone = studio.submit(asked(steps=100), {}, "me")
    until(lambda: alone.state == "running")
    studio.pause(alone)
    source.open, source.seconds = True, 0.01
    source.let(1)
    until(lambda: alone.progress.paused)
    studio.submit(asked("mine too"), {}, "me")
    time.sleep(0.5)
    assert alone.state == "running", "one's own runs wait for each other"
    with studio.watch(alone):
        other = studio.submit(asked("other", 1), {}, "you")
        time.sleep(0.5)
        assert alone.state == "running" and alone.held(), "it is watched"
    assert ended(other).state == "done" and not alone.held() and alone.state == "stopped" and "nobody had watched" in alone.error


def test_it_runs_in_the_context_of_the_one_who_asked(tmp_path):
    who, seen = contextvars.ContextVar("who", default=""), []
    studio = Executor(Store(tmp_path), lambda *_: (seen.append(who.get()) or event for event in [ArmEvent(0, Note("x"))]))
    who.set("me")
    ended(studio.submit(asked(), {}, "me"))
    assert seen == ["me"]
    studio.close()


def test_a_flag_is_seen_from_another_process(tmp_path):
    flag = Flag(tmp_path / "flag")
    other = pickle.loads(pickle.dumps(flag))
    flag.turn(True)
    assert flag() and other()
    other.turn(False)
    assert not flag()


def test_what_the_runner_says_can_leave_the_process(monkeypatch):
    step = ArmEvent(0, Step(1, 2, Image(PIXELS), (Text("beside"),), keep=lambda: Image(PIXELS)))
    monkeypatch.setattr("backends.run", lambda *_: iter([step, ArmEvent(0, Note("n"))]))
    first, _ = pickle.loads(pickle.dumps(list(jobs.here(asked(), {}, None, None))))
    assert first.event.keep is None and first.event.aside == (Text("beside"),)


def test_a_server_that_is_killed_leaves_an_interrupted_run_with_its_finished_arm(tmp_path):
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_jobs import *
source = Source()
studio = Executor(Store(Path({str(tmp_path)!r})), source)
run, waits = studio.submit(asked("killed", 2, arms=2), {{}}, "me"), studio.submit(asked("waited", 1), {{}}, "me")
source.let(3)
until(lambda: run.progress.arm == 1 and run.progress.i == 1)
until(lambda: studio.store.events(run.id))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 9
    source = Source(open_=True)
    studio = Executor(Store(tmp_path), source)
    until(lambda: studio.store.ended("me")[1] == 2)
    killed = next(k for k in studio.store.ended("me")[0] if k.given["job"]["prompt"] == "killed")
    assert killed.state == "interrupted" and source.ran == ["waited"], "what waited goes on, what may have killed it does not"
    run = studio.find(killed.id, "me")
    with studio.watch(run) as feed:
        assert [e.arm for e in feed if isinstance(e.event, Outcome)] == [0], "no finished result is lost"
    assert ended(studio.submit(run.given, run.pictures, "me")).state == "done", "it can be run again"
    studio.close()


def test_steps_are_kept_on_the_way_so_that_a_killed_server_knows_how_far_it_was(studio, source, monkeypatch):
    monkeypatch.setattr(jobs, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "KEEP_SHARE", 1e9)
    run = studio.submit(asked(steps=9, arms=2), {}, "me")
    source.let(4)
    until(lambda: jobs.reached(run, studio.store.events(run.id)) == "None of 2 arms had ended, arm 1 was at step 4 of 9.")
    (kept,) = [e for e in studio.store.events(run.id) if isinstance(e.event, Step)]
    assert (kept.event.show.pixels == 4).all(), "with the picture of the step"
    source.let(7)
    until(lambda: jobs.reached(run, studio.store.events(run.id)) == "1 of 2 arms had ended, arm 2 was at step 2 of 9.")
    source.let(7)
    ended(run)
    assert jobs.reached(run, studio.store.events(run.id)) == "2 of 2 arms had ended."


def test_what_is_kept_on_the_way_takes_little_of_the_time(studio, source, monkeypatch):
    monkeypatch.setattr(jobs, "KEEP_SECONDS", 0.0)
    source.open, saved, save = True, [], studio.store.save
    monkeypatch.setattr(studio.store, "save", lambda *values: (saved.append(1), time.sleep(0.02), save(*values)))
    ended(studio.submit(asked(steps=60), {}, "me"))
    assert len(saved) < 6, "where keeping it takes long it is done seldom"


def test_a_studio_that_is_closed_interrupts_what_runs(tmp_path):
    source = Source()
    studio = Executor(Store(tmp_path), source)
    run = studio.submit(asked(), {}, "me")
    source.let(1)
    until(lambda: run.progress.i)
    source.open = True
    threading.Timer(0.1, source.let, (5,)).start()
    studio.close()
    assert run.state == "interrupted" and Store(tmp_path).get(run.id, "me").state == "interrupted"


# --- estimates ---


def test_times_are_learned_by_method_and_steps(tmp_path):
    store = Store(tmp_path)
    given = asked(steps=10) | {"model": "emoji-ldm"}
    (arm,) = given["arms"]
    assert estimates.expected(store, given, arm, {}) is None
    for steps, seconds in ((10, 1.0), (10, 1.2), (10, 30.0), (40, 4.4)):
        estimates.learn(store, given, {"method": "ddim", "knobs": {"steps": steps, "scale": 5.0}}, {}, seconds)
    now = {"method": "ddim", "knobs": {"steps": 20, "scale": 5.0}}
    assert 1.5 < estimates.expected(store, given, now, {}) < 3.0, "scaled by steps; one that took long does not count"
    assert estimates.expected(store, given, now | {"stack": [{"method": "faster_diffusion", "knobs": {}}]}, {}) is None
    assert estimates.expected(store, given | {"model": "sd-1.5"}, now, {}) is None
    store.close()
    assert estimates.expected(Store(tmp_path), given, now, {}) is not None, "over a restart"


def test_a_longer_sound_takes_longer_than_a_short_one(tmp_path):
    store, arm = Store(tmp_path), {"method": "storm", "knobs": {"steps": 10}}
    for seconds in (1, 10):
        sound = Audio(np.zeros(100 * seconds, np.float32), 100)
        given = {"model": "speech", "task": "enhance_speech", "job": {"sound": {"sha256": "x"}}}
        estimates.learn(store, given, arm, {"x": sound}, float(seconds))
    assert estimates.expected(store, given, arm, {"x": Audio(np.zeros(900, np.float32), 100)}) == 10.0


def test_an_estimate_counts_those_before_and_follows_the_run(studio, source):
    first = ended_soon = studio.submit(asked(steps=2), {}, "me")
    assert studio.estimate(first) is None
    source.let(2)
    ended(ended_soon)
    estimates.learn(studio.store, first.given, first.given["arms"][0], {}, 20.0)
    estimates.learn(studio.store, first.given, first.given["arms"][0], {}, 20.0)
    runs = [studio.submit(asked(steps=2), {}, owner) for owner in ("me", "me", "you")]
    until(lambda: runs[0].state == "running")
    one, three, two = map(studio.estimate, runs)
    assert one == pytest.approx(20, abs=1) and two == pytest.approx(40, abs=1) and three == pytest.approx(60, abs=1)
    assert studio.estimate(first) is None, "it is over"


def test_a_pause_is_no_time_of_the_arm(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(estimates.time, "monotonic", lambda: now[0])
    progress = estimates.Progress([8.0, None], since=100.0)
    for at, event in ((102.0, Step(2, 8)), (102.0, Held(60.0)), (150.0, Held(0.0)), (152.0, Step(3, 8))):
        now[0] = at
        progress.see(ArmEvent(0, event))
    assert progress.since == 148.0 and progress.left(True) == pytest.approx(2 * 5 + 16), "the second arm's like has not run: it is taken for the first"
    now[0] = 153.0
    assert progress.see(ArmEvent(0, Outcome(0, 5.0, 8, 1.0, (), None, {}))) == 5.0 and (progress.arm, progress.i) == (1, 0)
    for now[0], step in ((155.0, 1), (156.0, 2)):
        progress.see(ArmEvent(1, Step(step, 8)))
    assert progress.left(True) == 6.0, "of the arm's own steps, where nothing was learned"


def test_a_blind_run_without_a_ballot_is_refused_since_its_names_would_be_shown(studio, source, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(studio.store, "ask", full)
    with pytest.raises(BadInput, match="would not stay blind"):
        studio.submit(asked(arms=2), {}, "me", blind=True)
    assert not source.ran and not studio.active("me")


def test_a_full_disk_is_one_to_all_who_ask_the_store(tmp_path):
    store = Store(tmp_path)

    class Full:
        def execute(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    store._db = Full()
    with pytest.raises(OSError) as failed:
        store.vote("run", "me", 0, [0, 1])
    assert failed.value.errno == errno.ENOSPC
