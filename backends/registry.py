"""@method: a generator function becomes a method of the studio. Its signature is its form."""

import importlib
import importlib.util
import inspect
import pkgutil
import typing
from collections.abc import Callable
from typing import Annotated, get_args, get_origin

from backends.spec import Choice, Knob, Method, Slider, Slot, Task, TextKnob, Toggle

PACKAGES = ("image", "text", "restore", "scene", "audio", "motion", "understanding", "lab")
METHODS: dict[str, Method] = {}
TASKS: dict[str, Task] = {}


def method(
    slug: str,
    *,
    task: Task,
    needs: set[str] = frozenset(),
    slot: Slot = "",
    piece: Callable | None = None,
    holds: set[str] = frozenset(),
    paper: bool = True,
    loads: Callable[..., tuple[str, ...]] | None = None,
    prepare: Callable[..., object] | None = None,
    clashes: dict[str, str] | None = None,
):
    """Register a generator function `f(job, model, ..., knobs)`.

    The docstring's first line is the title, its second paragraph the summary. `needs` names capabilities of
    the model; `slot` and `piece` let it be stacked under other methods; `holds` names the slots it takes
    under itself, which then arrive as the keyword `stack` (a dict from slot to piece). `loads(model, **knobs)`
    names the further cards that an arm or piece with these knobs takes; `prepare(model, **knobs)` reads, and keeps, what an arm needs
    besides, before its clock starts. `clashes`: methods that
    fit by their slot but can't share an arm with it, each with the sentence that says why.
    """

    def register(function: Callable) -> Callable:
        if slug in METHODS:
            raise ValueError(f"two methods are called {slug}")
        doc = inspect.getdoc(function) or ""
        paragraphs = doc.split("\n\n")
        METHODS[slug] = Method(
            slug, paragraphs[0].strip().rstrip("."), task, frozenset(needs), function, knobs_of(function),
            " ".join(paragraphs[1].split()) if len(paragraphs) > 1 else "", doc, slot, piece,
            knobs_of(piece) if piece else (), frozenset(holds), paper, loads, prepare, clashes or {},
        )  # fmt: skip
        if TASKS.setdefault(task.slug, task) is not task:
            raise ValueError(f"two tasks are called {task.slug}")
        return function

    return register


def knobs_of(function: Callable) -> tuple[Knob, ...]:
    """The Annotated parameters of a function (or of a class's __init__), in order."""
    target = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(target, include_extras=True)
    knobs = []
    for parameter in inspect.signature(target).parameters.values():
        hint = hints.get(parameter.name)
        if get_origin(hint) is Annotated:
            control = next((a for a in get_args(hint)[1:] if isinstance(a, Slider | Choice | Toggle | TextKnob)), None)
            if control is not None:
                knobs.append(Knob(parameter.name, control, parameter.default))
    return tuple(knobs)


def discover() -> None:
    """Import every method file once. A method's file imports nothing heavy (see lazy.py)."""
    if METHODS:
        return
    for name in PACKAGES:
        try:
            package = importlib.import_module(f"backends.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"backends.{name}":
                raise
            continue
        if importlib.util.find_spec(f"backends.{name}.tasks"):  # the tabs stand in the order in which tasks are written there
            TASKS.update({t.slug: t for t in vars(importlib.import_module(f"backends.{name}.tasks")).values() if isinstance(t, Task)})
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(info.name)
    for slug in TASKS.keys() - {m.task.slug for m in METHODS.values()}:
        del TASKS[slug]
