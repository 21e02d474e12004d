"""EzAudio's diffusion transformer (Hai et al., arXiv 2409.10819, section 2.2), written as its official code computes it.

An input half, a middle block and an output half joined by long skips; every time modulation is one shared projection plus a
low-rank one and a table of the block's own (AdaLN-SOLA).
"""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

MODULATIONS = ("sola", "shared", "full")  # the paper's; one for all blocks and a table each (PixArt-α); a projection a block (DiT)


def places(length: int, dim: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin (length, dim) of rotary places (Su et al., arXiv 2104.09864), base 10,000, in halves; the blocks share them."""
    freqs = 10_000 ** (-torch.arange(0, dim, 2, device=device).float() / dim)
    angles = torch.outer(torch.arange(length, device=device).float(), freqs).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(B, heads, L, D) turned by its place along L."""
    one, two = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat([-two, one], -1) * sin.to(x.dtype)


class Attention(nn.Module):
    """Over itself with rotary places, or over `context` without; queries and keys pass a LayerNorm of their own, a head at a time."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.norm_q, self.norm_k = nn.LayerNorm(dim // heads), nn.LayerNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, context=None, mask=None, rope=None):
        """x (B, L, D); context (B, N, D); mask (B, N) bool, True where the context holds something; rope: `places` along L."""
        source = x if context is None else context
        q, k, v = (layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer, y in ((self.to_q, x), (self.to_k, source), (self.to_v, source)))
        q, k = self.norm_q(q), self.norm_k(k)
        if rope is not None:
            q, k = rotated(q, *rope), rotated(k, *rope)
        out = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=None if mask is None else mask[:, None, None])
        return self.proj(out.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.inside, self.out = nn.Linear(dim, 2 * inner), nn.Linear(inner, dim)

    def forward(self, x):
        value, gate = self.inside(x).chunk(2, -1)
        return self.out(value * F.gelu(gate))


class AdaLN(nn.Module):
    """(B, 6, D): shift, scale and gate of the attention and of the MLP, from SiLU(time embedding) and the shared projection of it."""

    def __init__(self, dim: int, modulation: str, rank: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(6, dim))
        if modulation == "sola":
            self.lora_a, self.lora_b = nn.Linear(dim, 6 * rank, bias=False), nn.Linear(6 * rank, 6 * dim, bias=False)
        elif modulation == "full":
            self.own = nn.Linear(dim, 6 * dim)
        self.modulation = modulation

    def forward(self, time, shared):
        if self.modulation == "sola":  # the official scale α/r is 1
            shared = shared + self.lora_b(self.lora_a(time))
        elif self.modulation == "full":
            shared = self.own(time)
        return shared.unflatten(-1, (6, -1)) + self.table


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_ratio: float, modulation: str, rank: int, skip: bool):
        super().__init__()
        if skip:
            self.skip_norm, self.skip_linear = nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim)
        self.adaln = AdaLN(dim, modulation, rank)
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.norm_context, self.cross_attn = nn.LayerNorm(dim), nn.LayerNorm(dim), Attention(dim, heads)
        self.norm3, self.mlp = nn.LayerNorm(dim), GatedMLP(dim, int(dim * mlp_ratio))

    def forward(self, x, time, shared, context, mask, rope, skip=None):
        if skip is not None:
            x = self.skip_linear(self.skip_norm(torch.cat([x, skip], -1)))
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.adaln(time, shared).unsqueeze(2).unbind(1)
        # 1 − gate: at the zero start each residual is whole, where DiT's would be shut.
        x = x + (1 - gate) * self.attn(self.norm1(x) * (1 + scale) + shift, rope=rope)
        x = x + self.cross_attn(self.norm2(x), self.norm_context(context), mask)
        return x + (1 - mlp_gate) * self.mlp(self.norm3(x) * (1 + mlp_scale) + mlp_shift)


class EzDiT(ModelMixin, ConfigMixin):
    """v (B, channels, L) of a noisy latent (B, channels, L) at integer timesteps, given token states of a text.

    The input has 2·channels + 1: the noisy latent, what is known of the clean one (a learnt vector where nothing is) and a mask,
    1 where it is to be made. `latent_shift` and `latent_scale` bring the autoencoder's latents to mean 0 and deviation 1:
    z = (latent − latent_shift) · latent_scale.
    """

    @register_to_config
    def __init__(self, channels: int = 24, dim: int = 192, depth: int = 6, heads: int = 4, mlp_ratio: float = 3.0, context_dim: int = 384,
                 modulation: str = "sola", rank: int = 8, latent_shift: float = 0.0, latent_scale: float = 1.0):  # fmt: skip
        super().__init__()
        if modulation not in MODULATIONS or depth % 2:
            raise ValueError(f"modulation is one of {MODULATIONS} and depth even")
        self.mask_embed = nn.Parameter(torch.zeros(channels))
        self.embed = nn.Conv1d(2 * channels + 1, dim, 1)
        self.time_embed = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.context_embed = nn.Sequential(nn.Linear(context_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_ada = None if modulation == "full" else nn.Linear(dim, 6 * dim)
        self.time_ada_head = nn.Linear(dim, 2 * dim)
        block = lambda skip: Block(dim, heads, mlp_ratio, modulation, rank, skip)  # noqa: E731
        self.in_blocks = nn.ModuleList(block(False) for _ in range(depth // 2))
        self.mid_block = block(False)
        self.out_blocks = nn.ModuleList(block(True) for _ in range(depth // 2))
        self.norm_head, self.head, self.head_conv = nn.LayerNorm(dim), nn.Linear(dim, channels), nn.Conv1d(channels, channels, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embed.weight), nn.init.zeros_(self.embed.bias)
        nn.init.xavier_uniform_(self.head_conv.weight), nn.init.zeros_(self.head_conv.bias)
        silent = [self.time_ada, self.time_ada_head]
        for block in (*self.in_blocks, self.mid_block, *self.out_blocks):
            silent += [block.cross_attn.proj, getattr(block.adaln, "lora_b", None), getattr(block.adaln, "own", None)]
            if hasattr(block.adaln, "lora_a"):
                nn.init.kaiming_uniform_(block.adaln.lora_a.weight, a=math.sqrt(5))
        for layer in filter(None, silent):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, sample, timestep, encoder_hidden_states, encoder_attention_mask=None, known=None, mask=None):
        """`known` (B, channels, L): the clean latent; `mask` (B, 1, L): 1 where it is to be made, 0 where `known` holds. Neither: make all."""
        length = sample.shape[-1]
        nothing = self.mask_embed[None, :, None].expand(len(sample), -1, length).to(sample.dtype)
        mask = torch.ones_like(sample[:, :1]) if mask is None else mask.to(sample.dtype)
        known = nothing if known is None else torch.where(mask > 0.5, nothing, known)
        x = self.embed(torch.cat([sample, known, mask], 1)).transpose(1, 2)
        context = self.context_embed(encoder_hidden_states.to(sample.dtype))
        t = torch.as_tensor(timestep, device=sample.device).expand(len(sample)).float()
        freqs = torch.exp(-math.log(10_000) * torch.arange(128, device=t.device) / 128)
        angles = t[:, None] * freqs
        time = F.silu(self.time_embed(torch.cat([angles.cos(), angles.sin()], -1).to(sample.dtype)))
        shared = None if self.time_ada is None else self.time_ada(time)
        rope, skips = places(length, self.config.dim // self.config.heads, sample.device), []
        for block in self.in_blocks:
            x = block(x, time, shared, context, encoder_attention_mask, rope)
            skips.append(x)
        x = self.mid_block(x, time, shared, context, encoder_attention_mask, rope)
        for block in self.out_blocks:
            x = block(x, time, shared, context, encoder_attention_mask, rope, skips.pop())
        shift, scale = self.time_ada_head(time).unsqueeze(1).chunk(2, -1)
        return self.head_conv(self.head(self.norm_head(x) * (1 + scale) + shift).transpose(1, 2))
