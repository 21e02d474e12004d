"""A field that renders an autoencoder's latents, and the layer that repairs them (ED-NeRF, arXiv 2310.02712, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import F, torch
from backends.models import ASSETS
from backends.scene.turning import GROUND
from backends.scene.volume import Rendered, Volume, carved, painted, read_off, render, smoothness, surface
from backends.spec import Mesh
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

RAYS, SAMPLES = 2, 40  # rays a latent cell along a side; samples a ray
LOOKED = tuple(Camera(30.0 * k, (15.0, 50.0, -5.0)[k % 3], 2.8) for k in range(12))  # from where the mesh is coloured
LEVEL = 0.2  # of the mesh's surface: what an edit adds is seen as solid long before each of its voxels is


def refinement(channels: int, width: int = 64, begun: Path | None = None):
    """ResNet blocks and self-attention as in the autoencoder's own middle, added to the latents.

    At first it adds nothing, or what the layer in the folder `begun` does (train/objects_refine.py).
    """
    from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D

    middle = UNetMidBlock2D(in_channels=width, temb_channels=None, attention_head_dim=width, resnet_groups=16)
    net = torch.nn.Sequential(torch.nn.Conv2d(channels, width, 3, padding=1), middle, torch.nn.Conv2d(width, channels, 3, padding=1))
    torch.nn.init.zeros_(net[-1].weight), torch.nn.init.zeros_(net[-1].bias)
    if begun:
        from safetensors.torch import load_file

        net.load_state_dict({name: w.float() for name, w in load_file(begun / "layer.safetensors").items()})
    return net


class LatentField:
    """A Volume of latents (`volume`), their `refine` layer or None, and the `model` whose autoencoder they are of; `ground` (1, C, h, w): the latents of an empty view.

    `around`: a field and the nodes (R, R, R) beyond which what its layer adds to its own latents is added to these: normalisation and attention of
    the layer would carry a change of one place to all of a view.
    """

    def __init__(self, model, volume: Volume, refine, ground: Tensor, around: tuple[LatentField, Tensor] | None = None):
        self.model, self.volume, self.refine, self.ground, self.around = model, volume, refine, ground, around

    def copy(self, around: tuple[LatentField, Tensor] | None = None) -> LatentField:
        import copy

        return LatentField(self.model, self.volume.copy(), copy.deepcopy(self.refine), self.ground, around)

    def requires_grad_(self, on: bool = True) -> LatentField:
        for p in (*self.volume.parameters(), *(self.refine.parameters() if self.refine else ())):
            p.requires_grad_(on)
        return self

    def rates(self, density: float = 0.01, features: float = 0.08, refine: float = 1e-3) -> list[dict]:
        return [*self.volume.rates(density, features), *([{"params": self.refine.parameters(), "lr": refine}] if self.refine else [])]

    def latents(self, cameras: list[Camera], generator=None, known: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Rendered ẑ, refined z̃, both (n, C, h, w), and opacity (n, 1, h, w). `known`: what `beyond` gives for these cameras, where it is there already."""
        side = RAYS * self.ground.shape[-1]
        ground = F.interpolate(self.ground, (side, side)).flatten(2).transpose(1, 2)  # an autoencoder's grounds differ towards a picture's edge
        seen = render(self.volume, cameras, side, SAMPLES, ground, generator)
        z, opacity = F.avg_pool2d(seen.picture, RAYS), F.avg_pool2d(seen.opacity, RAYS)
        if not self.refine:
            return z, z, opacity
        added = self.refine(z)
        if self.around:
            other, inside = known or self.beyond(cameras)
            added = torch.where(inside, added, other)
        return z, z + added, opacity

    def beyond(self, cameras: list[Camera]) -> tuple[Tensor, Tensor]:
        """What the layer adds to the field around (n, C, h, w), and where its own counts (n, 1, h, w)."""
        other, where = self.around
        with torch.no_grad():
            plain, better, _ = other.latents(cameras)
            return better - plain, in_views(where, cameras, plain.shape[-1])

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
        if (shape := surface(self.volume, LEVEL)) is None:
            return None
        middles, normals = (torch.from_numpy(np.float32(a)).to(self.ground.device) for a in (shape.triangles_center, shape.face_normals))
        total = torch.zeros_like(middles[:, :1]).expand(-1, 4)
        for camera in LOOKED:
            seen, (picture,) = render(self.volume, [camera], 64, background=0.0), self.decoded([camera])[0]
            away = middles.new_tensor(camera.axes()[0]) - middles
            far = away.norm(dim=1, keepdim=True)
            seen_first = read_off(seen.depth[0] / seen.opacity[0].clamp_min(1e-3), camera, middles) + 3 * self.volume.width > far
            facing = ((away * normals).sum(1, keepdim=True) / far).clamp_min(1e-4) ** 4
            facing = torch.where(seen_first, facing, 1e-4 * facing)  # a face that none sees takes what lies over it
            total = total + facing * torch.cat([read_off(picture, camera, middles), torch.ones_like(far)], 1)
        return painted(shape, total[:, :3] / total[:, 3:])


def in_views(where: Tensor, cameras: list[Camera], side: int) -> Tensor:
    """(n, 1, side, side) bool: cells of the views that nodes of `where` (R, R, R) cover by at least a quarter."""
    solid = Volume(torch.where(where, 1.0, -1.0)[None, None], torch.zeros(1, 1, *where.shape, device=where.device), colours=False)
    return F.avg_pool2d(render(solid, cameras, 2 * side).opacity, 2) > 0.25


def encoded(model, views: np.ndarray, batch: int = 8) -> tuple[Tensor, Tensor]:
    """Latents (n, C, h, w) of RGBA views (n, H, W, 4) over the ground, and the ground's (1, C, h, w)."""
    pictures = torch.from_numpy(views[..., :3] + (1 - views[..., 3:]) * GROUND).permute(0, 3, 1, 2).to(model.device)
    bare = model.to_latents(torch.full((1, 3, model.side, model.side), 2 * GROUND - 1, device=model.device))
    return torch.cat([model.to_latents(part * 2 - 1) for part in pictures.split(batch)]), bare


def fit(model, views: np.ndarray, cameras: list[Camera], side: int, steps: int, seed: int, refined: bool = True, weight: float = 1.0,
        batch: int = 2, known: tuple[Tensor, Tensor] | None = None) -> Iterator[tuple[LatentField, float]]:  # fmt: skip
    """Fit a latent field to RGBA views of the model's size; yields (field, error of z̃) after each step: ‖ẑ − z‖² + weight·‖z̃ − z‖².

    The density begins as the views' hull and is held to their alpha. `known`: what `encoded` gave for the views, where it is there already.
    """
    z, ground = known or encoded(model, views)
    alpha = F.adaptive_avg_pool2d(torch.from_numpy(views[..., 3]).to(model.device)[:, None], z.shape[-2:])
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = model.card.options.get("refinement")  # of the model's own latents; the layers of others begin at nothing
        refine = refinement(ground.shape[1], begun=ASSETS / layer if layer else None).to(model.device) if refined else None
    mean = (z * alpha).sum((0, 2, 3)) / alpha.sum().clamp_min(1e-3)
    volume = Volume(carved(views, cameras, side, model.device).density, mean.view(1, -1, 1, 1, 1).repeat(1, 1, side, side, side), colours=False)
    field = LatentField(model, volume, refine, ground).requires_grad_()
    optimiser = torch.optim.Adam(field.rates(0.004, 0.1, 1e-3 if refined and layer else 2e-3))  # what it knows already is worth keeping
    slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
    for _ in range(steps):
        chosen = torch.randperm(len(cameras), generator=generator)[:batch].tolist()
        with torch.enable_grad():
            plain, better, opacity = field.latents([cameras[c] for c in chosen], generator)
            error = (better - z[chosen]).square().mean()
            loss = (plain - z[chosen]).square().mean() + weight * error + (opacity - alpha[chosen]).abs().mean() + 0.01 * smoothness(volume.density)
            loss.backward()
        optimiser.step(), optimiser.zero_grad(), slower.step()
        yield field, float(error.detach())
    field.requires_grad_(False)
