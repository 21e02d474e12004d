"""Pictures of meshes by ray casting (Embree through trimesh), for training and for the views that a field is fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.lazy import torch
from backends.spec import Mesh

AMBIENT = 0.45


@dataclass(frozen=True)
class Camera:
    """Looks at the origin from `distance`, `azimuth` degrees around (0: the front, along +z) and `elevation` above; `fov` degrees, both ways."""

    azimuth: float = 0.0
    elevation: float = 15.0
    distance: float = 3.0
    fov: float = 40.0

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """(3,) the eye, and (3, 3) rows right, up, backward."""
        a, e = np.radians(self.azimuth), np.radians(np.clip(self.elevation, -89.9, 89.9))
        back = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
        right = np.cross([0.0, 1.0, 0.0], back)
        right /= np.linalg.norm(right)
        return self.distance * back, np.stack([right, np.cross(back, right), back])

    @property
    def half(self) -> float:
        """Half the height of what is seen at distance 1."""
        return float(np.tan(np.radians(self.fov) / 2))

    def seen_from(self, points):
        """Tensor points (N, 3) in the camera's right, up and backward, (N,) each."""
        eye, axes = (points.new_tensor(part) for part in self.axes())
        return ((points - eye) @ axes.T).unbind(-1)

    def project(self, points):
        """(N, 2) where tensor points (N, 3) are seen, x to the right and y down, −1 to 1 across the picture."""
        right, up, back = self.seen_from(points)
        return torch.stack([right, -up], -1) / (-back * self.half)[:, None]

    def rays(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """(3,) the eye, and (size, size, 3) unit directions through the pixels' middles, the top row first."""
        eye, axes = self.axes()
        at = (np.arange(size) + 0.5) / size * 2 - 1
        x, y = np.meshgrid(at * self.half, -at * self.half)
        directions = np.stack([x, y, -np.ones_like(x)], -1) @ axes
        return eye, directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def render(mesh: Mesh, cameras: list[Camera], size: int, samples: int = 2, light: tuple[float, float, float] = (0.3, 0.5, 1.0)) -> np.ndarray:
    """(n, size, size, 4) float32: colours premultiplied by alpha, and alpha, `samples`² rays a pixel.

    `light`: where it comes from, in the camera's right, up and backward; both sides of a face are lit alike.
    """
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    scene, colours = RayMeshIntersector(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)), mesh.colours.astype(np.float32) / 255
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    out = []
    for camera in cameras:
        eye, directions = camera.rays(size * samples)
        _, axes = camera.axes()
        lamp = np.asarray(light) @ axes
        face = scene.intersects_first(np.broadcast_to(eye, directions.shape).reshape(-1, 3), directions.reshape(-1, 3))
        seen = face >= 0
        shade = AMBIENT + (1 - AMBIENT) * np.abs(normals[face] @ (lamp / np.linalg.norm(lamp)).astype(np.float32))
        whole = np.concatenate([np.where(seen[:, None], colours[face] * shade[:, None], 0), seen[:, None]], -1).astype(np.float32)
        out.append(whole.reshape(size, samples, size, samples, 4).mean((1, 3)))
    return np.stack(out)


def over(pictures: np.ndarray, background) -> np.ndarray:
    """(n, H, W, 3) uint8 of `render`'s (n, H, W, 4) over colours that broadcast to (n, H, W, 3), 0 to 1."""
    mixed = pictures[..., :3] + (1 - pictures[..., 3:]) * np.asarray(background, np.float32)
    return (mixed.clip(0, 1) * 255).round().astype(np.uint8)
