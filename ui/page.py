"""The page: a tab for each task, the papers, my runs; and how a recipe, an example or a paper fills a tab."""

import os
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from backends import TASKS, BadInput, Task, inputs, jobs, recipe
from ui import api, ballot, bring, catalogue, cells, compare, cube, guard, history, lost, running, sound, toast, tools, turntable, visitor, zoom
from ui.compare import FIRST, LIGHT, STATE, Tab
from ui.theme import CSS, HEAD, theme

HEADER = """<div class="brand"><svg viewBox="0 0 64 40" aria-hidden="true"><g class="dots"><circle cx="5" cy="9" r="2.2"/><circle cx="12" cy="28" r="1.6"/>
<circle cx="4" cy="20" r="1.4"/><circle cx="14" cy="15" r="2"/><circle cx="20" cy="32" r="1.8"/><circle cx="21" cy="6" r="1.5"/><circle cx="24" cy="20" r="1.3"/>
<circle cx="8" cy="35" r="1.2"/></g><circle class="sun" cx="44" cy="20" r="15"/></svg>
<div><h1>Unnoise</h1><p>Diffusion papers, running side by side.</p></div></div>"""
ABOUT = """
### What this is
Each method is a paper's own algorithm, running live on a model. A tab is one input and one to six arms: the same words, picture and seed go
through each arm in turn, and the table under them compares what each took and gave. “+ baseline” puts the plain way beside a paper; a second method may
be stacked under one that leaves a slot free. The X/Y grid under the arms varies the first one by two of its knobs, its method, seed, model or input at once. “Blind” hides names, previews and figures and shuffles
the order until you vote by number key; scores of your votes stand under “Blind votes”, and go when you delete them or their runs. The wheel, a pinch, or + and − on a picture or spectrogram enlarge it in all arms;
drag or arrows move it, a double click or Home resets. **NFE** counts evaluations of the network, one for each picture in a batch: a guided step costs two. Seconds are
the method's own, without previews and pauses; Pause holds a run after its step, for five minutes at most. The same seed gives the same result whatever ran before.

The embedded models are small and know little: scenes of emoji, sums, 4×4 sudokus, short forms. They ship with the studio, so that nothing has to be
downloaded. Cards under “Model” load the real checkpoints of the papers; they want a GPU and a hub within reach. **Papers** lists all 79, what runs here, and what
each proof measured, also where it failed.

What you run goes on when you leave: close the page or lose the connection, come back with the same browser, and “My runs” has it, running or done. It is yours alone, known by
a random number in a cookie, until you delete it or press “Share link”, which lets whoever has the link see that recipe, its inputs and results. When the studio's disk space for
runs is used up, the oldest go; keep a result by downloading it: it carries its recipe, and dropped in here it fills its tab in again. A run that nobody has watched for ten
minutes is stopped when others wait. Models you bring are deleted within a day.

### From a program
MCP clients connect to this page's address with `/gradio_api/mcp` behind it. The page, the API, MCP and the command line speak one recipe: the JSON under every comparison, and inside every PNG, FLAC, GLB, WebP and npz made here.

```python
from gradio_client import Client
client = Client("http://127.0.0.1:7860")                 # the address of this page
client.predict(api_name="/methods")                      # every method, its knobs and ranges
recipe = {"schema": 1, "task": "text_to_image", "job": {"prompt": "a cat next to a cactus", "seed": 0},
          "arms": [{"method": "ddim"}, {"method": "adaptive_guidance", "knobs": {"threshold": 0.99}}]}
result, files = client.predict(recipe, {}, api_name="/run")
```
```sh
python -m backends methods
python -m backends run recipe.json --out results
```
"""
ROOMS = {"image": "Images", "restore": "Restoration", "scene": "3D", "audio": "Audio", "text": "Text"}  # packages of backends, in the order of their tabs
SESSIONS = 1000  # pages and programs that Gradio remembers, 0.2 MB each at least; its own 10,000 would fill the memory
# One listener on the frame serves every button that is drawn inside it later.
OPEN = "element.addEventListener('click', (e) => { const b = e.target.closest('[data-open]'); if (b) trigger('click', { open: b.dataset.open }); });"


def build() -> gr.Blocks:
    with gr.Blocks(title="Unnoise", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True) as page:
        with gr.Row(elem_classes=["top"]):
            gr.HTML(HEADER)
            file = gr.UploadButton(
                "Open a result or recipe",
                file_types=[".png", ".flac", ".glb", ".webp", ".npz", ".json"],
                size="sm",
                elem_id="open-file",
                elem_classes=["quiet"],
                scale=0,
                min_width=190,
            )
        with gr.Tabs(elem_classes=["rooms"]) as tabs:
            rooms = {name: room for name, title in ROOMS.items() if (room := _room(name, title))}
            papers = _papers()
            runs = history.tab()
            with gr.Tab("About", id="about", elem_classes=["about"]):
                gr.Markdown(ABOUT)
        studios = [studio for _, some in rooms.values() for studio in some]
        filled = [tabs, *(inner for inner, _ in rooms.values()), *(s.state for s in studios)]
        nothing = [gr.skip()] * len(filled)

        def fill(task: str, state: dict, request: gr.Request) -> list:
            running.leave(request.session_hash, task)  # its outputs are about to be drawn anew
            own = room_of(TASKS[task])
            inner = (gr.Tabs(selected=task) if name == own else gr.skip() for name in rooms)
            return [gr.Tabs(selected=own), *inner, *(state if s.task.slug == task else gr.skip() for s in studios)]

        def from_run(run: jobs.Run, request: gr.Request) -> list:
            try:
                return fill(run.given["task"], compare.state_of_run(run), request)
            except BadInput as bad:
                toast.warning(bad, title="Not opened")
                return nothing

        def from_file(path: str, request: gr.Request):
            try:
                given, pictures = recipe.from_file(Path(path))
                task, whole, _ = recipe.whole(given, pictures)
            except BadInput as bad:
                toast.warning(bad, title="Not opened")
                return nothing
            return fill(task.slug, compare.state_of(given | {"grid": whole.get("grid")}, pictures), request)

        def from_papers(event: gr.EventData, request: gr.Request):
            found = catalogue.opened(str(event.open))
            return fill(*found, request) if found else nothing

        def from_address(request: gr.Request):
            run = compare.restored(request)
            if run is None and dict(request.query_params).get("run"):
                toast.warning(running.GONE, title="Not opened")
            return (from_run(run, request) if run else nothing)[: 1 + len(rooms)]  # the tab fills itself when it is chosen (compare.opened)

        file.upload(from_file, file, filled, **STATE)
        papers.click(from_papers, None, filled, **STATE)
        history.wire(runs, from_run, filled)
        page.load(from_address, None, filled[: 1 + len(rooms)], **STATE)
        page.unload(running.closed)
        api.build()
        compare.lighten()
    return page.queue(max_size=None)


def room_of(task: Task) -> str:
    """The package of backends that the task stands in, which is its room's."""
    return task.job.__module__.split(".")[1]


def _room(name: str, title: str) -> tuple[gr.Tabs, list[Tab]] | None:
    """A room's tab, with a tab in it for each task that is ready."""
    tasks = [task for task in TASKS.values() if task.ready and room_of(task) == name]
    if not tasks:
        return None
    with gr.Tab(title, id=name) as item, gr.Tabs(elem_classes=["tasks"]) as inner:
        studios = [compare.build(task) for task in tasks]
    first = studios[0]  # what a room shows when it is entered; the others are drawn when they are chosen
    item.select(compare.opened(first.task), first.state, first.state, **FIRST)
    return inner, studios


def _papers() -> gr.HTML:
    with gr.Tab("Papers", id="papers", elem_classes=["catalogue"]) as item:
        with gr.Row(elem_classes=["filters"]):
            query = gr.Textbox(
                placeholder="Search 79 papers: title, idea, topic", show_label=False, container=False, scale=3, min_width=220, elem_classes=["search"]
            )
            family = gr.Dropdown(
                [("every family", ""), *((f, f) for f in catalogue.families())], value="", show_label=False, container=False, label="family", min_width=130
            )
            task = gr.Dropdown([("every task", ""), *catalogue.tasks()], value="", show_label=False, container=False, label="task", min_width=130)
            state = gr.Dropdown(list(catalogue.STATUSES), value="all", show_label=False, container=False, label="status", min_width=130)
        shown = gr.HTML("", js_on_load=OPEN)
    asked = [query, family, task, state]
    gr.on([item.select, *(c.change for c in asked)], catalogue.html, asked, shown, trigger_mode="always_last", **LIGHT)
    return shown


def launch(host: str = "127.0.0.1", port: int | None = None, **options):
    """Serve the page. Files are served from Gradio's own cache alone; nothing is shared outside."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    guard.close_addresses()
    routes, lifespan = tools.server()
    jobs.studio()  # what waited when the studio ended goes on before anyone asks
    return build().launch(
        server_name=host, server_port=port, share=False, allowed_paths=[], max_file_size=max(inputs.MAX_BYTES, inputs.max_zip()), theme=theme(), css_paths=[CSS],
        head=HEAD + "".join(part.SCRIPT for part in (bring, sound, turntable, cube, cells, ballot, zoom, lost)), footer_links=["api"], show_error=True,
        state_session_capacity=SESSIONS, ssr_mode=False, mcp_server=False,
        app_kwargs={"middleware": [Middleware(guard.Guard, names=guard.names(host)), Middleware(visitor.Cookie)], "routes": routes, "lifespan": lifespan}, **options,
    )  # fmt: skip
