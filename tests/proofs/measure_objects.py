"""What the proofs of the 3D tabs share: what an arm made of an edit, and a gain of one arm over another. The edits are evaluate/objects.py's."""

import numpy as np
from measure import interval

from backends.spec import Result, Turntable


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
