"""How long an arm will take, learned from how long its like took here."""

import math
import statistics

from backends.recipe import Input
from backends.spec import Audio, Mesh
from backends.store import Store

COUNTS = ("steps", "iterations", "captures")  # knobs that the time grows with
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
    return None if came is None else float(len(came.faces) if isinstance(came, Mesh) else came.shape[0] * came.shape[1])


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
