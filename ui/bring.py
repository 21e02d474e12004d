"""Under “Model”: what a task can run on, and, where the task takes them, a button to bring a model of one's own.

What a visitor brought is a choice in that visitor's tab alone: its names stand in the session's state, not in the list of models.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gradio as gr

from backends import inputs, models
from backends.spec import BadInput, Task
from ui import form
from ui.views import escape

QUEUE = dict(concurrency_id="bring", concurrency_limit=1)  # one zip is unpacked and read at a time

# A zip dropped anywhere on the tab is brought. One too large is refused before it is sent; of the others the page says that they are on their way.
SCRIPT = """
<script>
(() => {
  const megabytes = (file) => Math.ceil(file.size / 1048576);
  document.addEventListener('change', (event) => {
    const box = event.target.matches('.bring input[type=file]') && event.target.closest('.bring');
    const files = box ? [...event.target.files] : [], said = box && box.querySelector('p.note, p.error');
    if (!files.length) return;
    const most = Number(/most-([0-9]+)/.exec(box.className)[1]), large = files.find((file) => file.size > most * 1048576);
    said.className = large ? 'error' : 'note';
    said.textContent = large ? SAID.replace('{name}', large.name).replace('{size}', megabytes(large)).replace('{most}', most)
      : 'Uploading ' + files.map((file) => `${file.name} (${megabytes(file)} MB)`).join(', ') + ' …';
    if (large) { event.stopImmediatePropagation(); event.target.value = ''; }
  }, true);
  document.addEventListener('drop', (event) => {
    const input = [...document.querySelectorAll('.bring input[type=file]')].find((i) => i.closest('.bring').offsetParent);
    const files = new DataTransfer();
    for (const file of event.dataTransfer.files) if (input && input.accept.split(', ').some((end) => file.name.toLowerCase().endsWith(end))) files.items.add(file);
    if (!files.items.length) return;
    event.preventDefault();
    event.stopPropagation();
    input.files = files.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  }, true);
})();
</script>
""".replace("SAID", json.dumps(inputs.TOO_LARGE))


@dataclass(frozen=True)
class Mine:
    """What a visitor brought to a tab: `names` of cards, and `held` of backends.spec.Brought."""

    names: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


def taken(task: Task, files: list[str], mine: Mine) -> tuple[Mine, str, str]:
    """(what the visitor has now, the new card's name or "", a sentence); raises BadInput. The files are deleted: their like may be large."""
    paths = [Path(f) for f in files or []]
    try:
        made = inputs.brought(task, paths, mine.held)
    finally:
        for path in paths:
            if task.brings and path.suffix.lower() in task.brings.files:  # no other file of the server's cache, whose paths a program may name
                path.unlink(missing_ok=True)
    names = tuple(dict.fromkeys([*mine.names, *([made.name] if made.name else [])]))
    return replace(mine, names=names, held=made.held), made.name, made.said


def choice(task: Task, chosen: str, mine: Mine) -> gr.Dropdown:
    """The task's models and one's own; a recipe may name one that another page brought."""
    choices = form.cards(task, dict.fromkeys([*mine.names, chosen]))
    names = [name for _, name in choices]
    takes = len(names) > 1 or _takes(task)
    return gr.Dropdown(choices, value=chosen if chosen in names else names[0], label="Model", interactive=True, visible=takes)


def field(task: Task, chosen: str, mine: Mine, kept: gr.State) -> gr.Dropdown:
    """The models to choose from; `kept` holds what the visitor brought."""
    made = choice(task, chosen, mine)
    if not _takes(task):
        return made
    most = inputs.max_zip() >> 20
    with gr.Column(elem_classes=["bring", f"most-{most}"]):
        button = gr.UploadButton(f"{task.brings.label} ({task.brings.files[0]})", file_types=list(task.brings.files), file_count="multiple", size="sm",
                                 elem_classes=["quiet"])  # fmt: skip
        said = gr.HTML(_missing(chosen) or _line(f"{task.brings.help} Up to {most:,} MB."))

    def take(files: list[str], chosen: str, mine: Mine) -> Iterator[tuple]:
        yield gr.skip(), gr.skip(), _line("Unpacking and reading …")
        try:
            mine, name, sentence = taken(task, files, mine)
        except BadInput as bad:
            yield gr.skip(), gr.skip(), _refusal(bad)
            return
        yield choice(task, name or chosen, mine), mine, _line(sentence)

    button.upload(take, [button, made, kept], [made, kept, said], show_progress="hidden", api_visibility="private", **QUEUE)
    return made


def _takes(task: Task) -> bool:
    return task.brings is not None and inputs.max_zip() > 0


def _missing(chosen: str) -> str:
    """What is said of a model that the tab's recipe names and that is let go."""
    try:
        if chosen:
            models.get(chosen)
    except BadInput as bad:
        return _refusal(bad)
    return ""


def _refusal(bad: BadInput) -> str:
    return f'<p class="error" role="alert">{escape(str(bad))}</p>'


def _line(said: str) -> str:
    return f'<p class="note" role="status">{escape(said)}</p>'
