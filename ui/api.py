"""The named endpoints: methods; run and compare, which take and give the recipe schema (see backends/recipe.py); bring.

    client.predict(api_name="/methods")
    client.predict(recipe, inputs, api_name="/run")       # -> (result, files)
    client.submit(recipe, inputs, api_name="/compare")    # -> each event as it comes, then (result, files)
    client.predict("sing", [handle_file("bank.zip")], api_name="/bring")    # -> {"model": a name for recipes, "said": …}

`inputs`: an object from hash to base64 PNG, FLAC or npz for the pictures, sounds, objects and cubes of one's own that the recipe names.
"""

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import gradio as gr

from backends import TASKS, BadInput, headless
from backends.recipe import decode_inputs
from ui import bring
from ui.compare import ACCELERATOR


def methods() -> list[dict]:
    """Every method with its knobs and ranges, what it can run on and what was proved."""
    return headless.describe()


def compare(recipe: dict, inputs: dict) -> Iterator[tuple[dict, list[str]]]:
    """Run a recipe: each event as it comes, at last the recipe with each arm's outcome and the files (PNG, FLAC, GLB, WebP, npz, JSON)."""
    with tempfile.TemporaryDirectory() as folder:  # what is yielded is copied before the next step
        events = iter(())
        try:
            events = headless.run(recipe, decode_inputs(inputs or {}), Path(folder))
            for event in events:
                files = sorted(map(str, Path(folder).glob("[1-9]-*"))) if event["event"] == "end" else []
                yield event, files
        except BadInput as bad:
            raise gr.Error(str(bad), print_exception=False, title="Not run") from None
        finally:
            if isinstance(events, Generator):
                events.close()


def run(recipe: dict, inputs: dict) -> Iterator[tuple[dict, list[str]]]:
    """Run a recipe to its end: the recipe with each arm's outcome, and the files."""
    for event, files in compare(recipe, inputs):
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


def build() -> None:
    """Components that are never shown give the endpoints their types."""
    with gr.Row(visible=False):
        given, inputs = gr.JSON(label="recipe"), gr.JSON(value={}, label="inputs")
        said, files, listed = gr.JSON(label="result"), gr.File(file_count="multiple", label="files"), gr.JSON(label="methods")
        task, own, answer = gr.Textbox(label="task"), gr.File(file_count="multiple", label="files"), gr.JSON(label="model")
        ask, start, stream, load = gr.Button(), gr.Button(), gr.Button(), gr.Button()
    ask.click(methods, None, listed, api_name="methods", queue=False)
    start.click(run, [given, inputs], [said, files], api_name="run", **ACCELERATOR)
    stream.click(compare, [given, inputs], [said, files], api_name="compare", **ACCELERATOR)
    load.click(take, [task, own], answer, api_name="bring", **bring.QUEUE)
