"""Harmonic-plus-noise vocoder: log-mel and pitch to samples (after DDSP, Engel et al., arXiv 2001.04643). Nothing recurrent: one pass."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

HEADROOM = 0.5  # natural logarithm of a magnitude


class HarmonicNoiseVocoder(ModelMixin, ConfigMixin):
    """(B, F, mels) natural log-mel and (B, F) pitch in MIDI numbers -> (B, F · hop) samples.

    A frame gives `up` sub-frames, each with the amplitudes of the harmonics and the magnitudes of a noise filter.
    """

    @register_to_config
    def __init__(self, mels: int = 80, rate: int = 16000, hop: int = 256, up: int = 4, channels: int = 160, layers: int = 5,
                 harmonics: int = 32, bands: int = 65):  # fmt: skip
        super().__init__()
        self.input = nn.Conv1d(mels + 1, channels, 3, padding=1)

        def block(i: int) -> nn.Module:
            wide = nn.Conv1d(channels, channels, 3, padding=2 ** (i % 3), dilation=2 ** (i % 3))
            return nn.Sequential(nn.GroupNorm(1, channels), wide, nn.GELU(), nn.Conv1d(channels, channels, 1))

        self.coarse, self.split = nn.ModuleList(block(i) for i in range(layers)), nn.Conv1d(channels, channels * up, 1)
        self.fine = nn.ModuleList(block(i) for i in range(2))
        self.output = nn.Conv1d(channels, harmonics + bands, 1)
        nn.init.normal_(self.output.weight, std=0.01), nn.init.constant_(self.output.bias, -5.0)

    def controls(self, log_mel: torch.Tensor, f0: torch.Tensor) -> torch.Tensor:
        """(B, harmonics + bands, F · up) logarithms of amplitudes and magnitudes."""
        c = self.config
        h = self.input(torch.cat([log_mel / 4 + 1, (f0[..., None] - 70) / 6], -1).mT)
        for block in self.coarse:
            h = h + block(h)
        h = self.split(h).unflatten(1, (-1, c.up)).transpose(2, 3).flatten(2) + h.repeat_interleave(c.up, -1)
        for block in self.fine:
            h = h + block(h)
        return self.output(h).float().clamp(-14, 5)

    def in_windows(self, log_mel: torch.Tensor, f0: torch.Tensor, window: int = 72, hop: int = 18) -> torch.Tensor:
        """`controls` over windows as long as the crops of training, blended: the norms average over time, and a whole song is not like a crop."""
        frames, up = f0.shape[1], self.config.up
        after = window + -(frames - window) % hop if frames > window else 2 * window - frames
        mel, pitch = F.pad(log_mel.mT, (window, after), mode="replicate"), F.pad(f0[:, None], (window, after), mode="replicate")
        parts = torch.cat([mel, pitch], 1).unfold(-1, window, hop)  # (B, mels + 1, windows, window)
        batch = parts.transpose(1, 2).flatten(0, 1)
        made = self.controls(batch[:, :-1].mT, batch[:, -1]) * (weight := torch.hann_window(window * up, periodic=True, device=f0.device))
        total = window + frames + after
        back = lambda x: F.fold(x, (1, total * up), (1, window * up), stride=(1, hop * up))[:, :, 0]  # noqa: E731
        summed = back(made.unflatten(0, (len(f0), -1)).permute(0, 2, 3, 1).flatten(1, 2))
        return (summed / back(weight[None, :, None].expand(1, -1, parts.shape[2])))[..., window * up : (window + frames) * up]

    def limited(self, controls: torch.Tensor, log_mel: torch.Tensor) -> torch.Tensor:
        """`controls`, none louder than its mel lets it be: on a frame unlike any that it was trained on, the network may answer with a click.

        Of the loudest bin (`top`) and the mean of the mel nearby, six recorded tunes reach: a harmonic 0.35 · top − 1, between −3.3 (what is left of it
        in pauses) and −1, a band of the noise top + 1, the mean of either mean + 0.2. The ceilings lie HEADROOM above; what stays below is the same to the bit.
        """
        near = F.max_pool1d(torch.stack([log_mel.amax(-1), log_mel.mean(-1)], 1).float(), 3, 1, 1).repeat_interleave(self.config.up, -1)
        top, mean = near.split(1, 1)
        harmonics, bands = controls.split([self.config.harmonics, self.config.bands], 1)
        parts = torch.minimum(harmonics, (0.35 * top - 1).clamp(-3.3, -1) + HEADROOM), torch.minimum(bands, top + 1 + HEADROOM)
        return torch.cat([part - (part.mean(1, keepdim=True) - mean - 0.2 - HEADROOM).clamp_min(0) for part in parts], 1)

    def forward(self, log_mel: torch.Tensor, f0: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        c = self.config
        loud = (self.controls(log_mel, f0) if self.training else self.limited(self.in_windows(log_mel, f0), log_mel)).exp()
        return self.harmonic(loud[:, : c.harmonics], f0.float()) + self.noise(loud[:, c.harmonics :], generator)

    def harmonic(self, amplitudes: torch.Tensor, f0: torch.Tensor) -> torch.Tensor:
        """Sines at the multiples of the pitch below the Nyquist frequency. amplitudes (B, harmonics, F · up)."""
        c, samples = self.config, f0.shape[1] * self.config.hop
        hertz = F.interpolate(440 * 2 ** ((f0[:, None] - 69) / 12), size=samples, mode="linear")
        turns = (hertz.double() / c.rate).cumsum(-1).remainder(1)  # in double: a long song sums many
        number = torch.arange(1, c.harmonics + 1, device=f0.device)[:, None]
        sines = torch.sin(2 * torch.pi * (turns * number).remainder(1).float())
        audible = ((hertz * number) < c.rate / 2 * 0.98).float()
        return (F.interpolate(amplitudes, size=samples, mode="linear") * sines * audible).sum(1)

    def noise(self, magnitudes: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """White noise through each sub-frame's linear-phase filter, overlapped and added. magnitudes (B, bands, F · up)."""
        c, step = self.config, self.config.hop // self.config.up
        taps = 2 * (c.bands - 1)
        response = torch.fft.irfft(magnitudes.mT, n=taps).roll(taps // 2, -1) * torch.hann_window(taps, device=magnitudes.device)
        white = torch.randn(*magnitudes.shape[::2], step, generator=generator, device="cpu" if generator else magnitudes.device).to(magnitudes.device)
        size = step + taps
        pieces = torch.fft.irfft(torch.fft.rfft(white, size) * torch.fft.rfft(response, size), size)  # (B, sub-frames, size)
        total = magnitudes.shape[2] * step
        summed = F.fold(pieces.mT, (1, total + taps), (1, size), stride=(1, step))[:, 0, 0]
        return summed[:, taps // 2 : taps // 2 + total]


def stft_distance(made: torch.Tensor, true: torch.Tensor, windows=(2048, 1024, 512, 256, 128)) -> torch.Tensor:
    """Multi-resolution STFT distance of (B, T) samples: spectral convergence plus the L1 of log magnitudes, averaged over the windows."""
    total = 0.0
    for size in windows:
        window = torch.hann_window(size, device=made.device)
        a, b = (torch.stft(x, size, size // 4, window=window, return_complex=True).abs().clamp_min(1e-5) for x in (made, true))
        total = total + (a - b).norm() / b.norm() + (a.log() - b.log()).abs().mean()
    return total / len(windows)
