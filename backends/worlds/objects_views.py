"""A corpus of views of the object world, for training where meshes can't be rendered: RGBA pictures and what they show.

    python -m backends.worlds.objects_views --views 40000 --out runs/objects     # 128 px, about 15 ms a view on a core; shards of 2,000

A shard is an npz of WebP pictures, their ends, and a line of JSON a picture: name, look, accessory, view, azimuth, elevation.
"""

import argparse
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from backends.worlds.objects import HELD_OUT_SEED, Thing, mesh, sample, view_of
from backends.worlds.objects_render import Camera, render

SIZE, EACH, SHARD = 128, 6, 2000  # px, views of a thing, views of a shard


def camera(rng: np.random.Generator) -> Camera:
    """From anywhere around, mostly a little above, sometimes from overhead."""
    elevation = rng.uniform(60, 88) if rng.random() < 0.12 else rng.uniform(-10, 50)
    return Camera(float(rng.uniform(-180, 180)), float(elevation), float(rng.uniform(2.5, 3.0)), 40.0)


def views(thing: Thing, n: int, rng: np.random.Generator, size: int = SIZE) -> tuple[np.ndarray, list[Camera]]:
    """(n, size, size, 4) uint8, colours not premultiplied, and the cameras."""
    cameras = [camera(rng) for _ in range(n)]
    light = (float(rng.uniform(-0.8, 0.8)), float(rng.uniform(0.2, 1.0)), 1.0)
    seen = render(mesh(thing), cameras, size, light=light)
    seen[..., :3] /= np.maximum(seen[..., 3:], 1e-3)
    return (seen.clip(0, 1) * 255).round().astype(np.uint8), cameras


def write(out: Path, shard: int, n: int, kept: bool) -> None:
    rng = np.random.default_rng([HELD_OUT_SEED if kept else 0, shard])
    pictures, about = [], []
    while len(pictures) < n:
        thing = sample(rng, kept)
        for picture, seen in zip(*views(thing, EACH, rng)):
            coded = io.BytesIO()
            Image.fromarray(picture).save(coded, "WEBP", quality=88, method=2)
            pictures.append(coded.getvalue())
            about.append(
                asdict(thing) | {"view": view_of(seen.azimuth, seen.elevation), "azimuth": round(seen.azimuth, 1), "elevation": round(seen.elevation, 1)}
            )
    ends = np.cumsum([len(p) for p in pictures])
    np.savez(out / f"{'kept' if kept else 'train'}-{shard:03d}.npz", data=np.frombuffer(b"".join(pictures), np.uint8), ends=ends,
             about=np.frombuffer("\n".join(map(json.dumps, about)).encode(), np.uint8))  # fmt: skip


def read(path: Path) -> tuple[list[bytes], list[dict]]:
    """The pictures of a shard, still coded, and what they show."""
    with np.load(path) as shard:
        data, ends = shard["data"].tobytes(), shard["ends"]
        return [data[a:b] for a, b in zip([0, *ends[:-1]], ends)], [json.loads(line) for line in shard["about"].tobytes().decode().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=40_000)
    parser.add_argument("--out", type=Path, default=Path("runs/objects"))
    parser.add_argument("--kept", type=int, default=2_000, help="views of things that training never sees")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for kept, count in ((True, args.kept), (False, args.views)):
        for shard in range(-(-count // SHARD)):
            if not (args.out / f"{'kept' if kept else 'train'}-{shard:03d}.npz").exists():
                write(args.out, shard, min(SHARD, count), kept)
                print(f"{'kept' if kept else 'train'} {shard}", flush=True)


if __name__ == "__main__":
    main()
