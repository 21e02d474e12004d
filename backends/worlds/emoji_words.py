"""Words of the emoji world: an English sentence true of a scene."""

import numpy as np

from backends.worlds.emoji_scene import COUNTS, Placed, Scene, concepts
from backends.worlds.english import article, plural


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
