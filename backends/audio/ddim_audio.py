"""The baseline: the same network and sampler with plain classifier-free guidance."""

from __future__ import annotations

from backends.audio.ezaudio import Eta
from backends.audio.making import make
from backends.audio.tasks import TEXT_TO_AUDIO, TextToAudio
from backends.image.sampling import Guided
from backends.registry import method
from backends.spec import Events, Guidance, Steps


@method("ddim_audio", task=TEXT_TO_AUDIO, needs={"text_audio"}, paper=False)
def ddim_audio(job: TextToAudio, model, steps: Steps = 50, scale: Guidance = 5.0, eta: Eta = 1.0) -> Events:
    """Plain guidance (DDIM).

    EzAudio's network and sampler with classifier-free guidance as it is (Ho & Salimans, arXiv 2207.12598): what rescaling is
    measured against.
    """
    yield from make(job, model, steps, Guided(scale), eta)
