"""Two more ways from the photo world's latents to pixels: with frequencies refined, and at any size."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import pixel_unshuffle

from backends.nets.aff import AffUNet
from backends.nets.sr_vae import WIDTH, SrAutoencoder


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
    """The frequency-augmented decoder (arXiv 2310.12004, section 3.3) on the plain decoder's last features, which stay as they are.

    What the low-resolution picture shows is fused into them, then a U-Net of AFF blocks refines them before an output head of its own. Its head
    begins as nothing, so that training starts from the linear way back, as the plain decoder's does.
    """

    @register_to_config
    def __init__(self, channels: int = WIDTH):
        super().__init__()
        self.low = nn.Conv2d(12, channels, 3, padding=1)
        self.fuse = nn.Sequential(Resnet(2 * channels, channels), Rrdb(channels), Resnet(channels, channels), nn.Conv2d(channels, channels, 1))
        self.refine = AffUNet(channels, refine=2, ratio=2, batch_norm=False)
        self.norm, self.out = nn.GroupNorm(16, channels, eps=1e-6), nn.Conv2d(channels, 12, 3, padding=1)
        nn.init.zeros_(self.out.weight), nn.init.zeros_(self.out.bias)

    def forward(self, vae: SrAutoencoder, z: torch.Tensor, low: torch.Tensor | None = None, h: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 3, 4h, 4w) of latents (B, 8, h, w); `low`: the low-resolution picture at that size, None where there is none; `h`: `vae.trunk(z)`."""
        h = vae.trunk(z) if h is None else h
        if low is not None:
            h = h + self.fuse(torch.cat([self.low(pixel_unshuffle(low, 2)), h], 1))
        h = h + self.refine(h)
        return vae.linear(z) + F.pixel_shuffle(self.out(F.silu(self.norm(h))), 2).float()


class LiifDecoder(ModelMixin, ConfigMixin):
    """A decoder that can be asked for any grid of pixels (arXiv 2403.10255, section 3.2; LIIF: arXiv 2012.09161).

    A perceptron turns a feature, where in its cell the pixel lies and how large the pixel is into RGB. Four neighbours answer, weighed by the area
    opposite (local ensemble). The features' part of the perceptron's first layer is linear, hence done before they are looked up, once a cell and
    not once a pixel. Features are the plain decoder's last ones, two pixels of the latents' picture a cell, and the answer is added to its pixels
    brought to size: the paper's are of the latents' resolution and the answer stands alone, which takes far longer to learn.
    """

    @register_to_config
    def __init__(self, channels: int = WIDTH, hidden: int = 64):
        super().__init__()
        self.trunk = nn.Sequential(Resnet(channels, channels), nn.GroupNorm(8, channels), nn.SiLU())
        self.first, self.place = nn.Conv2d(channels, hidden, 3, padding=1), nn.Linear(4, hidden, bias=False)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        nn.init.zeros_(self.rest[-1].weight), nn.init.zeros_(self.rest[-1].bias)

    def features(self, h: torch.Tensor) -> torch.Tensor:
        """Of `vae.trunk(z)`."""
        return self.first(self.trunk(h))

    def query(self, features: torch.Tensor, at: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """(B, Q, 3) to be added at places `at`: (B, Q, 2) as (y, x) in [-1, 1], align_corners=False; `cell`: (2,), a pixel's height and width there."""
        size = torch.tensor(features.shape[-2:], device=at.device, dtype=at.dtype)
        flat, cell, answers, areas = features.flatten(2).transpose(1, 2), (cell * size).expand_as(at), [], []
        batch = torch.arange(len(features), device=at.device)[:, None]
        for dy in (-1, 1):
            for dx in (-1, 1):
                near = at + torch.tensor([dy, dx], device=at.device, dtype=at.dtype) / size
                index = torch.minimum(((near.clamp(-1, 1) + 1) / 2 * size).floor().long(), size.long() - 1)
                away = (at - (2 * index + 1) / size + 1) * size  # 2 is a cell's side
                found = flat[batch, index[..., 0] * features.shape[-1] + index[..., 1]]  # (B, Q, C)
                answers.append(self.rest(found + self.place(torch.cat([away, cell], -1).to(found.dtype))))
                areas.append(away.prod(-1, keepdim=True).abs() + 1e-9)
        total = sum(areas)
        return sum(answer.float() * (area / total) for answer, area in zip(answers, reversed(areas)))

    def forward(self, vae: SrAutoencoder, z: torch.Tensor, size: tuple[int, int], chunk: int = 65_536) -> torch.Tensor:
        """(B, 3, *size) pixels of the latents, `chunk` of them at a time."""
        h = vae.trunk(z)
        features, at = self.features(h), grid(size, z.device).expand(len(z), -1, -1)
        cell = 2 / torch.tensor(size, device=z.device, dtype=torch.float32)
        added = torch.cat([self.query(features, part, cell) for part in at.split(chunk, 1)], 1)
        return brought(vae.head(h, z), size) + added.transpose(1, 2).unflatten(2, size)


def brought(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bicubic, smoothed where it shrinks."""
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)


def grid(size: tuple[int, int], device) -> torch.Tensor:
    """(1, H·W, 2): the centres of pixels as (y, x) in [-1, 1], align_corners=False."""
    y, x = ((2 * torch.arange(n, device=device, dtype=torch.float32) + 1) / n - 1 for n in size)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)[None]
