"""The table method × metric of the 3D room and contact sheets of eight views, by the arms as the page runs them.

    python -m backends.evaluate.objects               # six edits and six prompts, of up to eight: half an hour of one core
    python -m backends.evaluate.objects --n 2 --seed 1

Writes docs/objects.md and docs/objects/*.webp. Edits and prompts name accessories and looks that the prior never saw on their objects; every second
edit is of another model of the object, which no training saw.
"""

import argparse
import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from backends.evaluate.restoration import added, outcomes, table
from backends.metrics.objects import turn
from backends.scene.tasks import EditObject, MakeObject
from backends.scene.turning import FRAMES, SIDE
from backends.spec import Job, Mesh
from backends.worlds import objects

OUT = Path(__file__).resolve().parents[2] / "docs"
SEEDS = 2**30  # the page's examples begin at 1
EDITING, MAKING = ("sds_edit", "voxe", "ednerf"), ("sds", "stabledreamer")
VIEWS, NAMES = FRAMES // 8, 88  # every third frame; px for the rows' names
PATTERN = (("accessory", True), ("look", True)) * 2 + (("accessory", False), ("look", False))
SHORT = {"sds_edit": "SDS", "voxe": "Vox-E", "ednerf": "ED-NeRF", "sds": "SDS", "stabledreamer": "StableDreamer"}


class Edit(NamedTuple):
    shape: Mesh
    source: objects.Thing
    wanted: objects.Thing


def edits(seed: int, common: bool = False, others: bool = True) -> list[Edit]:
    """Twelve, of six two accessories and two looks kept from training, then an accessory and a look that were not.

    The first six of meshes that were trained on, of COMMON objects alone when `common`; the other six of other models of known names, which were not, or
    without `others` as the first.
    """
    rng, found = np.random.default_rng([objects.HELD_OUT_SEED + 53, seed]), []
    names = objects.COMMON if common else objects.OBJECTS
    for i, (field, kept) in enumerate(itertools.islice(itertools.cycle(PATTERN), 12)):
        other, parts = others and i >= 6, tuple(objects.ACCESSORIES if field == "accessory" else objects.LOOKS)[1:]
        while True:
            source = objects.Thing(str(rng.choice(tuple(objects.sources(others=True)) if other else names)))
            wanted = objects.Thing(source.name, **{field: str(rng.choice(parts))})
            if objects.held_out(wanted) is kept and source.name not in [e.source.name for e in found[-6:]]:
                break
        found.append(Edit(objects.other(source.name) if other else objects.mesh(source), source, wanted))
    return found


def sheet(rows: dict[str, np.ndarray]) -> Image.Image:
    """Eight views of each turntable's (N, H, W, 3) frames, a row a name."""
    page = Image.new("RGB", (NAMES + 8 * SIDE, len(rows) * SIDE), (237, 237, 237))
    for y, (name, frames) in enumerate(rows.items()):
        ImageDraw.Draw(page).text((6, y * SIDE + SIDE // 2 - 6), name, fill=(20, 20, 20))
        page.paste(Image.fromarray(np.concatenate(list(frames[::VIEWS]), 1)), (NAMES, y * SIDE))
    return page


def jobs(kind: type[Job], n: int, seed: int) -> Iterator[tuple[Job, dict[str, np.ndarray]]]:
    """n jobs, and the rows that their sheets begin with; edits by turns of meshes that were trained on and of others."""
    drawn = edits(SEEDS + seed, common=True, others=kind is EditObject)
    for i, edit in enumerate(itertools.islice(itertools.chain(*zip(drawn[:6], drawn[6:])), n)):
        asks = dict(prompt=objects.caption(edit.wanted), seed=SEEDS + n * seed + i)
        if kind is MakeObject:
            yield MakeObject(**asks), {"a render": turn(objects.mesh(edit.wanted), FRAMES, SIDE)}
        else:
            yield EditObject(shape=edit.shape, source=objects.caption(edit.source), **asks), {"before": turn(edit.shape, FRAMES, SIDE)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.n > 2 * sum(kept for _, kept in PATTERN):
        parser.error("--n is more than the edits of pairs kept from training")
    (OUT / "objects").mkdir(exist_ok=True)
    parts = [
        "# What edits and what makes\n\nThe arms of the 3D room at their defaults, on accessories and looks that the prior never saw on these objects, every second edit on a mesh that it never saw; "
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
