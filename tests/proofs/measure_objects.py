"""What the proofs of the 3D tabs share: things that the prior never saw, edits towards them, and what the judge sees."""

import itertools

import numpy as np

from backends.spec import Result, Turntable
from backends.worlds import objects


def edits(seed: int, common: bool = False, n: int = 12) -> list[tuple[objects.Thing, objects.Thing]]:
    """n times (source, wanted): of six two accessories and two looks kept from training, then an accessory and a look that were not; `common`: of COMMON objects."""
    rng, found = np.random.default_rng([objects.HELD_OUT_SEED + 53, seed]), []
    pattern = (("accessory", True), ("look", True)) * 2 + (("accessory", False), ("look", False))
    for field, kept in itertools.islice(itertools.cycle(pattern), n):
        names = tuple(objects.ACCESSORIES if field == "accessory" else objects.LOOKS)[1:]
        while True:
            source = objects.Thing(str(rng.choice(objects.COMMON if common else objects.OBJECTS)))
            wanted = objects.Thing(source.name, **{field: str(rng.choice(names))})
            if objects.held_out(wanted) is kept and source.name not in [s.name for s, _ in found]:
                break
        found.append((source, wanted))
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
