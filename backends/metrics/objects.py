"""The figures shown under each arm of the 3D tabs: what the judge of the object world sees in the turntable, and what an edit left as it was.

The judge (objects_judge.py) knows the objects, looks and accessories of the world: where a prompt names no object of it, its figures are
left out. Beside each stands what the judge says of a true render of the thing from the same sides.
"""

from __future__ import annotations

import functools

import numpy as np
from skimage.color import deltaE_cie76, rgb2lab

from backends.scene.tasks import EditObject, MakeObject
from backends.scene.turning import GROUND, around
from backends.spec import Mesh, Metric, Turntable
from backends.worlds.objects import ACCESSORIES, LOOKS, OBJECTS, VIEWS, Thing, caption, dressed, mesh, thing_in, view_of
from backends.worlds.objects_render import over, render

SEEN = 16  # of 255: what differs less from the ground is ground


def scores(pictures: np.ndarray, thing: Thing) -> dict[str, np.ndarray]:
    """Of (n, H, W, 3) uint8: (n,) probabilities of the thing's "object", "look" (its own look when it has none) and "accessory" (none
    likewise), and "view", (n, 4) over VIEWS."""
    from backends.metrics.objects_judge import probabilities

    seen = probabilities(pictures)
    at = {"object": OBJECTS.index(thing.name), "look": LOOKS.index(thing.look), "accessory": tuple(ACCESSORIES).index(thing.accessory)}
    return {head: seen[head][:, k] for head, k in at.items()} | {"view": seen["view"]}


def agreement(frames: np.ndarray, thing: Thing) -> float:
    """The judge's score of (n, H, W, 3) uint8: its probability of the object times those of the look and accessory that are asked for, in the mean."""
    seen = scores(frames, thing)
    return float(np.mean(seen["object"] * (seen["look"] if thing.look else 1.0) * (seen["accessory"] if thing.accessory else 1.0)))


def direction(frames: np.ndarray, before: np.ndarray, wanted: np.ndarray) -> float:
    """Of turntables of n frames: the cosine of the change from `before` to `frames` and that to `wanted`, in the judge's features; 0 where nothing changed.

    What CLIP's directional similarity asks of a picture and two texts; here true renders stand for the texts.
    """
    from backends.metrics.objects_judge import embedded

    start, ours, theirs = (embedded(f).mean(0) for f in (before, frames, wanted))
    ours, theirs = ours - start, theirs - start
    return float(ours @ theirs / max(np.linalg.norm(ours) * np.linalg.norm(theirs), 1e-9))


def turn(shape: Mesh, n: int, side: int) -> np.ndarray:
    """(n, side, side, 3) uint8: the turntable of a mesh as the studio shows volumes."""
    return over(render(shape, around(n), side), GROUND)


@functools.lru_cache(64)
def _of_render(thing: Thing, n: int, side: int) -> dict[str, float]:
    return means(turn(mesh(thing), n, side), thing)


def means(frames: np.ndarray, thing: Thing) -> dict[str, float]:
    """Of a turntable's frames: mean probabilities of the object, look and accessory, and of a front on the frames from behind ("faces")."""
    seen = scores(frames, thing)
    behind = [view_of(c.azimuth, 0) == "back" for c in around(len(frames))]
    faces = {"faces": float(seen["view"][behind, VIEWS.index("front")].mean())} if any(behind) else {}
    return {head: float(seen[head].mean()) for head in ("object", "look", "accessory")} | faces


def _judged(frames: np.ndarray, thing: Thing, names: dict[str, str]) -> list[Metric]:
    """Figures by key of `means`, under their names; aside: the same of a true render."""
    seen, best, out = means(frames, thing), _of_render(thing, len(frames), frames.shape[1]), []
    for key in (k for k in names if k in seen):
        aside = f"{caption(thing)}; a true render: {best[key]:.2f}"
        better = "higher"
        if key == "faces":
            better = "lower" if (told := best[key] < 0.3) else ""
            aside += "" if told else "; its back looks much like its front"
        out.append(Metric(names[key], seen[key], better, aside))
    return out


def _asked(thing: Thing) -> dict[str, str]:
    return ({"look": "look seen"} if thing.look else {}) | ({"accessory": "accessory seen"} if thing.accessory else {})


def made(job: MakeObject, value: Turntable, reference: Turntable | None) -> list[Metric]:
    """Probabilities that the frames show the object, its look and accessory, and, on frames from behind, a front (the Janus problem)."""
    thing = thing_in(job.prompt)
    if thing is None or not isinstance(value, Turntable):
        return []
    return _judged(value.frames, thing, {"object": "seen as the object"} | _asked(thing) | {"faces": "faces at the back"})


def edited(job: EditObject, value: Turntable, reference: Turntable | None) -> list[Metric]:
    """Whether the edit is seen and the object still is, whether the change leads where the words do, and how much of the source, below its top, stayed."""
    if not isinstance(value, Turntable):
        return []
    thing, source, out = thing_in(job.prompt), thing_in(job.source), []
    same = thing is None or source is None or thing.name == source.name
    if thing is not None:
        out = _judged(value.frames, thing, _asked(thing) | {"object": "still the object" if same else "seen as the object"})
    if job.shape is not None:
        n, side = value.frames.shape[:2]
        before = turn(job.shape, n, side)
        overlap, change, decibels = kept(value.frames, before)
        if thing is not None and source is not None and thing != source:
            plain = same and source == Thing(source.name)
            towards = direction(value.frames, before, turn(dressed(job.shape, thing) if plain else mesh(thing), n, side))
            goal = "the object itself, so dressed" if plain else "a true render"
            out.append(Metric("direction of the edit", towards, "higher", f"cosine of its change and that to {goal}, in the judge's features"))
        recoloured = not same or (thing is not None and thing.look != (source.look if source else ""))
        out += [
            Metric("outline kept", overlap, "higher" if same else "", "overlap of the silhouettes below the source's top; 1: the same"),
            Metric("colour change", change, "" if recoloured else "lower", "ΔE where both are, below the source's top; from 2 on it can be seen"),
            Metric("PSNR of the rest (dB)", decibels, "" if recoloured else "higher", "where either is, below the source's top"),
        ]
    return out


def kept(frames: np.ndarray, source: np.ndarray) -> tuple[float, float, float]:
    """Intersection over union of the silhouettes, mean ΔE (CIE 1976) within both and PSNR within either, from the source's highest row down in each frame."""
    mine, theirs = (np.abs(f.astype(int) - round(GROUND * 255)).max(-1) > SEEN for f in (frames, source))
    below = np.maximum.accumulate(theirs.any(2), 1)[:, :, None]
    both, either = mine & theirs & below, (mine | theirs) & below
    change = deltaE_cie76(rgb2lab(frames), rgb2lab(source))[both].mean() if both.any() else 100.0
    error = np.square(frames[either] / 255.0 - source[either] / 255.0).mean() if either.any() else 0.0
    return float(both.sum() / max(either.sum(), 1)), float(change), float(-10 * np.log10(max(error, 1e-6)))
