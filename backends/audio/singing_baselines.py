"""What shallow diffusion stands between: the decoder alone, and diffusion from noise."""

from __future__ import annotations

from backends.audio.diffsinger import Sampler, Speedup, Vocoder
from backends.audio.shallow import sing
from backends.audio.singer import STEPS
from backends.audio.tasks import SING, Sing
from backends.registry import method
from backends.spec import Events


@method("auxiliary", task=SING, needs={"singing"}, paper=False)
def auxiliary(job: Sing, model, vocoder: Vocoder = "neural") -> Events:
    """Auxiliary decoder alone.

    The spectrogram as a feed-forward network draws it at once: the mean of what it might be, and therefore smooth.

    FastSpeech 2 (Ren et al., arXiv 2006.04558) with notes for pitch, trained by L1 and structural similarity.
    """
    return sing(job, model, 0, vocoder=vocoder)


@method("full_diffusion", task=SING, needs={"singing"}, paper=False)
def full_diffusion(job: Sing, model, sampler: Sampler = "ddpm", speedup: Speedup = 1, vocoder: Vocoder = "neural") -> Events:
    """Full diffusion.

    The same denoiser over all 100 steps, from pure noise: the decoder's spectrogram is not looked at.

    Ho et al., arXiv 2006.11239, with the schedule of DiffSinger.
    """
    return sing(job, model, STEPS, sampler, speedup, vocoder)
