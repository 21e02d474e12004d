"""DifFace (arXiv 2212.06512) and what it is measured against: the restorer alone, and the picture as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

from backends.registry import method
from backends.restore.face_models import FaceModel
from backends.restore.face_task import RESTORE_FACE, Face, RestoreFace
from backends.spec import Choice, Events, Images, Plot, Slider, Step

if TYPE_CHECKING:
    from torch import Tensor

GRID = 250  # steps that the prior's thousand are thinned to
START = {"the restorer's": True, "the picture as it is": False}


def respaced(total: int = 1000, steps: int = GRID) -> list[int]:
    """iDDPM's evenly spaced timesteps, ascending: the first 0, the last total − 1."""
    return [round(i * (total - 1) / (steps - 1)) for i in range(steps)]


def backwards(x0: Tensor, N: int, eta: float, bar: Tensor, predict: Callable[[Tensor, int], Tensor], noise: Callable[[], Tensor], grid: list[int] | None = None, known: Callable[[Tensor], Tensor] = lambda x: x) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """(x_t, the clipped estimate of x0) of each of N DDIM steps that begin at x0 noised to the grid's N-th timestep.

    `bar`: ᾱ by timestep; `predict`: ε of (x, t); `noise`: draws like x0, one for the start and one a step if η > 0; `known`: puts what
    is known of the picture into an estimate.
    """
    times = (grid or respaced())[:N]
    x = bar[times[-1]].sqrt() * x0 + (1 - bar[times[-1]]).sqrt() * noise()
    for i in reversed(range(N)):
        a, before = bar[times[i]], bar[times[i - 1]] if i else bar.new_ones(())
        guess = ((x - (1 - a).sqrt() * predict(x, times[i])) / a.sqrt()).clamp(-1, 1)
        guess = known(guess)
        yield x, guess
        eps = (x - a.sqrt() * guess) / (1 - a).sqrt()
        sigma = eta * ((1 - before) / (1 - a) * (1 - a / before)).sqrt()
        x = before.sqrt() * guess + (1 - before - sigma**2).clamp_min(0).sqrt() * eps
        if eta and i:
            x = x + sigma * noise()


@method("difface", task=RESTORE_FACE, needs={"difface"})
def difface(
    job: RestoreFace,
    model: FaceModel,
    N: Annotated[int, Slider(5, 250, 5, help="how far to noise, in steps of 250; more is cleaner and less the same person")] = 40,
    eta: Annotated[float, Slider(0, 1, 0.05, help="0: nearer to the restorer's face; 1: livelier detail")] = 0.5,
    start: Annotated[str, Choice(tuple(START), help="what is noised; the picture as it is shows what the restorer is for")] = "the restorer's",
) -> Events:
    """DifFace: diffused error contraction.

    A restorer trained with one pixel loss gives a soft face f(y). Noised to a middle timestep, what is wrong with it is smaller than the noise; an
    unconditional diffusion model, which never saw a degraded face, brings it back as a face.

    Yue and Loy, arXiv 2212.06512; details from the official code (zsyOAOA). x_N = √ᾱ·f(y) + √(1−ᾱ)·ε on iDDPM's grid of 250 steps, then DDIM with η = 0.5
    and clipped x0: N evaluations and one of the restorer. Where we differ: 64 px, of which noise hides more than of theirs: what N = 100 is at 512 px
    is 19 at 64 (σ/√ᾱ an eighth), hence 40. The restorer is a UNet of 2.6 M parameters where theirs is a SwinIR of 16 M, both trained with L1; the
    prior learns no variance, which DDIM does not use. The official code noises to the grid's step N and begins the walk at N − 1 (√ᾱ 0.438 and
    0.445 at N = 100); ours noises to where it begins.

    With a hole: their section on inpainting has LaMa's network fill it, begins at N = 120 with η = 1 and pulls each estimate to the known pixels with a step
    of γ = 0.5, which is to put them in; they are pasted at the end. Here the biharmonic equation fills it, and the restorer goes over that; set N and η so.
    A grey picture's brightness is put in likewise, which is not in the paper. Where a slider is set nothing is put in.
    """
    face = Face(job, model)
    yield from face.notes()
    first = int(START[start])
    rough, steps = face.known(model.restore(face.y)) if first else face.y, N + first
    if first:
        yield Step(1, steps, lambda: face.show(rough, "f(y)"), keep=lambda: face.kept(rough))
    moved, draw = [], model.noise(face.y, job.seed)

    def aside(x, n):
        return (Images((face.show(face.y, "y"), face.show(rough, "f(y)" if first else "y again"), face.show(x, "x_t"))), curve(n))

    def curve(n):
        return Plot({"‖x0 − start‖, RMS in %": ([float(i) for i in range(1, n + 1)], moved[:n])}, y="moved from the start")

    for i, (x, guess) in enumerate(backwards(rough, N, eta, model.bars["pixels"], model.noise_in, draw, known=face.known), 1 + first):
        moved.append(50 * float((guess - rough).square().mean().sqrt()))
        n = len(moved)  # bound now: the runner may ask for these later, or never
        yield Step(i, steps, lambda g=guess: face.show(g), lambda x=x, n=n: aside(x, n), keep=lambda g=guess: face.kept(g))
    yield face.result(guess, (Images((face.show(rough, "where the prior began"),)), curve(N)))


@method("face_restorer", task=RESTORE_FACE, needs={"difface"}, paper=False)
def face_restorer(job: RestoreFace, model: FaceModel) -> Events:
    """Restorer only (DifFace's f).

    The network that DifFace begins with, alone: trained to the least absolute error, it gives the middle of all faces that the picture may show.
    """
    face = Face(job, model)
    yield from face.notes()
    x = model.restore(face.y)
    yield Step(1, 1, lambda: face.show(x))
    yield face.result(x)


@method("untouched_face", task=RESTORE_FACE, needs={"face"}, paper=False)
def untouched_face(job: RestoreFace, model: FaceModel) -> Events:
    """As it is.

    The degraded picture itself, brought to size as the degradation leaves it: what every figure is to be compared with.
    """
    face = Face(job, model)
    yield from face.notes()
    yield Step(1, 1, lambda: face.show(face.y))
    yield face.result(face.y)
