"""Arms of a run on several replicas at once: what Replicas does with idle ones, without Ray."""

import queue
import threading
import time

import pytest

from backends import recipe
from backends.estimates import Progress
from backends.replicas import Replicas
from backends.spec import ArmEvent, BadInput, Outcome, Step


class Fakes(Replicas):
    """Replicas are numbers; an arm takes a while of steps, and who ran it is its seconds."""

    def __init__(self, count: int, steps: int = 3):
        self._idle, self._lock, self._wanted, self.steps, self.compared = queue.SimpleQueue(), threading.Lock(), 0, steps, []
        for k in range(count):
            self._idle.put(k)

    def _safe(self, replica, given, pictures, switches):
        for i in range(self.steps):
            if switches["stop"]():
                break
            time.sleep(0.02)
            yield ArmEvent(0, Step(i + 1, self.steps), float(replica))
        yield ArmEvent(0, Outcome(0, float(replica), 1, 0.0, (), None, given), float(replica))

    def _compared(self, event, reference, cells, pictures):
        self.compared.append(event.arm)
        return event


GIVEN, _ = recipe.whole(
    {"task": "text_to_image", "job": {"prompt": "a cat"}, "arms": [{"method": "ddim", "knobs": {"steps": n}} for n in (1, 2, 3, 4)], "apart": True}
)[1:]


def ended(replicas, given=GIVEN, stop=lambda: False):
    return [e for e in replicas(given, {}, stop, lambda: False) if isinstance(e.event, Outcome)]


def test_arms_take_all_idle_replicas_and_come_numbered_with_the_first_to_compare_with():
    replicas = Fakes(3)
    found = ended(replicas)
    assert sorted(e.arm for e in found) == [0, 1, 2, 3] and all(e.event.arm == e.arm for e in found)
    assert [e.event.recipe["arms"][0]["knobs"]["steps"] for e in sorted(found, key=lambda e: e.arm)] == [1, 2, 3, 4]
    assert len({e.seconds for e in found}) == 3, "each replica ran some"
    assert sorted(replicas.compared) == [1, 2, 3] and sorted(replicas._idle.get() for _ in range(3)) == [0, 1, 2]


def test_without_apart_all_stay_on_one():
    assert {e.seconds for e in ended(Fakes(3), {k: v for k, v in GIVEN.items() if k != "apart"})} == {0.0}


def test_stop_ends_all_and_closing_gives_the_replicas_back():
    replicas, pressed = Fakes(2, steps=500), threading.Event()
    threading.Timer(0.2, pressed.set).start()
    began = time.monotonic()
    assert {e.arm for e in ended(replicas, stop=pressed.is_set)} == {0, 1} and time.monotonic() - began < 5
    events = replicas(GIVEN, {}, lambda: False, lambda: False)
    next(events)
    events.close()
    assert sorted(replicas._idle.get(timeout=5) for _ in range(2)) == [0, 1]


def test_a_run_that_waits_gets_the_next_replica_that_is_free():
    replicas, got = Fakes(2, steps=10), []
    events = replicas(GIVEN, {}, lambda: False, lambda: False)
    next(events)
    while not replicas._idle.empty():
        next(events)
    waiting = threading.Thread(target=lambda: got.append(replicas._taken()), daemon=True)
    waiting.start()
    seen = 0
    for event in events:
        seen += isinstance(event.event, Outcome)
        if not waiting.is_alive():
            break
    assert got and seen < 4, "before the run was over"
    events.close()


def test_a_failure_of_an_arm_is_the_runs(monkeypatch):
    def fails(*_):
        raise BadInput("The process that ran this was lost.")
        yield

    replicas = Fakes(2)
    monkeypatch.setattr(replicas, "_safe", fails)
    with pytest.raises(BadInput, match="was lost"):
        ended(replicas)
    assert sorted(replicas._idle.get(timeout=5) for _ in range(2)) == [0, 1]


def test_the_recipe_keeps_it_and_refuses_other_values():
    assert GIVEN["apart"] is True
    with pytest.raises(BadInput, match="true or false"):
        recipe.whole(GIVEN | {"apart": "yes"})
    assert Progress([3.0, 8.0], apart=True).left(False) == 8.0 and Progress([3.0, None], apart=True).left(False) is None
