"""The emoji world: scenes of one to four glossy objects of which everything is known.

A Scene says which concept stands where, how big, in which layer, on what background (emoji_scene.py); `render` draws
it, and `masks`, `boxes` and `edges` are exact (emoji_draw.py); `caption` words it (emoji_words.py). Sprites: Fluent 3D
emoji (MIT), names and synonyms: emojibase (MIT); see `emoji_build.py`.

Scenes are drawn from a numpy Generator. Two things are held out of training for the judges, the proofs and
the model's figures: seeds from HELD_OUT_SEED on, and one pair of concepts in ten (`held_out_pair`).
"""

from backends.worlds.emoji_draw import SIDE, boxes, edges, masks, paint_background, render, sprite
from backends.worlds.emoji_scene import (
    COLOURS,
    COUNTS,
    FOLDER,
    HELD_OUT_SEED,
    PLACES,
    Background,
    Concept,
    Placed,
    Scene,
    common,
    concepts,
    held_out_pair,
    sample,
)
from backends.worlds.emoji_words import caption
from backends.worlds.english import article, plural

__all__ = [
    "COLOURS", "COUNTS", "FOLDER", "HELD_OUT_SEED", "PLACES", "SIDE", "Background", "Concept", "Placed", "Scene", "article", "boxes", "caption",
    "common", "concepts", "edges", "held_out_pair", "masks", "paint_background", "plural", "render", "sample", "sprite",
]  # fmt: skip
