"""Noise-DA's two networks (arXiv 2406.18516) at the size that a CPU trains on: a restorer, and a diffusion network that looks at what it restored."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from torch import nn


def _block(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(b, b, 3, padding=1), nn.LeakyReLU(0.2))


class RestorationUNet(ModelMixin, ConfigMixin):
    """G: what to add to a degraded picture, (B, 3, H, W) in [0, 1]; H and W multiples of 2^(levels − 1).

    The official default (models/net/UNet.py) with a level and three quarters of the width less: convolutions and leaky ReLUs, no
    normalisation, so that a picture may be restored tile by tile.
    """

    @register_to_config
    def __init__(self, widths: tuple[int, ...] = (24, 48, 96)):
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.down = nn.ModuleList([_block(3, widths[0]), *(_block(a, b) for a, b in pairs)])
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(pairs))
        self.up = nn.ModuleList(_block(2 * a, a) for a, _ in reversed(pairs))
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.conv_out.weight.data.mul_(0.1)  # begins at about nothing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [self.down[0](x)]
        for down in self.down[1:]:
            seen.append(down(F.avg_pool2d(seen[-1], 2)))
        h = seen.pop()
        for narrow, up in zip(self.narrow, self.up):
            beside = seen.pop()
            h = up(torch.cat([narrow(F.interpolate(h, size=beside.shape[-2:], mode="bilinear")), beside], 1))
        return self.conv_out(h)

    def restore(self, degraded: torch.Tensor) -> torch.Tensor:
        return (degraded + self(degraded)).clamp(0, 1)


class NoiseUNet(ModelMixin, ConfigMixin):
    """F: the noise in a picture, given two others that may tell what is beneath it and the noise level γ = ᾱ (B,).

    diffusers' UNet2DModel on 2×2 pixels as channels, where the official one is a guided-diffusion UNet on pixels, of 64 channels and four
    levels. Dropout of 0.2 as there. Its configuration asks for attention at a rate of 16, which four levels never reach: none here either.
    """

    @register_to_config
    def __init__(self, widths: tuple[int, ...] = (24, 32, 48), layers: int = 1, dropout: float = 0.2):
        super().__init__()
        self.unet = UNet2DModel(
            in_channels=36, out_channels=12, block_out_channels=tuple(widths), layers_per_block=layers, dropout=dropout, norm_num_groups=8,
            down_block_types=("DownBlock2D",) * len(widths), up_block_types=("UpBlock2D",) * len(widths), add_attention=False)  # fmt: skip

    def forward(self, noisy: torch.Tensor, first: torch.Tensor, second: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Three times (B, 3, H, W) -> (B, 3, H, W); H and W multiples of 2^levels."""
        seen = F.pixel_unshuffle(torch.cat([noisy, first, second], 1), 2)
        return F.pixel_shuffle(self.unet(seen, 1000 * level).sample, 2)
