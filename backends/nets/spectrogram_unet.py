"""A UNet on complex spectrograms at the size a CPU answers quickly, and the spectrogram itself.

Stands where StoRM's 27.8 M NCSN++ stands (Lemercier et al., arXiv 2212.11851, section IV); stock diffusers blocks.
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config

from backends.audio import ouve

N_FFT, HOP = 510, 128  # 256 bins; at 16 kHz 8 ms a frame
SCALE, POWER = 0.15, 0.5
MULTIPLE = 16  # frames must be a multiple of this
LEVEL = 0.1  # about what spectrograms deviate by


def analyse(sound: torch.Tensor, factor: float = SCALE) -> torch.Tensor:
    """(B, T) in [-1, 1] -> (B, 2, 256, frames): real and imaginary part of factor·|X|^0.5·e^{i∠X}; 1 + T // 128 frames."""
    x = torch.stft(sound, N_FFT, HOP, window=torch.hann_window(N_FFT, device=sound.device), center=True, return_complex=True)
    return torch.view_as_real(torch.polar(factor * x.abs() ** POWER, x.angle())).movedim(-1, 1).contiguous()


def synthesise(spectrogram: torch.Tensor, length: int, factor: float = SCALE) -> torch.Tensor:
    """The inverse of `analyse`, (B, length)."""
    x = torch.view_as_complex(spectrogram.float().movedim(1, -1).contiguous())
    x = torch.polar((x.abs() / factor) ** (1 / POWER), x.angle())
    return torch.istft(x, N_FFT, HOP, window=torch.hann_window(N_FFT, device=x.device), center=True, length=length)


class SpectrogramUNet(ModelMixin, ConfigMixin):
    """(B, 2·pictures, 256, frames) -> (B, 2, 256, frames), on 2×2 patches as channels: a quarter of the work of full size.

    `spread` > 0: a score network of the process around the last picture, whose distance from the speech deviates by so much; its
    output is what `ouve.preconditioning` makes an estimate of the speech from. 0: a predictive denoiser; pass t = 0.
    NCSN++ gives −score itself. A small network can't copy the noise through itself to the 3 % that late times ask for:
    trained so on as many sentences its estimates at t > 0.6 were worse than the noisy sound.
    """

    @register_to_config
    def __init__(self, pictures: int = 2, spread: float = 0.0, block_out_channels: tuple[int, ...] = (48, 64, 64, 64), layers_per_block: int = 1):
        super().__init__()
        self.unet = UNet2DModel(
            in_channels=8 * pictures, out_channels=8, block_out_channels=block_out_channels, layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D",) * len(block_out_channels), up_block_types=("UpBlock2D",) * len(block_out_channels),
            attention_head_dim=64, norm_num_groups=16, flip_sin_to_cos=False)  # fmt: skip
        self.unet.conv_out.weight.data.mul_(0.05)  # begins near its skip, or at nothing

    def forward(self, spectrograms: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.unet(F.pixel_unshuffle(spectrograms, 2), 1000 * t).sample, 2)

    def denoise(self, y: torch.Tensor) -> torch.Tensor:
        """D(y) of a predictive denoiser."""
        return self(y, torch.zeros(len(y), device=y.device))

    def residual(self, x: torch.Tensor, t: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
        """The network's output for the state x (B, 2, 256, frames) at t (B,)."""
        _, _, into = ouve.preconditioning(t.view(-1, 1, 1, 1), self.config.spread)
        return self(torch.cat([into * (x - beside[-1]), *(picture / LEVEL for picture in beside)], 1), t)

    def score(self, x: torch.Tensor, t: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
        """∇ log p_t(x); `beside`: the spectrograms it sees, the process's centre the last of them."""
        u, at = x - beside[-1], t.view(-1, 1, 1, 1)
        skip, out, _ = ouve.preconditioning(at, self.config.spread)
        return ouve.score_of(beside[-1] + skip * u + out * self.residual(x, t, *beside).float(), x, beside[-1], at)
