"""Which objects of the emoji world a picture shows, how many and where.

Two judges, both heads on frozen ImageNet features (EfficientNet-Lite0). “second” confirms what was found by way of
“main”: it looks at another resolution and at other depths, has another head, and was trained from another seed on
other scenes. What fools the features themselves may still fool both. Both give heat maps in the manner of CenterNet
(Zhou et al., arXiv 1904.07850): objectness, box and concept for each cell of a 16×16 grid. All maps are
differentiable with respect to the pixels.

Trained by `backends.train.emoji_judges` on rendered scenes with their exact truth.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from backends.metrics.features import effnet
from backends.models import ASSETS, device
from backends.worlds import emoji

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = ASSETS / "emoji-judges"
GRID, SIDE = 16, 128
THRESHOLD, LEAST = 0.3, 0.12  # least objectness and least score; chosen on training seeds


class Found(NamedTuple):
    concept: int
    name: str
    score: float  # objectness × probability of the concept
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of the picture's sides


class Maps(NamedTuple):
    """What a judge says of a batch; G = GRID."""

    objectness: Tensor  # (B, G, G) logits
    box: Tensor  # (B, 4, G, G): offset of the centre from the cell's corner in cells, log of the size in cells
    inner: Tensor  # (B, C, G, G) from which the concept is read


class Residual(nn.Module):
    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x):
        return x + self.conv(F.silu(self.norm(x)))


class Head(nn.Module):
    """From a (B, width, G, G) map to Maps, and from cells to concepts."""

    def __init__(self, width: int, inner: int = 256):
        super().__init__()
        self.norm, self.inner = nn.GroupNorm(8, width), nn.Conv2d(width, inner, 1)
        self.where = nn.Conv2d(width, 5, 1)
        self.concept = nn.Linear(inner, len(emoji.concepts()))
        nn.init.constant_(self.where.bias, 0.0), nn.init.constant_(self.where.bias[:1], -3.0)

    def forward(self, x: Tensor) -> Maps:
        x = F.silu(self.norm(x))
        where = self.where(x).float()
        return Maps(where[:, 0], where[:, 1:], F.silu(self.inner(x)))


class Main(nn.Module):
    """A neck that joins three depths of the frozen features at the finest one's grid."""

    TAPS = (4, 10, 15)

    def __init__(self, width: int = 160):
        super().__init__()
        self.side = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (40, 112, 320))
        self.mix = nn.Sequential(Residual(width), Residual(width))
        self.head = Head(width)

    def inputs(self, pixels: Tensor) -> list[Tensor]:
        return effnet(str(pixels.device))(pixels, self.TAPS)

    def forward(self, inputs: list[Tensor]) -> Maps:
        x = sum(F.interpolate(side(f), size=(GRID, GRID), mode="bilinear") for side, f in zip(self.side, inputs))
        return self.head(self.mix(x))


class Second(nn.Module):
    """Other depths of the features, taken at 192 px, beside the bare 8×8 pixel patches; a wider view of the grid."""

    TAPS, SIDE = (5, 8, 12), 192

    def __init__(self, width: int = 128):
        super().__init__()
        self.side = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (80, 112, 192, 3 * (SIDE // GRID) ** 2))
        self.mix = nn.Sequential(Residual(width), Residual(width, dilation=3))
        self.head = Head(width, 192)

    def inputs(self, pixels: Tensor) -> list[Tensor]:
        large = F.interpolate(pixels, size=(self.SIDE, self.SIDE), mode="bilinear")
        return [*effnet(str(pixels.device))(large, self.TAPS), F.pixel_unshuffle(pixels, SIDE // GRID)]

    def forward(self, inputs: list[Tensor]) -> Maps:
        x = sum(F.interpolate(side(f), size=(GRID, GRID), mode="bilinear") for side, f in zip(self.side, inputs))
        return self.head(self.mix(x))


KINDS = {"main": Main, "second": Second}


@functools.cache
def judge(name: str = "main") -> nn.Module:
    """The trained judge “main” or “second”, frozen."""
    from safetensors.torch import load_file

    net = KINDS[name]()
    net.load_state_dict({k: v.float() for k, v in load_file(FOLDER / f"{name}.safetensors").items()})
    return net.eval().requires_grad_(False).to(device(), memory_format=torch.channels_last)


def available(name: str = "main") -> bool:
    return (FOLDER / f"{name}.safetensors").exists()


def fitted(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) of any size at the judges' own; differentiable."""
    if pixels.shape[-2:] != (SIDE, SIDE):
        pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    return pixels.float().contiguous(memory_format=torch.channels_last)


def maps(pixels: Tensor, name: str = "main") -> Maps:
    net = judge(name)
    return net(net.inputs(fitted(pixels)))


def log_probs(pixels: Tensor, concepts: list[int], name: str = "main") -> Tensor:
    """(B, len(concepts)) log-probability that each concept is in the picture; differentiable.

    Noisy-or over the cells: 1 − Π (1 − objectness · p(concept)).
    """
    found = maps(pixels, name)
    words = judge(name).head.concept(found.inner.flatten(2).transpose(1, 2).float()).log_softmax(-1)[..., concepts]
    here = F.logsigmoid(found.objectness.flatten(1))[..., None] + words
    absent = torch.log1p(-here.exp().clamp(max=1 - 1e-6)).sum(1)
    return (-torch.expm1(absent)).clamp_min(1e-30).log()


@torch.no_grad()
def detect(pixels: Tensor, name: str = "main", threshold: float = THRESHOLD, top: int = 12) -> list[list[Found]]:
    """Objects of each picture, the surest first. pixels: (B, 3, H, W) in [-1, 1]."""
    found = maps(pixels, name)
    score = found.objectness.sigmoid()
    peak = score * (F.max_pool2d(score[:, None], 3, 1, 1)[:, 0] == score)
    values, cells = peak.flatten(1).topk(top)
    rows = torch.arange(len(score), device=score.device)[:, None].expand_as(cells)
    words = judge(name).head.concept(found.inner.flatten(2)[rows, :, cells].float()).softmax(-1).max(-1)
    box = found.box.flatten(2)[rows, :, cells]
    centre = (torch.stack([cells % GRID, cells // GRID], -1) + box[..., :2]) / GRID
    half = box[..., 2:].clamp(-3, 3).exp() / GRID / 2
    box = torch.cat([centre - half, centre + half], -1).clamp(0, 1)
    result = []
    for v, w, c, b in zip(values.tolist(), words.values.tolist(), words.indices.tolist(), box.tolist()):
        seen = [Found(concept, emoji.concepts()[concept].name, o * sure, tuple(place)) for o, sure, concept, place in zip(v, w, c, b) if o >= threshold]
        kept: list[Found] = []
        for f in sorted(seen, key=lambda f: -f.score):
            if f.score >= LEAST and not any(same(f, k) for k in kept):
                kept.append(f)
        result.append(kept)
    return result


def overlap(a, b) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def same(a: Found, b: Found) -> bool:
    """Whether two finds are one object: much overlap, or centres too near; those of two of a kind stand further apart."""
    if overlap(a.box, b.box) >= 0.5:
        return True
    shift = [abs(a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) / 2 for i in (0, 1)]
    side = [max(f.box[i + 2] - f.box[i] for f in (a, b)) for i in (0, 1)]
    return max(s / max(n, 1e-6) for s, n in zip(shift, side)) < (0.5 if a.concept == b.concept else 0.3)
