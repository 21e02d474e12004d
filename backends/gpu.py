"""ZeroGPU: a handler that borrows a GPU for as long as its recipe needs. Elsewhere nothing changes.

On a Hugging Face Space with ZeroGPU the package `spaces` is there, and only a decorated handler sees a GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Iterator

from backends import grids
from backends.spec import BadInput

COUNTS = ("steps", "iterations", "captures", "adapt", "rounds")  # knobs that the time grows with
SHORTEST, LONGEST = 10, 120  # seconds that a visitor may borrow at once
TAGS = re.compile(r"<[^>]*>")
SPARE = 1.5  # times what was learned: a run that outlasts what was borrowed is ended


def seconds(recipe: dict, known: float | None = None) -> int:
    """How long to borrow the GPU for, from SHORTEST to LONGEST seconds: by `known`, the seconds that the like of it took here, with SPARE and ten more for
    the model; where it hasn't run yet, per arm ten seconds and a third of a second a step or iteration. A grid counts its cells."""
    if known is not None:
        return _within(10 + SPARE * known)
    arms = recipe.get("arms") if isinstance(recipe, dict) else None
    if isinstance(recipe, dict) and recipe.get("grid"):
        arms = [cell["arms"][0] for cell in grids.cells(recipe)]
    total = 0.0
    for arm in arms if isinstance(arms, list) and arms else [{}]:
        knobs = arm.get("knobs") if isinstance(arm, dict) else None
        counts = [knobs.get(name) for name in COUNTS] if isinstance(knobs, dict) else []
        total += 10 + (sum(n for n in counts if isinstance(n, int | float)) or 50) / 3
    return _within(total)


def _within(seconds: float) -> int:
    return int(max(SHORTEST, min(LONGEST, seconds)))


def on_gpu(handler: Callable[..., Iterator], duration: Callable[..., int], before: Callable[..., Iterator]) -> Callable[..., Iterator]:
    """Decorate a generator function. `duration`: called with its arguments, how long to borrow the GPU for in seconds; `before`: a generator that is run
    with them before anything is borrowed, in the server's own process, which the borrowing one is forked from. What the Space says when it lends none, such as
    that a visitor's minutes are used up, is raised as BadInput."""
    if importlib.util.find_spec("spaces") is None:
        return handler
    import spaces

    borrowing = spaces.GPU(duration=duration)(handler)
    if borrowing is handler:  # as where there is no ZeroGPU
        return handler

    @functools.wraps(handler)
    def asked(*values) -> Iterator:
        yield from before(*values)
        try:
            yield from borrowing(*values)
        except Exception as refused:
            if said := getattr(refused, "message", ""):  # gradio's Error, which this package doesn't import
                raise BadInput(f"The Space's GPU: {TAGS.sub('', str(said)).strip()}") from None
            raise

    return asked
