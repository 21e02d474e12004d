"""The example pictures of the tab “Condition on an image”: python -m backends.worlds.emoji_examples writes assets/examples/."""

from pathlib import Path

import numpy as np
import PIL.Image

from backends.worlds import emoji
from backends.worlds.emoji import Background, Placed, Scene

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "examples"


def scenes() -> dict[str, Scene]:
    index = {c.name: c.index for c in emoji.concepts()}

    def at(name, x, y, size):
        return Placed(index[name], x, y, size)

    return {
        "cat_room": Scene((at("cat", 0.32, 0.58, 0.5), at("cactus", 0.74, 0.6, 0.44)), Background("room", ("teal", "brown"))),
        "dog_grass": Scene((at("dog", 0.5, 0.55, 0.66),), Background("grass", (), 0.62)),
        "owl_purple": Scene((at("owl", 0.5, 0.5, 0.74),), Background("plain", ("purple",))),
        "apple_blue": Scene((at("red apple", 0.5, 0.52, 0.6),), Background("plain", ("light blue",))),
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, scene in scenes().items():
        PIL.Image.fromarray(emoji.render(scene)).save(FOLDER / f"{name}.png", optimize=True)
    # A round brush over the cactus, as someone would paint it.
    y, x = np.mgrid[: emoji.SIDE, : emoji.SIDE] / emoji.SIDE
    painted = ((x - 0.74) ** 2 + (y - 0.6) ** 2 < 0.27**2) * np.uint8(255)
    PIL.Image.fromarray(np.repeat(painted[..., None], 3, -1)).save(FOLDER / "cat_room_mask.png", optimize=True)


if __name__ == "__main__":
    main()
