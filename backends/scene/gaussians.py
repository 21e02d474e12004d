"""Anisotropic 3D Gaussians and a splatter that a CPU can take (Kerbl et al., arXiv 2308.04079): some hundred of them, in tiles of pixels, all of which are drawn at once."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import F, torch
from backends.scene.volume import SHARP, Rendered, Volume, mesh_of, nodes
from backends.spec import Mesh
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 0.55  # px: standard deviation added to each splat, so that none falls between pixels
LOG = -40.0, float(np.log(0.99))  # of a splat's share: numbers nearer to nothing than floats have in full are slow, and nothing is quite solid
HARMONIC = 0.28209479177387814  # ½·√(1/π)
TILE, REACH = 16, 3.7  # px; standard deviations beyond which a splat is not looked for


@functools.cache
def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@dataclass
class Gaussians:
    """`means` (N, 3); `scales` (N, 3), logarithms; `turns` (N, 4), quaternions w x y z of any length; `opacities` (N,) and `colours` (N, 3), before a sigmoid."""

    means: Tensor
    scales: Tensor
    turns: Tensor
    opacities: Tensor
    colours: Tensor

    @classmethod
    def ball(cls, n: int, seed: int, radius: float = 0.5, device="cpu") -> Gaussians:
        """Random points in a ball, more of them and denser at the middle, in greys that differ a little."""
        draw = torch.Generator().manual_seed(seed)
        ways = F.normalize(torch.randn(n, 3, generator=draw), dim=1)
        far = radius * torch.rand(n, 1, generator=draw)
        made = (
            far * ways, torch.full((n, 3), float(np.log(0.9 * radius * n ** (-1 / 3)))), torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
            0.5 - 2.5 * far[:, 0] / radius, 0.2 * torch.randn(n, 3, generator=draw),
        )  # fmt: skip
        return cls(*(p.to(device) for p in made))

    def parameters(self) -> list[Tensor]:
        return [self.means, self.scales, self.turns, self.opacities, self.colours]

    def rates(self, means: float = 0.006) -> list[dict]:
        """Adam's parameter groups."""
        return [{"params": [p], "lr": lr} for p, lr in zip(self.parameters(), (means, 0.015, 0.02, 0.05, 0.05))]

    def copy(self) -> Gaussians:
        return Gaussians(*(p.detach().clone() for p in self.parameters()))

    def requires_grad_(self, on: bool = True) -> Gaussians:
        for p in self.parameters():
            p.requires_grad_(on)
        return self

    def covariances(self) -> Tensor:
        """(N, 3, 3): R S Sᵀ Rᵀ."""
        w, x, y, z = F.normalize(self.turns, dim=1).unbind(1)
        rows = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))  # fmt: skip
        half = torch.stack(rows, 1).view(-1, 3, 3) * self.scales.exp()[:, None]
        return half @ half.mT

    def splats(self, camera: Camera, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where each is seen (N, 2), x right and y down, −1 to 1; its covariance there (N, 2, 2), smoothed by SMALLEST; its depth (N,). EWA, arXiv 2308.04079, eq. 5."""
        x, y, back = camera.seen_from(self.means)
        depth, focal, none = (-back).clamp_min(0.05), 1 / camera.half, torch.zeros_like(x)
        rows = torch.stack([torch.ones_like(x), none, x / depth], 1), torch.stack([none, -torch.ones_like(x), -y / depth], 1)
        jacobian = focal / depth[:, None, None] * torch.stack(rows, 1)
        turned = jacobian @ self.means.new_tensor(camera.axes()[1])
        covariance = turned @ self.covariances() @ turned.mT + (2 * SMALLEST / size) ** 2 * torch.eye(2, device=x.device)
        return focal * torch.stack([x, -y], 1) / depth[:, None], covariance, depth

    def seen(self, cameras: list[Camera], size: int, background=1.0, generator=None) -> Rendered:
        """Pictures of `size` px over the background, a number or (3,), nearer ones over farther ones; differentiable. By gsplat on a GPU where it is installed."""
        at = (torch.arange(size, device=self.means.device) + 0.5) / size * 2 - 1
        if self.means.is_cuda and installed("gsplat"):
            pictures = self.by_gsplat(cameras, size)
        else:
            pictures = torch.stack([self._view(camera, size, at) for camera in cameras])
        colour, opacity, depth = pictures.split((3, 1, 1), 1)
        return Rendered(colour + (1 - opacity) * torch.as_tensor(background, device=at.device).view(-1, 1, 1), opacity, depth)

    def by_gsplat(self, cameras: list[Camera], size: int) -> Tensor:
        """(n, 5, size, size): colour, opacity and depth by the library gsplat (arXiv 2409.06765), whose kernels are CUDA's."""
        from gsplat import rasterization

        views, lenses = [], []
        for camera in cameras:
            eye, axes = camera.axes()
            turned = np.diag([1, -1, -1]) @ axes  # right, down, forward
            views.append(np.block([[turned, -(turned @ eye)[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]))
            focal = size / (2 * camera.half)
            lenses.append([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        colours, opacity, _ = rasterization(
            self.means, F.normalize(self.turns, dim=1), self.scales.exp(), self.opacities.sigmoid(), self.colours.sigmoid(), self.means.new_tensor(np.stack(views)),
            self.means.new_tensor(lenses), size, size, near_plane=0.05, eps2d=SMALLEST**2, packed=False, render_mode="RGB+D",
        )  # fmt: skip
        return torch.cat([colours[..., :3], opacity, colours[..., 3:]], -1).permute(0, 3, 1, 2)

    def _view(self, camera: Camera, size: int, at: Tensor) -> Tensor:
        """(5, size, size): colour, opacity and depth as one camera sees them, tile by tile, from the splats that reach the tile."""
        places, covariance, depth = self.splats(camera, size)
        order = depth.argsort()
        (u, v), reach = places[order].T, REACH * covariance.detach()[order].diagonal(dim1=1, dim2=2).sqrt().T
        # A splat's logarithm is a polynomial of the pixel's place: for all splats and pixels of a tile one product of matrices.
        (a, b), (_, d) = torch.linalg.inv(covariance[order]).permute(1, 2, 0)
        most = F.logsigmoid(self.opacities[order]) - 0.5 * (a * u * u + 2 * b * u * v + d * v * v)
        splats = torch.stack([-0.5 * a, -b, -0.5 * d, a * u + b * v, b * u + d * v, most], 1)
        given = torch.cat([self.colours[order].sigmoid(), torch.ones_like(u)[:, None], depth[order, None]], 1)
        across, down = ([(p.detach() + r >= t[0]) & (p.detach() - r <= t[-1]) for t in at.split(TILE)] for p, r in ((u, reach[0]), (v, reach[1])))
        rows = []
        for row, high in zip(at.split(TILE), down):
            tiles = []
            for column, wide in zip(at.split(TILE), across):
                near = (high & wide).nonzero()[:, 0]
                y, x = (t.reshape(-1) for t in torch.meshgrid(row, column, indexing="ij"))
                alpha = (splats[near] @ torch.stack([x * x, x * y, y * y, x, y, torch.ones_like(x)])).clamp(*LOG).exp()  # (splats, pixels)
                through = torch.log1p(-alpha)
                weights = (through.cumsum(0) - through).exp() * alpha
                tiles.append((given[near].T @ weights).view(5, len(row), len(column)))
            rows.append(torch.cat(tiles, 2))
        return torch.cat(rows, 1)

    def densified(self, pull: Tensor, most: int, generator, share: float = 0.2, faint: float = 0.03) -> Gaussians:
        """Without those fainter than `faint`; the `share` of the others that were pulled the most, by `pull` (N,), stand twice, 1.6 times smaller if they are large.

        At most `most`. Where 3DGS has a threshold on the gradient, a share of all: score distillation's gradients have no fixed size.
        """
        kept = self.opacities.sigmoid() > faint
        kept = kept if kept.sum() >= 16 else torch.ones_like(kept)
        parts, pull = [p.detach()[kept] for p in self.parameters()], pull[kept]
        n = min(int(share * len(pull)), most - len(pull))
        if n <= 0:
            return Gaussians(*(p.clone() for p in parts))
        chosen = pull.topk(n).indices
        extra = [p[chosen].clone() for p in parts]
        step = extra[1].exp() * torch.randn(n, 3, generator=generator).to(extra[1])
        large = (extra[1].amax(1) > parts[1].amax(1).median())[:, None]
        extra[0], smaller = extra[0] + step, float(np.log(1.6))
        extra[1] = torch.where(large, extra[1] - smaller, extra[1])
        parts[1][chosen] = torch.where(large, parts[1][chosen] - smaller, parts[1][chosen])
        return Gaussians(*(torch.cat(both) for both in zip(parts, extra)))

    def solid(self, side: int = 48) -> Volume:
        """The Gaussians' summed density on a grid, in their mean colour there."""
        axes = nodes(side, self.means.device).T
        monomials = torch.stack([*(p * q for i, p in enumerate(axes) for q in axes[i:]), *axes, torch.ones_like(axes[0])])
        inverse = torch.linalg.inv(self.covariances() + 1e-5 * torch.eye(3, device=self.means.device))
        turned = (inverse @ self.means[..., None])[..., 0]
        most = F.logsigmoid(self.opacities) - 0.5 * (self.means * turned).sum(1)
        squares = [-(1 if i < j else 0.5) * inverse[:, i, j] for i in range(3) for j in range(i, 3)]
        densities, given = torch.stack([*squares, *turned.T, most], 1), torch.cat([self.colours.sigmoid(), torch.ones_like(most)[:, None]], 1)
        there = [(densities @ some).clamp(*LOG).exp().T @ given for some in monomials.split(1024, 1)]  # as in `_view`
        there = torch.cat(there)
        colour = (there[:, :3] / there[:, 3:].clamp_min(1e-4)).clamp(0.01, 0.99)
        # A summed opacity of one half is the surface: there a voxel of the grid holds back half of the light.
        width, edge = 2 / (side - 1), float(np.log(2))
        wanted = (there[:, 3] / 0.5 * edge / width).clamp(1e-3, 200)
        density = (wanted + torch.log(-torch.expm1(-wanted))) / SHARP  # softplus⁻¹
        return Volume(density.view(1, 1, side, side, side), colour.logit().T.reshape(1, 3, side, side, side))

    def ply(self) -> bytes:
        """A file of splats with the attributes of 3DGS's own; the colour is its constant harmonic. Viewers take y as down: it is turned about x."""
        turned = torch.tensor([1.0, -1, -1], device=self.means.device)
        w, x, y, z = F.normalize(self.turns.detach(), dim=1).T  # times a half turn about x: (0, 1, 0, 0)·q
        parts = {
            "x y z": self.means * turned, "nx ny nz": torch.zeros_like(self.means), "f_dc_0 f_dc_1 f_dc_2": (self.colours.sigmoid() - 0.5) / HARMONIC,
            "opacity": self.opacities[:, None], "scale_0 scale_1 scale_2": self.scales, "rot_0 rot_1 rot_2 rot_3": torch.stack([-x, w, -z, y], 1),
        }  # fmt: skip
        names = " ".join(parts).split()
        head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(self.means)}", *(f"property float {n}" for n in names), "end_header", ""]
        return "\n".join(head).encode() + torch.cat([p.detach() for p in parts.values()], 1).cpu().numpy().astype("<f4").tobytes()

    def mesh(self) -> Mesh | None:
        return mesh_of(Gaussians(*(p.detach() for p in self.parameters())).solid())
