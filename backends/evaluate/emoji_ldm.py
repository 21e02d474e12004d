"""Measure the emoji world's image models with judges they were not trained with.

    python -m backends.evaluate.emoji_ldm                   # 360 prompts: about eight minutes of one core
    python -m backends.evaluate.emoji_ldm --quick           # a fifth of the prompts
    python -m backends.evaluate.emoji_ldm --card emoji-dit

Writes figures.json beside the weights. Prompts are the plain captions of held-out scenes (seeds and pairs of concepts
that no training has seen); the same judges on the scenes themselves, rendered, give what could be reached at most.
"""

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import torch

from backends import models
from backends.denoiser import together
from backends.image.sampling import Guided, SchedulerWalk, denoise
from backends.metrics import detector, frechet, scorer
from backends.train.emoji_judges import pixels_of
from backends.train.emoji_vae import psnr
from backends.worlds import emoji

STEPS, SCALE, BATCH = 25, 5.0, 16


def single_scenes(n: int, rng) -> list:
    """One common concept after another, each once in its own way."""
    chosen = [int(c) for c in rng.permutation(emoji.common())[:n]]
    return [replace(s, objects=(replace(s.objects[0], concept=c),)) for c in chosen for s in [emoji.sample(rng, counts=(1, 0, 0, 0))]]


def crowd_scenes(n: int, rng, alike: bool) -> list:
    """Held-out pairs of unlike objects, or two to four objects of a kind; common concepts."""
    found = []
    while len(found) < n:
        scene = emoji.sample(rng, held_out=True, counts=(0, 1, 1, 1) if alike else (0, 1, 0, 0), common_share=1.0)
        if (len({o.concept for o in scene.objects}) == 1) is alike:
            found.append(scene)
    return found


@torch.no_grad()
def generate(model, prompts: list[str], seed: int, steps: int = STEPS, scale: float = SCALE) -> torch.Tensor:
    """(n, 3, 128, 128) in [-1, 1] by guided DDIM, BATCH prompts at a time; picture i starts from noise `seed` + i."""
    batches = [prompts[at : at + BATCH] for at in range(0, len(prompts), BATCH)]
    return torch.cat([_generated(model, texts, seed + BATCH * k, steps, scale) for k, texts in enumerate(batches)])


def _generated(model, texts, seed, steps, scale):
    cond, uncond = together(model.encode(*texts)), together(model.encode(*[""] * len(texts)))
    noise = torch.cat([model.noise(seed + k) for k in range(len(texts))])
    *_, (x, _) = denoise(model, cond, uncond, noise, SchedulerWalk(model, steps, "ddim"), Guided(scale))
    return model.to_pixels(x).clamp(-1, 1)


@torch.no_grad()
def judged(pixels: torch.Tensor, scenes: dict[str, list], name: str = "main") -> dict[str, float]:
    """What a judge sees in pictures of `scenes`, given in the order single, pair, count."""
    singles, pairs, counts = scenes.values()
    out, parts = {}, list(pixels.split([len(s) for s in scenes.values()]))
    every = range(len(emoji.concepts()))
    best = torch.cat([detector.log_probs(p, every, name).topk(5).indices for p in parts[0].split(32)])
    right = best == torch.tensor([s.objects[0].concept for s in singles], device=best.device)[:, None]
    out["single_top1"], out["single_top5"] = float(right[:, 0].float().mean()), float(right.any(1).float().mean())
    seen = [[f.concept for f in found] for part in parts[1].split(32) for found in detector.detect(part, name)]
    there = np.array([[o.concept in s for o in scene.objects] for s, scene in zip(seen, pairs)])
    out["pair_both"], out["pair_each"] = float(there.all(1).mean()), float(there.mean())
    seen = [[f.concept for f in found] for part in parts[2].split(32) for found in detector.detect(part, name)]
    out["count_right"] = float(np.mean([s.count(scene.objects[0].concept) == len(scene.objects) for s, scene in zip(seen, counts)]))
    return out


@torch.no_grad()
def small_objects_psnr(vae, n: int) -> float:
    """PSNR within the boxes of small objects, which an autoencoder loses first."""
    rng, errors = np.random.default_rng(emoji.HELD_OUT_SEED + 21), []
    scenes = [emoji.sample(rng, held_out=True, counts=(0, 0, 1, 1), common_share=0.5) for _ in range(n)]
    for at in range(0, n, 32):
        x = pixels_of(scenes[at : at + 32]).to(vae.device)
        error = ((vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1) - x) / 2).square()
        for e, scene in zip(error, scenes[at : at + 32]):
            boxes = zip(scene.objects, emoji.boxes(scene))
            errors += [float(e[:, y0:y1, x0:x1].mean()) for o, (x0, y0, x1, y1) in boxes if o.size_word == "small"]
    return float(np.mean(-10 * np.log10(errors)))


def evaluate(card: str, quick: bool = False) -> dict:
    model, part = models.load(card), 5 if quick else 1

    def draw(seed):
        rng = np.random.default_rng(emoji.HELD_OUT_SEED + seed)
        return {
            "single": single_scenes(200 // part, rng),
            "pair": crowd_scenes(100 // part, rng, alike=False),
            "count": crowd_scenes(60 // part, rng, alike=True),
        }

    scenes, others = draw(11), draw(12)
    flat = [s for group in scenes.values() for s in group]
    real, other = pixels_of(flat).to(model.device), pixels_of([s for group in others.values() for s in group]).to(model.device)
    prompts = [emoji.caption(s) for s in flat]
    timed = []
    for _ in range(3):
        start = time.perf_counter()
        generate(model, prompts[:1], 0)
        timed.append(time.perf_counter() - start)
    made = generate(model, prompts, emoji.HELD_OUT_SEED)
    wrong = prompts[1:] + prompts[:1]
    held_out = pixels_of([emoji.sample(np.random.default_rng(emoji.HELD_OUT_SEED + 20 + i), held_out=True) for i in range(256 // part)])
    truth = frechet.features(other)
    figures = {
        "psnr_db": psnr(model.vae, held_out.to(model.device)),
        "psnr_small_objects_db": small_objects_psnr(model.vae, 128 // part),
        **judged(made, scenes),
        "agreement": 100 * float(torch.cat([scorer.cosines(p, t) for p, t in _rows(made, prompts)]).mean()) if scorer.available() else None,
        "agreement_wrong_prompt": 100 * float(torch.cat([scorer.cosines(p, t) for p, t in _rows(made, wrong)]).mean()) if scorer.available() else None,
        "fd_effnet": frechet.distance(frechet.features(made), truth),
        "fd_effnet_floor": frechet.distance(frechet.features(real), truth),
        "seconds_25_steps": float(np.median(timed)),
    }
    if detector.available("second"):
        figures |= {f"second_judge_{k}": v for k, v in judged(made, scenes, "second").items()}
    figures |= {f"real_{k}": v for k, v in judged(real, scenes).items()}
    if scorer.available():
        figures["real_agreement"] = 100 * float(torch.cat([scorer.cosines(p, t) for p, t in _rows(real, prompts)]).mean())
    rounded = {k: round(v, 4 if abs(v) < 1.5 else 2) for k, v in figures.items() if v is not None}
    return rounded | {"prompts": {k: len(v) for k, v in scenes.items()}, "sampler": f"DDIM, {STEPS} steps, guidance {SCALE:g}"}


def _rows(pixels, texts):
    return ((pixels[i : i + 32], texts[i : i + 32]) for i in range(0, len(texts), 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", default="emoji-ldm")
    parser.add_argument("--quick", action="store_true", help="a fifth of the prompts")
    args = parser.parse_args()
    figures = evaluate(args.card, args.quick)
    print(json.dumps(figures, indent=1))
    card = models.get(args.card)
    folder = models.ASSETS / card.source
    training = folder / card.network / "training.json"
    if training.exists():
        figures["training"] = json.loads(training.read_text())
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
