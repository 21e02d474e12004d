"""Recipes: what the page, the API, the command line and a file's metadata all speak.

{"schema": 1, "task": …, "model": …, "job": {…}, "arms": [{"method": …, "knobs": {…}, "stack": […]}]}

With "apart": true its arms may run at once where the host has several replicas; their seconds are then not to be compared.
With a "grid" (grids.py) it has one arm, which the grid's axes vary: `parse` gives an arm for each cell.

Pictures, sounds, objects and cubes in a job are named by the SHA-256 of their pixels, samples, faces or values, the studio's own objects by their name;
they travel beside the recipe: as base64 PNG, FLAC or npz in a result's metadata and in the `inputs` of an API call, as files for the command line. What is
called `pictures` maps hashes to (H, W, 3) uint8, to Audio, to Mesh, or to Cube.
"""

import base64
import binascii
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.PngImagePlugin

from backends import cubes, gltf, grids, inputs, meshes, models
from backends.registry import METHODS, TASKS
from backends.spec import Arm, Audio, BadInput, Cube, Job, Knob, Mesh, Method, Picture, Prompt, Shape, Slider, Sound, Spectra, Stacked, Task, fields_of, marks
from backends.worlds import objects

SCHEMA = 1
MAX_ARMS = 6
MAX_CHARACTERS = 200_000
MAX_INPUTS = 4  # no task takes more
MAX_TAG = 12 * 2**20  # characters; a FLAC's tags hold 16 MB
KEY, INPUTS_KEY = "unnoise", "unnoise-inputs"  # PNG text chunks
RECIPE = "recipe"  # array of a cube's npz

Input = np.ndarray | Audio | Mesh | Cube
KINDS = {Picture: ("picture", inputs.picture), Sound: ("sound", inputs.sound), Shape: ("object", inputs.mesh), Spectra: ("cube", inputs.cube)}


# --- reading ---------------------------------------------------------------------------------------------


def parse(recipe: dict | str, pictures: dict[str, Input] | None = None) -> tuple[Task, Job, tuple[Arm, ...]]:
    """Check a recipe and give what the runner takes; raises BadInput with one sentence."""
    return _parsed(_loaded(recipe), pictures)[:3]


def whole(recipe: dict | str, pictures: dict[str, Input] | None = None) -> tuple[Task, dict, dict[str, Input]]:
    """(task, recipe, inputs) as they are kept, with all defaults; raises BadInput. The recipe has its grid, not the grid's cells."""
    recipe = _loaded(recipe)
    task, job, arms, grid = _parsed(recipe, pictures)
    apart = recipe.get("apart", False)
    if not isinstance(apart, bool):
        raise BadInput("The recipe's apart says whether its arms may run at once on several replicas; it is true or false.")
    return task, (grid or build(task, job, arms)) | ({"apart": True} if apart else {}), inputs_of(job)


def _parsed(recipe: dict, pictures: dict[str, Input] | None) -> tuple[Task, Job, tuple[Arm, ...], dict | None]:
    task = TASKS.get(_name(recipe.get("task"), "task"))
    if task is None:
        raise BadInput(f"No task is called {recipe['task']}; there are {', '.join(TASKS)}.")
    job, arms = _job(task, recipe, pictures or {}), _arms(task, recipe.get("arms"))
    if recipe.get("grid") is None:
        return task, job, arms, None
    grid = build(task, job, arms) | {"grid": recipe["grid"]}
    arms = arms_of_cells(task, grid)
    for number, (place, arm) in enumerate(zip(grids.places(grid["grid"]), arms), 1):
        try:
            dataclasses.replace(job, **arm.job)  # what a task's job refuses as a whole, each cell's is asked
        except BadInput as bad:
            raise BadInput(f"Cell {number} ({grids.name(grid['grid'], place)}): {bad}") from None
    return task, job, arms, grid


def arms_of_cells(task: Task, given: dict) -> tuple[Arm, ...]:
    """The arms of a recipe's grid, one a cell; `given` gets the grid as it is kept. Raises BadInput."""
    if len(given["arms"]) != 1:
        raise BadInput(f"A grid varies one arm; the recipe has {len(given['arms'])}.")
    given["grid"] = grids.checked(task, given["grid"], given["arms"][0])
    rules, fields, made = marks(task.job), fields_of(task.job), []
    for place, cell in zip(grids.places(given["grid"]), grids.cells(given)):
        own = {name: _value(name, rules[name], cell["job"][name], fields[name].default, {}) for name in grids.varied(given["grid"])}
        own |= {"model": models.get(_name(cell["model"], "model")).name} if cell["model"] != given["model"] else {}
        arm = _arm(task, cell["arms"][0], f"Cell {len(made) + 1} ({grids.name(given['grid'], place)})")
        made.append(dataclasses.replace(arm, job=own))
    return tuple(made)


def _json(text: str):
    """The value; the pictures beside a recipe may be large, so its caller bounds the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput("The recipe is not JSON.") from None


def _loaded(recipe) -> dict:
    if isinstance(recipe, str):
        if len(recipe) > MAX_CHARACTERS:
            raise BadInput(f"The recipe has more than {MAX_CHARACTERS:,} characters.")
        recipe = _json(recipe)
    if not isinstance(recipe, dict):
        raise BadInput("A recipe is a JSON object with task, job and arms.")
    schema = recipe.get("schema", SCHEMA)
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BadInput("The recipe's schema must be a whole number from 1.")
    if schema > SCHEMA:
        raise BadInput(f"The recipe comes from a newer version (schema {schema}, here {SCHEMA}); update the studio.")
    return recipe


def _name(value, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > 100:
        raise BadInput(f"The recipe must name its {what}.")
    if "/" in value or "\\" in value or ".." in value:
        raise BadInput(f"The recipe's {what} holds a path; only a name is taken.")
    return value


def _job(task: Task, recipe: dict, pictures: dict[str, Input]) -> Job:
    given = recipe.get("job", {})
    if not isinstance(given, dict):
        raise BadInput("The recipe's job must be an object.")
    rules = marks(task.job)
    if unknown := set(given) - set(rules):
        raise BadInput(f"{task.title} does not take {', '.join(sorted(map(str, unknown)))}; it takes {', '.join(rules)}.")
    values = {"model": models.get(_name(recipe.get("model") or task.model, "model")).name}
    for field in dataclasses.fields(task.job):
        if field.name not in rules:
            continue
        default = None if field.default is dataclasses.MISSING else field.default
        values[field.name] = _value(field.name, rules[field.name], given.get(field.name, default), default, pictures)
    return task.job(**values)


def _value(name: str, rule, value, default, pictures):
    label = name.replace("_", " ").capitalize()
    if rule == "seed":
        return Knob("seed", Slider(0, 2**32 - 1), 0).check(value, "Job")
    if isinstance(rule, Prompt):
        return inputs.text("" if value is None else value, label, rule.limit, rule.required)
    if type(rule) in KINDS:
        kind, read = KINDS[type(rule)]
        if isinstance(value, dict):
            digest = value.get("sha256")
            value = pictures.get(digest) if isinstance(digest, str) else None
            if value is None:
                raise BadInput(f"{label}: the recipe names {_a(kind)} that did not come with it; add it again.")
        elif isinstance(value, str) and not isinstance(rule, Shape):
            raise BadInput(f"{label}: a recipe names {kind}s by their hash, not by a path.")
        elif not isinstance(value, Input | str | None):
            raise BadInput(f'{label}: a recipe names {kind}s as {{"sha256": …}}.')
        if value is None:
            if rule.required:
                raise BadInput(f"{label} is missing; " + ("paint it on the picture." if getattr(rule, "mask_of", "") else f"add {_a(kind)}."))
            return None
        taken = read(value, label, rule.longest) if isinstance(rule, Sound) else read(value, label)
        if isinstance(rule, Picture) and min(taken.shape[:2]) < rule.smallest:
            raise BadInput(f"{label} has {taken.shape[1]}×{taken.shape[0]} pixels; give one of at least {rule.smallest}×{rule.smallest}.")
        return taken
    return Knob(name, rule, default).check(value, "Job")


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "object" else f"a {kind}"


def _arms(task: Task, given) -> tuple[Arm, ...]:
    if not isinstance(given, list) or not given:
        raise BadInput("The recipe needs a list of arms, each with a method.")
    if len(given) > MAX_ARMS:
        raise BadInput(f"At most {MAX_ARMS} arms are compared at once; the recipe has {len(given)}.")
    return tuple(_arm(task, arm, f"Arm {i}") for i, arm in enumerate(given, 1))


def _arm(task: Task, given, where: str) -> Arm:
    if not isinstance(given, dict):
        raise BadInput(f"{where} must be an object with a method.")
    method = find_method(task, given.get("method"), where)
    knobs = check_knobs(given.get("knobs", {}), method.knobs, f"{where}, {method.title}")
    stack, slots, above = [], {method.slot} - {""}, [method]
    entries = given.get("stack", [])
    if not isinstance(entries, list):
        raise BadInput(f"{where}: the stack must be a list of pieces.")
    for entry in entries:
        below = find_method(task, entry.get("method") if isinstance(entry, dict) else None, where)
        check_stack(method, below, slots)
        check_clashes(above, below)
        slots.add(below.slot)
        above.append(below)
        stack.append(Stacked(below.slug, check_knobs(entry.get("knobs", {}), below.piece_knobs, f"{where}, {below.title}")))
    return Arm(method.slug, knobs, tuple(stack))


def find_method(task: Task, name, where: str) -> Method:
    method = METHODS.get(_name(name, "method"))
    if method is None:
        raise BadInput(f"{where}: no method is called {name}.")
    if method.task is not task:
        raise BadInput(f"{where}: {method.title} belongs to {method.task.title}, not to {task.title}.")
    return method


def check_stack(top: Method, below: Method, taken: set[str]) -> None:
    """Raise BadInput when `below` can't stand under `top`, given the slots already taken."""
    if not below.slot:
        raise BadInput(f"{below.title} is a whole program and can't be stacked under {top.title}.")
    if below.slot in taken:
        raise BadInput(f"{below.title} fills the slot “{below.slot}”, which this arm has filled already.")
    if below.slot not in top.holds:
        raise BadInput(f"{top.title} has no place for a “{below.slot}” piece such as {below.title}.")


def check_clashes(above: list[Method], below: Method) -> None:
    """Raise BadInput when `below` fits by its slot but can't work together with one of the arm's other methods."""
    for other in above:
        if sentence := other.clashes.get(below.slug) or below.clashes.get(other.slug):
            raise BadInput(sentence)


def check_knobs(given, knobs: tuple[Knob, ...], where: str) -> dict:
    """All knobs with their values, defaults filled in."""
    if not isinstance(given, dict):
        raise BadInput(f"{where}: knobs must be an object.")
    if unknown := set(given) - {k.name for k in knobs}:
        raise BadInput(f"{where} has no knob {', '.join(sorted(map(str, unknown)))}; it has {', '.join(k.name for k in knobs) or 'none'}.")
    return {k.name: k.check(given.get(k.name, k.default), where) for k in knobs}


# --- writing ---------------------------------------------------------------------------------------------


def digest(value: Input) -> str:
    if isinstance(value, Mesh):
        parts = (value.vertices, value.faces, value.colours)
        return hashlib.sha256(b"".join(repr(p.shape).encode() + np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()
    if isinstance(value, Cube):
        said = repr((value.values.shape, value.wavelengths, value.low, value.high))
        return hashlib.sha256(said.encode() + cubes.sixteen(value).tobytes()).hexdigest()
    if isinstance(value, Audio):
        return hashlib.sha256(repr(value.rate).encode() + _pcm(value).tobytes()).hexdigest()
    return hashlib.sha256(repr(value.shape).encode() + np.ascontiguousarray(value).tobytes()).hexdigest()


def _pcm(sound: Audio) -> np.ndarray:
    """(T,) int16: the same whether the samples come from a method or back from a file."""
    return np.clip(np.round(np.nan_to_num(sound.samples) * 32768), -32768, 32767).astype("<i2")


def build(task: Task, job: Job, arms: tuple[Arm, ...]) -> dict:
    """The recipe of a comparison; `parse` takes it back."""
    rules = marks(task.job)
    values = {name: getattr(job, name) for name in rules}
    values = {k: _name_of(v) or {"sha256": digest(v)} if isinstance(v, Input) else v for k, v in values.items() if v is not None}
    rows = [{"method": a.method, "knobs": a.knobs} | ({"stack": [dataclasses.asdict(s) for s in a.stack]} if a.stack else {}) for a in arms]
    return {"schema": SCHEMA, "task": task.slug, "model": job.model or task.model, "job": values, "arms": rows}


def inputs_of(job: Job) -> dict[str, Input]:
    """hash -> pixels, sound, mesh or cube of every input in a job; the studio's own objects are named and need not travel."""
    found = (getattr(job, f.name) for f in dataclasses.fields(job))
    return {digest(v): v for v in found if isinstance(v, Input) and not _name_of(v)}


def size(pictures: dict[str, Input]) -> int:
    """Bytes that inputs take in memory."""
    arrays = (part for value in pictures.values() for part in (vars(value).values() if isinstance(value, Audio | Mesh | Cube) else (value,)))
    return sum(part.nbytes for part in arrays if isinstance(part, np.ndarray))


def _name_of(value: Input) -> str:
    return objects.NAMES.get(value, "") if isinstance(value, Mesh) else ""


def encode_inputs(pictures: dict[str, Input]) -> dict[str, str]:
    return {name: base64.b64encode(packed(v)).decode() for name, v in pictures.items()}


def with_inputs(recipe: dict, pictures: dict[str, Input] | None) -> dict:
    """The recipe as a file holds it: with the inputs that it names."""
    return recipe | {"inputs": encode_inputs(pictures or {})}


def packed(value: Input) -> bytes:
    """A file that gives the very input back: PNG, FLAC, or an npz of a mesh's three arrays or of a cube."""
    if isinstance(value, Cube):
        return cubes.packed(value)
    if isinstance(value, Mesh):
        out = io.BytesIO()
        np.savez_compressed(out, **vars(value))
        return out.getvalue()
    return flac(value) if isinstance(value, Audio) else png(value)


def decode_inputs(encoded: Any) -> dict[str, Input]:
    """hash -> pixels, sound, mesh or cube, the hash computed again from what came; under the name that it came by as well, so that a job may name it so."""
    if not isinstance(encoded, dict):
        raise BadInput("A recipe's inputs must be an object from hash to base64 PNG, FLAC or npz.")
    if len(encoded) > MAX_INPUTS:
        raise BadInput(f"A recipe comes with at most {MAX_INPUTS} pictures, sounds, objects and cubes; this one has {len(encoded)}.")
    found = {}
    for name, value in encoded.items():
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise BadInput("A picture, sound, object or cube that came with the recipe is not base64.") from None
        if inputs.is_sound(data):
            found[str(name)] = inputs.sound(data, "The recipe's sound")
        elif cubes.is_packed(data):
            found[str(name)] = cubes.unpacked(data, "The recipe's cube")
        elif meshes.is_packed(data):
            found[str(name)] = meshes.unpacked(data, "The recipe's object")
        else:
            found[str(name)] = inputs.picture(data, "The recipe's picture")
    return found | {digest(v): v for v in found.values()}


def flac(sound: Audio, recipe: dict | None = None, pictures: dict[str, Input] | None = None) -> bytes:
    """A FLAC file of 16 bits; with a recipe, its comment is the recipe with its inputs, as a recipe's JSON file is."""
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", sound.rate, 1, "PCM_16", format="FLAC") as file:
        if recipe is not None:
            tag = json.dumps(with_inputs(recipe, pictures))
            file.comment = tag if len(tag) <= MAX_TAG else json.dumps(recipe)
        file.write(_pcm(sound))
    return out.getvalue()


def glb(mesh: Mesh, recipe: dict | None = None, pictures: dict[str, Input] | None = None) -> bytes:
    """A binary glTF file, a colour a face; with a recipe, its asset's extras are the recipe with its inputs."""
    return gltf.written(mesh, recipe and {KEY: with_inputs(recipe, pictures)})


def npz(cube: Cube, recipe: dict | None = None, pictures: dict[str, Input] | None = None) -> bytes:
    """A cube's npz, as cubes.packed; with a recipe, its array `recipe` is the recipe with its inputs, as bytes of JSON."""
    if recipe is None:
        return cubes.packed(cube)
    return cubes.packed(cube, **{RECIPE: np.frombuffer(json.dumps(with_inputs(recipe, pictures)).encode(), np.uint8)})


def webp(frames: np.ndarray, recipe: dict | None = None, pictures: dict[str, Input] | None = None, seconds: float = 5.0) -> bytes:
    """An animation of (n, H, W, 3) uint8 that goes on and on; with a recipe, its EXIF description is the recipe with its inputs."""
    first, *rest = map(PIL.Image.fromarray, frames)
    out, exif = io.BytesIO(), PIL.Image.Exif()
    if recipe is not None:
        exif[PIL.ExifTags.Base.ImageDescription] = json.dumps({KEY: with_inputs(recipe, pictures)})
    first.save(out, "WEBP", save_all=True, append_images=rest, duration=max(20, round(1000 * seconds / len(frames))), loop=0, quality=88, exif=exif)
    return out.getvalue()


def png(pixels: np.ndarray, recipe: dict | None = None, pictures: dict[str, Input] | None = None) -> bytes:
    """A PNG file; with a recipe, the recipe and its input pictures stand in its text chunks."""
    info = PIL.PngImagePlugin.PngInfo()
    if recipe is not None:
        info.add_text(KEY, json.dumps(recipe))
        if pictures:
            info.add_itxt(INPUTS_KEY, json.dumps(encode_inputs(pictures)), zip=False)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def from_file(path: Path) -> tuple[dict, dict[str, Input]]:
    """(recipe, pictures) of a result's PNG, FLAC, GLB, WebP or npz, or of a recipe's JSON file; raises BadInput."""
    with path.open("rb") as file:
        data = file.read(inputs.MAX_BYTES + 1)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _from_png(data)
    if inputs.is_sound(data):
        recipe = _json(_comment(data))
        if not isinstance(recipe, dict) or "task" not in recipe:
            raise BadInput(_STRIPPED.format("sound"))
    elif data[:4] == b"glTF":
        recipe = _from_glb(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        recipe = _from_webp(data)
    elif cubes.is_packed(data):
        recipe = _json(cubes.text(data, RECIPE) or "{}")
        if not isinstance(recipe, dict) or "task" not in recipe:
            raise BadInput(_STRIPPED.format("cube"))
    else:
        try:
            recipe = _json(data.decode())
        except UnicodeDecodeError:
            raise BadInput("Drop a result (PNG, FLAC, GLB, WebP, npz) or a recipe (JSON) of this studio.") from None
    # A text result is a file {"text": …, "recipe": …}.
    recipe = _loaded(recipe["recipe"] if isinstance(recipe, dict) and "recipe" in recipe else recipe)
    return recipe, decode_inputs(recipe.pop("inputs", {}))


_STRIPPED = "The dropped {} carries no recipe: it was not made here, or its text was stripped."


def _comment(data: bytes) -> str:
    """What stands in a sound file's comment, as JSON; an object without a task when it is something else."""
    import soundfile

    inputs.sound(data, "The dropped file")
    comment = soundfile.SoundFile(io.BytesIO(data)).comment
    return comment if comment.startswith("{") else "{}"


def _from_glb(data: bytes) -> dict:
    """The recipe in a binary glTF's JSON chunk, which comes first: 12 bytes of header, 8 of the chunk's."""
    length = int.from_bytes(data[12:16], "little")
    try:
        return json.loads(data[20 : 20 + length])["asset"]["extras"][KEY]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput(_STRIPPED.format("object")) from None


def _from_webp(data: bytes) -> dict:
    try:
        return json.loads(PIL.Image.open(io.BytesIO(data), formats=("WEBP",)).getexif()[PIL.ExifTags.Base.ImageDescription])[KEY]
    except Exception:  # Pillow raises many kinds for a broken file
        raise BadInput(_STRIPPED.format("animation")) from None


def _from_png(data: bytes) -> tuple[dict, dict[str, Input]]:
    inputs.picture(data, "The dropped file")
    try:
        chunks = PIL.Image.open(io.BytesIO(data)).text
    except Exception:
        raise BadInput("The dropped picture's text can't be read.") from None
    if KEY not in chunks:
        raise BadInput(_STRIPPED.format("picture"))
    return _loaded(chunks[KEY]), decode_inputs(_json(chunks.get(INPUTS_KEY, "{}")))


def with_outcome(recipe: dict, **outcome) -> dict:
    return recipe | {"outcome": outcome}
