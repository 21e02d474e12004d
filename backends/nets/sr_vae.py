"""The photo world's autoencoder: pixels to latents of a quarter of the side and 8 channels, a plain decoder."""

import torch

from backends.nets.patch_vae import PatchAutoencoderKL

FACTOR, CHANNELS = 4, 8


class SrAutoencoder(PatchAutoencoderKL):
    """diffusers' AutoencoderKL on 2×2 pixels as channels: (B, 3, H, W) in [-1, 1] and (B, 8, H/4, W/4); one downsampling inside.

    Latents as the denoisers see them have a standard deviation of about 1: `latents`, `pixels`.
    """

    patch = 2

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        return self.encode(x).latent_dist.mean.float() * self.config.scaling_factor

    def pixels(self, z: torch.Tensor) -> torch.Tensor:
        return self.decode(z / self.config.scaling_factor).sample


CONFIG = dict(
    in_channels=12, out_channels=12, latent_channels=CHANNELS, block_out_channels=(48, 96), layers_per_block=1, norm_num_groups=16,
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, mid_block_add_attention=False, sample_size=64,
    scaling_factor=1.0,
)  # fmt: skip
