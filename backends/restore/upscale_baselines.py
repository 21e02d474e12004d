"""What stands beside the three papers of “Enlarge a picture”: resampling, packaged networks, the teacher, and latent diffusion with a plain decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import numpy as np

from backends.lazy import torch
from backends.registry import method
from backends.restore.latent_sr import ddim
from backends.restore.upscale_task import UPSCALE, Upscale, given, resized
from backends.restore.upscaler import Canvas, Upscaler
from backends.spec import Events, Image, Result, Slider, Step, Toggle

if TYPE_CHECKING:
    from torch import Tensor

DdimSteps = Annotated[int, Slider(2, 200, 1, help="DDIM steps; the paper takes 200")]
Eta = Annotated[float, Slider(0, 1, 0.1, help="fresh noise in each step: 0 DDIM, 1 DDPM, which the paper takes")]


def closing(pixels: np.ndarray, small: np.ndarray, caption: str = "") -> Image:
    """A result, with what it was made from under its slider."""
    return Image(pixels, caption, before=small)


def diffused(canvas: Canvas, net_at: Callable[[int], object], steps: int, eta: float, seed: int) -> Iterator[tuple[int, Tensor]]:
    """(timestep, estimate of x0) of each step of latent diffusion from noise; `net_at(t)`: the network for a timestep."""
    generator = torch.Generator().manual_seed(seed)
    return ddim(lambda x, t: canvas.called(net_at(t), x, t), canvas.y0, lambda: canvas.noise(generator), steps, eta, not canvas.model.relative)


def walked(canvas: Canvas, deterministic: bool, seed: int) -> Iterator[Tensor]:
    """The teacher's estimates of x0, one a step."""
    return canvas.model.shift.walk(lambda x, t: canvas.estimated("shift", x, t), canvas.y0, torch.Generator().manual_seed(seed), deterministic)


@method("bicubic", task=UPSCALE, needs={"upscale"}, paper=False)
def bicubic(job: Upscale, model) -> Events:
    """Bicubic.

    No network: each pixel a weighed mean of sixteen.
    """
    source = given(job)
    image = closing(resized(source.small, source.size), source.small)
    yield Step(1, 1, image)
    yield Result(image)


@method("resshift", task=UPSCALE, needs={"upscale", "resshift"}, paper=False)
def resshift(job: Upscale, model: Upscaler,
             deterministic: Annotated[bool, Toggle(help="SinSR's way, which keeps the first step's noise; else each step draws anew")] = False) -> Events:  # fmt: skip
    """ResShift (TAD-SR's teacher).

    A diffusion whose chain goes from the large picture to the small one, not to pure noise, so that fifteen steps bring it back.

    Yue et al., arXiv 2307.12348, with κ = 2 and T = 15; the published networks (choose them as the model) have T = 15 or 4. Where we differ: the embedded network (2 M parameters) sees ×1.3 to ×8 and adds to y0,
    a UNet without Swin attention, an autoencoder without codebook; frequencies that the small picture knows are its own.
    """
    source = given(job)
    canvas = Canvas(model, source.small, source.size)
    for i, x0 in enumerate(walked(canvas, deterministic, job.seed), 1):
        yield Step(i, model.shift.steps, lambda x0=x0: canvas.preview(x0), keep=lambda x0=x0: closing(canvas.decoded(x0), source.small))
    yield Result(closing(canvas.decoded(x0), source.small))


@method("ldm_sr", task=UPSCALE, needs={"upscale", "latent_sr"}, paper=False)
def ldm_sr(job: Upscale, model: Upscaler, steps: DdimSteps = 25, eta: Eta = 1.0) -> Events:
    """Latent diffusion, one UNet, plain decoder.

    LDM-SR: noise becomes latents in the sight of the small picture. One network for every timestep; what MoE-SR is compared with.

    Rombach et al., arXiv 2112.10752. The network saw each sample that MoE-SR's four experts saw between them. Estimates of x0 are drawn towards the
    small picture as far as the network errs on held-out noise (latent_sr.py): plain DDIM drowns in its error.
    """
    source = given(job)
    canvas = Canvas(model, source.small, source.size)
    for i, (_, x0) in enumerate(diffused(canvas, lambda t: model.net["single"], steps, eta, job.seed), 1):
        yield Step(i, steps, lambda x0=x0: canvas.preview(x0), keep=lambda x0=x0: closing(canvas.decoded(x0), source.small))
    yield Result(closing(canvas.decoded(x0), source.small))
