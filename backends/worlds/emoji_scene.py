"""Scenes of the emoji world: what stands where, how big, in which layer, on what background; and drawing them at random."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.worlds.english import article

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "emoji"
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


def held_out_pair(a: int, b: int) -> bool:
    """True for the tenth of all pairs that no training scene shows together."""
    return (min(a, b) * 7919 + max(a, b) * 104729) % 10 == 0


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
