"""Train the photo world's autoencoder: 128×128 px to a 32×32×8 latent; the loop is emoji_vae's. Then its other decoders.

python -m backends.worlds.photos_build FOLDER           # the crops in runs/, beforehand: see there
python -m backends.train.sr_vae --minutes 2             # encoder and plain decoder; once a denoiser stands on them only the decoder goes on
python -m backends.train.sr_teacher --minutes 2
python -m backends.train.sr_teacher --arm ldm --minutes 1.5
python -m backends.train.sr_vae --part liif --minutes 1.5
python -m backends.train.sr_vae --part fa --minutes 1.5           # needs the teacher
"""

import json

import torch
from torch.nn import functional as F

from backends.nets import eight_bits
from backends.nets.sr_decoders import FaDecoder, LiifDecoder
from backends.nets.sr_vae import CONFIG, SrAutoencoder
from backends.restore import resshift
from backends.train import emoji_vae
from backends.train.common import MODELS, RUNS, arguments, autocast
from backends.train.loop import seed_of, train
from backends.train.sr_teacher import HeldOut, begun, called, decoded, encoded, frozen_vae, sheet, walked
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import high_band, lowered, psnr, scaled

FOLDERS = {"plain": "sr/vae", "fa": "sr/fa", "liif": "sr/liif"}


def plain(args) -> None:
    args.decoder_only = args.decoder_only or (not args.fresh and (MODELS / "sr/shift" / "config.json").exists())
    source = Crops(args.device, args.seed, most=0 if args.device != "cpu" else 200)
    emoji_vae.train(args, CONFIG, lambda rng, n: source.draw(n), source.held_out(len(source.kept)), RUNS / "sr" / "vae.pt", SrAutoencoder)


def started(kind, args):
    """(the decoder in `args.out`, else a new one; its log), and what all its training takes: frozen autoencoder, crops, held-out crops."""
    net, log = kind(), {"samples": 0, "minutes": 0}
    if (args.out / "config.json").exists():
        net, log = eight_bits.load(kind, args.out), json.loads((args.out / "training.json").read_text())
    gpu = args.device != "cpu"
    vae, source = frozen_vae(args.device), Crops(args.device, seed_of(args, log), most=0 if gpu else 200)
    return net, log, vae, source, HeldOut(source, vae, 72 if gpu else 4)


def focal_frequency(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared differences of spectra, each weighed by its own size against the largest (Jiang et al., arXiv 2012.12821)."""
    off = (torch.fft.rfft2(a, norm="ortho") - torch.fft.rfft2(b, norm="ortho")).abs()
    weight = (off / off.amax((2, 3), keepdim=True).clamp_min(1e-8)).detach()
    return (weight * off.square()).mean()


def likeness(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(out, x) + 0.5 * emoji_vae.gradient_loss(out, x) + 0.5 * focal_frequency(out, x)


def fa(args) -> None:
    """Half of what it decodes is the encoder's latents, alone; half the teacher's estimates somewhere on its chain, beside the small picture."""
    net, log, vae, source, test = started(FaDecoder, args)
    if not log["samples"]:
        net.begin(vae.cpu()), vae.to(args.device)
    teacher, shift = begun(MODELS / "sr/shift", {})[0].to(args.device, memory_format=torch.channels_last).eval().requires_grad_(False), resshift.Shift()
    made = walked(teacher, "shift", test.y, test.low)

    @torch.no_grad()
    def guessed(z, low):
        y0, t = encoded(vae, low), torch.randint(shift.steps, (len(z),), device=z.device)
        return resshift.estimate(lambda *a: called(teacher, *a), shift, shift.noised(z, y0, t, torch.randn_like(z)), t, y0, low)

    def run(net, z, low=None):
        with autocast(args.device):
            return net(vae, z, low).float()

    def loss_of(net, average):
        x = source.draw(args.batch)
        low, z = lowered(x, source.rng), encoded(vae, x)
        return likeness(run(net, z), x) + likeness(run(net, guessed(z, low), low), x)

    @torch.no_grad()
    def figures(net) -> dict:
        """Of latents of held-out crops and of what the teacher draws of small ones, decoded plainly and by this."""
        return {"plain": test.figures(decoded(vae, test.z)), "fa": test.figures(run(net, test.z)), "sr_plain": test.figures(decoded(vae, made)),
                "sr_fa": test.figures(run(net, made, test.low)), "sr_fa_alone": test.figures(run(net, made))}  # fmt: skip

    rows = lambda net: sheet([decoded(vae, test.z), run(net, test.z), decoded(vae, made), run(net, made, test.low), test.x])  # noqa: E731
    train(args, "sr/fa", net, log, loss_of, figures, rows, eight_bits.save)


def liif(args) -> None:
    """Pixels of crops of 160 px at sizes from 32 to 160 px are asked of latents of 128 px, at random places, all of a batch's at one size."""
    net, log, vae, source, test = started(LiifDecoder, args)
    sizes, wide = (48, 128, 160), source.held_out(len(test.x), 160)

    def asked(net, features, size, at=None):
        at = torch.rand(len(features), 1024, 2, device=features.device) * 2 - 1 if at is None else at
        with autocast(args.device):
            return net.query(features, at, torch.full((2,), 2 / size, device=features.device)).float()

    def loss_of(net, average):
        x = source.draw(args.batch, 160)
        z = encoded(vae, scaled(x, 128).clamp(-1, 1))
        with autocast(args.device):
            features = net.features(z)
        loss = 0
        for part, target in zip(features.chunk(4), x.chunk(4)):
            size = int(torch.randint(32, 161, ()))
            target = scaled(target, size).clamp(-1, 1)
            spots = torch.randint(size, (len(target), 1024, 2), device=x.device)
            wanted = target.flatten(2).gather(2, (spots[..., 0] * size + spots[..., 1])[:, None].expand(-1, 3, -1)).transpose(1, 2)
            loss = loss + F.l1_loss(asked(net, part, size, (2 * spots.float() + 1) / size - 1), wanted) / 4
        return loss

    @torch.no_grad()
    def figures(net) -> dict:
        """At several sizes: PSNR and high-band energy of this decoder's pixels and of the plain one's, brought to size."""
        z, found = encoded(vae, scaled(wide, 128).clamp(-1, 1)), {}
        for size in sizes:
            x = scaled(wide, size).clamp(-1, 1)
            with autocast(args.device):
                out = net(z, (size, size)).float().clamp(-1, 1)
            for name, made in (("liif", out), ("plain", scaled(decoded(vae, z), size))):
                found[f"{name}@{size}"] = {
                    "psnr_db": round(float(psnr(made, x).mean()), 2),
                    "high_band": round(float(high_band(made).mean() / high_band(x).mean()), 3),
                }
        return found

    @torch.no_grad()
    def rows(net):
        with autocast(args.device):
            made = [net(test.z, (n, n)).float() for n in (128, 160, 256)]
        return sheet([test.x, made[0], made[1][..., :128, :128], made[2][..., :128, :128]])

    train(args, "sr/liif", net, log, loss_of, figures, rows, eight_bits.save)


def main() -> None:
    args = arguments("sr/vae", part="plain", batch=0, lr=1.5e-3, decoder_only=False, fresh=False, ema=0.998)
    args.batch = args.batch or (128 if args.device != "cpu" else 8)
    if args.out == MODELS / "sr/vae":
        args.out = MODELS / FOLDERS[args.part]
    torch.backends.cudnn.benchmark = True
    {"plain": plain, "fa": fa, "liif": liif}[args.part](args)


if __name__ == "__main__":
    main()
