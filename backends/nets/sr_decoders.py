"""Two more ways from the photo world's latents to pixels: with frequencies refined, and at any size."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import pixel_unshuffle

from backends.nets.aff import AffUNet
from backends.nets.sr_vae import CONFIG, SrAutoencoder


class Resnet(ResnetBlock2D):
    """diffusers' residual block without a time."""

    def __init__(self, into: int, out: int):
        super().__init__(in_channels=into, out_channels=out, temb_channels=None, groups=8)

    def forward(self, x):
        return super().forward(x, None)


class Rrdb(nn.Module):
    """Residual in residual dense block (ESRGAN, arXiv 1809.00219): three dense blocks of five convolutions, each added at 0.2."""

    def __init__(self, channels: int, grow: int = 8):
        super().__init__()
        widths = [channels + i * grow for i in range(5)]
        self.blocks = nn.ModuleList(nn.ModuleList(nn.Conv2d(w, grow if w < widths[-1] else channels, 3, padding=1) for w in widths) for _ in range(3))

    def forward(self, x):
        out = x
        for convs in self.blocks:
            seen = [out]
            for conv in convs[:-1]:
                seen.append(F.leaky_relu(conv(torch.cat(seen, 1)), 0.2))
            out = out + 0.2 * convs[-1](torch.cat(seen, 1))
        return x + 0.2 * out


class FaDecoder(ModelMixin, ConfigMixin):
    """The frequency-augmented decoder (arXiv 2310.12004, section 3.3) behind the plain decoder's trunk, which stays as it is.

    What the low-resolution picture shows is fused into the trunk's features, then a U-Net of AFF blocks refines them before an output head of
    its own. Both begin as nothing and the head as the plain decoder's, so that training starts from the plain decoder.
    """

    @register_to_config
    def __init__(self, channels: int = CONFIG["block_out_channels"][0]):
        super().__init__()
        self.low = nn.Conv2d(12, channels, 3, padding=1)
        self.fuse = nn.Sequential(Resnet(2 * channels, channels), Rrdb(channels), Resnet(channels, channels), nn.Conv2d(channels, channels, 1))
        self.refine, self.refined = AffUNet(channels, refine=2, ratio=2, batch_norm=False), nn.Conv2d(channels, channels, 1)
        self.norm, self.out = nn.GroupNorm(16, channels, eps=1e-6), nn.Conv2d(channels, 12, 3, padding=1)
        for last in (self.fuse[-1], self.refined):
            nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)

    def begin(self, vae: SrAutoencoder) -> "FaDecoder":
        """With the plain decoder's output head."""
        self.norm.load_state_dict(vae.decoder.conv_norm_out.state_dict())
        self.out.load_state_dict(vae.decoder.conv_out.state_dict())
        return self

    def forward(self, vae: SrAutoencoder, z: torch.Tensor, low: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 3, 4h, 4w) of latents (B, 8, h, w); `low`: the low-resolution picture at that size, None where there is none."""
        h = vae.trunk(z)
        if low is not None:
            h = h + self.fuse(torch.cat([self.low(pixel_unshuffle(low, 2)), h], 1))
        h = h + self.refined(self.refine(h))
        return F.pixel_shuffle(self.out(F.silu(self.norm(h))), 2)


class Queried:
    """LIIF's answer at any place (arXiv 2012.09161), for a network with `place` and `rest`: see LiifDecoder."""

    def query(self, features: torch.Tensor, at: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """(B, Q, 3) at places `at`: (B, Q, 2) as (y, x) in [-1, 1], align_corners=False; `cell`: (2,) or (B, 1, 2), a pixel's height and width there."""
        size = torch.tensor(features.shape[-2:], device=at.device, dtype=at.dtype)
        cell, answers, areas = (cell * size).expand_as(at), [], []
        cells = features.flatten(2).mT.flatten(0, 1)  # (B·h·w, C), a copy of rows being much quicker than of single numbers
        first = torch.arange(0, len(cells), features[0, 0].numel(), device=at.device)[:, None]
        for dy in (-1, 1):
            for dx in (-1, 1):
                near = at + torch.tensor([dy, dx], device=at.device, dtype=at.dtype) / size
                index = (((near.clamp(-1, 1) + 1) / 2 * size).floor().long()).clamp_min(0)
                index = torch.minimum(index, size.long() - 1)
                centre = (2 * index.to(at.dtype) + 1) / size - 1
                flat = index[..., 0] * features.shape[-1] + index[..., 1] + first
                found = cells.index_select(0, flat.flatten()).view(*flat.shape, -1)  # (B, Q, C)
                away = (at - centre) * size  # in cells' halves: a cell reaches from −1 to 1
                answers.append(self.rest(found + self.place(torch.cat([away, cell], -1).to(found.dtype))))
                areas.append(away.prod(-1, keepdim=True).abs() + 1e-9)
        total = sum(areas)
        return sum(answer * (area / total).to(answer.dtype) for answer, area in zip(answers, reversed(areas)))

    def asked(self, features: torch.Tensor, size: tuple[int, int], chunk: int = 65_536) -> torch.Tensor:
        """(B, n, *size) answers at the centres of `size` pixels, `chunk` of them at a time."""
        at = grid(size, features.device).expand(len(features), -1, -1)
        cell = 2 / torch.tensor(size, device=features.device, dtype=torch.float32)
        answers = torch.cat([self.query(features, part, cell) for part in at.split(chunk, 1)], 1)
        return answers.transpose(1, 2).unflatten(2, size)


class LiifDecoder(Queried, ModelMixin, ConfigMixin):
    """A decoder that can be asked for any grid of pixels (arXiv 2403.10255, section 3.2; LIIF: arXiv 2012.09161), behind the plain decoder's trunk.

    A perceptron turns a feature, where in its cell the pixel lies and how large the pixel is into RGB. Four neighbours answer, weighed by the area
    opposite (local ensemble). The features' part of the perceptron's first layer is linear, hence done before they are looked up, once a cell and not
    once a pixel. Answers are added to what the plain decoder draws, brought to the size; they begin as nothing, so that training starts from that.
    """

    @register_to_config
    def __init__(self, channels: int = CONFIG["block_out_channels"][0], width: int = 96, hidden: int = 64, blocks: int = 2):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), *(Resnet(width, width) for _ in range(blocks)), nn.Conv2d(width, hidden, 1))
        self.place = nn.Linear(4, hidden, bias=False)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        nn.init.zeros_(self.rest[-1].weight), nn.init.zeros_(self.rest[-1].bias)

    def read(self, vae: SrAutoencoder, z: torch.Tensor) -> torch.Tensor:
        """(B, 12 + hidden, 2h, 2w) of latents (B, 8, h, w): the plain decoder's picture as 2×2 pixels a place, and the features to be asked."""
        head = F.silu(vae.decoder.conv_norm_out(vae.trunk(z)))
        return torch.cat([vae.decoder.conv_out(head), self.first(head)], 1)

    def forward(self, vae: SrAutoencoder, z: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(B, 3, *size) pixels of the latents."""
        plain, features = parted(self.read(vae, z))
        return resized(plain, size) + self.asked(features, size)


def parted(read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(the plain decoder's picture (B, 3, H, W), features (B, hidden, H/2, W/2)) of what LiifDecoder.read gives."""
    return F.pixel_shuffle(read[:, :12].float(), 2), read[:, 12:]  # no antialiasing in bf16


def resized(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bicubic, smoothed where it shrinks."""
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)


def grid(size: tuple[int, int], device) -> torch.Tensor:
    """(1, H·W, 2): the centres of pixels as (y, x) in [-1, 1], align_corners=False."""
    y, x = ((2 * torch.arange(n, device=device, dtype=torch.float32) + 1) / n - 1 for n in size)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)[None]
