"""DiffSinger's networks (Liu et al., arXiv 2105.02446), small: score encoder with auxiliary mel decoder, WaveNet denoiser, boundary predictor.

Mel spectrograms are (B, frames, mels). The networks see them scaled bin by bin to [-1, 1] (`Acoustic.scale`). Masks are true on what is there.
"""

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn.functional import gelu, mish, scaled_dot_product_attention

SCHEDULE = dict(num_train_timesteps=100, beta_start=1e-4, beta_end=0.06, beta_schedule="linear", prediction_type="epsilon", clip_sample=False)
LOWEST, SEMITONES = 48, 48  # the pitch embedding's first MIDI number and how many it has


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions on (B, heads, length, size): attention knows distances, not places, and so takes phrases of any length."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[2], device=x.device)[:, None] * 1000.0 ** (-torch.arange(half, device=x.device) / half)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half : 2 * half]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, x[..., 2 * half :]], -1)


class FFTBlock(nn.Module):
    """FastSpeech's feed-forward transformer block: self-attention, then two convolutions over time."""

    def __init__(self, width: int, heads: int, kernel: int = 5, wider: int = 3, dropout: float = 0.1):
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.conv1, self.conv2 = nn.Conv1d(width, wider * width, kernel, padding=kernel // 2), nn.Conv1d(wider * width, width, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(rotate(q), rotate(k), v, attn_mask=mask[:, None, None])
        x = x + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        hidden = (self.norm2(x) * mask[..., None]).mT
        return x + self.drop(self.conv2(gelu(self.conv1(hidden))).mT)


class Acoustic(ModelMixin, ConfigMixin):
    """Score -> durations, condition and a blurry mel: FastSpeech 2's encoder, duration predictor, length regulator, pitch embedding, decoder."""

    @register_to_config
    def __init__(self, phones: int = 34, mels: int = 80, width: int = 144, heads: int = 4, encoder_layers: int = 4, decoder_layers: int = 4,
                 mel_low: tuple[float, ...] = (-11.6,) * 80, mel_high: tuple[float, ...] = (2.0,) * 80):  # fmt: skip
        super().__init__()
        self.phone, self.note = nn.Embedding(phones, width), nn.Embedding(LOWEST + SEMITONES, width)
        self.length, self.place, self.pitch = nn.Linear(2, width), nn.Linear(4, width), nn.Embedding(SEMITONES, width)
        self.encoder = nn.ModuleList(FFTBlock(width, heads) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(FFTBlock(width, heads) for _ in range(decoder_layers))
        self.duration = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(0.1), nn.Linear(width, 1))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, mels)
        for table in (self.phone, self.note, self.pitch):
            nn.init.normal_(table.weight, std=0.3)

    def scale(self, mel: torch.Tensor) -> torch.Tensor:
        """Log-mel -> [-1, 1], each bin by its own extremes in the corpus."""
        low, high = mel.new_tensor(self.config.mel_low), mel.new_tensor(self.config.mel_high)
        return (mel - low) / (high - low) * 2 - 1

    def unscale(self, x: torch.Tensor) -> torch.Tensor:
        low, high = x.new_tensor(self.config.mel_low), x.new_tensor(self.config.mel_high)
        return (x.clamp(-1, 1) + 1) / 2 * (high - low) + low

    def encode(self, phones: torch.Tensor, note: torch.Tensor, note_frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, P) phone numbers, MIDI numbers (0 at rests), frames of the whole note -> (B, P, width)."""
        length = torch.stack([note_frames.log1p() / 4, note_frames / 100], -1).float()
        x = self.phone(phones) + self.note(note) + self.length(length.to(self.dtype))
        for block in self.encoder:
            x = block(x, mask)
        return x

    def durations(self, encoded: torch.Tensor) -> torch.Tensor:
        """(B, P) log(1 + frames). At a singer's disposal are the consonants; the vowel fills what the note leaves."""
        return self.duration(encoded).squeeze(-1)

    def regulate(self, encoded: torch.Tensor, owner: torch.Tensor, place: torch.Tensor, pitch: torch.Tensor) -> torch.Tensor:
        """The condition (B, F, width): `owner` (B, F) the phone of each frame, `place` (B, F, 4) from `places`, `pitch` (B, F) MIDI numbers."""
        x = encoded.gather(1, owner[..., None].expand(-1, -1, encoded.shape[-1]))
        # The pitch table has an entry a semitone; between them it is interpolated, so that a glide is one.
        at = (pitch - LOWEST).clamp(0, SEMITONES - 1.001)
        low = at.floor().long()
        share = (at - low)[..., None].to(self.dtype)
        return x + self.place(place.to(self.dtype)) + self.pitch(low) * (1 - share) + self.pitch(low + 1) * share

    def decode(self, condition: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The auxiliary decoder's mel, scaled."""
        x = condition
        for block in self.decoder:
            x = block(x, mask)
        return self.head(self.norm(x))

    def forward(self, phones, note, note_frames, phone_mask, owner, place, pitch, mask):
        """(durations (B, P), condition (B, F, width), auxiliary mel (B, F, mels))."""
        encoded = self.encode(phones, note, note_frames, phone_mask)
        condition = self.regulate(encoded, owner, place, pitch)
        return self.durations(encoded), condition, self.decode(condition, mask)


def places(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(owner (F,), place (F, 4)) of phones that last `frames` (P,): the share of the phone gone by, its length, frames since its start and to its end."""
    owner = torch.repeat_interleave(torch.arange(len(frames), device=frames.device), frames)
    since = torch.arange(len(owner), device=frames.device) - (frames.cumsum(0) - frames)[owner] + 0.5
    length = frames[owner]
    return owner, torch.stack([since / length, length.log() / 4, since.log1p() / 4, (length - since).log1p() / 4], -1)


class Denoiser(ModelMixin, ConfigMixin):
    """The paper's non-causal WaveNet: predicts the noise in a scaled mel under the acoustic model's condition."""

    @register_to_config
    def __init__(self, mels: int = 80, condition: int = 144, width: int = 144, layers: int = 14, kernel: int = 3):
        super().__init__()
        self.conv_in, self.skip, self.conv_out = nn.Conv1d(mels, width, 1), nn.Conv1d(width, width, 1), nn.Conv1d(width, mels, 1)
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.steps = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.convs = nn.ModuleList(nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2) for _ in range(layers))
        self.outs = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in range(layers))
        self.conditions = nn.Conv1d(condition, 2 * width * layers, 1)  # of all layers at once
        nn.init.zeros_(self.conv_out.weight)

    def project(self, condition: torch.Tensor) -> torch.Tensor:
        """What all layers take from the (B, F, C) condition; the same at every step, so that sampling computes it once."""
        return self.conditions(condition.mT)

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor | None = None, projected: torch.Tensor | None = None) -> torch.Tensor:
        """(B, F, mels), (B,) steps 0…99 -> predicted noise (B, F, mels)."""
        projected = self.project(condition) if projected is None else projected
        width, layers = self.config.width, self.config.layers
        step = self.time(get_timestep_embedding(t, width).to(self.dtype))
        x, skips = torch.relu(self.conv_in(x.mT)), 0
        for project, conv, out, given in zip(self.steps, self.convs, self.outs, projected.chunk(layers, 1)):
            gate, value = (conv(x + project(step)[..., None]) + given).chunk(2, 1)
            residual, skip = out(gate.sigmoid() * value.tanh()).chunk(2, 1)
            x, skips = (x + residual) / math.sqrt(2), skips + skip
        return self.conv_out(torch.relu(self.skip(skips / math.sqrt(layers)))).mT


class BoundaryPredictor(ModelMixin, ConfigMixin):
    """Tells a noised true mel from a noised auxiliary one; where it no longer can, the trajectories have met (appendix B)."""

    @register_to_config
    def __init__(self, mels: int = 80, width: int = 96, layers: int = 4):
        super().__init__()
        self.conv_in, self.time = nn.Conv1d(mels, width, 3, padding=1), nn.Sequential(nn.Linear(width, width), nn.Mish(), nn.Linear(width, width * layers))
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(layers))
        self.norms, self.head = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(layers)), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, F, mels), (B,), (B, F) -> logit (B,) of "true"."""
        steps = self.time(get_timestep_embedding(t, self.config.width).to(self.dtype)).chunk(self.config.layers, 1)
        x = self.conv_in(x.mT)
        for conv, norm, step in zip(self.convs, self.norms, steps):
            x = x + mish(norm(conv(x + step[..., None])))
        there = mask[:, None].to(x.dtype)
        return self.head((x * there).sum(-1) / there.sum(-1).clamp_min(1)).squeeze(-1)


def boundary_a(mel: torch.Tensor, auxiliary: torch.Tensor, alphas_cumprod: torch.Tensor) -> int:
    """The paper's k: the first step at which the two noised mels (scaled, (frames, mels)) differ less than the true one differs from noise.

    E[ᾱ/(2(1-ᾱ)) (M-M̃)²] ≤ E[KL(q(M_t|M) ‖ N(0, I))], both per element; T where it never holds. Returned is the number of steps, index + 1.
    """
    return boundary_from(float((mel - auxiliary).square().mean()), float(mel.square().mean()), alphas_cumprod)


def boundary_from(error: float, square: float, alphas_cumprod: torch.Tensor) -> int:
    """`boundary_a` from E[(M-M̃)²] and E[M²]."""
    bar = alphas_cumprod.double()
    between = bar / (2 * (1 - bar)) * error
    noise = 0.5 * (bar * square - bar - (1 - bar).log())  # KL of N(√ᾱ M, 1-ᾱ) from N(0, 1)
    met = torch.nonzero(between <= noise)
    return int(met[0]) + 1 if len(met) else len(bar)
