"""One sound from a job: what the methods of TEXT_TO_AUDIO share beyond their guide."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from backends.audio.editing import opened
from backends.audio.latent_audio import LatentAudio, denoise
from backends.audio.tasks import TextToAudio
from backends.image.sampling import Guided, cut_notes
from backends.lazy import torch
from backends.sound import log_mel, resampled
from backends.spec import Audio, Events, Image, Metric, Note, Plot, Result, Step

if TYPE_CHECKING:
    from torch import Tensor

DECODED = 12  # previews that are decoded in a run; between them stands the last one
QUIET = -50  # dB of full scale, root mean square
PALETTE = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], np.float32)  # −3, 0 and 3 deviations


def make(job: TextToAudio, model: LatentAudio, steps: int, guide: Guided, eta: float) -> Events:
    """Denoise the job's seed under its prompt, or the span of its sound, yielding the spectrogram of x0 and beside it the latents."""
    if guide.scale != 1 and not job.prompt:
        guide.scale = 1
        yield Note("Without a prompt there is nothing to guide towards: scale 1 was used.")
    edit = None
    if job.sound:
        yield from resampled(job.sound, model.rate)
        edit = opened(job, model)
    frames = model.frames(job.seconds) if edit is None else edit.known.shape[-1]
    if edit is None and job.seconds > model.longest + 0.01:
        yield Note(f"{model.card.title} was trained on sounds of {model.longest:g} s; a longer one may lose the thread.")
    cond, uncond = model.encode(job.prompt, "")
    yield from cut_notes(cond)

    def finished(latents: Tensor) -> tuple[Audio, float]:
        """The sound, and the share of its samples that lie beyond full scale."""
        wave = model.wave(latents if edit is None else torch.where(edit.mask > 0.5, latents, edit.known))
        marks = {}
        if edit is None:
            wave = wave[: round(job.seconds * model.rate)]
        else:
            wave, marks = edit.put(wave), {"made from": job.start, "to": min(job.end, len(edit.whole) / model.rate)}
        return Audio(wave.clip(-1, 1).astype(np.float32), model.rate, job.prompt, marks), float((np.abs(wave) > 1).mean())

    every, drawn, deviations = max(1, steps // DECODED), {}, []
    hidden = slice(None) if edit is None else edit.mask[0, 0] > 0.5

    def preview(i, x0):
        if not drawn or i % every == 0 or i == steps:
            drawn["last"] = log_mel(finished(x0)[0])
        return drawn["last"]

    def beside(x0):
        curve = Plot({"x0": (list(range(1, len(deviations) + 1)), list(deviations))}, y="deviation of the latents (data: 1)")
        return heat(x0[0]), curve

    known, mask = (None, None) if edit is None else (edit.known, edit.mask)
    with closing(denoise(model, cond, uncond, [job.seed], frames, steps, guide, eta, known, mask)) as states:
        for i, state in enumerate(states, 1):
            x, x0 = state
            deviations.append(float(x0[..., hidden].std()))
            # x0 is bound now: the runner may ask for these later.
            yield Step(i, steps, lambda i=i, x0=x0: preview(i, x0), lambda x0=x0: beside(x0), keep=lambda x0=x0: finished(x0)[0])
    sound, beyond = finished(x)
    made, gain = (sound.samples, 1.0) if edit is None else (sound.samples[slice(*edit.hidden)], edit.gain)
    if (level := 20 * np.log10(max(float(np.sqrt(np.square(made * gain).mean())), 1e-6))) < QUIET:
        yield Note(f"What was made is nearly silent ({level:.0f} dB of full scale); take more steps or another seed, or say in the prompt what sounds.")
    yield Metric("latent deviation", deviations[-1], "", "of the sounds trained on: 1")
    yield Metric("overdriven samples, %", 100 * beyond, "lower")
    yield Result(sound, beside(x))


def heat(latents: Tensor, width: int = 512) -> Image:
    """(C, L) latents as a picture, a row a channel: blue below the data's mean, red above, full colour at three deviations."""
    values = (np.nan_to_num(latents.float().cpu().numpy()).clip(-3, 3) + 3) / 3
    low = np.minimum(values.astype(int), 1)
    share = (values - low)[..., None]
    colours = PALETTE[low] * (1 - share) + PALETTE[low + 1] * share
    across = max(1, width // latents.shape[1])
    down = max(1, width // 3 // latents.shape[0])
    return Image(colours.round().astype(np.uint8).repeat(down, 0).repeat(across, 1), "latents: a row a channel, time to the right")
