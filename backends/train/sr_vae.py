"""Train the photo world's autoencoder: 128×128 px to a 32×32×8 latent; the loop is emoji_vae's. Then its other decoders.

python -m backends.worlds.photos_build FOLDER           # the crops in runs/, beforehand: see there
python -m backends.train.sr_vae --minutes 2             # encoder and plain decoder
python -m backends.train.sr_teacher --minutes 2
python -m backends.train.sr_teacher --arm ldm --minutes 1.5
python -m backends.train.sr_vae --part plain --minutes 40         # from here on with sr_detail's losses: the decoder alone, behind the teacher
python -m backends.train.sr_vae --part liif --minutes 20          # needs the latent diffusion, and the plain decoder as it will be
python -m backends.train.sr_vae --part fa --minutes 20            # needs the teacher, and the plain decoder as it will be
"""

import json
import random

import torch
from torch.nn import functional as F

from backends.metrics.perceptual import distance
from backends.nets import eight_bits
from backends.nets.sr_decoders import FaDecoder, LiifDecoder, grid
from backends.nets.sr_unet import SrUNet
from backends.nets.sr_vae import CONFIG, FACTOR, SrAutoencoder
from backends.restore import resshift
from backends.restore.latent_sr import ddim
from backends.restore.upscaler import kept
from backends.train import emoji_vae
from backends.train.common import MODELS, RUNS, arguments, autocast
from backends.train.loop import seed_of, train
from backends.train.sr_detail import LOOKS, TAPS, Detail
from backends.train.sr_teacher import HeldOut, begun, called, decoded, encoded, frozen_vae, sheet, walked
from backends.worlds.photos import SIDE, Crops
from backends.worlds.photos_harm import ODDS, SIDES, psnr, scaled, small

FOLDERS = {"both": "sr/vae", "plain": "sr/vae", "fa": "sr/fa", "liif": "sr/liif"}
ANCHOR = 0.3
PATCH = 64  # px along a side, of what the implicit decoder is asked at once
SMALL = (32, 40, 24, 20, 48)  # px of the small pictures that it learns from
FACTORS = (1.7, 2.0, 3.3, 4.0, 6.0, 8.0)  # what it is measured at


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


class Arm:
    """Latents as the any-size arm has them: of a small picture four times enlarged, drawn by the latent diffusion, its UNet aligned (if it is yet) or not."""

    def __init__(self, vae, device: str):
        folders = [folder for folder in (MODELS / "sr/moe/single", MODELS / "sr/aligned") if folder.exists()]
        self.vae, self.nets = vae, [eight_bits.load(SrUNet, folder).eval().requires_grad_(False).to(device) for folder in folders]

    @torch.no_grad()
    def drawn(self, x: torch.Tensor, side: int, kind: int, rng) -> tuple[torch.Tensor, torch.Tensor]:
        """(latents, the small pictures) of pictures made `side` px small; `kind`: which UNet, beyond them the encoder's own latents."""
        tiny = small(x, side)
        low = scaled(tiny, FACTOR * side).clamp(-1, 1)
        if kind == len(self.nets):
            return encoded(self.vae, scaled(x, FACTOR * side).clamp(-1, 1)), tiny
        epsilon = lambda z, t: called(self.nets[kind], z, torch.full((len(z),), t, device=z.device), low)  # noqa: E731
        y0 = encoded(self.vae, low)
        *_, (_, z) = ddim(epsilon, y0, lambda: torch.randn(y0.shape, generator=rng).to(y0), 25, 0.0)
        return z, tiny


def liif(args) -> None:
    """Patches of pictures, small ones of 20 to 48 px beside large ones of 64 to 160 px (×1.3 to ×8), a batch of one size.

    Latents are drawn once a sitting, `--pool` of them: a quarter the encoder's, the rest by the diffusion, half of these by the aligned UNet. Each is asked
    at many sizes: of latents asked at one size alone (640 of them), what is drawn of held-out ones at ×2 and ×6 got worse after eight minutes.
    Answers are shown as the arm shows them. Without sr_detail's critic: the paper has L1 alone.
    """
    net, log, vae, source, test = started(LiifDecoder, args)
    arm, rng = Arm(vae, args.device), torch.Generator().manual_seed(seed_of(args, log))

    @torch.no_grad()
    def made(side: int):
        """px a side that the small pictures were made from, and of sixteen pictures: crops, small ones, what the plain decoder draws, its head's features."""
        size = random.randint(PATCH, SIDE)
        wide = source.draw(16, random.choice((size, SIDE)))
        x = scaled(wide, size).clamp(-1, 1)
        parts = [arm.drawn(part, side, kind, rng) for part, kind in zip(x.chunk(len(arm.nets) + 1), range(16))]
        z, tiny = (torch.cat(part) for part in zip(*parts))
        with autocast(args.device):
            head = F.silu(vae.decoder.conv_norm_out(vae.trunk(z)))
            plain = F.pixel_shuffle(vae.decoder.conv_out(head), vae.patch)
        return size, wide.half(), tiny.half(), plain.half(), head.half()

    pool = [made(SMALL[i % len(SMALL)]) for i in range(args.pool // 16)]

    def loss_of(net, average):
        own, *parts = random.choice(pool)
        some, size = torch.randperm(16)[: args.batch], random.choice((own, random.randint(PATCH, parts[0].shape[-1])))
        wide, tiny, plain, head = (part[some].float() for part in parts)
        x, low, plain = scaled(wide, size).clamp(-1, 1), scaled(tiny, size).clamp(-1, 1), scaled(plain, size)
        top, left = (random.randint(0, size - PATCH) for _ in range(2))
        cut = lambda whole: whole[..., top : top + PATCH, left : left + PATCH]  # noqa: E731
        at = cut(grid((size, size), args.device).mT.unflatten(2, (size, size))).flatten(2).mT
        with autocast(args.device):
            features = net.first(head.contiguous(memory_format=torch.channels_last))
            found = net.query(features, at.expand(len(x), -1, -1), torch.full((2,), 2 / size, device=args.device)).float()
        out = cut(plain) + found.transpose(1, 2).unflatten(2, (PATCH, PATCH))
        out, x = kept(out, cut(low), size / tiny.shape[-1]), cut(x)
        with autocast(args.device):
            return F.l1_loss(out, x) + LOOKS * distance(out.contiguous(memory_format=torch.channels_last), x, 1, TAPS).float().mean()

    tests, wide = {}, source.held_out(len(test.x), SIDE)
    for factor in FACTORS:
        side = int(min(32, SIDE / factor)) // 4 * 4
        x = scaled(wide, round(factor * side)).clamp(-1, 1)
        z, tiny = arm.drawn(x, side, 0, torch.Generator().manual_seed(0))
        low = scaled(tiny, FACTOR * side).clamp(-1, 1)
        tests[factor] = x, z, scaled(tiny, x.shape[-1]).clamp(-1, 1), scaled(kept(decoded(vae, z), low, FACTOR).clamp(-1, 1), x.shape[-1])

    @torch.no_grad()
    def figures(net) -> dict:
        """PSNR and LPIPS-like on held-out crops, of this decoder and of the plain one brought to size, of latents that the diffusion draws."""
        found = {}
        for factor, (x, z, low, fixed) in tests.items():
            with autocast(args.device):
                out = net(vae, z, x.shape[-2:]).float()
            for name, shown in (("liif", kept(out, low, factor)), ("plain", fixed)):
                figure = round(float(psnr(shown, x).mean()), 3), round(float(distance(shown.clamp(-1, 1), x).mean()), 4)
                found[f"{name}@{factor:g}"] = dict(zip(("psnr_db", "lpips_like"), figure))
        return found

    @torch.no_grad()
    def rows(net):
        x, z, low, fixed = tests[4.0]
        return sheet([low, fixed, kept(net(vae, z, x.shape[-2:]), low, FACTOR), x])

    print(json.dumps(figures(net.to(args.device))), flush=True)
    train(args, "sr/liif", net, log, loss_of, figures, rows, eight_bits.save)


def main() -> None:
    args = arguments("sr/vae", part="both", batch=0, lr=1.5e-3, decoder_only=False, fresh=False, ema=0.998, pool=1280)
    args.batch = args.batch or (128 if args.device != "cpu" else 8)
    if args.out == MODELS / "sr/vae":
        args.out = MODELS / FOLDERS[args.part]
    torch.backends.cudnn.benchmark = True
    {"both": both, "plain": plain, "fa": fa, "liif": liif}[args.part](args)


if __name__ == "__main__":
    main()
