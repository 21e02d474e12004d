"""The queue: a run is submitted, a worker runs it, and whoever may watches it, now or later, from one page or from several.

    jobs = studio()
    run = jobs.submit(recipe, inputs, owner)       # raises BadInput; the run goes on whether anyone watches or not
    for event in jobs.watch(run): ...              # where it stands, then what comes; a slow reader misses previews and delays nobody
    jobs.stop(run); jobs.pause(run); jobs.place(run); jobs.estimate(run)

The order is fair: owners take turns, who has just had one is the last, and of one owner's runs the oldest is next. What has run is kept in a Store,
from which `find` brings it back.
Only `source` knows how a run is made, `slots` how many may be at once: replicas elsewhere need another source and as many slots, and nothing else.
"""

import contextvars
import dataclasses
import functools
import importlib.util
import logging
import os
import secrets
import sqlite3
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import backends
from backends import estimates, gpu, grids, models, recipe, runner, votes
from backends.estimates import Progress
from backends.feeds import Feed, Pile
from backends.registry import METHODS
from backends.spec import ArmEvent, BadInput, Outcome, Result, Step, Task, Text, Tokens
from backends.store import ENDED, SESSION, Kept, Store  # noqa: F401 (SESSION: for the page, which knows no store)

MOST, OWN = 200, 8  # runs that may wait, of all and of one owner
BYTES, OWN_BYTES = 2**30, 2**28  # of the inputs of those, decoded: a file of some kilobytes can be a picture of 50 MB
LEFT_SECONDS = 600.0  # a running run that nobody has watched for so long is stopped when others wait
HELD_SECONDS = 60.0  # a paused one goes on
LOOK_SECONDS = 1.0  # between two looks at that
KEEP_SECONDS = 5.0  # at least, between two times that the steps of what runs are kept, in case the server is killed
KEEP_SHARE = 0.02  # of the time at most that this takes
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flag:
    """A switch that is seen from other processes, since ZeroGPU runs a method in one of its own: a file that is there or not."""

    path: Path

    def __call__(self) -> bool:
        return self.path.exists()

    def turn(self, on: bool) -> None:
        self.path.touch() if on else self.path.unlink(missing_ok=True)


@dataclass(eq=False)
class Run:
    """`given`, `pictures`: a recipe as recipe.build makes it and the inputs it names. `state`: queued, running, or one of store.ENDED; `error`: why there
    is no result, a sentence. `at`, `began`, `ended`: seconds since 1970. `line`: in whose name it waits, the owner's where there is no other. The rest is the executor's."""

    id: str
    owner: str
    given: dict
    pictures: dict
    line: str = ""
    state: str = "queued"
    error: str = ""
    at: float = field(default_factory=time.time)
    began: float = 0.0
    ended: float = 0.0
    shared: bool = False
    kept: bool = True
    unkept: bool = False  # whether the store failed to take what it made
    row: tuple = ()  # what the store has not been told of it yet
    due: float = 0.0  # when its steps are kept next
    events: Pile | None = None  # None: they are in the store
    feeds: set[Feed] = field(default_factory=set)
    seen: float = field(default_factory=time.monotonic)  # when the last one who watched it left, or it began
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    progress: Progress | None = None
    stopped: Flag | None = None
    held: Flag | None = None

    def __post_init__(self):
        self.line = self.line or self.owner

    @functools.cached_property
    def cells(self) -> list[dict]:
        """Its arms, or the cells of its grid, each as a recipe of its own."""
        return grids.cells(self.given)

    @property
    def over(self) -> bool:
        """Whether nothing more comes: it has ended, or it is another process's."""
        return self.state in ENDED or self.progress is None


def local(given: dict, pictures: dict, stop: Callable[[], bool], hold: Callable[[], bool]) -> Iterator[ArmEvent]:
    """A run's events without what can't leave the process that made them."""
    for event in backends.run(given, pictures, stop, hold):
        yield portable(event)


def portable(event: ArmEvent) -> ArmEvent:
    """Without functions: the runner has called those that draw, and `keep` was for it alone."""
    return dataclasses.replace(event, event=dataclasses.replace(event.event, keep=None)) if isinstance(event.event, Step) else event


def _borrowed(given: dict, pictures: dict, *_) -> int:
    """Seconds that a run needs the GPU for, by what runs like it took here."""
    return gpu.seconds(given, studio().guess(given, pictures))


def _fetched(given: dict, _, stop: Callable[[], bool], *__) -> Iterator[ArmEvent]:
    """What is said while a run's models are fetched and loaded."""
    for number, cell in enumerate(grids.cells(given)):
        yield from runner.loading(cell["model"], stop, number)


here = gpu.on_gpu(local, _borrowed, _fetched)  # on ZeroGPU it borrows a GPU, in the name of the request in whose context it runs


class Executor:
    def __init__(self, store: Store, source: Callable[..., Iterator[ArmEvent]] = here, slots: int = 1):
        self.store, self._source, self.slots = store, source, slots
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[Run]] = {}  # by line, in the order of their turns
        self._running: list[Run] = []
        self._coming: list[tuple[str, int]] = []  # (line, bytes) of those that are about to wait
        self._unsaid: list[Run] = []  # runs of whose end the store could not be told
        self._closing = False
        self._flags = tempfile.TemporaryDirectory(prefix="unnoise-flags-")
        for kept in self._safely(store.lost) or []:
            self._enqueue(self._restored(kept))
        self._safely(store.clean)
        self._workers = [threading.Thread(target=self._work, daemon=True, name=f"slot-{i}") for i in range(slots)]
        for thread in [*self._workers, threading.Thread(target=self._look_after, daemon=True, name="queue")]:
            thread.start()

    # --- asking ---

    def submit(self, given: dict | str, pictures: dict, owner: str, kept: bool = True, blind: bool = False, line: str = "") -> Run:
        """Raises BadInput when the recipe can't run or too many wait. `kept`: whether the owner finds it among the runs afterwards; `blind`: its arms are
        shown without names, in an order of chance, until the owner votes (store.ballot); `line`: in whose name it waits and takes its turn, where several owners may
        be one program."""
        task, given, pictures = recipe.whole(given, pictures)
        run = Run(secrets.token_urlsafe(12), owner, given, pictures, line, kept=kept)
        new = recipe.size(pictures)
        with self._changed:
            coming = [line for line, _ in self._coming]
            if len(self._waiting.get(run.line, ())) + coming.count(run.line) >= OWN:
                raise BadInput(f"{OWN} of your runs wait already; stop one of them (the page has them under “My runs”), or wait until one has begun.")
            if sum(map(len, self._waiting.values())) + len(coming) >= MOST:
                raise BadInput(f"{MOST} runs wait already; try again in some minutes.")
            waiting = [*self._coming, *((r.line, recipe.size(r.pictures)) for r in self._order())]
            if waiting and (sum(n for _, n in waiting) + new > BYTES or sum(n for who, n in waiting if who == run.line) + new > OWN_BYTES):
                raise BadInput(
                    f"The pictures, sounds, objects and cubes of the runs that wait are too large to take {new >> 20} MB more; try again in some minutes."
                )
            self._coming.append((run.line, new))
        try:
            self._take(run, task, blind)
        finally:
            with self._changed:
                self._coming.remove((run.line, new))
        return run

    def _take(self, run: Run, task: Task, blind: bool) -> None:
        """Keep what was asked and put it into the queue."""
        if run.kept:
            titles = {METHODS[m].title: 0 for c in run.cells for a in c["arms"] for m in (a["method"], *(s["method"] for s in a.get("stack", ())))}
            words = [v for v in run.given["job"].values() if isinstance(v, str)]
            words = " ".join([task.title, task.slug, run.given["model"], *titles, *words])
            run.row = run.id, run.owner, run.given, run.pictures, words, run.at
            self._ask(run) if blind else self._safely(self._begin, run)
        self._enqueue(run)

    def _begin(self, run: Run) -> None:
        """Tell the store of a run that it has not heard of; where that fails, the run is as one that could not be kept, until a later try."""
        if run.row:
            run.unkept = True
            self.store.begin(*run.row)
            run.row, run.unkept = (), False

    def _ask(self, run: Run) -> None:
        """Keep the run with its ballot; raises BadInput where that can't be, since without one its names would be shown."""
        count = len(run.given["arms"])
        try:
            self._begin(run)
            self.store.ask(votes.ballot(run.id, run.owner, run.given, secrets.SystemRandom().sample(range(count), count)))
        except (OSError, sqlite3.Error):
            log.exception("a ballot could not be kept")
            self._safely(self.store.drop, run.id)
            raise BadInput("A blind comparison can't be kept now, so it would not stay blind; try again later, or run it without “Blind”.") from None

    def watch(self, run: Run) -> Feed:
        """The run's events from its beginning, previews that were passed by left out; close it, or use it in a `with`."""
        with self._changed:
            feed = Feed(self._changed, run, Pile(self.store.events(run.id) if run.events is None else run.events), self._left)
            if not run.over:
                run.feeds.add(feed)
            return feed

    def stop(self, run: Run) -> None:
        """End it within a step; one that waits does not begin."""
        with self._changed:
            if run.over:
                return
            if run.state == "running":
                run.stopped.turn(True)
            else:
                self._unqueue(run)
                self._settle(run, "stopped")

    def pause(self, run: Run, on: bool = True) -> None:
        """Hold it after its step (runner.HOLD_SECONDS at most), or let it go on; one that does not run yet is not held."""
        with self._changed:
            if run.state == "running" and not run.over:
                run.held.turn(on)

    def place(self, run: Run) -> int:
        """How many runs begin before it, itself counted: 1 is next; 0 when it does not wait."""
        with self._changed:
            order = self._order()
            return order.index(run) + 1 if run in order else 0

    def estimate(self, run: Run) -> float | None:
        """Seconds until it is done, waiting included; None when the like of it, or of one before it, has not run here yet."""
        with self._changed:
            place = self.place(run)
            own = run.progress.left(not place) if run.progress and not run.over else None
            before = [r.progress.left(r in self._running) for r in [*self._running, *self._order()[: place - 1]]] if place else []
            return None if None in (own, *before) else sum(before) / self.slots + own

    def guess(self, given: dict, pictures: dict) -> float | None:
        """Seconds that a recipe would take, without waiting; None when the like of it has not run here yet."""
        known = self._expected(given, pictures)
        return None if None in known else sum(known)

    # --- one's own ---

    def active(self, owner: str) -> list[Run]:
        """The owner's runs that run or wait, in their order."""
        with self._changed:
            return [run for run in [*self._running, *self._order()] if run.owner == owner and run.kept]

    def find(self, name: str, owner: str, shared: bool = False) -> Run | None:
        """The owner's run of that name, active or kept; with `shared`, also another's that is shared."""
        with self._changed:
            run = next((r for r in [*self._running, *self._order()] if r.id == name and r.kept), None)
        if run is not None:
            return run if run.owner == owner or (shared and run.shared) else None
        kept = self.store.get(name, owner, shared)
        return kept and self._restored(kept)

    def share(self, name: str, owner: str, on: bool) -> Run | None:
        """Let whoever has the link see the recipe, its inputs and results, or nobody else any more. Gives the run if it is the owner's."""
        run = self.find(name, owner)
        if run is not None:
            run.shared = on
            self.store.change(name, shared=on)
        return run

    def leave(self, owner: str) -> None:
        """A session is over and nobody can ask for its runs any more: those that wait or run are stopped, the others deleted."""
        for run in self.active(owner):
            self.stop(run)
        self._safely(lambda: [self.store.delete(kept.id, owner) for kept in self.store.ended(owner, most=-1)[0]])

    # --- the worker's side ---

    def _restored(self, kept: Kept) -> Run:
        given = {f: getattr(kept, f) for f in ("id", "owner", "given", "state", "error", "at", "began", "ended", "shared")}
        return Run(**given, pictures=self.store.inputs(kept.id))

    def _enqueue(self, run: Run) -> None:
        run.stopped, run.held = (Flag(Path(self._flags.name) / f"{run.id}.{kind}") for kind in ("stop", "hold"))
        run.events, run.progress = Pile(), self._progress(run)
        with self._changed:
            self._waiting.setdefault(run.line, deque()).append(run)
            self._changed.notify_all()

    def _expected(self, given: dict, pictures: dict) -> list[float | None]:
        return [self._safely(estimates.expected, self.store, cell, cell["arms"][0], pictures) for cell in grids.cells(given)]

    def _progress(self, run: Run) -> Progress:
        return Progress(self._expected(run.given, run.pictures), apart=self.slots > 1 and bool(run.given.get("apart")))

    def _order(self) -> list[Run]:
        """Those that wait, as they will begin: in rounds, one of each line; who has one running now is the last of each."""
        busy = {run.line for run in self._running}
        queues = [self._waiting[line] for line in sorted(self._waiting, key=busy.__contains__)]
        return [runs[i] for i in range(max(map(len, queues), default=0)) for runs in queues if i < len(runs)]

    def _unqueue(self, run: Run) -> None:
        self._waiting[run.line].remove(run)
        if not self._waiting[run.line]:
            del self._waiting[run.line]

    def _work(self) -> None:
        while (run := self._next()) is not None:
            run.context.run(self._run, run)

    def _next(self) -> Run | None:
        """The run that is next, now running."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._order())
            if self._closing:
                return None
            run = self._order()[0]
            self._unqueue(run)
            self._running.append(run)
            run.state, run.began, run.seen, run.progress = "running", time.time(), time.monotonic(), self._progress(run)
            run.due = run.seen + KEEP_SECONDS
        if run.kept:
            self._safely(self.store.change, run.id, state="running", began=run.began)
        return run

    def _run(self, run: Run) -> None:
        warm = models.loaded(run.given["model"])
        try:
            with closing(self._source(run.given, run.pictures, run.stopped, run.held)) as events:
                for event in events:
                    self._tell(run, event, warm)
        except BadInput as bad:
            run.error = str(bad)
        except BaseException as failure:  # the worker goes on whatever a run does
            log.exception("a run failed")
            lack = models.want(failure)
            run.error = f"The run ended early: {lack}" if lack else "The run failed; the log holds the details."
        events = [e.event for e in run.events]
        outcomes = [e for e in events if isinstance(e, Outcome)]
        stopped = run.stopped() and (len(outcomes) < len(run.cells) or any(o.stopped for o in outcomes))  # not by a press that came too late
        if events and not isinstance(events[-1], Outcome):  # with which all was kept
            self._safely(self._keep, run)
        with self._changed:
            self._running.remove(run)
            if run.line in self._waiting:  # behind all others
                self._waiting[run.line] = self._waiting.pop(run.line)
            for flag in (run.stopped, run.held):
                flag.turn(False)
            broken = run.error or (outcomes and all(o.error for o in outcomes))
            self._settle(run, "interrupted" if stopped and self._closing else "stopped" if stopped else "failed" if broken else "done")
        self._safely(self.store.clean)

    def _tell(self, run: Run, event: ArmEvent, warm: bool) -> None:
        with self._changed:
            took = run.progress.see(event)
            run.events.add(event)
            for feed in run.feeds:
                feed.add(event)
            self._changed.notify_all()
        if isinstance(event.event, Outcome) and not event.event.error and not event.event.stopped:
            cell, before = run.cells[event.arm], run.cells[event.arm - 1] if event.arm else None
            alone = not run.progress.apart and (before["model"] == cell["model"] if before else warm)  # a model that was loaded meanwhile would teach too much
            self._safely(estimates.learn, self.store, cell, cell["arms"][0], run.pictures, took if alone else event.event.seconds)
        now = time.monotonic()
        if isinstance(event.event, Outcome) or (isinstance(event.event, Step) and now > run.due):
            self._safely(self._keep, run)
            run.due = time.monotonic() + max(KEEP_SECONDS, (time.monotonic() - now) / KEEP_SHARE)

    def _keep(self, run: Run) -> None:
        """Its events as they are kept: of the steps only what stands beside the result, of the result its value once."""
        if not run.kept:
            return
        ended = {e.arm for e in run.events if isinstance(e.event, Outcome)}
        lean = []
        for event in run.events:
            if isinstance(event.event, Step) and event.arm in ended:
                event = dataclasses.replace(event, event=dataclasses.replace(event.event, show=None))
            elif isinstance(event.event, Result):
                event = dataclasses.replace(event, event=dataclasses.replace(event.event, value=None))
            lean.append(event)
        if run.row:
            self._begin(run)
            self.store.change(run.id, state=run.state, began=run.began)
        run.unkept = True
        self.store.save(run.id, lean)
        run.unkept = False

    def _settle(self, run: Run, state: str) -> None:
        run.state, run.ended = state, time.time()
        if run.kept:
            said = [e.event.value.text for e in run.events if isinstance(e.event, Outcome) and isinstance(e.event.value, Text | Tokens)]
            self._say(run)
            self._safely(self.store.add_words, run.id, " ".join(said))
        self._changed.notify_all()

    def _say(self, run: Run) -> None:
        """Tell the store of a run's end, later where it can't be told now."""
        try:
            self.store.change(run.id, state=run.state, error=run.error, ended=run.ended)
        except (OSError, sqlite3.Error):
            log.exception("the store failed")
            self._unsaid.append(run)

    def _left(self, run: Run, feed: Feed) -> None:
        """One who watched it closed the feed."""
        run.feeds.discard(feed)
        run.seen = time.monotonic()

    def _look_after(self) -> None:
        """While another line waits, what nobody has watched for long gives way."""
        with self._changed:
            while not self._closing:
                self._changed.wait(LOOK_SECONDS)
                again, self._unsaid = self._unsaid, []
                for run in again:
                    self._say(run)
                for run in self._running:
                    alone = 0.0 if run.feeds or not any(line != run.line for line in self._waiting) else time.monotonic() - run.seen
                    if alone > HELD_SECONDS:
                        run.held.turn(False)
                    if alone > LEFT_SECONDS:
                        run.stopped.turn(True)
                        run.error = f"Stopped, as nobody had watched it for {LEFT_SECONDS / 60:.0f} minutes and others waited."

    def _safely(self, do: Callable, *values, **named):
        """What the store can't do, such as writing to a full disk, ends no run."""
        try:
            return do(*values, **named)
        except (OSError, sqlite3.Error, TypeError):
            log.exception("the store failed")
            return None

    def close(self) -> None:
        """Stop what runs, which counts as interrupted; what waits does so until the next start."""
        with self._changed:
            self._closing = True
            for run in self._running:
                run.stopped.turn(True)
            self._changed.notify_all()
        for thread in self._workers:
            thread.join(30)
        self.store.close()
        self._flags.cleanup()


def reached(run: Run | Kept, events: list[ArmEvent]) -> str:
    """How far a run came that was cut off: “1 of 2 arms had ended, arm 2 was at step 13 of 60.”"""
    what, count, ended = "cell" if run.given.get("grid") else "arm", len(grids.cells(run.given)), {e.arm for e in events if isinstance(e.event, Outcome)}
    under_way = {e.arm: f", {what} {e.arm + 1} was at step {e.event.i} of {e.event.n}" for e in events if isinstance(e.event, Step) and e.arm not in ended}
    return f"{len(ended) or 'None'} of {count} {what}{'s' * (count > 1)} had ended{''.join(under_way.values())}."


_studio: list[Executor] = []
_making = threading.Lock()


def _made() -> Executor:
    """As STUDIO_EXECUTOR says: "ray" runs elsewhere, any other value but "local" is a mistake of the host's."""
    kind = os.environ.get("STUDIO_EXECUTOR", "local")
    if kind not in ("local", "ray"):
        raise SystemExit(f"STUDIO_EXECUTOR is “{kind}”; it can be local or ray.")
    if kind == "local":
        return Executor(Store())
    if importlib.util.find_spec("ray") is None:
        raise SystemExit("STUDIO_EXECUTOR=ray needs Ray; run .venv/bin/pip install -r requirements-ray.txt and start the studio again.")
    from backends.replicas import Replicas

    replicas = Replicas(int(os.environ.get("STUDIO_REPLICAS", "0")))
    return Executor(Store(), replicas, replicas.count)


def studio() -> Executor:
    """The process's own executor, made when it is first asked for."""
    with _making:
        if not _studio:
            _studio.append(_made())
        return _studio[0]


def end() -> None:
    """Before the process ends: what runs is stopped within its step, and kept as interrupted."""
    for made in list(_studio):
        made.close()
