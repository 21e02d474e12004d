"""Measure a prior of the object world by the judge of its renders.

    python -m backends.evaluate.objects_ldm          # 192 prompts: about three minutes of one core
    python -m backends.evaluate.objects_ldm --quick  # 48

Writes figures.json beside the weights. Prompts name an object and a side, half of them also a look or an accessory that training never showed on it.
The judge on true renders of the same things from the same sides gives what could be reached at most.
"""

import argparse
import json
import time

import numpy as np
import torch

from backends import models
from backends.evaluate.emoji_ldm import SCALE, STEPS, generate
from backends.metrics.objects_judge import probabilities
from backends.worlds import objects
from backends.worlds.objects_render import Camera, over, render

CAMERAS = {"front": Camera(0, 15, 2.8), "side": Camera(90, 15, 2.8), "back": Camera(180, 15, 2.8), "overhead": Camera(20, 75, 2.8)}


def asked(n: int, seed: int, names: tuple[str, ...]) -> list[tuple[objects.Thing, str]]:
    """n things of `names`, each with a side; every second one with a look or an accessory kept from training."""
    rng, found = np.random.default_rng([objects.HELD_OUT_SEED + 71, seed]), []
    while len(found) < n:
        thing = objects.sample(rng, kept=len(found) % 2 == 1)
        if thing.name in names and (len(found) % 2 or not (thing.look or thing.accessory)):
            found.append((thing, objects.VIEWS[len(found) // 2 % 4]))
    return found


def judged(pictures: np.ndarray, prompts: list[tuple[objects.Thing, str]]) -> dict[str, float]:
    """Shares of (n, H, W, 3) uint8 whose object, look, accessory and side the judge names first; looks and accessories where one was asked for."""
    seen = {head: p.argmax(1) for head, p in probabilities(pictures).items()}
    right = {
        "object": [seen["object"][i] == objects.OBJECTS.index(t.name) for i, (t, _) in enumerate(prompts)],
        "look": [seen["look"][i] == objects.LOOKS.index(t.look) for i, (t, _) in enumerate(prompts) if t.look],
        "accessory": [seen["accessory"][i] == tuple(objects.ACCESSORIES).index(t.accessory) for i, (t, _) in enumerate(prompts) if t.accessory],
        "view": [seen["view"][i] == objects.VIEWS.index(view) for i, (_, view) in enumerate(prompts)],
    }
    return {head: round(float(np.mean(hits)), 3) for head, hits in right.items() if hits}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", default="objects-ldm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    model, n, found = models.load(args.card), 24 if args.quick else 96, {}
    rest = tuple(name for name in objects.OBJECTS if name not in objects.COMMON)
    for group, names in (("common", objects.COMMON), ("others", rest)):
        prompts, began = asked(n, args.seed, names), time.perf_counter()
        drawn = generate(model, [objects.caption(t, view) for t, view in prompts], objects.HELD_OUT_SEED % 2**31 + args.seed)
        seconds = (time.perf_counter() - began) / n
        pictures = ((drawn + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        truth = np.concatenate([over(render(objects.mesh(t), [CAMERAS[view]], 128), 0.8) for t, view in prompts])
        found[group] = judged(pictures, prompts) | {"n": n, "seconds_a_picture": round(seconds, 2), "of_renders": judged(truth, prompts)}
        print(group, json.dumps(found[group]), flush=True)
    path = models.ASSETS / models.get(args.card).source / "figures.json"
    path.write_text(json.dumps({"steps": STEPS, "guidance": SCALE, "seed": args.seed, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
