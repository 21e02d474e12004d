"""Train the emoji world's autoencoder: 128×128 px to a 16×16×8 latent.

    python -m backends.train.emoji_vae --minutes 30              # encoder and decoder
    python -m backends.train.emoji_vae --minutes 30 --decoder-only 1   # the latent space stays as it is

Once a denoiser has been trained on the latents only the decoder may go on.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from backends.nets.patch_vae import PatchAutoencoderKL
from backends.train.common import RUNS, Clock, Ema, MuonAdamW, arguments, autocast, load_state, save_pretrained, save_state
from backends.worlds import emoji

CONFIG = dict(
    in_channels=48, out_channels=48, latent_channels=8, block_out_channels=(64, 128), layers_per_block=2,
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    mid_block_add_attention=False, sample_size=32, scaling_factor=1.0,
)  # fmt: skip


def scenes(rng: np.random.Generator, n: int, held_out: bool = False, **kw) -> torch.Tensor:
    """(n, 3, 128, 128) in [-1, 1]; more objects and rarer concepts than the denoiser sees."""
    kw = {"counts": (0.45, 0.25, 0.15, 0.15), "common_share": 0.5} | kw
    pictures = np.stack([emoji.render(emoji.sample(rng, held_out, **kw)) for _ in range(n)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def psnr(vae, pictures: torch.Tensor) -> float:
    """Mean over pictures of the PSNR in dB for a range of 255."""
    out = [vae.decode(vae.encode(p).latent_dist.mean).sample.clamp(-1, 1) for p in pictures.split(32)]
    mse = ((torch.cat(out) - pictures) / 2).square().mean((1, 2, 3))
    return float((-10 * mse.log10()).mean())


def gradient_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 on horizontal and vertical differences: keeps outlines crisp."""
    return sum(F.l1_loss(torch.diff(a, dim=d), torch.diff(b, dim=d)) for d in (2, 3))


def main() -> None:
    args = arguments("emoji-ldm/vae", batch=32, lr=8e-4, decoder_only=False, fresh=False)
    train(args, CONFIG, scenes, scenes(np.random.default_rng(emoji.HELD_OUT_SEED), 128, held_out=True), RUNS / f"{args.out.parent.name}-vae.pt")


def train(args, config: dict, make, test: torch.Tensor, path: Path, kind=PatchAutoencoderKL) -> None:
    """Go on from the weights in `args.out` for `args.minutes`; `make(rng, n)` gives pictures as `scenes` does, `path` keeps the optimiser's state."""
    if (args.out / "config.json").exists() and not args.fresh:
        vae = kind.from_pretrained(args.out, torch_dtype=torch.float32)
    else:
        vae = kind(**config)
    vae.to(args.device, memory_format=torch.channels_last).train()
    if args.decoder_only:
        vae.encoder.requires_grad_(False), vae.quant_conv.requires_grad_(False)
    parameters = [p for p in vae.parameters() if p.requires_grad]
    optimiser = MuonAdamW(vae, args.lr)
    ema, step, taken, gpu = Ema(vae, 0.998), 0, 0, args.device != "cpu"
    if not args.fresh and (state := load_state(path)) and state["decoder_only"] == args.decoder_only:
        optimiser.load_state_dict(state["optimiser"]), ema.net.load_state_dict(state["ema"])
        vae.load_state_dict(state["net"])
        step = state["step"]
    rng, test = np.random.default_rng([args.seed, step]), test.to(args.device)
    print(f"held-out {psnr(ema.net, test):.2f} dB to begin with", flush=True)

    @torch.no_grad()
    def save() -> dict:
        latents = torch.cat([ema.net.encode(p).latent_dist.mean for p in test.split(32)])
        if not args.decoder_only:
            ema.net.register_to_config(scaling_factor=float(1 / latents.std()))
        save_state(path, net=vae, ema=ema.net, optimiser=optimiser, step=step, decoder_only=args.decoder_only)
        save_pretrained(ema.net, args.out)
        return {"psnr_db": round(psnr(ema.net, test), 2), "scenes": step * args.batch, "latent_std": float(latents.std())}

    clock = Clock(args.minutes)
    while not clock.over:
        # A warm-up, then down to nothing over this sitting's minutes.
        done = clock.seconds / clock.budget
        optimiser.rate(args.lr * min(1, (taken + 1) / 100) * max(0.0, 1 - done) ** 0.7)
        x = make(rng, args.batch).to(args.device, memory_format=torch.channels_last)
        with autocast(args.device):
            posterior = vae.encode(x).latent_dist
            z = posterior.sample()
            recon = vae.decode(z).sample.float()
        # The KL term only keeps the latents bounded and a little noisy, so that they can be diffused.
        loss = F.l1_loss(recon, x) + 2 * F.mse_loss(recon, x) + 0.5 * gradient_loss(recon, x)
        loss = loss + 2e-5 * posterior.kl().float().mean() / 256
        if taken % 2 == 0:
            # Halving the latents must halve the picture (EQ-VAE, arXiv 2502.09509): it keeps high frequencies
            # out of the latents, which a small denoiser could not learn.
            with autocast(args.device):
                half = vae.decode(F.avg_pool2d(z, 2)).sample.float()
            loss = loss + 0.25 * F.l1_loss(half, F.avg_pool2d(x, 2))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        ema.update(vae)
        step, taken = step + 1, taken + 1
        if clock.every(20 if gpu else 120, "log"):
            print(f"{clock.seconds / 60:6.1f} min  step {step}  loss {loss.item():.4f}  held-out {psnr(ema.net, test):.2f} dB", flush=True)
        if clock.every(60 if gpu else 300, "save"):
            save()
    print(json.dumps(save()))


if __name__ == "__main__":
    main()
