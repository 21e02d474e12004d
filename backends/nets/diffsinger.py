"""DiffSinger's networks (Liu et al., arXiv 2105.02446), at a size for two CPU cores: acoustic model, denoiser, boundary predictor.

Mels inside are (B, frames, 80), normalised to [-1, 1] a bin by the acoustic model's `low` and `high`.
"""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F


def sinusoids(at: torch.Tensor, dim: int) -> torch.Tensor:
    """(..., dim) sines and cosines of positions or steps."""
    rates = torch.exp(torch.arange(dim // 2, device=at.device) * (-math.log(10000) / (dim // 2 - 1)))
    angles = at[..., None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


class FFTBlock(nn.Module):
    """FastSpeech's feed-forward Transformer block: self-attention and a convolution in place of the first linear layer; norms first."""

    def __init__(self, dim: int, hidden: int, heads: int, kernel: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2, self.heads, self.dropout = nn.LayerNorm(dim), nn.LayerNorm(dim), heads, nn.Dropout(dropout)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.conv, self.linear = nn.Conv1d(dim, hidden, kernel, padding=kernel // 2), nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x (B, L, dim), mask (B, L) true where there is something."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        inner = self.conv((self.norm2(x) * mask[..., None]).mT).mT
        return (x + self.dropout(self.linear(F.gelu(inner)))) * mask[..., None]


class SingerAcoustic(ModelMixin, ConfigMixin):
    """Score -> condition (B, frames, dim) and the blurry mel of the auxiliary decoder; FastSpeech 2 with notes."""

    @register_to_config
    def __init__(self, phones: int = 34, mels: int = 80, dim: int = 144, hidden: int = 320, heads: int = 2, kernel: int = 5,
                 encoder_layers: int = 3, decoder_layers: int = 3, dropout: float = 0.1):  # fmt: skip
        super().__init__()
        blocks = lambda n: nn.ModuleList(FFTBlock(dim, hidden, heads, kernel, dropout) for _ in range(n))  # noqa: E731
        self.phone, self.note, self.length = nn.Embedding(phones, dim), nn.Embedding(128, dim), nn.Linear(1, dim)
        self.encoder, self.decoder = blocks(encoder_layers), blocks(decoder_layers)
        self.durations = nn.Sequential(nn.Conv1d(dim, dim, 3, padding=1), nn.GELU(), nn.Conv1d(dim, 1, 3, padding=1))
        self.place = nn.Sequential(nn.Linear(4, dim), nn.GELU(), nn.Linear(dim, dim))
        self.norm, self.mel = nn.LayerNorm(dim), nn.Linear(dim, mels)
        self.register_buffer("low", torch.full((mels,), -11.5)), self.register_buffer("high", torch.full((mels,), 4.0))

    def normalise(self, log_mel: torch.Tensor) -> torch.Tensor:
        return (log_mel - self.low) / (self.high - self.low) * 2 - 1

    def log_mel(self, mel: torch.Tensor) -> torch.Tensor:
        return (mel + 1) / 2 * (self.high - self.low) + self.low

    def encode(self, phones: torch.Tensor, notes: torch.Tensor, note_frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, P) phone numbers (-1 for padding), MIDI notes, frames of the note -> states (B, P, dim), log frames a phone (B, P)."""
        mask = phones >= 0
        x = self.phone(phones.clamp_min(0)) + self.note(notes) + self.length(note_frames.clamp_min(1).float().log()[..., None] - 3.5)
        x = x + sinusoids(torch.arange(x.shape[1], device=x.device), x.shape[2]).to(x.dtype)
        for block in self.encoder:
            x = block(x, mask)
        # As in FastSpeech 2's code the durations do not train the encoder they read.
        return x, self.durations(x.detach().mT)[:, 0] + 2

    def condition(self, states: torch.Tensor, notes: torch.Tensor, frames: torch.Tensor, f0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The length regulator and the pitch. frames (B, P) of each phone, f0 (B, F) MIDI -> condition (B, F, dim), mask (B, F)."""
        ends = frames.cumsum(1)
        at = torch.arange(f0.shape[1], device=f0.device).expand(len(f0), -1)
        owner = torch.searchsorted(ends, at.contiguous(), right=True).clamp_max(frames.shape[1] - 1)
        mask, length = at < ends[:, -1:], frames.gather(1, owner).clamp_min(1)
        since = (at - (ends.gather(1, owner) - length)) + 0.5
        note = notes.gather(1, owner)
        bend = torch.where(note > 0, f0 - note, 0)
        place = torch.stack([since / length, since.clamp_min(0.5).log() / 2, (f0 - 70) / 6, bend.clamp(-4, 4)], -1)
        x = states.gather(1, owner[..., None].expand(-1, -1, states.shape[2])) + self.place(place.to(states.dtype))
        return x * mask[..., None], mask

    def decode(self, condition: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The auxiliary decoder: (B, F, dim) -> mel (B, F, mels)."""
        x = condition + sinusoids(torch.arange(condition.shape[1], device=condition.device), condition.shape[2]).to(condition.dtype)
        for block in self.decoder:
            x = block(x, mask)
        return self.mel(self.norm(x))

    def forward(self, phones, notes, note_frames, frames, f0):
        states, durations = self.encode(phones, notes, note_frames)
        condition, mask = self.condition(states, notes, frames, f0)
        return self.decode(condition, mask), condition, mask, durations


class ResidualLayer(nn.Module):
    def __init__(self, channels: int, condition: int, dilation: int):
        super().__init__()
        self.step = nn.Linear(channels, channels)
        self.conv = nn.Conv1d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.condition, self.out = nn.Conv1d(condition, 2 * channels, 1), nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, x, condition, step):
        gate, value = (self.conv(x + self.step(step)[..., None]) + self.condition(condition)).chunk(2, 1)
        x_out, skip = self.out(gate.sigmoid() * value.tanh()).chunk(2, 1)
        return (x + x_out) / 2**0.5, skip


KNOTS = (0, 2, 5, 10, 20, 35, 60, 99)  # steps between which the read-out's weights go straight


class SingerDenoiser(ModelMixin, ConfigMixin):
    """The non-causal WaveNet: noise of a noised mel x (B, F, mels) at step t (B,), given the condition (B, F, dim).

    Beside the paper's output layer stands a linear read-out of x, the condition and the skips' sum, its weights interpolated over the steps and
    zero at first: 128 channels need long to learn to pass 80 bins of noise through, and at the noise end that is nearly all there is to say.
    It is solved by least squares (train/singing.py). The published networks have none: `readout` false.
    """

    @register_to_config
    def __init__(self, mels: int = 80, condition: int = 144, channels: int = 128, layers: int = 12, dilation_cycle: int = 3, readout: bool = True):
        super().__init__()
        self.input = nn.Conv1d(mels, channels, 1)
        self.step = nn.Sequential(nn.Linear(channels, channels * 4), nn.Mish(), nn.Linear(channels * 4, channels))
        # The paper's 20 layers of 256 channels do not dilate; fewer layers see as far with dilations 1, 2, 4.
        self.blocks = nn.ModuleList(ResidualLayer(channels, condition, 2 ** (i % dilation_cycle)) for i in range(layers))
        self.skip, self.output = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, mels, 1)
        self.read = nn.Parameter(torch.zeros(len(KNOTS), mels + condition + channels + 1, mels)) if readout else None
        nn.init.zeros_(self.output.weight), nn.init.zeros_(self.output.bias)

    def features(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The WaveNet's own answer (B, F, mels), and what the read-out reads (B, F, ·)."""
        step = self.step(sinusoids(t, self.config.channels).to(x.dtype))
        h, wide, total = F.relu(self.input(x.mT)), condition.mT, 0
        for layer in self.blocks:
            h, skip = layer(h, wide, step)
            total = total + skip
        h = F.relu(self.skip(total / len(self.blocks) ** 0.5))
        return self.output(h).mT, torch.cat([x, condition, h.mT, torch.ones_like(x[..., :1])], -1)

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        own, read = self.features(x, t, condition)
        if self.read is None:
            return own
        return own + torch.einsum("bfd,bdm->bfm", read, torch.einsum("bk,kdm->bdm", hats(t).to(read.dtype), self.read.to(read.dtype)))


def hats(t: torch.Tensor) -> torch.Tensor:
    """(B, knots) weights of the knots at steps t, which sum to 1."""
    knots = torch.tensor(KNOTS, device=t.device, dtype=torch.float32)
    right = torch.searchsorted(knots, t.float().contiguous()).clamp(1, len(KNOTS) - 1)
    share = ((t - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
    one = torch.eye(len(KNOTS), device=t.device)
    return one[right - 1] * (1 - share[:, None]) + one[right] * share[:, None]


class BoundaryPredictor(ModelMixin, ConfigMixin):
    """BP(x_t, t): logit (B,) that x_t (B, F, mels) is a noised true mel and not a noised one of the auxiliary decoder."""

    @register_to_config
    def __init__(self, mels: int = 80, channels: int = 96, layers: int = 4):
        super().__init__()
        self.step = nn.Sequential(nn.Linear(channels, channels), nn.Mish(), nn.Linear(channels, channels * layers))
        self.convs = nn.ModuleList(nn.Conv1d(mels if not i else channels, channels, 3, padding=2**i, dilation=2**i) for i in range(layers))
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(layers))
        self.out = nn.Linear(channels, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        h, steps = x.mT, self.step(sinusoids(t, self.config.channels).to(x.dtype)).chunk(len(self.convs), -1)
        for conv, norm, step in zip(self.convs, self.norms, steps):
            h = F.silu(norm(conv(h)) + step[..., None])
        return self.out(h.mean(-1))[:, 0]
