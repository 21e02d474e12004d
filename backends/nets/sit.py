"""A small text-conditional diffusion transformer (SiT/DiT family) as a diffusers module."""

import math
from types import SimpleNamespace

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """adaLN-zero block (Peebles & Xie, arXiv 2212.09748) over image and text tokens together."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight), nn.init.zeros_(self.modulation.bias)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(d / self.heads)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        s1, b1, g1, s2, b2, g2 = self.modulation(F.silu(c))[:, None].chunk(6, -1)
        x = x + g1 * self.attention(self.norm1(x) * (1 + s1) + b1)
        return x + g2 * self.mlp(self.norm2(x) * (1 + s2) + b2)


class SiT(ModelMixin, ConfigMixin):
    """net(z, t, encoder_hidden_states) → .sample, as UNet2DConditionModel is called.

    z: (B, channels, S, S); t: 0 to 1000, scalar or (B,); encoder_hidden_states: (B, L, text_width).
    """

    @register_to_config
    def __init__(self, channels=8, sample_size=16, patch=2, width=320, depth=8, heads=5, text_width=384, in_channels=8):
        super().__init__()
        self.patch, self.width = patch, width
        tokens = (sample_size // patch) ** 2
        self.embed = nn.Linear(channels * patch**2, width)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.text = nn.Linear(text_width, width)
        self.text_position = nn.Parameter(torch.randn(1, 128, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, channels * patch**2)
        for layer in (self.final, self.head):
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)

    def forward(self, sample, timestep, encoder_hidden_states, **_):
        b, _, h, w = sample.shape
        p = self.patch
        x = self.embed(F.pixel_unshuffle(sample, p).flatten(2).transpose(1, 2)) + self.position
        text = self.text(encoder_hidden_states)
        text = text + self.text_position[:, : text.shape[1]]
        t = torch.as_tensor(timestep, device=sample.device).float().expand(b)
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, device=t.device) / 128)
        angles = t[:, None] * frequencies
        c = self.time(torch.cat([angles.cos(), angles.sin()], -1).to(x.dtype))
        tokens, n = torch.cat([x, text], 1), x.shape[1]
        for block in self.blocks:
            tokens = block(tokens, c)
        scale, shift = self.final(F.silu(c))[:, None].chunk(2, -1)
        out = self.head(self.norm(tokens[:, :n]) * (1 + scale) + shift)
        out = F.pixel_shuffle(out.transpose(1, 2).reshape(b, -1, h // p, w // p), p)
        return SimpleNamespace(sample=out)
