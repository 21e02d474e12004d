"""What a tab shows of a run, filled by its events: arms beside each other, or the cells of a grid.

Each method of a board gives a row of updates: message, results, *under, *the grid's parts, ballot, *pictures, *lives.
"""

import time

import gradio as gr

from backends import grids
from backends.jobs import Run
from backends.registry import TASKS
from backends.spec import ArmEvent, Held, Image, Outcome, Step
from ui import cells, results, views
from ui.results import SKIP, UNDER

RUNNING = '<p class="running">running …</p>'
BETWEEN = 0.4  # seconds at least between two updates of a grid


def board(run: Run, ids: list[str]) -> "Board":
    """`ids`: those of the tab's arms."""
    return GridBoard(run, ids) if run.given.get("grid") else Board(run.given, run.pictures, ids)


def blank(arms: int, message=SKIP) -> list:
    """The row that changes nothing but the message."""
    return [message, *[SKIP] * (2 + UNDER + cells.PARTS + 2 * arms)]


class Board:
    """A tab's arms and what stands under them. `ids`: of the columns; `lives`: what is said of each arm, or of each cell; `verdict`: what was voted
    before the names were shown."""

    def __init__(self, given: dict, pictures: dict, ids: list[str]):
        self.given, self.pictures, self.ids = given, pictures, ids
        count = len(grids.cells(given))
        self.lives = [views.Live("waiting", self._above) for _ in range(count)]
        self.outcomes: list[Outcome] = []
        self.finals, self.files = [None] * count, [[]] * count  # of a picture; of a sound, object or cube
        self.last = list(self.finals)  # the newest picture
        self.verdict = ""
        self.held, self.spent = 0.0, False  # seconds that a pause may still last; whether they are used up

    @property
    def _above(self) -> bool:
        """Whether a picture stands above what is said."""
        return TASKS[self.given["task"]].pictures

    def _row(self, message=SKIP, shown=SKIP, under=None, grid=None, pictures=None, lives=None, ballot=SKIP) -> list:
        n = len(self.ids)
        return [message, shown, *(under or [SKIP] * UNDER), *(grid or [SKIP] * cells.PARTS), ballot, *(pictures or [SKIP] * n), *(lives or [SKIP] * n)]

    def _begun(self, grid: list, pictures: list, lives: list, ballot: str = "") -> list:
        return self._row(RUNNING, None, [gr.Column(visible=False), *[SKIP] * (UNDER - 1)], grid, pictures, lives, ballot or self.verdict)

    def _take(self, event: ArmEvent) -> None:
        what = event.event
        self.lives[event.arm].see(event)
        if isinstance(what, Held):
            self.held, self.spent = what.left, not what.left
        elif self.held:
            self.held = 0.0
        if isinstance(what, Outcome):
            self.outcomes.append(what)
            self.lives[event.arm].files = self.files[event.arm] = results.taken(what, self.pictures)

    def begin(self) -> list:
        return self._begun(["", "", ""], list(self.finals), [live.html for live in self.lives])

    def start(self) -> list | None:
        """It runs now, and says nothing yet; None once that was said."""
        if self.lives[0].state != "waiting":
            return None
        self.lives[0].state = "loading"
        return self._row(lives=[self.lives[0].html, *[SKIP] * (len(self.ids) - 1)])

    def see(self, events: list[ArmEvent]) -> list | None:
        """What they change; None when there is nothing to show yet."""
        pictures, lives = [SKIP] * len(self.ids), [SKIP] * len(self.ids)
        for event in events:
            arm, what = event.arm, event.event
            self._take(event)
            if isinstance(what, Step) and isinstance(what.show, Image):
                pictures[arm] = self.last[arm] = what.show.pixels
            elif isinstance(what, Outcome):
                pictures[arm] = self.finals[arm] = self.last[arm] = results.final(what, self.pictures)
        for arm in {event.arm for event in events}:
            lives[arm] = self.lives[arm].html
        return self._row(pictures=pictures, lives=lives)

    def end(self) -> list:
        """What is left to show once the run is over."""
        ended = {o.arm for o in self.outcomes}
        for arm, live in enumerate(self.lives):
            if arm not in ended:
                live.state = "cut" if live.i else "skipped"  # by a studio that ended, or a run that failed
        if not self.outcomes:
            return self._last(None)
        return self._last(results.summary(self.given, self.pictures, self.outcomes, self.files))

    def _last(self, shown: results.Shown | None) -> list:
        lives = [live.html for live in self.lives]
        pictures = [SKIP if last is None else last for last in self.last]  # again: of rows that come at once the page may show the last alone
        if shown is None:
            return self._row("", None, pictures=pictures, lives=lives, ballot=self.verdict)
        shown.arms = dict(zip(self.ids, zip(self.finals, lives)))
        return self._row("", shown, results.under(shown), None, pictures, lives, self.verdict)


class GridBoard(Board):
    """A grid's cells. Only those that changed are sent, and each change twice, since of rows that come at once the page may show the last alone."""

    def __init__(self, run: Run, ids: list[str]):
        super().__init__(run.given, run.pictures, ids)
        self.run, self.new, self.told, self.sent = run, set(), set(), 0.0

    @property
    def _above(self) -> bool:
        return False

    def begin(self) -> list:
        return self._begun([self._frame(), "", ""], [None] * len(self.ids), [""] * len(self.ids))

    def _frame(self, sheet: str = "") -> str:
        return cells.frame(self.run.id, self.given["grid"], self.lives, sheet)

    def start(self) -> list | None:
        if self.lives[0].state == "waiting":
            self.lives[0].state = "loading"
            self.new.add(0)
        return self._news()

    def see(self, events: list[ArmEvent]) -> list | None:
        for event in events:
            self._take(event)
            self.new.add(event.arm)
        return self._news()

    def _news(self) -> list | None:
        now = time.monotonic()
        if not self.new or now - self.sent < BETWEEN or self.run.over:  # then the whole frame follows at once
            return None
        said = sorted(self.new | self.told)
        self.new, self.told, self.sent = set(), self.new, now
        return self._row(grid=[SKIP, "".join(cells.cell(i, self.lives[i]) for i in said), SKIP])

    def _last(self, shown: results.Shown | None) -> list:
        frame = self._frame(shown.sheet if shown else "")
        if shown is None:
            return self._row("", None, grid=[frame, "", SKIP])
        shown.arms, shown.grid = {name: (None, "") for name in self.ids}, frame
        return self._row("", shown, results.under(shown), [frame, "", SKIP])
