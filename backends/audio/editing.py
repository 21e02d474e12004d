"""What of a sound is made anew: a window that the model can hear at once, the frames of it that are hidden, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.audio.latent_audio import LatentAudio
from backends.audio.tasks import LEAST, TextToAudio
from backends.lazy import torch
from backends.sound import resample
from backends.spec import BadInput

if TYPE_CHECKING:
    from torch import Tensor

FADE = 0.02  # s of cross-fade outside the span's ends
PEAK = 0.7  # to which a sound is brought before the model hears its window


@dataclass(frozen=True)
class Edit:
    """`whole`: (T,) the sound at the model's rate, silence added where it is to go on. `begin`: the window's first sample; `hidden`: the span, in samples.

    `known` (1, C, L) latents of the window, `mask` (1, 1, L): 1 where it is to be made; `gain`: what the window was multiplied by.
    """

    whole: np.ndarray
    begin: int
    hidden: tuple[int, int]
    known: Tensor
    mask: Tensor
    gain: float
    fade: int  # samples

    def put(self, window: np.ndarray) -> np.ndarray:
        """The whole with the span taken from the window as it was made, (L·hop,) samples; beyond the fades the input's own samples stand."""
        at, (a, b) = np.arange(len(self.whole), dtype=np.float32), self.hidden
        share = np.clip(1 + np.minimum(at - a, b - at) / self.fade, 0, 1)
        made = self.whole.copy()
        part = made[self.begin : self.begin + len(window)]
        part[:] = window[: len(part)] / self.gain
        return self.whole * (1 - share) + made * share


def opened(job: TextToAudio, model: LatentAudio) -> Edit:
    """The job's sound and span; raises BadInput where the span is more than the model hears."""
    sound, rate = resample(job.sound.samples, job.sound.rate, model.rate), model.rate
    most = model.longest - 2 * LEAST
    if job.end - job.start > most:
        raise BadInput(f"{model.card.title} makes at most {most:.1f} s of a sound anew at once; bring the span's ends nearer.")
    whole = np.pad(sound, (0, max(0, round(job.end * rate) - len(sound))))
    # The window: as much as the model hears, with the span in its middle where the sound allows; whole frames.
    length = min(model.frames(model.longest), -(-len(whole) // model.hop)) * model.hop
    middle = (job.start + job.end) / 2 * rate
    begin = int(min(max(0, middle - length / 2), max(0, len(whole) - length)))
    window = whole[begin : begin + length]
    a, b = round(job.start * rate), round(job.end * rate)
    gain = PEAK / max(float(np.abs(sound).max()), 1e-3)  # of the whole: what is made in a pause is to be heard beside its surroundings
    known = model.latents(window * np.float32(gain))
    mask = torch.zeros(1, 1, known.shape[-1], device=known.device)
    mask[..., (a - begin) // model.hop : max(-(-(b - begin) // model.hop), (a - begin) // model.hop + 1)] = 1
    return Edit(whole, begin, (a, b), known, mask, gain, max(1, round(FADE * rate)))
