"""A voxel field of a model's latents: fitted to encoded views, repaired by a refinement layer, seen by decoding (ED-NeRF, arXiv 2310.02712)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from backends.denoiser import Denoiser
from backends.lazy import F, torch
from backends.scene.capturing import posed
from backends.scene.volume import Rendered, Volume, carved, coloured, march, rays_of, read_off, render, smoothness, surface
from backends.spec import Mesh
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

GROUND = 0.93  # the grey behind the object: latents can't be laid over another one afterwards
RAYS, SAMPLES = 2, 48  # RAYS² rays a latent cell, averaged
LEVEL = 0.2  # of the mesh's surface: what an edit adds is seen as solid long before each of its voxels is
WIDTH = 64  # channels within the refinement layer


@dataclass(frozen=True)
class Encoded:
    """Views of an object: latents `z` (n, C, h, w), how much of each cell it covers (n, 1, h, w), RGBA pictures; `ground` (1, C, h, w) of none."""

    cameras: list[Camera]
    z: Tensor
    cover: Tensor
    pictures: np.ndarray
    ground: Tensor


def encoded(model: Denoiser, shape: Mesh, n: int) -> Encoded:
    pictures, cameras = posed(shape, n, model.side)
    rgba = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(model.device)
    with torch.no_grad():
        ground = model.to_latents(torch.full_like(rgba[:1, :3], GROUND * 2 - 1))
        whole = (rgba[:, :3] + (1 - rgba[:, 3:]) * GROUND) * 2 - 1
        z = torch.cat([model.to_latents(part) for part in whole.split(8)])
    return Encoded(cameras, z, F.interpolate(rgba[:, 3:], z.shape[-2:], mode="area"), pictures, ground)


def refinement(channels: int, seed: int) -> torch.nn.Module:
    """R(ẑ) = ẑ + what ResNet, self-attention and ResNet, an autoencoder's middle, add to it: nothing at first, for the last convolution is zero."""
    from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D  # what stands in the middle of diffusers' AutoencoderKL

    class Refinement(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.leave = torch.nn.Conv2d(channels, WIDTH, 3, padding=1), torch.nn.Conv2d(WIDTH, channels, 3, padding=1)
            self.middle = UNetMidBlock2D(WIDTH, temb_channels=None, attention_head_dim=WIDTH)
            torch.nn.init.zeros_(self.leave.weight), torch.nn.init.zeros_(self.leave.bias)

        def forward(self, z: Tensor) -> Tensor:
            return z + self.leave(self.middle(self.enter(z), None))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Refinement()


@dataclass
class LatentField:
    """`volume`: density, and latents as features; `refine`: R, or None; `ground` (1, C, h, w): the latents of an empty view."""

    model: Denoiser
    volume: Volume
    refine: torch.nn.Module | None
    ground: Tensor

    def latents(self, cameras: list[Camera], generator=None) -> Rendered:
        """ẑ (n, C, h, w) as `picture`, before R; differentiable."""
        side = self.ground.shape[-1]
        eyes, ways = rays_of(cameras, side * RAYS, self.ground.device)
        ground = F.interpolate(self.ground, scale_factor=float(RAYS)).flatten(2).transpose(1, 2)
        parts = march(self.volume, eyes, ways, SAMPLES, ground, generator)
        return Rendered(*(F.avg_pool2d(p.transpose(1, 2).reshape(len(cameras), -1, side * RAYS, side * RAYS), RAYS) for p in parts))

    def refined(self, z: Tensor) -> Tensor:
        return self.refine(z) if self.refine else z

    def seen(self, cameras: list[Camera], size: int, *_) -> Rendered:
        """Decoded views D(R(ẑ)), 0 to 1, of `size` px, always over GROUND; opacity and depth are as coarse as the latents."""
        with torch.no_grad():
            z = self.latents(cameras)
            picture = (self.model.to_pixels(self.refined(z.picture)) + 1) / 2
            if picture.shape[-1] != size:
                picture = F.interpolate(picture, (size, size), mode="bilinear", antialias=picture.shape[-1] > size)
            return replace(z, picture=picture.clamp(0, 1))

    def rates(self, density: float, features: float, refine: float) -> list[dict]:
        """Adam's parameter groups."""
        return self.volume.rates(density, features) + ([{"params": list(self.refine.parameters()), "lr": refine}] if self.refine else [])

    def copy(self) -> LatentField:
        """As it is, and without gradients."""
        return replace(self, volume=self.volume.copy(), refine=deepcopy(self.refine)).requires_grad_(False)

    def requires_grad_(self, on: bool = True) -> LatentField:
        for p in (*self.volume.parameters(), *(self.refine.parameters() if self.refine else ())):
            p.requires_grad_(on)
        return self


def fitted(model: Denoiser, views: Encoded, grid: int, steps: int, generator, refine: bool, weight: float = 1.0, batch: int = 2) -> Iterator[LatentField]:
    """Fit a field and its R: ‖ẑ − z‖² + weight·‖R(ẑ) − z‖², from the views' hull; yields it after each step of Adam."""
    volume = carved(views.pictures, views.cameras, grid, model.device)
    mean = (views.z * views.cover).sum((0, 2, 3)) / views.cover.sum().clamp_min(1e-3)
    volume = Volume(volume.density, mean.view(1, -1, 1, 1, 1).repeat(1, 1, grid, grid, grid), colours=False)
    made = refinement(views.z.shape[1], int(torch.randint(2**31, (), generator=generator))).to(model.device)
    field = LatentField(model, volume, made if refine else None, views.ground).requires_grad_()
    optimiser = torch.optim.Adam(field.rates(0.004, 0.1, 2e-3))
    slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
    for _ in range(steps):
        chosen = torch.randperm(len(views.z), generator=generator)[:batch]
        with torch.enable_grad():
            seen, z = field.latents([views.cameras[c] for c in chosen], generator), views.z[chosen]
            loss = (seen.picture - z).square().mean() + (seen.opacity - views.cover[chosen]).abs().mean() + 0.01 * smoothness(volume.density)
            if refine:
                loss = loss + weight * (field.refined(seen.picture) - z).square().mean()
            loss.backward()
        optimiser.step(), optimiser.zero_grad(), slower.step()
        yield field


def mesh_of(field: LatentField, views: int = 12) -> Mesh | None:
    """The density's surface, each face in the colours of the decoded views that look at it."""
    shape = surface(field.volume, LEVEL)
    if shape is None:
        return None
    middles, normals = (torch.from_numpy(np.float32(a)).to(field.ground.device) for a in (shape.triangles_center, shape.face_normals))
    total = torch.zeros(len(middles), 4, device=middles.device)
    with torch.no_grad():
        for camera in (Camera(360 * k / views, (15.0, 50.0, -5.0)[k % 3], 2.8) for k in range(views)):
            bare, picture = render(field.volume, [camera], 64), field.seen([camera], field.model.side).picture[0]
            to_eye = torch.tensor(camera.axes()[0], dtype=torch.float32, device=middles.device) - middles
            far = to_eye.norm(dim=1)
            near = read_off(bare.depth[0] / bare.opacity[0].clamp_min(1e-3), camera, middles)[:, 0] + 3 * field.volume.width > far
            facing = (normals * to_eye).sum(1) / far
            weight = facing.clamp_min(1e-4) ** 2 * torch.where(near, 1.0, 1e-4)  # a face that none sees takes what lies over it
            total += weight[:, None] * torch.cat([read_off(picture, camera, middles), torch.ones_like(far)[:, None]], 1)
    return coloured(shape, total[:, :3] / total[:, 3:])
