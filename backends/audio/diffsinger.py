"""DiffSinger (arXiv 2105.02446): diffusion of a mel begun at step k from a simple decoder's blurry one."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from backends.audio.shallow import boundary_a, boundary_b, divergences, sing
from backends.audio.tasks import SING, Sing
from backends.registry import method
from backends.spec import Choice, Events, Metric, Plot, Slider

K = Annotated[int, Slider(0, 100, 1, help="step at which the chain begins; 0: found by the boundary; 100: full diffusion, from noise")]
Boundary = Annotated[
    str, Choice(("A: divergence", "B: classifier"), help="how k is found: by the formula, or by a network that tells true mels from the decoder's")
]
Sampler = Annotated[str, Choice(("ddpm", "plms"), help="ddpm draws noise at every step; plms draws none and bears larger ones")]
Speedup = Annotated[int, Choice((1, 2, 4, 5, 10, 20), help="steps of the chain taken at once")]
Vocoder = Annotated[str, Choice(("neural", "griffin-lim"), help="mel to sound: by a harmonic-plus-noise network, or by guessing phases")]


@method("diffsinger", task=SING, needs={"singing"})
def diffsinger(job: Sing, model, k: K = 0, boundary: Boundary = "A: divergence", sampler: Sampler = "ddpm", speedup: Speedup = 1, vocoder: Vocoder = "neural") -> Events:  # fmt: skip
    """DiffSinger.

    A simple decoder draws a blurry spectrogram of the song. It is noised only as far as its noise hides the blur, and denoised from there:
    fewer steps than from pure noise, and a better start.

    Liu et al., arXiv 2105.02446; details from the official code (MoonInTheRiver). k: the paper's appendix B (A), or its boundary predictor (B:
    true and blurry mels noised to a step can't be told apart by more than 0.4 in 95 % of the later steps), both over validation melodies.
    Ours differs in size: 12 dilated layers of 128 channels with a linear read-out beside the last (see SingerDenoiser), 80 mels at
    16 kHz, FastSpeech 2's blocks of width 144, a decoder trained to L1 + ¼·SSIM (officially L1, SSIM if wished); a knob of ours guesses phases by Griffin and Lim; pitch comes from the score, with vibrato. A voicebank's own k is the deepest it was trained
    for, and so is a published voice's.
    """
    if model.deepest is not None:
        k = k or model.deepest
        yield Metric("k", k, "", f"the deepest the voice was trained for: {model.deepest}, of 100")
        yield from sing(job, model, k, sampler, speedup, vocoder)
        return
    seen = model.validation
    found = {"A": boundary_a(seen["error"], seen["square"], model.bars), "B": boundary_b(np.array(seen["gap"]))}
    k = k or found[boundary[0]]
    yield Metric("k", k, "", f"boundary A: {found['A']}, B: {found['B']}, of 100")
    yield from sing(job, model, k, sampler, speedup, vocoder, curves(model, k))


def curves(model, k: int) -> tuple[Plot, ...]:
    """What the boundaries look at, over the steps."""
    between, noise = divergences(model.validation["error"], model.validation["square"], model.bars)
    at, gap = list(range(1, len(between) + 1)), np.array(model.validation["gap"])
    return (
        Plot({"noised mels apart": (at, between.log10().tolist()), "from noise at T": (at, [float(np.log10(noise))] * len(at))}, y="log₁₀ KL (boundary A)", marks={"k": k}),
        Plot({"classifier's gap": (at, gap.mean(0).tolist()), "margin": (at, [0.4] * len(at))}, y="gap (boundary B)", marks={"k": k}),
    )  # fmt: skip
