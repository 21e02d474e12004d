"""A waveform autoencoder, a denoiser of its latents and a text encoder behind one face, and the loop that methods on them share.

Latents are (B, channels, L): L frames of `hop` samples, brought to mean 0 and deviation 1 (see nets/ez_dit.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from backends.denoiser import Cond
from backends.lazy import diffusers, torch
from backends.models import ASSETS, Card, device
from backends.spec import BadInput

if TYPE_CHECKING:
    from torch import Tensor


class LatentAudio:
    """`nfe` counts function evaluations at the network, one a row of its batch. `longest`: seconds that the network was trained on."""

    def __init__(self, card: Card, net, vae, scheduler, encode_text, where="cpu"):
        self.card, self.net, self.vae, self.scheduler, self.encode_text, self.device, self.nfe = card, net, vae, scheduler, encode_text, where, 0
        self.rate, self.hop = vae.config.sampling_rate, math.prod(vae.config.downsampling_ratios)
        self.longest = card.options["longest"]
        net.register_forward_pre_hook(self._count)

    def _count(self, _module, args):
        self.nfe += len(args[0])

    def encode(self, *texts: str) -> tuple[Cond, ...]:
        return tuple(self.encode_text(text) for text in texts)

    def frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.rate / self.hop))

    def velocities(self, x: Tensor, t, *conds: Cond, known: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """v (B, C, L) under each cond, from one batch; a Cond holds one text or B. `known`, `mask`: see EzDiT."""
        repeated = lambda y: None if y is None else torch.cat([y.to(self.net.dtype)] * len(conds))  # noqa: E731
        rows = lambda y: y.expand(len(x), *y.shape[1:])  # noqa: E731
        states = torch.cat([rows(c.embeds) for c in conds])
        there = torch.cat([rows(c.extra["encoder_attention_mask"]) for c in conds])
        out = self.net(repeated(x), t, states, there, known=repeated(known), mask=repeated(mask))
        return out.float().chunk(len(conds))

    def latents(self, samples: np.ndarray) -> Tensor:
        """(1, C, L) of (T,) samples at the model's rate, the last frame filled with silence; the posterior's mean."""
        wave = torch.from_numpy(np.pad(samples, (0, -len(samples) % self.hop))).to(self.device, self.vae.dtype)
        config = self.net.config
        return (self.vae.encode(wave[None, None]).latent_dist.mean.float() - config.latent_shift) * config.latent_scale

    def waves(self, latents: Tensor) -> Tensor:
        """(B, T) float32, T = L·hop, not clipped."""
        config = self.net.config
        return self.vae.decode((latents / config.latent_scale + config.latent_shift).to(self.vae.dtype)).sample[:, 0].float()

    def wave(self, latents: Tensor) -> np.ndarray:
        """(T,) float32 of the first row, not clipped. Raises BadInput when it is not finite."""
        samples = self.waves(latents[:1])[0].cpu().numpy()
        if not np.isfinite(samples).all():
            raise BadInput("The sound broke into values that are not numbers; lower the guidance or take more steps.")
        return samples


def denoise(model: LatentAudio, cond: Cond, uncond: Cond, seeds: list[int], frames: int, steps: int, guide, eta: float,
            known: Tensor | None = None, mask: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """DDIM from each seed's noise, yielding (state, x0), each (B, C, L), after each step.

    `guide` combines v without and with the text (image/sampling.py's Guided); `eta` 0 is deterministic, 1 draws new noise as DDPM does.
    """
    # η = 1 leaves nothing of DDIM's direction at the noise end, and rounding makes it the root of less than nothing (at 25 steps, for one).
    eta = min(eta, 1 - 1e-6)
    scheduler = diffusers.DDIMScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(steps, device=model.device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    x = torch.stack([torch.randn(model.net.config.channels, frames, generator=g) for g in generators]).to(model.device)
    for i, t in enumerate(scheduler.timesteps):
        evaluate = lambda *conds: model.velocities(x, t, *conds, known=known, mask=mask)  # noqa: E731, B023
        v = guide(evaluate, cond, uncond, i, steps)
        step = scheduler.step(v, t, x, eta=eta, generator=generators)
        x = step.prev_sample
        yield x, step.pred_original_sample


def load_embedded(card: Card) -> LatentAudio:
    from backends.embedded import encode_text
    from backends.nets.ez_dit import EzDiT

    def encode(text: str) -> Cond:
        cond = encode_text(text)
        return replace(cond, extra={"encoder_attention_mask": cond.embeds.abs().sum(2) > 0})

    folder, where = ASSETS / card.source, device()
    net = EzDiT.from_pretrained(folder / "dit", torch_dtype=torch.float32)
    vae = diffusers.AutoencoderOobleck.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    for part in (net, vae):
        part.eval().requires_grad_(False).to(where)
    model = LatentAudio(card, net, vae, diffusers.DDIMScheduler.from_pretrained(folder / "dit"), encode, where)
    # The first calls load the text encoder and choose kernels; that time is not the first arm's.
    cond = model.encode("a")[0]
    model.waves(model.velocities(torch.zeros(1, net.config.channels, 8, device=where), 500, cond)[0])
    model.nfe = 0
    return model
