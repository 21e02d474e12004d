"""Pixels as a latent space: the autoencoder's place in a model that diffuses pixels."""

import types

import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

PATCH = 4


class PixelSpace(torch.nn.Module):
    """(B, 3, H, W) in [-1, 1] to (B, 48, H/4, W/4) and back, nothing lost: 4×4 pixels (`patch`) become channels.

    A rearrangement of pixels is orthogonal, so that diffusing its values is diffusing pixels (as in "simple diffusion", Hoogeboom et al.,
    arXiv 2301.11093, section 3.4). Called as diffusers' AutoencoderKL is.
    """

    dtype = torch.float32

    def __init__(self, patch: int = PATCH):
        super().__init__()
        from diffusers.configuration_utils import FrozenDict

        self.patch, self.config = patch, FrozenDict(scaling_factor=1.0, latent_channels=3 * patch**2)

    def encode(self, pixels: torch.Tensor):
        return types.SimpleNamespace(latent_dist=types.SimpleNamespace(mean=pixel_unshuffle(pixels, self.patch)))

    def decode(self, z: torch.Tensor):
        return types.SimpleNamespace(sample=pixel_shuffle(z, self.patch))
