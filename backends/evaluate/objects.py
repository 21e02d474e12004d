"""The table method × metric of the 3D room and contact sheets of eight views, by the arms as the page runs them.

    python -m backends.evaluate.objects               # six edits and six prompts: half an hour of one core
    python -m backends.evaluate.objects --n 2 --seed 1

Writes docs/objects.md and docs/objects/*.webp. Edits and prompts name accessories and looks that the prior never saw on their objects.
"""

import argparse
import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from backends.evaluate.restoration import added, outcomes, table
from backends.metrics.objects import turn
from backends.scene.tasks import EditObject, MakeObject
from backends.scene.turning import FRAMES, SIDE
from backends.spec import Job
from backends.worlds import objects

OUT = Path(__file__).resolve().parents[2] / "docs"
SEEDS = 2**30  # the page's examples begin at 1
EDITING, MAKING = ("sds_edit", "voxe", "ednerf"), ("sds", "stabledreamer")
VIEWS, NAMES = FRAMES // 8, 88  # every third frame; px for the rows' names
SHORT = {"sds_edit": "SDS", "voxe": "Vox-E", "ednerf": "ED-NeRF", "sds": "SDS", "stabledreamer": "StableDreamer"}


def asked(n: int, seed: int) -> list[tuple[objects.Thing, objects.Thing]]:
    """n times (source, wanted) of common objects, wanted kept from training; accessories and looks by turns."""
    rng, found = np.random.default_rng([objects.HELD_OUT_SEED + 61, seed]), []
    while len(found) < n:
        kind, names = (("accessory", objects.ACCESSORIES), ("look", objects.LOOKS))[len(found) % 2]
        source = objects.Thing(str(rng.choice(objects.COMMON)))
        wanted = objects.Thing(source.name, **{kind: str(rng.choice(tuple(names)[1:]))})
        if objects.held_out(wanted) and source.name not in [s.name for s, _ in found[-8:]]:
            found.append((source, wanted))
    return found


def sheet(rows: dict[str, np.ndarray]) -> Image.Image:
    """Eight views of each turntable's (N, H, W, 3) frames, a row a name."""
    page = Image.new("RGB", (NAMES + 8 * SIDE, len(rows) * SIDE), (237, 237, 237))
    for y, (name, frames) in enumerate(rows.items()):
        ImageDraw.Draw(page).text((6, y * SIDE + SIDE // 2 - 6), name, fill=(20, 20, 20))
        page.paste(Image.fromarray(np.concatenate(list(frames[::VIEWS]), 1)), (NAMES, y * SIDE))
    return page


def jobs(kind: type[Job], n: int, seed: int) -> Iterator[tuple[Job, dict[str, np.ndarray]]]:
    """Jobs, and the rows that their sheets begin with."""
    for i, (source, wanted) in enumerate(asked(n, seed)):
        asks = dict(prompt=objects.caption(wanted), seed=SEEDS + n * seed + i)
        if kind is MakeObject:
            yield MakeObject(**asks), {"a render": turn(objects.mesh(wanted), FRAMES, SIDE)}
        else:
            shape = objects.mesh(source)
            yield EditObject(shape=shape, source=objects.caption(source), **asks), {"before": turn(shape, FRAMES, SIDE)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    (OUT / "objects").mkdir(exist_ok=True)
    parts = [
        "# What edits and what makes\n\nThe arms of the 3D room at their defaults, on accessories and looks that the prior never saw on these objects; "
        f"written by `python -m backends.evaluate.objects --n {args.n} --seed {args.seed}` on {datetime.date.today()}. "
        "Metrics are the tabs' own: arrows and explanations stand there. The rows of a sheet are seen from eight sides, all the way around."
    ]
    for name, kind, task, arms in (("Edits", EditObject, "edit_object", EDITING), ("From words alone", MakeObject, "make_object", MAKING)):
        found, pictures = {slug: {} for slug in arms}, []
        for i, (job, rows) in enumerate(jobs(kind, args.n, args.seed)):
            for slug, end in outcomes(task, job, arms):
                added(found, slug, end)
                rows[SHORT[slug]] = end.value.frames
            file = f"objects/{task}_{i}.webp"
            sheet(rows).save(OUT / file, quality=85, method=6)
            pictures.append(f"### {job.prompt[0].upper()}{job.prompt[1:]}\n\n![Eight views of {', '.join(rows)}]({file})")
        parts += [table(name, found), *pictures]
        print(parts[-1 - len(pictures)], flush=True)
    (OUT / "objects.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
