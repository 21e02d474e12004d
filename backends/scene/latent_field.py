"""A field that renders an autoencoder's latents, and the layer that repairs them (ED-NeRF, arXiv 2310.02712, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import F, torch
from backends.scene.volume import Rendered, Volume, carved, painted, render, smoothness, surface
from backends.spec import Mesh
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

GROUND, RAYS, SAMPLES = 0.93, 2, 40  # grey behind the views; rays a latent cell along a side; samples a ray
LOOKED = tuple(Camera(45.0 * k, (15.0, 40.0)[k % 2], 2.8) for k in range(8))  # from where the mesh is coloured


def refinement(channels: int, width: int = 64):
    """ResNet blocks and self-attention as in the autoencoder's own middle, added to the latents; at first it adds nothing."""
    from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D

    middle = UNetMidBlock2D(in_channels=width, temb_channels=None, attention_head_dim=width, resnet_groups=16)
    net = torch.nn.Sequential(torch.nn.Conv2d(channels, width, 3, padding=1), middle, torch.nn.Conv2d(width, channels, 3, padding=1))
    torch.nn.init.zeros_(net[-1].weight), torch.nn.init.zeros_(net[-1].bias)
    return net


class LatentField:
    """A Volume of latents (`volume`), their `refine` layer or None, and the `model` whose autoencoder they are of; `ground` (C,): the latent of the ground."""

    def __init__(self, model, volume: Volume, refine, ground: Tensor):
        self.model, self.volume, self.refine, self.ground = model, volume, refine, ground

    def copy(self) -> LatentField:
        import copy

        return LatentField(self.model, self.volume.copy(), copy.deepcopy(self.refine), self.ground)

    def requires_grad_(self, on: bool = True) -> LatentField:
        for p in (*self.volume.parameters(), *(self.refine.parameters() if self.refine else ())):
            p.requires_grad_(on)
        return self

    def rates(self, density: float = 0.01, features: float = 0.08, refine: float = 1e-3) -> list[dict]:
        return [*self.volume.rates(density, features), *([{"params": self.refine.parameters(), "lr": refine}] if self.refine else [])]

    def latents(self, cameras: list[Camera], generator=None) -> tuple[Tensor, Tensor, Tensor]:
        """Rendered ẑ, refined z̃, both (n, C, h, w), and opacity (n, 1, h, w)."""
        cells = self.model.side // self.model.card.factor
        seen = render(self.volume, cameras, RAYS * cells, SAMPLES, self.ground, generator)
        z, opacity = F.avg_pool2d(seen.picture, RAYS), F.avg_pool2d(seen.opacity, RAYS)
        return z, z + self.refine(z) if self.refine else z, opacity

    def decoded(self, cameras: list[Camera]) -> tuple[Tensor, Tensor]:
        """(n, 3, side, side) pictures, 0 to 1, and opacity (n, 1, h, w)."""
        _, z, opacity = self.latents(cameras)
        return (self.model.to_pixels(z) + 1) / 2, opacity

    def seen(self, cameras: list[Camera], size: int, background=GROUND, generator=None) -> Rendered:
        """Decoded pictures of `size` px. The ground is part of the latents: `background` is not asked."""
        picture, opacity = self.decoded(cameras)
        picture, opacity = (F.interpolate(part, (size, size), mode="bilinear", antialias=True) for part in (picture, opacity))
        return Rendered(picture, opacity, torch.zeros_like(opacity))

    def mesh(self) -> Mesh | None:
        """The density's surface; each face in the colour of the decoded views that look at it."""
        if (shape := surface(self.volume)) is None:
            return None
        device = self.ground.device
        middles, normals = (torch.from_numpy(np.float32(a)).to(device) for a in (shape.triangles_center, shape.face_normals))
        total, weight = torch.zeros_like(middles), torch.full_like(middles[:, :1], 1e-6)
        for camera, picture in zip(LOOKED, torch.cat([self.decoded([c])[0] for c in LOOKED])):
            eye, at = torch.tensor(camera.axes()[0], dtype=torch.float32, device=device), camera.project(middles)
            facing = (F.normalize(eye - middles, dim=1) * normals).sum(1, keepdim=True).clamp_min(0) ** 4
            total += facing * F.grid_sample(picture[None], at[None, None], align_corners=False)[0, :, 0].T
            weight += facing
        return painted(shape, total / weight)


def encoded(model, views: np.ndarray, batch: int = 8) -> tuple[Tensor, Tensor]:
    """Latents (n, C, h, w) of RGBA views (n, H, W, 4) over the ground, and the ground's latent (C,)."""
    pictures = torch.from_numpy(views[..., :3] + (1 - views[..., 3:]) * GROUND).permute(0, 3, 1, 2).to(model.device)
    bare = model.to_latents(torch.full((1, 3, model.side, model.side), 2 * GROUND - 1, device=model.device))
    return torch.cat([model.to_latents(part * 2 - 1) for part in pictures.split(batch)]), bare[0].mean((1, 2))


def fit(model, views: np.ndarray, cameras: list[Camera], side: int, steps: int, seed: int, refined: bool = True, weight: float = 1.0,
        batch: int = 4) -> Iterator[tuple[LatentField, float]]:  # fmt: skip
    """Fit a latent field to RGBA views of the model's size; yields (field, error of z̃) after each step: ‖ẑ − z‖² + weight·‖z̃ − z‖².

    The density begins as the views' hull and is held to their alpha.
    """
    z, ground = encoded(model, views)
    alpha = F.adaptive_avg_pool2d(torch.from_numpy(views[..., 3]).to(model.device)[:, None], z.shape[-2:])
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        refine = refinement(len(ground)).to(model.device) if refined else None
    volume = Volume(carved(views, cameras, side, model.device).density, ground.view(1, -1, 1, 1, 1).repeat(1, 1, side, side, side), colours=False)
    field = LatentField(model, volume, refine, ground).requires_grad_()
    optimiser = torch.optim.Adam(field.rates(0.01, 0.1))
    for _ in range(steps):
        chosen = torch.randperm(len(cameras), generator=generator)[:batch].tolist()
        with torch.enable_grad():
            plain, better, opacity = field.latents([cameras[c] for c in chosen], generator)
            error = (better - z[chosen]).square().mean()
            loss = (plain - z[chosen]).square().mean() + weight * error + (opacity - alpha[chosen]).square().mean() + 1e-3 * smoothness(volume.density)
            loss.backward()
        optimiser.step(), optimiser.zero_grad()
        yield field, float(error.detach())
    field.requires_grad_(False)
