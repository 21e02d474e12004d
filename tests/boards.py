"""A run as a tab shows it, without a page: the rows that its components are given."""

import backends
from ui import running


def rows(given: dict, pictures: dict, ids: list[str]) -> list[list]:
    """One row an event, between the first and the last."""
    board = running.Board(given, pictures, ids)
    return [board.begin(), *(board.see([event]) for event in backends.run(given, pictures)), board.end()]
