"""My runs: what this session ran, each one press away from being filled in again."""

import datetime
import uuid
from html import escape

from backends import cubes
from backends.registry import METHODS, TASKS
from backends.spec import Audio, Cube, Image, Outcome, Text, Tokens, Turntable
from ui import form, sound, views

KEPT = 24
SHOWN = 120  # characters of an answer


def add(past: list, given: dict, pictures: dict, outcomes: list[Outcome]) -> list:
    """`past` with a run in front. Kept in the session's own state, so that nobody else sees it."""
    thumbs = [views.data_uri(o.value.pixels, 96, "JPEG") for o in outcomes if isinstance(o.value, Image)]
    thumbs += [views.data_uri(o.value.frames[0], 96, "JPEG") for o in outcomes if isinstance(o.value, Turntable)]
    thumbs += [views.data_uri(cubes.picture(o.value).pixels, 96, "JPEG") for o in outcomes if isinstance(o.value, Cube)]
    thumbs += [sound.thumbnail(o.value) for o in outcomes if isinstance(o.value, Audio)]
    words = [o.value.text.strip() for o in outcomes if isinstance(o.value, Tokens | Text) and o.value.text.strip()]
    entry = {"id": uuid.uuid4().hex[:12], "at": datetime.datetime.now().strftime("%H:%M"), "given": given, "pictures": pictures, "thumbs": thumbs, "words": words,
             "stopped": any(o.stopped for o in outcomes)}  # fmt: skip
    return [entry, *(past or [])][:KEPT]


def html(past: list) -> str:
    if not past:
        return '<p class="empty">Nothing has run in this session yet. What you run is listed here, for you alone.</p>'
    return '<div class="runs">' + "".join(map(_row, past)) + "</div>"


def _row(entry: dict) -> str:
    given = entry["given"]
    thumbs = "".join(f'<img alt="" src="{t}">' for t in entry["thumbs"])
    task = TASKS[given["task"]]
    said = form.said_in(task, given["job"]) or task.title
    methods = " · ".join(METHODS[a["method"]].title for a in given["arms"]) + (" · stopped" if entry["stopped"] else "")
    words = "".join(f'<p class="words">{escape(w[:SHOWN])}</p>' for w in dict.fromkeys(entry["words"]))
    return (f'<article class="past"><div class="thumbs">{thumbs}</div><div><h4>{escape(str(said))}</h4>'
            f'<p>{entry["at"]} · {escape(task.title)} · seed {escape(str(given["job"].get("seed", 0)))} · {escape(methods)}</p>{words}</div>'
            f'<button data-open="{entry["id"]}">Load again</button></article>')  # fmt: skip
