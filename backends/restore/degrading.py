"""How a spectral cube is measured, y = H·x + noise, in the basis of H's singular vectors; and DDRM's step in it (Kawar et al., arXiv 2201.11793).

A cube is (B, H, W) in [-1, 1]. `coordinates` gives Vᵀx as a cube of the same shape, `s` the singular value of each of its
numbers, 0 where nothing was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.lazy import F, torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

ZERO = 3e-2  # smaller singular values of a row count as none


class Masked:
    """Some numbers are measured, as they are: all of them for denoising. `mask`: (B, H, W), 1 where one is."""

    def __init__(self, mask: Tensor):
        self.s = mask

    def measured(self, x: Tensor) -> Tensor:
        return self.s * x

    def coordinates(self, x: Tensor) -> Tensor:
        return x

    def back(self, z: Tensor) -> Tensor:
        return z

    def ybar(self, y: Tensor) -> Tensor:
        """Uᵀy, at its place among the coordinates."""
        return y * self.s

    def guess(self, y: Tensor) -> Tensor:
        """A cube to show for y."""
        return y


class Shrunk:
    """Each band is `factor` times smaller along both sides, by the bicubic kernel that knows no overshoot at the edges (mirrored)."""

    def __init__(self, height: int, width: int, factor: int, device="cpu"):
        self.factor, parts = factor, [_svd(rows(n, factor)) for n in (height, width)]
        (self.u1, s1, self.v1), (self.u2, s2, self.v2) = ([p.to(device) for p in part] for part in parts)
        self.s = torch.zeros(1, height, width, device=device)
        self.s[:, : len(s1), : len(s2)] = s1[:, None] * s2
        self.h1, self.h2 = (rows(n, factor).float().to(device) for n in (height, width))

    def measured(self, x: Tensor) -> Tensor:
        return self.h1 @ x @ self.h2.T

    def coordinates(self, x: Tensor) -> Tensor:
        return self.v1.T @ x @ self.v2

    def back(self, z: Tensor) -> Tensor:
        return self.v1 @ z @ self.v2.T

    def ybar(self, y: Tensor) -> Tensor:
        inner = self.u1.T @ y @ self.u2
        return F.pad(inner, (0, self.s.shape[2] - inner.shape[2], 0, self.s.shape[1] - inner.shape[1])) * (self.s > 0)

    def guess(self, y: Tensor) -> Tensor:
        return F.interpolate(y[None], scale_factor=self.factor, mode="bicubic")[0]


def bicubic(x: Tensor, a: float = -0.5) -> Tensor:
    x = x.abs()
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def rows(n: int, factor: int) -> Tensor:
    """(n // factor, n) float64: the matrix that shrinks a side."""
    taps = 4 * factor
    kernel = bicubic((torch.arange(taps, dtype=torch.float64) - taps // 2 + 0.5) / factor)
    kernel = kernel / kernel.sum()
    matrix = torch.zeros(n // factor, n, dtype=torch.float64)
    for i in range(n // factor):
        for k, weight in enumerate(kernel):
            j = i * factor + factor // 2 - taps // 2 + k
            j = -j - 1 if j < 0 else j
            matrix[i, 2 * n - 1 - j if j >= n else j] += weight
    return matrix


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, s, V), V square."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=True)
    return u.float(), torch.where(s < ZERO, 0, s).float(), vh.T.float()


# --- DDRM ------------------------------------------------------------------------------------------------------------


def begun(operator, ybar: Tensor, sigma_y: float, sigma: Tensor, generator: Generator) -> Tensor:
    """The first state, at σ = √(1 − ᾱ)/√ᾱ of the last timestep: what was measured and is less noisy than that, under as much noise as that."""
    s = operator.s
    known = s * sigma > sigma_y
    inverse = torch.where(known, 1 / s.clamp_min(1e-9), 0)
    spread = (sigma**2 - (sigma_y * inverse) ** 2).clamp_min(0).sqrt()
    z = torch.where(known, ybar, 0) * inverse + spread * _normal(ybar, generator)
    return operator.back(z / sigma)


def stepped(operator, ybar: Tensor, x0: Tensor, eps: Tensor, sigma_y: float, sigma: Tensor, eta: float, eta_b: float, generator: Generator) -> Tensor:
    """The state at σ (0 at the end) divided by √ᾱ, from an estimate of the cube and the noise in the state before (DDRM's equation 7).

    Where a number was measured with more noise than the state has, the measurement corrects x0; with less, it takes x0's
    place under the noise that is missing; where it was not measured, x0 stands alone.
    """
    s, z0 = operator.s.expand_as(ybar), operator.coordinates(x0)
    noise = _normal(ybar, generator)
    rest = (1 - eta**2) ** 0.5 * sigma
    z = z0 + rest * operator.coordinates(eps) + eta * sigma * noise
    if sigma_y > 0:
        z = torch.where((s > 0) & (s * sigma < sigma_y), z0 + rest * (ybar - s * z0) / sigma_y + eta * sigma * noise, z)
    before = s * sigma > sigma_y
    inverse = torch.where(before, 1 / s.clamp_min(1e-9), 0)
    spread = (sigma**2 - (eta_b * sigma_y * inverse) ** 2).clamp_min(0).sqrt()
    z = torch.where(before, (1 - eta_b) * z0 + eta_b * ybar * inverse + spread * noise, z)
    return operator.back(z)


def _normal(like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like.device)
