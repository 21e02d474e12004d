"""Pictures of meshes by ray casting (open3d), for training and for the views that a field is fitted to.

Needs open3d and its system libraries; `available` says what is missing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from backends.spec import BadInput, Mesh

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

    def rays(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """(3,) the eye, and (size, size, 3) unit directions through the pixels' middles, the top row first."""
        eye, axes = self.axes()
        at = (np.arange(size) + 0.5) / size * 2 - 1
        half = np.tan(np.radians(self.fov) / 2)
        x, y = np.meshgrid(at * half, -at * half)
        directions = np.stack([x, y, -np.ones_like(x)], -1) @ axes
        return eye, directions / np.linalg.norm(directions, axis=-1, keepdims=True)


@functools.cache
def available() -> str:
    """Empty when open3d can be used, else what is missing."""
    try:
        import open3d  # noqa: F401
    except (ImportError, OSError) as error:
        return f"open3d can't be loaded ({error}); install it and the system packages that packages.txt names."
    return ""


def caster(mesh: Mesh):
    """open3d's ray-casting scene of a mesh; raises BadInput when open3d is missing."""
    if missing := available():
        raise BadInput(missing)
    import open3d

    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.faces, np.uint32))
    return scene


def render(mesh: Mesh, cameras: list[Camera], size: int, samples: int = 2, light: tuple[float, float, float] = (0.3, 0.5, 1.0)) -> np.ndarray:
    """(n, size, size, 4) float32: colours premultiplied by alpha, and alpha, `samples`² rays a pixel.

    `light`: where it comes from, in the camera's right, up and backward; both sides of a face are lit alike.
    """
    import open3d

    scene, colours = caster(mesh), mesh.colours.astype(np.float32) / 255
    out = []
    for camera in cameras:
        eye, directions = camera.rays(size * samples)
        _, axes = camera.axes()
        lamp = np.asarray(light) @ axes
        rays = np.concatenate([np.broadcast_to(eye, directions.shape), directions], -1).astype(np.float32)
        hit = scene.cast_rays(open3d.core.Tensor(rays))
        face, normal = hit["primitive_ids"].numpy(), hit["primitive_normals"].numpy()
        seen = np.isfinite(hit["t_hit"].numpy())
        shade = AMBIENT + (1 - AMBIENT) * np.abs(normal @ (lamp / np.linalg.norm(lamp)).astype(np.float32))
        colour = np.where(seen[..., None], colours[np.where(seen, face, 0)] * shade[..., None], 0)
        whole = np.concatenate([colour, seen[..., None]], -1).astype(np.float32)
        out.append(whole.reshape(size, samples, size, samples, 4).mean((1, 3)))
    return np.stack(out)


def over(pictures: np.ndarray, background) -> np.ndarray:
    """(n, H, W, 3) uint8 of `render`'s (n, H, W, 4) over colours that broadcast to (n, H, W, 3), 0 to 1."""
    mixed = pictures[..., :3] + (1 - pictures[..., 3:]) * np.asarray(background, np.float32)
    return (mixed.clip(0, 1) * 255).round().astype(np.uint8)
