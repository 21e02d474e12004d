"""A grid of voxels cut in two along its edges of colour: Boykov and Jolly's graph cut with seeds, in three dimensions."""

from __future__ import annotations

import numpy as np

UNIT = 1000  # scipy's maximum flow wants whole capacities
ENDLESS = 2**30


def cut(colours: np.ndarray, solid: np.ndarray, inside: np.ndarray, outside: np.ndarray, k: float = 5.0, sigma: float = 0.1) -> np.ndarray:
    """(R, R, R) bool: the solid voxels on the side of the seeds `inside` of the cheapest cut from the seeds `outside`.

    `colours`: (R, R, R, C), 0 to 1; `solid`, `inside`, `outside`: (R, R, R) bool. Solid neighbours (six a voxel) hang together by
    k·exp(−‖Δcolour‖/sigma), seeds by no less than everything. What no seed is connected to is outside, and so is what hangs on both
    sides by nothing. Without seeds on one side the cut is empty.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    number = np.full(solid.shape, -1)
    number[solid] = np.arange(solid.sum())
    flat, ends = colours[solid], []
    for axis in range(3):
        one, other = (number.take(range(a, solid.shape[axis] - 1 + a), axis).ravel() for a in (0, 1))
        both = (one >= 0) & (other >= 0)
        ends.append(np.stack([one[both], other[both]]))
    one, other = np.concatenate(ends, 1)
    weights = np.rint(UNIT * k * np.exp(-np.linalg.norm(flat[one] - flat[other], axis=1) / sigma)).clip(1)
    n, first, last = len(flat), number[inside & solid], number[outside & ~inside & solid]
    found = np.zeros(solid.shape, bool)
    if not len(first):
        return found
    rows, columns = np.concatenate([one, other, np.full_like(first, n), last]), np.concatenate([other, one, first, np.full_like(last, n + 1)])
    values = np.concatenate([weights, weights, np.full(len(first) + len(last), ENDLESS)]).astype(np.int32)
    capacity = csr_matrix((values, (rows, columns)), shape=(n + 2, n + 2))
    left = capacity - maximum_flow(capacity, n, n + 1).flow
    left.eliminate_zeros()
    reached = breadth_first_order(left, n, return_predecessors=False)
    side = np.zeros(n + 2, bool)
    side[reached] = True
    found[solid] = side[:n]
    return found
