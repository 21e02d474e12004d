"""Arbitrary-scale upsampling (arXiv 2403.10255): one latent of a fixed size, decoded at any."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from backends.denoiser import as_uint8, from_uint8
from backends.lazy import torch
from backends.registry import method
from backends.restore.tadsr import middle
from backends.restore.upscale_baselines import DdimSteps, closing, diffused
from backends.restore.upscale_task import LARGEST, UPSCALE, Upscale, given, resized
from backends.restore.upscaler import FACTOR, Canvas, Upscaler, kept
from backends.spec import BadInput, Events, Image, Images, Result, Slider, Step, Toggle

FINE = 4  # the latents' picture is the small one so many times enlarged, whatever the factor
ROWS = 64  # px of a result made at once
Noise = Annotated[float, Slider(0, 1, 0.1, help="fresh noise in each step: 0 DDIM, which the paper takes, 1 DDPM")]


def fixed(model: Upscaler, small: np.ndarray) -> Canvas:
    """The canvas of the latents, FINE times the small picture's size; raises BadInput where that is too large."""
    h, w = (FINE * n for n in small.shape[:2])
    if h * w > LARGEST:
        raise BadInput(
            f"The small picture has {w // FINE}×{h // FINE} pixels; for this method up to {LARGEST // FINE**2:,} (512×512) are taken. Give a smaller one."
        )
    return Canvas(model, small, (h, w))


def at_any_size(canvas: Canvas, z, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of latents by the implicit decoder, some rows at a time; what the small picture knows is its own."""
    from backends.nets.sr_decoders import grid, parted
    from backends.nets.sr_decoders import resized as brought

    liif, (_, w) = canvas.model.net["liif"], size
    # The canvas is larger than its picture by what fills its edge up; places are relative to the canvas.
    span = torch.tensor([n / (FACTOR * m) for n, m in zip(canvas.size, canvas.shape)], device=z.device)
    at, cell = (grid(size, z.device) + 1) * span - 1, 2 * span / torch.tensor(size, device=z.device)
    plain, features = parted(canvas.on_tiles(lambda low, z: liif.read(canvas.model.net["vae"], z), z, scale=2))
    made = torch.cat([liif.query(features, part, cell) for part in at.split(ROWS * w, 1)], 1).transpose(1, 2).unflatten(2, size)
    made = made + brought(plain[..., : canvas.size[0], : canvas.size[1]], size)
    return as_uint8(kept(made, from_uint8(resized(canvas.small, size), z.device), size[0] / canvas.small.shape[0]))


@method("arbitrary_scale", task=UPSCALE, needs={"upscale", "any_scale"})
def arbitrary_scale(job: Upscale, model: Upscaler, steps: DdimSteps = 25, eta: Noise = 0.0,
                    aligned: Annotated[bool, Toggle(help="the UNet trained on through the decoder, so that what it draws decodes well; else as it was")] = True) -> Events:  # fmt: skip
    """Arbitrary-scale upsampling.

    The diffusion's latents always have one size; a decoder that answers for any point turns them into any number of pixels. All factors show one
    picture, and the networks' cost does not grow with it.

    Kim & Kim, arXiv 2403.10255; read from the official code. The decoder is a mirrored one without upsampling, then LIIF: four neighbours' features with
    relative place and pixel size through a perceptron, weighed by area. Training: random sizes under an L1 loss, then the UNet through the frozen decoder.
    Where we differ: the trunk is the plain decoder's, frozen, which doubles the size once, and two residual blocks behind it; the perceptron has 64 a layer,
    not 256, and adds to what the plain decoder draws, brought to the size; it learned L1 and a perceptual distance at ×1.3 to ×8, three quarters of it on
    latents that the diffusion drew; latents are of a picture four times as large as the small one; frequencies that the small picture knows are its own;
    estimates of x0 are drawn towards the small picture as in `ldm_sr`.
    """
    source = given(job)
    canvas = fixed(model, source.small)
    for i, (_, x0) in enumerate(diffused(canvas, lambda t: model.net["aligned" if aligned else "single"], steps, eta, job.seed), 1):
        aside = (lambda x0=x0: (zoomed(canvas, x0),)) if i == steps else ()
        yield Step(i, steps, lambda x0=x0: canvas.preview(x0), aside, keep=lambda x0=x0: closing(at_any_size(canvas, x0, source.size), source.small))
    yield Result(closing(at_any_size(canvas, x0, source.size), source.small))


def zoomed(canvas: Canvas, z) -> Images:
    """The middle of the picture at several sizes, each asked of the decoder, nothing resampled."""
    shown = []
    for factor in (1, 2, 4, 8):
        size = tuple(min(factor * n, 2048) for n in canvas.small.shape[:2])
        if size[0] * size[1] <= 2**20:
            shown.append(Image(middle(at_any_size(canvas, z, size), 192), f"×{factor}"))
    return Images(tuple(shown))


@method("fixed_decoder", task=UPSCALE, needs={"upscale", "latent_sr"}, paper=False)
def fixed_decoder(job: Upscale, model: Upscaler, steps: DdimSteps = 25, eta: Noise = 0.0) -> Events:
    """Fixed decoder, then bicubic.

    The same latent diffusion; its plain decoder knows one size, ×4, and resampling does the rest.
    """
    source = given(job)
    canvas = fixed(model, source.small)
    for i, (_, x0) in enumerate(diffused(canvas, lambda t: model.net["single"], steps, eta, job.seed), 1):
        yield Step(i, steps, lambda x0=x0: canvas.preview(x0), keep=lambda x0=x0: closing(resized(canvas.decoded(x0), source.size), source.small))
    yield Result(closing(resized(canvas.decoded(x0), source.size), source.small))
