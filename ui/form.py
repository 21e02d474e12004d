"""Knobs and job fields -> components, and their values -> a recipe."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from backends import inputs, models, recipe
from backends.registry import METHODS
from backends.spec import Audio, BadInput, Choice, Cube, Knob, Mesh, Method, Picture, Prompt, Shape, Slider, Sound, Spectra, Task, Toggle, fields_of
from backends.worlds.objects import OBJECTS
from ui import cube, shape, sound, toast, upload

EXAMPLES = Path(__file__).resolve().parents[1] / "assets" / "examples"
DICE = "() => Math.floor(Math.random() * 4294967296)"


def words(name: str) -> str:
    return name.replace("_", " ")


def knob(knob: Knob, value: Any) -> gr.components.Component:
    control, label = knob.control, words(knob.name)
    common = dict(value=value, label=label, info=control.help or None, elem_classes="knob", interactive=True)
    if isinstance(control, Toggle):
        return gr.Checkbox(**common)
    if isinstance(control, Choice):
        return gr.Dropdown(list(control.options), **common)
    if isinstance(control, Slider):
        if control.unit:
            common["label"] = f"{label} ({control.unit})"
        step = control.step or (1 if knob.kind is int else (control.high - control.low) / 100)
        return gr.Slider(control.low, control.high, step=step, buttons=[], **common)
    return gr.Textbox(max_length=control.limit, lines=1, **common)


def knobs(of: tuple[Knob, ...], values: dict) -> dict[str, gr.components.Component]:
    return {k.name: knob(k, values.get(k.name, k.default)) for k in of}


# --- the input panel -------------------------------------------------------------------------------------


def cards(task: Task, brought: Iterable[str] = ()) -> list[tuple[str, str]]:
    """(title, name) of the models that at least one method of the task can run on, the default first, and of the visitor's own."""
    fit = {c.name: c.title for m in METHODS.values() if m.task is task for c in models.cards_for(m)}
    names = sorted(fit, key=lambda name: name != task.model)
    return ([(fit[name], name) for name in names] or [(task.model, task.model)]) + [(c.title, c.name) for c in models.brought(brought)]


def panel(task: Task, values: dict, pictures: dict) -> dict[str, gr.components.Component]:
    """One component for each field of the task's Job; a picture and the mask painted on it share one."""
    rules, made, openers = recipe.marks(task.job), {}, []
    masked = {rule.mask_of: name for name, rule in rules.items() if isinstance(rule, Picture) and rule.mask_of}
    order = sorted(rules, key=lambda name: (rules[name] == "seed", isinstance(rules[name], Slider | Choice | Toggle)))
    for name in order:
        rule = rules[name]
        if isinstance(rule, Picture):
            if rule.mask_of:
                continue
            shown = _given(values.get(name), pictures)
            if name in masked:
                mask = _given(values.get(masked[name]), pictures)
                made[name] = upload.editor(words(name).capitalize(), rules[masked[name]].help, rule.longest, shown, mask)
                made[masked[name]] = gr.State(mask)
            else:
                made[name] = upload.plain(words(name).capitalize(), _label(name, rule), rule.longest, shown)
        elif isinstance(rule, Sound):
            shown = _given(values.get(name), pictures, inputs.sound)
            made[name] = sound.field(words(name).capitalize(), _label(name, rule), rule.help, rule.longest, shown)
        elif isinstance(rule, Shape):
            made[name] = shape.field(words(name).capitalize(), _label(name, rule), rule.help, _shape(values.get(name), pictures))
        elif isinstance(rule, Spectra):
            made[name] = cube.field(words(name).capitalize(), _label(name, rule), rule.help, _given(values.get(name), pictures, inputs.cube))
        elif isinstance(rule, Prompt):
            lines = 3 if rule.required else 1
            made[name] = gr.Textbox(values.get(name, ""), label=_label(name, rule), placeholder=rule.help, lines=lines, max_lines=6, interactive=True)
            if rule.files:
                openers.append((rule, name, gr.UploadButton(f"Open {', '.join(rule.files)}", file_types=list(rule.files), size="sm", elem_classes=["quiet"])))
        elif rule == "seed":
            with gr.Row(elem_classes="seed"):
                made[name] = gr.Number(values.get(name, 0), label="Seed", precision=0, interactive=True, min_width=80)
                gr.Button("draw a seed", elem_classes="dice", min_width=40, scale=0).click(None, None, made[name], js=DICE, api_visibility="private")
        else:
            default = fields_of(task.job)[name].default
            made[name] = knob(Knob(name, rule, default), values.get(name, default))
    for name, rule in rules.items():
        if isinstance(rule, Sound) and rule.of:
            made[rule.of].clear(sound.of_another, None, made[name], **sound.EVENT)
    for rule, name, button in openers:
        filled = [made[n] for n in rule.fills]
        button.upload(_opener(rule), [button, made[name], *filled], filled, **upload.EVENT)
    return made


def _opener(rule: Prompt):
    """The handler of a file that fills fields: their values, or, with a warning, what stands in them."""

    def fill(path: str, text: str, *now):
        try:
            found, said = inputs.fields(Path(path), rule, text)
        except BadInput as bad:
            toast.warning(bad, title="Not opened")
            return list(now)
        for note in said:
            toast.info(note)
        return [found[n] for n in rule.fills]

    return fill


def _label(name: str, rule) -> str:
    return words(name).capitalize() + ("" if rule.required else " (optional)")


def _given(value, pictures: dict, decode=inputs.picture) -> np.ndarray | Audio | Cube | None:
    """What a job names: pixels, a sound or a cube, the hash of one that came along, or a file of assets/examples."""
    if isinstance(value, dict):
        return pictures.get(value.get("sha256"))
    if isinstance(value, str):
        path = EXAMPLES / Path(value).name
        return decode(path, "The example") if path.is_file() else None
    return value


def _shape(value, pictures: dict) -> str | Mesh | None:
    """What a job names: one of the studio's objects, or a mesh that came along."""
    return pictures.get(value.get("sha256")) if isinstance(value, dict) else value if isinstance(value, Mesh) or value in OBJECTS else None


def example_name(task: Task, example: dict) -> str:
    """Its title, else its first words and the switches it sets, else its sizes; and its papers: “a dog · colour · enlarge 2 (Steered Diffusion)”."""
    given, rules, fields = example.get("job", {}), recipe.marks(task.job), fields_of(task.job)
    set_ = [n for n, r in rules.items() if isinstance(r, Toggle | Choice) and given.get(n) and given[n] != fields[n].default]
    prompt = said_in(task, given)
    sizes = [f"{words(n)} {v}" for n, v in given.items() if isinstance(rules[n], Slider)] if not (prompt or set_) else []
    said = [*([prompt] if prompt else sizes), *(words(n) if given[n] is True else f"{words(n)} {given[n]}" for n in set_)]
    said = [example["title"]] if example.get("title") else said
    arms = [METHODS[arm["method"]] for arm in example.get("arms", [])]  # choosing it changes the arms: it says to which
    shown = dict.fromkeys(m.title.split(":")[0] for m in [m for m in arms if m.paper] or arms)
    return " · ".join(said or [task.title]) + (f" ({' / '.join(shown)})" if shown else "")


def said_in(task: Task, given: dict) -> str:
    """The words of a recipe's job that tell it from others: its prompt, else its first text."""
    texts = {n: str(given[n]) for n, r in recipe.marks(task.job).items() if isinstance(r, Prompt) and given.get(n)}
    return texts.get("prompt") or next(iter(texts.values()), "")


def example_picture(task: Task, example: dict) -> str | None:
    """The file of its first picture or object, for the chip."""
    rules = recipe.marks(task.job)
    if named := next((v for n, v in example.get("job", {}).items() if isinstance(rules[n], Shape) and v in OBJECTS), None):
        return shape.icon(named)
    names = [n for n, r in rules.items() if isinstance(r, Picture)]
    files = [EXAMPLES / Path(v).name for n in names if isinstance(v := example.get("job", {}).get(n), str)]
    return next((str(f) for f in files if f.is_file()), None)


def job(task: Task, names: Iterable[str], values: Iterable) -> tuple[dict, dict]:
    """(the recipe's job, its pictures, sounds, meshes and cubes by hash) from what the panel's components hold."""
    rules, found = recipe.marks(task.job), dict(zip(names, values))
    given, pictures = {}, {}
    for name, rule in rules.items():
        value = found.get(name)
        if isinstance(rule, Picture):
            source = found.get(rule.mask_of or name)
            if isinstance(source, dict):
                value = _mask(source, value) if rule.mask_of else source.get("background")
            if value is None or (not rule.mask_of and isinstance(source, dict) and _blank(value)):
                continue
            value = inputs.shrunk(inputs.picture(value, words(name).capitalize()), rule.longest)
        elif isinstance(rule, Sound) and value is not None:
            value = inputs.sound(value, words(name).capitalize(), rule.longest)
        elif isinstance(rule, Shape) and isinstance(value, Mesh):
            value = inputs.mesh(value, words(name).capitalize())
        if isinstance(value, recipe.Input):
            digest = recipe.digest(value)
            given[name], pictures[digest] = {"sha256": digest}, value
        elif value is not None:
            given[name] = value
    return given, pictures


def _blank(value: np.ndarray) -> bool:
    """An editor with no picture gives a transparent background."""
    return value.ndim == 3 and value.shape[-1] == 4 and not value[..., 3].any()


def _mask(editor: dict, came: np.ndarray | None = None) -> np.ndarray | None:
    """White where something was painted; else the mask that came along, while it fits the picture."""
    layers = [np.asarray(layer)[..., 3] > 0 for layer in editor.get("layers") or [] if layer is not None]
    if layers and np.any(layers):
        return np.repeat((np.any(layers, 0) * 255).astype(np.uint8)[..., None], 3, -1)
    return came if came is not None and came.shape[:2] == np.shape(editor.get("background"))[:2] else None


# --- arms ------------------------------------------------------------------------------------------------


def methods(task: Task) -> list[Method]:
    """Papers first by title, then the baselines."""
    return sorted((m for m in METHODS.values() if m.task is task), key=lambda m: (not m.paper, m.title))


def pieces(top: Method, taken: list[str]) -> list[Method]:
    """What may still be stacked under `top`, given the methods stacked already."""
    slots = {METHODS[slug].slot for slug in taken if slug in METHODS}
    found = []
    for below in methods(top.task):
        try:
            recipe.check_stack(top, below, {top.slot, *slots} - {""})
        except BadInput:
            continue
        found.append(below)
    return found
