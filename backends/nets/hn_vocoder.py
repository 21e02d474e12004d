"""A harmonic-plus-noise vocoder: a small convolutional network reads mel and pitch and sets harmonics and noise, which are then summed.

After DDSP (Engel et al., arXiv 2001.04643): sines at the multiples of the pitch, and white noise filtered in the Fourier domain.
"""

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn.functional import gelu, interpolate


class HarmonicNoiseVocoder(ModelMixin, ConfigMixin):
    """(B, F, mels) log-mel and (B, F) pitch in Hz -> (B, F * hop) sound."""

    @register_to_config
    def __init__(self, mels: int = 80, width: int = 192, layers: int = 6, kernel: int = 7, harmonics: int = 40, rate: int = 16000, hop: int = 256, noise_fft: int = 256):
        super().__init__()
        self.conv_in = nn.Conv1d(mels + 1, width, kernel, padding=kernel // 2)
        self.depthwise = nn.ModuleList(nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(layers))
        self.wide, self.narrow = (nn.ModuleList(nn.Conv1d(a * width, b * width, 1) for _ in range(layers)) for a, b in ((1, 4), (4, 1)))
        bands = (noise_fft // 2 + 1) * (hop // (noise_fft // 2))
        self.head = nn.Conv1d(width, 2 * harmonics + bands, kernel, padding=kernel // 2)
        nn.init.constant_(self.head.bias[: 2 * harmonics], 0)

    def controls(self, mel: torch.Tensor, hertz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Harmonics' amplitudes and phases (B, H, F), noise magnitudes (B, bins, noise frames)."""
        x = self.conv_in(torch.cat([(mel.mT + 5) / 4, (hertz.clamp_min(20).log2() - 8.5)[:, None].to(mel.dtype)], 1))
        for depthwise, norm, wide, narrow in zip(self.depthwise, self.norms, self.wide, self.narrow):
            x = x + narrow(gelu(wide(norm(depthwise(x)))))
        config, out = self.config, self.head(x).float()
        amplitude, phase, noise = out.split([config.harmonics, config.harmonics, out.shape[1] - 2 * config.harmonics], 1)
        parts = config.hop // (config.noise_fft // 2)  # noise frames a frame
        noise = noise.unflatten(1, (parts, -1)).permute(0, 2, 3, 1).flatten(2)
        # Exponents, since loudness spans 80 dB; limited, since an early network could reach for infinity.
        return (2 * amplitude - 5).clamp(-14, 2).exp(), math.pi * phase.tanh(), (2 * noise - 5).clamp(-14, 4).exp()

    def forward(self, mel: torch.Tensor, hertz: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        config, length = self.config, mel.shape[1] * self.config.hop
        amplitude, phase, noise = self.controls(mel, hertz)
        pitch = interpolate(hertz[:, None].float(), size=length, mode="linear", align_corners=False)
        # Cycles in float64: after a minute at 500 Hz float32 would have lost the phase.
        turn = (2 * math.pi * (pitch.double() / config.rate).cumsum(-1).remainder(1)).float()
        number = torch.arange(1, config.harmonics + 1, device=mel.device)[:, None]
        audible = ((number * hertz[:, None]) < 0.49 * config.rate).float()
        amplitude = interpolate(amplitude * audible, size=length, mode="linear", align_corners=False)
        phase = interpolate(phase, size=length, mode="linear", align_corners=False)
        voiced = (amplitude * (turn * number + phase).sin()).sum(1)
        return voiced + self.hiss(noise, length, generator)

    def hiss(self, magnitudes: torch.Tensor, length: int, generator: torch.Generator | None) -> torch.Tensor:
        """White noise shaped by (B, bins, frames) magnitudes: (B, length)."""
        fft = self.config.noise_fft
        hop, window = fft // 2, torch.hann_window(fft, device=magnitudes.device)
        white = torch.randn(len(magnitudes), length, generator=generator).to(magnitudes.device)
        spectrum = torch.stft(white, fft, hop, window=window, center=True, return_complex=True)
        # Frames lie on multiples of hop, magnitudes half way between: the mean of two neighbours.
        padded = nn.functional.pad(magnitudes, (1, 1), mode="replicate")
        shape = (padded[..., 1:] + padded[..., :-1]) / 2
        return torch.istft(spectrum * shape[..., : spectrum.shape[-1]], fft, hop, window=window, length=length)


def stft_distance(made: torch.Tensor, true: torch.Tensor, sizes=(2048, 1024, 512, 256, 128)) -> torch.Tensor:
    """Multi-resolution STFT distance: spectral convergence plus the mean difference of log magnitudes, averaged over window sizes."""
    total = 0.0
    for size in sizes:
        window = torch.hann_window(size, device=made.device)
        a, b = (torch.stft(x.float(), size, size // 4, window=window, return_complex=True).abs().clamp_min(1e-4) for x in (made, true))
        total = total + (a - b).norm() / b.norm() + (a.log() - b.log()).abs().mean()
    return total / len(sizes)
