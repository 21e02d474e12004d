"""A UNet on complex spectrograms at the size a CPU answers quickly, and the spectrogram itself.

Stands where StoRM's 27.8 M NCSN++ stands (Lemercier et al., arXiv 2212.11851, section IV); stock diffusers blocks.
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config

N_FFT, HOP = 510, 128  # 256 bins; at 16 kHz 8 ms a frame
SCALE, POWER = 0.15, 0.5
MULTIPLE = 16  # frames must be a multiple of this


def analyse(sound: torch.Tensor) -> torch.Tensor:
    """(B, T) in [-1, 1] -> (B, 2, 256, frames): real and imaginary part of 0.15·|X|^0.5·e^{i∠X}; 1 + T // 128 frames."""
    x = torch.stft(sound, N_FFT, HOP, window=torch.hann_window(N_FFT, device=sound.device), center=True, return_complex=True)
    return torch.view_as_real(torch.polar(SCALE * x.abs() ** POWER, x.angle())).movedim(-1, 1).contiguous()


def synthesise(spectrogram: torch.Tensor, length: int) -> torch.Tensor:
    """The inverse of `analyse`, (B, length)."""
    x = torch.view_as_complex(spectrogram.float().movedim(1, -1).contiguous())
    x = torch.polar((x.abs() / SCALE) ** (1 / POWER), x.angle())
    return torch.istft(x, N_FFT, HOP, window=torch.hann_window(N_FFT, device=x.device), center=True, length=length)


class SpectrogramUNet(ModelMixin, ConfigMixin):
    """(B, 2·conditions, 256, frames) -> (B, 2, 256, frames), on 2×2 patches as channels: a quarter of the work of full size.

    `timed`: the time t in (0, 1] enters by Fourier features of log t and the output is divided by t, as in NCSN++ (Song et al.,
    arXiv 2011.13456) and in diffusers' "fourier" embedding. Not timed (a predictive denoiser): pass t = 0.
    """

    @register_to_config
    def __init__(self, pictures: int = 2, timed: bool = True, block_out_channels: tuple[int, ...] = (48, 64, 64, 64), layers_per_block: int = 1):
        super().__init__()
        self.unet = UNet2DModel(
            in_channels=8 * pictures, out_channels=8, block_out_channels=block_out_channels, layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D",) * len(block_out_channels), up_block_types=("UpBlock2D",) * len(block_out_channels),
            attention_head_dim=64, norm_num_groups=16, time_embedding_type="fourier" if timed else "positional", flip_sin_to_cos=False)  # fmt: skip
        self.unet.conv_out.weight.data.mul_(0.05)  # spectrograms are small numbers; NCSN++ starts at nothing too
        if timed:
            # Drawn with a deviation of 16 for noise levels over eight decades; log t spans 3.5 here, and slower waves are learnt sooner.
            self.unet.time_proj.weight.data.div_(16)

    def forward(self, spectrograms: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.unet(F.pixel_unshuffle(spectrograms, 2), t).sample, 2)
