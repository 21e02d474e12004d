"""What the proofs of the 3D tabs share: things that the prior never saw, edits towards them, and what the judge sees."""

import itertools
from typing import NamedTuple

import numpy as np
from measure import interval

from backends.spec import Mesh, Result, Turntable
from backends.worlds import objects

PATTERN = (("accessory", True), ("look", True)) * 2 + (("accessory", False), ("look", False))


class Edit(NamedTuple):
    shape: Mesh
    source: objects.Thing
    wanted: objects.Thing


def edits(seed: int, common: bool = False, others: bool = True) -> list[Edit]:
    """Twelve, of six two accessories and two looks kept from training, then an accessory and a look that were not.

    The first six of meshes that were trained on, of COMMON objects alone when `common`; the other six of other models of known names, which were not, or
    without `others` as the first.
    """
    rng, found = np.random.default_rng([objects.HELD_OUT_SEED + 53, seed]), []
    names = objects.COMMON if common else objects.OBJECTS
    for i, (field, kept) in enumerate(itertools.islice(itertools.cycle(PATTERN), 12)):
        other, parts = others and i >= 6, tuple(objects.ACCESSORIES if field == "accessory" else objects.LOOKS)[1:]
        while True:
            source = objects.Thing(str(rng.choice(tuple(objects.sources(others=True)) if other else names)))
            wanted = objects.Thing(source.name, **{field: str(rng.choice(parts))})
            if objects.held_out(wanted) is kept and source.name not in [e.source.name for e in found[-6:]]:
                break
        found.append(Edit(objects.other(source.name) if other else objects.mesh(source), source, wanted))
    return found


def outcome(events) -> tuple[Turntable, dict[str, float], list]:
    """(the result, its metrics, its asides) of a method's events."""
    figures, result = {}, None
    for event in events:
        if isinstance(event, Result):
            result = event
        elif hasattr(event, "value"):
            figures[event.name] = event.value
    return result.value, figures, list(result.aside)


def gain(proof, what: str, a: np.ndarray, b: np.ndarray, op: str = ">", bar: float = 0, sign: int = 1, says: str = "") -> None:
    """State the low end of the interval of a − b, or b − a when `sign` is −1, pair by pair; `says`: more, behind the means."""
    band, means = interval(sign * (a - b)), f"means {a.mean():.2f} and {b.mean():.2f}{says}"
    proof.state(f"{what} (low end of the 95 % interval; {means})", band[0], op, bar, baseline=float(b.mean()), n=len(a), interval=band)
