"""Train the judge of the object world on the corpus of views: which object, look, accessory and side a picture shows.

    python -m backends.worlds.objects_views --views 20000 --kept 4000 --out runs/objects
    python -m backends.train.objects_judge --part features --copies 2     # about 2 min a copy of 20,000 views on a core; kept in runs/
    python -m backends.train.objects_judge --minutes 5
    python -m backends.train.objects_judge --part figures                  # held-out accuracies -> figures.json

The judge also learns from things that the priors never see: it must not take a pair for absent because nobody trained on it. Its own figures are of
the first shard of these, whose things it never sees.

Each copy of a view stands on another plain ground, is shifted, scaled or mirrored, and mostly blurred or coarse, as what score distillation makes.
"""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from backends.metrics import objects_judge
from backends.metrics.objects_judge import FOLDER, HEADS, SIDES, Judge
from backends.scene.turning import GROUND
from backends.train.common import RUNS, Clock, Ema, arguments, autocast
from backends.worlds.objects_views import read

CACHE = RUNS / "objects-judge"
BATCH = 50
TESTED = "kept-000"


def batches(path: Path):
    """(BATCH, 4, 128, 128) in [0, 1], colours premultiplied, and truths (BATCH, heads)."""
    coded, about = read(path)
    for k in range(0, len(coded), BATCH):
        x = np.stack([np.asarray(Image.open(io.BytesIO(c)).convert("RGBA")) for c in coded[k : k + BATCH]])
        x = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
        x[:, :3] *= x[:, 3:]
        yield x, torch.tensor([[words.index(a["name" if head == "object" else head]) for head, words in HEADS.items()] for a in about[k : k + BATCH]])


def coarse(x: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(F.interpolate(x, size=(side, side), mode="area"), size=x.shape[-2:], mode="bilinear")


def varied(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1] of premultiplied RGBA; all but blur is drawn for each picture."""

    def uniform(low, high, *shape):
        return torch.rand(len(x), *shape, generator=generator) * (high - low) + low

    # Mirrored at evens, 0.85 to 1.15 as large, shifted by up to a tenth.
    theta, size = torch.zeros(len(x), 2, 3), uniform(0.87, 1.18)
    theta[:, 0, 0], theta[:, 1, 1] = size * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0), size
    theta[:, :, 2] = uniform(-0.12, 0.12, 2)
    x = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    x = x * torch.where(uniform(0, 1) < 0.2, uniform(0.6, 1.0), 1.0).view(-1, 1, 1, 1)  # fields let light through
    grey = uniform(0.5, 1.0, 1, 1, 1).expand(-1, 3, -1, -1)
    ground = torch.where(uniform(0, 1, 1, 1, 1) < 0.6, grey, uniform(0.05, 1.0, 3, 1, 1) ** 0.6)
    x = x[:, :3] + (1 - x[:, 3:]) * ground
    x = x * uniform(0.8, 1.15, 1, 1, 1) * uniform(0.94, 1.06, 3, 1, 1) + uniform(-0.08, 0.08, 1, 1, 1)
    x = x + torch.randn(x.shape, generator=generator) * uniform(-0.04, 0.06, 1, 1, 1).clamp_min(0)
    if torch.rand((), generator=generator) < 0.65:
        x = coarse(x, int(torch.randint(28, 73, (), generator=generator)))
    return x.clamp(0, 1) * 2 - 1


def plain(x: torch.Tensor, side: int = 0) -> torch.Tensor:
    x = x[:, :3] + (1 - x[:, 3:]) * GROUND
    return (coarse(x, side) if side else x) * 2 - 1


def remember(corpus: Path, shards: str, copy: str, change, seed: int = 0) -> None:
    """Features of the shards so named, half precision, a file each; what is there stays. `change(x, generator)`: to pixels."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(corpus.glob(f"{shards}.npz"))):
        out = CACHE / f"{path.stem}-{copy}.npz"
        if out.exists():
            continue
        rows, truths, generator = [], [], torch.Generator().manual_seed(seed * 1000 + number)
        for x, truth in batches(path):
            with torch.no_grad(), autocast("cpu"):
                rows.append([f.half() for f in objects_judge.features(change(x, generator))])
            truths.append(truth)
        np.savez(out, truth=torch.cat(truths).numpy(), **{f"tap{k}": torch.cat(f).numpy() for k, f in enumerate(zip(*rows))})
        print(out.name, flush=True)


def recall(pattern: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Features a tap, and truths, of the cached files of that name."""
    found = [np.load(path) for path in sorted(CACHE.glob(pattern))]
    if not found:
        raise SystemExit("No features; make them by python -m backends.train.objects_judge --part features.")
    *inputs, truth = (torch.from_numpy(np.concatenate([f[key] for f in found])) for key in (*(f"tap{k}" for k in range(len(SIDES) + 1)), "truth"))
    return inputs, truth


def train(args) -> None:
    inputs, truth = recall("*-[0-9].npz")
    things, tested = (t[:, :3] @ torch.tensor([1000, 10, 1]) for t in (truth, recall(f"{TESTED}-clean.npz")[1]))
    new = (~torch.isin(things, tested)).nonzero()[:, 0]
    net, clock, step = Judge(), Clock(args.minutes), 0
    if (FOLDER / "judge.safetensors").exists():
        net.load_state_dict(objects_judge.judge().state_dict())
    optimiser, ema = torch.optim.AdamW(net.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.05), Ema(net, 0.998)
    print(f"{len(new)} pictures, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M weights", flush=True)
    while not clock.over:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 50) * max(0.02, min(1.0, clock.left / (0.7 * clock.budget)))
        rows = new[torch.randint(len(new), (args.batch,))]
        with autocast("cpu"):
            said = net([f[rows].float() for f in inputs])
        loss = sum(F.cross_entropy(logits, truth[rows, k], label_smoothing=0.02) for k, logits in enumerate(said.values()))
        loss.backward()
        optimiser.step(), optimiser.zero_grad()
        ema.update(net)
        step += 1
        if clock.every(120, "log"):
            write(ema.net)
            print(f"{clock.seconds / 60:5.1f} min  step {step}  loss {loss.item():.3f}  {figures()}", flush=True)
    write(ema.net)


def write(net: Judge) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, FOLDER / "judge.safetensors")
    objects_judge.judge.cache_clear()


@torch.no_grad()
def figures() -> dict:
    """Accuracies on things that training never saw, each head, on plain views and on coarse ones."""
    out = {}
    for name in ("clean", "blurred"):
        inputs, truth = recall(f"{TESTED}-{name}.npz")
        said = objects_judge.judge()([f.float() for f in inputs])
        out[name] = {head: round(float((logits.argmax(1) == truth[:, k]).float().mean()), 4) for k, (head, logits) in enumerate(said.items())}
    return out | {"views": len(truth)}


def main() -> None:
    args = arguments("objects-judge", part="train", corpus=RUNS / "objects", copies=2, batch=128, lr=2e-3, threads=1)
    torch.set_num_threads(args.threads)
    if args.part == "features":
        for copy in range(args.copies):
            for shards in ("train-*", "kept-*[!0]"):
                remember(args.corpus, shards, str(copy), varied, args.seed + copy)
        remember(args.corpus, TESTED, "clean", lambda x, _: plain(x))
        remember(args.corpus, TESTED, "blurred", lambda x, _: plain(x, 40))
    elif args.part == "train":
        train(args)
    elif args.part == "figures":
        found = figures()
        (FOLDER / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
