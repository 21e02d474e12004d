"""The named endpoints: methods and tasks; run and compare, which take and give the recipe schema (see backends/recipe.py); bring; votes.

    client.predict(api_name="/methods"), client.predict(api_name="/tasks")
    client.predict(recipe, inputs, api_name="/run")       # -> (result, files)
    client.submit(recipe, inputs, api_name="/compare")    # -> each event as it comes, then (result, files)
    client.predict("sing", [handle_file("bank.zip")], api_name="/bring")    # -> {"model": a name for recipes, "said": …}
    client.predict("sing", api_name="/votes")             # blind votes of the visitor whose cookie is sent, and what follows: {"scores": […], "votes": […]}

`inputs`: an object from hash to base64 PNG, FLAC or npz for the pictures, sounds, objects and cubes of one's own that the recipe names.
"""

import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import gradio as gr
from anyio.to_thread import run_sync

from backends import TASKS, BadInput, headless, jobs
from backends import votes as counted
from backends.headless import Written
from backends.recipe import decode_inputs
from ui import bring, running, visitor
from ui.running import Ticket

log = logging.getLogger(__name__)


def methods() -> list[dict]:
    """Every method with its knobs and ranges, what it can run on and what was proved."""
    return headless.describe()


def tasks() -> list[dict]:
    """Every task with the fields of its job, and examples."""
    return headless.tasks()


async def compare(recipe: dict, inputs: dict, request: gr.Request) -> AsyncIterator[tuple[dict, list[str]]]:
    """Run a recipe in the queue that the page has too: {"event": "queued", "place": …, "seconds": …} while it waits, each event as it comes (a slow
    reader misses previews), at last the recipe with each arm's outcome and the files (PNG, FLAC, GLB, WebP, npz, JSON). Closing the stream ends the run."""
    studio, place = jobs.studio(), 0
    with tempfile.TemporaryDirectory() as folder:  # what is yielded is copied before the next step
        try:
            run = await run_sync(_submitted, recipe, inputs, request)
        except BadInput as bad:
            raise _refusal(bad) from None
        except Exception:  # what nobody foresaw goes to the log
            log.exception("a recipe could not be taken")
            raise _refusal("The recipe could not be taken; the log holds the details.") from None
        ticket = running.take(request, f"api {run.id}", Ticket(run))
        try:
            written = await run_sync(Written, run.given, run.pictures, Path(folder))
            async with aclosing(running.news(run, ticket)) as news:
                async for events in news:
                    if (now := studio.place(run)) != place:
                        place = now
                        if place:
                            yield {"event": "queued", "place": place, "seconds": studio.estimate(run)}, []
                    for event in events:
                        yield await run_sync(written.see, event), []
            if run.error:
                raise _refusal(run.error)
            if run.over:
                end = await run_sync(written.end)
                files = sorted(Path(folder).glob("[1-9]*-*"), key=lambda path: (int(path.name.split("-")[0]), path.name))
                yield end, [str(path) for path in [*Path(folder).glob(headless.SHEET), *files]]
        finally:
            ticket.close()
            studio.stop(run)


def _submitted(recipe: dict, inputs: dict, request: gr.Request) -> jobs.Run:
    return jobs.studio().submit(recipe, decode_inputs(inputs or {}), visitor.owner(request), kept=False, line=visitor.line(request))


def _refusal(said: BadInput | str) -> gr.Error:
    return gr.Error(str(said), print_exception=False, title="Not run")


async def run(recipe: dict, inputs: dict, request: gr.Request) -> AsyncIterator[tuple[dict, list[str]]]:
    """Run a recipe to its end: the recipe with each arm's outcome, and the files."""
    async with aclosing(compare(recipe, inputs, request)) as events:
        async for event, files in events:
            if event["event"] == "end":
                yield event["recipe"] | {"complete": event["complete"]}, files


def take(task: str, files: list[str]) -> dict:
    """A model of one's own, such as a voicebank and its vocoder as zips: the name by which recipes can choose it, for a day at most."""
    try:
        if task not in TASKS:
            raise BadInput(f"No task is called {task[:60]}; there are {', '.join(TASKS)}.")
        _, name, said = bring.taken(TASKS[task], files, bring.Mine())
    except BadInput as bad:
        raise gr.Error(str(bad), print_exception=False, title="Not taken") from None
    return {"model": name, "said": said}


def votes(task: str, request: gr.Request) -> dict:
    """One's own blind votes on a task and the methods' scores; a program is the visitor whose cookie it sends."""
    if task not in TASKS:
        raise gr.Error(f"No task is called {task[:60]}; there are {', '.join(TASKS)}.", print_exception=False, title="No votes")
    return counted.told(task, jobs.studio().store.votes(visitor.owner(request), task))


def build() -> None:
    """Components that are never shown give the endpoints their types."""
    with gr.Row(visible=False):
        given, inputs = gr.JSON(label="recipe"), gr.JSON(value={}, label="inputs")
        said, files, listed = gr.JSON(label="result"), gr.File(file_count="multiple", label="files"), gr.JSON(label="methods")
        task, own, answer = gr.Textbox(label="task"), gr.File(file_count="multiple", label="files"), gr.JSON(label="model")
        ask, fields, start, stream, load, count = (gr.Button() for _ in range(6))
    ask.click(methods, None, listed, api_name="methods", queue=False)
    fields.click(tasks, None, listed, api_name="tasks", queue=False)
    start.click(run, [given, inputs], [said, files], api_name="run", concurrency_limit=None)
    stream.click(compare, [given, inputs], [said, files], api_name="compare", concurrency_limit=None)
    count.click(votes, task, answer, api_name="votes", queue=False)
    load.click(take, [task, own], answer, api_name="bring", **bring.QUEUE)
