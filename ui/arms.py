"""The arms of a tab: a column each, with the method, its picture, what it says as it runs, its knobs and its stack."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from backends import recipe
from backends.recipe import MAX_ARMS
from backends.registry import METHODS
from backends.spec import Picture, Spectra, Task
from ui import form, verdict, views

PROMISE = '<p class="promise">Press Run: what this arm makes appears here, step by step.</p>'


@dataclass
class Column:
    """What the tab wires: `sources` are the knobs named by `slots`, (place in the stack or None, knob)."""

    id: str
    method: str
    stack: list[str]
    picture: gr.Image
    live: gr.HTML
    slots: list[tuple[int | None, str]] = field(default_factory=list)
    sources: list[gr.components.Component] = field(default_factory=list)

    def filled(self, values: list) -> dict:
        """The recipe's arm, from the values of `sources`."""
        arm = {"method": self.method, "knobs": {}, "stack": [{"method": slug, "knobs": {}} for slug in self.stack]}
        for (place, name), value in zip(self.slots, values):
            (arm if place is None else arm["stack"][place])["knobs"][name] = value
        return arm


@dataclass
class Change:
    """An event that changes the arms: `change(arms, *values of inputs) -> arms`."""

    event: Callable
    change: Callable[..., list[dict]]
    inputs: tuple = ()


def new(method: str, knobs: dict | None = None, stack: list | None = None) -> dict:
    pieces = [new(s["method"], s.get("knobs")) for s in stack or []]
    return {"id": uuid.uuid4().hex[:8], "method": method, "knobs": knobs or {}, "stack": pieces}


def unused(task: Task, used: list[str]) -> list[str]:
    return [m.slug for m in form.methods(task) if m.slug not in used]


def draw(task: Task, arm: dict, i: int, count: int, shown: tuple[Any, str]) -> tuple[Column, list[Change]]:
    """Arm number i of `count`; `shown`: (picture, what stands under it) of its last run."""
    method, me, changes = METHODS[arm["method"]], arm["id"], []
    with gr.Column(elem_classes=["arm", f"arm-{i + 1}"], min_width=260):
        with gr.Row(elem_classes=["head"]):
            gr.HTML(f'<span class="badge">{i + 1}</span>', min_width=20)
            chooser = gr.Dropdown(
                [(m.title, m.slug) for m in form.methods(task)], value=method.slug, container=False, interactive=True, elem_classes=["method"],
                scale=1, min_width=120, label=f"method of arm {i + 1}", show_label=False,
            )  # fmt: skip
            remove = gr.Button(f"remove arm {i + 1}", elem_classes=["cross", "remove"], min_width=32, scale=0, visible=count > 1)
        picture = gr.Image(
            shown[0],
            alt_text=f"what arm {i + 1} made",
            format="jpeg",
            show_label=False,
            interactive=False,
            buttons=["download", "fullscreen"],
            height=320,
            elem_classes=["picture", *_empty(task)],
        )
        live = gr.HTML(shown[1] or ("" if task.pictures else PROMISE), elem_classes=["status"])
        column = Column(me, method.slug, [p["method"] for p in arm["stack"]], picture, live)
        with gr.Accordion("Settings", open=True, elem_classes=["settings"]):
            gr.HTML(f'<p class="summary">{views.escape(method.summary)}</p>{verdict.html(method.slug)}')
            _knobs(column, method.knobs, arm["knobs"], None)
            for place, piece in enumerate(arm["stack"]):
                changes.append(_piece(column, piece, place))
            fitting = form.pieces(method, column.stack)
            if fitting:
                choices = [("stack another method under this one …", "")] + [(f"+ {m.title}", m.slug) for m in fitting]
                add = gr.Dropdown(choices, value="", container=False, interactive=True, elem_classes=["add"], label="stack a method", show_label=False)
                changes.append(Change(add.input, lambda arms, slug: _stacked(arms, me, lambda old: [*old, new(slug)] if slug else old), (add,)))
    changes.append(Change(chooser.input, lambda arms, slug: [new(slug) if a["id"] == me else a for a in arms], (chooser,)))
    changes.append(Change(remove.click, lambda arms: [a for a in arms if a["id"] != me] or arms))
    return column, changes


def _piece(column: Column, piece: dict, place: int) -> Change:
    below = METHODS[piece["method"]]
    with gr.Column(elem_classes=["piece"]):
        with gr.Row(elem_classes=["head"]):
            gr.HTML(f'<p class="name">+ {views.escape(below.title)} <span>{below.slot}</span></p>')
            drop = gr.Button(f"remove {below.title}", elem_classes=["cross"], min_width=32, scale=0)
        _knobs(column, below.piece_knobs, piece["knobs"], place)
    return Change(drop.click, lambda arms: _stacked(arms, column.id, lambda old: [p for p in old if p["id"] != piece["id"]]))


def _knobs(column: Column, knobs, values: dict, place: int | None) -> None:
    with gr.Row(elem_classes=["knobs"]):
        for name, component in form.knobs(knobs, values).items():
            column.slots.append((place, name))
            column.sources.append(component)


def _empty(task: Task) -> list[str]:
    """What an empty picture asks for (see style.css): a prompt, or a picture or cube where there must be one; none where arms give none."""
    if not task.pictures:
        return ["no-picture"]
    needed = [type(r) for r in recipe.marks(task.job).values() if isinstance(r, Picture | Spectra) and r.required]
    return ["from-cube"] if Spectra in needed else ["from-picture"] if needed else []


def _stacked(arms: list[dict], me: str, change: Callable) -> list[dict]:
    return [{**a, "stack": change(a["stack"])} if a["id"] == me else a for a in arms]


def more(task: Task, arms: list[dict]) -> list[Change]:
    """The buttons that add an arm: the first method not there yet, and the baseline."""
    if len(arms) >= MAX_ARMS:
        return []
    with gr.Row(elem_classes=["more"]):
        arm = gr.Button("+ arm", size="sm", elem_classes=["quiet"], min_width=80, scale=0)
        changes = [Change(arm.click, lambda arms: _with(arms, next(iter(unused(task, [a["method"] for a in arms])), task.baseline)))]
        if task.baseline in METHODS and all(a["method"] != task.baseline for a in arms):
            base = gr.Button("+ baseline", size="sm", elem_classes=["quiet"], min_width=80, scale=0)
            changes.append(Change(base.click, lambda arms: _with(arms, task.baseline)))
    return changes


def _with(arms: list[dict], method: str) -> list[dict]:
    return [*arms, new(method)][:MAX_ARMS]
