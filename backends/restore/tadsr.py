"""TAD-SR (arXiv 2408.07476): a residual-shifting teacher's fifteen steps in one."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from backends.image.conditions import LUMA
from backends.lazy import torch
from backends.models import uncounted
from backends.registry import method
from backends.restore.upscale_baselines import closing, walked
from backends.restore.upscale_task import UPSCALE, Upscale, given, resized
from backends.restore.upscaler import FACTOR, TILE, Canvas, Upscaler
from backends.spec import BadInput, Choice, Events, Image, Images, Media, Plot, Result, Step, Toggle

STUDENTS = {"all three": "student", "regression alone": "regression"}
SHOWN = (0, 2, 6, 10)  # which of the teacher's steps stand beside, and its last


def student(canvas: Canvas, part: str, seed: int):
    """Latents of the one step from x_T = y0 + κ√η_T ε."""
    shift = canvas.model.shift
    start = shift.start(canvas.y0, canvas.noise(torch.Generator().manual_seed(seed)))
    return canvas.estimated(part, start, shift.steps - 1)


def middle(pixels: np.ndarray, most: int) -> np.ndarray:
    """The middle `most`×`most` px, or all where there are fewer."""
    top, left = (max(0, (n - most) // 2) for n in pixels.shape[:2])
    return pixels[top : top + most, left : left + most]


def spectra(pictures: dict[str, np.ndarray], bins: int = 32) -> Plot:
    """Mean power of the grey values by spatial frequency, dB, of the largest square in the middle."""
    curves = {}
    for label, pixels in pictures.items():
        grey = middle(pixels, min(pixels.shape[:2])) @ np.array(LUMA)
        window = np.hanning(len(grey))
        power = np.abs(np.fft.rfft2((grey - grey.mean()) * np.outer(window, window), norm="ortho")) ** 2
        far = np.hypot(np.fft.fftfreq(len(grey))[:, None], np.fft.rfftfreq(len(grey)))
        which = np.minimum((far / 0.5 * bins).astype(int), bins)
        means = np.bincount(which.ravel(), power.ravel(), bins + 1)[:bins] / np.maximum(np.bincount(which.ravel(), minlength=bins + 1)[:bins], 1)
        curves[label] = ([0.5 * (i + 0.5) / bins for i in range(bins)], (10 * np.log10(means + 1e-3)).tolist())
    return Plot(curves, x="cycles a pixel", y="power, dB")


def beside(canvas: Canvas, made: np.ndarray, reference: np.ndarray | None, seed: int) -> tuple[Media, ...]:
    """The teacher's way and the spectra of all, in the middle of the picture; from the same noise where that is the whole."""
    model, most = canvas.model, TILE * FACTOR
    size = tuple(min(n, most) for n in made.shape[:2])
    ratio = canvas.small.shape[0] / canvas.size[0]
    small = middle(canvas.small, max(1, round(ratio * most)))
    part = Canvas(model, small, size)
    last = model.shift.steps - 1
    shown = [i for i in SHOWN if i < last] + [last]
    with uncounted(model):
        teacher = [part.decoded(x0) for i, x0 in enumerate(walked(part, True, seed)) if i in shown]
    curves = {"bicubic": resized(small, size), "teacher": teacher[-1], "one step": middle(made, most)}
    curves |= {"original": middle(reference, most)} if reference is not None else {}
    return Images(tuple(Image(p, f"teacher, step {i + 1}") for i, p in zip(shown, teacher))), spectra(curves)


@method("tadsr", task=UPSCALE, needs={"upscale", "tadsr"})
def tadsr(job: Upscale, model: Upscaler,
          losses: Annotated[str, Choice(tuple(STUDENTS), help="what the student was trained by: regression to the teacher, HFSD and the time-aware discriminator; or the first alone")] = "all three",
          teacher: Annotated[bool, Toggle(help="show the teacher's way beside, and spectra; its evaluations are not counted")] = True) -> Events:  # fmt: skip
    """TAD-SR: one step.

    A student of ResShift enlarges in a single evaluation. Regression to the teacher alone would blur what the teacher drew; a score difference at
    small noise and a discriminator that is told the timestep bring the high frequencies back.

    Arm of arXiv 2408.07476; no official code but a README. L = L_d + λ₁ L_HFSD + λ₂ L_adv; HFSD's gradient φ(x_t(x̂_s)) − φ(x_t(x̂_t)) with one ε
    for both is 0 where the student equals the teacher, which that of plain score distillation is not. Where we differ: λ₂ follows the size of
    L_d's gradient (VQGAN's rule), λ₁ = 1, HFSD's t are the lowest third, its φ the estimate of x0 and w(t), which weighs them
    in the paper, is 1; the teacher is `resshift`'s small network, and frequencies that the small picture knows are its own. The embedded student of
    regression alone was trained on fewer samples than that of all three losses: what is between them is not the losses' alone.
    """
    if STUDENTS[losses] not in model.net:
        raise BadInput(f"{model.card.title} has one student, which was trained by all three losses; choose “all three”.")
    source = given(job)
    canvas = Canvas(model, source.small, source.size)
    pixels = canvas.decoded(student(canvas, STUDENTS[losses], job.seed))
    image = closing(pixels, source.small)
    yield Step(1, 1, image, (lambda: beside(canvas, pixels, source.reference, job.seed)) if teacher else ())
    yield Result(image)
