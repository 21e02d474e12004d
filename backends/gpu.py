"""ZeroGPU: a handler that borrows a GPU for as long as its recipe needs. Elsewhere nothing changes.

On a Hugging Face Space with ZeroGPU the package `spaces` is there, and only a decorated handler sees a GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from backends import grids

COUNTS = ("steps", "iterations", "captures", "adapt", "rounds")  # knobs that the time grows with
LONGEST = 120  # seconds that a visitor may borrow at once


def seconds(recipe: dict, *_args, **_kwargs) -> int:
    """How long to borrow the GPU for: per arm ten seconds and a third of a second a step or iteration, up to LONGEST."""
    arms = recipe.get("arms") if isinstance(recipe, dict) else None
    if isinstance(recipe, dict) and recipe.get("grid"):
        arms = [cell["arms"][0] for cell in grids.cells(recipe)]
    total = 0.0
    for arm in arms if isinstance(arms, list) and arms else [{}]:
        knobs = arm.get("knobs") if isinstance(arm, dict) else None
        counts = [knobs.get(name) for name in COUNTS] if isinstance(knobs, dict) else []
        total += 10 + (sum(n for n in counts if isinstance(n, int | float)) or 50) / 3
    return int(max(10, min(LONGEST, total)))


def on_gpu(handler: Callable, duration: Callable[..., int] = seconds) -> Callable:
    """Decorate a handler (a function or a generator function) whose first argument is a recipe."""
    if importlib.util.find_spec("spaces") is None:
        return handler
    import spaces

    return spaces.GPU(duration=duration)(handler)  # hands the handler back untouched where there is no ZeroGPU
