"""The emoji world's latents at any size: an implicit decoder (arXiv 2403.10255) on the plain decoder's last features."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from backends.nets.patch_vae import PatchAutoencoderKL
from backends.nets.sr_decoders import Queried, resized


class EmojiLiif(Queried, ModelMixin, ConfigMixin):
    """(the frozen autoencoder, scaled latents (B, 8, h, w), (H, W)) to pixels (B, 3, H, W) about [-1, 1].

    What the plain decoder draws is brought to the size, and the perceptron's answers are added: minutes of training suffice, and begin at nothing lost.
    `channels`: of the plain decoder's last feature map.
    """

    @register_to_config
    def __init__(self, channels: int = 64, hidden: int = 64):
        super().__init__()
        self.first, self.place = nn.Conv2d(channels, hidden, 3, padding=1), nn.Linear(4, hidden, bias=False)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        for layer in (self.first, self.place, self.rest[1], self.rest[3]):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(self.rest[-1].weight), nn.init.zeros_(self.rest[-1].bias)

    def read(self, vae: PatchAutoencoderKL, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(the plain decoder's picture, features to be asked) of latents."""
        head = F.silu(vae.decoder.conv_norm_out(vae.trunk(z)))
        return F.pixel_shuffle(vae.decoder.conv_out(head), vae.patch), self.first(head)

    def forward(self, vae: PatchAutoencoderKL, z: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        plain, features = self.read(vae, z)
        return resized(plain, size) + self.asked(features, size)
