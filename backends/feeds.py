"""Between a run and those who watch it: events that wait to be read, of which a newer preview takes the place of an older one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from backends.spec import ArmEvent, Metric, Note

if TYPE_CHECKING:
    from backends.jobs import Run


class Pile:
    """Events in the order of their coming; of an arm's steps, pauses and figures of one name, the newest alone."""

    def __init__(self, events: Iterable[ArmEvent] = ()):
        self._kept: dict[tuple, ArmEvent] = {}
        for event in events:
            self.add(event)

    def add(self, event: ArmEvent) -> None:
        what = event.event
        key = event.arm, type(what), what.text if isinstance(what, Note) else what.name if isinstance(what, Metric) else ""
        self._kept.pop(key, None)
        self._kept[key] = event

    def __iter__(self) -> Iterator[ArmEvent]:
        return iter(list(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        self._kept.clear()


class Feed:
    """What one who watches a run has not seen yet. Iterating waits for what comes until the run is over; `take` does not wait."""

    def __init__(self, changed: threading.Condition, run: "Run", past: Iterable[ArmEvent], left: Callable[["Run", "Feed"], None]):
        self._changed, self._run, self._new, self._left = changed, run, Pile(past), left

    def add(self, event: ArmEvent) -> None:
        self._new.add(event)

    def take(self) -> list[ArmEvent] | None:
        """What is new, which may be nothing; None once all was taken and the run is over."""
        with self._changed:
            if not self._new and self._run.over:
                return None
            new = list(self._new)
            self._new.clear()
            return new

    def __iter__(self) -> Iterator[ArmEvent]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._run.over)
            if (new := self.take()) is None:
                return
            yield from new

    def close(self) -> None:
        with self._changed:
            self._left(self._run, self)

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_) -> None:
        self.close()
