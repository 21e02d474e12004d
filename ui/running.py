"""From a press on Run to what the tab shows: events become previews, then the summary under the arms."""

import csv
import io
import itertools
import json
import logging
import math
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import numpy as np

import backends
from backends import headless, recipe
from backends.registry import METHODS, TASKS
from backends.spec import Audio, BadInput, Held, Image, Outcome, Step, Task, Turntable
from ui import form, history, sound, views

_running: dict[tuple[str, str], threading.Event] = {}  # (session, task) -> its stop flag
_paused: set[tuple[str, str]] = set()  # those that shall wait after their step
SKIP = gr.skip()
QUEUED = """() => '<p class="running queued">waiting in the queue …</p>'"""
RUNNING = '<p class="running">running …</p>'
VIEWED = {".glb": "surface", ".ply": "Gaussians"}  # files that the viewer of objects shows
PAUSING, RESUMING = (f"() => '{said}'" for said in ('<p class="running pausing">pausing after this step …</p>', RUNNING))
log = logging.getLogger(__name__)
UNDER = 14  # components that `under` fills


@dataclass
class Shown:
    """What a run left on its tab: `arms`: arm id -> (path of the picture, what is said under it)."""

    arms: dict[str, tuple] = field(default_factory=dict)
    pictures: list[tuple[str, np.ndarray]] = field(default_factory=list)  # (title, pixels) of each arm with a picture
    table: str = ""
    switch: str = ""  # between the arms' sounds
    solids: list[tuple[str, str]] = field(default_factory=list)  # (title, path) of what the viewer of objects can show
    bundle: str | None = None
    recipe: str = ""

    def parts(self) -> tuple:
        """(table, switch, choices, slider, difference map, its line, bundle, recipe), for compare._under."""
        choices = named(self.pictures)
        return self.table, self.switch, choices, *(pair(self, 0, 1) if len(choices) > 1 else (None, None, "")), self.bundle, self.recipe


def named(pairs: list[tuple]) -> list[tuple[str, int]]:
    """A chooser's choices between (title, what it stands for): it gives a place, never a path."""
    return [(title, i) for i, (title, _) in enumerate(pairs)]


def stop(session: str, task: str = "") -> None:
    """End what the session has running in the task's tab; in all tabs when none is named."""
    for (owner, slug), flag in list(_running.items()):
        if owner == session and task in ("", slug):
            flag.set()


def waiter(task: Task) -> Callable:
    """The light half of a press on Run: a stop flag from the start, so that a run still in the queue can be stopped."""

    def press(request: gr.Request) -> None:
        key = request.session_hash, task.slug
        if key not in _running or _running[key].is_set():
            _running[key] = threading.Event()
            _paused.discard(key)  # which was meant for the run that is being stopped

    return press


def stopper(task: Task) -> Callable:
    def press(request: gr.Request) -> None:
        stop(request.session_hash, task.slug)

    return press


def pauser(task: Task, on: bool) -> Callable:
    """The handler of Pause (`on`) and of Resume."""

    def press(request: gr.Request) -> None:
        key = request.session_hash, task.slug
        if on and key in _running:
            _paused.add(key)
        else:
            _paused.discard(key)

    return press


def leave(request: gr.Request) -> None:
    """The page was closed."""
    stop(request.session_hash)


def filled(columns: list, values: tuple) -> list[dict]:
    """The recipe's arms from the values of all columns' sources."""
    rest = iter(values)
    return [column.filled(list(itertools.islice(rest, len(column.sources)))) for column in columns]


def runner(task: Task, names: tuple[str, ...], columns: list) -> Callable:
    """The handler of Run for a tab whose panel has the fields `names`."""

    def go(request: gr.Request, past: list, *values) -> Iterator[list]:
        panel = dict(zip(names, values))
        key = request.session_hash, task.slug
        flag = _running.setdefault(key, threading.Event())
        blank = [SKIP] * (2 + UNDER + 2 * len(columns))
        try:
            job, pictures = form.job(task, panel, panel.values())
            arms = filled(columns, values[len(names) :])
            given = {"schema": recipe.SCHEMA, "task": task.slug, "model": panel["model"], "job": job, "arms": arms}
            yield from _run(given, pictures, past, flag, [c.id for c in columns], lambda: key in _paused)
        except Exception as failure:
            yield [_said(failure), *blank]
        finally:
            if _running.get(key) is flag:
                del _running[key]
                _paused.discard(key)

    return go


def _said(failure: Exception) -> str:
    """What the panel says of a run that could not begin; what we did not foresee goes to the log."""
    if not isinstance(failure, BadInput):
        log.error("a run failed", exc_info=failure)
    said = str(failure) if isinstance(failure, BadInput) else "The run failed; the log holds the details."
    return f'<p class="error" role="alert">{views.escape(said)}</p>'


def _run(given: dict, pictures: dict, past: list, flag: threading.Event, ids: list[str], pause: Callable[[], bool] = lambda: False) -> Iterator[list]:
    n, held = len(ids), False
    lives = [views.Live("loading" if i == 0 else "waiting", TASKS[given["task"]].pictures) for i in range(n)]
    outcomes: list[Outcome] = []
    finals, files = [None] * n, [[]] * n  # of a picture, of a sound or object
    events, failed = backends.run(given, pictures, flag.is_set, pause), ""
    try:
        hidden = [gr.Column(visible=False), *[SKIP] * (UNDER - 1)]
        yield [RUNNING, None, SKIP, *hidden, *finals, *(live.html for live in lives)]
        for event in events:
            lives[event.arm].see(event)
            shown: list = [SKIP] * n
            if isinstance(event.event, Step) and isinstance(event.event.show, Image):
                shown[event.arm] = event.event.show.pixels
            elif isinstance(event.event, Outcome):
                outcomes.append(event.event)
                shown[event.arm] = finals[event.arm] = final(event.event, pictures)
                lives[event.arm].files = files[event.arm] = taken(event.event, pictures)
            said = _held(event.event.left) if isinstance(event.event, Held) else RUNNING if held else SKIP
            held = isinstance(event.event, Held) and event.event.left > 0
            yield [said, *[SKIP] * (2 + UNDER), *shown, *(live.html if i == event.arm else SKIP for i, live in enumerate(lives))]
    except Exception as failure:  # such as a model that can't be had
        failed = _said(failure)
    finally:
        events.close()
    for live in lives[len(outcomes) :]:
        live.state = "skipped"
    if failed:
        yield [failed, *[SKIP] * (2 + UNDER + n), *(live.html for live in lives)]
        return
    shown = summary(given, pictures, outcomes, files)
    shown.arms = dict(zip(ids, zip(finals, (live.html for live in lives))))
    yield ["", shown, history.add(past, given, pictures, outcomes), *under(shown), *[SKIP] * n, *(live.html for live in lives)]


def _held(left: float) -> str:
    """What the panel says of a paused run that has `left` seconds."""
    if not left:
        return '<p class="running spent">Paused long enough: it goes on, so that the queue does.</p>'
    time = f"{math.ceil(left / 60)} min" if left > 60 else f"{math.ceil(left)} s"
    return f'<p class="running paused">Paused. The clock stands; by itself it goes on in {time}, since others may wait. Stop keeps what there is.</p>'


def final(outcome: Outcome, pictures: dict) -> str | None:
    """The path of a PNG file with the recipe inside; None when the arm gave no picture."""
    if not isinstance(outcome.value, Image):
        return None
    data = recipe.png(outcome.value.pixels, outcome.recipe, pictures)
    return sound.saved(data, f"{_name(outcome)}.png")


def taken(outcome: Outcome, pictures: dict) -> list[str]:
    """The paths of a sound's or an object's files (headless.files_of): FLAC; GLB, or PNG while it has no surface, the WebP in which it turns, splats."""
    files = headless.files_of(outcome, pictures) if isinstance(outcome.value, Audio | Turntable) else []
    return [sound.saved(data, f"{_name(outcome)}{ending}") for ending, data, _ in files]


def _name(outcome: Outcome) -> str:
    return f"unnoise-{outcome.arm + 1}-{outcome.recipe['arms'][0]['method']}-{outcome.recipe['job'].get('seed', 0)}"


def summary(given: dict, pictures: dict, outcomes: list[Outcome], files: list[list[str]] = ()) -> Shown:
    """`files`: those of each arm's sound or object, for the switch and the viewer."""
    slugs = [[arm["method"], *(s["method"] for s in arm["stack"])] for arm in given["arms"]]
    titles = [" + ".join(METHODS[slug].title for slug in arm) for arm in slugs]
    pictures_of = [(o, o.value) for o in outcomes if isinstance(o.value, Image)]
    # Before and after is the first pair that is seen; the others are chosen.
    seen = [("as it came", views.fitted(value.before, value.pixels)) for _, value in pictures_of[:1] if value.before is not None]
    seen += [(f"{o.arm + 1} · {titles[o.arm]}", value.pixels) for o, value in pictures_of]
    whole = recipe.with_outcome(given, arms=[o.recipe["outcome"] | {"error": o.error} for o in outcomes])
    names = [titles[o.arm] for o in outcomes]
    table = views.metrics_table(names, outcomes) if outcomes else ""
    heard = [(f"{o.arm + 1} · {titles[o.arm]}", o.arm, o.value, files[o.arm][0]) for o in outcomes if isinstance(o.value, Audio) and files]
    fields = {value["sha256"]: form.words(name) for name, value in reversed(given["job"].items()) if isinstance(value, dict)}  # of two with one sound the first
    asked = [(fields.get(digest, "input"), -1, value, sound.file(value)) for digest, value in pictures.items() if isinstance(value, Audio) and heard]
    solids = [(f"{o.arm + 1} · {titles[o.arm]}, {VIEWED[Path(path).suffix]}", path)
              for o in outcomes if isinstance(o.value, Turntable) and files for path in files[o.arm] if Path(path).suffix in VIEWED]  # fmt: skip
    return Shown({}, seen, table, sound.switch(heard + asked), solids, _bundle(whole, pictures, outcomes, names), json.dumps(whole, indent=1))


def under(shown: Shown) -> list:
    """Updates of compare._under's components."""
    table, switch, choices, slider, heat, said, bundle, code = shown.parts()
    two = len(choices) > 1
    choosers = [gr.Dropdown(choices=choices, value=i) if two else SKIP for i in (0, 1)]
    # The viewer draws nothing when it is given its object in the event that shows it: `solid` is called after.
    solid = [gr.Column(visible=bool(shown.solids)), gr.Dropdown(choices=named(shown.solids), value=0) if shown.solids else SKIP, None]
    return [
        gr.Column(visible=bool(table)), table, switch, gr.Row(visible=two), *choosers, *([slider, heat, said] if two else [SKIP] * 3), *solid, bundle, code,
    ]  # fmt: skip


def solid(shown: Shown | None, i: int = 0) -> str | None:
    """The file of the object that the viewer shows."""
    return shown.solids[i][1] if shown and shown.solids else None


def pair(shown: Shown, a: int, b: int) -> tuple:
    """Before/after slider, difference map and its line for two arms."""
    left, right = shown.pictures[a][1], shown.pictures[b][1]
    heat, said = views.difference(left, right)
    return (left, right), heat, f'<p class="said">Difference: {said}.</p>'


def _bundle(whole: dict, pictures: dict, outcomes: list[Outcome], names: list[str]) -> str:
    """A zip of the results, the recipe with its inputs, and the figures as CSV."""
    out, rows = io.BytesIO(), io.StringIO()
    columns = list(dict.fromkeys(m.name for o in outcomes for m in o.metrics))
    table = csv.writer(rows)
    table.writerow(["arm", "method", "seconds", "nfe", "peak_mb", *columns, "stopped", "error"])
    with zipfile.ZipFile(out, "w") as archive:
        for outcome, name in zip(outcomes, names):
            measured = {m.name: m.value for m in outcome.metrics}
            table.writerow(
                [outcome.arm + 1, name, outcome.seconds, outcome.nfe, outcome.peak_mb, *(measured.get(c, "") for c in columns), outcome.stopped, outcome.error]
            )
            for ending, data, _ in headless.files_of(outcome, pictures):
                archive.writestr(f"{_name(outcome)}{ending}", data)
        archive.writestr("recipe.json", json.dumps(recipe.with_inputs(whole, pictures), indent=1))
        archive.writestr("figures.csv", rows.getvalue())
    return sound.saved(out.getvalue(), "unnoise-comparison.zip")
