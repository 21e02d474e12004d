"""MDLM's network, a diffusion transformer over tokens, under the tensor names of its checkpoint.

Sahoo et al., arXiv 2406.07524; names and arithmetic after kuleshov-group/mdlm's models/dit.py, checked against the 131 tensors and
678,522,728 bytes of kuleshov-group/mdlm-owt. Written anew: theirs runs on FlashAttention alone. Where we differ: all is in the
weights' own precision, where theirs runs the blocks under bfloat16, and there is no dropout.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """x (B, N, D) -> the same. `c` (1, C) gives a shift, a scale and a gate to each half."""

    def __init__(self, dim: int, cond: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.attn_qkv, self.attn_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))
        self.adaLN_modulation = nn.Linear(cond, 6 * dim)

    def forward(self, x, turn, c, seen=None):
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(c).chunk(6, -1)
        q, k, v = self.attn_qkv(self.norm1(x) * (1 + scale) + shift).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(turned(q, *turn), turned(k, *turn), v, attn_mask=seen)
        x = x + gate * self.attn_out(mixed.transpose(1, 2).flatten(2))
        return x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)


def turned(x, cos, sin):
    """Rotary positions: the first half of a head's features and the second are the two sides of a plane. x (B, H, N, d), cos (N, d/2)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Final(nn.Module):
    def __init__(self, dim: int, words: int, cond: int):
        super().__init__()
        self.norm_final, self.linear, self.adaLN_modulation = nn.LayerNorm(dim, bias=False), nn.Linear(dim, words), nn.Linear(cond, 2 * dim)

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, -1)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


class Embedding(nn.Module):
    def __init__(self, words: int, dim: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(words, dim))


class Sigma(nn.Module):
    """What the layers are told of the noise level: of this checkpoint always 0 (time_conditioning is off), so one vector (1, C)."""

    waves = 128

    def __init__(self, cond: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * self.waves, cond), nn.SiLU(), nn.Linear(cond, cond))

    def forward(self):
        zero = self.mlp[0].weight.new_zeros(1, self.waves)  # σ times each frequency
        return F.silu(self.mlp(torch.cat([zero.cos(), zero.sin()], -1)))


class Rotary(nn.Module):
    def __init__(self, head: int):
        super().__init__()
        self.register_buffer("inv_freq", 10_000.0 ** (-torch.arange(0, head, 2).float() / head))

    def forward(self, n: int, dtype):
        angle = torch.outer(torch.arange(n, device=self.inv_freq.device).float(), self.inv_freq.float())
        return angle.cos().to(dtype), angle.sin().to(dtype)


class Backbone(nn.Module):
    def __init__(self, words: int, dim: int, cond: int, layers: int, heads: int):
        super().__init__()
        self.vocab_embed, self.sigma_map, self.rotary_emb = Embedding(words, dim), Sigma(cond), Rotary(dim // heads)
        self.blocks = nn.ModuleList(Block(dim, cond, heads) for _ in range(layers))
        self.output_layer = Final(dim, words, cond)

    def forward(self, ids, seen=None, keep: int = 0):
        x, c = self.vocab_embed.embedding[ids], self.sigma_map()
        turn = self.rotary_emb(ids.shape[1], x.dtype)
        for block in self.blocks:
            x = block(x, turn, c, seen)
        return self.output_layer(x[:, -keep:], c)


class Mdlm(nn.Module):
    """Raw logits (B, N, V) of ids (B, N) as `.logits`; SUBS, which rules the mask token out, is the predictor's.

    `attention_mask` (B, N): false where a row is padded, which no token sees. The publishers have no padding; positions count from
    the canvas's start, and rotary attention knows only their differences. `config`: their config.json.
    """

    def __init__(self, config: dict):
        super().__init__()
        if config.get("time_conditioning"):
            raise ValueError("this network is told the noise level, which predictors don't know")
        self.backbone = Backbone(config["vocab_size"], config["hidden_dim"], config["cond_dim"], config["n_blocks"], config["n_heads"])

    def forward(self, input_ids, attention_mask=None, logits_to_keep: int = 0):
        seen = None if attention_mask is None else attention_mask.bool()[:, None, None]
        return SimpleNamespace(logits=self.backbone(input_ids, seen, logits_to_keep))
