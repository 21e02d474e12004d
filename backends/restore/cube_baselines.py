"""What stands beside DDS2M without a network: few singular values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from backends.lazy import torch
from backends.models import Card, device
from backends.registry import method
from backends.restore.cube_task import CUBE, FACTORS, Problem, RestoreCube
from backends.restore.dds2m import Rank, watched
from backends.spec import BadInput, Events, Slider

if TYPE_CHECKING:
    from torch import Tensor

Iterations = Annotated[int, Slider(1, 300, 1, help="complete: times that the missing values are filled in anew")]
Rounds = Annotated[int, Slider(1, 300, 1, help="steps of ADMM")]
Strength = Annotated[float, Slider(0.1, 5, 0.1, help="how far singular values are lowered; 1 is what noise of the job's deviation adds to them")]


class Untrained:
    """Stands where a model stands: these methods have no trained weights."""

    def __init__(self, card: Card):
        self.card, self.net, self.device, self.nfe = card, torch.nn.Module(), device(), 0


def low_rank(x: Tensor, rank: int) -> Tensor:
    """(B, H, W) in [-1, 1], the nearest whose matrix of pixels and bands, from 0 to 1, has that rank."""
    u, s, vh = torch.linalg.svd((x.flatten(1) + 1) / 2, full_matrices=False)
    return 2 * ((u[:, :rank] * s[:rank]) @ vh[:rank]).view_as(x) - 1


@method("truncated_svd", task=CUBE, needs={"cube"}, paper=False)
def truncated_svd(job: RestoreCube, model, rank: Rank = 5, iterations: Iterations = 100) -> Events:
    """Truncated SVD.

    The nearest cube that is made of a few maps times a few spectra. Missing values are filled in with what it says of them, again and again; a small cube is
    enlarged by bicubic interpolation first.

    Eckart & Young 1936; for completion hard impute (Mazumder, Hastie & Tibshirani 2010), from the mean of each band, its rank rising to R.
    """
    problem = Problem(job, model.device)

    def found():
        if job.what != "complete":
            yield low_rank(problem.y if job.what == "denoise" else problem.operator.guess(problem.y), rank), float("nan")
            return
        mask = problem.operator.s
        x = torch.where(mask > 0, problem.y, (problem.y * mask).sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True).clamp_min(1))
        for i in range(iterations):
            made = low_rank(x, min(rank, 1 + i * rank // max(1, iterations // 2)))
            x = torch.where(mask > 0, problem.y, made)
            yield made, float("nan")

    yield from watched(problem, found(), iterations if job.what == "complete" else 1, model)


@method("low_rank_tensor", task=CUBE, needs={"cube"}, paper=False)
def low_rank_tensor(job: RestoreCube, model, rounds: Rounds = 100, strength: Strength = 1.0) -> Events:
    """Low-rank tensor.

    The cube near what was measured whose three unfoldings, along its height, width and spectrum, have the smallest singular values in all.

    Liu et al. 2013 (HaLRTC), with the measured values under noise: least squares with nuclear norms, by ADMM. Denoises and completes.
    """
    if job.what in FACTORS:
        raise BadInput("The low-rank tensor denoises and completes; choose another method to enlarge.")
    problem = Problem(job, model.device)

    def found():
        mask, y = problem.operator.s, (problem.y + 1) / 2
        sizes = [(n, y.numel() // n) for n in y.shape]
        weights = [strength * max(problem.sigma / 2, 0.005) * (a**0.5 + b**0.5) / 3 for a, b in sizes]
        x = y * mask
        duals = [torch.zeros_like(y) for _ in sizes]
        for i in range(rounds):
            pull = min(1.0, 0.003 * 1.07**i)  # from large singular values to small ones
            parts = [_shrunk(x + dual / pull, axis, w / pull) for axis, (dual, w) in enumerate(zip(duals, weights))]
            x = (mask * y + sum(pull * part - dual for part, dual in zip(parts, duals))) / (mask + 3 * pull)
            duals = [dual + pull * (x - part) for dual, part in zip(duals, parts)]
            yield 2 * x.clamp(0, 1) - 1, float("nan")

    yield from watched(problem, found(), rounds, model)


def _shrunk(x: Tensor, axis: int, by: float) -> Tensor:
    """All singular values of the unfolding along an axis lowered."""
    rows = x.movedim(axis, 0)
    u, s, vh = torch.linalg.svd(rows.flatten(1), full_matrices=False)
    return ((u * (s - by).clamp_min(0)) @ vh).view(rows.shape).movedim(0, axis)
