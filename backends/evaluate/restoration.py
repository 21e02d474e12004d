"""The table method × metric of the restoration room, on held-out inputs, by the arms as the page runs them.

    python -m backends.evaluate.restoration            # 8 inputs a row, ten minutes on two cores; `make proofs` ends with it
    python -m backends.evaluate.restoration --n 2 --seed 1

Writes docs/restoration.md. Inputs: kept faces, crops of scikit-image's photographs, a generated cube a seed and Indian Pines; no network saw any of them.
"""

import argparse
import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from backends import METHODS, runner
from backends.registry import TASKS
from backends.restore.clean_task import CleanPhoto
from backends.restore.cube_task import RestoreCube
from backends.restore.face_task import RestoreFace
from backends.restore.upscale_task import Upscale
from backends.spec import Arm, Job, Outcome
from backends.worlds import cubes, faces, photos

OUT = Path(__file__).resolve().parents[2] / "docs" / "restoration.md"
SEEDS = 2**30  # the page's examples begin at 1
FACES = "untouched_face", "face_restorer", "span_face", "realesrgan_face", "difface", "lcm_from_noise", "interlcm", "lafr"
LARGER = "bicubic", "span", "realesrgan", "resshift", "tadsr", "ldm_sr", "moe_sr", "fixed_decoder", "arbitrary_scale"
CLEAN = "classical", "source_only", "unshuffled", "noise_da"
CUBES = "truncated_svd", "low_rank_tensor", "image_prior", "dds2m"
PARTS: dict[str, tuple[str, tuple[str, ...], type[Job], dict]] = {
    "Faces degraded as in training": ("restore_face", FACES, RestoreFace, dict(blur=1.2, factor=2.5, noise=8, quality=60)),
    "Faces degraded beyond it": ("restore_face", FACES, RestoreFace, dict(blur=2.2, factor=5.0, noise=20, quality=30)),
    "Photographs four times as large": ("super_resolve", LARGER, Upscale, dict(factor=4.0, shrink=True)),
    "Photographs 2.7 times as large": ("super_resolve", ("bicubic", "fixed_decoder", "arbitrary_scale"), Upscale, dict(factor=2.7, shrink=True)),
    **{f"Photographs with {kind}, the make without answers": ("restore_image", CLEAN, CleanPhoto, dict(harm=kind, strength=0.5)) for kind in ("noise", "rain", "blur")},
    "Generated cubes under noise of 0.1": ("restore_cube", CUBES, RestoreCube, dict(what="denoise", sigma=0.1)),
    "Indian Pines, a fifth of the values kept, noise of 0.1": ("restore_cube", CUBES, RestoreCube, dict(what="complete", kept=0.2, sigma=0.1)),
}  # fmt: skip


def jobs(name: str, kind: type[Job], how: dict, n: int, seed: int) -> Iterator[Job]:
    if kind is RestoreCube:
        for i in range(min(n, 2)):  # most of a minute each
            yield kind(cube=cubes.indian_pines() if "Pines" in name else cubes.generated(SEEDS + seed + i), seed=SEEDS + seed + i, **how)
        return
    some = faces.kept()[(np.arange(n) + n * seed) % 64] if kind is RestoreFace else photos.test_crops(n, 128, seed)
    for i, image in enumerate(some):
        yield kind(image=image, seed=SEEDS + n * seed + i, **how)


def outcomes(task: str, job: Job, arms: tuple[str, ...]) -> Iterator[tuple[str, Outcome]]:
    """(arm, what came of it) at the arms' defaults; those that say why they can't run are printed and left out."""
    for event in runner.run(TASKS[task], job, tuple(Arm(slug, {}) for slug in arms)):
        if isinstance(end := event.event, Outcome):
            if end.error:
                print(f"  {arms[end.arm]}: {end.error}", flush=True)
            else:
                yield arms[end.arm], end


def added(found: dict[str, dict[str, list[float]]], slug: str, end: Outcome) -> None:
    """An outcome's figures to arm -> metric -> values, but those that are neither good nor bad here."""
    for metric, value in ({m.name: m.value for m in end.metrics if m.better} | {"seconds": end.seconds, "NFE": end.nfe}).items():
        found[slug].setdefault(metric, []).append(value)


def measured(name: str, n: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """arm -> metric -> its values; an arm that says why it can't run has none."""
    task, arms, kind, how = PARTS[name]
    found: dict[str, dict[str, list[float]]] = {slug: {} for slug in arms}
    for job in jobs(name, kind, how, n, seed):
        for slug, end in outcomes(task, job, arms):
            added(found, slug, end)
    return found


def table(name: str, found: dict) -> str:
    """A section of Markdown: an arm a row, a metric a column, means."""
    most = max(map(len, (v for row in found.values() for v in row.values())), default=0)
    columns = list(dict.fromkeys(m for row in found.values() for m in row))
    lines = [
        f"## {name}",
        "",
        f"Means of {most}, or of as many as stand in brackets, of which alone a figure speaks.",
        "",
        f"| arm | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for slug, row in found.items():
        cells = [f"{np.mean(row[m]):.4g}" + (f" ({len(row[m])})" if len(row[m]) < most else "") if m in row else "–" for m in columns]
        lines.append(f"| {METHODS[slug].title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    parts = []
    for name in PARTS:
        parts.append(table(name, measured(name, args.n, args.seed)))
        print(parts[-1], flush=True)
    head = (
        "# What restores what\n\nEvery arm of the restoration room at its defaults, on inputs that no network saw; written by "
        f"`python -m backends.evaluate.restoration --n {args.n} --seed {args.seed}` on {datetime.date.today()}. "
        "Metrics are the tabs' own: arrows and explanations stand there.\n"
    )
    OUT.write_text("\n\n".join([head.strip(), *parts]) + "\n")


if __name__ == "__main__":
    main()
