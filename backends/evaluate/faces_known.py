"""Measure the arms of “Restore a face” on holes and on grey faces: kept faces, which no training saw.

    python -m backends.evaluate.faces_known --faces 16      # some minutes on two cores

Prints a row an arm, mean and standard error over faces, and writes nothing: the figures stand in README's limits. A hole is 20×20 px at one of four
places; of holes the PSNR within, of grey faces the root mean square that Cb and Cr, 0 to 255, are off; of both the identity (cosine, 1 for the same
picture) and how far EfficientNet-Lite0's pooled features are from the good face's.
"""

import argparse
import json

import numpy as np
import torch

from backends import models
from backends.metrics.frechet import features as seen
from backends.metrics.restored_faces import alike, coloured
from backends.registry import METHODS, discover
from backends.restore import face_task
from backends.restore.face_task import RestoreFace
from backends.spec import Result
from backends.worlds import faces

PLACES = ((14, 12), (14, 32), (38, 22), (24, 22))  # an eye, the other, the mouth, the nose
HOLE = 20  # px a side
ARMS = {
    "hole": [("untouched_face", {}), ("face_restorer", {}), *(("difface", {"N": n, "eta": 1.0}) for n in (40, 120)), ("interlcm", {}), ("lafr", {})],
    "grey": [("untouched_face", {}), ("face_restorer", {}), ("difface", {"N": 120}), ("interlcm", {}), ("interlcm", {"steps": 2}), ("lcm_img2img", {}), ("lafr", {})],
}  # fmt: skip


def job(image: np.ndarray, kind: str, i: int) -> RestoreFace:
    if kind == "grey":
        return RestoreFace(image=image, grey=True, seed=i)
    top, left = PLACES[i % len(PLACES)]
    mask = np.zeros_like(image)
    mask[top : top + HOLE, left : left + HOLE] = 255
    return RestoreFace(image=image, mask=mask, seed=i)


@torch.no_grad()
def measured(kind: str, slug: str, knobs: dict, pictures: list[np.ndarray]) -> dict:
    """Means over faces of one arm."""
    model, rows = models.load("faces"), []
    for i, image in enumerate(pictures):
        asked = job(image, kind, i)
        defaults = {k.name: k.default for k in METHODS[slug].knobs}
        made = next(e.value for e in METHODS[slug].function(asked, model, **defaults | knobs) if isinstance(e, Result)).pixels
        given = face_task.given(asked)
        x, y = (faces.as_tensor(p[None]) * 2 - 1 for p in (made, given.reference))
        row = {"identity": float(alike(x, y)), "features": float((seen(x) - seen(y)).norm())}
        if kind == "hole":
            off = made[given.hole].astype(float) - given.reference[given.hole]
            row["PSNR in the hole"] = float(10 * np.log10(255**2 / max(1e-9, (off**2).mean())))
        else:
            row["colours off"] = coloured(made, given)[0]
        rows.append(row)
    return {k: (round(float(np.mean([r[k] for r in rows])), 3), round(float(np.std([r[k] for r in rows]) / len(rows) ** 0.5), 3)) for k in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=16)
    discover()
    pictures = list(faces.kept()[: parser.parse_args().faces])
    for kind, arms in ARMS.items():
        for slug, knobs in arms:
            print(json.dumps({"kind": kind, "arm": slug, **knobs, **measured(kind, slug, knobs, pictures)}), flush=True)


if __name__ == "__main__":
    main()
