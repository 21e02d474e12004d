"""Train the photo world's autoencoder: 128×128 px to a 32×32×8 latent; the loop is emoji_vae's. Then its other decoders.

python -m backends.worlds.photos_build FOLDER           # the crops in runs/, beforehand: see there
python -m backends.train.sr_vae --minutes 2             # encoder and plain decoder
python -m backends.train.sr_teacher --minutes 2
python -m backends.train.sr_teacher --arm ldm --minutes 1.5
python -m backends.train.sr_vae --part plain --minutes 40         # from here on with sr_detail's losses: the decoder alone, behind the teacher
python -m backends.train.sr_vae --part liif --minutes 20
python -m backends.train.sr_vae --part fa --minutes 20            # needs the teacher, and the plain decoder as it will be
"""

import json
import random

import torch
from torch.nn import functional as F

from backends.metrics.perceptual import distance
from backends.nets import eight_bits
from backends.nets.sr_decoders import FaDecoder, LiifDecoder, grid
from backends.nets.sr_vae import CONFIG, SrAutoencoder
from backends.restore import resshift
from backends.restore.upscaler import kept
from backends.train import emoji_vae
from backends.train.common import MODELS, RUNS, arguments, autocast
from backends.train.loop import seed_of, train
from backends.train.sr_detail import Detail
from backends.train.sr_teacher import HeldOut, begun, called, decoded, encoded, frozen_vae, sheet, walked
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import ODDS, SIDES, high_band, psnr, scaled, small

FOLDERS = {"both": "sr/vae", "plain": "sr/vae", "fa": "sr/fa", "liif": "sr/liif"}
ANCHOR = 0.3
PATCH = 64  # px along a side, of what the implicit decoder is asked at once


def both(args) -> None:
    if not args.fresh and (MODELS / "sr/shift" / "config.json").exists():
        raise SystemExit("Denoisers stand on these latents: go on with --part plain, or begin anew with --fresh 1.")
    source = Crops(args.device, args.seed)
    emoji_vae.train(args, CONFIG, lambda rng, n: source.draw(n), source.held_out(len(source.kept)), RUNS / "sr" / "vae.pt", SrAutoencoder)


def started(kind, args):
    """(the decoder in `args.out`, else a new one; its log), and what all its training takes: frozen autoencoder, crops, held-out crops."""
    log = {"samples": 0, "minutes": 0}
    if kind is SrAutoencoder:
        net = frozen_vae(args.device)
    else:
        net = eight_bits.load(kind, args.out) if (args.out / "config.json").exists() else kind()
    if (args.out / "training.json").exists():
        log = json.loads((args.out / "training.json").read_text())
    vae, source = frozen_vae(args.device), Crops(args.device, seed_of(args, log))
    return net, log, vae, source, HeldOut(source, vae, 72 if args.device != "cpu" else 24)


def lessened(x: torch.Tensor, rng) -> tuple[torch.Tensor, float]:
    """Crops as they look once made smaller and brought back, and by how much: what `kept` takes frequencies from is clean, else it would keep the dirt."""
    (side,) = random.choices(SIDES, ODDS)
    return scaled(small(x, side, rng, 0.0), x.shape[-1]).clamp(-1, 1), x.shape[-1] / side


class Teacher:
    """The residual-shifting teacher, whose estimates of latents are what decoders are given in the end: smoother than an encoder's."""

    def __init__(self, vae, device: str):
        self.net, _ = begun(MODELS / "sr/shift", {})
        self.net.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.vae, self.shift = vae, resshift.Shift()

    @torch.no_grad()
    def guessed(self, z: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """Its estimate of z from somewhere on its chain."""
        y0, t = encoded(self.vae, low), torch.randint(self.shift.steps, (len(z),), device=z.device)
        return resshift.estimate(lambda *a: called(self.net, *a), self.shift, self.shift.noised(z, y0, t, torch.randn_like(z)), t, y0, low)


def plain(args) -> None:
    """A quarter of what it decodes is the encoder's latents; the rest the teacher's estimates, shown as the arms of the enlarging tab show them."""
    net, log, vae, source, test = started(SrAutoencoder, args)
    net.decoder.requires_grad_(True), net.post_quant_conv.requires_grad_(True)
    teacher, detail, own = Teacher(vae, args.device), Detail(args.device), max(1, args.batch // 4)
    made = walked(teacher.net, "shift", test.y, test.low)

    def loss_of(net, average):
        x = source.draw(args.batch)
        z, (low, factor) = encoded(vae, x), lessened(x[own:], source.rng)
        z[own:] = teacher.guessed(z[own:], low)
        with autocast(args.device):
            out = net.pixels(z).float()
        # The second part: else nothing would hold the frequencies that are not shown, and previews show them.
        return detail(torch.cat([out[:own], kept(out[own:], low, factor)]), x) + ANCHOR * F.l1_loss(out[own:], x[own:])

    shown = lambda net: kept(decoded(net, made), test.low, 4)  # noqa: E731
    figures = lambda net: {"plain": test.figures(decoded(net, test.z)), "sr": test.figures(shown(net))}  # noqa: E731
    train(args, "sr/plain", net, log, loss_of, figures, lambda net: sheet([test.x, decoded(net, test.z), test.low, shown(vae), shown(net)]))


def focal_frequency(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared differences of spectra, each weighed by its own size against the largest (Jiang et al., arXiv 2012.12821)."""
    off = (torch.fft.rfft2(a, norm="ortho") - torch.fft.rfft2(b, norm="ortho")).abs()
    weight = (off / off.amax((2, 3), keepdim=True).clamp_min(1e-8)).detach()
    return (weight * off.square()).mean()


def fa(args) -> None:
    """Half of what it decodes is the encoder's latents, alone; half the teacher's estimates somewhere on its chain, beside the small picture."""
    net, log, vae, source, test = started(FaDecoder, args)
    if not log["samples"]:
        net.begin(vae.cpu()), vae.to(args.device)
    teacher, detail = Teacher(vae, args.device), Detail(args.device, 400)  # it is called twice a step
    made = walked(teacher.net, "shift", test.y, test.low)
    shown = lambda made: kept(made, test.low, 4)  # noqa: E731

    def run(net, z, low=None):
        with autocast(args.device):
            return net(vae, z, low).float()

    def loss_of(net, average):
        x = source.draw(args.batch)
        (low, factor), z = lessened(x, source.rng), encoded(vae, x)
        made = run(net, z), kept(run(net, teacher.guessed(z, low), low), low, factor)
        return sum(detail(out, x) + 0.5 * focal_frequency(out, x) for out in made)

    @torch.no_grad()
    def figures(net) -> dict:
        """Of latents of held-out crops and of what the teacher draws of small ones, decoded plainly and by this."""
        return {"plain": test.figures(decoded(vae, test.z)), "fa": test.figures(run(net, test.z)), "sr_plain": test.figures(shown(decoded(vae, made))),
                "sr_fa": test.figures(shown(run(net, made, test.low))), "sr_fa_alone": test.figures(shown(run(net, made)))}  # fmt: skip

    rows = lambda net: sheet([decoded(vae, test.z), run(net, test.z), shown(decoded(vae, made)), shown(run(net, made, test.low)), test.x])  # noqa: E731
    train(args, "sr/fa", net, log, loss_of, figures, rows, eight_bits.save)


def liif(args) -> None:
    """Patches of crops of 160 px at sizes from 64 to 160 px are asked of latents of 128 px, at random places, all of a quarter of the batch at one size.

    A quarter of them are the encoder's latents, the rest the teacher's estimates, shown as the any-size arm shows them.
    """
    net, log, vae, source, test = started(LiifDecoder, args)
    sizes, wide, detail, teacher = (48, 128, 160), source.held_out(len(test.x), 160), Detail(args.device, 800), Teacher(vae, args.device)
    made = walked(teacher.net, "shift", test.y, test.low)

    def asked(net, features, size, top, left):
        """(B, 3, PATCH, PATCH) of the picture at `size` px."""
        at = grid((size, size), features.device).view(size, size, 2)[top : top + PATCH, left : left + PATCH].reshape(1, -1, 2)
        with autocast(args.device):
            found = net.query(features, at.expand(len(features), -1, -1), torch.full((2,), 2 / size, device=features.device)).float()
        return found.transpose(1, 2).unflatten(2, (PATCH, PATCH))

    def loss_of(net, average):
        x = source.draw(args.batch, 160)
        near, own = scaled(x, 128).clamp(-1, 1), args.batch // 4
        z, (low, factor) = encoded(vae, near), lessened(near, source.rng)
        z[own:] = teacher.guessed(z[own:], low[own:])
        with autocast(args.device):
            features = net.features(z)
        loss = 0
        for i, (part, target, blurred) in enumerate(zip(features.chunk(4), x.chunk(4), low.chunk(4))):
            size = int(torch.randint(PATCH, 161, ()))
            top, left = torch.randint(size - PATCH + 1, (2,)).tolist()
            target, blurred = (scaled(whole, size).clamp(-1, 1)[..., top : top + PATCH, left : left + PATCH] for whole in (target, blurred))
            out = asked(net, part, size, top, left)
            if i:
                loss = loss + ANCHOR * F.l1_loss(out, target) / 4
                out = kept(out, blurred, factor * size / 128)
            loss = loss + detail(out, target) / 4
        return loss

    @torch.no_grad()
    def figures(net) -> dict:
        """At several sizes of this decoder's pixels and of the plain one's, brought to size: of latents PSNR and high-band energy, of what the teacher
        draws, as the arms show it, PSNR and LPIPS-like."""
        z, found = encoded(vae, scaled(wide, 128).clamp(-1, 1)), {}
        fixed = kept(decoded(vae, made), test.low, 4)
        for size in sizes:
            x = scaled(wide, size).clamp(-1, 1)
            with autocast(args.device):
                out, drawn = (net(latents, (size, size)).float().clamp(-1, 1) for latents in (z, made))
            drawn = kept(drawn, scaled(test.low, size), size / 32)
            for name, shown in (("liif", out), ("plain", scaled(decoded(vae, z), size))):
                found[f"{name}@{size}"] = {
                    "psnr_db": round(float(psnr(shown, x).mean()), 2),
                    "high_band": round(float(high_band(shown).mean() / high_band(x).mean()), 3),
                }
            if size >= 128:  # the teacher draws crops of 128 px
                x = scaled(test.x, size).clamp(-1, 1)
                for name, shown in (("sr_liif", drawn), ("sr_plain", scaled(fixed, size))):
                    found[f"{name}@{size}"] = {
                        "psnr_db": round(float(psnr(shown, x).mean()), 2),
                        "lpips_like": round(float(distance(shown.clamp(-1, 1), x).mean()), 4),
                    }
        return found

    @torch.no_grad()
    def rows(net):
        with autocast(args.device):
            wider = [net(test.z, (n, n)).float() for n in (128, 160, 256)]
        return sheet([test.x, wider[0], wider[1][..., :128, :128], wider[2][..., :128, :128]])

    train(args, "sr/liif", net, log, loss_of, figures, rows, eight_bits.save)


def main() -> None:
    args = arguments("sr/vae", part="both", batch=0, lr=1.5e-3, decoder_only=False, fresh=False, ema=0.998)
    args.batch = args.batch or (128 if args.device != "cpu" else 8)
    if args.out == MODELS / "sr/vae":
        args.out = MODELS / FOLDERS[args.part]
    torch.backends.cudnn.benchmark = True
    {"both": both, "plain": plain, "fa": fa, "liif": liif}[args.part](args)


if __name__ == "__main__":
    main()
