"""A task's tab: one input panel, one to six arms side by side, and under them what the comparison gave.

The tab is drawn by gr.render from one state, {"fill", "model", "job", "pictures", "arms"}. An arm added or a
method chosen changes the state; what stands in the other components is kept through their keys. A new "fill" (an
example, a dropped recipe) gives the panel new keys, so that it takes the new values.
"""

import uuid
from dataclasses import dataclass

import gradio as gr

from backends.recipe import MAX_ARMS
from backends.registry import METHODS
from backends.spec import Method, Task
from ui import form, running, views

ACCELERATOR = dict(concurrency_id="accelerator", concurrency_limit=1)
LIGHT = dict(queue=False, show_progress="hidden", api_visibility="private")
STATE = dict(concurrency_limit=None, show_progress="hidden", api_visibility="private")  # a state's change is heard from the queue alone
EMPTY = "Write a prompt, press Run"


@dataclass
class Tab:
    task: Task
    item: gr.Tab
    state: gr.State


def new_arm(method: str, knobs: dict | None = None, stack: list | None = None) -> dict:
    pieces = [new_arm(s["method"], s.get("knobs")) for s in stack or []]
    return {"id": uuid.uuid4().hex[:8], "method": method, "knobs": knobs or {}, "stack": pieces}


def state_of(given: dict, pictures: dict | None = None) -> dict:
    """The tab's state from a recipe, or from an example's job and arms."""
    arms = [new_arm(a["method"], a.get("knobs"), a.get("stack")) for a in given.get("arms", []) if a["method"] in METHODS]
    return {"fill": uuid.uuid4().hex[:8], "model": given.get("model", ""), "job": given.get("job", {}), "pictures": pictures or {}, "arms": arms[:MAX_ARMS]}


def here(example: dict) -> bool:
    return all(arm["method"] in METHODS for arm in example.get("arms", []))


def first_state(task: Task) -> dict:
    """The first example whose methods are here; without arms of its own, the baseline beside the first paper."""
    example = next(filter(here, task.examples), {})
    arms = example.get("arms") or [{"method": s} for s in [task.baseline, *_unused(task, [task.baseline])][:2]]
    return state_of(example | {"arms": arms})


def build(task: Task, past: gr.State) -> Tab:
    """The tab's frame; its inside is drawn when it is first opened."""
    with gr.Tab(task.title, id=task.slug, elem_classes="studio") as item:
        state, results = gr.State(None), gr.State(None)

        @gr.render(inputs=[state], triggers=[state.change], show_progress="hidden")
        def draw(now: dict | None):
            if now:
                _draw(task, now, state, results, past)

    item.select(lambda now: now or first_state(task), state, state, **STATE)
    return Tab(task, item, state)


def _draw(task: Task, now: dict, state: gr.State, results: gr.State, past: gr.State) -> None:
    key = (task.slug, now["fill"])
    with gr.Row(elem_classes="bench"):
        with gr.Column(elem_classes="panel", min_width=250, scale=0):
            if task.help:
                gr.HTML(f'<p class="help">{views.escape(task.help)}</p>')
            fields = form.panel(task, now["job"], now["pictures"], key)
            cards = form.cards(task)
            chosen = now["model"] if now["model"] in [name for _, name in cards] else cards[0][1]
            fields["model"] = gr.Dropdown(cards, value=chosen, label="Model", key=(*key, "model"), visible=len(cards) > 1)
            with gr.Row(elem_classes="go"):
                run = gr.Button("Run", variant="primary", elem_classes="run", key=(task.slug, "run"), min_width=80)
                stop = gr.Button("Stop", variant="stop", elem_classes="stop", key=(task.slug, "stop"), min_width=80)
            message = gr.HTML("", elem_classes="message", key=(*key, "message"))
            gr.HTML('<p class="keys"><kbd>Ctrl</kbd> <kbd>Enter</kbd> runs · <kbd>Esc</kbd> stops</p>')
            _examples(task, state)
        with gr.Column(elem_classes="stage", min_width=320, scale=1):
            with gr.Row(elem_classes=["arms", f"n{len(now['arms'])}"]):
                columns = [_arm(task, arm, i, len(now["arms"]), state) for i, arm in enumerate(now["arms"])]
            _more(task, now, state)
            under = _under(key, results)
    pictures, lives, slots, sources = [c[0] for c in columns], [c[1] for c in columns], [c[2] for c in columns], [s for c in columns for s in c[3]]
    run.click(
        running.runner(task, tuple(fields), slots), [past, *fields.values(), *sources], [message, results, past, *under, *pictures, *lives],
        show_progress="minimal", show_progress_on=[message], trigger_mode="once", api_visibility="private", **ACCELERATOR,
    )  # fmt: skip
    stop.click(running.stopper(task), None, None, **LIGHT)


def _examples(task: Task, state: gr.State) -> None:
    examples = [e for e in task.examples if here(e)]
    if not examples:
        return
    gr.HTML('<p class="label">Examples</p>')
    with gr.Row(elem_classes="chips"):
        for example in examples:
            name = example.get("title") or str(example.get("job", {}).get("prompt") or example["arms"][-1]["method"])
            gr.Button(name, size="sm", elem_classes="chip", min_width=40).click(lambda example=example: state_of(example), None, state, **STATE)


# --- an arm ----------------------------------------------------------------------------------------------


def _arm(task: Task, arm: dict, i: int, count: int, state: gr.State):
    """(picture, live, slots, knob components): a slot is (piece's place in the stack or None, knob name)."""
    method, key = METHODS[arm["method"]], (task.slug, arm["id"])
    with gr.Column(elem_classes=["arm", f"arm-{i + 1}"], min_width=260):
        with gr.Row(elem_classes="head"):
            gr.HTML(f'<span class="badge">{i + 1}</span>', min_width=20)
            chooser = gr.Dropdown(
                [(m.title, m.slug) for m in form.methods(task)], value=method.slug, container=False, key=(*key, "method", method.slug),
                elem_classes="method", scale=1, min_width=120, label=f"method of arm {i + 1}", show_label=False,
            )  # fmt: skip
            remove = gr.Button("✕", elem_classes="icon", min_width=32, scale=0, visible=count > 1)
        picture = gr.Image(
            format="jpeg", show_label=False, interactive=False, buttons=["download", "fullscreen"], key=(*key, "picture"), elem_classes="picture",
            placeholder=EMPTY, height=300,
        )  # fmt: skip
        live = gr.HTML("", key=(*key, "live"), elem_classes="status")
        with gr.Accordion("Settings", open=True, elem_classes="settings", key=(*key, "settings"), preserved_by_key=["open"]):
            gr.HTML(f'<p class="summary">{views.escape(method.summary)}</p>')
            sources = list(_form(method.knobs, arm["knobs"], (*key, method.slug), None))
            for place, piece in enumerate(arm["stack"]):
                below = METHODS[piece["method"]]
                with gr.Column(elem_classes="piece"):
                    with gr.Row(elem_classes="head"):
                        gr.HTML(f'<p class="under">+ {views.escape(below.title)} <span>{below.slot}</span></p>')
                        drop = gr.Button("✕", elem_classes="icon", min_width=32, scale=0)
                        drop.click(lambda s, p=piece["id"]: _stacked(s, arm["id"], lambda old: [x for x in old if x["id"] != p]), state, state, **STATE)
                    sources += _form(below.piece_knobs, piece["knobs"], (*key, piece["id"]), place)
            fitting = form.pieces(method, [p["method"] for p in arm["stack"]])
            if fitting:
                add = gr.Dropdown(
                    [("stack another method under this one …", "")] + [(f"+ {m.title}", m.slug) for m in fitting], value="", container=False,
                    elem_classes="add", label="stack a method", show_label=False, key=(*key, "add", len(arm["stack"]), method.slug),
                )  # fmt: skip
                add.input(lambda s, slug: _stacked(s, arm["id"], lambda old: [*old, new_arm(slug)] if slug else old), [state, add], state, **STATE)
    chooser.input(lambda s, slug: _arms(s, [new_arm(slug) if a["id"] == arm["id"] else a for a in s["arms"]]), [state, chooser], state, **STATE)
    remove.click(lambda s: _arms(s, [a for a in s["arms"] if a["id"] != arm["id"]]), state, state, **STATE)
    slots = (arm["method"], [p["method"] for p in arm["stack"]], [slot for slot, _ in sources])
    return picture, live, slots, [component for _, component in sources]


def _form(knobs, values: dict, key: tuple, place: int | None):
    with gr.Row(elem_classes="knobs"):
        return [((place, name), component) for name, component in form.knobs(knobs, values, key).items()]


def _more(task: Task, now: dict, state: gr.State) -> None:
    if len(now["arms"]) >= MAX_ARMS:
        return
    with gr.Row(elem_classes="more"):
        arm = gr.Button("+ arm", size="sm", elem_classes="quiet", min_width=80, scale=0)
        arm.click(lambda s: _arms(s, [*s["arms"], new_arm(next_method(task, s))]), state, state, **STATE)
        if task.baseline in METHODS and all(a["method"] != task.baseline for a in now["arms"]):
            base = gr.Button("+ baseline", size="sm", elem_classes="quiet", min_width=80, scale=0)
            base.click(lambda s: _arms(s, [*s["arms"], new_arm(task.baseline)]), state, state, **STATE)


def next_method(task: Task, state: dict) -> str:
    """The first method that no arm has; when all are there, the baseline."""
    return next(iter(_unused(task, [a["method"] for a in state["arms"]])), task.baseline)


def _unused(task: Task, used: list[str]) -> list[str]:
    return [m.slug for m in form.methods(task) if m.slug not in used]


def _arms(state: dict, arms: list[dict]) -> dict:
    return {**state, "arms": arms}


def _stacked(state: dict, arm: str, change) -> dict:
    return _arms(state, [{**a, "stack": change(a["stack"])} if a["id"] == arm else a for a in state["arms"]])


# --- under the arms --------------------------------------------------------------------------------------


def _under(key: tuple, results: gr.State) -> list:
    """What running.summary fills, in its order."""
    kept = dict(preserved_by_key=["value", "visible"])
    with gr.Column(visible=False, elem_classes="under", key=(*key, "under"), preserved_by_key=["visible"]) as under:
        table = gr.HTML("", key=(*key, "table"))
        with gr.Row(elem_classes="pair", visible=False, key=(*key, "pair"), preserved_by_key=["visible"]) as pair:
            with gr.Column(min_width=260):
                with gr.Row(elem_classes="head"):
                    a = gr.Dropdown([], label="left", container=False, key=(*key, "a"), preserved_by_key=["value", "choices"], min_width=100)
                    b = gr.Dropdown([], label="right", container=False, key=(*key, "b"), preserved_by_key=["value", "choices"], min_width=100)
                slider = gr.ImageSlider(
                    show_label=False, interactive=False, key=(*key, "slider"), buttons=["fullscreen"], max_height=420, elem_classes="picture"
                )
            with gr.Column(min_width=260):
                said = gr.HTML("", key=(*key, "said"), elem_classes="said")
                heat = gr.Image(
                    show_label=False, interactive=False, format="png", key=(*key, "heat"), buttons=["download", "fullscreen"], elem_classes="picture"
                )
        with gr.Row(elem_classes="take"):
            bundle = gr.DownloadButton("Download all (pictures, recipe, table)", size="sm", elem_classes="quiet", key=(*key, "zip"), scale=0, min_width=260)
        with gr.Accordion("Recipe", open=False, elem_classes="recipe", key=(*key, "recipe")):
            code = gr.Code(language="json", show_label=False, interactive=False, key=(*key, "code"), max_lines=24, **kept)
    for chooser in (a, b):
        chooser.input(running.pair, [results, a, b], [slider, heat, said], **LIGHT)
    return [under, table, pair, a, b, slider, heat, said, bundle, code]


def title(method: Method, stack: list[str]) -> str:
    return " + ".join([method.title, *(METHODS[s].title for s in stack)])
