"""The walk that conditioned methods share: DDIM with noise put back (η), each step's x0 corrected, steps repeated at will.

A method brings `correct(predict, x, t, share) -> Corrected`; the rest is the same for all, so that arms differ in
their correction alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import log10
from typing import TYPE_CHECKING, Annotated

from backends.denoiser import Denoiser, as_uint8
from backends.image.conditions import Given
from backends.image.sampling import Guided, cut_notes, make_scheduler
from backends.image.tasks import EditImage
from backends.lazy import torch
from backends.spec import BadInput, Events, Image, Images, Metric, Note, Plot, Result, Slider, Step

if TYPE_CHECKING:
    from torch import Tensor

WalkSteps = Annotated[int, Slider(2, 100, 1, help="denoising steps")]
Eta = Annotated[float, Slider(0, 1, 0.05, help="noise put back at each step: 1 as DDPM, 0 none")]
Loops = Annotated[int, Slider(1, 5, 1, help="times each step is done, with noise put back between")]
Agree = Annotated[float, Slider(0, 2, 0.05, help="pull of a judge of the emoji world towards the prompt; 0 is off")]
Words = Annotated[float, Slider(0, 2, 0.05, help="pull of the text and image towers towards the whole prompt; 0 is off")]
Look = Annotated[float, Slider(0, 2, 0.05, help="pull towards the look of what is given, by an image network's features at several depths; 0 is off")]
AgreeStart = Annotated[float, Slider(0, 1, 0.05, help="the networks pull from this fraction of the steps on")]
AgreeStop = Annotated[float, Slider(0, 1, 0.05, help="the networks pull up to this fraction of the steps")]


@dataclass(frozen=True)
class Corrected:
    """x0 as the network gave it and as corrected; `losses` of this step by name, for the curves."""

    before: Tensor
    after: Tensor
    losses: dict[str, float] = field(default_factory=dict)


def walk(job: EditImage, model: Denoiser, given: Given, correct: Callable, *, steps: int, scale: float, eta: float, loops: int = 1) -> Events:
    """Denoise the job's seed, yielding x0 before and after correction and the losses, then the condition error."""
    cond, uncond = model.encode(job.prompt, "")
    yield from cut_notes(cond)
    guide = Guided(scale if job.prompt and "cfg" in model.card.capabilities else 1)
    scheduler = make_scheduler(model, "ddim")
    scheduler.set_timesteps(steps, device=model.device, **model.spacing(steps))
    generator = torch.Generator().manual_seed(job.seed + 1)
    x, curves = model.noise(job.seed), {}
    first = min(int(job.keep * steps), steps - 1)
    if not given.linear and not first:
        yield Note("Nothing of the picture is asked for, so only the words are drawn; raise keep to start from the picture.")

    def fresh(like):
        return torch.randn(like.shape, generator=generator).to(like)

    def predict(x, t):
        return guide(lambda *conds: model.x0s(x, t, *conds), cond, uncond, 0, 1)

    levels = [*scheduler.timesteps.tolist(), -1]
    if first:  # from the picture at the noise level of this step (Meng et al., SDEdit, arXiv 2108.01073)
        alpha, sigma = model.alpha_sigma(levels[first])
        x = alpha * model.to_latents(given.back(given.target)) + sigma * x
    for i, (t, after) in list(enumerate(pairwise(levels)))[first:]:
        (alpha, sigma), (alpha_next, sigma_next) = model.alpha_sigma(t), model.alpha_sigma(after)
        # The part of the next level's noise that is drawn anew (Song et al., arXiv 2010.02502, eq. 16, for any α, σ).
        new = eta * sigma_next * (1 - (alpha * sigma_next / (alpha_next * sigma)) ** 2).clamp(min=0).sqrt()
        for loop in range(loops):
            found = correct(predict, x, t, i / steps)
            eps = (x - alpha * found.after) / sigma
            following = alpha_next * found.after + (sigma_next**2 - new**2).clamp(min=0).sqrt() * eps + new * fresh(x)
            if loop + 1 < loops:  # back up to this level
                ratio = alpha / alpha_next
                x = ratio * following + (sigma**2 - (ratio * sigma_next) ** 2).clamp(min=0).sqrt() * fresh(x)
        x = following
        for name, value in found.losses.items():
            xs, ys = curves.setdefault(name, ([], []))
            xs.append(i + 1.0), ys.append(value)
        yield Step(i + 1, steps, found.after, lambda found=found: aside(model, given, found, curves))
    if not torch.isfinite(x).all():
        raise BadInput("The picture broke into values that are not numbers; lower the guidance or the judge's pull.")
    pixels = model.to_pixels(x)
    if given.linear:
        yield Metric("condition error (MSE)", float(given.loss(pixels.clamp(-1, 1))), "lower")
        yield Metric("error of the autoencoder alone", float(given.floor(model)))
    yield Result(Image(as_uint8(pixels), job.prompt), aside(model, given, found, curves))


def aside(model, given, found, curves) -> tuple:
    media = [given.shown()] if given.linear else []
    if found.after is not found.before:
        media += [Image(model.preview(found.before), "x0 before steering"), Image(model.preview(found.after), "x0 after")]
    return (Images(tuple(media)), *([Plot(dict(curves), y="log10 of the loss")] if curves else []))


def log(value) -> float:
    return log10(max(float(value), 1e-8))


def pulls(model: Denoiser, given: Given, agree: float, words: float, look: float) -> dict[str, tuple[float, Callable[[Tensor], Tensor]]]:
    """name -> (λ, loss) of the networks that pull, the strong ones first; a loss maps pixels (B, 3, H, W) to (B,)."""
    found = {}
    if agree:
        found["judge"] = agree, judge(model, given.prompt)
    if words:
        found["words"] = words, likeness(model, given.prompt)
    if look:
        found["look"] = look, appearance(given)
    return found


def _stands(model: Denoiser, what: str, knob: str, available: bool) -> None:
    """Raise BadInput, naming the knob to set to 0, when a network of the emoji world can't pull this model."""
    if "emoji" not in model.card.capabilities:
        raise BadInput(f"{what} was made for the emoji world only; set {knob} to 0 for {model.card.title}.")
    if not available:
        raise BadInput(f"{what} is not among this copy's models; set {knob} to 0.")


def judge(model: Denoiser, prompt: str) -> Callable[[Tensor], Tensor]:
    """−log probability that the prompt's objects are seen.

    By the emoji world's first detector; its second one, which never steers, is there to confirm.
    """
    from backends.metrics import detector
    from backends.metrics.image import wanted

    _stands(model, "The judge", "agree", detector.available())
    if not (concepts := list(wanted(prompt))):
        raise BadInput("The judge finds no object of the emoji world in the prompt; name one, such as “a cat”, or set agree to 0.")
    return lambda pixels: -detector.log_probs(pixels, concepts).mean(1)


def likeness(model: Denoiser, prompt: str) -> Callable[[Tensor], Tensor]:
    """1 − cosine of the picture's and the prompt's embeddings, by the scorer's towers."""
    from backends.metrics import scorer

    _stands(model, "The pair of text and image towers", "words", scorer.available())
    if not prompt.strip():
        raise BadInput("Write a prompt for the words to pull towards, or set words to 0.")
    return lambda pixels: 1 - scorer.cosines(pixels, [prompt] * len(pixels))


def appearance(given: Given) -> Callable[[Tensor], Tensor]:
    """Distance in ImageNet features at several depths to what is given; what is hidden is blank on both sides."""
    from backends.metrics import perceptual

    wanted = given.back(given.target)
    return lambda pixels: perceptual.distance(given.back(given.observe(pixels)), wanted.expand(len(pixels), -1, -1, -1))
