"""What is kept of runs: bit for bit, each visitor's alone, under a limit, over a restart."""

import os
import stat
import time
import typing

import numpy as np
import pytest

from backends import packing, recipe, spec, votes
from backends.spec import (
    ArmEvent,
    Audio,
    Cube,
    Heat,
    Image,
    Images,
    Mesh,
    Metric,
    Note,
    Outcome,
    Plot,
    Result,
    Spectrogram,
    Step,
    Table,
    Text,
    Tokens,
    Turntable,
)
from backends.store import Store, default_folder

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (16, 16, 3), np.uint8)
MESH = Mesh(RNG.normal(size=(4, 3)).astype(np.float32), np.array([[0, 1, 2]], np.int32), np.array([[1, 2, 3]], np.uint8))
MEDIA = {
    Image: Image(PIXELS, "caption", PIXELS[:8]),
    Images: Images((Image(PIXELS, "a"), Image(PIXELS, "b"))),
    Plot: Plot({"curve": ([1, 2], [0.5, float("nan")])}, marks={"here": 1.5}),
    Table: Table(("n", "said"), ((1, "one"), (np.float32(2.5), "two"))),
    Text: Text("words ∎ <b>"),
    Tokens: Tokens(("a", ""), (0.5, 0.25), "nm", "a", (Tokens(("", ""), (0.0, 0.0), "mm"),)),
    Heat: Heat(("r",), ("c", "d"), ((0.5, float("nan")),)),
    Audio: Audio(RNG.normal(size=99).astype(np.float32), 16_000, "sound", {"here": 0.001}),
    Spectrogram: Spectrogram(RNG.normal(size=(8, 9)).astype(np.float32), 1.0, 8000.0),
    Cube: Cube(RNG.uniform(size=(6, 7, 5)).astype(np.float32), (400.0, 500.0, 600.0, 700.0, 800.0)),
    Turntable: Turntable(np.stack([PIXELS] * 3), MESH, "turning", b"ply\0\xff"),
}


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("kind", typing.get_args(spec.Media), ids=lambda k: k.__name__)
def test_every_medium_comes_back_bit_for_bit(kind):
    value = MEDIA[kind]
    events = [ArmEvent(0, Step(1, 2, None, (value,)), 0.5, 3), ArmEvent(0, Outcome(0, 1.0, 3, 1.0, (Metric("m", 0.5),), value, {"job": {"seed": 1}}))]
    assert same(packing.unpack(packing.pack(events)), events)


def test_what_has_no_place_in_a_file_is_refused_and_no_pickle_is_read(tmp_path):
    for value in (lambda: 0, np.array([object()]), {1: 2}, {"$": "array"}):
        with pytest.raises(TypeError):
            packing.pack(value)
    np.savez(tmp_path / "evil.npz", said=np.array([object()]))
    with pytest.raises(ValueError, match="pickle"):
        packing.unpack((tmp_path / "evil.npz").read_bytes())


def filled(store: Store, name: str, owner: str, at: float, size: int = 0, state: str = "done", words: str = "") -> None:
    store.begin(name, owner, {"task": "t", "job": {}, "arms": []}, {"x": RNG.integers(0, 255, (size, 1000, 3), np.uint8)} if size else {}, words, at)
    store.save(name, [ArmEvent(0, Note(name))])
    store.change(name, state=state, ended=at)


def test_a_run_is_kept_with_its_inputs_over_a_restart(tmp_path):
    store = Store(tmp_path)
    store.begin("one", "me", {"task": "t"}, {recipe.digest(PIXELS): PIXELS, "m": MESH, "s": MEDIA[Audio]}, "Two Words", 5.0)
    store.save("one", [ArmEvent(0, Result(None, (MEDIA[Plot],)))])
    store.change("one", state="done")
    store.close()
    again = Store(tmp_path)
    (kept,), count = again.ended("me")
    assert count == 1 and kept.id == "one" and kept.state == "done" and kept.at == 5.0 and kept.size == again.used("me") == again.used() > 500
    inputs = again.inputs("one")
    assert recipe.digest(inputs[recipe.digest(PIXELS)]) == recipe.digest(PIXELS) and recipe.digest(inputs["s"]) == recipe.digest(MEDIA[Audio])
    assert same(again.events("one")[0].event.aside[0], MEDIA[Plot])
    assert stat.S_IMODE(os.stat(tmp_path).st_mode) == 0o700, "nobody else on the machine reads it"


def test_another_owner_is_refused_until_a_run_is_shared(tmp_path):
    store = Store(tmp_path)
    filled(store, "mine", "me", 1.0)
    assert store.get("mine", "me") and not store.get("mine", "you") and not store.get("mine", "you", shared=True)
    assert store.ended("you") == ([], 0) and store.used("you") == 0 and not store.delete("mine", "you")
    store.change("mine", shared=True)
    assert store.get("mine", "you", shared=True) and not store.get("mine", "you"), "to be read, not to be changed"
    assert not store.delete("mine", "you") and store.delete("mine", "me")
    assert not store.get("mine", "me") and store.events("mine") == [] and not list((tmp_path / "runs").iterdir())


def test_what_is_queued_or_running_is_not_deleted(tmp_path):
    store = Store(tmp_path)
    filled(store, "runs", "me", 1.0, state="running")
    assert not store.delete("runs", "me") and store.get("runs", "me")


def test_the_oldest_go_when_the_limit_is_reached(tmp_path):
    store = Store(tmp_path, limit=900_000)
    filled(store, "running", "me", 0.0, 90, state="running")
    for at in range(1, 5):
        filled(store, f"run{at}", ("me", "you")[at % 2], float(at), 90)  # 270 KB each, since noise can't be compressed
        store.clean()
        assert store.used() <= 900_000
    assert {k.id for owner in ("me", "you") for k in store.ended(owner)[0]} == {"run3", "run4"} and store.get("running", "me")
    assert sorted(f.name for f in (tmp_path / "runs").iterdir()) == ["run3", "run4", "running"]
    filled(store, "large", "me", 9.0, 400)
    store.clean()
    assert store.get("large", "me"), "the newest stays, whatever its size"


def test_what_a_session_left_goes_within_a_day_but_for_what_is_shared(tmp_path):
    store, now = Store(tmp_path), time.time()
    for name, owner, at in (("old", "session-a", 9e4), ("shared", "session-a", 9e4), ("new", "session-b", 8e4), ("mine", "me", 9e4)):
        filled(store, name, owner, now - at)
    filled(store, "runs", "session-a", 0.0, state="running")
    store.change("shared", shared=True)
    ballot = votes.ballot("old", "session-a", {"task": "t", "job": {}, "model": "m", "arms": [{"method": "ddim", "knobs": {}}] * 2}, [0, 1])
    store.ask(ballot)
    assert store.vote("old", "session-a", 0, [0, 1])
    store.clean()
    assert {k.name for k in (tmp_path / "runs").iterdir()} == {"shared", "new", "mine", "runs"} and store.votes("session-a", "t") == []


def test_a_restart_forgets_the_sessions_of_the_server_that_is_gone(tmp_path):
    store = Store(tmp_path)
    store._server = "999999999@1.00"
    for name, state in (("ended", "done"), ("waited", "queued"), ("ran", "running"), ("shared", "done")):
        filled(store, name, "session-a", 1.0, state=state)
    filled(store, "mine", "me", 1.0)
    store.change("shared", shared=True)
    again = Store(tmp_path)
    filled(again, "here", "session-b", 1.0)
    assert again.lost() == [] and {k.name for k in (tmp_path / "runs").iterdir()} == {"shared", "mine", "here"}


def test_a_search_wants_every_word_and_takes_none_as_a_pattern(tmp_path):
    store = Store(tmp_path)
    filled(store, "a", "me", 1.0, words="A Cat on a mat")
    filled(store, "b", "me", 2.0, words="100% of dogs")
    store.add_words("b", "The Answer")
    found = {query: [k.id for k in store.ended("me", query)[0]] for query in ("", "cat MAT", "cat dogs", "%", "answer", "' OR 1=1 --")}
    assert found == {"": ["b", "a"], "cat MAT": ["a"], "cat dogs": [], "%": ["b"], "answer": ["b"], "' OR 1=1 --": []}
    assert store.ended("me", most=1)[1] == 2 and len(store.ended("me", most=1)[0]) == 1


def test_a_restart_tells_what_was_lost_and_gives_back_what_waited(tmp_path):
    store = Store(tmp_path)
    filled(store, "ran", "me", 1.0, state="running")
    filled(store, "waited", "me", 2.0, state="queued")
    assert store.lost() == [], "this very process is not gone"
    store._server = "999999999@1.00"
    for name in ("ran", "waited"):
        store.change(name, server=store._server)
    again = Store(tmp_path)
    assert [k.id for k in again.lost()] == ["waited"] and again.get("ran", "me").state == "interrupted" and again.lost() == []


def test_a_file_that_was_cut_off_is_no_end(tmp_path):
    store = Store(tmp_path)
    filled(store, "one", "me", 1.0)
    path = tmp_path / "runs" / "one" / "events"
    path.write_bytes(path.read_bytes()[:50])
    assert store.events("one") == [] and store.get("one", "me")


def test_the_folder_and_the_limit_are_the_hosts_to_name(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("UNNOISE_DATA_MB", "2.5")
    store = Store()
    assert store.folder == tmp_path / "named" and store.limit == 2.5 * 2**20
    monkeypatch.delenv("UNNOISE_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / "unnoise"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert default_folder().name.startswith("unnoise-") and "file" not in str(default_folder())
