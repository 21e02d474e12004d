"""What the proofs of sampling methods share: held-out prompts, drawing them, an interval."""

import numpy as np
import torch
from scipy import stats

from backends.denoiser import together
from backends.image.sampling import SchedulerWalk, denoise
from backends.worlds import emoji

FEW = 20  # rows, from which on a bootstrap's percentiles may stand for the mean's interval


def captions(seed: int, n: int) -> list[str]:
    """Plain captions of held-out scenes of one or two objects."""
    rng = np.random.default_rng(emoji.HELD_OUT_SEED + seed)
    return [emoji.caption(emoji.sample(rng, held_out=True, counts=(0.6, 0.4, 0, 0), common_share=1.0)) for _ in range(n)]


def two_objects(seed: int, n: int) -> list[str]:
    """Two common objects that no training scene shows together."""
    rng, found = np.random.default_rng(emoji.HELD_OUT_SEED + seed), []
    while len(found) < n:
        a, b = rng.choice(emoji.common(), 2, replace=False).tolist()
        if emoji.held_out_pair(a, b):
            one, two = (emoji.article(emoji.concepts()[c].name) for c in (a, b))
            found.append(f"{one} next to {two} on {emoji.article(str(rng.choice(list(emoji.COLOURS))))} background")
    return found


def draw(model, texts, seeds, guide, steps=25, walk=None, patches=()) -> torch.Tensor:
    """(n, 3, H, W) in [-1, 1]: each text from the noise of its held-out seed, as one batch."""
    noise = torch.cat([model.noise(emoji.HELD_OUT_SEED + seed) for seed in seeds])
    walk = walk(model, steps) if walk else SchedulerWalk(model, steps, "ddim")
    with torch.no_grad():
        *_, (x, _) = denoise(model, together(model.encode(*texts)), model.encode("")[0], noise, walk, guide, patches)
        return model.to_pixels(x).clamp(-1, 1)


def drawn(model, texts, seeds, guide, batch=8, **settings) -> torch.Tensor:
    """As `draw`, a batch at a time; `guide()` and `settings` make each batch's own pieces."""
    parts = [slice(i, i + batch) for i in range(0, len(texts), batch)]
    return torch.cat([draw(model, texts[p], seeds[p], guide(), **settings) for p in parts])


def psnr(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Decibels of each picture of a batch."""
    return (10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)).clamp(min=1e-10))).cpu().numpy()


def interval(values, seed: int = 0) -> list[float]:
    """95 % interval of the mean, over rows where a row holds the seeds of one prompt: Student's t of fewer than FEW rows, else a bootstrap's percentiles.

    One row tells nothing of its spread: −∞ to ∞.
    """
    values = np.asarray(values, float).reshape(len(values), -1).mean(1)
    return [round(float(v), 4) for v in (student(values) if len(values) < FEW else bootstrap(values, seed))]


def student(rows: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of (n,) draws of a normal distribution whose deviation is not known."""
    if len(rows) == 1:
        return -np.inf, np.inf
    half = stats.t.ppf(0.975, len(rows) - 1) * rows.std(ddof=1) / len(rows) ** 0.5
    return rows.mean() - half, rows.mean() + half


def bootstrap(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """95 % interval of the mean of (n,) rows by drawing them anew. Too narrow for few: of 4 normal draws it holds the mean 81 times in 100, of 6 86, of 12 91."""
    drawn = np.random.default_rng(seed).integers(len(rows), size=(4000, len(rows)))
    return np.percentile(rows[drawn].mean(1), [2.5, 97.5])
