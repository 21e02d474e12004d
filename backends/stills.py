"""One picture, or a few words, for each medium: thumbnails, cells of a grid, contact sheets."""

import dataclasses
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from backends import colours, cubes, grids, sound
from backends.spec import Audio, Cube, Heat, Outcome, Plot, Spectrogram, Table, Text, Tokens

WORDS = 160  # characters at most
INK, SOFT, LINE, PAPER = (29, 27, 24), (107, 100, 91), (230, 225, 216), (255, 255, 255)
GAP, HEAD, SIDE = 8, 30, 132  # px of a sheet: between cells, of the labels above and beside them


def still(value: Any) -> np.ndarray | str:
    """(H, W, 3) uint8 that stands for a medium, else its words. One that is not named here shows its first picture or its words."""
    if isinstance(value, Audio | Spectrogram):
        drawn = sound.log_mel(value, 48, 96) if isinstance(value, Audio) else value
        return colours.warm(sound.shades(drawn.values))
    if isinstance(value, Cube):
        value = cubes.picture(value)
    if isinstance(value, Heat):
        cells = np.nan_to_num(np.array(value.values, float))
        size = max(1, 96 // max(cells.shape))
        return np.kron(colours.warm(cells), np.ones((size, size, 1), np.uint8))
    if isinstance(value, Table):
        return _cut(" · ".join(f"{c} {v}" for c, v in zip(value.columns, value.rows[0] if value.rows else ())))
    if isinstance(value, Tokens):
        return _cut(value.text.strip() or "".join(piece or "…" for piece in value.pieces))
    picture = None if isinstance(value, Text | Plot) else _picture(value)
    return picture if picture is not None else _cut(getattr(value, "text", "") or getattr(value, "caption", "") or type(value).__name__)


def _cut(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= WORDS else words[: WORDS - 1] + "…"


def _picture(value: Any) -> np.ndarray | None:
    """The first picture in a medium: (H, W, 3) uint8, the first of several, or one in what it holds."""
    if isinstance(value, np.ndarray):
        while value.ndim > 3 and len(value):
            value = value[0]
        return value if value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3 and value.size else None
    if isinstance(value, tuple | list):
        inner = value
    elif dataclasses.is_dataclass(value):
        inner = [getattr(value, f.name) for f in dataclasses.fields(value)]
    else:
        return None
    return next((found for v in inner if (found := _picture(v)) is not None), None)


def stills(outcomes: list[Outcome]) -> dict[int, np.ndarray | str]:
    """arm -> its still, of those with a result."""
    return {o.arm: still(o.value) for o in outcomes if o.value is not None}


# --- a grid as one picture -------------------------------------------------------------------------------


def sheet(grid: dict, made: dict[int, np.ndarray | str]) -> np.ndarray:
    """(H, W, 3) uint8: the stills of a grid's cells in their rows and columns, with the values of both axes beside them. A cell is as large as the
    largest still, from 160 to 256 px; one that `made` lacks stays empty."""
    sizes = [value.shape[:2] for value in made.values() if isinstance(value, np.ndarray)]
    longest = max((max(size) for size in sizes), default=160)
    scale = min(max(longest, 160), 256) / longest
    height, width = (max(round(scale * max((size[i] for size in sizes), default=160)), 80) for i in (0, 1))
    columns, rows = len(grid["x"]["values"]), len(grid["y"]["values"]) if "y" in grid else 1
    left, top = (SIDE if rows > 1 or "y" in grid else GAP), 2 * HEAD
    drawn = PIL.Image.new("RGB", (left + columns * (width + GAP), top + rows * (height + GAP)), PAPER)
    pen, font, small = PIL.ImageDraw.Draw(drawn), PIL.ImageFont.load_default(15), PIL.ImageFont.load_default(12)
    pen.text((left, 8), grids.title(grid["x"]["axis"]), SOFT, small)
    if "y" in grid:
        pen.text((GAP, HEAD + 8), grids.title(grid["y"]["axis"]), SOFT, small)
    for i, value in enumerate(grid["x"]["values"]):
        said = _lines(pen, grids.label(grid["x"]["axis"], value), font, width, 1)
        pen.text((left + i * (width + GAP) + width / 2, HEAD + 14), said, INK, font, "mm")
    for j, value in enumerate(grid["y"]["values"] if "y" in grid else ()):
        said = _lines(pen, grids.label(grid["y"]["axis"], value), font, SIDE - 2 * GAP, 4)
        pen.multiline_text((GAP, top + j * (height + GAP) + height / 2), said, INK, font, "lm")
    for number, (i, j) in enumerate(grids.places(grid)):
        x, y = left + i * (width + GAP), top + j * (height + GAP)
        value = made.get(number)
        if isinstance(value, np.ndarray):
            fitted = PIL.Image.fromarray(value)
            share = min(width / fitted.width, height / fitted.height)
            fitted = fitted.resize((max(1, round(share * fitted.width)), max(1, round(share * fitted.height))), PIL.Image.LANCZOS)
            drawn.paste(fitted, (x + (width - fitted.width) // 2, y + (height - fitted.height) // 2))
            continue
        pen.rectangle((x, y, x + width - 1, y + height - 1), outline=LINE)
        said = _lines(pen, value or "no result", small, width - 2 * GAP, (height - 2 * GAP) // 16)
        pen.multiline_text((x + GAP, y + GAP), said, INK if value else SOFT, small)
    return np.asarray(drawn)


def _lines(pen: PIL.ImageDraw.ImageDraw, words: str, font, width: float, most: int) -> str:
    """The words in lines of `width` px, `most` of them; what finds no room is left out."""
    lines, rest = [""], [part for word in words.split() for part in _parts(pen, word, font, width)]
    while rest:
        longer = f"{lines[-1]} {rest[0]}".strip()
        if pen.textlength(longer, font) <= width:
            lines[-1] = longer
            rest.pop(0)
        elif len(lines) < most:
            lines.append("")
        else:
            lines[-1] = lines[-1][:-1] + "…"
            break
    return "\n".join(lines)


def _parts(pen, word: str, font, width: float) -> list[str]:
    """A word, in pieces where it is wider than a line."""
    parts = [""]
    for letter in word:
        if parts[-1] and pen.textlength(parts[-1] + letter, font) > width:
            parts.append("")
        parts[-1] += letter
    return parts
