"""InterLCM's visual encoder (Li et al., arXiv 2502.02215) with the names of its publishers' checkpoint: CLIP's 197×768 tokens to a text's 77×768.

Tokens are channels; convolutions and attention run along their numbers, of which there are 768, then 256, 512 and 768 again.
"""

import functools

from torch import Tensor, nn
from torch.nn import functional as F

norm = functools.partial(nn.GroupNorm, 32, eps=1e-6)


class Resize(nn.Module):
    def __init__(self, channels: int, size: int):
        super().__init__()
        self.size, self.conv = size, nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, size=self.size, mode="nearest"))


class Residual(nn.Module):
    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.norm1, self.conv1 = norm(inside), nn.Conv1d(inside, outside, 3, padding=1)
        self.norm2, self.conv2 = norm(outside), nn.Conv1d(outside, outside, 3, padding=1)
        if inside != outside:
            self.conv_out = nn.Conv1d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.conv_out(x) if hasattr(self, "conv_out") else x)


class Attention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).mT for layer in (self.q, self.k, self.v))
        return x + self.proj_out(F.scaled_dot_product_attention(q, k, v).mT)


class ClipVisualEncoder(nn.Module):
    """(B, tokens, 768) to (B, 77, 768). `multiples` of `width`: channels, the last first; attention stands at the widest."""

    def __init__(
        self,
        tokens: int = 197,
        width: int = 64,
        multiples: tuple[int, ...] = (2, 4, 8),
        blocks: int = 2,
        out: int = 77,
        sizes: tuple[int, ...] = (256, 512, 768),
    ):
        super().__init__()
        channels = widest = width * multiples[-1]
        layers = [
            nn.Conv1d(tokens, channels, 3, padding=1),
            Resize(channels, sizes[0]),
            Residual(channels, channels),
            Attention(channels),
            Residual(channels, channels),
        ]
        for level in reversed(range(len(multiples))):
            for _ in range(blocks):
                layers.append(Residual(channels, width * multiples[level]))
                channels = width * multiples[level]
                layers += [Attention(channels)] if channels == widest else []
            layers += [Resize(channels, sizes[len(multiples) - level])] if level else []
        self.blocks = nn.ModuleList([*layers, norm(channels), nn.Conv1d(channels, out, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.blocks:
            x = layer(x)
        return x
