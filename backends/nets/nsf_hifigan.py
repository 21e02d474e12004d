"""HiFi-GAN's generator (Kong et al., arXiv 2010.05646) with a neural source-filter's harmonics (Wang et al., arXiv 1904.12088).

As in DiffSinger's official code (MoonInTheRiver, MIT), tensors named as in its checkpoints but for weight norm, which is folded in when they are read.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

HARMONICS = 9  # the pitch and its overtones
LOUD, HISS = 0.1, 0.003  # of each sine; of the noise beside it. Unvoiced, noise is a third as loud as a sine
SHAPE = dict(mels=80, channels=128, rates=(8, 8, 2, 2), kernels=(16, 16, 4, 4), block_kernels=(3, 7, 11), dilations=((1, 3, 5),) * 3)


def conv(inside: int, out: int, kernel: int, dilation: int = 1) -> nn.Conv1d:
    return nn.Conv1d(inside, out, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, kernel: int, dilations):
        super().__init__()
        self.convs1 = nn.ModuleList(conv(channels, channels, kernel, d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(channels, channels, kernel) for _ in dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for wide, plain in zip(self.convs1, self.convs2):
            x = x + plain(F.leaky_relu(wide(F.leaky_relu(x, 0.1)), 0.1))
        return x


class NSFHifiGAN(nn.Module):
    """(B, F, mels) mel and (B, F) Hz, 0 where unvoiced -> (B, F · hop) samples; hop is the product of `rates`."""

    def __init__(self, mels: int, channels: int, rates, kernels, block_kernels, dilations, rate: int = 24000):
        super().__init__()
        self.rate, self.hop, widths = rate, math.prod(rates), [channels // 2**i for i in range(len(rates) + 1)]
        self.m_source = nn.ModuleDict({"l_linear": nn.Linear(HARMONICS, 1)})
        self.conv_pre, self.conv_post = conv(mels, channels, 7), conv(widths[-1], 1, 7)
        self.ups = nn.ModuleList(nn.ConvTranspose1d(a, b, k, r, (k - r) // 2) for a, b, k, r in zip(widths, widths[1:], kernels, rates))
        steps = [math.prod(rates[i + 1 :]) for i in range(len(rates))]  # samples of the source for one of the stage's
        self.noise_convs = nn.ModuleList(nn.Conv1d(1, c, 2 * s, s, s // 2) if s > 1 else nn.Conv1d(1, c, 1) for c, s in zip(widths[1:], steps))
        self.resblocks = nn.ModuleList(ResidualBlock(c, k, d) for c in widths[1:] for k, d in zip(block_kernels, dilations))
        self.each = len(block_kernels)

    def source(self, hertz: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(B, 1, F · hop): sines at the multiples of the pitch, of random phases but for the lowest, and noise. In double: a long song sums many."""
        hertz = hertz.repeat_interleave(self.hop, 1)[..., None]
        noise = torch.randn(*hertz.shape[:2], HARMONICS, generator=generator).to(hertz.device)
        phase = torch.rand(len(hertz), 1, HARMONICS, generator=generator).to(hertz.device)
        phase[..., 0] = 0
        turns = (hertz.double() * torch.arange(1, HARMONICS + 1, device=hertz.device) / self.rate).cumsum(1) + phase
        sines, voiced = (2 * math.pi * turns.remainder(1).float()).sin(), (hertz > 0).float()
        made = LOUD * sines * voiced + noise * torch.where(hertz > 0, HISS, LOUD / 3)
        return self.m_source["l_linear"](made).tanh().mT

    def forward(self, mel: torch.Tensor, hertz: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        source, x = self.source(hertz, generator), self.conv_pre(mel.mT)
        for i, (up, beside) in enumerate(zip(self.ups, self.noise_convs)):
            x = up(F.leaky_relu(x, 0.1)) + beside(source)
            x = sum(block(x) for block in self.resblocks[i * self.each : (i + 1) * self.each]) / self.each
        return self.conv_post(F.leaky_relu(x)).tanh()[:, 0]
