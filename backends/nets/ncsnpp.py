"""NCSN++ as StoRM's and SGMSE+'s checkpoints hold it: its layers, in the order and under the names of their tensors.

Song et al., arXiv 2011.13456, appendix H, in the configuration of sp-uhh/storm and sp-uhh/sgmse: BigGAN's residual blocks, sums over √2,
FIR resampling, the input shown again at every scale (input_skip), an output added up over the scales (output_skip).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

KERNEL = torch.outer(k := torch.tensor([1.0, 3.0, 3.0, 1.0]), k) / 64  # sums to 1
# Published configurations by the name of their `backbone`; `attention`: heights that have a block of it beside the one in the middle.
SMALL = dict(width=128, multiples=(1, 2, 2, 2), blocks=1)  # StoRM's, 27.8 M
LARGE = dict(width=128, multiples=(1, 1, 2, 2, 2, 2, 2), blocks=2, attention=(16,))  # SGMSE+'s, 65.6 M
NAMED = {"ncsnpplarge": LARGE, "ncsnpp12M": dict(width=96, multiples=(1, 2, 2, 1), blocks=1), "ncsnpp6M": dict(width=96, multiples=(1, 1, 1, 1), blocks=1)}


def halve(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, H/2, W/2), zeros beyond the edge."""
    return F.conv2d(x, KERNEL.to(x).expand(x.shape[1], 1, 4, 4), stride=2, padding=1, groups=x.shape[1])


def double(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W), zeros beyond the edge."""
    return F.conv_transpose2d(x, (4 * KERNEL).to(x).expand(x.shape[1], 1, 4, 4), stride=2, padding=1, groups=x.shape[1])


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


class Fourier(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.W = nn.Parameter(16 * torch.randn(width), requires_grad=False)

    def forward(self, x):
        angles = 2 * math.pi * x[:, None] * self.W
        return torch.cat([angles.sin(), angles.cos()], 1)


class Combine(nn.Module):
    """The resampled input into the features."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, out, 1)

    def forward(self, picture, features):
        return self.Conv_0(picture) + features


class Mix(nn.Module):
    """A linear map of the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.randn(channels, channels) / channels**0.5), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return x @ self.W + self.b


class Attention(nn.Module):
    """Between all places, with one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.GroupNorm_0 = norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Mix(channels) for _ in range(4))

    def forward(self, x):
        places = self.GroupNorm_0(x).flatten(2).mT
        found = F.scaled_dot_product_attention(self.NIN_0(places)[:, None], self.NIN_1(places)[:, None], self.NIN_2(places)[:, None])[:, 0]
        return (x + self.NIN_3(found).mT.unflatten(2, x.shape[2:])) / math.sqrt(2)


class Block(nn.Module):
    """A residual block; `resample`: `halve` or `double`, on both ways through it."""

    def __init__(self, channels: int, out: int, embedding: int, resample=None):
        super().__init__()
        self.resample = resample
        self.GroupNorm_0, self.Conv_0 = norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, out)  # there, though unused, in a network that is told no time
        self.GroupNorm_1, self.Conv_1 = norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.Conv_2 = nn.Conv2d(channels, out, 1) if channels != out or resample else None

    def forward(self, x, embedding):
        h = F.silu(self.GroupNorm_0(x))
        if self.resample:
            h, x = self.resample(h), self.resample(x)
        h = self.Conv_0(h)
        if embedding is not None:
            h = h + self.Dense_0(F.silu(embedding))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return ((self.Conv_2(x) if self.Conv_2 else x) + h) / math.sqrt(2)


class NCSNpp(nn.Module):
    """(B, channels, 256, frames) -> (B, 2, 256, frames); frames a multiple of 64.

    `channels`: two a spectrogram. `timed`: told the time, divides its output by it, and gives −score; else a denoiser.
    `centred`: whether it takes its input as it is; else 2·input − 1. `height`: bins, which tell where `attention` stands.
    """

    def __init__(self, channels: int, timed: bool, centred: bool, width: int = 128, multiples: tuple[int, ...] = (1, 2, 2, 2), blocks: int = 1,
                 attention: tuple[int, ...] = (), height: int = 256):  # fmt: skip
        super().__init__()
        self.timed, self.centred, self.levels, self.blocks = timed, centred, len(multiples), blocks
        self.attended = [height >> level in attention for level in range(self.levels)]
        self.output_layer = nn.Conv2d(channels, 2, 1)
        embedding, widths = 4 * width, [width * m for m in multiples]
        layers = [Fourier(width)]
        if timed:
            layers += [nn.Linear(2 * width, embedding), nn.Linear(embedding, embedding)]
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        kept, now = [width], width  # widths of what the way up will see again
        for level, wide in enumerate(widths):
            for _ in range(blocks):
                layers.append(Block(now, now := wide, embedding))
                layers += [Attention(now)] if self.attended[level] else []
                kept.append(now)
            if level < self.levels - 1:
                layers += [Block(now, now, embedding, halve), Combine(channels, now)]
                kept.append(now)
        layers += [Block(now, now, embedding), Attention(now), Block(now, now, embedding)]
        for level in reversed(range(self.levels)):
            for _ in range(blocks + 1):
                layers.append(Block(now + kept.pop(), now := widths[level], embedding))
            layers += [Attention(now)] if self.attended[level] else []
            layers += [norm(now), nn.Conv2d(now, channels, 3, padding=1)]
            layers += [Block(now, now, embedding, double)] if level else []
        self.all_modules = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        layers = iter(self.all_modules)
        embedding, fourier = None, next(layers)
        if self.timed:
            embedding = next(layers)(fourier(t.log()))
            embedding = next(layers)(F.silu(embedding))
        picture = x if self.centred else 2 * x - 1
        kept = [next(layers)(picture)]
        for level in range(self.levels):
            for _ in range(self.blocks):
                h = next(layers)(kept[-1], embedding)
                kept.append(next(layers)(h) if self.attended[level] else h)
            if level < self.levels - 1:
                h, picture = next(layers)(kept[-1], embedding), halve(picture)
                kept.append(next(layers)(picture, h))
        before, attention, after = (next(layers) for _ in range(3))
        h = after(attention(before(kept[-1], embedding)), embedding)
        out = None
        for level in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                h = next(layers)(torch.cat([h, kept.pop()], 1), embedding)
            h = next(layers)(h) if self.attended[level] else h
            normed = F.silu(next(layers)(h))
            added = next(layers)(normed)
            out = added if out is None else double(out) + added
            h = next(layers)(h, embedding) if level else h
        return self.output_layer(out / t.view(-1, 1, 1, 1) if self.timed else out)

    def denoise(self, y: torch.Tensor) -> torch.Tensor:
        """D(y) of a predictive denoiser."""
        return self(y)

    def score(self, x: torch.Tensor, t: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
        """∇ log p_t(x); `beside`: the spectrograms it sees."""
        return -self(torch.cat([x, *beside], 1), t)
