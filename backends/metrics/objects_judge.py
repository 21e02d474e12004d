"""Which object of the object world a picture shows, in which look, with what on top, and from which side.

Small heads on frozen ImageNet features (EfficientNet-Lite0, features.py), trained by `backends.train.objects_judge` on renders of the
world over plain grounds, many of them blurred or coarse. The networks under comparison were not trained with it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from backends.metrics.detector import Residual, fitted
from backends.metrics.features import effnet
from backends.models import ASSETS, device
from backends.worlds.objects import ACCESSORIES, LOOKS, OBJECTS, VIEWS

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = ASSETS / "objects-judge"
HEADS = {"object": OBJECTS, "look": LOOKS, "accessory": tuple(ACCESSORIES), "view": VIEWS}
TAPS, CHANNELS, SIDES = (4, 10, 15), (40, 112, 320), (8, 8, 4)  # depths of the features, their channels and the side they are kept at
COLOURS = 32  # side at which the pixels themselves are kept: the features care little for colour


def features(pixels: Tensor) -> list[Tensor]:
    """What the heads see of (B, 3, H, W) in [-1, 1]: (B, C, side, side) a tap, then (B, 3, COLOURS, COLOURS)."""
    x = fitted(pixels)
    found = zip([*effnet(str(x.device))(x, TAPS), x], (*SIDES, COLOURS))
    return [F.avg_pool2d(f, f.shape[-1] // side) if f.shape[-1] > side else f for f, side in found]


class Judge(nn.Module):
    """Taps and pixels on a 4×4 grid, mixed; read with their places, since the sides of a thing differ in where its parts are."""

    def __init__(self, width: int = 128, inner: int = 320):
        super().__init__()
        widths = (48, 112, width)
        self.side = nn.ModuleList(nn.Conv2d(c, w, s // 4, s // 4) for c, w, s in zip(CHANNELS, widths, SIDES))
        self.side.append(nn.Sequential(nn.Conv2d(3, 32, 2, 2), nn.SiLU(), nn.Conv2d(32, 64, COLOURS // 8, COLOURS // 8)))
        self.join, self.mix = nn.Conv2d(sum(widths) + 64, width, 1), Residual(width)
        self.read = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * width, inner), nn.SiLU(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({name: nn.Linear(inner, len(words)) for name, words in HEADS.items()})

    def see(self, inputs: list[Tensor]) -> Tensor:
        """(B, inner): what the heads read."""
        return self.read(self.mix(self.join(torch.cat([F.silu(side(f)) for side, f in zip(self.side, inputs)], 1))))

    def forward(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """Logits over the words of each head."""
        x = self.see(inputs)
        return {name: head(x).float() for name, head in self.heads.items()}


@functools.cache
def judge() -> Judge:
    """The trained judge, frozen."""
    from safetensors.torch import load_file

    net = Judge()
    net.load_state_dict({k: v.float() for k, v in load_file(FOLDER / "judge.safetensors").items()})
    return net.eval().requires_grad_(False).to(device())


@torch.no_grad()
def probabilities(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Of (n, H, W, 3) uint8: (n, words of the head) for each of HEADS."""
    rows = [{name: logits.softmax(-1).cpu().numpy() for name, logits in judge()(inputs).items()} for inputs in _batches(pictures)]
    return {name: np.concatenate([r[name] for r in rows]) for name in HEADS}


@torch.no_grad()
def embedded(pictures: np.ndarray) -> np.ndarray:
    """Of (n, H, W, 3) uint8: (n, inner) float32, what the heads read; a difference of two points from one thing to another."""
    return np.concatenate([judge().see(inputs).float().cpu().numpy() for inputs in _batches(pictures)])


def _batches(pictures: np.ndarray, size: int = 64) -> Iterator[list[Tensor]]:
    for k in range(0, len(pictures), size):
        yield features(torch.from_numpy(np.ascontiguousarray(pictures[k : k + size])).permute(0, 3, 1, 2).to(device()).float().div(127.5).sub(1))
