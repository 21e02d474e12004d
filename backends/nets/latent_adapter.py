"""LAFR's codebook adapter (arXiv 2505.23462) and what it is measured against, an encoder trained on: both from a bad face to a good face's latent."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Encoder
from torch import Tensor, nn
from torch.nn import functional as F

from backends.nets.patch_vae import PATCH


def convolved(*widths: int) -> nn.Sequential:
    """3×3 convolutions through these widths, SiLU between them."""
    layers = [part for a, b in zip(widths, widths[1:]) for part in (nn.Conv2d(a, b, 3, padding=1), nn.SiLU())]
    return nn.Sequential(*layers[:-1])


class CodebookAdapter(ModelMixin, ConfigMixin):
    """z_L to z_A, both (B, C, h, w): at each place the features' nearest codes; a small network maps the codes of a place and its neighbours back.

    The features are cut into `groups`, each with `size` codes of its own (product quantisation: Jégou et al., 2011). `use`: how many of them are looked
    at; they stand in the order of how often they are taken.
    """

    @register_to_config
    def __init__(self, channels: int = 4, width: int = 64, size: int = 1024, groups: int = 4):
        super().__init__()
        self.extract = convolved(channels, width, width, width)
        self.codes = nn.Parameter(torch.randn(groups, size, width // groups))
        self.map = convolved(width, width, channels)

    def features(self, z: Tensor) -> Tensor:
        """(B, h, w, groups, width / groups); at each place of one length in all, so that no code is out of reach."""
        f = F.layer_norm(self.extract(z).movedim(1, -1), (self.config.width,))
        return f.unflatten(-1, (self.config.groups, -1))

    def nearest(self, f: Tensor, use: int | None = None) -> Tensor:
        """Which code of its group is nearest to each of (…, groups, n): (…, groups)."""
        codes = self.codes[:, :use].to(f.dtype)
        return (codes.square().sum(-1) - 2 * torch.einsum("...gd,gnd->...gn", f, codes)).argmin(-1)

    def taken(self, at: Tensor) -> Tensor:
        """The codes of these numbers: (…, groups, n) of (…, groups)."""
        return self.codes[torch.arange(len(self.codes), device=at.device), at]

    def mapped(self, q: Tensor) -> Tensor:
        return self.map(q.flatten(-2).movedim(-1, 1))

    def forward(self, z: Tensor, use: int | None = None) -> tuple[Tensor, Tensor]:
        """(z_A, the codes' numbers (B, h, w, groups))."""
        at = self.nearest(self.features(z), use)
        return self.mapped(self.taken(at)), at


class LatentEncoder(ModelMixin, ConfigMixin):
    """The encoder half of PatchAutoencoderKL: (B, 3, H, W) in [-1, 1] to scaled latents."""

    @register_to_config
    def __init__(self, block_out_channels: tuple[int, ...] = (96,), latent_channels: int = 4, layers_per_block: int = 2, scaling_factor: float = 1.0):
        super().__init__()
        self.encoder = Encoder(3 * PATCH**2, latent_channels, ("DownEncoderBlock2D",) * len(block_out_channels), tuple(block_out_channels),
                               layers_per_block, double_z=True)  # fmt: skip
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)

    @classmethod
    def of(cls, vae) -> "LatentEncoder":
        """A copy of an autoencoder's."""
        own = cls(vae.config.block_out_channels, vae.config.latent_channels, vae.config.layers_per_block, vae.config.scaling_factor)
        own.encoder.load_state_dict(vae.encoder.state_dict()), own.quant_conv.load_state_dict(vae.quant_conv.state_dict())
        return own

    def forward(self, pictures: Tensor) -> Tensor:
        moments = self.quant_conv(self.encoder(F.pixel_unshuffle(pictures, PATCH)))
        return moments.chunk(2, 1)[0] * self.config.scaling_factor
