"""The object world: named meshes in colours and materials, with something on top or not, seen from all sides.

A thing is an object (GROUPS), a look (a colour, a material, or its own) and an accessory (or none); its caption says all three and, by the view
words of DreamFusion (arXiv 2209.14988, section 3.2), the side it is seen from. Objects fill the cube [-BASE, BASE]³, whatever stands on
them stays within [-1, 1]³; y is up, the front looks along +z. Meshes come from `objects_build`.

One pair in six of object and look, or of object and accessory, is kept from training (`held_out`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backends.spec import Mesh

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "objects"
BASE = 0.62
HELD_OUT_SEED = 2**40  # seeds from here on are kept from training

GROUPS = {
    "animal": ("horse", "deer", "chicken", "teddy bear", "dog", "cat", "rabbit", "bulldog", "siamese cat", "snowman", "rocking horse", "wooden toy", "doll"),
    "furniture": ("armchair", "chair", "sofa", "table", "stool", "bed", "bench", "deck chair", "grand piano", "upright piano", "wardrobe", "refrigerator",
                  "desk lamp", "cuckoo clock", "radio", "safe", "dresser", "television", "washing machine"),
    "plant": ("cactus", "christmas tree", "bonsai tree", "palm tree", "tulips", "rock", "stone lantern", "fountain", "bush"),
    "vehicle": ("biplane", "spring rider", "toy train", "tricycle", "bus", "rowboat", "toy car", "fork lift", "wheelbarrow", "skateboard", "bicycle"),
    "thing": ("barrel", "crate", "basketball", "soccer ball", "umbrella", "electric guitar", "xylophone", "backpack", "suitcase", "handbag", "gift", "book",
              "mailbox", "fire hydrant", "tent", "dog house", "boots", "hat", "helmet", "traffic cone", "camera", "vase", "laptop", "wine bottle"),
    "food": ("teapot", "coffee cup", "cupcake", "hamburger", "hot dog", "birthday cake"),
}  # fmt: skip
# What the examples and proofs ask for: a prior with little time to train sees these more often.
COMMON = ("horse", "cactus", "teddy bear", "dog", "cat", "rabbit", "snowman", "armchair", "chair", "bus", "biplane", "barrel", "fire hydrant", "birthday cake",
          "teapot", "soccer ball", "christmas tree", "gift", "mailbox", "rocking horse")  # fmt: skip
OBJECTS = tuple(name for group in GROUPS.values() for name in group)

COLOURS = {"red": (214, 45, 40), "blue": (45, 90, 214), "green": (50, 160, 70), "yellow": (242, 200, 40), "purple": (130, 60, 180), "pink": (240, 130, 180),
           "orange": (240, 130, 30), "white": (238, 238, 235), "black": (45, 45, 50)}  # fmt: skip
MATERIALS = ("wooden", "golden", "stone", "striped", "spotted", "rainbow", "snowy", "mossy")
LOOKS = ("", *COLOURS, *MATERIALS)
ACCESSORIES = {"": "", "party hat": "wearing a party hat", "top hat": "wearing a top hat", "crown": "wearing a crown", "balloon": "with a balloon",
               "flower": "with a flower on top", "candle": "with a candle on top"}  # fmt: skip
PLURAL = ("tulips", "boots")
NAMES: dict[Mesh, str] = {}  # of the meshes that `plain` gave, by identity
VIEWS = ("front", "side", "back", "overhead")


@dataclass(frozen=True)
class Thing:
    """`look`: one of LOOKS; `accessory`: a key of ACCESSORIES."""

    name: str
    look: str = ""
    accessory: str = ""


def held_out(thing: Thing) -> bool:
    """Whether training never sees it: one pair in six, by a hash of the words."""
    pairs = [f"{thing.name}/{part}" for part in (thing.look, thing.accessory) if part]
    return any(hashlib.sha256(p.encode()).digest()[0] % 6 == 0 for p in pairs)


def sample(rng: np.random.Generator, kept: bool = False) -> Thing:
    """A thing to train on, or with `kept` one that training never sees; half of them plain in look, half without an accessory."""
    while True:
        look = str(rng.choice(LOOKS[1:])) if rng.random() < (0.8 if kept else 0.5) else ""
        accessory = str(rng.choice(tuple(ACCESSORIES)[1:])) if rng.random() < 0.5 else ""
        thing = Thing(str(rng.choice(OBJECTS)), look, accessory)
        if held_out(thing) is kept:
            return thing


def caption(thing: Thing, view: str = "") -> str:
    """“a red horse wearing a crown, side view”."""
    words = f"{thing.look} {thing.name}".strip()
    article = "" if thing.name in PLURAL else "an " if words[0] in "aeiou" else "a "
    return f"{article}{words}{f' {ACCESSORIES[thing.accessory]}' if thing.accessory else ''}{f', {view} view' if view else ''}"


def view_of(azimuth: float, elevation: float) -> str:
    """The view word for degrees around (0: the front) and above the horizon."""
    if elevation > 55:
        return "overhead"
    off = abs((azimuth + 180) % 360 - 180)
    return "front" if off < 45 else "side" if off < 135 else "back"


def thing_in(prompt: str) -> Thing | None:
    """What a free text asks for: the first object it names, the look said before it and the accessory; None where it names no object.

    Longer names go first, and accessories before objects: “a hat” is an object, “a party hat” is not.
    """
    accessories = re.compile(_any_of(tuple(ACCESSORIES)[1:]))
    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))
    worn = accessories.search(text)
    text = accessories.sub("|", text)
    found = list(re.finditer(f"(?={_any_of(OBJECTS)})", text))
    if not found:
        return None
    # Where two names overlap the later one is meant: a wooden “toy car” and no “wooden toy”.
    name = max((f for f in found if f.start() < found[0].end(1)), key=lambda f: f.end(1))
    before = text[: name.start()].rpartition("|")[2]  # a look before an accessory is the accessory's
    looks = re.findall(rf"\b({'|'.join(LOOKS[1:])})\b", before)
    return Thing(name[1] if name[1] in OBJECTS else name[1] + "s", looks[-1] if looks else "", worn[1] if worn else "")


def _any_of(names: tuple[str, ...]) -> str:
    """A pattern of any of the names, the longest that fits, in the singular or plural."""
    return rf"\b({'|'.join(n.removesuffix('s') if n in PLURAL else n for n in sorted(names, key=len, reverse=True))})(?:e?s)?\b"


# --- meshes ------------------------------------------------------------------------------------------------


@functools.cache
def plain(name: str) -> Mesh:
    """The object as it was made."""
    mesh = _read(ASSETS, name)
    NAMES[mesh] = name
    return mesh


@functools.cache
def other(name: str) -> Mesh:
    """Another model of the same name, which no training saw; `sources(others=True)` has their names."""
    return _read(ASSETS / "others", name)


def _read(folder: Path, name: str) -> Mesh:
    with np.load(folder / f"{name.replace(' ', '_')}.npz") as kept:
        vertices = (kept["vertices"].astype(np.float32) / 65535 * 2 - 1) * BASE
        return Mesh(vertices, kept["faces"].astype(np.int32), kept["colours"])


@functools.cache
def sources(others: bool = False) -> dict[str, dict]:
    """Object -> who made its mesh (`by`), under which `licence`, which `model`; of `other` models of them."""
    return json.loads((ASSETS / ("others" if others else "") / "sources.json").read_text())


@functools.lru_cache(256)
def mesh(thing: Thing) -> Mesh:
    return dressed(plain(thing.name), thing)


def dressed(mesh: Mesh, thing: Thing) -> Mesh:
    """The mesh in the thing's look, its accessory on top."""
    made = painted(mesh, thing.look)
    return joined(made, topped(made, thing.accessory)) if thing.accessory else made


def joined(*parts: Mesh) -> Mesh:
    offsets = np.cumsum([0, *(len(p.vertices) for p in parts)])
    return Mesh(
        np.concatenate([p.vertices for p in parts]), np.concatenate([p.faces + o for p, o in zip(parts, offsets)]), np.concatenate([p.colours for p in parts])
    )


def painted(mesh: Mesh, look: str) -> Mesh:
    """The mesh in a colour or material; light and dark of its own colours stay."""
    if not look:
        return mesh
    own = mesh.colours.astype(np.float32) / 255
    light = own @ np.float32([0.3, 0.59, 0.11])
    light = 0.55 + 0.55 * (light - light.min()) / max(float(np.ptp(light)), 0.15)
    corners = mesh.vertices[mesh.faces]
    x, y, z = corners.mean(1).T
    if look in COLOURS:
        colours = _tint(COLOURS[look], light)
    elif look == "wooden":
        grain = 0.8 + 0.25 * np.sin(38 * (x + 0.12 * np.sin(7 * y) + 0.3 * z))
        colours = _tint((168, 108, 58), light * grain)
    elif look == "golden":
        colours = _tint((255, 200, 60), 0.75 + 0.5 * (light - 0.8)) + 0.12 * (np.sin(9 * y + 4 * x) > 0.6)[:, None]
    elif look == "stone":
        cells = np.sin(23 * x + 5 * np.sin(11 * y)) * np.sin(19 * y + 3) * np.sin(21 * z + 4 * np.sin(9 * x))
        colours = _tint((140, 138, 132), light * (1 + 0.35 * cells))
    elif look == "striped":
        colours = np.where((np.sin(26 * y) > 0)[:, None], _tint((240, 240, 240), light), _tint((205, 50, 60), light))
    elif look == "spotted":
        dots = (np.sin(17 * x + 1) * np.sin(17 * y) * np.sin(17 * z + 2)) > 0.18
        colours = np.where(dots[:, None], _tint((40, 40, 45), light), _tint((245, 235, 215), light))
    elif look == "rainbow":
        hue = (y + BASE) / (2 * BASE)
        colours = np.stack([np.clip(np.abs((hue * 5 + k) % 6 - 3) - 1, 0, 1) for k in (6, 4, 2)], 1) * (0.6 + 0.4 * light[:, None])
    else:  # snowy, mossy: what looks up is covered
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        up = np.abs(normals[:, 1]) / np.maximum(np.linalg.norm(normals, axis=1), 1e-9)
        cover = (up + 0.25 * np.sin(31 * x) * np.sin(29 * z)) > 0.45
        colours = np.where(cover[:, None], _tint((248, 250, 255) if look == "snowy" else (86, 130, 48), np.ones_like(light)), own)
    return replace(mesh, colours=(colours.clip(0, 1) * 255).round().astype(np.uint8))


def _tint(colour, light: np.ndarray) -> np.ndarray:
    return np.float32(colour)[None] / 255 * light[:, None]


def top_of(mesh: Mesh) -> np.ndarray:
    """(3,) where something can stand: the middle of the highest part."""
    y = mesh.vertices[:, 1]
    high = mesh.vertices[y > y.max() - 0.08 * max(float(np.ptp(y)), 0.2)]
    middle = (high.min(0) + high.max(0)) / 2 if np.ptp(high[:, [0, 2]], axis=0).max() > 0.4 else np.median(high, 0)
    return np.float32([middle[0], y.max(), middle[2]])


def topped(under: Mesh, accessory: str) -> Mesh:
    """The accessory where it stands on the mesh: 0.36 high."""
    parts = _accessory(accessory)
    return Mesh(parts.vertices + top_of(under) - np.float32([0, 0.02, 0]), parts.faces, parts.colours)


@functools.cache
def _accessory(name: str) -> Mesh:
    from trimesh import creation

    def part(shape, colour, at=(0.0, 0.0, 0.0), colour_of=None) -> Mesh:
        """A trimesh shape, whose axis z becomes up."""
        vertices = np.float32(shape.vertices)[:, [0, 2, 1]] * np.float32([1, 1, -1]) + np.float32(at)
        faces = np.int32(shape.faces)
        colours = np.repeat(np.uint8(colour)[None], len(faces), 0)
        if colour_of is not None:
            colours = np.uint8([colour_of(c) for c in vertices[faces].mean(1)])
        return Mesh(vertices, faces, colours)

    def fine(shape):
        return shape.subdivide().subdivide()

    if name == "party hat":
        bands = lambda c: (250, 210, 50) if np.sin(60 * c[1] + 2 * np.arctan2(c[2], c[0])) > 0 else (235, 60, 130)  # noqa: E731
        return joined(part(fine(creation.cone(0.15, 0.32, sections=24)), 0, colour_of=bands), part(creation.icosphere(2, 0.035), (70, 190, 235), (0, 0.33, 0)))
    if name == "top hat":
        rings = ((0.22, 0.03, 0.015, (40, 40, 46)), (0.142, 0.07, 0.06, (190, 40, 45)), (0.14, 0.24, 0.2, (40, 40, 46)))
        return joined(*(part(creation.cylinder(r, h, sections=28), colour, (0, y, 0)) for r, h, y, colour in rings))
    if name == "crown":
        turns = [2 * np.pi * k / 6 for k in range(6)]
        spikes = [part(creation.cone(0.055, 0.14, sections=10), (250, 200, 50), (0.125 * np.cos(a), 0.12, 0.125 * np.sin(a))) for a in turns]
        gems = [part(creation.icosphere(1, 0.028), (210, 40, 60), (0.155 * np.cos(a + 0.5), 0.07, 0.155 * np.sin(a + 0.5))) for a in turns]
        return joined(part(creation.annulus(0.13, 0.16, 0.14, sections=28), (245, 190, 40), (0, 0.07, 0)), *spikes, *gems)
    if name == "balloon":
        return joined(
            part(creation.cylinder(0.008, 0.18, sections=8), (90, 90, 90), (0, 0.09, 0)), part(creation.icosphere(3, 0.12), (225, 40, 50), (0, 0.25, 0))
        )
    if name == "flower":
        petals = [
            part(creation.icosphere(2, 0.055), (245, 130, 190), (0.075 * np.cos(a), 0.22 + 0.075 * np.sin(a), 0)) for a in np.linspace(0, 2 * np.pi, 7)[:-1]
        ]
        around = [part(creation.icosphere(2, 0.055), (245, 130, 190), (0, 0.22, z)) for z in (-0.06, 0.06)]
        stem = part(creation.cylinder(0.014, 0.2, sections=10), (60, 150, 60), (0, 0.1, 0))
        return joined(stem, part(creation.icosphere(2, 0.06), (250, 205, 50), (0, 0.22, 0)), *petals, *around)
    if name == "candle":
        flame = part(creation.icosphere(2, 0.04), (255, 170, 40), (0, 0.31, 0))
        bands = lambda c: (245, 245, 250) if np.sin(70 * c[1] + 1.5 * np.arctan2(c[2], c[0])) > 0 else (80, 150, 230)  # noqa: E731
        return joined(part(fine(creation.cylinder(0.05, 0.26, sections=16)), 0, (0, 0.13, 0), bands), flame)
    raise KeyError(name)
