"""The photo world's autoencoder: its linear encoder, then its three decoders side by side.

    python -m backends.worlds.photos_build FOLDER                     # the crops in runs/, beforehand: see there
    python -m backends.train.sr_vae --part basis                      # principal components; seconds on a CPU
    python -m backends.train.sr_vae --minutes 2                       # beside it, for nothing waits for the decoders:
    python -m backends.train.sr_teacher --minutes 2
    python -m backends.train.sr_teacher --arm ldm --minutes 2
    python -m backends.train.sr_student --minutes 2                   # needs sr_teacher's, and so does
    python -m backends.train.sr_student --arm regression --minutes 1.5
    python -m backends.train.sr_moe --part 0 --minutes 2              # needs sr_teacher's ldm; and 1, 2, 3, single
    python -m backends.train.sr_align --minutes 1.5                   # needs ldm and the decoders

Plain decoder, frequency-augmented one and any-size one see the same crops. The last two work on the plain one's features, which only its own
loss shapes. Half of what the frequency-augmented one decodes is spoiled latents, as a denoiser's are, beside the small picture.
"""

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from backends.nets import eight_bits
from backends.nets.sr_decoders import FaDecoder, LiifDecoder, brought
from backends.nets.sr_vae import SrAutoencoder
from backends.train.common import MODELS, RUNS, arguments, autocast
from backends.train.emoji_vae import gradient_loss
from backends.train.faces_loop import seed_of, train
from backends.train.sr_teacher import SIDE, HeldOut, sheet
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import high_band, lowered, psnr, scaled

OUT = MODELS / "sr"
POINTS, SIZES = 1024, (48, 128, 160)  # asked of a picture in a step; px that figures are taken at


class Decoders(nn.Module):
    def __init__(self):
        super().__init__()
        self.vae, self.fa, self.liif = SrAutoencoder(), FaDecoder(), LiifDecoder()

    def load(self) -> "Decoders":
        self.vae = eight_bits.load(SrAutoencoder, OUT / "vae")
        if (OUT / "fa").exists():
            self.fa, self.liif = eight_bits.load(FaDecoder, OUT / "fa"), eight_bits.load(LiifDecoder, OUT / "liif")
        return self

    def write(self, out: Path) -> None:
        for name, part in (("vae", self.vae), ("fa", self.fa), ("liif", self.liif)):
            eight_bits.save(part, OUT / name)


def focal_frequency(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared differences of spectra, each weighed by its own size against the largest (Jiang et al., arXiv 2012.12821)."""
    off = (torch.fft.rfft2(a, norm="ortho") - torch.fft.rfft2(b, norm="ortho")).abs()
    weight = (off / off.amax((2, 3), keepdim=True).clamp_min(1e-8)).detach()
    return (weight * off.square()).mean()


def unlike(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(out, x) + 0.5 * gradient_loss(out, x)


def spoiled(z: torch.Tensor, y0: torch.Tensor) -> torch.Tensor:
    """Latents as a denoiser may give them: drawn towards the small picture's, and with noise."""
    share, sigma = torch.rand(2, len(z), 1, 1, 1, device=z.device)
    return z + 0.7 * share * (y0 - z) + 0.4 * sigma * torch.randn_like(z)


def main() -> None:
    args = arguments("sr/decoders", part="all", batch=0, lr=1.5e-3, ema=0.995)
    device, gpu, log = args.device, args.device != "cpu", {"samples": 0, "minutes": 0}
    if args.part == "basis":
        eight_bits.save(SrAutoencoder().fit(Crops("cpu").draw(800)), OUT / "vae")
        return
    args.batch, args.out = args.batch or (96 if gpu else 8), OUT
    if (OUT / "training.json").exists():
        log = json.loads((OUT / "training.json").read_text())
    net, source = Decoders().load(), Crops(device, seed_of(args, log))
    wide = source.held_out(48 if gpu else 4, 160)
    test = HeldOut(source, net.vae.to(device), 48 if gpu else 4)

    def loss_of(net, average):
        side = SIDE[gpu]
        wide = source.draw(args.batch, side * 5 // 4)
        x = scaled(wide, side).clamp(-1, 1)
        low, z = lowered(x, source.rng), net.vae.latents(x)
        bad, size = spoiled(z, net.vae.latents(low)), int(torch.randint(side // 4, side * 5 // 4 + 1, ()))
        spots = torch.randint(size, (len(x), POINTS, 2), device=device)
        flat = (spots[..., 0] * size + spots[..., 1])[:, None].expand(-1, 3, -1)
        pick = lambda pixels: pixels.flatten(2).gather(2, flat).transpose(1, 2)  # noqa: E731
        with autocast(device):
            h, worse = net.vae.trunk(z), net.vae.trunk(bad).detach()
            plain, kept = net.vae.head(h, z), h.detach()
            fine, fused = net.fa(net.vae, z, None, kept), net.fa(net.vae, bad, low, worse)
            added = net.liif.query(net.liif.features(kept), (2 * spots.float() + 1) / size - 1, torch.full((2,), 2 / size, device=device))
        at_size = pick(brought(plain.detach(), (size, size))) + added
        refined = sum(unlike(out, x) + 0.5 * focal_frequency(out, x) for out in (fine, fused))
        return unlike(plain, x) + refined + F.l1_loss(at_size, pick(scaled(wide, size).clamp(-1, 1)))

    @torch.no_grad()
    def figures(net) -> dict:
        """Of held-out crops: the linear way back, the three decoders; spoiled latents; sizes, against the plain decoder's pixels brought to size."""
        vae = net.vae
        bad = spoiled(test.z, test.y)
        with autocast(device):
            made = {"linear": vae.linear(test.z), "plain": vae.pixels(test.z), "fa": net.fa(vae, test.z),
                    "spoiled_plain": vae.pixels(bad), "spoiled_fa": net.fa(vae, bad, test.low)}  # fmt: skip
            found = {name: test.figures(pixels.float()) for name, pixels in made.items()}
            z = vae.latents(scaled(wide, 128).clamp(-1, 1))
            for size in SIZES:
                x = scaled(wide, size).clamp(-1, 1)
                for name, out in (("liif", net.liif(vae, z, (size, size))), ("resized", scaled(vae.pixels(z), size))):
                    ratio = high_band(out).mean() / high_band(x).mean()
                    found[f"{name}@{size}"] = {"psnr_db": round(float(psnr(out.float(), x).mean()), 2), "high_band": round(float(ratio), 3)}
        return found

    @torch.no_grad()
    def rows(net):
        with autocast(device):
            z = test.z[:12]
            return sheet([net.vae.pixels(z).float(), net.fa(net.vae, z).float(), net.liif(net.vae, z, (256, 256)).float()[..., :128, :128], test.x])

    train(args, "sr/decoders", net, log, loss_of, figures, rows, Decoders.write, every=60, tune=False)


if __name__ == "__main__":
    (RUNS / "sr").mkdir(parents=True, exist_ok=True)
    main()
