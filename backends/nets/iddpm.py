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
    """Two convolutions; the time scales and shifts the second's normalised input, or, without `film`, is added before."""

    def __init__(self, inside: int, outside: int, time: int, film: bool = True):
        super().__init__()
        self.film = film
        self.in_layers = nn.Sequential(GroupNorm(inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, (1 + film) * outside))
        self.out_layers = nn.Sequential(GroupNorm(outside), nn.SiLU(), nn.Identity(), nn.Conv2d(outside, outside, 3, padding=1))  # dropout in the middle
        self.skip_connection = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h, told = self.in_layers(x), self.emb_layers(time)[..., None, None]
        if not self.film:
            return self.skip_connection(x) + self.out_layers(h + told)
        scale, shift = told.chunk(2, 1)
        return self.skip_connection(x) + self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)


class Attention(nn.Module):
    """Heads of `per_head` channels; queries, keys and values of a head stand together."""

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


class UNet(nn.Module):
    """(B, into, h, w) and timesteps (B,) to (B, out, h, w).

    `multiples`, `blocks`: channels and blocks, level by level. `looking(channels, level, i)`: the layers behind block i of a level, as a list;
    those in the middle are of level −1.
    """

    def __init__(self, into: int, out: int, width: int, multiples: tuple[int, ...], blocks: tuple[int, ...], looking, film: bool = True):
        super().__init__()
        time, channels = 4 * width, multiples[0] * width
        self.width, self.time_embed = width, nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.input_blocks, skips = nn.ModuleList([nn.ModuleList([First(into, channels, 3, padding=1)])]), [channels]
        for level, (multiple, n) in enumerate(zip(multiples, blocks, strict=True)):
            for i in range(n):
                self.input_blocks.append(nn.ModuleList([Block(channels, multiple * width, time, film), *looking(multiple * width, level, i)]))
                channels = multiple * width
                skips.append(channels)
            if level < len(multiples) - 1:
                self.input_blocks.append(nn.ModuleList([Down(channels)]))
                skips.append(channels)
        self.middle_block = nn.ModuleList([Block(channels, channels, time, film), *looking(channels, -1, 0), Block(channels, channels, time, film)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(multiples))):
            for i in range(blocks[level] + 1):
                layers = [Block(channels + skips.pop(), multiples[level] * width, time, film)]
                channels = multiples[level] * width
                layers += [*looking(channels, level, i)] + ([Up(channels)] if level and i == blocks[level] else [])
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))

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


class IDDPM(UNet):
    """(B, 3, side, side) in [-1, 1] and timesteps (B,) to (B, 6, side, side): ε, and a learned variance. `attention`: the sides in px at which it stands."""

    def __init__(self, side: int, width: int, multiples: tuple[int, ...], blocks: tuple[int, ...], attention: tuple[int, ...]):
        look = lambda channels, level, i: [Attention(channels)] if level < 0 or side >> level in attention else []  # noqa: E731
        super().__init__(3, 6, width, multiples, blocks, look)
