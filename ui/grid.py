"""The X/Y grid under a tab's arms: which axes vary the first arm and by which values, how many cells that are, and the cells themselves."""

from collections.abc import Callable
from dataclasses import dataclass, field

import gradio as gr

from backends import grids, jobs, recipe
from backends.spec import BadInput, Choice, Knob, Prompt, Task, TextKnob, Toggle
from ui import cells, form, running
from ui.results import Shown
from ui.views import escape

HOW = "such as 10, 20, 40 or 1-4 or 10..50 step 10"
WORDS = "words with | between them: a cat | a dog"


@dataclass
class Panel:
    """What the tab wires. `sources`: for X and then Y the axis, the values as text, the values as choices; `parts`: cells.PARTS components; `offered`: the
    grid that stands there while none was asked for."""

    sources: list
    frame: gr.Accordion
    button: gr.Button
    said: gr.HTML
    parts: list
    lists: set[str]  # axes whose values are chosen from a list
    offered: dict = field(default_factory=dict)

    def filled(self, values: tuple) -> dict:
        """The recipe's grid, from values that end with those of `sources`."""
        made, values = {}, values[-len(self.sources) :]
        for side, (axis, text, many) in zip("xy", (values[:3], values[3:])):
            if axis:
                made[side] = {"axis": axis, "values": list(many or []) if axis in self.lists else text or ""}
        return made

    def changed(self, values: tuple) -> dict | None:
        """What a tab that is drawn anew begins with: None while nothing was changed."""
        made = self.filled(values)
        return None if made == self.offered else made


def draw(task: Task, now: dict, shown: Shown) -> Panel:
    """`now`: the tab's state, whose first arm is varied; its "grid" is a recipe's."""
    arm = now["arms"][0]
    known = grids.axes(task, arm)
    given = now.get("grid") or _first(task, arm, known)
    known |= grids.axes(task, arm, next((side["values"] for side in given.values() if side["axis"] == "method"), ()))  # knobs of those methods too
    with gr.Accordion("X/Y grid", open=bool(now.get("grid") or shown.grid), elem_classes=["xy-panel"]) as panel:
        gr.HTML('<p class="help">Varies the first arm along two axes; every cell is a run of its own, and the whole grid is one recipe.</p>')
        sources, lists = [], {axis for axis, rule in known.items() if _options(task, axis, rule)}
        for side in "xy":
            sources += _axis(task, arm, known, side, given.get(side) or {})
        with gr.Row(elem_classes=["xy-go"]):
            button = gr.Button("Run grid", variant="primary", elem_classes=["run-grid"], min_width=110, scale=0)
            said = gr.HTML(elem_classes=["xy-said"])
        table = gr.HTML(shown.grid, js_on_load=cells.FRAME)
        changes = gr.HTML("", js_on_load=cells.CHANGES, elem_classes=["hook"])
        seen = gr.HTML("")
    table.click(cells.large, None, seen, queue=False, show_progress="hidden", api_visibility="private")
    made = Panel(sources, panel, button, said, [table, changes, seen], lists)
    if not now.get("grid"):
        made.offered = made.filled(tuple(c.value for c in sources))
    return made


def _axis(task: Task, arm: dict, known: dict, side: str, given: dict) -> list:
    """The axis' dropdown and where its values are given: a text, or a list to choose from."""
    none = [("none", "")] if side == "y" else []
    chosen = given.get("axis") if given.get("axis") in known else "" if side == "y" else "seed"
    with gr.Row(elem_classes=["xy-axis"]):
        axis = gr.Dropdown([*none, *_titles(known)], value=chosen, label=f"{side.upper()} axis", interactive=True, scale=1, min_width=150)
        text, many = _fields(task, arm, known, chosen, given.get("values"))
        text, many = gr.Textbox(**text), gr.Dropdown(**many)

    def change(axis: str) -> tuple:
        text, many = _fields(task, arm, known, axis)
        return gr.Textbox(**text), gr.Dropdown(**many)

    axis.input(change, axis, [text, many], queue=False, show_progress="hidden", api_visibility="private")
    return [axis, text, many]


def _fields(task: Task, arm: dict, known: dict, axis: str, values=None) -> tuple[dict, dict]:
    """What the two fields of an axis' values are given; without values those that are offered."""
    rule = known.get(axis)
    options = _options(task, axis, rule)
    values = _offered(task, arm, axis, rule) if values is None else values
    words = isinstance(getattr(rule, "control", rule), Prompt | TextKnob)
    said = values if isinstance(values, str) else (" | " if words else ", ").join(map(str, values))
    common = dict(label="values", interactive=True, scale=3, min_width=190)
    text = dict(value=said, visible=bool(axis) and not options, info=_range(rule), max_length=recipe.MAX_CHARACTERS, **common)
    picked = [grids.label("", v) if isinstance(v, bool) else v for v in values] if isinstance(values, list) else []
    picked = [v for v in picked if v in [option for _, option in options]]
    return text, dict(choices=options, value=picked if options else [], multiselect=True, visible=bool(options), **common)


def _titles(known: dict) -> list[tuple[str, str]]:
    """Knobs before the fields of the input, which are told apart where they share a name."""
    titles = [grids.title(axis) for axis in known]
    return [(f"{said} (input)" if axis.startswith("job:") and titles.count(said) > 1 else said, axis) for axis, said in zip(known, titles)]


def _options(task: Task, axis: str, rule) -> list[tuple[str, object]]:
    """(title, value) of what an axis may be given; () where it is numbers or words."""
    if axis == "method":
        return [(m.title, m.slug) for m in form.methods(task)]
    if axis == "model":
        return form.cards(task)
    control = getattr(rule, "control", None)
    if isinstance(control, Toggle):
        return [("on", "on"), ("off", "off")]
    return [(str(option), option) for option in control.options] if isinstance(control, Choice) else []


def _offered(task: Task, arm: dict, axis: str, rule) -> list | str:
    """Values to begin with: three about where the arm stands."""
    if options := _options(task, axis, rule):
        others = [value for _, value in options if value != arm["method"]]
        return [arm["method"], *others][:3] if axis == "method" else others[:3]
    if axis == "seed":
        return "0-2"
    if not isinstance(rule, Knob) or not hasattr(rule.control, "low"):
        return ""
    if rule.control.tried:
        return list(rule.control.tried)
    low, high = rule.control.low, rule.control.high
    middle = arm["knobs"].get(rule.name, rule.default)
    near = [middle / 2, middle, middle * 2] if middle > 0 else [low, (low + high) / 2, high]
    clipped = [min(max(value, low), high) for value in near]
    return list(dict.fromkeys(round(v) if rule.kind is int else float(f"{v:.3g}") for v in clipped))


def _range(rule) -> str:
    control = getattr(rule, "control", rule)
    if hasattr(control, "low"):
        return f"{control.low:.10g} to {control.high:.10g}, {HOW}"
    return HOW if rule == "seed" else WORDS


def _first(task: Task, arm: dict, known: dict) -> dict:
    """The axes that are offered: the arm's first two knobs, and where it has fewer seeds and methods."""
    knobs = [axis for axis in known if axis.startswith("knob:")]
    x, y = [*knobs, "seed"][:2] if knobs else ("method", "seed")
    return {side: {"axis": axis, "values": _offered(task, arm, axis, known[axis])} for side, axis in (("x", x), ("y", y))}


# --- what is said of it before it runs -------------------------------------------------------------------


def teller(task: Task, names: tuple[str, ...], column, panel: Panel) -> Callable:
    """The handler that says how many cells there are and how long they take, or what is wrong; `names`: fields without pictures, sounds and the like."""

    def tell(*values) -> str:
        job = dict(zip(names, values))
        given = {
            "schema": recipe.SCHEMA,
            "task": task.slug,
            "model": job.pop("model") or task.model,
            "job": job,
            "arms": running.filled([column], values[len(names) :]),
            "grid": panel.filled(values),
        }
        try:
            recipe.arms_of_cells(task, given)
        except BadInput as bad:
            return f'<p class="error" role="status">{escape(str(bad))}</p>'
        counts = [len(axis["values"]) for axis in given["grid"].values()]
        known, count = jobs.studio().guess(given, {}), len(grids.places(given["grid"]))
        cells_ = f"{' × '.join(map(str, counts))} = {count} cells" if len(counts) > 1 else f"{count} cell{'s' if count > 1 else ''}"
        return f'<p class="note" role="status">{cells_}{"" if known is None else f", about {running.lasting(known)}"}</p>'

    return tell
