"""A voxel field and its differentiable ray marcher: what all methods of the 3D tab but the Gaussians optimise.

Density and features live on a grid over the cube [-1, 1]³, between whose nodes they are interpolated; a pixel is emission and absorption along
its ray (Mildenhall et al., arXiv 2003.08934, eq. 3). Grids instead of networks, so that a CPU has tens of steps a second (as ReLU fields,
Karnewar et al., arXiv 2205.10824).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import F, torch
from backends.spec import Mesh
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

SHARP = 40.0  # of densities: a voxel whose raw value is 1 hides what is behind it


@dataclass
class Volume:
    """`density` (1, 1, R, R, R), before softplus; `features` (1, C, R, R, R). Axes are z, y, x.

    `colours`: features are RGB, squashed to 0–1 by a sigmoid; otherwise (latents) they are taken as they are.
    """

    density: Tensor
    features: Tensor
    colours: bool = True

    @classmethod
    def blank(cls, side: int, channels: int = 3, colours: bool = True, density: float = -0.3, device="cpu") -> Volume:
        return cls(torch.full((1, 1, side, side, side), density, device=device), torch.zeros(1, channels, side, side, side, device=device), colours)

    @classmethod
    def blob(cls, side: int, seed: int, device="cpu") -> Volume:
        """A soft ball, denser at the middle (as DreamFusion's initial bias), of greys that differ a little."""
        radius = nodes(side).square().sum(1).sqrt().view(side, side, side)
        made = cls.blank(side, device=device)
        made.density = (0.25 * (1 - radius / 0.5)).clamp_min(-0.3)[None, None].to(device)
        made.features = (0.2 * torch.randn(made.features.shape, generator=torch.Generator().manual_seed(seed))).to(device)
        return made

    def parameters(self) -> list[Tensor]:
        return [self.density, self.features]

    def rates(self, density: float = 0.01, features: float = 0.08) -> list[dict]:
        """Adam's parameter groups."""
        return [{"params": [self.density], "lr": density}, {"params": [self.features], "lr": features}]

    def copy(self) -> Volume:
        return Volume(self.density.detach().clone(), self.features.detach().clone(), self.colours)

    def requires_grad_(self) -> Volume:
        for p in self.parameters():
            p.requires_grad_(True)
        return self

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) densities per unit of length and (N, C) features at points (N, 3)."""
        both = torch.cat([self.density, self.features], 1)
        read = F.grid_sample(both, points.view(1, 1, 1, -1, 3), align_corners=True)[0, :, 0, 0].T
        return F.softplus(SHARP * read[:, 0]), torch.sigmoid(read[:, 1:]) if self.colours else read[:, 1:]

    def seen(self, cameras: list[Camera], size: int, background=1.0, generator=None) -> Rendered:
        """Pictures of `size` px over the background, a number or (C,); jittered with a generator; differentiable."""
        return render(self, cameras, size, 48, background, generator)

    def mesh(self) -> Mesh | None:
        return mesh_of(self)

    @property
    def width(self) -> float:
        """Of a voxel."""
        return 2 / (self.density.shape[-1] - 1)

    def opacity(self) -> Tensor:
        """(R, R, R): the share of light that each voxel holds back over its width."""
        return 1 - (-F.softplus(SHARP * self.density.detach()[0, 0]) * self.width).exp()


@dataclass(frozen=True)
class Rendered:
    """`picture` (n, C, H, W), over the background; `opacity` (n, 1, H, W); `depth` (n, 1, H, W), from the eye, where anything is."""

    picture: Tensor
    opacity: Tensor
    depth: Tensor


def rays_of(cameras: list[Camera], size: int, device="cpu") -> tuple[Tensor, Tensor]:
    """(n, 1, 3) eyes and (n, size², 3) unit directions."""
    eyes, ways = zip(*(c.rays(size) for c in cameras))
    return torch.tensor(np.stack(eyes), dtype=torch.float32, device=device)[:, None], torch.tensor(np.stack(ways), dtype=torch.float32, device=device).flatten(
        1, 2
    )


def march(volume: Volume, eyes: Tensor, ways: Tensor, samples: int = 48, background=1.0, generator=None) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, P, C), opacity (n, P, 1) and depth (n, P, 1) along rays from eyes (n, 1 or P, 3) in directions `ways` (n, P, 3).

    `samples` points a ray within the cube, each drawn in its own stretch with a `generator`, else at the middles. `background` broadcasts to
    (n, P, C).
    """
    inverse = 1 / torch.where(ways.abs() < 1e-6, 1e-6, ways)
    first, second = (-1 - eyes) * inverse, (1 - eyes) * inverse
    near = torch.minimum(first, second).amax(-1, keepdim=True).clamp_min(0)
    far = torch.maximum(first, second).amin(-1, keepdim=True)
    length = (far - near).clamp_min(0)  # 0 where a ray misses the cube
    jitter = torch.rand((*ways.shape[:2], samples), generator=generator).to(ways) if generator else 0.5
    t = near + length * ((torch.arange(samples, device=ways.device) + jitter) / samples)
    points = eyes[:, :, None] + t[..., None] * ways[:, :, None]
    sigma, features = volume.at(points.reshape(-1, 3))
    through = -sigma.view(t.shape) * length / samples  # log of what each stretch lets through
    weights = shares(through)
    opacity = weights.sum(-1, keepdim=True)
    picture = (weights[..., None] * features.view(*t.shape, -1)).sum(-2) + (1 - opacity) * background
    return picture, opacity, (weights * t).sum(-1, keepdim=True)


def shares(through: Tensor) -> Tensor:
    """(…, S) of what is seen, that each of S stretches gives; `through`: the log of the light that each lets through."""
    return (through.cumsum(-1) - through).exp() * (1 - through.exp())


def render(volume: Volume, cameras: list[Camera], size: int, samples: int = 48, background=1.0, generator=None) -> Rendered:
    """Pictures of `size` px; differentiable. `background`: a number, (C,), or (1, size², C)."""
    eyes, ways = rays_of(cameras, size, volume.density.device)
    parts = march(volume, eyes, ways, samples, background, generator)
    return Rendered(*(p.transpose(1, 2).reshape(len(cameras), -1, size, size) for p in parts))


def nodes(side: int, device="cpu") -> Tensor:
    """(R³, 3): where the grid's nodes stand."""
    at = torch.linspace(-1, 1, side, device=device)
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    return torch.stack([x, y, z], -1).reshape(-1, 3)


def read_off(picture: Tensor, camera: Camera, points: Tensor) -> Tensor:
    """(N, C): a picture (C, H, W) where points (N, 3) are seen in it; 0 beyond its edge."""
    return F.grid_sample(picture[None], camera.project(points)[None, None], align_corners=False)[0, :, 0].T


def carved(pictures: np.ndarray, cameras: list[Camera], side: int, device="cpu") -> Volume:
    """The visual hull of RGBA views (n, H, W, 4), premultiplied: solid where every view shows the object, in the views' mean colour there."""
    points, volume = nodes(side, device), Volume.blank(side, device=device)
    least, total = torch.ones(len(points), device=device), torch.zeros(len(points), 4, device=device)
    for picture, camera in zip(torch.from_numpy(pictures).to(device), cameras):
        seen = read_off(picture.permute(2, 0, 1), camera, points)
        least, total = torch.minimum(least, seen[:, 3]), total + seen
    colour = (total[:, :3] / total[:, 3:].clamp_min(1e-3)).clamp(0.02, 0.98)
    volume.density = torch.where(least > 0.5, 0.4, -0.15).view(volume.density.shape)
    volume.features = colour.logit().T.reshape(volume.features.shape).contiguous()
    return volume


def capture(pictures: np.ndarray, cameras: list[Camera], side: int, steps: int, seed: int, rays: int = 2048, device="cpu"):
    """Fit a volume to RGBA views (n, H, W, 4) float, premultiplied; yields (step, volume so far), L1 over random rays on random grounds.

    It begins as the views' hull. The ground's colour is drawn anew each step, as the views have alpha: what is seen through must be empty.
    """
    size = pictures.shape[1]
    eyes, ways = rays_of(cameras, size, device)
    eyes, ways = eyes.expand(-1, ways.shape[1], -1).reshape(-1, 3), ways.reshape(-1, 3)
    truth = torch.from_numpy(pictures.reshape(-1, 4)).to(device)
    generator = torch.Generator().manual_seed(seed)
    volume = carved(pictures, cameras, side, device).requires_grad_()
    optimiser = torch.optim.Adam(volume.rates(0.02, 0.15))
    for step in range(steps):
        chosen = torch.randint(len(ways), (rays,), generator=generator)
        ground = torch.rand(3, generator=generator).to(device)
        with torch.enable_grad():
            picture, opacity, _ = march(volume, eyes[chosen][None], ways[chosen][None], 64, ground, generator)
            wanted = truth[chosen, :3] + (1 - truth[chosen, 3:]) * ground
            loss = (picture[0] - wanted).abs().mean() + 0.2 * (opacity[0] - truth[chosen, 3:]).abs().mean() + 1e-3 * smoothness(volume.density)
            loss.backward()
        optimiser.step(), optimiser.zero_grad()
        yield step + 1, volume
    for p in volume.parameters():
        p.requires_grad_(False)


def smoothness(grid: Tensor) -> Tensor:
    """Total variation: mean absolute difference of neighbours along the three axes."""
    return sum(grid.diff(dim=axis).abs().mean() for axis in (-1, -2, -3))


def surface(volume: Volume, level: float = 0.5, pieces: float = 0.02):
    """A trimesh of where voxels hold back `level` of the light, by marching cubes (scikit-image), small loose pieces left out; None where there is none.

    `pieces`: the share of the largest piece's faces below which a piece is dropped.
    """
    import trimesh
    from skimage.measure import marching_cubes

    solid = np.pad(volume.opacity().cpu().numpy(), 1)  # closed where the object meets the cube's side
    if not (solid > level).any() or (solid > level).all():
        return None
    vertices, faces, *_ = marching_cubes(solid, level)
    vertices = ((vertices - 1) * volume.width - 1)[:, ::-1]  # z, y, x
    shape = trimesh.Trimesh(vertices, faces, process=False)
    parts = shape.split(only_watertight=False)
    largest = max(len(p.faces) for p in parts)
    return trimesh.util.concatenate([p for p in parts if len(p.faces) >= pieces * largest])


def mesh_of(volume: Volume) -> Mesh | None:
    """The surface in the field's colours; None where there is none."""
    if (shape := surface(volume)) is None:
        return None
    width = volume.width
    middles, normals = (torch.from_numpy(np.float32(a)).to(volume.density.device) for a in (shape.triangles_center, shape.face_normals))
    # What is seen of a face: the field along a short ray into it, as `march` adds it up; deeper inside nothing was ever fitted.
    deep = torch.linspace(1.5, -1.5, 7, device=middles.device)
    sigma, seen = volume.at((middles[:, None] + width * deep[:, None] * normals[:, None]).reshape(-1, 3))
    weights = shares(-sigma.view(-1, len(deep)) * width / 2)
    colours = (weights[..., None] * seen.view(*weights.shape, -1)[..., :3]).sum(1) / weights.sum(1, keepdim=True).clamp_min(1e-6)
    return painted(shape, colours)


def painted(shape, colours: Tensor) -> Mesh:
    """A trimesh with colours (F, 3), 0 to 1."""
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int32), (colours.clamp(0, 1) * 255).round().byte().cpu().numpy())
