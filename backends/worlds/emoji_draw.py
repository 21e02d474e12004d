"""Pixels of the emoji world and their ground truth: pictures, masks, boxes, edges."""

import functools

import numpy as np
from PIL import Image, ImageDraw

from backends.worlds.emoji_scene import COLOURS, FOLDER, Background, Placed, Scene

SIDE = 128  # px
SPRITE, COLUMNS = 112, 32  # as the sheet was built


@functools.cache
def _sheet() -> Image.Image:
    return Image.open(FOLDER / "sprites.webp").convert("RGBA")


@functools.cache
def sprite(index: int) -> Image.Image:
    """RGBA picture of one concept, 112×112 px, trimmed and centred."""
    x, y = index % COLUMNS * SPRITE, index // COLUMNS * SPRITE
    return _sheet().crop((x, y, x + SPRITE, y + SPRITE))


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
