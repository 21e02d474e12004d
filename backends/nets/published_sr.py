"""The UNets of two published super-resolution models with the names of their checkpoints: ResShift's (and its students') and MoE-SR's.

Both are improved DDPM's UNet on latents of a VQ-f4 autoencoder, beside the small picture at the latents' size. In ResShift's, Swin blocks stand behind the
first block of each level; in MoE-SR's, attention and a feed-forward network (the mean of its sixteen experts) behind each block of the last level.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backends.nets import iddpm
from backends.nets.swinir import WindowAttention, joined, windows

RESSHIFT = dict(width=160, multiples=(1, 2, 2, 4), blocks=(2, 2, 2, 2), swin=192, heads=6, depth=2, window=8)  # realsr_swinunet_realesrgan256.yaml
MOE = dict(width=160, multiples=(1, 2, 2, 4), blocks=(2, 2, 2, 2), per_head=32)  # config_sr_FFNMoe_ewa_time_stage.yaml


@functools.lru_cache(8)
def apart(h: int, w: int, window: int, device: str) -> Tensor:
    """(windows, 1, window², window²): what the shifted blocks add to their attention, −100 or 0, as the official code has it.

    Its mask numbers the rows alone, and lies in each window with rows and columns exchanged; the checkpoints were trained with that.
    """
    row = torch.arange(h)
    part = ((row >= h - window).int() + (row >= h - window // 2).int()).view(-1, 1, 1, window)
    which = part.expand(-1, w // window, window, -1).reshape(-1, window**2)
    return (which[:, None] != which[:, :, None]).float()[:, None].mul(-100).to(device)


class SwinBlock(nn.Module):
    """A Swin transformer's block on (B, C, H, W), with group norms and a perceptron of 1×1 convolutions."""

    def __init__(self, width: int, heads: int, window: int, shift: int):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.attn, self.norm2, self.mlp = iddpm.GroupNorm(width), WindowAttention(width, window, heads), iddpm.GroupNorm(width), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        y = self.norm1(x).permute(0, 2, 3, 1)
        y = torch.roll(y, (-self.shift,) * 2, (1, 2)) if self.shift else y
        y = joined(self.attn(windows(y, self.window), apart(h, w, self.window, str(x.device)) if self.shift else None), self.window, h, w)
        x = x + (torch.roll(y, (self.shift,) * 2, (1, 2)) if self.shift else y).permute(0, 3, 1, 2)
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Swin(nn.Module):
    """Channels to the blocks' width and back; every other block is shifted by half a window, but where one window is all."""

    def __init__(self, channels: int, width: int, heads: int, depth: int, window: int, shifts: bool):
        super().__init__()
        self.patch_embed, self.patch_unembed = nn.Module(), nn.Module()
        self.patch_embed.proj, self.patch_unembed.proj = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        self.blocks = nn.ModuleList(SwinBlock(width, heads, window, window // 2 if i % 2 and shifts else 0) for i in range(depth))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.patch_embed.proj(x)
        for block in self.blocks:
            x = block(x)
        return self.patch_unembed.proj(x)


class SwinUNet(iddpm.UNet):
    """(x (B, 3, h, w), t, low (B, 3, h, w) in [-1, 1]) to an estimate of x0. h, w: multiples of `window` · 2^(levels − 1); `side`: what it was trained at."""

    def __init__(self, width: int, multiples: tuple[int, ...], blocks: tuple[int, ...], swin: int, heads: int, depth: int, window: int, side: int = 64):
        def look(channels, level, i):
            at = side >> (level if level >= 0 else len(multiples) - 1)
            return [Swin(channels, swin, heads, depth, window, at > window)] if i == 0 else []

        super().__init__(6, 3, width, multiples, blocks, look)

    def forward(self, x: Tensor, t: Tensor, low: Tensor) -> Tensor:
        return super().forward(torch.cat([x, low], 1), t)


class Experts(nn.Module):
    """x + FFN(LN(x)) at each place; the sixteen experts of the checkpoint are averaged into the first (`averaged`)."""

    def __init__(self, channels: int):
        super().__init__()
        self.moe_norm = nn.LayerNorm(channels)
        self.moe_blocks = nn.ModuleList([nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Identity(), nn.Linear(4 * channels, channels))])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x + self.moe_blocks[0](self.moe_norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def averaged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors with the experts' means under the first expert's names."""
    out, experts = {}, {}
    for name, w in state.items():
        before, found, after = name.partition(".moe_blocks.")
        if found:
            experts.setdefault(f"{before}{found}0.{after.partition('.')[2]}", []).append(w)
        else:
            out[name] = w
    return out | {name: torch.stack(ws).mean(0) for name, ws in experts.items()}


class MoeUNet(iddpm.UNet):
    """(x (B, 3, h, w), t, low (B, 3, h, w) in [-1, 1]) to ε. h, w: multiples of 2^(levels − 1)."""

    def __init__(self, width: int, multiples: tuple[int, ...], blocks: tuple[int, ...], per_head: int):
        def look(channels, level, i):
            return [iddpm.Attention(channels, per_head), Experts(channels)] if level in (-1, len(multiples) - 1) else []

        super().__init__(6, 3, width, multiples, blocks, look, film=False)

    def forward(self, x: Tensor, t: Tensor, low: Tensor) -> Tensor:
        return super().forward(torch.cat([x, low], 1), t)


class ResBlock(nn.Module):
    def __init__(self, into: int, out: int):
        super().__init__()
        norm = lambda n: nn.GroupNorm(32, n, eps=1e-6)  # noqa: E731
        self.norm1, self.conv1, self.norm2, self.conv2 = norm(into), nn.Conv2d(into, out, 3, padding=1), norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.conv_out = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class DenseBlock(nn.Module):
    def __init__(self, channels: int, grow: int):
        super().__init__()
        for i in range(5):
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels + i * grow, grow if i < 4 else channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for i in range(1, 5):
            seen.append(F.leaky_relu(getattr(self, f"conv{i}")(torch.cat(seen, 1)), 0.2))
        return x + 0.2 * self.conv5(torch.cat(seen, 1))


class Rrdb(nn.Module):
    def __init__(self, channels: int, grow: int = 32):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(channels, grow) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class Fusion(nn.Module):
    """What the encoder sees in the enlarged small picture, added to the decoder's features: h + f(e, h)."""

    def __init__(self, channels: int):
        super().__init__()
        self.encode_enc_1, self.encode_enc_2 = ResBlock(2 * channels, channels), nn.Sequential(Rrdb(channels), Rrdb(channels))
        self.encode_enc_3 = ResBlock(channels, channels)

    def forward(self, seen: Tensor, h: Tensor) -> Tensor:
        return h + self.encode_enc_3(self.encode_enc_2(self.encode_enc_1(torch.cat([seen, h], 1))))
