"""StoRM (arXiv 2212.11851), and its parents: the score model without the predictor (SGMSE+), the predictor without the score model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from backends.audio.speech_models import RATE, Chunks, SpeechModel
from backends.audio.tasks import ENHANCE_SPEECH, EnhanceSpeech
from backends.lazy import torch
from backends.registry import method
from backends.sound import log_mel, resampled
from backends.spec import Events, Media, Note, Plot, Result, Slider, Step, Toggle

if TYPE_CHECKING:
    from torch import Tensor

N = Annotated[int, Slider(1, 60, 1, help="steps from noise to speech; one evaluation each, two with the corrector")]
Corrector = Annotated[bool, Toggle(help="one annealed Langevin step before each step")]
Snr = Annotated[float, Slider(0.05, 1.0, 0.05, help="with the corrector: r in its step size 2(r·σ)²")]

Posterior = Annotated[bool, Toggle(help="each step drawn from the process's posterior, not by Euler's rule: cleaner in few steps; not the paper's")]


def regenerate(job: EnhanceSpeech, model: SpeechModel, chunks: Chunks, part: str, centre: Tensor, beside: tuple[Tensor, ...],
               steps: int, corrector: bool, snr: float, posterior: bool = False, done: int = 0, aside: Callable[[], tuple[Media, ...]] = tuple) -> Events:  # fmt: skip
    """Noise around `centre` becomes speech by the score network `part`, which sees the spectrograms `beside`.

    `done`: steps before these; `aside`: what is shown beside the curve of how far the state has gone from its centre.
    """
    from backends.audio import ouve

    generator, moved = torch.Generator().manual_seed(job.seed), []

    def curve(n):
        return Plot({"‖x − centre‖ / ‖centre‖": ([float(i) for i in range(1, n + 1)], moved[:n])}, y="distance from the centre")

    states = ouve.reverse(lambda x, t: model.score(part, x, t, *beside), centre, steps, generator, corrector, snr, posterior)
    for i, x in enumerate(states, 1):
        moved.append(float((x - centre).norm() / centre.norm().clamp_min(1e-9)))
        # Bound now: the runner may ask for these later, or never.
        yield Step(done + i, done + steps, lambda x=x: log_mel(chunks.join(x)), lambda i=i: (curve(i),), keep=lambda x=x: chunks.join(x))
    yield Result(chunks.join(x), (*aside(), curve(steps)))


@method("storm", task=ENHANCE_SPEECH, needs={"speech", "predictive", "storm"})
def storm(job: EnhanceSpeech, model: SpeechModel, steps: N = 5, corrector: Corrector = False, snr: Snr = 0.5,
          posterior: Posterior = True) -> Events:  # fmt: skip
    """StoRM: stochastic regeneration.

    A predictive network D removes the noise in one go, and too much of the speech with it. A score model then starts from noise
    around that estimate, not around the noisy sound, and puts natural detail back; so close to the goal it needs few steps.

    Lemercier et al., arXiv 2212.11851; details from the official code (sp-uhh). The OUVE process is centred on D(y), the score
    network sees x_t, y and D(y); the last mean is returned, of a posterior step the speech that the score tells. The corrector is off,
    which is the official method's default. Where we differ: steps are drawn from the process's posterior, for the paper's Euler steps
    leave noise over where they are few (see ouve.reverse); on the test clips five such steps do better than ten of the paper's, which
    the knob gives back. The embedded networks are UNets of 1.7 M parameters; D was trained first and then held; the score network began
    as SGMSE+'s and gives a correction to a linear estimate of the speech, from which the score follows, where NCSN++ gives the score
    itself; a sound longer than 8 s is cut into chunks that fade into each other.
    """
    yield from resampled(job.sound, RATE)
    if posterior and not model.card.embedded:
        yield Note("These weights were published for 30 steps or more with “posterior” off; so few steps were tried on the embedded networks alone.")
    chunks = Chunks(job.sound, model)
    guess = model.denoise(chunks.y)
    yield Step(1, steps + 1, lambda: log_mel(chunks.join(guess)), keep=lambda: chunks.join(guess))
    aside = lambda: (replace(log_mel(chunks.join(guess)), caption="D(y), where the regeneration began"),)  # noqa: E731
    yield from regenerate(job, model, chunks, "storm", guess, (chunks.y, guess), steps, corrector, snr, posterior, done=1, aside=aside)


@method("sgmse", task=ENHANCE_SPEECH, needs={"speech", "sgmse"}, paper=False)
def sgmse(job: EnhanceSpeech, model: SpeechModel, steps: N = 30, corrector: Corrector = True, snr: Snr = 0.5,
          posterior: Posterior = False) -> Events:  # fmt: skip
    """SGMSE+ (diffusion only).

    A score model turns noise around the noisy sound into speech, with a corrector before each step.

    Richter et al., arXiv 2208.05830; thirty steps of predictor and corrector, sixty evaluations.
    """
    yield from resampled(job.sound, RATE)
    chunks = Chunks(job.sound, model)
    yield from regenerate(job, model, chunks, "sgmse", chunks.y, (chunks.y,), steps, corrector, snr, posterior)


@method("predictive", task=ENHANCE_SPEECH, needs={"speech", "predictive"}, paper=False)
def predictive(job: EnhanceSpeech, model: SpeechModel) -> Events:
    """Predictive only (StoRM's D).

    The network that StoRM begins with, alone: trained to the least squared error, it gives the mean of all that the speech may have been.
    """
    yield from resampled(job.sound, RATE)
    chunks = Chunks(job.sound, model)
    sound = chunks.join(model.denoise(chunks.y))
    yield Step(1, 1, lambda: log_mel(sound))
    yield Result(sound)
