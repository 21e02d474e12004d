"""DDS2M (arXiv 2303.06682): a diffusion whose denoiser is fitted to the very states it walks through; and the same network without the diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from backends.lazy import torch
from backends.registry import method
from backends.restore import cube_task
from backends.restore.cube_task import CUBE, Problem, RestoreCube
from backends.spec import Choice, Events, Plot, Result, Slider, Step

if TYPE_CHECKING:
    from torch import Tensor

T = {"denoise": 2000, "complete": 3000, "enlarge 2": 1000, "enlarge 4": 1000}
BETAS = (1e-4, 0.005)
ETA = {"denoise": 1.0}  # others: 0.95
AVERAGE = 0.98

Rank = Annotated[int, Slider(1, 12, 1, help="R: maps and spectra that the cube is made of")]
ReverseSteps = Annotated[
    int,
    Slider(4, 3000, 2, help="reverse steps; in the second half of them the network learns. The paper's: 2000 to denoise, 3000 to complete, 1000 to enlarge"),
]
Rate = Annotated[float, Slider(1e-4, 1e-2, 1e-4, help="Adam's learning rate; the paper's is 5e-4, for its many steps")]
Tv = Annotated[float, Slider(0, 0.5, 0.01, help="β: weight of the total variation; the paper's default is 0")]
Size = Annotated[str, Choice(("small", "paper"), help="the UNets' width and kernels")]


def factors(job: RestoreCube, rank: int, size: str, where: str):
    """The untrained network for a job, drawn by its seed."""
    from backends.nets import factor_net

    torch.manual_seed(job.seed)
    config = {"small": factor_net.SMALL, "paper": factor_net.PAPER}[size]
    return factor_net.Factors(rank, job.cube.values.shape[2], *job.size, **config).requires_grad_(True).train().to(where)


def bars(total: int) -> Tensor:
    """(total,) ᾱ of β linear from 1e-4 to 0.005, float64."""
    return torch.cumprod(1 - torch.linspace(*BETAS, total, dtype=torch.float64), 0)


def walked(problem: Problem, net, steps: int, rate: float, tv: float, generator) -> Iterator[tuple[Tensor, float]]:
    """(x0, loss) of each reverse step; `steps`: 2 to T. x0: (B, H, W) in [-1, 1], the state itself while the network does not learn yet. The last x0 is the answer.

    In fewer steps than T the average forgets faster, so that it spans the same share of the walk.
    """
    from backends.nets.factor_net import variation
    from backends.restore import degrading

    what, operator, sigma_y = problem.job.what, problem.operator, problem.sigma
    total, eta = T[what], ETA.get(what, 0.95)
    bar = bars(total)
    times = [round(i * (total - 1) / (steps - 1)) for i in range(steps)][::-1]
    sigmas, keep = ((1 - bar) / bar).sqrt(), AVERAGE ** (total / len(times))
    ybar = operator.ybar(problem.y)
    x = degrading.begun(operator, ybar, sigma_y, float(sigmas[times[0]]), generator)
    optimiser, average = torch.optim.Adam(net.parameters(), rate), None
    for k, t in enumerate(times):
        a, loss = float(bar[t]), float("nan")
        x0 = x
        if k >= len(times) // 2:
            with torch.enable_grad():
                made = net()
                fit = (a**0.5 * (2 * made - 1) - x).square().mean()
                (fit + tv * variation(2 * made - 1) if tv else fit).backward()
            # The average begins as the state, clipped: the official code's `avg` is the last x0 there was.
            before = ((x + 1) / 2).clamp(0, 1) if average is None else average
            average = (keep * before + (1 - keep) * made.detach()).clamp(0, 1)
            optimiser.step()
            optimiser.zero_grad()
            x0, loss = 2 * average - 1, float(fit.detach())
        after = times[k + 1] if k + 1 < len(times) else -1
        eps = (x - a**0.5 * x0) / (1 - a) ** 0.5
        sigma, scale = (float(sigmas[after]), float(bar[after]) ** 0.5) if after >= 0 else (0.0, 1.0)
        x = scale * degrading.stepped(operator, ybar, x0, eps, sigma_y, sigma, eta, 1.0, generator)
        yield x0, loss


def watched(problem: Problem, found: Iterator[tuple[Tensor, float]], steps: int, model) -> Events:
    """The events of a loop that gives (x0, loss)."""
    series = {"misfit of the network": ([], [])}
    reference = cube_task.as_tensor(problem.job.cube.values) if problem.job.harm else None
    if reference is not None:
        series["error of x0"] = ([], [])

    def aside(cube):
        return problem.spectra(cube), Plot({n: (xs[:], ys[:]) for n, (xs, ys) in series.items() if xs}, y="mean square")

    for i, (x0, loss) in enumerate(found, 1):
        if loss == loss:
            model.nfe += 1
            series["misfit of the network"][0].append(i), series["misfit of the network"][1].append(loss)
        if reference is not None:
            series["error of x0"][0].append(i), series["error of x0"][1].append(float((x0.cpu() - reference).square().mean()))
        yield Step(i, steps, lambda x0=x0: problem.cube(x0).picture, lambda x0=x0: aside(problem.cube(x0)),
                   keep=lambda x0=x0: problem.cube(x0))  # fmt: skip
    yield Result(problem.cube(x0), aside(problem.cube(x0)))


@method("dds2m", task=CUBE, needs={"cube"})
def dds2m(job: RestoreCube, model, rank: Rank = 5, steps: ReverseSteps = 400, rate: Rate = 3e-3, tv: Tv = 0.0, network: Size = "small") -> Events:
    """DDS2M.

    No denoiser is trained beforehand. An untrained network that can draw only a few maps times a few spectra is fitted, one step at a time, to the
    noisy states of a reverse diffusion, and its running mean is the clean cube that the next state is made around, as the measurement allows.

    Miao et al., arXiv 2303.06682; details from the official code (miaoyuchun/DDS2M): network in nets/factor_net.py, DDRM's step in
    restore/degrading.py. T = 2000, 3000 and 1000 timesteps to denoise, complete and enlarge, η = 1 and 0.95, η_b = 1; the network learns in the
    second half of the steps, one Adam step each on the state before it; the answer is its average of decay 0.98. The card's “KL objective” is this
    square error. Where we differ: `steps` of the T timesteps are taken, evenly, at a higher rate and with an average that forgets as much faster; “small” UNets have three of four levels 32 channels
    wide, 3×3 kernels and attention at the coarser two; with “paper”, 2000 steps and a rate of 5e-4 it is the official one, but for levels that a small picture
    has no room for, and singular values below the threshold count as not measured, where the official code lets them take part.
    """
    generator = torch.Generator().manual_seed(job.seed + 1)
    problem, steps = Problem(job, model.device), min(steps, T[job.what])
    found = walked(problem, factors(job, rank, network, model.device), steps, rate, tv, generator)
    yield from watched(problem, found, steps, model)


@method("image_prior", task=CUBE, needs={"cube"}, paper=False)
def image_prior(job: RestoreCube, model, rank: Rank = 5, steps: ReverseSteps = 200, rate: Rate = 3e-3, tv: Tv = 0.0, network: Size = "small") -> Events:
    """Deep image prior (the same network).

    DDS2M's network fitted straight to what was measured, with no diffusion around it: it draws the cube before it draws the noise, if it is stopped in time.

    Ulyanov et al., arXiv 1711.10925, on the factor network of DDS2M, as DS2DP (Miao et al. 2021) has it; the answer is a running mean that reaches over the
    same share of the steps as DDS2M's does of those in which it learns.
    """
    from backends.nets.factor_net import variation

    problem = Problem(job, model.device)
    net = factors(job, rank, network, model.device)

    def fitted() -> Iterator[tuple[Tensor, float]]:
        optimiser, average = torch.optim.Adam(net.parameters(), rate), None
        keep = AVERAGE ** (T[job.what] / (2 * steps))  # DDS2M's in twice the steps, of which it learns in half
        for _ in range(steps):
            with torch.enable_grad():
                made = 2 * net() - 1
                fit = (problem.operator.measured(made) - problem.y).square().mean()
                (fit + tv * variation(made) if tv else fit).backward()
            average = made.detach() if average is None else keep * average + (1 - keep) * made.detach()
            optimiser.step()
            optimiser.zero_grad()
            yield average.clamp(-1, 1), float(fit.detach())

    yield from watched(problem, fitted(), steps, model)
