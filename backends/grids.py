"""X/Y grids: a recipe's one arm, varied along one or two axes.

    "grid": {"x": {"axis": "knob:steps", "values": [10, 20, 40]}, "y": {"axis": "seed", "values": "1-4"}}      y may be left out

Axes: method, seed, model, knob:NAME (knob:PIECE.NAME of a method stacked under it) and job:FIELD, words, a number, a choice or a switch of the input.
Values: a list, or a text of numbers and ranges (“10, 20”, “1-4”, “10..50 step 10”), of choices, or of words with “|” between them. Along an axis of
methods, each keeps the knobs that it has. `checked` refuses what is no grid; whether a value fits is asked of each cell's recipe as of any other.
"""

import math
import re
from collections.abc import Iterable

from backends import models
from backends.registry import METHODS
from backends.spec import BadInput, Choice, Knob, Prompt, Slider, Task, TextKnob, Toggle, marks

MAX_CELLS = 36
PLAIN = ("method", "seed", "model")  # axes without a control of their own
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\s*(?:-|–|\.\.|to)\s*({NUMBER})(?:\s+step\s+({NUMBER}))?")
WORDS = {"on": True, "off": False, "true": True, "false": False}


def axes(task: Task, arm: dict, methods: Iterable[str] = ()) -> dict[str, Knob | Prompt | str]:
    """What an arm can be varied by: axis -> its knob, its field's Prompt, or the axis itself where it is one of PLAIN. `methods`: those along another axis."""
    own = [METHODS[slug] for slug in methods or [arm["method"]] if slug in METHODS]
    found = {f"knob:{knob.name}": knob for method in own for knob in method.knobs}
    for piece in arm.get("stack", ()):
        found |= {f"knob:{piece['method']}.{knob.name}": knob for knob in METHODS[piece["method"]].piece_knobs}
    for name, rule in marks(task.job).items():
        if isinstance(rule, Slider | Choice | Toggle):
            found[f"job:{name}"] = Knob(name, rule, task.job.__dataclass_fields__[name].default)
        elif isinstance(rule, Prompt):
            found[f"job:{name}"] = rule
    return {name: name for name in PLAIN} | found


# --- reading ---------------------------------------------------------------------------------------------


def checked(task: Task, given, arm: dict) -> dict:
    """The grid with its values as lists; raises BadInput. `arm`: what is varied, as recipe.build writes it."""
    if not isinstance(given, dict) or "x" not in given or set(given) - {"x", "y"}:
        raise BadInput("A grid is an object with x, and y for two axes; each has an axis and its values.")
    sides = {side: given[side] for side in ("x", "y") if given.get(side) is not None}
    for side, asked in sides.items():
        if not isinstance(asked, dict) or not isinstance(asked.get("axis"), str):
            raise BadInput(f"The {side.upper()} axis must be an object with an axis, such as seed or knob:steps, and its values.")
    names = [asked["axis"] for asked in sides.values()]
    if len(set(names)) < len(names):
        raise BadInput(f"Both axes vary the same, {title(names[0])}; choose another for Y, or none.")
    methods = next((_values(side, asked, "method") for side, asked in sides.items() if asked["axis"] == "method"), [])
    known = axes(task, arm, methods)
    made = {}
    for side, asked in sides.items():
        name = asked["axis"]
        if name not in known:
            if name.startswith("knob:"):
                raise BadInput(f"The {side.upper()} axis: no chosen method has a knob {name[5:65]}; there are {_names(known, 'knob:')}.")
            raise BadInput(f"The {side.upper()} axis: no axis is called {name[:60]}; there are {', '.join(known)}.")
        made[side] = {"axis": name, "values": _values(side, asked, known[name])}
    counts = [len(axis["values"]) for axis in made.values()]
    if math.prod(counts) > MAX_CELLS:
        raise BadInput(f"A grid has at most {MAX_CELLS} cells; {' × '.join(map(str, counts))} are {math.prod(counts)}.")
    return made


def _names(known: dict, kind: str) -> str:
    return ", ".join(name.removeprefix(kind) for name in known if name.startswith(kind)) or "none"


def _values(side: str, asked: dict, rule) -> list:
    """An axis' values, each once."""
    where, values = f"The {side.upper()} axis, {title(asked['axis'])}", asked.get("values")
    if isinstance(values, str):
        values = _read(values, rule, where)
    if not isinstance(values, list) or not all(isinstance(v, str | bool | int | float) for v in values):
        raise BadInput(f"{where}: its values must be a list of numbers or words, or a text such as “10, 20” or “1-4”.")
    if not values:
        raise BadInput(f"{where}: it has no values; give at least one.")
    if isinstance(getattr(rule, "control", None), Toggle):
        values = [WORDS.get(v.lower(), v) if isinstance(v, str) else v for v in values]
    return list(dict.fromkeys(values))


def _read(text: str, rule, where: str) -> list:
    control = getattr(rule, "control", rule)
    words = isinstance(control, Prompt | TextKnob)
    parts = [part.strip() for part in text.split("|" if words else ",")]
    parts = [part for part in parts if part]
    if words or isinstance(control, Toggle) or control in ("method", "model"):
        return parts
    if isinstance(control, Choice):
        said = {str(option): option for option in control.options}
        return [said.get(part, part) for part in parts]
    return [number for part in parts for number in _numbers(part, where)]


def _numbers(text: str, where: str) -> list[int | float]:
    """“20” or “10..50 step 10”."""
    if re.fullmatch(NUMBER, text):
        return [_number(text)]
    found = RANGE.fullmatch(text)
    if not found:
        raise BadInput(f"{where}: “{text[:40]}” is no number and no range; write “10, 20”, “1-4” or “10..50 step 10”.")
    low, high, step = (_number(part) if part else None for part in found.groups())
    if step is None and not (isinstance(low, int) and isinstance(high, int)):
        raise BadInput(f"{where}: say the step of “{text[:40]}”, as in “0.1..0.5 step 0.1”.")
    step = 1 if step is None else step
    if step <= 0 or high < low or not math.isfinite(high - low):
        raise BadInput(f"{where}: the range “{text[:40]}” must go up, by a step above 0.")
    count = math.floor((high - low) / step + 1e-9) + 1 if (high - low) / step < 1e9 else 10**9
    if count > MAX_CELLS:
        raise BadInput(f"A grid has at most {MAX_CELLS} cells; “{text[:40]}” alone asks for {count:,}.")
    return [low + i * step if isinstance(low + step, int) else float(f"{low + i * step:.10g}") for i in range(count)]


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?\d{1,18}", text) else float(text)


# --- cells -----------------------------------------------------------------------------------------------


def places(grid: dict) -> list[tuple[int, int]]:
    """(column, row) of each cell in the order in which they run: row by row, but model by model, since memory holds few."""
    columns, rows = (range(len(grid[side]["values"])) if side in grid else range(1) for side in ("x", "y"))
    if grid["x"]["axis"] == "model":
        return [(i, j) for i in columns for j in rows]
    return [(i, j) for j in rows for i in columns]


def settings(grid: dict, place: tuple[int, int]) -> dict:
    """axis -> value of the cell there."""
    return {grid[side]["axis"]: grid[side]["values"][i] for side, i in zip("xy", place) if side in grid}


def varied(grid: dict) -> list[str]:
    """The fields of the job that its cells have for themselves, but for the model."""
    kinds = [grid[side]["axis"].partition(":") for side in ("x", "y") if side in grid]
    return [name or kind for kind, _, name in kinds if kind in ("job", "seed")]


def cells(given: dict) -> list[dict]:
    """Each arm of a recipe, or each cell of its grid, as a recipe of its own, in the order in which they run."""
    alone = {name: value for name, value in given.items() if name not in ("grid", "outcome")}
    arms, grid = given.get("arms", []), given.get("grid")
    if not grid:
        return [alone | {"arms": [arm]} for arm in arms]
    return [_cell(alone, arms[0], settings(grid, place)) for place in places(grid)]


def _cell(alone: dict, arm: dict, values: dict) -> dict:
    arm = {**arm, "knobs": dict(arm["knobs"]), "stack": [{**piece, "knobs": dict(piece["knobs"])} for piece in arm.get("stack", ())]}
    made = {**alone, "job": dict(alone["job"]), "arms": [arm]}
    for axis, value in values.items():
        kind, _, name = axis.partition(":")
        piece, _, knob = name.rpartition(".")
        if axis == "method":
            arm["method"] = value
        elif axis == "model":
            made["model"] = value
        elif kind == "knob":
            knobs = next((p["knobs"] for p in arm["stack"] if p["method"] == piece), arm["knobs"])
            knobs[knob] = value
        else:
            made["job"][name or axis] = value
    if "method" in values and (method := METHODS.get(arm["method"])):
        arm["knobs"] = {name: value for name, value in arm["knobs"].items() if name in {k.name for k in method.knobs}}
    if not arm["stack"]:
        del arm["stack"]
    return made


# --- what they are called --------------------------------------------------------------------------------


def title(axis: str) -> str:
    """“steps” of “knob:steps”."""
    piece, _, name = axis.rpartition(":")[2].rpartition(".")
    words = name.replace("_", " ")
    return f"{METHODS[piece].title}'s {words}" if piece in METHODS else words


def label(axis: str, value) -> str:
    """A value as it is read; one of a method or model that is not here any more as it is."""
    if axis == "method" and value in METHODS:
        return METHODS[value].title
    if axis == "model" and value in models.CARDS:
        return models.CARDS[value].title
    if isinstance(value, bool):
        return "on" if value else "off"
    said = f"{value:.6g}" if isinstance(value, float) else str(value)
    return said if len(said) <= 60 else said[:59] + "…"


def name(grid: dict, place: tuple[int, int]) -> str:
    """“steps 10 · seed 3”: which cell it is."""
    return " · ".join(
        label(axis, value) if axis in ("method", "model") else f"{title(axis)} {label(axis, value)}" for axis, value in settings(grid, place).items()
    )


def names(given: dict) -> list[str]:
    """What each arm of a recipe, or cell of its grid, is called."""
    if grid := given.get("grid"):
        return [name(grid, place) for place in places(grid)]
    parts = [[arm, *arm.get("stack", ())] for arm in given["arms"]]
    titles = [" + ".join(METHODS[part["method"]].title for part in arm) for arm in parts]
    return [f"{title}{_apart([p for p, t in zip(parts, titles) if t == title], arm)}" for title, arm in zip(titles, parts)]


def _apart(alike: list[list[dict]], arm: list[dict]) -> str:
    """“ (null off)”: the knobs by which an arm differs from others of the same methods."""
    knobs = [(i, name) for i, part in enumerate(arm) for name in part["knobs"] if len({repr(other[i]["knobs"].get(name)) for other in alike}) > 1]
    return bracketed((name, arm[i]["knobs"][name]) for i, name in knobs)


def bracketed(knobs: Iterable[tuple[str, object]]) -> str:
    """“ (steps 10, null off)”, "" where there are none."""
    said = ", ".join(f"{name.replace('_', ' ')} {label('', value)}" for name, value in knobs)
    return f" ({said})" if said else ""
