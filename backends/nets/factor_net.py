"""VS2M: an untrained network that draws a spectral cube as a few maps times a few spectra (DDS2M, arXiv 2303.06682, section 3.2).

X̂ = Σ_r S_r·c_rᵀ. Each map S_r is what a skip UNet of its own makes of one fixed noise picture, each spectrum c_r what an MLP of its own makes of one
fixed noise vector. The R networks are one: convolutions of R groups, which is R networks exactly (batch norm knows no channel but its own).
"""

import torch
import torch.nn.functional as F
from torch import nn

PAPER = dict(widths=(16, 32, 64, 128, 128, 128), kernels=(7, 7, 5, 5, 3, 3), skips=(0, 0, 4, 4, 4, 4))
SMALL = dict(widths=(16, 32, 32, 32), kernels=(3, 3, 3, 3), skips=(0, 4, 4, 4))
HIDDEN = (128, 256, 256, 128)  # of the spectra's MLPs
REACH = 49  # px of the spatial attention's window, in the official code
ATTENDED = (2, 3)  # levels, from the finest on


def _conv(a: int, b: int, kernel: int, groups: int) -> nn.Sequential:
    """Convolution, batch norm, leaky ReLU; edges are mirrored."""
    conv = nn.Conv2d(groups * a, groups * b, kernel, padding=kernel // 2, padding_mode="reflect", groups=groups)
    return nn.Sequential(conv, _norm(groups * b), nn.LeakyReLU(0.2))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)  # of this one picture


class Attention(nn.Module):
    """CBAM with a shortcut (Woo et al., arXiv 1807.06521): first channels, then places are weighed."""

    def __init__(self, channels: int, side: int, groups: int):
        super().__init__()
        inside, kernel = max(1, channels // 16), min(REACH, 2 * side - 1)
        self.groups = groups
        self.squeeze = nn.Sequential(nn.Conv2d(groups * channels, groups * inside, 1, groups=groups, bias=False), nn.ReLU(),
                                     nn.Conv2d(groups * inside, groups * channels, 1, groups=groups, bias=False))  # fmt: skip
        self.place = nn.Conv2d(2 * groups, groups, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x):
        y = x * (self.squeeze(F.adaptive_max_pool2d(x, 1)) + self.squeeze(F.adaptive_avg_pool2d(x, 1))).sigmoid()
        each = y.unflatten(1, (self.groups, -1))
        weights = self.place(torch.stack([each.amax(2), each.mean(2)], 2).flatten(1, 2)).sigmoid()
        return x + (each * weights[:, :, None]).flatten(1, 2)


class Level(nn.Module):
    """Down by 2, through `inner`, up again, beside a narrow shortcut; the official `skip` network is these in one another."""

    def __init__(self, before: int, width: int, kernel: int, skip: int, inner: nn.Module | None, inner_width: int, attention: int, groups: int):
        super().__init__()
        self.groups = groups
        self.down, self.more = _conv(before, width, kernel, groups), _conv(width, width, kernel, groups)
        self.skip = _conv(before, skip, 1, groups) if skip else None
        self.inner = inner
        joined = skip + (inner_width if inner is not None else width)
        self.norm = _norm(groups * joined)
        self.attention = Attention(joined, attention, groups) if attention else None
        self.up = nn.Sequential(_conv(joined, width, kernel, groups), _conv(width, width, 1, groups))

    def forward(self, x):
        # As in the official code the picture shrinks before the first norm.
        conv, norm, act = self.down
        h = self.more(act(norm(F.avg_pool2d(conv(x), 2))))
        h = F.interpolate(h if self.inner is None else self.inner(h), scale_factor=2, mode="bilinear")
        if self.skip is not None:
            beside, deep = (t.unflatten(1, (self.groups, -1)) for t in (self.skip(x), h))
            h = torch.cat([beside, deep], 2).flatten(1, 2)
        h = self.norm(h)
        return self.up(h if self.attention is None else self.attention(h))


class Factors(nn.Module):
    """X̂ of one cube, (B, H, W); `rank`: R. What it makes is in [0, 1] only once it was fitted so.

    `widths`, `kernels`, `skips`: of the UNets' levels, as many as the picture's size has room for. Noise is drawn by torch's own generator.
    """

    def __init__(self, rank: int, bands: int, height: int, width: int, widths=SMALL["widths"], kernels=SMALL["kernels"], skips=SMALL["skips"]):
        super().__init__()
        self.rank, self.size = rank, (height, width)
        levels = sum(min(height, width) >> (i + 1) > k // 2 for i, k in enumerate(kernels))  # a mirrored edge must be shorter than the picture
        multiple = 1 << levels
        padded = [-(-n // multiple) * multiple for n in self.size]
        self.register_buffer("picture", torch.rand(1, 1, *padded))
        self.register_buffer("vector", torch.rand(1, bands, 1))
        net = None
        for i in reversed(range(levels)):
            attention = min(padded) >> i if i in ATTENDED else 0
            net = Level(widths[i - 1] if i else 1, widths[i], kernels[i], skips[i], net, widths[min(i + 1, levels - 1)], attention, rank)
        self.maps = nn.Sequential(net, nn.Conv2d(rank * widths[0], rank, 1, groups=rank))
        sizes = (bands, *HIDDEN, bands)
        layers = [nn.Conv1d(rank * a, rank * b, 1, groups=rank) for a, b in zip(sizes, sizes[1:])]  # R linear layers
        acts = [nn.ReLU6(), *(nn.ReLU() for _ in HIDDEN[1:])]
        self.spectra = nn.Sequential(*(m for pair in zip(layers, acts) for m in pair), layers[-1])

    def forward(self) -> torch.Tensor:
        maps = self.maps(self.picture.expand(1, self.rank, -1, -1))[0, :, : self.size[0], : self.size[1]]
        spectra = self.spectra(self.vector.repeat(1, self.rank, 1))[0, :, 0].unflatten(0, (self.rank, -1))
        return torch.einsum("rhw,rb->bhw", maps, spectra)


def variation(x: torch.Tensor) -> torch.Tensor:
    """Squared differences of neighbours of (B, H, W): 2·(mean down + mean across + ½·mean from band to band)."""
    across, down, bands = (x.diff(dim=d).square().mean() for d in (2, 1, 0))
    return 2 * (down + across + bands / 2)
