"""Train a denoiser of the super-resolution world on latents, beside the low-resolution picture.

    python -m backends.train.sr_teacher --minutes 2               # residual shifting (ResShift): 15 steps, predicts x0
    python -m backends.train.sr_teacher --arm ldm --minutes 2     # latent diffusion: 1000 steps, predicts noise; see sr_vae.py for the order

Losses: squared error of x0 for the one, of ε for the other, each even over t, as their papers have them. Half a batch's factors are ×4,
the others ×1.3 to ×8; two in five small pictures have noise and JPEG.
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from PIL import Image

from backends.metrics.perceptual import distance
from backends.nets import eight_bits
from backends.nets.sr_unet import SrUNet
from backends.nets.sr_vae import SrAutoencoder
from backends.restore import resshift
from backends.restore.latent_sr import SCHEDULE
from backends.train.common import MODELS, arguments, autocast, noise_like
from backends.train.loop import seed_of, train
from backends.worlds import faces_build
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import high_band, lowered, psnr, scaled, small

ARMS = {
    "shift": dict(block_out_channels=(48, 64, 96), layers_per_block=1, attention=1, steps=resshift.T),
    "ldm": dict(block_out_channels=(40, 56), layers_per_block=1, attention=1, steps=1000, experts=1),
}
FOLDERS = {"shift": "sr/shift", "ldm": "sr/ldm"}


def begun(out: Path, config: dict, start: Path | None = None):
    """(the network in `out`, else a new one, or the one in `start`; what its log says)."""
    if (out / "config.json").exists():
        return eight_bits.load(SrUNet, out), json.loads((out / "training.json").read_text())
    return SrUNet(**config) if start is None else eight_bits.load(SrUNet, start), {"samples": 0, "minutes": 0}


def frozen_vae(device: str) -> SrAutoencoder:
    vae = SrAutoencoder.from_pretrained(MODELS / "sr/vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    return vae.to(device, memory_format=torch.channels_last)


@torch.no_grad()
def encoded(vae, x: torch.Tensor) -> torch.Tensor:
    with autocast(x.device.type):
        return vae.latents(x.contiguous(memory_format=torch.channels_last))


@torch.no_grad()
def decoded(vae, z: torch.Tensor) -> torch.Tensor:
    with autocast(z.device.type):
        return vae.pixels(z).float().clamp(-1, 1)


def called(net, x: torch.Tensor, t, low: torch.Tensor) -> torch.Tensor:
    """The network's answer, in fp32."""
    with autocast(x.device.type):
        return net(x, t, low).float()


@torch.no_grad()
def walked(net, arm: str, y0: torch.Tensor, low: torch.Tensor, steps: int = 50, seed: int = 0) -> torch.Tensor:
    """Latents drawn as the arm draws: the whole chain of the one, `steps` of DDIM at η = 1 of the other."""
    rng = torch.Generator().manual_seed(seed)
    if arm == "shift":
        shift = resshift.Shift()
        *_, x0 = shift.walk(lambda x, t: resshift.estimate(lambda *a: called(net, *a), shift, x, t, y0, low), y0, rng)
        return x0
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    x = torch.randn(y0.shape, generator=rng).to(y0)
    for t in scheduler.timesteps:
        x = scheduler.step(called(net, x, t, low), t, x, eta=1.0, variance_noise=torch.randn(y0.shape, generator=rng).to(y0)).prev_sample
    return x


def loss_at(net, arm: str, bar, shift, x0, y0, low, t, noise) -> torch.Tensor:
    """(B,) squared errors, a number each."""
    if arm == "shift":
        guess = resshift.estimate(lambda *a: called(net, *a), shift, shift.noised(x0, y0, t, noise), t, y0, low)
        return (guess - x0).square().mean((1, 2, 3))
    a = bar[t].view(-1, 1, 1, 1)
    return (called(net, a.sqrt() * x0 + (1 - a).sqrt() * noise, t, low) - noise).square().mean((1, 2, 3))


def sheet(rows: list[torch.Tensor], across: int = 12) -> Image.Image:
    """Rows of pictures in [-1, 1]."""
    return faces_build.sheet(torch.cat([row[:across].cpu() for row in rows]), min(across, len(rows[0])))


class HeldOut:
    """Crops that training never draws, ×4 smaller and clean; what is measured on them."""

    def __init__(self, source: Crops, vae, n: int):
        self.x = source.held_out(n)
        self.low = scaled(small(self.x, 32), 128).clamp(-1, 1)
        self.vae, self.z, self.y = vae, encoded(vae, self.x), encoded(vae, self.low)

    def figures(self, made: torch.Tensor) -> dict:
        """PSNR in dB, energy of the high band against the original's and LPIPS-like distance to it, of pictures made of `low`."""
        ratio = high_band(made).mean() / high_band(self.x).mean()
        with torch.no_grad():
            looks = distance(made.float(), self.x).mean()
        return {"psnr_db": round(float(psnr(made, self.x).mean()), 2), "high_band": round(float(ratio), 3), "lpips_like": round(float(looks), 4)}

    @property
    def bounds(self) -> dict:
        return {"bicubic": self.figures(self.low), "autoencoder": self.figures(decoded(self.vae, self.z))}


def main() -> None:
    args = arguments("sr/denoiser", arm="shift", batch=0, lr=1.5e-3, ema=0.998)
    arm, device, gpu = args.arm, args.device, args.device != "cpu"
    if args.out == MODELS / "sr/denoiser":
        args.out = MODELS / FOLDERS[arm]
    args.batch = args.batch or (256 if gpu else 8)
    net, log = begun(args.out, ARMS[arm])
    vae, source = frozen_vae(device), Crops(device, seed_of(args, log), most=0 if gpu else 200)
    shift, bar = resshift.Shift(), DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    test = HeldOut(source, vae, 72 if gpu else 4)
    print(json.dumps(test.bounds), flush=True)

    def loss_of(net, average):
        x = source.draw(args.batch)
        low = lowered(x, source.rng)
        x0, y0 = encoded(vae, torch.cat([x, low])).chunk(2)
        t = torch.randint(net.config.steps, (len(x),), device=device)
        return loss_at(net, arm, bar, shift, x0, y0, low, t, torch.randn_like(x0)).mean()

    @torch.no_grad()
    def figures(net) -> dict:
        """Held-out losses by t, and what the chain makes."""
        steps = net.config.steps
        at = {t: loss_at(net, arm, bar, shift, test.z, test.y, test.low, torch.full((len(test.z),), t, device=device), noise_like(test.z, t)).mean()
              for t in (steps // 15, steps // 3, steps * 2 // 3, steps - 1)}  # fmt: skip
        return {"held_out_loss": {str(t): round(float(v), 4) for t, v in at.items()}} | test.figures(decoded(vae, walked(net, arm, test.y, test.low)))

    def rows(net):
        """Held-out: bicubic, drawn, as the autoencoder has it, as it was."""
        return sheet([test.low, decoded(vae, walked(net, arm, test.y, test.low)), decoded(vae, test.z), test.x])

    if arm == "ldm":
        DDIMScheduler(**SCHEDULE).save_pretrained(args.out)
    train(args, FOLDERS[arm], net, log, loss_of, figures, rows, eight_bits.save)


if __name__ == "__main__":
    main()
