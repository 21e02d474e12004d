"""Align the latent diffusion model with the any-size decoder: the last stage of arXiv 2403.10255; see sr_vae.py for the order.

    python -m backends.train.sr_align --minutes 1.5

L = w_t (|z − ẑ0| + |y − ŷ|) with w_t = √ᾱ_t / √(1 − ᾱ_t), clipped at MOST, ŷ the frozen decoder's pixels of ẑ0 at a random size.
"""

import torch
from diffusers import DDIMScheduler

from backends.nets import eight_bits
from backends.nets.sr_decoders import LiifDecoder, brought
from backends.nets.sr_unet import SrUNet
from backends.nets.sr_vae import SrAutoencoder
from backends.restore import latent_sr
from backends.train.common import RUNS, arguments, autocast
from backends.train.faces_loop import seed_of, train
from backends.train.sr_teacher import OUT, QUICK, SIDE, HeldOut, begun, called, frozen, sheet, walked
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import lowered, scaled

MOST, POINTS = 5.0, 512


def main() -> None:
    args = arguments("sr/aligned", batch=0, lr=6e-4, ema=0.995)
    device, gpu = args.device, args.device != "cpu"
    args.batch = args.batch or (128 if gpu else 8)
    net, log = begun(args.out, {}, OUT / "ldm")
    vae, decoder, before = frozen(SrAutoencoder, "vae", device), frozen(LiifDecoder, "liif", device), frozen(SrUNet, "ldm", device)
    source = Crops(device, seed_of(args, log))
    bar, test = DDIMScheduler(**latent_sr.SCHEDULE).alphas_cumprod.to(device), HeldOut(source, vae, 48 if gpu else 4)

    def loss_of(net, average):
        side = SIDE[gpu]
        wide = source.draw(args.batch, side * 5 // 4)
        x = scaled(wide, side).clamp(-1, 1)
        low = lowered(x, source.rng)
        z, y0 = vae.latents(torch.cat([x, low])).chunk(2)
        t, noise = torch.randint(1000, (len(x),), device=device), torch.randn_like(z)
        guess = y0 + called(net, latent_sr.noised(bar, z, t, noise), t, low)
        size = int(torch.randint(side // 4, side * 5 // 4 + 1, ()))
        spots = torch.randint(size, (len(x), POINTS, 2), device=device)
        flat = (spots[..., 0] * size + spots[..., 1])[:, None].expand(-1, 3, -1)
        pick = lambda pixels: pixels.flatten(2).gather(2, flat).transpose(1, 2)  # noqa: E731
        with autocast(device):
            h = vae.trunk(guess)
            added = decoder.query(decoder.features(h), (2 * spots.float() + 1) / size - 1, torch.full((2,), 2 / size, device=device))
            made = pick(brought(vae.head(h, guess), (size, size))) + added
        weight = (bar[t] / (1 - bar[t])).sqrt().clamp_max(MOST)
        off = (guess - z).abs().mean((1, 2, 3)) + (made.float() - pick(scaled(wide, size).clamp(-1, 1))).abs().mean((1, 2))
        return (weight * off).mean()

    @torch.no_grad()
    def drawn(net):
        with autocast(device):
            return decoder(vae, walked(net, "ldm", test.y, test.low), (128, 128)).float()

    figures = lambda net: {"before": test.figures(drawn(before)), "aligned": test.figures(drawn(net))}  # noqa: E731
    train(args, "sr/aligned", net, log, loss_of, figures, lambda net: sheet([test.low, drawn(before), drawn(net), test.x]), eight_bits.save, **QUICK)


if __name__ == "__main__":
    (RUNS / "sr").mkdir(parents=True, exist_ok=True)
    main()
