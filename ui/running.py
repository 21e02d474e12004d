"""From a press on Run to what the tab shows: events become previews, then the summary under the arms."""

import csv
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator

import gradio as gr
from gradio import processing_utils, utils

import backends
from backends import recipe
from backends.registry import METHODS
from backends.spec import BadInput, Image, Outcome, Step, Task
from ui import form, history, views

_running: dict[tuple[str, str], threading.Event] = {}  # (session, task) -> its stop flag
SKIP = gr.skip()


def stopper(task: Task) -> Callable:
    def stop(request: gr.Request) -> None:
        if flag := _running.get((request.session_hash, task.slug)):
            flag.set()

    return stop


def leave(request: gr.Request) -> None:
    """The page was closed: end what it had running."""
    for (session, _), flag in list(_running.items()):
        if session == request.session_hash:
            flag.set()


def runner(task: Task, fields: tuple[str, ...], slots: list) -> Callable:
    """The handler of Run for a tab whose panel has `fields` and whose arms have the knobs named by `slots`."""

    def go(request: gr.Request, past: list, *values) -> Iterator[list]:
        panel = dict(zip(fields, values))
        flag = _running[request.session_hash, task.slug] = threading.Event()
        try:
            job, pictures = form.job(task, panel, panel.values())
            arms = _arms(slots, values[len(fields) :])
            given = {"schema": recipe.SCHEMA, "task": task.slug, "model": panel["model"], "job": job, "arms": arms}
            yield from _run(given, pictures, past, flag)
        except BadInput as bad:
            yield [f'<p class="error" role="alert">{views.escape(str(bad))}</p>', *[SKIP] * (12 + 2 * len(slots))]
        finally:
            _running.pop((request.session_hash, task.slug), None)

    return go


def _arms(slots: list, values: tuple) -> list[dict]:
    rest, arms = iter(values), []
    for method, stack, names in slots:
        arm = {"method": method, "knobs": {}, "stack": [{"method": slug, "knobs": {}} for slug in stack]}
        for place, name in names:
            (arm if place is None else arm["stack"][place])["knobs"][name] = next(rest)
        arms.append(arm)
    return arms


def _run(given: dict, pictures: dict, past: list, flag: threading.Event) -> Iterator[list]:
    n = len(given["arms"])
    lives = [views.Live("loading" if i == 0 else "waiting") for i in range(n)]
    outcomes: list[Outcome] = []
    events = backends.run(given, pictures, flag.is_set)
    try:
        yield ['<p class="running">running …</p>', None, SKIP, gr.Column(visible=False), *[SKIP] * 9, *[None] * n, *(live.html for live in lives)]
        for event in events:
            lives[event.arm].see(event)
            shown: list = [SKIP] * n
            if isinstance(event.event, Step) and isinstance(event.event.show, Image):
                shown[event.arm] = event.event.show.pixels
            elif isinstance(event.event, Outcome):
                outcomes.append(event.event)
                shown[event.arm] = final(event.event, pictures)
            yield [*[SKIP] * 13, *shown, *(live.html if i == event.arm else SKIP for i, live in enumerate(lives))]
    finally:
        events.close()
    for live in lives[len(outcomes) :]:
        live.state = "skipped"
    results, under = summary(given, pictures, outcomes)
    yield ["", results, history.add(past, given, pictures, outcomes), *under, *[SKIP] * n, *(live.html for live in lives)]


def final(outcome: Outcome, pictures: dict) -> str | None:
    """The path of a PNG file with the recipe inside; None when the arm gave no picture."""
    if not isinstance(outcome.value, Image):
        return None
    data = recipe.png(outcome.value.pixels, outcome.recipe, pictures)
    return processing_utils.save_bytes_to_cache(data, f"{_name(outcome)}.png", utils.get_upload_folder())


def _name(outcome: Outcome) -> str:
    return f"unnoise-{outcome.arm + 1}-{outcome.recipe['arms'][0]['method']}-{outcome.recipe['job'].get('seed', 0)}"


def titles(given: dict) -> list[str]:
    return [" + ".join(METHODS[m].title for m in [arm["method"], *(s["method"] for s in arm.get("stack", []))]) for arm in given["arms"]]


def summary(given: dict, pictures: dict, outcomes: list[Outcome]) -> tuple[list, list]:
    """(what `pair` needs, updates of compare._under's components)."""
    names = titles(given)
    results = [{"title": f"{o.arm + 1} · {names[o.arm]}", "pixels": o.value.pixels} for o in outcomes if isinstance(o.value, Image)]
    whole = recipe.with_outcome(given, arms=[o.recipe["outcome"] | {"error": o.error} for o in outcomes])
    bundle = _bundle(whole, pictures, outcomes, [names[o.arm] for o in outcomes])
    two = len(results) > 1
    choices = [(r["title"], i) for i, r in enumerate(results)]
    choosers = [gr.Dropdown(choices=choices, value=i) if two else SKIP for i in (0, 1)]
    return results, [
        gr.Column(visible=bool(outcomes)), views.metrics_table([names[o.arm] for o in outcomes], outcomes), gr.Row(visible=two), *choosers,
        *(pair(results, 0, 1) if two else [SKIP] * 3), bundle, json.dumps(whole, indent=1),
    ]  # fmt: skip


def pair(results: list, a: int, b: int) -> list:
    """Before/after slider, difference map and its line for two arms."""
    left, right = results[a]["pixels"], results[b]["pixels"]
    heat, said = views.difference(left, right)
    return [(left, right), heat, f'<p class="said">Difference: {said}.</p>']


def _bundle(whole: dict, pictures: dict, outcomes: list[Outcome], names: list[str]) -> str:
    """A zip of the pictures, the recipe with its inputs, and the figures as CSV."""
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
            if isinstance(outcome.value, Image):
                archive.writestr(f"{_name(outcome)}.png", recipe.png(outcome.value.pixels, outcome.recipe, pictures))
        archive.writestr("recipe.json", json.dumps(whole | {"inputs": recipe.encode_pictures(pictures)}, indent=1))
        archive.writestr("figures.csv", rows.getvalue())
    return processing_utils.save_bytes_to_cache(out.getvalue(), "unnoise-comparison.zip", utils.get_upload_folder())
