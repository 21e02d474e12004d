"""Score distillation: a frozen text-to-image model as the loss of any differentiable picture (Poole et al., arXiv 2209.14988).

A prior sees pictures (n, 3, H, W) in [0, 1], brought to its own space: latents of 128 px views, or the pixels themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends.denoiser import Cond, Denoiser, as_uint8, together
from backends.lazy import F, torch
from backends.scene.turning import turning, turntable
from backends.scene.volume import Rendered
from backends.scene.watching import Watch
from backends.spec import Event, Image, Images, Media, Plot, Slider, Step
from backends.worlds.objects import VIEWS, view_of
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

Iterations = Annotated[int, Slider(1, 5000, 1, help="steps of the optimiser")]
Scale = Annotated[
    float,
    Slider(
        1,
        200,
        0.5,
        help="classifier-free guidance of the prior; the studio's own wants 3 to 7 to make an object and about 25 to change one, large ones 50 to 100",
    ),
]
Low = Annotated[float, Slider(0.02, 0.98, 0.01, help="lowest noise level asked of the prior")]
High = Annotated[float, Slider(0.02, 0.98, 0.01, help="highest noise level")]
Resolution = Annotated[int, Slider(16, 64, 8, unit="px", help="side of the views that are rendered in each step")]
Views = Annotated[int, Slider(1, 8, 1, help="cameras in each step")]
Grid = Annotated[int, Slider(16, 96, 8, help="voxels along each side")]


@dataclass(frozen=True)
class Scored:
    """`gradient` of the loss at z, `target` x̂ (n, C, h, w): the one-step estimate of z, and the noise level t (0 to 1)."""

    gradient: Tensor
    target: Tensor
    t: float


class Prior:
    """A denoiser with a prompt for each side (section 3.2); `generator` draws its noise on the CPU, alike on all devices."""

    def __init__(self, model: Denoiser, prompt: str, generator, scale: float, by_view: bool = True):
        self.model, self.prompt, self.generator, self.scale = model, prompt, generator, scale
        self.uncond = model.encode("")[0]
        self.conds = {v: model.encode(f"{prompt}, {v} view" if by_view else prompt)[0] for v in VIEWS}

    def see(self, pictures: Tensor) -> Tensor:
        """The pictures in the prior's space; differentiable."""
        side = self.model.side
        if pictures.shape[-1] != side:
            pictures = F.interpolate(pictures, (side, side), mode="bilinear", antialias=pictures.shape[-1] > side)
        return self.model.to_latents(pictures * 2 - 1)

    def cond(self, cameras: list[Camera]) -> Cond:
        return together(tuple(self.conds[view_of(c.azimuth, c.elevation)] for c in cameras))

    def noise(self, z: Tensor) -> Tensor:
        return torch.randn(z.shape, generator=self.generator).to(z)

    def level(self, low: float, high: float) -> int:
        """t ~ U(low, high)·T, one for the batch."""
        t = low + (max(high, low) - low) * float(torch.rand((), generator=self.generator))
        return min(int(t * 1000), 999)

    def size(self, low: float, high: float) -> float:
        """What the gradient of `score` comes to in the mean over the levels U(low, high): w·σα/(α² + σ²), exact for data of unit variance a unit away."""
        alpha, sigma = self.model.alpha_sigma((1000 * torch.linspace(low, max(high, low), 65)).long().clamp(max=999))
        return float((sigma**3 * alpha / (alpha**2 + sigma**2)).mean())

    def score(self, z: Tensor, cond: Cond, t: int, noise: Tensor | None = None) -> Scored:
        """w(t)(ε̂ − ε) with w = σ² (eq. 3 without the network's Jacobian), and x̂ = (z_t − σ·ε̂)/α."""
        with torch.no_grad():
            noise = self.noise(z) if noise is None else noise
            alpha, sigma = self.model.alpha_sigma(t)
            seen, blind = self.model.x0s(alpha * z + sigma * noise, t, cond, self.uncond)
            target = blind + self.scale * (seen - blind)
            # ε̂ − ε = (α/σ)(z − x̂): the same gradient seen as that of an L2 loss (StableDreamer's section 3.2).
            return Scored(torch.nan_to_num(sigma**2 * (alpha / sigma) * (z - target)), target, t / 1000)


@dataclass(frozen=True)
class Pulled:
    """One iteration of `distil`: what was `seen`, `z` in the prior's space and what it was scored."""

    i: int
    seen: Rendered
    z: Tensor
    scored: Scored


@dataclass(frozen=True)
class Look:
    """What iteration `i`, from 0 on, looks at the field from: its cameras and the grey of their ground."""

    i: int
    cameras: list[Camera]
    ground: float


def distil(field, prior: Prior, generator, iterations: int, rates: list[dict], size: int, views: int, level: Callable[[int], int],
           regular: Callable[[Rendered, Look], Tensor]) -> Iterator[Pulled]:  # fmt: skip
    """Pull a field (Volume or Gaussians) towards what the prior sees in it; yields after each step of Adam.

    `rates`: Adam's parameter groups. `level(i)`: the noise level, 0 to 999. `regular(seen, look)`: a further loss a picture element of z.
    The ground is a grey drawn anew each time, so that an object can't hide in it.
    """
    optimiser = torch.optim.Adam(rates)
    for i in range(iterations):
        look = Look(i, some_cameras(generator, views), 0.5 + 0.5 * float(torch.rand((), generator=generator)))
        with torch.enable_grad():
            seen = field.seen(look.cameras, size, look.ground, generator)
            z = prior.see(seen.picture)
            scored = prior.score(z, prior.cond(look.cameras), level(i))
            (pull(z, scored.gradient) + z[0].numel() * regular(seen, look)).backward()
        optimiser.step(), optimiser.zero_grad()
        yield Pulled(i + 1, seen, z.detach(), scored)


def watched(pulls: Iterator[Pulled], field, prior: Prior, iterations: int, before: int = 0, after: int = 0, watch: Watch | None = None,
            count: Callable[[], int] | None = None, beside: Callable[[], tuple[Media, ...]] = lambda: ()) -> Generator[Event, None, tuple[Media, ...]]:  # fmt: skip
    """A Step an iteration (`before` more came first, `after` follow): the field turning, what the prior was shown and what it wanted, curves;
    at last the seconds to the judge's score. Returns what stood beside the last one (`yield from`), the pictures first.

    `watch`: when this is not the whole of the run's iterations. `count`: how many parts the field has now, a curve of its own. `beside`: shown last.
    """
    watch = watch or Watch(field, prior.prompt, prior.model, iterations)
    at, sizes, opaque, levels, parts = [], [], [], [], []
    for pulled in pulls:
        (
            at.append(before + pulled.i),
            sizes.append(float(pulled.scored.gradient.square().mean().sqrt())),
            opaque.append(float(pulled.seen.opacity.detach().mean())),
        )
        levels.append(pulled.scored.t), parts.append(count() if count else 0)

        def aside(pulled=pulled):
            wanted = Image(shown(prior, pulled.scored.target), f"one-step estimate x̂, t = {pulled.scored.t:.2f}")
            pictures = Images((Image(shown(prior, pulled.z), "the view"), wanted, Image(strength(pulled.scored.gradient, prior.model.side), "pull")))
            curves = (Plot({"pull": (at, sizes), "opacity": (at, opaque), "noise level t": (at, levels)}),)
            curves += (Plot({"Gaussians": (at, parts)}),) if count else ()
            return pictures, *curves, *watch.look(before + pulled.i, pulled.i == iterations), *beside()

        yield Step(before + pulled.i, before + iterations + after, lambda i=pulled.i: turning(field, i), aside, keep=lambda: turntable(field))
    yield from watch.reached()
    return aside()


def pull(z: Tensor, gradient: Tensor) -> Tensor:
    """A loss whose gradient at z is `gradient`, averaged over the batch: ½‖z − sg(z − g)‖²."""
    return 0.5 * (z - (z - gradient).detach()).square().sum() / len(z)


def some_cameras(generator, n: int) -> list[Camera]:
    """Anywhere around, 10° below to 45° above, sometimes from overhead; distance and field of view as the priors' views have them."""
    u = torch.rand((n, 4), generator=generator).tolist()
    return [Camera(360 * a - 180, 60 + 25 * e if over < 0.1 else -10 + 55 * e, 2.5 + 0.5 * d, 40.0) for a, e, d, over in u]


def shown(prior: Prior, z: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of the first in the prior's space."""
    return as_uint8(prior.model.to_pixels(z[:1]))


def strength(gradient: Tensor, side: int) -> np.ndarray:
    """(side, side, 3) uint8: where the first picture is pulled, and how much, from black over red to white."""
    size = gradient[:1].square().mean(1, keepdim=True).sqrt()
    size = F.interpolate(size / size.amax().clamp_min(1e-9), (side, side), mode="bilinear")[0, 0]
    return (torch.stack([(3 * size).clamp(0, 1), (3 * size - 1).clamp(0, 1), (3 * size - 2).clamp(0, 1)], -1) * 255).byte().cpu().numpy()
