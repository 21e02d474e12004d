"""Cross-attention probabilities of a UNet: stored, averaged over heads and layers, open to gradients and to edits.

Fused attention gives no map, so for the length of a `with` the cross-attention layers compute their softmax
explicitly; on leaving, the network's own processors are back, whatever happened inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from backends.denoiser import Cond, Denoiser
from backends.lazy import F, torch
from backends.spec import Image, Images, Plot

if TYPE_CHECKING:
    from torch import Tensor

FINEST = 16  # maps of this side, as Attend-and-Excite takes them at 512 px; else the nearest that the network has
Edit = Callable[["Tensor", str], "Tensor"]  # (probabilities (B, heads, cells, S), layer's name) -> probabilities


class Maps:
    """What the cross-attention layers computed in one evaluation of the network."""

    def __init__(self, edit: Edit | None = None):
        self.edit = edit
        self.layers: dict[str, Tensor] = {}  # name -> (B, heads, cells, S)

    @property
    def side(self) -> int:
        """The finest side up to FINEST; where all are finer, the coarsest."""
        sides = {isqrt(p.shape[2]) for p in self.layers.values()}
        return max((s for s in sides if s <= FINEST), default=min(sides))

    def average(self) -> Tensor:
        """(B, S, side, side) float32: mean over heads and over the layers of that side; sums to 1 over S."""
        side = self.side
        found = [p.float().mean(1) for p in self.layers.values() if p.shape[2] == side * side]
        return torch.stack(found).mean(0).transpose(1, 2).unflatten(2, (side, side))


class Explicit:
    """An attention processor with its softmax in the open: softmax(QKᵀ/√d)·V."""

    def __init__(self, name: str, maps: Maps):
        self.name, self.maps = name, maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, **_):
        # A UNet's cross-attention works on (B, cells, width) after its block's own norm and residual.
        batch, cells, _ = hidden_states.shape
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if attn.norm_cross:
            seen = attn.norm_encoder_hidden_states(seen)
        mask = attn.prepare_attention_mask(attention_mask, seen.shape[1], batch)
        query, key, value = (attn.head_to_batch_dim(m) for m in (attn.to_q(hidden_states), attn.to_k(seen), attn.to_v(seen)))
        probs = attn.get_attention_scores(query, key, mask).unflatten(0, (batch, attn.heads))
        if self.maps.edit:
            probs = self.maps.edit(probs, self.name)
        self.maps.layers[self.name] = probs
        out = attn.to_out[0](attn.batch_to_head_dim(probs.flatten(0, 1) @ value))
        return attn.to_out[1](out) / attn.rescale_output_factor


@contextmanager
def attention_maps(model: Denoiser, edit: Edit | None = None) -> Iterator[Maps]:
    """Within it, each evaluation of the network leaves its cross-attention in the Maps (the newest wins)."""
    maps, before = Maps(edit), dict(model.net.attn_processors)
    try:
        model.net.set_attn_processor({n: Explicit(n, maps) if ".attn2." in n else p for n, p in before.items()})
        yield maps
    finally:
        model.net.set_attn_processor(before)


def words_of(cond: Cond) -> slice:
    """The tokens between the start and the first end token; padding is none of them."""
    ends = [i for i, t in enumerate(cond.tokens) if i and t in ("[SEP]", "<|endoftext|>", "</s>")]
    return slice(1, ends[0] if ends else len(cond.tokens))


def concept_maps(average: Tensor, cond: Cond, rows: list[list[int]], sharpen: float = 100.0) -> Tensor:
    """(B, len(rows), side, side): each concept's share of the attention, smoothed.

    As in Attend-and-Excite's official code: start, end and padding dropped, probabilities times 100 through a
    second softmax over the words, then a 3×3 filter with weights exp(−(x/2σ)²), σ = 0.5, reflected at the border.
    A concept of several tokens takes the sum of their shares, for in that softmax they compete with one another. `sharpen` 0
    leaves out the second softmax and takes the probabilities as they are, the mean of a concept's tokens.
    """
    span = words_of(cond)
    if sharpen:
        average = F.pad((average[:, span] * sharpen).softmax(1), (0, 0, 0, 0, span.start, average.shape[1] - span.stop))
    maps = torch.stack([average[:, r].sum(1) if sharpen else average[:, r].mean(1) for r in rows], 1)
    line = torch.exp(-(torch.arange(-1.0, 2.0, device=maps.device) ** 2))  # (x/2σ)² at σ = 0.5 is x²
    kernel = (line / line.sum()).outer(line / line.sum())
    flat = F.pad(maps.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(flat, kernel[None, None].to(flat))[:, 0].unflatten(0, maps.shape[:2])


PALETTE = ((235, 64, 52), (30, 120, 235), (40, 170, 80), (240, 160, 20), (160, 60, 200), (20, 180, 190))


def overlays(picture: np.ndarray, maps: Tensor, labels: list[str]) -> Images:
    """Each concept's map, scaled to its own peak, as a coloured veil over the greyed `picture` (H, W, 3) uint8."""
    height, width = picture.shape[:2]
    grey = np.repeat(picture.mean(-1, keepdims=True), 3, -1) * 0.6 + 90
    veils = F.interpolate(maps.detach().float()[:1], size=(height, width), mode="bicubic", align_corners=False)[0].clamp_min(0).cpu().numpy()
    items = []
    for i, (veil, label) in enumerate(zip(veils, labels)):
        share = (veil / max(veil.max(), 1e-6))[..., None] * 0.85
        mixed = grey * (1 - share) + np.array(PALETTE[i % len(PALETTE)], float) * share
        items.append(Image(mixed.clip(0, 255).astype(np.uint8), label))
    return Images(tuple(items))


class MapGuided:
    """A patch of the sampling loop that moves the state before each step, x ← x − α_t·∇ₓ loss(concept maps).

    Subclasses give `loss` (one value a row of the batch). Only the conditional branch is looked at, at batch rows'
    cost of one evaluation each; the guided step that follows runs with the network's own attention. α_t is such that
    the move is a share `alpha` of the noise present, ‖α_t·∇‖ = alpha·σ_t·√d: gradients differ a hundredfold between
    checkpoints, and a move longer than the noise leaves what the network was trained on.
    """

    curves: dict[str, list[float]]
    sharpen = 100.0  # see concept_maps

    def __init__(self, alpha: float, words: list[str], rows: list[list[int]], cond: Cond):
        self.alpha, self.words, self.rows, self.cond = alpha, words, rows, cond
        self.model = self.timesteps = self.shown = None

    @contextmanager
    def applied(self, model, timesteps):
        self.model, self.timesteps = model, timesteps
        yield

    def loss(self, maps: Tensor, i: int) -> Tensor:
        raise NotImplementedError

    def before_step(self, x: Tensor, i: int, noise: Tensor) -> Tensor:
        return self.descend(x, i)[0]

    def descend(self, x: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """(x moved by one step of gradient descent, loss (B,) before it)."""
        alpha = self.alpha
        with torch.set_grad_enabled(bool(alpha)):
            z = x.detach().requires_grad_(bool(alpha))
            with attention_maps(self.model) as store:
                (x0,) = self.model.x0s(z, self.timesteps[i], self.cond)
            maps = concept_maps(store.average(), self.cond, self.rows, self.sharpen)
            loss = self.loss(maps, i)
            gradient = torch.autograd.grad(loss.sum(), z)[0] if loss.requires_grad else None
        self.shown = (x0.detach()[:1], maps.detach()[:1])
        if gradient is None:
            return x, loss.detach()
        unit = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return x - alpha * self.model.alpha_sigma(self.timesteps[i])[1] * x[0].numel() ** 0.5 * unit, loss.detach()

    def aside(self):
        if self.shown is None:
            return ()
        x0, maps = self.shown
        lines = {k: ([i + 1.0 for i in range(len(v))], list(v)) for k, v in self.curves.items() if v}
        return (overlays(self.model.preview(x0), maps, self.words), *((Plot(lines, y="loss"),) if lines else ()))
