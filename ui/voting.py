"""The vote on a comparison without names, and the table of strengths that follows from a visitor's votes."""

import json
from collections.abc import AsyncIterator, Callable
from html import escape

import anyio
import gradio as gr
import numpy as np

from backends import jobs, votes
from backends.jobs import Run
from backends.spec import Outcome, Task
from backends.votes import Ballot
from ui import ballot, running, sound, views, visitor

EMPTY = (
    "No votes yet: switch on “Blind” above Run while two arms or more stand here, press Run, and choose the best by its number key, 0 for a tie. "
    "Which method wins how often then stands here as a score with its interval."
)
FORGET = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-forget]');
  if (!button) return;
  if (button.textContent !== button.dataset.sure) { button.textContent = button.dataset.sure; return; }
  trigger('click');
});
"""


# --- the vote --------------------------------------------------------------------------------------------


def voter(task: Task, columns: list) -> Callable:
    """The handler of a choice: it is kept, then the tab shows the run with its names and figures. Gives a tab's rows, each with the table of votes."""

    async def go(event: gr.EventData, request: gr.Request) -> AsyncIterator[list]:
        owner, studio = visitor.owner(request), jobs.studio()
        run = await anyio.to_thread.run_sync(studio.find, str(event.run)[:40], owner)
        found = run and studio.store.ballot(run.id)
        if found and run.over and (choice := chosen(int(event.vote), found, run)) is not None:
            studio.store.vote(run.id, owner, *choice)
        table = await anyio.to_thread.run_sync(panel, owner, task.slug)
        async for row in running.shown(task, run, request, columns):
            yield [*row, table]

    return go


def chosen(vote: int, asked: Ballot, run: Run) -> tuple[int | None, list[int]] | None:
    """(best arm or None, rivals) as store.vote takes it; None when there is no such choice."""
    if vote == ballot.NONE:
        return None, []
    with jobs.studio().watch(run) as feed:
        whole = ballot.rivals([e.event for e in feed.take() or [] if isinstance(e.event, Outcome)])
    if vote == ballot.TIE:
        return (None, whole) if len(whole) > 1 else None
    best = asked.places[vote - 1] if 1 <= vote <= len(asked.places) else None
    return (best, whole) if best in whole else None


# --- the table of votes ----------------------------------------------------------------------------------


def panel(owner: str, task: str) -> str:
    """The visitor's votes on a task as a table of strengths, with the files to take."""
    cast = jobs.studio().store.votes(owner, task)
    if not cast:
        return f'<p class="empty-votes">{EMPTY}</p>'
    rows = votes.scores(cast)
    low, high = min((r.low for r in rows), default=-1.0), max((r.high for r in rows), default=1.0)

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low or 1)

    body = "".join(
        f'<tr><th scope="row">{escape(votes.title(r.player))}</th><td>{signed(r.score)}</td><td class="span"><span><i style="left:{at(r.low):.1f}%;right:{100 - at(r.high):.1f}%"></i>'
        f'<b style="left:{at(r.score):.1f}%"></b><u style="left:{at(0):.1f}%"></u></span>{signed(r.low)} to {signed(r.high)}</td>'
        f"<td>{100 / (1 + np.exp(-r.score)):.0f} %</td><td>{r.wins} · {r.ties} · {r.losses}</td><td>{r.votes}</td></tr>"
        for r in rows
    )
    files = (("CSV", votes.table(cast).encode()), ("JSON", json.dumps(votes.told(task, cast), indent=1).encode()))
    take = "".join(
        f'<a href="{escape(sound.url(sound.saved(data, f"unnoise-votes-{task}.{kind.lower()}")))}" download="unnoise-votes-{task}.{kind.lower()}">{kind}</a>'
        for kind, data in files
    )
    head = "<tr><th>method</th><th>score ↑</th><th>95 % interval</th><th>beats the average</th><th>won · tied · lost</th><th>votes</th></tr>"
    table = f'{views.SCROLL}<table class="metrics strengths"><thead>{head}</thead><tbody>{body}</tbody></table></div>' if rows else ""
    alone = "" if rows else "<p>So far you compared a method with itself; scores need two.</p>"
    return (
        f'<div class="votes-panel">{table}{alone}<p class="note">{len(cast)} {"vote" if len(cast) == 1 else "votes"} of yours, seen by you alone. Bradley–Terry: the score is log-odds '
        f"against the average method here; best of k counts as k−1 wins that weigh 2/k each, ties as halves; intervals by the Fisher information with a wide prior.</p>"
        f'<p class="acts">{take}<button type="button" data-forget data-sure="Really delete?">Delete these votes</button></p></div>'
    )


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def draw(task: Task) -> gr.HTML:
    """The panel, filled when it is opened."""
    with gr.Accordion("Blind votes", open=False, elem_classes=["votes"]) as frame:
        made = gr.HTML(f'<p class="empty-votes">{EMPTY}</p>', js_on_load=FORGET)

    def filled(request: gr.Request) -> str:
        return panel(visitor.owner(request), task.slug)

    def forget(request: gr.Request) -> str:
        jobs.studio().store.forget(visitor.owner(request), task.slug)
        return filled(request)

    frame.expand(filled, None, made, queue=False, show_progress="hidden", api_visibility="private")
    made.click(forget, None, made, queue=False, show_progress="hidden", api_visibility="private")
    return made
