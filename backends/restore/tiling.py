"""A large picture as overlapping tiles that a network takes as a batch, and its answers faded into each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of `tile` begin so that they cover `length`, neighbours sharing at least `overlap`; one at 0 where it fits whole."""
    if length <= tile:
        return [0]
    n = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (n - 1)) for i in range(n)]


class Tiles:
    """Tiles of (1, C, h, w) tensors of one size, and of others `scale` times as large.

    Each place of the picture is a mean of the tiles that hold it, weighed by how far it lies within them (feathered): no seam shows.
    """

    def __init__(self, h: int, w: int, tile: int, overlap: int):
        self.size, self.tile = (h, w), (min(h, tile), min(w, tile))
        self.spots = [(y, x) for y in starts(h, tile, overlap) for x in starts(w, tile, overlap)]
        self.overlap = overlap

    def __len__(self) -> int:
        return len(self.spots)

    def cut(self, x: Tensor, scale: int = 1) -> Tensor:
        """(tiles, C, …) of (1, C, scale·h, scale·w)."""
        h, w = (scale * n for n in self.tile)
        return torch.cat([x[..., scale * top : scale * top + h, scale * left : scale * left + w] for top, left in self.spots])

    def join(self, parts: Tensor, scale: int = 1) -> Tensor:
        """(1, C, scale·h, scale·w) of the tiles' answers."""
        if len(parts) == 1:
            return parts
        (h, w), weight = self.tile, self._feather(scale, parts)
        out = parts.new_zeros(1, parts.shape[1], *(scale * n for n in self.size))
        total = torch.zeros_like(out[:, :1])
        for part, (top, left) in zip(parts, self.spots):
            place = ..., slice(scale * top, scale * (top + h)), slice(scale * left, scale * (left + w))
            out[place] += part * weight
            total[place] += weight
        return out / total

    def _feather(self, scale: int, like: Tensor) -> Tensor:
        def ramp(n: int) -> Tensor:
            at = torch.arange(scale * n, device=like.device, dtype=like.dtype) + 0.5
            return torch.minimum(at, scale * n - at).clamp_max(scale * self.overlap)

        return torch.outer(ramp(self.tile[0]), ramp(self.tile[1]))


def tiled(run: Callable[..., Tensor], tiles: Tiles, batch: int, *given: tuple[Tensor, int], scale: int = 1) -> Tensor:
    """`run` on at most `batch` tiles at once of each (tensor, its scale), the answers, `scale` times a tile's size, joined."""
    cuts = [tiles.cut(x, s) for x, s in given]
    parts = [run(*(c[i : i + batch] for c in cuts)) for i in range(0, len(tiles), batch)]
    return tiles.join(torch.cat(parts), scale)
