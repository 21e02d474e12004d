"""Train the restorers of photographs: on a synthetic harm alone, or with Noise-DA's adaptation to another make of it (arXiv 2406.18516).

    python -m backends.train.noise_da --task denoise --arm source --minutes 0.7 --photos FILE    # derain, deblur likewise
    python -m backends.train.noise_da --task denoise --arm full --minutes 1 --photos FILE        # then unshuffled, the shortcut left open

FILE: an npz whose first array is (N, S, S, 3) uint8, crops of photographs. The arms with F begin as the source-only restorer, so that minutes
go where the arms differ; `full` and `unshuffled` are trained alike but for the shuffle and the contrast. Some crops are held out.

As the paper: α = 0.2·(2/(1 + e^{−5p}) − 1), margin 0.1, Charbonnier's distance, one optimiser over G and F, an average of the weights as the
answer. Where we differ: p is the share of this sitting and not of 300 epochs; 64 px patches in large batches, not 3 of 128 px; Muon with
AdamW at a falling rate, not Adam at 1e-4; a faster average; smaller networks (nets/restorers.py); the real domain is a second make of the same harm
(restore/harming.py), its pictures drawn from the same photographs but never those of the pair.
"""

import time
from pathlib import Path

import numpy as np
import torch

from backends.nets.restorers import NoiseUNet, RestorationUNet
from backends.restore import adapting, harming
from backends.train.common import arguments, autocast, save_pretrained
from backends.train.faces_loop import begun, seed_of, train
from backends.worlds.faces_build import sheet

TASKS = {"denoise": "noise", "deblur": "blur", "derain": "rain"}
SIDE = 64
STRENGTHS = (0.1, 1.0)


class Photos:
    """Crops on the device, uint8, cut and turned at random in batches."""

    def __init__(self, file: Path, device: str, seed: int, held_out: int):
        with np.load(file) as archive:
            crops = archive[archive.files[0]]
        side = min(crops.shape[1], SIDE)
        middle = (crops.shape[1] - side) // 2
        kept = np.arange(held_out) * len(crops) // held_out  # from all along the file, whose order is that of the photographs
        self.kept = self._floats(torch.from_numpy(crops[kept, middle : middle + side, middle : middle + side]).to(device))
        self.crops, self.device = torch.from_numpy(np.delete(crops, kept, 0)).to(device), device
        self.rng = torch.Generator(device).manual_seed(seed)

    @staticmethod
    def _floats(crops: torch.Tensor) -> torch.Tensor:
        return crops.permute(0, 3, 1, 2).float() / 255

    def draw(self, n: int) -> torch.Tensor:
        """(n, 3, 64, 64) in [0, 1]; each of 8 turns and flips to an eighth of the batch."""
        rows, tops, lefts = (torch.randint(high, (n, 1, 1), device=self.device, generator=self.rng) for high in
                             (len(self.crops), self.crops.shape[1] - SIDE + 1, self.crops.shape[2] - SIDE + 1))  # fmt: skip
        at = torch.arange(SIDE, device=self.device)
        x = self._floats(self.crops[rows, tops + at.view(1, -1, 1), lefts + at.view(1, 1, -1)])
        parts = [part.rot90(k % 4, (2, 3)).flip(3) if k > 3 else part.rot90(k, (2, 3)) for k, part in enumerate(x.chunk(8))]
        return torch.cat(parts)

    def harmed(self, x: torch.Tensor, kind: str, real: bool) -> torch.Tensor:
        low, high = STRENGTHS
        strength = low + (high - low) * torch.rand(len(x), device=self.device, generator=self.rng)
        return harming.harmed(x, kind, strength, real, self.rng)


class Pair(torch.nn.Module):
    """G and F under one optimiser."""

    def __init__(self, restorer: RestorationUNet, noiser: NoiseUNet | None):
        super().__init__()
        self.restorer, self.noiser = restorer, noiser


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over pictures in [0, 1] of the PSNR in dB."""
    return float((-10 * (a - b).square().mean((1, 2, 3)).log10()).mean())


def main() -> None:
    args = arguments("noise-da", task="denoise", arm="source", photos=Path("runs/photos.npz"), batch=0, lr=1e-3, ema=0.998, alpha=adapting.WEIGHT)
    kind, gpu, parent = TASKS[args.task], args.device != "cpu", args.out
    args.batch = args.batch or (128 if gpu else 16)
    args.out = parent / f"{args.task}-{args.arm}"
    restorer, log = begun(RestorationUNet, args.out, {})
    if not log["samples"] and args.arm != "source" and (parent / f"{args.task}-source" / "config.json").exists():
        restorer = RestorationUNet.from_pretrained(parent / f"{args.task}-source", torch_dtype=torch.float32)
    noiser = None
    if args.arm != "source":
        held = parent / f"{args.task}-{args.arm}-noise"
        noiser = NoiseUNet.from_pretrained(held, torch_dtype=torch.float32) if (held / "config.json").exists() else NoiseUNet()
    photos = Photos(args.photos, args.device, seed_of(args, log), 64 if gpu else 32)
    rng = torch.Generator(args.device).manual_seed(0)
    tests = {make: harming.harmed(photos.kept, kind, 0.5, make == "real", rng) for make in ("synthetic", "real")}
    began, seen = time.monotonic(), {}

    def loss_of(net, average):
        clean = photos.draw(args.batch)
        synthetic = photos.harmed(clean, kind, real=False)
        real = None if noiser is None else photos.harmed(photos.draw(args.batch), kind, real=True)
        alpha = adapting.weight((time.monotonic() - began) / (60 * args.minutes), args.alpha)
        with autocast(args.device):
            parts = adapting.losses(net.restorer, net.noiser, clean, synthetic, real, alpha, args.arm == "full", args.arm == "full", photos.rng)
        seen.update(alpha=alpha, distance=parts.synthetic.detach(), noise=parts.noise.detach(), error=parts.error.detach())
        return parts.total

    @torch.no_grad()
    def restored(net, x):
        with autocast(args.device):
            return net.restorer.restore(x).float()

    def figures(net) -> dict:
        """PSNR in dB of the harmed and the restored held-out crops at strength 0.5, and the last losses."""
        found = {
            f"{make}_{what}_db": round(psnr(x, photos.kept), 2) for make, y in tests.items() for what, x in (("harmed", y), ("restored", restored(net, y)))
        }
        return found | {k: round(float(v), 4) for k, v in seen.items()}

    def rows(net):
        return sheet(torch.cat([part[:16] for y in tests.values() for part in (photos.kept, y, restored(net, y))]) * 2 - 1, 16)

    def write(net, out: Path) -> None:
        save_pretrained(net.restorer, out)
        if net.noiser is not None:
            save_pretrained(net.noiser, out.with_name(out.name + "-noise"))

    train(args, f"noise-da-{args.task}-{args.arm}", Pair(restorer, noiser), log, loss_of, figures, rows, write)


if __name__ == "__main__":
    main()
