"""A JSON object as a canvas: its keys and punctuation given, masked slots where the values belong (S³)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from backends.worlds.text import NULL


@dataclass(frozen=True)
class Scaffold:
    """`ids`: the object's tokens, `mask` in the slots; `slots`: field -> (first, last + 1) of its slot."""

    ids: list[int]
    slots: dict[str, tuple[int, int]]


def scaffold(tokens: Callable[[str], list[int]], mask: int, budgets: dict[str, int]) -> Scaffold:
    """`{"name": "□□□", "age": "□□"}` with as many masked tokens a field as `budgets` says.

    Pieces are tokenised apart: as one string, a quote could join what is in the slot.
    """
    ids, slots = tokens("{"), {}
    for i, (field, budget) in enumerate(budgets.items()):
        ids += tokens(", " if i else "") + tokens(json.dumps(field) + ": ") + tokens('"')
        slots[field] = (len(ids), len(ids) + budget)
        ids += [mask] * budget + tokens('"')
    return Scaffold(ids + tokens("}"), slots)


def read(ids, slots: dict[str, tuple[int, int]], decode: Callable[[list[int]], str]) -> dict[str, str | None]:
    """field -> what stands in its slot without the fillers; None where nothing but fillers stands. `slots` index into `ids`."""
    values = {field: decode([int(i) for i in ids[a:b]]).replace(NULL, "").strip() for field, (a, b) in slots.items()}
    return {field: value or None for field, value in values.items()}
