"""Align the latent diffusion model with the any-size decoder: the last stage of arXiv 2403.10255.

    python -m backends.train.sr_align --minutes 1.5    # needs sr/vae, sr/liif and sr/ldm, which it begins as

L = w_t (|z − ẑ0| + |y − ŷ|) with w_t = √ᾱ_t / √(1 − ᾱ_t), clipped at MOST, ẑ0 from ε̂, ŷ the frozen decoder's pixels of it at a random size.
"""

import torch
from diffusers import DDIMScheduler
from torch.nn import functional as F

from backends.nets import eight_bits
from backends.nets.sr_decoders import LiifDecoder, parted, resized
from backends.train.common import MODELS, arguments, autocast
from backends.train.loop import seed_of, train
from backends.train.sr_teacher import SCHEDULE, HeldOut, begun, called, encoded, frozen_vae, sheet, walked
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import lowered, scaled

MOST, POINTS = 5.0, 512


def main() -> None:
    args = arguments("sr/aligned", batch=0, lr=3e-4, ema=0.995)
    device, gpu = args.device, args.device != "cpu"
    args.batch = args.batch or (256 if gpu else 8)
    net, log = begun(args.out, {}, MODELS / "sr/ldm")
    vae, source = frozen_vae(device), Crops(device, seed_of(args, log), most=0 if gpu else 200)
    decoder = eight_bits.load(LiifDecoder, MODELS / "sr/liif").eval().requires_grad_(False).to(device)
    bar, test = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device), HeldOut(source, vae, 72 if gpu else 4)

    def loss_of(net, average):
        wide = source.draw(args.batch, 160)
        x = scaled(wide, 128).clamp(-1, 1)
        low, z = lowered(x, source.rng), encoded(vae, x)
        t, noise = torch.randint(1000, (len(x),), device=device), torch.randn_like(z)
        a = bar[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * z + (1 - a).sqrt() * noise
        guess = (noisy - (1 - a).sqrt() * called(net, noisy, t, low)) / a.sqrt()
        size = int(torch.randint(32, 161, ()))
        spots = torch.randint(size, (len(x), POINTS, 2), device=device)
        flat = (spots[..., 0] * size + spots[..., 1])[:, None].expand(-1, 3, -1)
        y = scaled(wide, size).clamp(-1, 1).flatten(2).gather(2, flat).transpose(1, 2)
        with autocast(device):
            plain, features = parted(decoder.read(vae, guess))
            before = resized(plain, (size, size)).flatten(2).gather(2, flat).transpose(1, 2)
            made = before + decoder.query(features, (2 * spots.float() + 1) / size - 1, torch.full((2,), 2 / size, device=device)).float()
        weight = (a.sqrt() / (1 - a).sqrt()).clamp_max(MOST).flatten()
        return (weight * (F.l1_loss(guess, z, reduction="none").mean((1, 2, 3)) + F.l1_loss(made, y, reduction="none").mean((1, 2)))).mean()

    @torch.no_grad()
    def drawn(net):
        with autocast(device):
            return decoder(vae, walked(net, "ldm", test.y, test.low), (128, 128)).float().clamp(-1, 1)

    before = begun(MODELS / "sr/ldm", {})[0].to(device).eval()
    figures = lambda net: {"before": test.figures(drawn(before)), "aligned": test.figures(drawn(net))}  # noqa: E731
    train(args, "sr/aligned", net, log, loss_of, figures, lambda net: sheet([test.low, drawn(before), drawn(net), test.x]), eight_bits.save)


if __name__ == "__main__":
    main()
