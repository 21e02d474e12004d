"""The photo world's autoencoder: pixels to latents of a quarter of the side and 8 channels, and a plain decoder."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Decoder
from torch import nn
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle

FACTOR, CHANNELS = 4, 8
WIDTH = 32  # of the decoder at half the picture's side


class SrAutoencoder(ModelMixin, ConfigMixin):
    """(B, 3, H, W) in [-1, 1] and (B, 8, H/4, W/4); H and W multiples of 4.

    The encoder is linear: the principal components of 4×4 px, each brought to a variance of 1. That loses as little as eight numbers can
    (34 dB on held-out crops, where a convolutional encoder of ours had 30 after as many minutes as a GPU gave it), and it needs no training, so that
    denoisers and decoders learn side by side. The decoder adds to the linear way back what neighbours tell; it begins as nothing.
    """

    @register_to_config
    def __init__(self, widths: tuple[int, ...] = (WIDTH, 2 * WIDTH)):
        super().__init__()
        self.register_buffer("basis", torch.eye(3 * FACTOR**2)[:, :CHANNELS].clone())  # orthonormal columns
        self.register_buffer("mean", torch.zeros(3 * FACTOR**2)), self.register_buffer("spread", torch.ones(CHANNELS))
        self.decoder = Decoder(CHANNELS, 12, ("UpDecoderBlock2D",) * 2, tuple(widths), layers_per_block=1, norm_num_groups=16, mid_block_add_attention=False)
        nn.init.zeros_(self.decoder.conv_out.weight), nn.init.zeros_(self.decoder.conv_out.bias)

    @torch.no_grad()
    def fit(self, pictures: torch.Tensor) -> "SrAutoencoder":
        """Take the principal components of (n, 3, H, W)."""
        patches = pixel_unshuffle(pictures, FACTOR).movedim(1, -1).flatten(0, 2).double()
        self.mean.copy_(patches.mean(0))
        values, vectors = torch.linalg.eigh((patches - patches.mean(0)).mT @ (patches - patches.mean(0)) / len(patches))
        self.basis.copy_(vectors.flip(1)[:, :CHANNELS]), self.spread.copy_(values.flip(0)[:CHANNELS].sqrt())
        return self

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            u = pixel_unshuffle(x.float(), FACTOR) - self.mean.float()[:, None, None]
            return conv2d(u, (self.basis / self.spread).float().mT[..., None, None])

    def linear(self, z: torch.Tensor) -> torch.Tensor:
        """The way back without a network."""
        with torch.autocast(z.device.type, enabled=False):
            return pixel_shuffle(conv2d(z.float(), (self.basis * self.spread).float()[..., None, None]) + self.mean.float()[:, None, None], FACTOR)

    def trunk(self, z: torch.Tensor) -> torch.Tensor:
        """The decoder's last feature map (B, 48, H/2, W/2), before its output head."""
        h = self.decoder.mid_block(self.decoder.conv_in(z))
        for block in self.decoder.up_blocks:
            h = block(h)
        return h

    def head(self, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Pixels of a feature map as `trunk` gives it."""
        return self.linear(z) + pixel_shuffle(self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(h))), 2).float()

    def pixels(self, z: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(z), z)
