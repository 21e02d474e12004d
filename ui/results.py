"""What a run leaves on its tab and as files: pictures, players and objects in the arms; table, pairs, zip and recipe under them."""

import csv
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import gradio as gr
import numpy as np

from backends import cubes, grids, headless, recipe, stills
from backends.spec import Audio, Cube, Image, Outcome, Turntable
from ui import form, sound, views

SKIP = gr.skip()
VIEWED = {".glb": "surface", ".ply": "Gaussians"}  # files that the viewer of objects shows
CAME = "as it came"  # what the arms' pictures were made from
UNDER = 14  # components that `under` fills


@dataclass
class Shown:
    """What a run left on its tab: `arms`: arm id -> (path of the picture, what is said under it); the rest by the arm's number, −1 for an input."""

    arms: dict[str, tuple] = field(default_factory=dict)
    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)  # (title, what was measured, without the result itself) of each arm, or cell
    seen: list[tuple[int, str, np.ndarray]] = field(default_factory=list)  # (arm, title, pixels) of each with a picture
    heard: list[sound.Track] = field(default_factory=list)
    turned: list[tuple[int, str, str]] = field(default_factory=list)  # (arm, title, path) of what the viewer of objects can show
    bundle: str | None = None
    recipe: str = ""
    sheet: str = ""  # the path of a grid's cells as one picture
    grid: str = ""  # its cells as the page shows them

    @property
    def table(self) -> str:
        names, outcomes = [list(some) for some in zip(*self.outcomes)] or ([], [])
        return views.metrics_table(names, outcomes, "cell" if self.sheet else "arm") if outcomes else ""

    @property
    def switch(self) -> str:
        """Between the arms' sounds."""
        return sound.switch([(_titled(arm, title), arm, *rest) for title, arm, *rest in self.heard]) if any(arm >= 0 for _, arm, *_ in self.heard) else ""

    @property
    def pictures(self) -> list[tuple[str, np.ndarray]]:
        """(title, pixels)"""
        return [(_titled(arm, title), pixels) for arm, title, pixels in self.seen]

    @property
    def solids(self) -> list[tuple[str, str]]:
        """(title, path)"""
        return [(_titled(arm, title), path) for arm, title, path in self.turned]

    @property
    def opposed(self) -> tuple[int, int]:
        """The pair that the slider shows first: what came and what the last arm made of it; else the first two arms."""
        return 0, len(self.pictures) - 1 if self.pictures and self.pictures[0][0] == CAME else 1

    def parts(self) -> tuple:
        """(table, switch, choices, slider, difference map, its line, bundle, recipe), for compare._under."""
        choices = named(self.pictures)
        return self.table, self.switch, choices, *(pair(self, *self.opposed) if len(choices) > 1 else (None, None, "")), self.bundle, self.recipe


def _titled(arm: int, title: str) -> str:
    return title if arm < 0 else f"{arm + 1} · {title}"


def of(shown: Shown | None, ids: Iterable[str]) -> Shown:
    """What is left of it where only the arms of these ids stand, in their order; of a grid all. The zip and the recipe stay the run's."""
    before, ids = list(shown.arms) if shown else [], list(ids)
    new = {before.index(name): i for i, name in enumerate(ids) if name in before}
    if not new:
        return Shown()  # after an example was loaded
    if shown.sheet or len(new) == len(before):
        return shown
    place = {-1: -1} | new

    def measured(outcome: Outcome) -> Outcome:
        kept = outcome.metrics if 0 in new else tuple(m for m in outcome.metrics if not m.name.partition(", ")[0].endswith("to the first"))
        return replace(outcome, arm=new[outcome.arm], metrics=kept)

    return replace(
        shown,
        arms={name: shown.arms[name] for name in ids if name in shown.arms},
        outcomes=[(title, measured(outcome)) for title, outcome in shown.outcomes if outcome.arm in new],
        seen=[(place[arm], *rest) for arm, *rest in shown.seen if arm in place],
        heard=[(title, place[arm], *rest) for title, arm, *rest in shown.heard if arm in place],
        turned=[(place[arm], *rest) for arm, *rest in shown.turned if arm in place],
    )


def named(pairs: list[tuple]) -> list[tuple[str, int]]:
    """A chooser's choices between (title, what it stands for): it gives a place, never a path."""
    return [(title, i) for i, (title, _) in enumerate(pairs)]


def final(outcome: Outcome, pictures: dict) -> str | None:
    """The path of a PNG file with the recipe inside; None when the arm gave no picture."""
    if (seen := pictured(outcome)) is None:
        return None
    data = recipe.png(seen.pixels, outcome.recipe, pictures)
    return sound.saved(data, f"{_name(outcome)}.png")


def pictured(outcome: Outcome) -> Image | None:
    """The picture that an arm gave, or that of three bands of its cube."""
    return cubes.picture(outcome.value) if isinstance(outcome.value, Cube) else outcome.value if isinstance(outcome.value, Image) else None


def taken(outcome: Outcome, pictures: dict) -> list[str]:
    """The paths of a sound's, an object's or a cube's files (headless.files_of): FLAC; GLB, or PNG while it has no surface, the WebP in which it turns,
    splats; npz."""
    files = headless.files_of(outcome, pictures) if isinstance(outcome.value, Audio | Turntable | Cube) else []
    files = (f for f in files if not (isinstance(outcome.value, Cube) and f[0] == ".png"))  # which stands above as the arm's picture
    return [sound.saved(data, f"{_name(outcome)}{ending}") for ending, data, _ in files]


def _name(outcome: Outcome) -> str:
    return f"unnoise-{outcome.arm + 1}-{outcome.recipe['arms'][0]['method']}-{outcome.recipe['job'].get('seed', 0)}"


def summary(given: dict, pictures: dict, outcomes: list[Outcome], files: list[list[str]] = ()) -> Shown:
    """`files`: those of each arm's sound, object or cube, for the switch and the viewer."""
    titles = grids.names(given)
    pictures_of = [(o, seen) for o in outcomes if (seen := pictured(o)) is not None]
    seen = [(-1, CAME, views.fitted(value.before, value.pixels)) for _, value in pictures_of[:1] if value.before is not None]
    seen += [(o.arm, titles[o.arm], value.pixels) for o, value in pictures_of]
    whole = recipe.with_outcome(given, arms=[o.recipe["outcome"] | {"error": o.error} for o in outcomes])
    names = [titles[o.arm] for o in outcomes]
    heard = [sound.track(titles[o.arm], o.arm, o.value, files[o.arm][0]) for o in outcomes if isinstance(o.value, Audio) and files]
    fields = {value["sha256"]: form.words(name) for name, value in reversed(given["job"].items()) if isinstance(value, dict)}  # of two with one sound the first
    asked = [sound.track(fields.get(digest, "input"), -1, value, sound.file(value)) for digest, value in pictures.items() if isinstance(value, Audio) and heard]
    turned = [(o.arm, f"{titles[o.arm]}, {VIEWED[Path(path).suffix]}", path)
              for o in outcomes if isinstance(o.value, Turntable) and files for path in files[o.arm] if Path(path).suffix in VIEWED]  # fmt: skip
    grid = bool(given.get("grid"))
    sheet = headless.sheet(whole, stills.stills(outcomes), pictures) if grid or len(names) > 1 else b""
    bundle = _bundle(whole, pictures, outcomes, names, {"unnoise-grid.png" if grid else "unnoise-comparison.png": sheet} if sheet else {})
    path = sound.saved(sheet, "unnoise-grid.png") if grid else ""
    measured = [(name, replace(o, value=None)) for name, o in zip(names, outcomes)]
    return Shown({}, measured, seen, heard + asked, turned, bundle, json.dumps(whole, indent=1), path)


def under(shown: Shown) -> list:
    """Updates of compare._under's components."""
    table, switch, choices, slider, heat, said, bundle, code = shown.parts()
    two = len(choices) > 1
    choosers = [gr.Dropdown(choices=choices, value=i) if two else SKIP for i in shown.opposed]
    # The viewer draws nothing when it is given its object in the event that shows it: `solid` is called after.
    solid = [gr.Column(visible=bool(shown.solids)), gr.Dropdown(choices=named(shown.solids), value=0) if shown.solids else SKIP, None]
    return [
        gr.Column(visible=bool(table)), table, switch, gr.Row(visible=two), *choosers, *([slider, heat, said] if two else [SKIP] * 3), *solid, bundle, code,
    ]  # fmt: skip


def solid(shown: Shown | None, i: int = 0) -> str | None:
    """The file of the object that the viewer shows."""
    return shown.solids[i][1] if shown and shown.solids else None


def pair(shown: Shown, a: int, b: int) -> tuple:
    """Before/after slider, difference map and its line for two arms."""
    left, right = shown.pictures[a][1], shown.pictures[b][1]
    heat, said = views.difference(left, right)
    return (left, right), heat, f'<p class="said">Difference: {said}.</p>'


def _bundle(whole: dict, pictures: dict, outcomes: list[Outcome], names: list[str], more: dict[str, bytes]) -> str:
    """A zip of the results, the recipe with its inputs, the figures as CSV, and the files `more`: for one run the same bytes whenever it is opened, so that
    the folder of what is served holds them once."""
    out, rows, files = io.BytesIO(), io.StringIO(), {}
    columns = list(dict.fromkeys(m.name for o in outcomes for m in o.metrics))
    table = csv.writer(rows)
    table.writerow(["arm", "method", "seconds", "nfe", "peak_mb", *columns, "stopped", "error"])  # of a grid the second tells the cell
    for outcome, name in zip(outcomes, names):
        measured = {m.name: m.value for m in outcome.metrics}
        table.writerow(
            [outcome.arm + 1, name, outcome.seconds, outcome.nfe, outcome.peak_mb, *(measured.get(c, "") for c in columns), outcome.stopped, outcome.error]
        )
        files |= {f"{_name(outcome)}{ending}": data for ending, data, _ in headless.files_of(outcome, pictures)}
    files |= more | {"recipe.json": json.dumps(recipe.with_inputs(whole, pictures), indent=1), "figures.csv": rows.getvalue()}
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return sound.saved(out.getvalue(), "unnoise-comparison.zip")
