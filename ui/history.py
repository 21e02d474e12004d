"""My runs: on top what runs or waits, under it what has ended, each one press away from being seen again.

Everything here is asked of the visitor's own runs; a name that is another's is answered like one that is not there.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from backends import grids, jobs, stills, votes
from backends.jobs import Run
from backends.registry import METHODS, TASKS
from backends.spec import BadInput, Image, Outcome
from ui import form, running, toast, views, visitor
from ui.compare import LIGHT, STATE

PAGE = 40  # ended runs that are shown at first, and more at each press
MB = 2**20

# Buttons tell what they do and to which run; Delete asks once more; a link is copied by the press itself, as browsers want it. While something runs or waits
# and is seen, the list asks how far it is.
SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button) return;
  const { act, run, sure } = button.dataset;
  if (sure && button.textContent !== sure) { button.textContent = sure; return; }
  if (act === 'share' || act === 'copy') {
    const link = new URL('?run=' + run, location.href).href;
    (navigator.clipboard ? navigator.clipboard.writeText(link) : Promise.reject()).then(() => { button.textContent = 'Link copied'; }, () => window.prompt('The link', link));
  }
  if (act !== 'copy') trigger('click', { act, run });
});
setInterval(() => { if (element.offsetParent && element.querySelector('.active')) trigger('input'); }, 1500);
"""


@dataclasses.dataclass
class Parts:
    """The tab's components. `seen`: (the newest ended run in the list, how many the list may hold)."""

    item: gr.Tab
    active: gr.HTML
    query: gr.Textbox
    listed: gr.HTML
    seen: gr.State


def tab() -> Parts:
    with gr.Tab("My runs", id="runs", elem_classes=["catalogue"]) as item:
        active = gr.HTML("", js_on_load=SCRIPT)
        with gr.Row(elem_classes=["filters"]):
            query = gr.Textbox(
                placeholder="Search your runs: words, method, task, answer", show_label=False, container=False, min_width=220, elem_classes=["search"]
            )
        listed = gr.HTML("", js_on_load=SCRIPT.partition("setInterval")[0])
        return Parts(item, active, query, listed, gr.State(("", PAGE)))


def wire(parts: Parts, open_: Callable[[Run, gr.Request], list], filled: list) -> None:
    """`open_` gives updates of `filled` that show a run in its tab."""
    lists = [parts.active, parts.listed, parts.seen]

    def drawn(query: str, seen: tuple, request: gr.Request) -> tuple:
        owner = visitor.owner(request)
        return (now(owner), *past(owner, query, seen[1]))

    def refreshed(query: str, seen: tuple, request: gr.Request) -> tuple:
        owner = visitor.owner(request)
        same = seen[0] == newest(owner)
        return (now(owner), *((gr.skip(), gr.skip()) if same else past(owner, query, seen[1])))

    def pressed(query: str, seen: tuple, event: gr.EventData, request: gr.Request) -> list:
        act, name, owner, studio = str(event.act), str(event.run), visitor.owner(request), jobs.studio()
        if act == "more":
            return [*[gr.skip()] * len(filled), *drawn(query, (seen[0], seen[1] + PAGE), request)]
        run = studio.find(name, owner)
        if run is None:
            toast.warning("That run is no longer kept.", title="Not there")
            return [*[gr.skip()] * len(filled), *drawn(query, seen, request)]
        tabs = [gr.skip()] * len(filled)
        if act == "open":
            return [*open_(run, request), *[gr.skip()] * len(lists)]
        if act == "again":
            try:
                tabs = open_(studio.submit(run.given, run.pictures, owner, blind=_blind(run), line=visitor.line(request)), request)
            except BadInput as bad:
                toast.warning(bad, title="Not run")
        elif act == "stop":
            studio.stop(run)
        elif act == "delete":
            studio.store.delete(name, owner)
        elif act in ("share", "keep"):
            studio.share(name, owner, act == "share")
        return [*tabs, *drawn(query, seen, request)]

    asked = [parts.query, parts.seen]
    parts.item.select(drawn, asked, lists, **LIGHT)
    parts.query.change(drawn, asked, lists, trigger_mode="always_last", **LIGHT)
    parts.active.input(refreshed, asked, lists, **LIGHT)
    gr.on([parts.active.click, parts.listed.click], pressed, asked, [*filled, *lists], **STATE)


# --- what runs and what waits ----------------------------------------------------------------------------


def now(owner: str) -> str:
    """The owner's runs that run or wait, with place and estimate."""
    rows = "".join(map(_active, jobs.studio().active(owner)))
    return f'<div class="runs active" role="status">{rows}</div>' if rows else ""


def _active(run: Run) -> str:
    return (f'<article class="past"><div class="way"><i style="width:{100 * running.share(run):.0f}%"></i></div><div>{_title(run.given)}<p>{escape(running.standing(run))} · {_said(run)}</p></div>'
            f'<span class="acts">{_button("open", run, "Watch")}{_button("stop", run, "Stop")}</span></article>')  # fmt: skip


NOTHING = (
    "Nothing of yours has run yet. Open a tab, press Run: the run is listed here, for you alone, also when you have closed the page meanwhile, "
    "to be watched, stopped, loaded again, run again, shared by a link or deleted."
)


# --- what has ended --------------------------------------------------------------------------------------


def newest(owner: str) -> str:
    rows, _ = jobs.studio().store.ended(owner, most=1)
    return rows[0].id if rows else ""


def past(owner: str, query: str, most: int) -> tuple[str, tuple]:
    """(the list, what Parts.seen holds then)."""
    store = jobs.studio().store
    rows, count = store.ended(owner, query or "", most)
    seen = newest(owner), most
    room = f"{store.limit / MB:,.0f} MB are kept for all visitors together; then the oldest go."
    if not rows:
        said = "No run of yours fits. Try fewer words." if query else f"{NOTHING} {room}"
        return f'<p class="empty">{said}</p>', seen
    more = f'<button class="quiet" data-act="more" data-run="">{count - most} more</button>' if count > most else ""
    head = f'<p class="count">{count} {"run" if count == 1 else "runs"} · yours take {store.used(owner) / MB:.1f} MB · {room}</p>'
    return head + '<div class="runs">' + "".join(map(_row, rows)) + f"</div>{more}", seen


def _row(run: Any) -> str:
    shared = _button("copy", run, "Copy link") + _button("keep", run, "Stop sharing") if run.shared else _button("share", run, "Share link", TELLS)
    acts = _button("open", run, "Load again") + _button("again", run, "Run again") + shared + _button("delete", run, "Delete", sure="Really delete?")
    mark = "" if run.state == "done" else f' · <b class="{run.state}">{run.state}</b>'
    said = run.error or (f"{CUT_OFF} {running.reached(run)}".strip() if run.state == "interrupted" else "")
    mark += f" · {escape(said)}" if said else ""
    return (f'<article class="past">{_remembered(run)}<div>{_title(run.given)}<p>{_said(run)}{mark}</p></div>'
            f'<span class="acts">{acts}</span></article>')  # fmt: skip


CUT_OFF = "the studio ended while this ran. “Load again” shows what it had made by then, “Run again” makes it anew."
TELLS = "Whoever has the link sees this run's recipe, its inputs and results, and can change nothing."


def _button(act: str, run: Any, words: str, title: str = "", sure: str = "") -> str:
    more = (f' title="{escape(title)}"' if title else "") + (f' data-sure="{escape(sure)}"' if sure else "")
    return f'<button class="{act}" data-act="{act}" data-run="{escape(run.id)}"{more}>{escape(words)}</button>'


def _title(given: dict) -> str:
    task = TASKS.get(given["task"])
    return f"<h4>{escape(str(task and form.said_in(task, given['job']) or (task.title if task else given['task'])))}</h4>"


def _said(run: Any) -> str:
    """When, what and how: methods that are not here any more go by their slug."""
    when, today = datetime.datetime.fromtimestamp(run.at), datetime.date.today()
    at = when.strftime("%H:%M" if when.date() == today else "%d %b, %H:%M" if when.year == today.year else "%d %b %Y")
    task, given = TASKS.get(run.given["task"]), run.given
    slugs = dict.fromkeys(cell["arms"][0]["method"] for cell in grids.cells(given))
    methods = " · ".join(METHODS[slug].title if slug in METHODS else slug for slug in slugs)
    if _blind(run):
        methods = f"{len(given['arms'])} arms, blind: names are shown once you have voted"
    if grid := given.get("grid"):
        methods += f" · grid of {' × '.join(grids.title(axis['axis']) for axis in grid.values())}, {len(grids.places(grid))} cells"
    return f"{at} · {escape(task.title if task else given['task'])} · seed {escape(str(given['job'].get('seed', 0)))} · {escape(methods)}"


def _remembered(kept: Any) -> str:
    """The thumbnails, drawn when the run is first listed and kept with it."""
    if kept.shown:
        return kept.shown
    if _blind(kept):
        return '<div class="thumbs"><span class="badge">?</span></div>'
    store = jobs.studio().store
    made = thumbnails(kept.given, [e.event for e in store.events(kept.id) if isinstance(e.event, Outcome)])
    with contextlib.suppress(OSError):  # on a full disk it is drawn each time
        store.change(kept.id, shown=made)
    return made


def _blind(run: Any) -> bool:
    """Whether its results are not to be told apart yet."""
    found = jobs.studio().store.ballot(run.id)
    return found is not None and found.state == votes.OPEN


def thumbnails(given: dict, outcomes: list[Outcome]) -> str:
    """A small picture or words for each arm; of a grid its sheet."""
    values = [o.value for o in outcomes if o.value is not None]
    if given.get("grid") and values:
        values = [Image(stills.sheet(given["grid"], stills.stills(outcomes)))]
    drawn = [views.thumbnail(value) for value in values]
    return f'<div class="thumbs">{"".join(dict.fromkeys(drawn))}</div>'
