"""SwinIR (Liang et al., arXiv 2108.10257) with the names of its publishers' checkpoints, in the form that DifFace's restorer has: the picture's 8×8 px
are folded into channels, transformer blocks work there, three doublings lead back.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FACES = dict(width=180, depths=(6,) * 8, heads=6, window=8, fold=8)  # iddpm_ffhq512_swinir.yaml
MEAN = (0.4488, 0.4371, 0.4040)  # of the pictures that SwinIR was first trained on


@functools.cache
def offsets(window: int) -> Tensor:
    """(window², window²): which of the (2·window − 1)² relative positions each pair of places has."""
    at = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    apart = at[:, None] - at[None] + window - 1
    return apart[..., 0] * (2 * window - 1) + apart[..., 1]


@functools.lru_cache(8)
def parted(h: int, w: int, window: int, device: str) -> Tensor:
    """(windows, 1, window², window²): 0 where two places of a shifted window were neighbours before it, −100 elsewhere."""
    shift = window // 2

    def side(n):
        return (torch.arange(n) >= n - window).int() + (torch.arange(n) >= n - shift).int()

    which = windows((3 * side(h)[:, None] + side(w))[None, ..., None], window)[..., 0]
    return (which[:, None] != which[:, :, None]).float()[:, None].mul(-100).to(device)


def windows(x: Tensor, n: int) -> Tensor:
    """(B, H, W, C) to (B·windows, n², C)."""
    return x.unflatten(2, (-1, n)).unflatten(1, (-1, n)).transpose(2, 3).flatten(0, 2).flatten(1, 2)


def joined(x: Tensor, n: int, h: int, w: int) -> Tensor:
    """The inverse of `windows`."""
    return x.unflatten(1, (n, n)).unflatten(0, (-1, h // n, w // n)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


class WindowAttention(nn.Module):
    def __init__(self, width: int, window: int, heads: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B·windows, window², C) to the same; `mask`: (windows, 1, window², window²)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[offsets(self.window).to(x.device)].permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask).repeat(len(x) // len(mask), 1, 1, 1)
        return self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, inside: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inside), nn.Linear(inside, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    def __init__(self, width: int, window: int, heads: int, shift: int):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.attn, self.norm2, self.mlp = nn.LayerNorm(width), WindowAttention(width, window, heads), nn.LayerNorm(width), Mlp(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C)."""
        h, w = x.shape[1:3]
        y = torch.roll(self.norm1(x), (-self.shift,) * 2, (1, 2)) if self.shift else self.norm1(x)
        y = joined(self.attn(windows(y, self.window), parted(h, w, self.window, str(x.device)) if self.shift else None), self.window, h, w)
        x = x + (torch.roll(y, (self.shift,) * 2, (1, 2)) if self.shift else y)
        return x + self.mlp(self.norm2(x))


class Group(nn.Module):
    """Blocks, every other one shifted by half a window; a convolution; and what came in."""

    def __init__(self, width: int, depth: int, window: int, heads: int):
        super().__init__()
        self.residual_group = nn.Module()
        self.residual_group.blocks = nn.ModuleList(SwinBlock(width, window, heads, window // 2 if i % 2 else 0) for i in range(depth))
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.residual_group.blocks:
            y = block(y)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinIR(nn.Module):
    """(B, 3, H, W) in [0, 1] to the same; H and W multiples of fold × window."""

    def __init__(self, width: int, depths: tuple[int, ...], heads: int, window: int, fold: int, features: int = 64):
        super().__init__()
        conv = functools.partial(nn.Conv2d, kernel_size=3, padding=1)
        self.conv_first = nn.Sequential(nn.PixelUnshuffle(fold), conv(3 * fold**2, width))
        self.patch_embed = nn.Module()
        self.patch_embed.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Group(width, depth, window, heads) for depth in depths)
        self.norm, self.conv_after_body = nn.LayerNorm(width), conv(width, width)
        self.conv_before_upsample = nn.Sequential(conv(width, features), nn.LeakyReLU())
        self.conv_up1, self.conv_up2, self.conv_up3, self.conv_hr, self.conv_last = *(conv(features, features) for _ in range(4)), conv(features, 3)
        self.fold = fold

    def forward(self, x: Tensor) -> Tensor:
        mean = x.new_tensor(MEAN).view(1, 3, 1, 1)
        first = self.conv_first(x - mean)
        y = self.patch_embed.norm(first.permute(0, 2, 3, 1))
        for layer in self.layers:
            y = layer(y)
        y = self.conv_before_upsample(first + self.conv_after_body(self.norm(y).permute(0, 3, 1, 2)))
        for up in (self.conv_up1, self.conv_up2, self.conv_up3)[: self.fold.bit_length() - 1]:
            y = F.leaky_relu(up(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(y), 0.2)) + mean
