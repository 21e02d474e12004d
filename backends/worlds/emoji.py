"""The emoji world: scenes of one to four glossy objects of which everything is known.

A Scene says which concept stands where, how big, in which layer, on what background; `render` draws it,
`caption` words it, and `masks`, `boxes` and `edges` are exact. Sprites: Fluent 3D emoji (MIT), names and
synonyms: emojibase (MIT); see `emoji_build.py`.

Scenes are drawn from a numpy Generator. Two things are held out of training for the judges, the proofs and
the model's figures: seeds from HELD_OUT_SEED on, and one pair of concepts in ten (`held_out_pair`).
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "emoji"
SIDE = 128  # px
SPRITE, COLUMNS = 112, 32  # as the sheet was built
HELD_OUT_SEED = 1_000_000_000

COLOURS = {
    "red": (226, 74, 74), "orange": (246, 158, 80), "yellow": (250, 219, 94), "green": (112, 190, 110),
    "teal": (84, 186, 178), "light blue": (158, 212, 244), "blue": (84, 132, 220), "purple": (158, 112, 208),
    "pink": (246, 172, 200), "brown": (158, 116, 84), "grey": (168, 172, 178), "white": (246, 246, 246),
    "black": (36, 38, 44),
}  # fmt: skip
PLACES = ("grass", "beach", "snow", "night sky", "room", "table")
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Concept:
    index: int
    name: str
    group: str  # face, animal, food, travel, activity, object
    common: bool  # one of the 200 that make up most scenes
    tags: tuple[str, ...]  # synonyms no other concept carries


@dataclass(frozen=True)
class Placed:
    """One object. `x, y`: centre, `size`: longest side, all as fractions of the picture's side."""

    concept: int
    x: float
    y: float
    size: float
    flip: bool = False

    @property
    def size_word(self) -> str:
        return "small" if self.size < 0.38 else "big" if self.size > 0.68 else "medium"


@dataclass(frozen=True)
class Background:
    """`kind`: plain, gradient, stripes, dots or one of PLACES; `colours`: one or two names of COLOURS."""

    kind: str
    colours: tuple[str, ...] = ()
    horizon: float = 0.62

    @property
    def phrase(self) -> str:
        if self.kind == "plain":
            return f"{article(self.colours[0])} background"
        if self.kind == "gradient":
            return f"{article(self.colours[0])} and {self.colours[1]} gradient"
        if self.kind in ("stripes", "dots"):
            return f"{article(self.colours[0])} background with {self.colours[1]} {self.kind}"
        if self.kind in ("room", "table"):
            floor = "floor" if self.kind == "room" else "table"
            return f"{article(self.colours[1])} {floor} against {article(self.colours[0])} wall"
        return {"grass": "green grass under a blue sky", "beach": "a sandy beach", "snow": "snow",
                "night sky": "a starry night sky"}[self.kind]  # fmt: skip


@dataclass(frozen=True)
class Scene:
    objects: tuple[Placed, ...]  # back to front: the depth order
    background: Background


@functools.cache
def concepts() -> tuple[Concept, ...]:
    rows = json.loads((FOLDER / "concepts.json").read_text())
    return tuple(Concept(i, r["name"], r["group"], r["common"], tuple(r["tags"])) for i, r in enumerate(rows))


@functools.cache
def common() -> tuple[int, ...]:
    return tuple(c.index for c in concepts() if c.common)


@functools.cache
def _sheet() -> Image.Image:
    return Image.open(FOLDER / "sprites.webp").convert("RGBA")


@functools.cache
def sprite(index: int) -> Image.Image:
    """RGBA picture of one concept, 112×112 px, trimmed and centred."""
    x, y = index % COLUMNS * SPRITE, index // COLUMNS * SPRITE
    return _sheet().crop((x, y, x + SPRITE, y + SPRITE))


def held_out_pair(a: int, b: int) -> bool:
    """True for the tenth of all pairs that no training scene shows together."""
    return (min(a, b) * 7919 + max(a, b) * 104729) % 10 == 0


# --- drawing a scene -------------------------------------------------------------------------------------


def sample(rng: np.random.Generator, held_out: bool = False, counts=(0.58, 0.27, 0.1, 0.05), common_share=0.8, spread=1.0) -> Scene:
    """Draw a scene. `counts`: odds of one to four objects; `common_share`: odds that a concept is a common one;
    `spread`: 1 for every size and place, towards 0 for upright objects of one size, in the middle when alone.

    With `held_out`, scenes of several objects show held-out pairs only; without it, never.
    """
    n = int(rng.choice(4, p=np.asarray(counts) / np.sum(counts))) + 1
    while True:
        chosen = [_draw_concept(rng, common_share) for _ in range(n)]
        if n > 1 and rng.random() < 0.25:  # several of one kind, so that counting can be learnt
            chosen = [chosen[0]] * n
        pairs = {held_out_pair(a, b) for a in chosen for b in chosen if a != b}
        if not pairs or pairs == {held_out}:
            return Scene(tuple(_place(rng, chosen, spread)), _background(rng))


def _draw_concept(rng, common_share):
    return int(rng.choice(common())) if rng.random() < common_share else int(rng.integers(len(concepts())))


def _place(rng, chosen, spread):
    n = len(chosen)
    low, high = {1: (0.42, 0.94), 2: (0.32, 0.56), 3: (0.26, 0.44), 4: (0.24, 0.4)}[n]
    # A narrow spread keeps the larger sizes, which show the most of an object.
    low, high = low + 0.55 * (1 - spread) * (high - low), high - 0.2 * (1 - spread) * (high - low)
    overlap = rng.random() < 0.2  # some objects stand behind others
    for _ in range(50):
        placed = []
        for concept in chosen:
            size = float(rng.uniform(low, high))
            half = size / 2
            if n == 1 and rng.random() < 1 - 0.4 * spread:
                x, y = rng.normal(0.5, 0.03, 2)
            else:
                x, y = rng.uniform(half + 0.01, 0.99 - half, 2)
            x, y = (float(np.clip(v, half, 1 - half)) for v in (x, y))
            placed.append(Placed(concept, x, y, size, bool(rng.random() < 0.5 * spread)))
        near = 0.55 if overlap else 0.92
        if all(max(abs(a.x - b.x), abs(a.y - b.y)) > near * (a.size + b.size) / 2
               for i, a in enumerate(placed) for b in placed[:i]):  # fmt: skip
            return placed
        high = max(low, high * 0.96)
    return placed


def _background(rng):
    kind = rng.choice(["plain", "gradient", "stripes", "dots", *PLACES], p=[0.46, 0.14, 0.04, 0.04, 0.07, 0.05, 0.04, 0.04, 0.06, 0.06])
    names = [str(c) for c in rng.choice(list(COLOURS), 2, replace=False)]
    return Background(str(kind), tuple(names[: 1 if kind == "plain" else 2]) if kind not in PLACES[:4] else (),
                      float(rng.uniform(0.5, 0.75)))  # fmt: skip


# --- pixels and ground truth -----------------------------------------------------------------------------


def render(scene: Scene, side: int = SIDE) -> np.ndarray:
    """(side, side, 3) uint8 picture of the scene."""
    canvas = paint_background(scene.background, side).convert("RGBA")
    for placed in scene.objects:
        picture, corner = _stamp(placed, side)
        canvas.alpha_composite(picture, corner)
    return np.asarray(canvas.convert("RGB"))


def _stamp(placed: Placed, side: int):
    pixels = max(2, round(placed.size * side))
    picture = sprite(placed.concept).resize((pixels, pixels), Image.BICUBIC)
    if placed.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    corner = tuple(int(np.clip(round(v * side - pixels / 2), 0, side - pixels)) for v in (placed.x, placed.y))
    return picture, corner


def masks(scene: Scene, side: int = SIDE, visible: bool = True) -> np.ndarray:
    """(n, side, side) bool: where each object is; with `visible`, less what stands in front of it."""
    result = np.zeros((len(scene.objects), side, side), bool)
    for i, placed in enumerate(scene.objects):
        picture, (x, y) = _stamp(placed, side)
        alpha = np.asarray(picture.getchannel("A")) > 127
        result[i, y : y + alpha.shape[0], x : x + alpha.shape[1]] = alpha
        if visible:
            result[:i] &= ~result[i]
    return result


def boxes(scene: Scene, side: int = SIDE) -> np.ndarray:
    """(n, 4) int: x0, y0, x1, y1 of each whole object in pixels, x1 and y1 exclusive."""
    rows = []
    for mask in masks(scene, side, visible=False):
        ys, xs = np.nonzero(mask)
        rows.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0))
    return np.array(rows, int).reshape(-1, 4)


def edges(scene: Scene, side: int = SIDE) -> np.ndarray:
    """(side, side) bool: outlines between objects and between objects and background."""
    label = np.zeros((side, side), int)
    for i, mask in enumerate(masks(scene, side)):
        label[mask] = i + 1
    edge = np.zeros((side, side), bool)
    edge[1:] |= label[1:] != label[:-1]
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    return edge


@functools.lru_cache(512)
def paint_background(background: Background, side: int = SIDE) -> Image.Image:
    kind, y = background.kind, np.linspace(0, 1, side)[:, None, None]
    colours = [np.array(COLOURS[c], float) for c in background.colours]
    horizon = background.horizon

    def blend(top, bottom, at=y):
        return np.array(top, float) * (1 - at) + np.array(bottom, float) * at

    if kind == "plain":
        rows = colours[0] * np.ones_like(y)
    elif kind == "gradient":
        rows = blend(*colours)
    elif kind in ("stripes", "dots"):
        image = Image.new("RGB", (side, side), COLOURS[background.colours[0]])
        draw, period = ImageDraw.Draw(image), side / 8
        for i in range(8):
            if kind == "stripes":
                draw.rectangle((round(i * period), 0, round((i + 0.5) * period) - 1, side), fill=COLOURS[background.colours[1]])
            for j in range(8 if kind == "dots" else 0):
                cx, cy, r = (i + 0.5) * period, (j + 0.5) * period, period * 0.22
                draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=COLOURS[background.colours[1]])
        return image
    elif kind == "night sky":
        image = Image.fromarray(np.broadcast_to(blend((14, 18, 52), (52, 48, 104)), (side, side, 3)).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for sx, sy in np.random.default_rng(int(horizon * 1e6)).uniform(0, side, (28, 2)):
            draw.ellipse((sx, sy, sx + side / 90, sy + side / 90), fill=(250, 246, 214))
        return image
    else:
        (top, bottom), shade = {
            "grass": (((120, 190, 246), (204, 232, 252)), ((128, 204, 96), (76, 158, 66))),
            "beach": (((122, 196, 246), (86, 178, 216)), ((250, 228, 170), (236, 204, 136))),
            "snow": (((172, 206, 238), (222, 236, 248)), ((250, 252, 255), (216, 228, 242))),
        }.get(kind, (None, None) if kind not in ("room", "table") else ((colours[0], colours[0] * 0.92), (colours[1] * 0.96, colours[1] * 0.8)))
        at = np.clip((y - horizon) / (1 - horizon), 0, 1)
        rows = np.where(y < horizon, blend(top, bottom, y / horizon), blend(*shade, at))
    return Image.fromarray(np.broadcast_to(np.clip(rows, 0, 255), (side, side, 3)).astype(np.uint8))


# --- words -----------------------------------------------------------------------------------------------

PLURALS = {"mouse": "mice", "sheep": "sheep", "fish": "fish", "tropical fish": "tropical fish", "wolf": "wolves", "knife": "knives"}


def plural(name: str) -> str:
    if name in PLURALS:
        return PLURALS[name]
    head, sep, tail = name.partition(" of ") if " of " in name else name.partition(" with ")
    if sep:
        return plural(head) + sep + tail
    if name.endswith(("s", "x", "ch", "sh")):
        return name + ("" if name.endswith("s") and not name.endswith("ss") else "es")
    return name[:-1] + "ies" if name.endswith("y") and name[-2] not in "aeiou" else name + "s"


def article(noun: str) -> str:
    if plural(noun) == noun and noun.endswith("s") and not noun.startswith(("glass", "compass")):
        return noun
    return ("an " if noun[0].lower() in "aeio" or noun.startswith(("umbrella", "ugly")) else "a ") + noun


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """An English sentence true of the scene. Without `rng` the plain form that examples and judges use."""
    if rng is None:
        return f"{_objects(scene, None)} on {scene.background.phrase}"
    text = _objects(scene, rng)
    if rng.random() < 0.62:
        plain = scene.background.kind == "plain"
        text = str(rng.choice([
            f"{text} on {scene.background.phrase}",
            f"{text}, {scene.background.phrase.removeprefix('a ').removeprefix('an ')}",
            f"{text} in front of {scene.background.phrase}" if not plain else f"{text} on {scene.background.colours[0]}",
        ]))  # fmt: skip
    if rng.random() < 0.22:
        text = str(rng.choice(["a picture of ", "an emoji of ", "an image showing ", "a photo of ", "a 3d render of "])) + text
    return text


def _name(placed, rng):
    concept = concepts()[placed.concept]
    if rng is not None and concept.tags and rng.random() < 0.06:
        return str(rng.choice(concept.tags))
    return concept.name


def _objects(scene, rng):
    objects, chance = scene.objects, (lambda p: rng is not None and rng.random() < p)
    groups: dict[int, list[Placed]] = {}
    for placed in objects:
        groups.setdefault(placed.concept, []).append(placed)
    if len(groups) == 1:
        first = objects[0]
        noun = _name(first, rng)
        if len(objects) > 1:
            return f"{COUNTS[len(objects)]} {plural(noun)}"
        if first.size_word != "medium" and chance(0.35):
            noun = f"{first.size_word} {noun}"
        text = noun if chance(0.18) else article(noun)
        where = _where(first)
        return f"{text} {where}" if where and chance(0.5) else text
    nouns = []
    for members in groups.values():
        noun = _name(members[0], rng)
        if len(members) == 1:
            if members[0].size_word == "small" and chance(0.15):
                noun = f"small {noun}"
            nouns.append(article(noun))
        else:
            nouns.append(f"{COUNTS[len(members)]} {plural(noun)}")
    if len(objects) == 2:
        return _relation(objects, nouns, rng)
    return ", ".join(nouns[:-1]) + " and " + nouns[-1]


def _where(placed):
    """Words for the corner or side an object stands in; empty near the middle."""
    row = "top" if placed.y < 0.36 else "bottom" if placed.y > 0.64 else ""
    column = "left" if placed.x < 0.36 else "right" if placed.x > 0.64 else ""
    if row and column:
        return f"in the {row} {column} corner"
    return f"on the {column}" if column else f"at the {row}" if row else ""


def _relation(objects, nouns, rng):
    a, b = objects
    order = rng is None or rng.random() < 0.5
    (first, one), (second, two) = ((a, nouns[0]), (b, nouns[1])) if order else ((b, nouns[1]), (a, nouns[0]))
    dx, dy = second.x - first.x, second.y - first.y
    choices = ["next to", "and"]
    touching = max(abs(dx), abs(dy)) < 0.92 * (a.size + b.size) / 2
    if abs(dx) > abs(dy):
        choices += ["to the left of" if dx > 0 else "to the right of"] * 2
    else:
        choices += ["above" if dy > 0 else "below"] * 2
    if touching:
        choices += ["behind" if first is a else "in front of"] * 2
    return f"{one} {choices[0] if rng is None else rng.choice(choices)} {two}"
