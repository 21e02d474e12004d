"""Train the restorers of photographs: on a synthetic harm alone, or with Noise-DA's adaptation to another make of it (arXiv 2406.18516).

    python -m backends.train.noise_da --task denoise --minutes 0.8    # derain, deblur likewise; needs the crops of worlds/photos.py

Four arms one after another, each for so long: source, full, unshuffled (the shortcut left open), longer. Those after the first begin as the source-only
restorer, so that minutes go where the arms differ; `full` and `unshuffled` are trained alike but for the shuffle and the contrast. `longer` is their
control: it goes on on the source's pairs alone, for as many samples as `full` saw beyond the source, if the minutes are enough for them.

As the paper: α = 0.2·(2/(1 + e^{−5p}) − 1), margin 0.1, Charbonnier's distance, one optimiser over G and F, an average of the weights as the
answer. Where we differ: p is the share of this sitting and not of 300 epochs; 64 px patches in large batches, not 3 of 128 px; Muon with
AdamW at a falling rate, not Adam at 1e-4; a faster average; smaller networks (nets/restorers.py); the real domain is a second make of the same harm
(restore/harming.py), its pictures drawn from the same photographs but never those of the pair.
"""

import json
import time
from pathlib import Path

import torch

from backends.nets.restorers import NoiseUNet, RestorationUNet
from backends.restore import adapting, harming, restorers
from backends.restore.clean_task import KINDS
from backends.train.common import arguments, autocast, save_pretrained
from backends.train.loop import begun, seed_of, train
from backends.worlds import photos
from backends.worlds.faces_build import sheet

ARMS = (*restorers.ARMS, "longer")  # a control for the proof, which loads it itself
HARMS = {task: harm for harm, task in KINDS.items()}
SIDE = 64  # px of training patches
STRENGTHS = (0.1, 1.0)


def harmed(x: torch.Tensor, kind: str, real: bool, rng: torch.Generator) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1], each harmed as strongly as chance will have it."""
    low, high = STRENGTHS
    return harming.harmed(x, kind, low + (high - low) * torch.rand(len(x), device=x.device, generator=rng), real, rng)


class Pair(torch.nn.Module):
    """G and F under one optimiser."""

    def __init__(self, restorer: RestorationUNet, noiser: NoiseUNet | None):
        super().__init__()
        self.restorer, self.noiser = restorer, noiser


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures in [0, 1] of the PSNR in dB."""
    return float((-10 * (a - b).square().mean((1, 2, 3)).log10()).mean())


def main() -> None:
    args = arguments("noise-da", task="denoise", arm="all", photos=photos.FILE, most=0, batch=0, lr=1e-3, ema=0.998, alpha=adapting.WEIGHT)
    torch.backends.cudnn.benchmark_limit = 2  # of so many small convolutions, lest the choice take the minutes
    args.batch = args.batch or (128 if args.device != "cpu" else 8)
    crops, folder = photos.Crops(args.device, args.seed, args.photos, args.most), args.out
    for arm in ARMS if args.arm == "all" else [args.arm]:
        args.out = folder / f"{args.task}-{arm}"
        train_arm(args, arm, crops)


def train_arm(args, arm: str, crops: photos.Crops) -> None:
    kind, source = HARMS[args.task], args.out.with_name(f"{args.task}-source")
    restorer, log = begun(RestorationUNet, args.out, {})
    if not log["samples"] and arm != "source" and (source / "config.json").exists():
        restorer = RestorationUNet.from_pretrained(source, torch_dtype=torch.float32)
    held, noiser = args.out.with_name(f"{args.out.name}-noise"), None
    if arm in ("full", "unshuffled"):
        noiser = NoiseUNet.from_pretrained(held, torch_dtype=torch.float32) if (held / "config.json").exists() else NoiseUNet()
    crops.rng.manual_seed(seed_of(args, log))
    clean = (crops.held_out(64 if args.device != "cpu" else 16) + 1) / 2
    rng = torch.Generator(args.device).manual_seed(0)
    tests = {make: harming.harmed(clean, kind, 0.5, make == "real", rng) for make in ("synthetic", "real")}
    began, seen = time.monotonic(), {}

    def loss_of(net, average):
        c = (crops.draw(args.batch, SIDE) + 1) / 2
        s = harmed(c, kind, False, crops.rng)
        r = None if noiser is None else harmed((crops.draw(args.batch, SIDE) + 1) / 2, kind, True, crops.rng)
        alpha = adapting.weight((time.monotonic() - began) / (60 * args.minutes), args.alpha)
        with autocast(args.device):
            parts = adapting.losses(net.restorer, net.noiser, c, s, r, alpha, arm == "full", arm == "full", crops.rng)
        seen.update(alpha=alpha, distance=parts.synthetic.detach(), noise=parts.noise.detach(), error=parts.error.detach())
        return parts.total

    @torch.no_grad()
    def restored(net, x):
        with autocast(args.device):
            return net.restorer.restore(x).float()

    def figures(net) -> dict:
        """PSNR in dB of the harmed and the restored held-out crops at strength 0.5, and the last losses."""
        found = {f"{make}_{what}_db": round(psnr(x, clean), 2) for make, y in tests.items() for what, x in (("harmed", y), ("restored", restored(net, y)))}
        return found | {k: round(float(v), 4) for k, v in seen.items()}

    def rows(net):
        return sheet(torch.cat([part[:12] for y in tests.values() for part in (clean, y, restored(net, y))]) * 2 - 1, min(len(clean), 12))

    def write(net, out: Path) -> None:
        save_pretrained(net.restorer, out)
        if net.noiser is not None:
            save_pretrained(net.noiser, held)

    most = 0
    if arm == "longer":
        most = max(1, json.loads((args.out.with_name(f"{args.task}-full") / "training.json").read_text())["samples"] - log["samples"])
    train(args, f"noise-da-{args.out.name}", Pair(restorer, noiser), log, loss_of, figures, rows, write, most)


if __name__ == "__main__":
    main()
