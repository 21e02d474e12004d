"""KID-EffNet: a kernel distance between two kinds of pictures in EfficientNet-Lite0's features (`frechet.features`), unbiased however few they are.

The squared maximum mean discrepancy with the kernel (x·y / d + 1)³ (KID: Bińkowski et al., arXiv 1801.01401), in another network's features: its values
compare only with each other. It is estimated by Gretton et al.'s U-statistic (JMLR 13, 2012, eq. 4): over pairs of different rows, so that row i of
both sets may be one face, restored and good. That the two are alike then counts for nothing; what is measured is how the kinds differ.
The estimate's mean is 0 for sets of one kind, and a single estimate may be negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def pairs(a: Tensor, b: Tensor) -> np.ndarray:
    """(n, n): what each pair of rows says of the distance, of (n, d) features each. Linear: the difference of two such tables is about that of two distances."""
    kernel = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3  # noqa: E731
    across = kernel(a, b)
    return (kernel(a, a) + kernel(b, b) - across - across.T).cpu().numpy()


def distance(table: np.ndarray) -> float:
    """The mean over pairs of different rows."""
    return float(_means(table, np.ones((1, len(table))))[0])


def interval(table: np.ndarray, seed: int = 0) -> list[float]:
    """Its 95 % bootstrap interval, drawn by rows; a row drawn twice makes no pair with itself."""
    n, rng = len(table), np.random.default_rng(seed)
    return [round(float(v), 4) for v in np.percentile(_means(table, rng.multinomial(n, np.full(n, 1 / n), 4000)), [2.5, 97.5])]


def _means(table: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(m,) means over pairs of different rows, row i taken times[:, i] times; times: (m, n)."""
    others = table - np.diag(np.diag(table))
    return ((times @ others) * times).sum(1) / (times.sum(1) ** 2 - (times**2).sum(1))
