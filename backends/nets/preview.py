"""A tiny decoder for previews: latents to pixels in about a millisecond on a CPU."""

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class PreviewDecoder(ModelMixin, ConfigMixin):
    """(B, C, h, w) scaled latents → (B, 3, factor·h, factor·w) about [-1, 1]."""

    @register_to_config
    def __init__(self, channels: int = 8, width: int = 64, factor: int = 8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, 3 * factor**2, 3, padding=1), nn.PixelShuffle(factor),
        )  # fmt: skip

    def forward(self, z):
        return self.layers(z)
