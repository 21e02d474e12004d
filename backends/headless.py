"""The studio without its page: the registry as JSON, and a recipe run to files. The API and the command line use it.

Every event becomes one JSON object; pictures become PNG, sounds FLAC, objects GLB and WebP, cubes PNG and npz files that carry their recipe.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import backends
from backends import cubes, grids, models, recipe, stills
from backends.registry import TASKS
from backends.spec import (
    ArmEvent,
    Audio,
    Choice,
    Cube,
    Heat,
    Image,
    Images,
    Knob,
    Mesh,
    Metric,
    Note,
    Outcome,
    Plot,
    Prompt,
    Result,
    Slider,
    Step,
    Table,
    Task,
    Text,
    Toggle,
    Tokens,
    Turntable,
    fields_of,
)

SHEET = "grid.png"
ASSETS = Path(__file__).resolve().parents[1] / "assets"


@functools.cache
def weights(folder: str) -> str:
    """A short digest of a model's committed weights, previews aside; it changes when the model is trained on."""
    digest = hashlib.sha256()
    for path in sorted((ASSETS / "models" / folder).rglob("*.safetensors")):
        if "preview" not in path.parts:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def _book(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def proof(slug: str) -> dict | None:
    """What the method's proof measured (see tests/proofs); `stale` when the weights are others now."""
    found = _book(ASSETS / "proofs.json").get(slug)
    measured = (found or {}).get("weights", {})
    return found and found | {"stale": not measured or any(weights(folder) != digest for folder, digest in measured.items())}


def proofs() -> dict:
    """slug -> `proof(slug)`, of all that were measured."""
    return {slug: proof(slug) for slug in _book(ASSETS / "proofs.json")}


def identities(proof: dict) -> str:
    """What a proof says of its exact checks, such as “3 identities hold”; empty when it recorded none."""
    held = [s["held"] for s in proof.get("statements", ()) if s["kind"] == "identity"]
    of = "" if all(held) else f" of {len(held)}"
    return f"{sum(held)}{of} {'identity holds' if len(held) == 1 else 'identities hold'}" if held else ""


def effects(proof: dict) -> list[dict]:
    """A proof's statements on effects, or all of them when it has no other."""
    return [s for s in proof["statements"] if s["kind"] == "effect"] or proof["statements"]


def held(proof: dict) -> tuple[int, int]:
    """(effects that hold, effects stated)."""
    return sum(s["held"] for s in effects(proof)), len(effects(proof))


def when(proof: dict) -> str:
    return f"{proof['date']}, on earlier weights" if proof["stale"] else proof["date"]


def lead(proof: dict) -> dict:
    """The statement that stands for a proof: the first that fails, else the first."""
    return next((s for s in effects(proof) if not s["held"]), effects(proof)[0])


def papers() -> list[dict]:
    path = ASSETS / "papers.json"
    return json.loads(path.read_text()) if path.exists() else []


def describe() -> list[dict]:
    """The registry as JSON: each method with its knobs, what it can run on and what was proved."""
    measured, known = proofs(), {p["slug"]: p for p in papers()}
    return [
        {
            "slug": m.slug, "title": m.title, "summary": m.summary, "task": m.task.slug, "baseline": m.task.baseline,
            "paper": {k: known[m.slug][k] for k in ("title", "arxiv", "year") if k in known[m.slug]} if m.slug in known else None,
            "needs": sorted(m.needs), "slot": m.slot, "holds": sorted(m.holds),
            "knobs": [_knob(k) for k in m.knobs], "piece_knobs": [_knob(k) for k in m.piece_knobs],
            "cards": [c.name for c in models.cards_for(m)], "proof": measured.get(m.slug),
        }
        for m in backends.METHODS.values()
    ]  # fmt: skip


def fields(task: Task) -> dict[str, dict]:
    """field -> what a recipe's job may say there: its type, default, range or options, whether it must be given, and help."""
    defaults, found = fields_of(task.job), {}
    for name, rule in recipe.marks(task.job).items():
        if rule == "seed":
            found[name] = {"type": "integer", "low": 0, "high": 2**32 - 1, "default": 0}
        elif isinstance(rule, Slider | Choice | Toggle):
            found[name] = {k: v for k, v in _knob(Knob(name, rule, defaults[name].default)).items() if k != "name"}
        else:
            kind = "text" if isinstance(rule, Prompt) else recipe.KINDS[type(rule)][0]
            found[name] = {"type": kind} | {k: v for k, v in vars(rule).items() if k not in ("files", "read", "fills") and v not in ("", None)}
    return found


def tasks() -> list[dict]:
    """Each task as JSON: what a recipe's job may say, its default model and baseline, examples."""
    return [
        {"slug": t.slug, "title": t.title, "help": t.help, "model": t.model, "baseline": t.baseline, "job": fields(t), "examples": list(t.examples)}
        for t in TASKS.values()
    ]


def _knob(knob: Knob) -> dict:
    given = {"name": knob.name, "type": type(knob.control).__name__.lower(), "default": knob.default}
    if isinstance(knob.control, Slider):
        given["type"] = "integer" if knob.kind is int else "number"
    return given | {k: v for k, v in vars(knob.control).items() if v not in ("", None)}


def line(event: ArmEvent) -> dict:
    """An event as JSON, without its pixels and samples."""
    what, said = event.event, {"arm": event.arm, "seconds": round(event.seconds, 3), "nfe": event.nfe}
    if isinstance(what, Step):
        return said | {"event": "step", "i": what.i, "n": what.n, "aside": [a for a in map(words, what.aside) if a]}
    if isinstance(what, Metric):
        return said | {"event": "metric", "name": what.name, "value": what.value, "better": what.better}
    if isinstance(what, Note):
        return said | {"event": "note", "text": what.text}
    if isinstance(what, Result):
        return said | {"event": "result", "aside": [a for a in map(words, what.aside) if a]}
    assert isinstance(what, Outcome)
    return said | {"event": "outcome"} | outcome(what)


def outcome(made: Outcome) -> dict:
    """An arm's end as JSON: its error or an empty text, seconds, NFE, metrics, …"""
    return {"arm": made.arm, "error": made.error, **made.recipe["outcome"]}


def words(media) -> dict | None:
    """A medium as JSON; None for pictures, sounds, objects and cubes."""
    if isinstance(media, Plot):
        return {"plot": media.series, "x": media.x, "y": media.y, "marks": media.marks}
    if isinstance(media, Table):
        return {"columns": media.columns, "rows": media.rows}
    if isinstance(media, Heat):
        return {"rows": media.rows, "columns": media.columns, "values": media.values, "x": media.x, "y": media.y}
    return {"text": media.text} if isinstance(media, Text | Tokens) else None


def sheet(whole: dict, made: dict[int, np.ndarray | str], pictures: dict[str, recipe.Input]) -> bytes:
    """A PNG file of a grid's cells, or of a comparison's arms beside each other, with the whole recipe inside. `made`: their stills."""
    axes = whole.get("grid") or {"x": {"axis": "arm", "values": grids.names(whole)}}
    return recipe.png(stills.sheet(axes, made), whole, pictures)


class Written:
    """A run's events as JSON, and its files in `folder`. `given`, `pictures`: a recipe as recipe.build makes it and its inputs."""

    def __init__(self, given: dict, pictures: dict[str, recipe.Input], folder: Path):
        self.given, self.pictures, self.folder, self.outcomes = given, pictures, folder, []
        self.cells, self.stills = grids.cells(given), {}
        for digest, value in pictures.items():
            kind = "flac" if isinstance(value, Audio) else "npz" if isinstance(value, Mesh | Cube) else "png"
            (folder / f"input-{digest[:16]}.{kind}").write_bytes(recipe.packed(value))

    def see(self, event: ArmEvent) -> dict:
        said = line(event)
        if isinstance(event.event, Outcome):
            name = f"{event.arm + 1}-{self.cells[event.arm]['arms'][0]['method']}"
            said["files"] = save(event.event, self.pictures, self.folder, name)
            self.outcomes.append({k: v for k, v in said.items() if k != "event"})
            if self.given.get("grid"):
                self.stills |= stills.stills([event.event])
        return said

    def end(self) -> dict:
        """{"event": "end", "complete": …, "recipe": …}: the whole comparison with each arm's outcome and files; a grid leaves its sheet, grid.png."""
        whole = recipe.with_outcome(self.given, arms=self.outcomes)
        if self.stills:
            (self.folder / SHEET).write_bytes(sheet(whole, self.stills, self.pictures))
        (self.folder / "recipe.json").write_text(json.dumps(recipe.with_inputs(whole, self.pictures), indent=1))
        return {"event": "end", "complete": complete(self.outcomes, len(self.cells)), "recipe": whole}


def run(given: dict | str, pictures: dict[str, recipe.Input], folder: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[dict]:
    """Run a recipe, yielding each event as JSON, at last Written.end; files are written into `folder`. Raises BadInput before anything starts."""
    _, kept, held = recipe.whole(given, pictures)
    written = Written(kept, held, folder)
    for event in backends.run(given, pictures, stop):
        yield written.see(event)
    yield written.end()


def complete(outcomes: list[dict], arms: int) -> bool:
    """Whether every arm gave a whole result."""
    return len(outcomes) == arms and all(not o["error"] and not o["stopped"] for o in outcomes)


def save(outcome: Outcome, inputs: dict[str, recipe.Input], folder: Path, name: str) -> list[dict]:
    """Write the value of an outcome; each file's name and the hash of its pixels, samples or surface."""
    files = []
    for ending, data, held in files_of(outcome, inputs):
        (folder / f"{name}{ending}").write_bytes(data)
        files.append({"name": f"{name}{ending}"} | ({} if held is None else {"sha256": recipe.digest(held)}))
    return files


def files_of(outcome: Outcome, inputs: dict[str, recipe.Input]) -> Iterator[tuple[str, bytes, recipe.Input | None]]:
    """(how its name ends, its bytes, what its hash is of) for each file of a result, made when it is asked for; each carries its recipe, but for splats."""
    value, made = outcome.value, outcome.recipe
    if isinstance(value, Image):
        yield ".png", recipe.png(value.pixels, made, inputs), value.pixels
    elif isinstance(value, Images):
        for i, picture in enumerate(value.items, 1):
            yield f"-{i}.png", recipe.png(picture.pixels, made, inputs), picture.pixels
    elif isinstance(value, Audio):
        yield ".flac", recipe.flac(value, made, inputs), value
    elif isinstance(value, Cube):
        yield ".png", recipe.png(cubes.picture(value).pixels, made, inputs), value
        yield ".npz", recipe.npz(value, made, inputs), value
    elif isinstance(value, Turntable):
        if value.mesh is not None:
            yield ".glb", recipe.glb(value.mesh, made, inputs), value.mesh
        else:  # all sides in a row
            yield ".png", recipe.png(np.concatenate(list(value.frames), 1), made, inputs), value.frames
        yield ".webp", recipe.webp(value.frames, made, inputs), value.frames
        if value.splats:
            yield ".ply", value.splats, None
    elif (said := words(value)) is not None:
        yield ".json", json.dumps(said | {"recipe": made}, indent=1).encode(), None
