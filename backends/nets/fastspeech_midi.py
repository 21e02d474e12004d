"""FastSpeech2MIDI and the pitch extractor of DiffSinger's official code (MoonInTheRiver, MIT), tensors named as in its checkpoints.

One song at a time, without padding: masks are left out. Mels are base-10 logarithms of magnitudes. Pitch is predicted as log2 of Hz.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from backends.nets.diffsinger import sinusoids

LONGEST = 5000  # phonemes; positions count down from here
COARSE, LOWEST, HIGHEST = 256, 50.0, 1100.0  # steps of the pitch embedding, Hz they span
SHAPE = dict(phones=63, mels=80, dim=256, heads=2, encoder_layers=4, decoder_layers=4, encoder_kernel=9, decoder_kernel=9, hidden=256,
             duration_layers=5, duration_kernel=3, pitch_layers=5, pitch_kernel=5, pitch=True)  # fmt: skip  # Opencpop's


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.in_proj_weight, self.out_proj = heads, nn.Parameter(torch.empty(3 * dim, dim)), nn.Linear(dim, dim, bias=False)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = F.linear(x, self.in_proj_weight).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """FastSpeech's block, under its name `op`."""

    def __init__(self, dim: int, heads: int, kernel: int):
        super().__init__()
        self.op = nn.ModuleDict({"layer_norm1": nn.LayerNorm(dim), "self_attn": Attention(dim, heads), "layer_norm2": nn.LayerNorm(dim), "ffn": nn.ModuleDict({
            "ffn_1": nn.Conv1d(dim, 4 * dim, kernel, padding=kernel // 2), "ffn_2": nn.Linear(4 * dim, dim)})})  # fmt: skip
        self.scale = kernel**-0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.op["self_attn"](self.op["layer_norm1"](x))
        ffn = self.op["ffn"]
        return x + ffn["ffn_2"](F.gelu(ffn["ffn_1"](self.op["layer_norm2"](x).mT).mT * self.scale))


class Blocks(nn.Module):
    def __init__(self, dim: int, heads: int, kernel: int, layers: int, placed: bool):
        super().__init__()
        self.layers, self.layer_norm = nn.ModuleList(Block(dim, heads, kernel) for _ in range(layers)), nn.LayerNorm(dim)
        self.pos_embed_alpha = nn.Parameter(torch.ones(1)) if placed else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = placed(x, self.pos_embed_alpha)
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


def placed(x: torch.Tensor, alpha: torch.Tensor | None) -> torch.Tensor:
    """x (B, L, dim) with the sinusoids of positions counted from 1; as it is where there is no alpha."""
    return x if alpha is None else x + alpha * sinusoids(torch.arange(1, x.shape[1] + 1, device=x.device), x.shape[2]).to(x.dtype)


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.mT).mT


class Predictor(nn.Module):
    """(B, L, dim) -> (B, L, out): the convolutions that predict durations, or pitch, which knows positions."""

    def __init__(self, dim: int, hidden: int, layers: int, kernel: int, out: int, placed: bool):
        super().__init__()
        self.conv = nn.ModuleList(
            nn.Sequential(nn.Identity(), nn.Conv1d(hidden if i else dim, hidden, kernel, padding=kernel // 2), nn.ReLU(), ChannelNorm(hidden, eps=1e-12))
            for i in range(layers)
        )
        self.linear = nn.Linear(hidden, out)
        self.pos_embed_alpha = nn.Parameter(torch.ones(1)) if placed else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = placed(x, self.pos_embed_alpha).mT
        for layer in self.conv:
            x = layer(x)
        return self.linear(x.mT)


def pitched(predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hz and whether it is voiced, (B, F) each, of a predictor's (B, F, 2)."""
    return 2 ** predicted[..., 0].clamp(-10, 14), predicted[..., 1] <= 0


def coarse(hertz: torch.Tensor) -> torch.Tensor:
    """Rows of the pitch embedding: equal steps of the mel scale, 1 for the lowest pitch and for none."""
    low, high = (1127 * math.log(1 + hz / 700) for hz in (LOWEST, HIGHEST))
    mel = 1127 * (1 + hertz / 700).log()
    return (((mel - low) * (COARSE - 2) / (high - low) + 1).clamp(1, COARSE - 1) + 0.5).long()


class FastSpeech2MIDI(nn.Module):
    """Phonemes, notes, their lengths and slurs -> durations -> the denoiser's condition and a blurry mel."""

    def __init__(self, phones: int, mels: int, dim: int, heads: int, encoder_layers: int, decoder_layers: int, encoder_kernel: int, decoder_kernel: int,
                 hidden: int, duration_layers: int, duration_kernel: int, pitch_layers: int, pitch_kernel: int, pitch: bool):  # fmt: skip
        super().__init__()
        self.encoder_embed_tokens, self.midi_embed, self.is_slur_embed = (nn.Embedding(n, dim) for n in (phones, 300, 2))
        self.midi_dur_layer, self.mel_out = nn.Linear(1, dim), nn.Linear(dim, mels)
        self.encoder, self.decoder = Blocks(dim, heads, encoder_kernel, encoder_layers, False), Blocks(dim, heads, decoder_kernel, decoder_layers, True)
        self.dur_predictor = Predictor(dim, hidden, duration_layers, duration_kernel, 1, False)
        self.pitch_embed = nn.Embedding(300, dim) if pitch else None
        self.pitch_predictor = Predictor(dim, hidden, pitch_layers, pitch_kernel, 2, True) if pitch else None

    def encode(self, phones: torch.Tensor, notes: torch.Tensor, seconds: torch.Tensor, slurs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, P) phoneme numbers, MIDI notes (0: rest), seconds of the note, 1 where it is slurred -> states (B, P, dim), frames a phoneme (B, P)."""
        dim, length = self.mel_out.in_features, phones.shape[1]
        x = dim**0.5 * self.encoder_embed_tokens(phones) + self.midi_embed(notes) + self.midi_dur_layer(seconds[..., None]) + self.is_slur_embed(slurs)
        at = (LONGEST - 1 - torch.arange(length, device=x.device))[:, None] * torch.exp(torch.arange(0, dim, 2, device=x.device) * (-math.log(10000) / dim))
        states = self.encoder(x * dim**0.5 + torch.stack([at.sin(), at.cos()], -1).flatten(1))
        return states, (self.dur_predictor(states)[..., 0].exp() - 1).round().clamp_min(0)

    def condition(self, states: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Lays out one song's states (1, P, dim) over frames (P,) -> condition (1, F, dim), predicted pitch (1, F, 2) or None."""
        x = states.repeat_interleave(frames, 1)
        if self.pitch_predictor is None:
            return x, None
        predicted = self.pitch_predictor(x)
        hertz, voiced = pitched(predicted)
        return x + self.pitch_embed(coarse(hertz * voiced)), predicted

    def decode(self, condition: torch.Tensor) -> torch.Tensor:
        return self.mel_out(self.decoder(condition))


class Named(nn.Module):
    """A convolution under its name `conv`."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2)


class PitchExtractor(nn.Module):
    """Mel (B, F, mels) -> pitch (B, F, 2): what the end-to-end models sing, heard from the mel they drew."""

    def __init__(self, mels: int = 80, dim: int = 256, hidden: int = 256, kernel: int = 5, layers: int = 2):
        super().__init__()
        self.mel_prenet = nn.ModuleDict({
            "layers": nn.ModuleList(nn.Sequential(nn.Conv1d(dim if i else mels, dim, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(dim)) for i in range(3)),
            "out_proj": nn.Linear(dim, dim),
        })  # fmt: skip
        self.mel_encoder = nn.ModuleDict({
            "in_proj": nn.Linear(dim, dim), "out_proj": nn.Linear(dim, dim),
            "conv": nn.ModuleList(nn.ModuleDict({"conv": Named(dim, 5), "norm": nn.GroupNorm(dim // 16, dim)}) for _ in range(layers)),
        })  # fmt: skip
        self.pitch_predictor = Predictor(dim, hidden, 5, kernel, 2, True)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = mel.mT
        for layer in self.mel_prenet["layers"]:
            x = layer(x)
        x = self.mel_encoder["in_proj"](self.mel_prenet["out_proj"](x.mT)).mT
        for layer in self.mel_encoder["conv"]:
            x = x + F.relu(layer["norm"](layer["conv"].conv(x)))
        return self.pitch_predictor(self.mel_encoder["out_proj"](x.mT))
