"""The networks of the face world that work on pixels: one UNet, as an unconditional prior and as a restorer."""

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


class FaceUNet(ModelMixin, ConfigMixin):
    """diffusers' UNet2DModel on 2×2 pixels as channels, called as that is: (B, 3, H, W) in [-1, 1] and t to (B, 3, H, W).

    The folding is orthogonal (pixel_space.py), so that noise stays noise and ε is ε; it saves three quarters of the work. Attention at
    `attention` levels counted from the coarsest. H and W: multiples of 2^levels.
    """

    @register_to_config
    def __init__(self, block_out_channels: tuple[int, ...] = (96, 160, 192), layers_per_block: int = 2, attention: int = 1, sample_size: int = 64):
        super().__init__()
        levels = len(block_out_channels)
        down = ["DownBlock2D"] * (levels - attention) + ["AttnDownBlock2D"] * attention
        self.unet = UNet2DModel(
            sample_size=sample_size // 2, in_channels=12, out_channels=12, block_out_channels=tuple(block_out_channels), layers_per_block=layers_per_block,
            down_block_types=tuple(down), up_block_types=tuple(d.replace("Down", "Up") for d in reversed(down)), attention_head_dim=64, add_attention=attention > 0)  # fmt: skip
        self.unet.conv_out.weight.data.mul_(0.05)  # begins at about nothing

    def forward(self, sample: torch.Tensor, timestep, return_dict: bool = True):
        out = pixel_shuffle(self.unet(pixel_unshuffle(sample, 2), timestep).sample, 2)
        return UNet2DOutput(sample=out) if return_dict else (out,)

    def restore(self, degraded: torch.Tensor) -> torch.Tensor:
        """A restorer's estimate f(y) of the clean face, both (B, 3, H, W) in [-1, 1]: y and what the network adds at t = 0."""
        return (degraded + self(degraded, 0).sample).clamp(-1, 1)
