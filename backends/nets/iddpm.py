"""The UNet of improved DDPM (Nichol and Dhariwal, arXiv 2102.09672) with the names of its publishers' checkpoints, as DifFace's prior is one.

diffusers' UNet2DModel has one number of blocks for all levels and other names; this one takes theirs as they are.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FFHQ512 = dict(side=512, width=32, multiples=(1, 2, 4, 8, 8, 16, 16), blocks=(1, 2, 2, 2, 2, 3, 4), attention=(32, 16, 8))  # iddpm_ffhq512_swinir.yaml


class GroupNorm(nn.GroupNorm):
    def __init__(self, channels: int):
        super().__init__(32, channels)


class Block(nn.Module):
    """Two convolutions; the time scales and shifts the second's normalised input."""

    def __init__(self, inside: int, outside: int, time: int):
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm(inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outside))
        self.out_layers = nn.Sequential(GroupNorm(outside), nn.SiLU(), nn.Identity(), nn.Conv2d(outside, outside, 3, padding=1))  # dropout in the middle
        self.skip_connection = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.emb_layers(time)[..., None, None].chunk(2, 1)
        h = self.out_layers[0](self.in_layers(x)) * (1 + scale) + shift
        return self.skip_connection(x) + self.out_layers[1:](h)


class Attention(nn.Module):
    """Heads of 64 channels; queries, keys and values of a head stand together."""

    def __init__(self, channels: int, per_head: int = 64):
        super().__init__()
        self.heads = channels // per_head
        self.norm, self.qkv, self.proj_out = GroupNorm(channels), nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        flat = x.flatten(2)
        q, k, v = self.qkv(self.norm(flat)).unflatten(1, (self.heads, -1)).mT.chunk(3, -1)  # (B, heads, places, per_head)
        return (flat + self.proj_out(F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2))).view(x.shape)


class Down(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, 2, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class First(nn.Conv2d):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x)


def through(layers: nn.ModuleList, x: Tensor, time: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x, time)
    return x


class IDDPM(nn.Module):
    """(B, 3, side, side) in [-1, 1] and timesteps (B,) to (B, 6, side, side): ε, and a learned variance.

    `attention`: the sides in px at which it stands; `multiples`, `blocks`: channels and blocks, level by level.
    """

    def __init__(self, side: int, width: int, multiples: tuple[int, ...], blocks: tuple[int, ...], attention: tuple[int, ...]):
        super().__init__()
        time, channels = 4 * width, multiples[0] * width
        self.width, self.time_embed = width, nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.input_blocks, skips = nn.ModuleList([nn.ModuleList([First(3, channels, 3, padding=1)])]), [channels]
        for level, (multiple, n) in enumerate(zip(multiples, blocks, strict=True)):
            for _ in range(n):
                layers = [Block(channels, multiple * width, time)]
                channels = multiple * width
                layers += [Attention(channels)] if side >> level in attention else []
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(channels)
            if level < len(multiples) - 1:
                self.input_blocks.append(nn.ModuleList([Down(channels)]))
                skips.append(channels)
        self.middle_block = nn.ModuleList([Block(channels, channels, time), Attention(channels), Block(channels, channels, time)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(multiples))):
            for i in range(blocks[level] + 1):
                layers = [Block(channels + skips.pop(), multiples[level] * width, time)]
                channels = multiples[level] * width
                layers += [Attention(channels)] if side >> level in attention else []
                layers += [Up(channels)] if level and i == blocks[level] else []
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, 6, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.width // 2
        angles = t.float()[:, None] * torch.exp(-math.log(10000) / half * torch.arange(half, device=t.device))
        time, kept = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1)), []
        for layers in self.input_blocks:
            x = through(layers, x, time)
            kept.append(x)
        x = through(self.middle_block, x, time)
        for layers in self.output_blocks:
            x = through(layers, torch.cat([x, kept.pop()], 1), time)
        return self.out(x)
