"""EzAudio (arXiv 2409.10819): text to sound by diffusion of waveform latents; large guidance scales are rescaled."""

from __future__ import annotations

from typing import Annotated

from backends.audio.making import make
from backends.audio.tasks import TEXT_TO_AUDIO, TextToAudio
from backends.image.sampling import Guided
from backends.registry import method
from backends.spec import Events, Guidance, Slider, Steps

Eta = Annotated[float, Slider(0, 1, 0.05, help="noise drawn anew at each step: 0 none (DDIM), 1 as much as DDPM")]


@method("ezaudio", task=TEXT_TO_AUDIO, needs={"text_audio"})
def ezaudio(
    job: TextToAudio, model,
    steps: Steps = 50,
    scale: Guidance = 5.0,
    rescale: Annotated[float, Slider(0, 1, 0.05, help="φ: how far the guided prediction is brought back to the deviation of that under the text alone; 0 is plain guidance")] = 0.75,
    eta: Eta = 1.0,
) -> Events:  # fmt: skip
    """EzAudio: latent diffusion of waveforms with rescaled guidance.

    A transformer with long skips and shared, low-rank time modulation makes latents of a waveform autoencoder, no spectrogram in
    between. The more guidance, the closer the sound keeps to the words and the more its latents swell; rescaling the guided
    prediction keeps their size, so that large scales stay clean.

    Hai et al., arXiv 2409.10819, section 2.4 after Lin et al., arXiv 2305.08891, section 3.4: with v under the text (c) and under
    the empty text (u), g = u + s·(c − u), then φ·g·std(c)/std(g) + (1 − φ)·g, the deviations over channels and frames; DDIM with
    zero terminal SNR. Defaults are the paper's (s = 5, φ = 0.75, η = 1), at 50 steps for its 100. Editing: the network is shown the
    latents around the span and a mask; officially s = 3.5, φ = 0. Where we differ: samples outside the span stay the input's own,
    and the input's latents are the posterior's mean, officially a draw. The embedded model reads words by MiniLM, not FLAN-T5, makes 16 kHz,
    not 24, and was trained on captioned sounds at once, without the paper's stages.
    """
    yield from make(job, model, steps, Guided(scale, rescale), eta)
