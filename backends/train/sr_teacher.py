"""Train a denoiser of the super-resolution world on latents, beside the low-resolution picture; see sr_vae.py for the order.

    python -m backends.train.sr_teacher --minutes 2               # residual shifting (ResShift): 15 steps
    python -m backends.train.sr_teacher --arm ldm --minutes 2     # latent diffusion: 1000 steps

Losses: squared error of x0 even over t for the one, as its paper has it; of ε for the other, weighed as min(SNR, 5) on x0 (Hang et al., arXiv
2303.09556). Half of the factors are ×4, the others ×1.3 to ×8; two in five small pictures have noise and JPEG.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image

from backends.nets import eight_bits
from backends.nets.sr_unet import SrUNet
from backends.nets.sr_vae import SrAutoencoder
from backends.restore import latent_sr, resshift
from backends.train.common import MODELS, RUNS, arguments, autocast
from backends.train.faces_loop import seed_of, train
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import high_band, lowered, psnr, scaled, small

OUT = MODELS / "sr"
ARMS = {
    "shift": dict(block_out_channels=(32, 48), layers_per_block=1, attention=0, steps=resshift.T),
    "ldm": dict(block_out_channels=(32, 48), layers_per_block=1, attention=1, steps=1000, experts=1),
}
QUICK = dict(every=60, tune=False)  # of these short sittings' loop
SIDE = (64, 128)  # px of crops on a CPU, on a GPU


def begun(out: Path, config: dict, start: Path | None = None):
    """(the network in `out`, else a new one, or the one in `start`; what its log says)."""
    if (out / "config.json").exists():
        return eight_bits.load(SrUNet, out), json.loads((out / "training.json").read_text())
    return SrUNet(**config) if start is None else eight_bits.load(SrUNet, start), {"samples": 0, "minutes": 0}


def frozen(kind, name: str, device: str):
    """A network of the super-resolution world that stays as it is."""
    return eight_bits.load(kind, OUT / name).eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def called(net, x: torch.Tensor, t, low: torch.Tensor) -> torch.Tensor:
    """The network's answer, in fp32."""
    with autocast(x.device.type):
        return net(x, t, low).float()


def shifted(net, shift: resshift.Shift, x, t, y0, low) -> torch.Tensor:
    return resshift.estimate(lambda *a: called(net, *a), shift, x, t, y0, low)


def noise_like(x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)


@torch.no_grad()
def walked(net, arm: str, y0: torch.Tensor, low: torch.Tensor, steps: int = 20, seed: int = 0) -> torch.Tensor:
    """Latents drawn as the arm draws: the whole chain of the one, `steps` of DDIM at η = 1 of the other."""
    rng, shift = torch.Generator().manual_seed(seed), resshift.Shift()
    if arm == "shift":
        *_, x0 = shift.walk(lambda x, t: shifted(net, shift, x, t, y0, low), y0, rng)
        return x0
    draw = lambda: torch.randn(y0.shape, generator=rng).to(y0)  # noqa: E731
    *_, (_, x0) = latent_sr.ddim(lambda x, t: y0 + called(net, x, t, low), draw, steps, 1.0)
    return x0


def errors(net, arm: str, bar, shift, x0, y0, low, t, noise) -> torch.Tensor:
    """(B,) squared errors a number, of x0 or of ε."""
    if arm == "shift":
        return (shifted(net, shift, shift.noised(x0, y0, t, noise), t, y0, low) - x0).square().mean((1, 2, 3))
    x = latent_sr.noised(bar, x0, t, noise)
    return (latent_sr.epsilon(bar, x, y0 + called(net, x, t, low), t) - noise).square().mean((1, 2, 3))


def weights(bar: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """(B,) what an error of ε counts: min(SNR, 5) / SNR."""
    snr = bar[t] / (1 - bar[t])
    return snr.clamp_max(5) / snr


def sheet(rows: list[torch.Tensor], across: int = 12) -> Image.Image:
    """Rows of pictures in [-1, 1]."""
    grid = [torch.cat(list(row[:across].float().cpu()), 2) for row in rows]
    return Image.fromarray(((torch.cat(grid, 1).permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy().astype(np.uint8))


class HeldOut:
    """Crops that training never draws, ×4 smaller and clean; what is measured on them."""

    def __init__(self, source: Crops, vae: SrAutoencoder, n: int):
        self.x = source.held_out(n)
        self.low = scaled(small(self.x, 32), 128).clamp(-1, 1)
        self.vae, self.z, self.y = vae, vae.latents(self.x), vae.latents(self.low)

    def figures(self, made: torch.Tensor) -> dict:
        """PSNR in dB and energy of the high band against the original's, of pictures made of `low`."""
        ratio = high_band(made.clamp(-1, 1)).mean() / high_band(self.x).mean()
        return {"psnr_db": round(float(psnr(made, self.x).mean()), 2), "high_band": round(float(ratio), 3)}

    def decoded(self, z: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast(z.device.type):
            return self.vae.pixels(z).float()

    @property
    def bounds(self) -> dict:
        return {"bicubic": self.figures(self.low), "autoencoder": self.figures(self.decoded(self.z))}


def main() -> None:
    args = arguments("sr/denoiser", arm="shift", batch=0, lr=2e-3, ema=0.995)
    arm, device, gpu = args.arm, args.device, args.device != "cpu"
    if args.out == MODELS / "sr/denoiser":
        args.out = OUT / arm
    args.batch = args.batch or (256 if gpu else 16)
    net, log = begun(args.out, ARMS[arm])
    vae, source = frozen(SrAutoencoder, "vae", device), Crops(device, seed_of(args, log))
    shift, bar = resshift.Shift(), DDIMScheduler(**latent_sr.SCHEDULE).alphas_cumprod.to(device)
    test = HeldOut(source, vae, 48 if gpu else 4)
    print(json.dumps(test.bounds), flush=True)

    def loss_of(net, average):
        x = source.draw(args.batch, SIDE[gpu])
        low = lowered(x, source.rng)
        x0, y0 = vae.latents(torch.cat([x, low])).chunk(2)
        t = torch.randint(net.config.steps, (len(x),), device=device)
        off = errors(net, arm, bar, shift, x0, y0, low, t, torch.randn_like(x0))
        return (off if arm == "shift" else off * weights(bar, t)).mean()

    @torch.no_grad()
    def figures(net) -> dict:
        """Held-out errors by t, and what the chain makes."""
        steps = net.config.steps
        at = {t: errors(net, arm, bar, shift, test.z, test.y, test.low, torch.full((len(test.z),), t, device=device), noise_like(test.z, t)).mean()
              for t in (steps // 15, steps // 3, steps * 2 // 3, steps - 1)}  # fmt: skip
        return {"held_out_loss": {str(t): round(float(v), 4) for t, v in at.items()}} | test.figures(test.decoded(walked(net, arm, test.y, test.low)))

    def rows(net):
        """Held-out: bicubic, drawn, as the autoencoder has it, as it was."""
        return sheet([test.low, test.decoded(walked(net, arm, test.y, test.low)), test.decoded(test.z), test.x])

    train(args, f"sr/{arm}", net, log, loss_of, figures, rows, eight_bits.save, **QUICK)


if __name__ == "__main__":
    (RUNS / "sr").mkdir(parents=True, exist_ok=True)
    main()
