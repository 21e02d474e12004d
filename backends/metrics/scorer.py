"""How well a picture of the emoji world agrees with a text: the cosine of a picture and a text tower.

Contrastive training after Radford et al. (CLIP, arXiv 2103.00020), on rendered scenes with true captions and captions
made false in one point (count, side, colour, object). The picture tower reads the first detector's maps, where each
cell is worded as Σ p(concept) · MiniLM(name), beside shallow ImageNet features for colours and backgrounds; the text
tower reads MiniLM's token states. Differentiable with respect to the pixels.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from backends.metrics import detector
from backends.models import device
from backends.worlds import emoji

if TYPE_CHECKING:
    from torch import Tensor

WORDS, TOKENS, CELLS = 384, 32, 8


def tower(width: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, width // 48, 3 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class Scorer(nn.Module):
    def __init__(self, width: int = 192):
        super().__init__()
        self.register_buffer("names", torch.zeros(len(emoji.concepts()), WORDS))  # MiniLM's mean state of each concept's name
        self.cell = nn.Linear(WORDS + 1 + 40 + 112, width)
        self.place = nn.Parameter(torch.randn(1, CELLS**2, width) * 0.02)
        self.word = nn.Linear(WORDS, width)
        self.position = nn.Parameter(torch.randn(1, TOKENS, width) * 0.02)
        self.image, self.text = tower(width, 1), tower(width, 2)
        self.image_out, self.text_out = nn.Linear(2 * width, 256), nn.Linear(2 * width, 256)
        self.scale = nn.Parameter(torch.tensor(2.7))

    def cells(self, judge: nn.Module, features: list[Tensor]) -> Tensor:
        """(B, 64, 537): what the detector makes of each cell, as words, and the shallow features there."""
        found = judge(features)
        odds = judge.head.concept(found.inner.flatten(2).transpose(1, 2)).float().softmax(-1)
        here = found.objectness.sigmoid()[:, None]
        words = (odds @ self.names).transpose(1, 2).unflatten(2, (detector.GRID, detector.GRID)) * here
        peak = here * (F.max_pool2d(here, 3, 1, 1) == here)  # one cell an object, so that they can be counted
        parts = [words, peak, F.adaptive_avg_pool2d(features[0].float(), CELLS) / 4, F.adaptive_avg_pool2d(features[1].float(), CELLS) / 4]
        return torch.cat([F.adaptive_avg_pool2d(p, CELLS) * (4 if i < 2 else 1) for i, p in enumerate(parts)], 1).flatten(2).transpose(1, 2)

    def see(self, cells: Tensor) -> Tensor:
        h = self.image(self.cell(cells) + self.place).float()
        return F.normalize(self.image_out(torch.cat([h.mean(1), h.amax(1)], 1)).float(), dim=1)

    def read(self, states: Tensor) -> Tensor:
        blank = states.abs().amax(2) == 0
        longest = int((~blank).sum(1).max())
        states, blank = states[:, :longest], blank[:, :longest]
        h = self.text(self.word(states) + self.position[:, :longest], src_key_padding_mask=blank).float()
        n = (~blank).sum(1, keepdim=True)
        mean = h.masked_fill(blank[..., None], 0).sum(1) / n
        return F.normalize(self.text_out(torch.cat([mean, h.masked_fill(blank[..., None], -1e4).amax(1)], 1)).float(), dim=1)


@functools.cache
def scorer() -> Scorer:
    from safetensors.torch import load_file

    net = Scorer()
    net.load_state_dict({k: v.float() for k, v in load_file(detector.FOLDER / "scorer.safetensors").items()})
    return net.eval().requires_grad_(False).to(device())


def available() -> bool:
    return detector.available() and (detector.FOLDER / "scorer.safetensors").exists()


def embed_images(pixels: Tensor) -> Tensor:
    """(B, 256) of unit length; pixels: (B, 3, H, W) in [-1, 1]. Differentiable."""
    judge, net = detector.judge(), scorer()
    return net.see(net.cells(judge, judge.inputs(detector.fitted(pixels))))


@functools.lru_cache(256)
def _read(text: str) -> Tensor:
    from backends.embedded import token_states

    with torch.no_grad():
        return scorer().read(token_states([text])[0].to(device()))[0]


def embed_texts(texts: list[str]) -> Tensor:
    """(B, 256) of unit length."""
    return torch.stack([_read(t) for t in texts])


def cosines(pixels: Tensor, texts: list[str]) -> Tensor:
    """(B,) cosine of each picture with its text; differentiable."""
    return (embed_images(pixels) * embed_texts(texts)).sum(1)
