"""A task's tab: one input panel, one to six arms side by side, and under them what the comparison gave.

The tab is drawn by gr.render from its state, {"model", "job", "pictures", "arms", "grid", "blind", "apart"}, so that a page of many tasks stays
small and a new task or method needs nothing here. An arm added or a method chosen first takes what stands in the
components into the state and then draws anew (Gradio 6 does not keep values by key); `left`, the last run's Shown,
puts pictures and figures back. A state with "run" shows that run: the tab watches it as soon as it is drawn.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr
from gradio import context, utils

from backends import grids, jobs, recipe
from backends.recipe import MAX_ARMS
from backends.registry import METHODS
from backends.spec import BadInput, Task
from ui import arms, ballot, bring, form, grid, results, running, toast, views, visitor, voting
from ui.results import Shown

drawing = threading.Lock()  # Gradio walks through all events of the page while it adds one, and two drawings may go on at once
LIGHT = dict(queue=False, show_progress="hidden", api_visibility="private")
STATE = dict(concurrency_limit=None, show_progress="hidden", api_visibility="private")  # a state's change is heard from the queue alone

FIRST = dict(STATE, concurrency_id="first", concurrency_limit=1)  # a room and its first tab are chosen at once: in turn, so that it is drawn once


@dataclass
class Tab:
    task: Task
    item: gr.Tab
    state: gr.State


def state_of(given: dict, pictures: dict | None = None) -> dict:
    """The tab's state from a recipe, or from an example's job and arms."""
    chosen = [arms.new(a["method"], a.get("knobs"), a.get("stack")) for a in given.get("arms", []) if a["method"] in METHODS]
    return {
        "model": given.get("model", ""),
        "job": given.get("job", {}),
        "pictures": pictures or {},
        "arms": chosen[:MAX_ARMS],
        "grid": given.get("grid"),
        "blind": False,
        "apart": bool(given.get("apart")),
    }


def state_of_run(run: jobs.Run) -> dict:
    """The state in which the tab shows that run, as it goes on or as it ended; raises BadInput when it was made with a method that is not here."""
    if not here(run.given):
        raise BadInput("This run was made by another version of the studio: one of its methods is not here.")
    state = state_of(run.given, run.pictures)
    for i, arm in enumerate(state["arms"]):
        arm["id"] = f"{run.id}-{i}"  # the same whenever it is asked for, so that a tab is drawn once
    return state | {"run": run.id}


def restored(request: gr.Request) -> jobs.Run | None:
    """What a page that is opened shows: the run that its address names, else the newest of the visitor's that runs or waits."""
    owner, studio = visitor.owner(request), jobs.studio()
    if name := str(dict(request.query_params).get("run", ""))[:40]:
        return studio.find(name, owner, shared=True)
    return max(studio.active(owner), key=lambda run: run.at, default=None)


def here(given: dict) -> bool:
    """Whether the methods of a recipe or an example are here."""
    return all(cell["arms"][0]["method"] in METHODS for cell in grids.cells(given))


def first_state(task: Task) -> dict:
    """The first example whose methods are here; without arms of its own, the baseline beside the first paper."""
    example = next(filter(here, task.examples), {})
    chosen = example.get("arms") or [{"method": s} for s in [task.baseline, *arms.unused(task, [task.baseline])][:2]]
    return state_of(example | {"arms": chosen})


def opened(task: Task) -> Callable:
    """The handler that fills a tab when it is first shown."""

    def fill(now: dict | None, request: gr.Request) -> dict:
        run = None if now else restored(request)
        if run is None or run.given["task"] != task.slug or not here(run.given):
            return now or first_state(task)
        return state_of_run(run)

    return fill


def lighten() -> None:
    """Spare the page what it does for signs of waiting that are never seen. At every step of any event Gradio tells all components on which one was ever due how they
    stand, searches the whole page for each and walks through what stands inside; the drawing of a tab is one of them, so that the sixteenth took ten seconds. The
    events that are made here or in the page show theirs, hidden, on its very first component."""
    made = context.get_blocks_context()
    first = next(block for block in made.blocks.values() if isinstance(block, gr.HTML))
    for event in made.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [first]


def build(task: Task) -> Tab:
    """The tab's frame; its inside is drawn when it is first opened."""
    with gr.Tab(task.title, id=task.slug, elem_classes=["studio"]) as item:
        state, left, mine = gr.State(None), gr.State(None), gr.State(bring.Mine(), time_to_live=86400)

        @gr.render(inputs=[state, left, mine], triggers=[state.change], show_progress="hidden")
        def draw(now: dict | None, shown: Shown | None, own: bring.Mine):
            if now:
                with drawing:
                    _draw(task, now, results.of(shown, [arm["id"] for arm in now["arms"]]), own, mine, state, left)
                    lighten()

    item.select(opened(task), state, state, **FIRST)
    return Tab(task, item, state)


def _draw(task: Task, now: dict, shown: Shown, own: bring.Mine, mine: gr.State, state: gr.State, left: gr.State) -> None:
    with gr.Row(elem_classes=["bench"]):
        with gr.Column(elem_classes=["desk"], min_width=250, scale=0):
            if task.help:
                gr.HTML(f'<p class="help">{views.escape(task.help)}</p>')
            fields = form.panel(task, now["job"], now["pictures"])
            fields["model"] = bring.field(task, now["model"], own, mine)
            fields["blind"] = gr.Checkbox(
                now.get("blind", False), label="Blind", info="no names, previews or figures until you vote by number key", visible=len(now["arms"]) > 1,
                elem_classes=["knob"], interactive=True,
            )  # fmt: skip
            fields["apart"] = gr.Checkbox(
                now.get("apart", False), label="Arms at once", info="sooner, on replicas that are idle; their seconds can't be compared",
                visible=jobs.studio().slots > 1, elem_classes=["knob"], interactive=True,
            )  # fmt: skip
            with gr.Column(elem_classes=["launch"], min_width=0):
                with gr.Row(elem_classes=["go"]):
                    run = gr.Button("Run", variant="primary", elem_classes=["run"], min_width=80)
                    pause = gr.Button("Pause", elem_classes=["pause"], min_width=70)
                    resume = gr.Button("Resume", elem_classes=["resume"], min_width=70)
                    stop = gr.Button("Stop", variant="stop", elem_classes=["stop"], min_width=60)
                message = gr.HTML("", elem_classes=["message"])
            gr.HTML('<p class="keys"><kbd>Ctrl</kbd> <kbd>Enter</kbd> runs · <kbd>Esc</kbd> stops</p>')
            _examples(task, state, fields["blind"])
        with gr.Column(elem_classes=["stage"], min_width=320, scale=1):
            choose = gr.HTML("", js_on_load=ballot.CHOOSE)
            with gr.Row(elem_classes=["arms"]):
                drawn = [arms.draw(task, arm, i, len(now["arms"]), shown.arms.get(arm["id"], (None, ""))) for i, arm in enumerate(now["arms"])]
            more = arms.more(task, now["arms"])
            panel = grid.draw(task, now, shown)
            under = _under(shown, left, [arm["id"] for arm in now["arms"]])
            table = voting.draw(task)
    columns, changes = [column for column, _ in drawn], [c for _, some in drawn for c in some] + more
    sources = [*fields.values(), *(s for column in columns for s in column.sources), *panel.sources]
    once = threading.Lock()
    for change in changes:
        handler = _changer(task, tuple(fields), columns, change, once, panel)
        change.event(handler, [state, *change.inputs, *sources], state, **STATE)
    outputs = [message, left, *under, *panel.parts, choose, *(c.picture for c in columns), *(c.live for c in columns)]
    *_, viewer, _, _ = under
    for button, axes in ((run, None), (panel.button, panel.filled)):
        button.click(None, None, message, js=running.QUEUED, api_visibility="private")
        button.click(running.waiter(task), None, None, **LIGHT)
        ran = button.click(running.runner(task, tuple(fields), columns, axes), sources, outputs, trigger_mode="once", **STATE)
        # A value that a component itself refuses never reaches the runner; Gradio says what was wrong, and Run is free again.
        ran.failure(lambda: "", None, message, **LIGHT)
        ran.then(results.solid, left, viewer, **LIGHT)
    choose.click(voting.voter(task, columns), None, [*outputs, table], **STATE).then(results.solid, left, viewer, **LIGHT)
    _tell(task, fields, columns[0], panel)
    if name := now.get("run"):
        drawn = gr.HTML("", js_on_load="trigger('click')", elem_classes=["hook"])
        drawn.click(running.watcher(task, name, columns), None, outputs, **STATE).then(results.solid, left, viewer, **LIGHT)
    stop.click(None, message, message, js=running.STOPPING, api_visibility="private")
    stop.click(running.stopper(task), None, None, **LIGHT)
    for button, on, said in ((pause, True, running.PAUSING), (resume, False, running.RESUMING)):
        button.click(None, None, message, js=said, api_visibility="private")
        button.click(running.pauser(task, on), None, None, **LIGHT)


def _tell(task: Task, fields: dict, column: arms.Column, panel: grid.Panel) -> None:
    """What is said of the grid follows its axes and the first arm's knobs."""
    rules = recipe.marks(task.job)
    names = tuple(name for name in fields if name not in ("blind", "apart") and type(rules.get(name)) not in recipe.KINDS)
    asked = [*(fields[name] for name in names), *column.sources, *panel.sources]
    told = [panel.frame.expand, *(c.change for c in panel.sources), *(c.release if isinstance(c, gr.Slider) else c.input for c in column.sources)]
    gr.on(told, grid.teller(task, names, column, panel), asked, panel.said, trigger_mode="always_last", **LIGHT)


def _examples(task: Task, state: gr.State, blind: gr.Checkbox) -> None:
    examples = [e for e in task.examples if here(e)]
    if not examples:
        return
    gr.HTML('<p class="label">Examples</p>')
    with gr.Row(elem_classes=["chips"]):
        for example in examples:
            name, picture = form.example_name(task, example), form.example_picture(task, example)
            chip = gr.Button(name, icon=picture, size="sm", elem_classes=["chip"], min_width=40)
            chip.click(lambda blind, example=example: state_of(example) | {"blind": blind}, blind, state, **STATE)


def _changer(task: Task, names: tuple, columns: list, change: arms.Change, once: threading.Lock, panel: grid.Panel | None = None):
    """The handler of a change: what stands in the components goes into the state, then the arms change.

    `once`: a drawing's own, taken by its first change, since another drawing then stands in its place. Gradio's dropdown tells of a choice twice, and a
    press on what is drawn a second time would be lost.
    """

    def handler(state: dict, *values):
        if not once.acquire(blocking=False):
            return gr.skip()
        after = state
        try:
            after = changed(state, *values)
            return after
        finally:
            if utils.deep_hash(after) == utils.deep_hash(state):  # nothing is drawn
                once.release()

    def changed(state: dict, *values):
        extra, values = values[: len(change.inputs)], values[len(change.inputs) :]
        try:
            job, pictures = form.job(task, names, values[: len(names)])
        except BadInput as bad:  # a picture, sound or object that can't be taken: the words and switches stay
            toast.warning(bad, title="Not kept")
            rules = recipe.marks(task.job)
            job, pictures = form.job(task, *zip(*((n, v) for n, v in zip(names, values) if type(rules.get(n)) not in recipe.KINDS)))
        filled = dict(zip([c.id for c in columns], running.filled(columns, values[len(names) :])))
        kept = [_kept(arm, filled[arm["id"]]) if arm["id"] in filled else arm for arm in state["arms"]]
        desk = dict(zip(names, values))
        axes = panel.changed(values) if panel else state.get("grid")
        now = {"model": desk["model"], "job": job, "pictures": pictures, "grid": axes, "blind": desk.get("blind", False), "apart": desk.get("apart", False)}
        return now | {"arms": change.change(kept, *extra)}

    return handler


def _kept(arm: dict, filled: dict) -> dict:
    stack = [piece | {"knobs": below["knobs"]} for piece, below in zip(arm["stack"], filled["stack"])]
    return arm | {"knobs": filled["knobs"], "stack": stack}


def _under(shown: Shown, left: gr.State, ids: list[str]) -> list:
    """What stands under the arms, whose ids these are, in the order of results.under."""
    table, switch, choices, slider, heat, said, bundle, code = shown.parts()
    one, other = shown.opposed if len(choices) > 1 else (None, None)
    with gr.Column(visible=bool(shown.table), elem_classes=["under"]) as frame:
        figures = gr.HTML(table)
        listen = gr.HTML(switch)
        with gr.Row(elem_classes=["pair"], visible=len(choices) > 1) as pair:
            with gr.Column(min_width=260):
                with gr.Row(elem_classes=["head"]):
                    a = gr.Dropdown(choices, value=one, label="left", interactive=True, container=False, min_width=100)
                    b = gr.Dropdown(choices, value=other, label="right", interactive=True, container=False, min_width=100)
                before = gr.ImageSlider(slider, show_label=False, interactive=False, buttons=["fullscreen"], max_height=420, elem_classes=["picture"])
            with gr.Column(min_width=260):
                words = gr.HTML(said)
                gap = gr.Image(
                    heat,
                    alt_text="where the two differ",
                    show_label=False,
                    interactive=False,
                    format="png",
                    buttons=["download", "fullscreen"],
                    height=400,
                    elem_classes=["picture"],
                )
        first = results.solid(shown)
        with gr.Column(visible=bool(first), elem_classes=["solid"]) as solid:
            with gr.Row(elem_classes=["head"]):
                which = gr.Dropdown(
                    results.named(shown.solids), value=0 if first else None, label="object to turn freely", interactive=True, container=False, min_width=200
                )
                gr.HTML('<p class="said">Drag to turn it, scroll to come nearer.</p>')
            viewer = gr.Model3D(first, show_label=False, interactive=False, clear_color=(0.93, 0.93, 0.93, 1.0), height=360)
        with gr.Row(elem_classes=["take"]):
            download = gr.DownloadButton("Download all (results, recipe, table)", value=bundle, size="sm", elem_classes=["quiet"], scale=0, min_width=260)
        with gr.Accordion("Recipe", open=False, elem_classes=["recipe"]):
            text = gr.Code(code, language="json", show_label=False, interactive=False, max_lines=24)
    for chooser in (a, b):
        chooser.input(lambda shown, a, b: results.pair(results.of(shown, ids), a, b), [left, a, b], [before, gap, words], **LIGHT)
    which.input(lambda shown, i: results.solid(results.of(shown, ids), i), [left, which], viewer, **LIGHT)
    return [frame, figures, listen, pair, a, b, before, gap, words, solid, which, viewer, download, text]
