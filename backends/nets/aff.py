"""Adaptive frequency filters (AFF blocks) in a small U-Net: what the frequency-augmented decoder of arXiv 2310.12004 refines its last features with.

    y = x + iFFT(m(FFT x) · FFT x),   m: a complex two-layer perceptron at each frequency, soft-shrunk

Adaptive Frequency Filters: Huang et al., arXiv 2307.14008. Parameters are named as in the official code (tencent-ailab/
Frequency_Aug_VAE_MoESR), so that its checkpoints load; its inverted residuals hold batch norms and 4 blocks of refinement.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Filter(nn.Module):
    """(B, C, H, W) to the same: the spectrum times a mask that a block-diagonal perceptron draws from it."""

    def __init__(self, channels: int, blocks: int = 8, shrink: float = 0.01):
        super().__init__()
        self.blocks, self.shrink, size = blocks, shrink, channels // blocks
        self.w1, self.w2 = (nn.Parameter(0.02 * torch.randn(2, blocks, size, size)) for _ in range(2))
        self.b1, self.b2 = (nn.Parameter(0.02 * torch.randn(2, blocks, size)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):  # spectra have a wide range
            spectrum = torch.fft.rfft2(x.float(), norm="ortho")
            real, imag = (part.unflatten(1, (self.blocks, -1)) for part in (spectrum.real, spectrum.imag))
            real, imag = (F.leaky_relu(part, 0.1) for part in self._layer(real, imag, self.w1, self.b1))
            real, imag = (F.softshrink(part, self.shrink).flatten(1, 2) for part in self._layer(real, imag, self.w2, self.b2))
            filtered = torch.fft.irfft2(torch.complex(real, imag) * spectrum, s=x.shape[-2:], norm="ortho")
        return x + filtered.to(x.dtype)

    @staticmethod
    def _layer(real, imag, w, b):
        """A complex affine map of each block: w = w[0] + i·w[1]."""
        product = lambda part, weight: torch.einsum("bkihw,kio->bkohw", part, weight)  # noqa: E731
        return (product(real, w[0]) - product(imag, w[1]) + b[0, :, :, None, None],
                product(imag, w[0]) + product(real, w[1]) + b[1, :, :, None, None])  # fmt: skip


class _Layer(nn.Module):
    def __init__(self, into: int, out: int, size: int, groups: int, batch_norm: bool, act: bool):
        super().__init__()
        self.block = nn.Sequential()
        self.block.add_module("conv", nn.Conv2d(into, out, size, padding=size // 2, groups=groups, bias=False))
        self.block.add_module("norm", nn.BatchNorm2d(out) if batch_norm else nn.GroupNorm(8, out))
        if act:
            self.block.add_module("act", nn.LeakyReLU(0.1))

    def forward(self, x):
        return self.block(x)


class InvertedResidual(nn.Module):
    """MobileNet v2's block: 1×1 out to `ratio` times the channels, 3×3 in each, 1×1 back."""

    def __init__(self, into: int, out: int, ratio: int, batch_norm: bool):
        super().__init__()
        self.block, wide = nn.Sequential(), ratio * into
        self.block.add_module("exp_1x1", _Layer(into, wide, 1, 1, batch_norm, True))
        self.block.add_module("conv_3x3", _Layer(wide, wide, 3, wide, batch_norm, True))
        self.block.add_module("red_1x1", _Layer(wide, out, 1, 1, batch_norm, False))
        self.residual = into == out

    def forward(self, x):
        return x + self.block(x) if self.residual else self.block(x)


class AffBlock(nn.Module):
    def __init__(self, into: int, out: int, ratio: int = 4, batch_norm: bool = True):
        super().__init__()
        groups = 32 if batch_norm else 8
        self.norm1, self.norm2 = nn.GroupNorm(groups, into), nn.GroupNorm(groups, out)
        self.filter, self.up_dim, self.mlp = Filter(out), nn.Conv2d(into, out, 1), InvertedResidual(into, out, ratio, batch_norm)

    def forward(self, x):
        x = self.mlp(self.norm1(x)) + self.up_dim(x)
        return x + self.filter(self.norm2(x))


class AffUNet(nn.Module):
    """(B, C, H, W) to the same over two halvings; H and W multiples of 4. `refine`: blocks in the middle."""

    def __init__(self, channels: int, refine: int = 4, ratio: int = 4, batch_norm: bool = True):
        super().__init__()
        block = lambda into, out: AffBlock(into, out, ratio, batch_norm)  # noqa: E731
        c, d = channels, 2 * channels
        self.conv1, self.conv2, self.conv3 = block(c, c), block(c, d), block(d, d)
        self.context_refine = nn.ModuleList(block(d, d) for _ in range(refine))
        self.up_conv3, self.up_conv2 = block(2 * d, d), block(2 * c, c)
        self.up3 = nn.Sequential(nn.Conv2d(d, 4 * d, 1), nn.PixelShuffle(2))
        self.up2 = nn.Sequential(nn.Conv2d(d, 4 * c, 1), nn.PixelShuffle(2))

    def forward(self, x):
        x1 = self.conv1(x)
        x2 = self.conv2(F.max_pool2d(x1, 2))
        x3 = self.conv3(F.max_pool2d(x2, 2))
        for block in self.context_refine:
            x3 = block(x3)
        x = self.up_conv3(torch.cat([x2, self.up3(x3)], 1))
        return self.up_conv2(torch.cat([x1, self.up2(x)], 1))
