"""From a press on Run to what the tab shows. A run belongs to the queue (backends/jobs.py); a tab watches it, and may come back to it.

The page's sessions hold tickets: which run a tab shows, so that Stop and Pause find it, also while it is being submitted.
"""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import anyio
import gradio as gr

from backends import jobs, models, recipe, votes
from backends.jobs import Kept, Run
from backends.spec import ArmEvent, BadInput, Task
from ui import ballot, boards, views, visitor
from ui.boards import RUNNING, Board
from ui.form import job
from ui.results import SKIP

TICK = 0.05  # seconds between two looks at what is new
LINE = 0.4  # seconds between two looks at the queue while nothing new comes
BEAT = 5.0  # at least so often something is sent: only then Gradio finds out who has left, and the page that it is still told (lost.py)
QUEUED = """() => '<p class="running queued">on its way to the queue …</p>'"""
PAUSED = '<p class="running pausing">pausing after this step …</p>'
STOPPED = '<p class="running">stopping after this step …</p>'
# Where nothing runs any more there is nothing to say, and it would stay.
STOPPING = f"""(said) => (said ?? '').includes('class="running') ? '{STOPPED}' : said"""
PAUSING, RESUMING = (f"() => '{said}'" for said in (PAUSED, RUNNING))
INTERRUPTED = "Interrupted: the studio ended while this ran. What it had made by then is here; Run makes it anew."
UNKEPT = "The result could not be kept among your runs, as the studio's disk takes no more. Download it now if you want to have it."
NO_ROOM = "The studio's disk is full, so the results can't be shown. Tell the host, and run this again once there is room."
log = logging.getLogger(__name__)


@dataclass
class Ticket:
    """A run that a tab, or a call of the API, asked for or shows. `run`: None until it is submitted, and for another visitor's; `left`: it is not
    watched here any more, as the tab shows something else or the session is over."""

    run: Run | None = None
    stopped: bool = False
    left: bool = False

    def close(self) -> None:
        self.left = True
        for key in [key for key, ticket in list(_tickets.items()) if ticket is self]:
            _tickets.pop(key, None)


_tickets: dict[tuple[str, str], Ticket] = {}  # (session, task or call) -> the newest


def take(request: gr.Request, task: str, ticket: Ticket) -> Ticket:
    """The ticket takes the place of the one before it."""
    leave(request.session_hash, task)
    _tickets[request.session_hash, task] = ticket
    return ticket


def leave(session: str, task: str = "") -> None:
    """The tab, or all of the session's, is to show something else: its run goes on without it."""
    for key, ticket in list(_tickets.items()):
        if key[0] == session and task in ("", key[1]):
            ticket.close()


def closed(request: gr.Request) -> None:
    """The page was closed, or a program's session."""
    leave(request.session_hash)


async def news(run: Run, ticket: Ticket) -> AsyncIterator[list[ArmEvent]]:
    """What is new of a run, which may be nothing, every TICK until it is over or left."""
    with jobs.studio().watch(run) as feed:
        while (events := feed.take()) is not None and not ticket.left:
            yield events
            await asyncio.sleep(TICK)


# --- buttons ---------------------------------------------------------------------------------------------


def waiter(task: Task) -> Callable:
    """The light half of a press on Run: a ticket from the start, so that what is still on its way can be stopped."""

    def press(request: gr.Request) -> None:
        take(request, task.slug, Ticket())

    return press


def stopper(task: Task) -> Callable:
    def press(request: gr.Request) -> None:
        ticket = _tickets.get((request.session_hash, task.slug), Ticket())
        ticket.stopped = True
        if ticket.run:
            jobs.studio().stop(ticket.run)

    return press


def pauser(task: Task, on: bool) -> Callable:
    """The handler of Pause (`on`) and of Resume."""

    def press(request: gr.Request) -> None:
        ticket = _tickets.get((request.session_hash, task.slug))
        if ticket and ticket.run:
            jobs.studio().pause(ticket.run, on)

    return press


# --- the two ways to a run -------------------------------------------------------------------------------


def filled(columns: list, values: tuple) -> list[dict]:
    """The recipe's arms from the values of all columns' sources."""
    rest = iter(values)
    return [column.filled(list(itertools.islice(rest, len(column.sources)))) for column in columns]


def runner(task: Task, names: tuple[str, ...], columns: list, axes: Callable[[tuple], dict] | None = None) -> Callable:
    """The handler of Run for a tab whose panel has the fields `names`; of “Run grid” with `axes`, which makes the recipe's grid of the last values."""

    def submitted(request: gr.Request, values: tuple) -> Run:
        panel = dict(zip(names, values))
        given, pictures = job(task, panel, panel.values())
        asked = {"schema": recipe.SCHEMA, "task": task.slug, "model": panel["model"], "job": given, "arms": filled(columns, values[len(names) :])}
        asked |= {"apart": True} if panel.get("apart") else {}
        if axes:
            asked |= {"arms": asked["arms"][:1], "grid": axes(values)}
        blind = bool(panel.get("blind")) and not axes and len(columns) > 1
        return jobs.studio().submit(asked, pictures, visitor.owner(request), blind=blind, line=visitor.line(request))

    async def go(request: gr.Request, *values) -> AsyncIterator[list]:
        ticket = _tickets.get((request.session_hash, task.slug)) or take(request, task.slug, Ticket())
        try:
            run = await anyio.to_thread.run_sync(submitted, request, values)
        except Exception as failure:
            yield boards.blank(len(columns), _said(failure))
            return
        ticket.run = run
        if ticket.stopped:
            jobs.studio().stop(run)
        async for row in _follow(run, ticket, [c.id for c in columns]):
            yield row

    return go


def watcher(task: Task, name: str, columns: list) -> Callable:
    """The handler that shows the run of that name in a tab whose arms are its own: as it goes on, or what it left."""

    async def go(request: gr.Request) -> AsyncIterator[list]:
        run = await anyio.to_thread.run_sync(jobs.studio().find, name, visitor.owner(request), True)
        async for row in shown(task, run, request, columns):
            yield row

    return go


async def shown(task: Task, run: Run | None, request: gr.Request, columns: list) -> AsyncIterator[list]:
    """The rows of a tab whose arms are the run's: as it goes on, or what it left; None is one that is not there."""
    if run is None:
        yield boards.blank(len(columns), f'<p class="note">{GONE}</p>')
        return
    mine = run.owner == visitor.owner(request)
    ticket = take(request, task.slug, Ticket(run if mine else None))
    since = "" if not run.over else f"{'Kept' if mine else 'Shared with you'}, from {time.strftime('%d %b %Y, %H:%M', time.localtime(run.at))}."
    async for row in _follow(run, ticket, [c.id for c in columns], since, mine):
        yield row


GONE = "This run is not kept any more, or its owner has not shared it."


async def _follow(run: Run, ticket: Ticket, ids: list[str], note: str = "", mine: bool = True) -> AsyncIterator[list]:
    """The rows that a tab is given while it watches the run. `note`: what is said of it at the end."""
    studio, board = jobs.studio(), ballot.board(run, ids, mine)
    said, now, sent, due = "", "", time.monotonic(), 0.0
    try:
        yield board.begin()
        async with aclosing(news(run, ticket)) as fresh:
            async for events in fresh:
                row = await anyio.to_thread.run_sync(board.see, events) if events else board.start() if run.state == "running" else None
                if mine and (row or time.monotonic() >= due):  # of a hundred who wait, each asks for the whole queue
                    now, due = line(studio, run, board), time.monotonic() + LINE
                beat = time.monotonic() - sent > BEAT
                if row or now != said or beat:
                    yield [beaten(now) if beat else SKIP if now == said else now, *(row or boards.blank(len(ids)))[1:]]
                    said, sent = now, time.monotonic()
        if not ticket.left:
            row = await anyio.to_thread.run_sync(board.end)
            yield [ending(run, note), *row[1:]]
    except OSError as error:
        if not models.want(error):
            raise
        log.exception("a page could not be drawn")
        yield boards.blank(len(ids), f'<p class="error" role="alert">{NO_ROOM}</p>')
    finally:
        ticket.close()


# --- what is said under the buttons ----------------------------------------------------------------------


def line(studio: jobs.Executor, run: Run, board: Board) -> str:
    """What the panel says of one's run that waits or runs. The address bar follows data-run (theme.py)."""
    data, known = f' data-run="{run.id}"', studio.estimate(run)
    if place := studio.place(run):
        return f'<p class="running queued"{data}>{PLACES.get(place, f"{place} in line")}{"" if known is None else f" · done in about {lasting(known)}"}</p>'
    if run.stopped and run.stopped():  # an ended one that was brought back has no switches
        return STOPPED.replace("<p", f"<p{data}")
    if board.held:
        left = f"{math.ceil(board.held / 60)} min" if board.held > 60 else f"{math.ceil(board.held)} s"
        return f'<p class="running paused"{data}>Paused. The clock stands; by itself it goes on in {left}, since others may wait. Stop keeps what there is.</p>'
    if board.spent:
        return f'<p class="running spent"{data}>Paused long enough: it goes on, so that the queue does.</p>'
    if run.state == "running" and run.held():
        return PAUSED.replace("<p", f"<p{data}")
    return f'<p class="running"{data}>running …{"" if known is None else f" about {lasting(known)} left"}</p>'


def beaten(said: str) -> str:
    """What the panel says, or of another's run “running …”, so that the page sees it come though nothing is new."""
    return (said or RUNNING).replace("<p", f'<p data-beat="{time.monotonic():.0f}"', 1)


def share(run: Run) -> float:
    """How much of a run that waits or runs is done, from 0 to 1, in arms or cells and their steps."""
    progress = run.progress
    return (progress.arm + (progress.i / progress.n if progress.n else 0)) / len(run.cells)


def standing(run: Run) -> str:
    """Where a run that waits or runs stands, in words and without markup: “running · about 8 s left · arm 1 of 2, step 3 of 25”."""
    studio, progress = jobs.studio(), run.progress
    known = studio.estimate(run)
    if place := studio.place(run):
        return PLACES.get(place, f"{place} in line") + ("" if known is None else f" · done in about {lasting(known)}")
    state = "paused" if progress.paused else "running" if known is None else f"running · about {lasting(known)} left"
    what = "cell" if run.given.get("grid") else "arm"
    return state + (f" · {what} {progress.arm + 1} of {len(run.cells)}, step {progress.i} of {progress.n}" if progress.n else "")


PLACES = {1: "next in the queue", 2: "second in the queue", 3: "third in the queue"}


def lasting(seconds: float) -> str:
    """“8 s”, “40 s”, “3 min”: as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds)) if seconds < 10 else 5 * math.ceil(seconds / 5)} s"
    return f"{math.ceil(seconds / 60)} min"


def ending(run: Run, note: str = "") -> str:
    """What the panel says of a run that is over."""
    data = f' data-run="{run.id}"'
    if run.error:
        return f'<p class="error" role="alert"{data}>{views.escape(run.error)}</p>'
    if run.state == "interrupted":
        return f'<p class="error" role="alert"{data}>{INTERRUPTED} {reached(run)}</p>'
    if run.unkept:
        return f'<p class="error" role="alert"{data}>{UNKEPT}</p>'
    return f'<p class="note"{data}>{note}</p>'


def reached(run: Run | Kept) -> str:
    """How far a run came that was interrupted; nothing while its arms are not to be told apart (ballot.py)."""
    store = jobs.studio().store
    found = store.ballot(run.id)
    return "" if found and found.state == votes.OPEN else jobs.reached(run, store.events(run.id))


def _said(failure: Exception) -> str:
    """What the panel says of a run that was not taken; what we did not foresee goes to the log."""
    if not isinstance(failure, BadInput):
        log.error("a run was not taken", exc_info=failure)
    said = str(failure) if isinstance(failure, BadInput) else "The run failed; the log holds the details."
    return f'<p class="error" role="alert">{views.escape(said)}</p>'
