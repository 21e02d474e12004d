"""How long an arm will take, learned from how long its like took here; and how far a run is."""

import math
import statistics
import time
from dataclasses import dataclass, field

from backends.gpu import COUNTS
from backends.recipe import Input
from backends.spec import ArmEvent, Audio, Held, Mesh, Outcome, Step
from backends.store import Store

NEAR = 5  # past arms whose median is taken


def kind(given: dict, arm: dict) -> str:
    """Arms of one kind are compared: the model, the task, the method and what is stacked under it."""
    return "/".join([given["model"], given["task"], arm["method"], *(s["method"] for s in arm.get("stack", ()))])


def features(given: dict, arm: dict, pictures: dict[str, Input]) -> dict[str, float | str]:
    """What may tell one run's time from another's of its kind: knobs, and how large the inputs are."""
    knobs = dict(arm["knobs"])
    for piece in arm.get("stack", ()):
        knobs |= {f"{piece['method']}.{name}": value for name, value in piece["knobs"].items()}
    found = {name: _size(value, pictures) for name, value in {**given["job"], **knobs}.items() if name != "seed"}
    return {name: value for name, value in found.items() if value is not None}


def _size(value, pictures: dict[str, Input]) -> float | str | None:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        return float(len(value)) if " " in value or len(value) > 24 else value  # words are as long as they are; a choice is what it is
    came = pictures.get(value.get("sha256")) if isinstance(value, dict) else None
    if isinstance(came, Audio):
        return came.seconds
    return None if came is None else float(len(came.faces) if isinstance(came, Mesh) else getattr(came, "values", came).size)


def expected(store: Store, given: dict, arm: dict, pictures: dict[str, Input]) -> float | None:
    """Seconds of wall time, from the NEAR arms that were most alike, each scaled by its steps; None when no such arm has run."""
    now = features(given, arm, pictures)
    past = sorted(((_distance(now, then), i, then, seconds) for i, (then, seconds) in enumerate(store.learned(kind(given, arm)))), key=lambda row: row[:2])
    near = [row for row in past[:NEAR] if row[0] <= past[0][0] + 0.5]
    return statistics.median(seconds * _count(now) / _count(then) for _, _, then, seconds in near) if near else None


def _count(found: dict) -> float:
    return sum(found[name] for name in COUNTS if name in found) or 1.0


def _distance(a: dict, b: dict) -> float:
    total = 0.0
    for name in a.keys() | b.keys():
        one, two = a.get(name), b.get(name)
        if isinstance(one, float) and isinstance(two, float):
            total += abs(math.asinh(one) - math.asinh(two)) * (0.5 if name in COUNTS else 1.0)
        else:
            total += float(one != two)
    return total


def learn(store: Store, given: dict, arm: dict, pictures: dict[str, Input], seconds: float) -> None:
    store.learn(kind(given, arm), features(given, arm, pictures), seconds)


@dataclass
class Progress:
    """Where a running run stands: `expected`, seconds of each arm as far as known; `arm`, the arm under way since `since`, at step `i` of `n`."""

    expected: list[float | None]
    apart: bool = False  # whether arms may run at once
    arm: int = 0
    since: float = field(default_factory=time.monotonic)
    i: int = 0
    n: int = 0
    paused: float = 0.0  # when it was; 0 while it is not
    first: tuple[float, int] = (0.0, 0)  # when the arm's first step was seen, and its number: what came before it was loading
    took: list[float] = field(default_factory=list)  # by the arms that ended
    begun: float = field(default_factory=time.monotonic)

    def see(self, event: ArmEvent) -> float:
        """Take an event; gives the seconds that the arm it ends took, 0 for others. Pauses don't count."""
        now = time.monotonic()
        if self.paused:
            waited, self.paused = now - self.paused, 0.0
            self.since, self.first = self.since + waited, (self.first[0] + waited, self.first[1])
        if isinstance(event.event, Held):
            self.paused = now if event.event.left else 0.0
        if isinstance(event.event, Step):
            self.first = self.first if self.i else (now, event.event.i)
            self.i, self.n = event.event.i, event.event.n
        if not isinstance(event.event, Outcome):
            return 0.0
        took, self.since = now - self.since, now
        self.arm, self.i, self.n = event.arm + 1, 0, 0
        self.took.append(took)
        return took

    def left(self, running: bool) -> float | None:
        """Seconds to the end. An arm whose like was never seen is taken for the mean of the run's others; None while nothing is known of any."""
        if self.apart:
            return self._apart(running)
        times = list(self.expected[self.arm :])
        if not times:
            return 0.0
        now, here = self.paused or time.monotonic(), None
        if running and self.i > self.first[1] and (times[0] is None or self.i > 0.2 * self.n):
            step = (now - self.first[0]) / (self.i - self.first[1])
            here, times[0] = step * (self.n - self.i), step * self.n
        known = [*self.took, *(t for t in times if t is not None)]
        if not known:
            return None
        guessed = [statistics.mean(known) if t is None else t for t in times]
        if here is None:
            here = max(guessed[0] - (now - self.since), 0.0) if running else guessed[0]
        return here + sum(guessed[1:])

    def _apart(self, running: bool) -> float | None:
        """The longest arm's, as if there were a replica for each."""
        if len(self.took) >= len(self.expected):
            return 0.0
        if None in self.expected:
            return None
        return max(max(self.expected) - (time.monotonic() - self.begun if running else 0.0), 0.0)
