"""The cube world: spectral cubes of a few materials, generated without end, and a piece of Indian Pines.

    pip install --no-deps --target SITE tensorly==0.10.0
    python -m backends.worlds.cubes SITE    # writes the two cubes of assets/examples

Indian Pines: Baumgardner, Biehl, Landgrebe, 220 Band AVIRIS Hyperspectral Image Data Set, June 12 1992, doi:10.4231/R7RX991C (CC BY 3.0), as
the package tensorly 0.10.0 carries it (200 bands). Kept here: 64×64 pixels and every sixth band or so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from backends import cubes
from backends.spec import Cube

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
PINES = slice(40, 104), slice(30, 94)  # rows and columns of Indian Pines
BANDS = 31


def generated(seed: int = 0, side: int = 64, bands: int = 16, rank: int = 3) -> Cube:
    """`rank` materials: each a spectrum of some broad bumps, and a map of where it is, smooth with some edges."""
    rng = np.random.default_rng([4711, seed])
    nm = np.linspace(400, 1000, bands)
    bumps = rng.uniform(400, 1000, (rank, 4, 1)), rng.uniform(40, 140, (rank, 4, 1)), rng.uniform(0.1, 1, (rank, 4, 1))
    spectra = (bumps[2] * np.exp(-(((nm - bumps[0]) / bumps[1]) ** 2) / 2)).sum(1) + rng.uniform(0.05, 0.3, (rank, 1))
    spectra /= spectra.max(1, keepdims=True)
    y, x = np.mgrid[:side, :side] / side
    maps = np.empty((rank, side, side))
    for shares in maps:
        waves = rng.uniform(-7, 7, (5, 2)), rng.uniform(0, 2 * np.pi, 5)
        shares[:] = sum(np.sin(2 * np.pi * (a * x + b * y) / 4 + at) for (a, b), at in zip(*waves)) / 2
        for _ in range(4):  # fields and roofs
            (top, left), (h, w) = rng.uniform(0, 0.8, 2), rng.uniform(0.1, 0.35, 2)
            shares[(y > top) & (y < top + h) & (x > left) & (x < left + w)] += rng.uniform(-2, 2)
    maps = np.exp(1.5 * maps)
    maps *= (0.25 + 0.75 / (1 + np.exp(-maps.sum(0)))) / maps.sum(0)
    values = np.einsum("rhw,rb->hwb", maps, spectra)
    return cubes.cube((values / values.max()).astype(np.float32), tuple(nm))


def indian_pines() -> Cube:
    return cubes.decoded((EXAMPLES / "cube_indian_pines.npz").read_bytes(), "Indian Pines")


def _pines() -> Cube:
    from tensorly.datasets.data_imports import load_indian_pines

    found = load_indian_pines()
    at = np.linspace(2, 197, BANDS).round().astype(int)
    part = np.asarray(found.tensor)[PINES[0], PINES[1]][..., at].astype(np.float32)
    nm = tuple(np.array(found.ticks[1])[at])
    return cubes.cube((part - part.min()) / (part.max() - part.min()), nm, float(part.min()), float(part.max()))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    (EXAMPLES / "cube_indian_pines.npz").write_bytes(cubes.packed(_pines()))
    (EXAMPLES / "cube_generated.npz").write_bytes(cubes.packed(generated(7)))
