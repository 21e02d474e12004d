"""Train the sounds world's waveform autoencoder: 16 kHz to 50 latent frames of 24 numbers a second, EzAudio's rate.

    python -m backends.train.sounds_vae --corpus FOLDER --minutes 30                     # encoder and decoder
    python -m backends.train.sounds_vae --corpus FOLDER --minutes 30 --decoder-only 1    # the latent space stays as it is; adversarial

diffusers' AutoencoderOobleck on spectra at five resolutions; FOLDER is what worlds/sounds_build.py wrote. With --decoder-only a discriminator of
spectra joins, and the result is kept only where it's no worse on held-out clips. The decoder learns from latents with `--noise` of their
deviation at most, for what a diffusion model makes is never exact (noise as in Zheng et al., arXiv 2510.11690); `--wave` weighs the waveform's error.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from torch import nn
from torch.nn import functional as F

from backends.train.common import RUNS, Clock, Ema, arguments, autocast, load_state, save_pretrained, save_state, stream
from backends.train.sounds_text import World
from backends.worlds import sounds

# Every stride is even: an odd one would lose samples to AutoencoderOobleck's padding. The encoder's width is twice the latent's.
# The full rate is where the time goes: the first stride is large.
CONFIG = dict(encoder_hidden_size=48, downsampling_ratios=[8, 10, 4], channel_multiples=[2, 4, 5], decoder_channels=48, decoder_input_channels=24,
              audio_channels=1, sampling_rate=sounds.RATE)  # fmt: skip
CROP = 20 * sounds.HOP  # 0.4 s
FFTS = (2048, 1024, 512, 256, 128)


def spectra(x: torch.Tensor) -> list[torch.Tensor]:
    """Magnitudes (B, bins, frames) of (B, T) at each of FFTS, scaled so that a full-scale sine is near 1."""
    out = []
    for n in FFTS:
        window = torch.hann_window(n, device=x.device)
        out.append(torch.view_as_real(torch.stft(x.float(), n, n // 4, window=window, return_complex=True)).square().sum(-1).add(1e-10).sqrt() * 4 / n)
    return out


def spectral_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean over resolutions of the L1 distance of log magnitudes (floor −66 dB) and the spectral convergence (Yamamoto et al., arXiv 1910.11480)."""
    parts = []
    for x, y in zip(spectra(a), spectra(b), strict=True):
        parts.append(F.l1_loss((x + 5e-4).log(), (y + 5e-4).log()) + ((x - y).square().sum((1, 2)) / (y.square().sum((1, 2)) + 1e-3) + 1e-8).sqrt().mean())
    return torch.stack(parts).mean()


class Discriminator(nn.Module):
    """Complex spectra at three resolutions through 2-D convolutions, as EnCodec's (Défossez et al., arXiv 2210.13438), a quarter as wide."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.nets = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(2, width, (3, 9), padding=(1, 4)), *(nn.Conv2d(width, width, (3, 9), (1, 2), padding=(1, 4)) for _ in range(3)), nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)])
            for _ in range(3)
        )  # fmt: skip

    def forward(self, x) -> list[list[torch.Tensor]]:
        """Features of each resolution, the verdict last."""
        out = []
        for n, net in zip((1024, 512, 256), self.nets):
            spectrum = torch.stft(x.float(), n, n // 4, window=torch.hann_window(n, device=x.device), return_complex=True)
            y, features = torch.view_as_real(spectrum).permute(0, 3, 2, 1) * 8 / n**0.5, []
            for i, layer in enumerate(net):
                y = layer(y) if i == len(net) - 1 else F.leaky_relu(layer(y), 0.2)
                features.append(y)
            out.append(features)
        return out


def adversarial(real, fake) -> torch.Tensor:
    """0.1 of the generator's hinge loss and twice its features' distance from the real ones', of each layer in units of the real ones' mean size."""
    fool = sum(F.relu(1 - f[-1]).mean() for f in fake) / len(fake)
    match = sum(F.l1_loss(a, b.detach()) / b.detach().abs().mean().clamp_min(1e-3) for f, r in zip(fake, real) for a, b in zip(f[:-1], r[:-1]))
    return 0.1 * fool + 2 * match / (len(fake) * (len(fake[0]) - 1))


def crop(layouts: torch.Tensor) -> torch.Tensor:
    """Layouts begun somewhere in the clip, so that CROP samples of them are one stretch of it."""
    layouts = layouts.clone()
    layouts[..., 2] -= torch.rand(len(layouts), 1) * (sounds.SECONDS - CROP / sounds.RATE)
    return layouts


@torch.no_grad()
def held_out(vae, clips: torch.Tensor) -> tuple[float, float]:
    """(spectral distance, SNR in dB) of reconstructions."""
    made = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in clips.split(16)])
    noise = (made - clips).square().mean((1, 2))
    return float(spectral_distance(made[:, 0], clips[:, 0])), float((10 * (clips.square().mean((1, 2)) / noise.clamp_min(1e-9)).log10()).mean())


@torch.no_grad()
def balance(vae: AutoencoderOobleck) -> AutoencoderOobleck:
    """A new network begun as a near-linear projection, the decoder the encoder's adjoint: what comes out is a part of what went in.

    As PyTorch makes it, each transposed convolution shrinks the signal by the root of its stride and what comes out is biases, the
    same for every clip, while latents of scale 0.1 stand under noise of 0.7: the net learns silence, and stays there.
    """

    def put(layer, weight):
        layer.weight_v.copy_(weight), layer.weight_g.copy_(weight.flatten(1).norm(dim=1).view_as(layer.weight_g).clamp_min(1e-4))

    def projection(layer):
        return nn.init.orthogonal_(torch.empty_like(layer.weight_v))

    for name, parameter in vae.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith("alpha"):
            parameter.fill_(-1.5)  # x + sin²(0.2 x): nearly a line
        elif "res_unit" in name and name.endswith("conv2.weight_g"):
            parameter.fill_(0.1)
    encoder, decoder, half = vae.encoder, vae.decoder, vae.config.decoder_input_channels
    put(encoder.conv1, projection(encoder.conv1))
    put(decoder.conv2, encoder.conv1.weight_v.flip(2).transpose(0, 1))
    for down, up in zip(encoder.block, reversed(decoder.block), strict=True):
        weight = projection(down.conv1)
        put(down.conv1, weight), put(up.conv_t1, weight)
    weight = projection(encoder.conv2)
    weight[half:] *= 0.05
    put(encoder.conv2, 8 * weight)  # latents near 1
    put(decoder.conv1, F.pad(weight[:half].flip(2).transpose(0, 1) / 8, (2, 2)))
    encoder.conv2.bias[half:] = -3.0  # noise of 0.05 to begin with
    return vae


def load(folder) -> AutoencoderOobleck:
    with torch.no_grad():  # weights under weight_norm are made on construction; only made without a gradient can they be copied
        return (
            AutoencoderOobleck.from_pretrained(folder, torch_dtype=torch.float32)
            if (folder / "config.json").exists()
            else balance(AutoencoderOobleck(**CONFIG))
        )


def main() -> None:
    args = arguments("ezaudio/vae", corpus="corpus", batch=32, lr=1.5e-3, decoder_only=False, noise=0.3, wave=5.0)
    device, chunk = args.device, 256
    torch.backends.cudnn.benchmark = True
    corpus = Path(args.corpus)
    begun = (args.out / "config.json").exists()
    world, vae = World(corpus, device, text=False), load(args.out).to(device).train()
    ema = Ema(vae, 0.995)
    judge = Discriminator().to(device) if args.decoder_only else None
    if args.decoder_only:
        vae.encoder.requires_grad_(False)
        args.lr /= 3
    parameters = [p for p in vae.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, betas=(0.8, 0.99), weight_decay=1e-3, fused=True)
    judging = torch.optim.AdamW(judge.parameters(), lr=3e-4, betas=(0.8, 0.99), fused=True) if judge else None
    step, taken, path = 0, 0, RUNS / "sounds-vae.pt"
    if (state := load_state(path)) and begun:
        step = state["step"]
        if state["decoder_only"] == args.decoder_only:
            vae.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
            ema.updates = step
            if judge:
                judge.load_state_dict(state["judge"]), judging.load_state_dict(state["judging"])
    test = world.render(world.make(np.random.default_rng(1), 4 if device == "cpu" else 64, ("test",))[0])
    coming = stream(lambda i: world.make(np.random.default_rng([args.seed, step, i]), chunk, ("model", "shared"))[0], args.workers)
    before = held_out(ema.net, test)
    print(
        f"{sum(p.numel() for p in vae.parameters()) / 1e6:.1f} M parameters, step {step}, held-out spectral distance {before[0]:.3f}, SNR {before[1]:.1f} dB",
        flush=True,
    )
    clock, layouts, at = Clock(args.minutes), (), 0

    def save() -> None:
        if judge and held_out(ema.net, test)[0] > before[0] * 1.05:
            print("no better than before: not kept", flush=True)
            return
        extra = {"judge": judge, "judging": judging} if judge else {}
        save_state(path, net=vae, ema=ema.net, optimiser=optimiser, step=step, decoder_only=args.decoder_only, **extra)
        save_pretrained(ema.net, args.out)

    while not clock.over:
        if at + args.batch > len(layouts):
            layouts, at = next(coming), 0
        x = sounds.render(world.bank, crop(layouts[at : at + args.batch]), CROP)[:, None]
        at += args.batch
        # Any loudness: most clips are so quiet that silence would be a good answer.
        x = x * (10 ** -torch.rand(len(x), 1, 1, device=device) / (x.abs().amax(2, keepdim=True) + 0.02))
        rate = args.lr * min(1, (taken + 1) / 30) * max(0.02, 1 - clock.seconds / clock.budget)
        for group in optimiser.param_groups:
            group["lr"] = rate
        # In fp32 (TF32): Oobleck's snakes would turn bf16 back into it, layer after layer.
        posterior = vae.encode(x).latent_dist
        hold = (
            1.0 if begun else min(1.0, max(0.0, step - 150) / 300)
        )  # first the waveform, without noise: what the latents are drowned in, the decoder learns to ignore
        z = posterior.mean + hold * posterior.std * torch.randn_like(posterior.mean)
        z = z + hold * args.noise * posterior.mean.std().detach() * torch.rand(len(z), 1, 1, device=device) * torch.randn_like(z)
        made = vae.decode(z).sample
        distance = spectral_distance(made[:, 0], x[:, 0])
        loss = (0.1 + 0.9 * hold) * distance
        # The waveform's error in units of each crop's own size, so that silence is never cheap; without it phases would be left to chance.
        loss = loss + args.wave * (((made - x).square().mean((1, 2)) + 1e-8).sqrt() / (x.square().mean((1, 2)).sqrt() + 0.01)).mean()
        if judge:
            with autocast(device):
                real, fake = judge(x[:, 0]), judge(made.detach()[:, 0])
                verdict = sum(F.relu(1 - r[-1]).mean() + F.relu(1 + f[-1]).mean() for r, f in zip(real, fake)) / 3
            judging.zero_grad(), verdict.backward(), judging.step()
            judge.requires_grad_(False)
            with autocast(device):
                loss = loss + adversarial(real, judge(made[:, 0]))
            judge.requires_grad_(True)
        else:  # EzAudio's weight of the KL term, of the sum over channels
            loss = loss + 1e-4 * hold * posterior.kl()
        optimiser.zero_grad(), loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        ema.update(vae)
        step, taken = step + 1, taken + 1
        if clock.every(20, "log"):
            now = held_out(ema.net, test)
            print(
                f"{clock.seconds / 60:6.1f} min  step {step}  loss {loss.item():.3f}  spectral {distance.item():.3f}  held-out {now[0]:.3f}, {now[1]:.1f} dB",
                flush=True,
            )
        if clock.every(60 if device != "cpu" else 300, "save"):
            save()
    save()
    now = held_out(ema.net, test)
    print(json.dumps({"spectral_distance": round(now[0], 4), "snr_db": round(now[1], 2), "clips": step * args.batch}))


if __name__ == "__main__":
    main()
