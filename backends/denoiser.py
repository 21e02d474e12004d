"""One wrapper for every image network: x0 = D(x, t, cond), whether it predicts noise, v or flow.

A state is x_t = α_t·x0 + σ_t·n. We index by t and not by σ alone, because with zero terminal SNR (α_T = 0) the
ratio σ/α has no end. Methods that need the network's inside take `net`, a genuine diffusers module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import F, torch
from backends.spec import BadInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cond:
    """One prompt, encoded. `embeds`: (1, S, D); `tokens`: the S token strings; `extra`: (1, …) keyword tensors."""

    text: str
    embeds: Tensor
    tokens: tuple[str, ...] = ()
    extra: dict[str, Tensor] = field(default_factory=dict)
    cut: str = ""  # what of the text the encoder did not read

    def rows(self, word: str) -> list[int]:
        """Positions of the tokens that make up `word` (one or several words), first occurrence; may be empty."""
        wanted, n = word.lower().replace(" ", ""), len(self.tokens)
        plain = [t.lower().removeprefix("##").replace("</w>", "").replace("▁", "").replace("Ġ", "") for t in self.tokens]
        for start in range(n):
            joined = ""
            for end in range(start, n):
                joined += plain[end]
                if joined == wanted:
                    return list(range(start, end + 1))
                if not wanted.startswith(joined):
                    break
        return []


def together(conds: tuple[Cond, ...]) -> Cond:
    """Several prompts as one Cond for a batch of as many states."""
    extra = {k: torch.cat([c.extra[k] for c in conds]) for k in conds[0].extra}
    return Cond("", torch.cat([c.embeds for c in conds]), (), extra)


class Denoiser:
    """D(x, t, cond) → x0 around a diffusers network, its autoencoder and its text encoder.

    `nfe` counts function evaluations at the network: one a batch row, so that a guided step costs 2. `elapsed`: the arm's seconds
    when its last step was done, as the runner counts them.
    Subclasses (hub.py) override `encode`, `forward` and, where needed, the schedule.
    """

    def __init__(self, card, net, vae, scheduler, encode_text, device="cpu", dtype=None):
        self.card, self.net, self.vae, self.device = card, net, vae, device
        self.dtype = dtype or torch.float32
        self.scheduler = scheduler  # the checkpoint's own; walks make theirs from its config
        self.encode_text = encode_text
        self.prediction = scheduler.config.get("prediction_type", "flow")
        self.nfe, self.elapsed = 0, 0.0
        self.hook = net.register_forward_pre_hook(self._count, with_kwargs=True)
        if self.prediction != "flow":
            self.alphas_cumprod = scheduler.alphas_cumprod.double()
        self.channels = net.config.in_channels
        self._preview = None

    def _count(self, _module, args, kwargs):
        sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        self.nfe += len(sample)

    # --- the schedule ---

    def alpha_sigma(self, t) -> tuple[Tensor, Tensor]:
        """(α_t, σ_t) as float32 scalars; `t` in the network's own unit. t < 0 is the clean end (1, 0)."""
        t = torch.as_tensor(t, dtype=torch.float64)
        if self.prediction == "flow":
            sigma = (t / self.scheduler.config.num_train_timesteps).clamp(0, 1)
            alpha = 1 - sigma
        else:
            bar = torch.where(t < 0, torch.ones(()).double(), self.alphas_cumprod[t.long().clamp(min=0)])
            alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
        return alpha.float().to(self.device), sigma.float().to(self.device)

    def to_x0(self, out: Tensor, x: Tensor, t) -> Tensor:
        """x0 from the network's raw output at state x."""
        alpha, sigma = self.alpha_sigma(t)
        if self.prediction == "flow":  # out = n − x0
            return x - sigma * out
        if self.prediction == "v_prediction":  # out = α·n − σ·x0
            return alpha * x - sigma * out
        if self.prediction == "sample":
            return out
        return (x - sigma * out) / alpha

    def from_x0(self, x0: Tensor, x: Tensor, t) -> Tensor:
        """The raw output that `x0` at state x amounts to: the inverse of `to_x0`, for diffusers' schedulers."""
        alpha, sigma = self.alpha_sigma(t)
        if self.prediction == "flow":
            return (x - x0) / sigma
        if self.prediction == "v_prediction":
            return (alpha * x - x0) / sigma
        if self.prediction == "sample":
            return x0
        return (x - alpha * x0) / sigma

    def noise_of(self, x0: Tensor, x: Tensor, t) -> Tensor:
        """ε such that x = α·x0 + σ·ε."""
        alpha, sigma = self.alpha_sigma(t)
        return (x - alpha * x0) / sigma

    # --- the network ---

    def encode(self, *texts: str) -> tuple[Cond, ...]:
        return tuple(self.encode_text(t) for t in texts)

    def forward(self, x: Tensor, t, conds: list[Cond]) -> Tensor:
        """Raw output (len(conds)·B, C, h, w) for x (B, C, h, w) under each cond in turn, as one batch."""
        n = len(x)
        embeds = torch.cat([c.embeds.expand(n, -1, -1) for c in conds]).to(self.dtype)
        extra = {k: torch.cat([c.extra[k].expand(n, *c.extra[k].shape[1:]) for c in conds]) for k in conds[0].extra}
        rows = torch.cat([x] * len(conds)).to(self.dtype)
        return self.evaluate(rows, torch.as_tensor(t, device=self.device), embeds, extra)

    def evaluate(self, rows: Tensor, t: Tensor, embeds: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """The network's own call for a batch; `t` is a scalar."""
        return self.net(rows, t, encoder_hidden_states=embeds, **extra).sample

    def spacing(self, steps: int) -> dict:
        """Further arguments of `set_timesteps` that a flow model's scheduler wants."""
        return {}

    def x0s(self, x: Tensor, t, *conds: Cond) -> tuple[Tensor, ...]:
        """x0 under each cond, each (B, C, h, w) float32, from one batched evaluation (B·len(conds) NFE)."""
        out = self.forward(x, t, list(conds)).float()
        return tuple(self.to_x0(o, x, t) for o in out.chunk(len(conds)))

    # --- pixels ---

    @property
    def side(self) -> int:
        """Pixels of a picture's side."""
        return self.card.side

    def noise(self, seed: int, n: int = 1) -> Tensor:
        """(n, C, h, w) float32 standard normal from `seed`, the same on every device."""
        shape = (n, self.channels, self.side // self.card.factor, self.side // self.card.factor)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def to_latents(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → scaled latents (B, C, h, w); differentiable."""
        config = self.vae.config
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mean.float()
        return (latents - (config.get("shift_factor") or 0)) * config.scaling_factor

    def to_pixels(self, latents: Tensor) -> Tensor:
        """Scaled latents → (B, 3, H, W) about [-1, 1], float32; differentiable."""
        config = self.vae.config
        z = latents / config.scaling_factor + (config.get("shift_factor") or 0)
        return self.vae.decode(z.to(self.vae.dtype)).sample.float()

    def picture(self, latents: Tensor) -> np.ndarray:
        """(H, W, 3) uint8 of the first latent, fully decoded. Raises BadInput when it is not finite."""
        if not torch.isfinite(latents).all():
            raise BadInput("The picture broke into values that are not numbers; lower the guidance or take more steps.")
        return as_uint8(self.to_pixels(latents[:1]))

    def preview(self, latents: Tensor) -> np.ndarray:
        """(H, W, 3) uint8 of the first latent by a cheap decoder: small and learnt, else a linear map to RGB."""
        if self._preview is None:
            self._preview = self.card.previewer(self)
        return as_uint8(self._preview(torch.nan_to_num(latents[:1].float())))

    @contextmanager
    def patched(self, forward) -> Iterator[None]:
        """Replace the network's forward for a while; always unwinds."""
        before = self.net.__dict__.get("forward")
        self.net.forward = forward
        try:
            yield
        finally:
            if before is None:
                del self.net.forward
            else:
                self.net.forward = before


def as_uint8(pixels: Tensor) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1] → (H, W, 3) uint8."""
    return ((pixels[0].detach().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def from_uint8(pixels: np.ndarray, device="cpu") -> Tensor:
    """(H, W, 3) uint8 → (1, 3, H, W) in [-1, 1]."""
    return (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1).to(device)


def linear_previewer(model: Denoiser):
    """Least-squares map from latent channels to RGB, fitted once on colour fields seen by the autoencoder."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand((48, 3, 1, 1), generator=generator) * 2 - 1
    fields = colours.expand(-1, -1, 64, 64).to(model.device)
    latents = torch.cat([model.to_latents(f[None])[..., 2:-2, 2:-2].mean((2, 3)) for f in fields])
    ones = torch.ones(len(latents), 1, device=latents.device)
    weights = torch.linalg.lstsq(torch.cat([latents, ones], 1), colours[:, :, 0, 0].to(latents)).solution

    def preview(z):
        rgb = torch.einsum("bchw,cd->bdhw", z, weights[:-1]) + weights[-1].view(1, 3, 1, 1)
        return F.interpolate(rgb, size=(model.side, model.side), mode="bicubic")

    return preview
