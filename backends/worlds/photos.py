"""The photo world: crops of photographs, drawings and renders, for restoring what a picture has lost.

The crops are made by `photos_build` from packages and lie in runs/, not in the repository: only training needs them. Kept from training
are the crops marked so, of the three photographs that `EXAMPLES` are cut from, and every photograph of scikit-image (`tests`).
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from backends.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "runs" / "photos" / "patches.npz"
EXAMPLES = ("photo_dogs.png", "photo_brushes.png", "photo_dandelion.png")  # in assets/examples
SIDE = 160  # px of a crop
KINDS = ("photo", "stamp", "emoji", "object")
TESTS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "brick", "grass", "gravel")  # the last three are grey


class Patches(NamedTuple):
    pixels: np.ndarray  # (n, SIDE, SIDE, 3) uint8
    kinds: np.ndarray  # (n,) uint8, index of KINDS
    kept: np.ndarray  # (n,) bool: never trained on


def write(path: Path, patches: Patches, quality: int = 94) -> None:
    """An npz: `data` (WebP files, one behind the other), `ends` of each in it, `kinds`, `kept`."""
    coded = []
    for picture in patches.pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "WEBP", quality=quality, method=4)
        coded.append(file.getvalue())
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, data=np.frombuffer(b"".join(coded), np.uint8), ends=np.cumsum([len(c) for c in coded]), kinds=patches.kinds, kept=patches.kept)


def read(path: Path = FILE) -> Patches:
    """All crops; 8,000 decode in some seconds. Raises FileNotFoundError with the command that makes them."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; make it by python -m backends.worlds.photos_build FOLDER")
    with np.load(path) as file:
        data, ends = file["data"].tobytes(), file["ends"]
        pixels = np.empty((len(ends), SIDE, SIDE, 3), np.uint8)
        for i, (a, b) in enumerate(zip([0, *ends[:-1]], ends)):
            pixels[i] = np.asarray(Image.open(io.BytesIO(data[a:b])).convert("RGB"))
        return Patches(pixels, file["kinds"], file["kept"])


class Crops:
    """Training crops on a device as one uint8 tensor; `draw` cuts, turns and mirrors them there, a batch at once."""

    def __init__(self, device: str, seed: int = 0, path: Path = FILE, most: int = 0):
        patches = read(path)
        rows = np.flatnonzero(~patches.kept)
        if most:  # for a trial on a CPU
            rows = rows[:: max(1, len(rows) // most)]
        self.device, self.rng = device, torch.Generator(device).manual_seed(seed)
        self.pixels = torch.from_numpy(patches.pixels[rows]).permute(0, 3, 1, 2).contiguous().to(device)
        self.kept = torch.from_numpy(patches.pixels[patches.kept]).permute(0, 3, 1, 2).to(device)

    def draw(self, n: int, side: int = 128) -> Tensor:
        """(n, 3, side, side) in [-1, 1]."""
        rows = torch.randint(len(self.pixels), (n,), device=self.device, generator=self.rng)
        top, left = torch.randint(SIDE - side + 1, (2, n, 1), device=self.device, generator=self.rng)
        span = torch.arange(side, device=self.device)
        down, across = (top + span)[:, None, :, None], (left + span)[:, None, None, :]
        x = self.pixels[rows[:, None, None, None], torch.arange(3, device=self.device)[None, :, None, None], down, across]
        turn, mirror = torch.rand(2, n, 1, 1, 1, device=self.device, generator=self.rng) < 0.5
        x = torch.where(turn, x.mT, x)
        return torch.where(mirror, x.flip(3), x).float() / 127.5 - 1

    def held_out(self, n: int, side: int = 128) -> Tensor:
        """The middles of n crops that training never draws, as `draw` gives them."""
        at, edge = torch.linspace(0, len(self.kept) - 1, n).long(), (SIDE - side) // 2
        return self.kept[at.to(self.device), :, edge : edge + side, edge : edge + side].float() / 127.5 - 1


@functools.cache
def tests() -> tuple[np.ndarray, ...]:
    """scikit-image's photographs, (H, W, 3) uint8 each: never trained on, for proofs."""
    from skimage import data

    folder = Path(data.__file__).parent
    files = [next(folder.glob(f"{name}.*")) for name in TESTS]
    return tuple(np.asarray(Image.open(file).convert("RGB")) for file in files)


def test_crops(n: int, side: int, seed: int = 0) -> np.ndarray:
    """(n, side, side, 3) uint8 from `tests` in turn, where something is to be seen; half of the crops of a picture twice as large."""
    rng, found = np.random.default_rng([2**31, seed]), []
    while len(found) < n:
        picture = tests()[len(found) % len(TESTS)]
        span = side * int(rng.integers(1, 3))
        if min(picture.shape[:2]) < span:
            span = side
        top, left = (int(rng.integers(d - span + 1)) for d in picture.shape[:2])
        crop = Image.fromarray(picture[top : top + span, left : left + span]).resize((side, side), Image.LANCZOS)
        if np.asarray(crop.convert("L"), float).std() > 12:
            found.append(np.asarray(crop))
    return np.stack(found)
