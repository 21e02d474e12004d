"""Our contrastive scorer of sounds against captions. Not CLAP: it knows the sounds world alone."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

RATE, FFT, HOP_MEL, MELS = 16_000, 1024, 256, 64


def mel_filters(bands: int = MELS, low: float = 40.0, high: float = 8_000.0) -> torch.Tensor:
    """(bands, FFT // 2 + 1) triangles, evenly spaced in mels (2595·log10(1 + f/700))."""
    mel = torch.linspace(2595 * math.log10(1 + low / 700), 2595 * math.log10(1 + high / 700), bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mel / 2595) - 1)
    f = torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64)
    rise, fall = (f - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None], (edges[2:, None] - f) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp_min(0).float()


def log_mel(audio: torch.Tensor) -> torch.Tensor:
    """(B, MELS, frames) of (B, T) samples at RATE: natural log of the filters' power, floored at 1e-5, shifted and scaled to about ±2."""
    spectrum = torch.stft(audio.float(), FFT, HOP_MEL, window=torch.hann_window(FFT, device=audio.device), return_complex=True).abs().square()
    return ((mel_filters().to(audio.device) @ spectrum).clamp_min(1e-5).log() + 4) / 4


class SoundsScorer(ModelMixin, ConfigMixin):
    """`audio` (B, T) and `text` states (B, N, 384) as unit vectors (B, dim); their product times exp(`scale`) is the logit that they belong together."""

    @register_to_config
    def __init__(self, width: int = 32, dim: int = 96, text_dim: int = 384):
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        layers, before = [], 1
        for i, w in enumerate(widths):
            layers += [
                nn.Conv2d(before, w, 3, stride=(2, 2), padding=1),
                nn.GroupNorm(8, w),
                nn.GELU(),
                nn.Conv2d(w, w, 3, padding=1, groups=1 if i < 2 else 4),
                nn.GroupNorm(8, w),
                nn.GELU(),
            ]
            before = w
        self.trunk = nn.Sequential(*layers)
        # Frequency stays apart until here, and what happens when is kept by an attention over time with places.
        self.join = nn.Linear(before * MELS // 16, 2 * dim)
        self.places = nn.Parameter(torch.zeros(16, 2 * dim))
        self.hear = nn.TransformerEncoderLayer(2 * dim, 4, 4 * dim, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.audio_head = nn.Linear(2 * dim, dim)
        self.text_in = nn.Linear(text_dim, 2 * dim)
        self.read = nn.TransformerEncoderLayer(2 * dim, 4, 4 * dim, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.text_head = nn.Linear(2 * dim, dim)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def audio(self, samples):
        x = self.trunk(log_mel(samples)[:, None].to(self.join.weight.dtype))  # (B, C, MELS/16, frames/16)
        x = self.join(x.flatten(1, 2).transpose(1, 2))
        places = F.interpolate(self.places.T[None], size=x.shape[1], mode="linear", align_corners=True)[0].T
        return F.normalize(self.audio_head(self.hear(x + places).mean(1)).float(), dim=-1)

    def text(self, states, there):
        """`there` (B, N) bool: which states are the text's."""
        x = self.read(self.text_in(states.to(self.text_in.weight.dtype)), src_key_padding_mask=~there)
        return F.normalize(self.text_head((x * there[..., None]).sum(1) / there.sum(1, keepdim=True)).float(), dim=-1)
