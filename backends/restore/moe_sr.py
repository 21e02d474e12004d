"""Latent-diffusion super-resolution with experts of the sampling space and a frequency-augmented decoder (arXiv 2310.12004)."""

from __future__ import annotations

from typing import Annotated

from backends.registry import method
from backends.restore.tadsr import spectra
from backends.restore.upscale_baselines import DdimSteps, Eta, closing, diffused
from backends.restore.upscale_task import UPSCALE, Upscale, given
from backends.restore.upscaler import STAGES, Canvas, Upscaler
from backends.spec import BadInput, Choice, Events, Media, Plot, Result, Step, Toggle

SPAN = 1000 // STAGES
EXPERTS = ("four, by time", "one for all")


def stage(t: int) -> int:
    """Which expert's timestep t is, 0 the one of least noise."""
    return min(t // SPAN, STAGES - 1)


def progress(times: list[int]) -> Plot:
    """Which expert was called when."""
    steps = [float(i + 1) for i in range(len(times))]
    return Plot({"expert": (steps, [float(stage(t)) for t in times]), "t / 250": (steps, [t / SPAN for t in times])}, y="expert of the time")


@method("moe_sr", task=UPSCALE, needs={"upscale", "moe_sr"})
def moe_sr(job: Upscale, model: Upscaler, steps: DdimSteps = 25, eta: Eta = 1.0,
           experts: Annotated[str, Choice(EXPERTS, help="a UNet for each quarter of the timesteps, or the single one trained on the same samples")] = EXPERTS[0],
           refine: Annotated[bool, Toggle(help="the frequency-augmented decoder, which sees the small picture too; else the plain one")] = True) -> Events:  # fmt: skip
    """MoE-SR: experts of the sampling space, frequencies refined.

    Four UNets share the timesteps, and in training sixteen experts share the places of the picture, drawn together after each step and averaged in the
    end: more capacity at the cost of one network. A Fourier-domain U-Net before the decoder's output head brings back detail that the latents lost.

    Luo et al., arXiv 2310.12004; read from the official code. Stages are [0, 250), [250, 500), [500, 750), [750, 1000); β rises to 0.3. Official
    inference with 200 steps, η = 1 and a colour correction. Where we differ: UNets of 0.8 M parameters, an autoencoder without codebook, the plain
    decoder's trunk held and a single residual dense block for the small picture's features, no adversarial loss; for the colour correction,
    frequencies that the small picture knows are its own; estimates of x0 are drawn towards the small picture as in `ldm_sr`.
    """
    if experts != EXPERTS[0] and "single" not in model.net:
        raise BadInput(f"{model.card.title} has no single UNet; choose “{EXPERTS[0]}”.")
    source = given(job)
    canvas, times = Canvas(model, source.small, source.size), []
    nets = [model.net[f"stage{i}"] for i in range(STAGES)] if experts == EXPERTS[0] else [model.net["single"]] * STAGES
    decode = (lambda low, z: model.net["fa"](model.net["vae"], z, low)) if refine else None

    def aside(x0, last: bool) -> tuple[Media, ...]:
        found = (progress(list(times)),) if experts == EXPERTS[0] else ()
        if not last:
            return found
        pictures = {"plain decoder": canvas.decoded(x0)} | ({"refined": canvas.decoded(x0, decode)} if refine else {})
        return (*found, spectra(pictures | ({"original": source.reference} if source.reference is not None else {})))

    for i, (t, x0) in enumerate(diffused(canvas, lambda t: nets[stage(t)], steps, eta, job.seed), 1):
        times.append(t)
        yield Step(i, steps, lambda x0=x0: canvas.preview(x0), lambda x0=x0, i=i: aside(x0, i == steps),
                   keep=lambda x0=x0: closing(canvas.decoded(x0, decode), source.small))  # fmt: skip
    yield Result(closing(canvas.decoded(x0, decode), source.small))
