"""Shallow diffusion: where the chain begins, and the chain. What the methods of SING share."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from backends.audio.scores import check
from backends.audio.singer import SCHEDULE, STEPS, Singer, admit
from backends.audio.tasks import Sing
from backends.audio.voicebank import Voicebank
from backends.audio.voicebank import sing as sing_by_bank
from backends.lazy import diffusers, torch
from backends.spec import Events, Metric, Note, Plot, Result, Step

if TYPE_CHECKING:
    from torch import Tensor


def divergences(error: float, square: float, bars: Tensor) -> tuple[Tensor, float]:
    """Per element: KL between the two noised mels at each step (T,), from `error` E[(M−M̃)²]; and KL of q(M_T|M) from N(0, I), from `square` E[M²]."""
    bars = bars.double()
    last = float(bars[-1])
    return bars * error / (2 * (1 - bars)), 0.5 * (last * square - last - math.log1p(-last))


def boundary_a(error: float, square: float, bars: Tensor) -> int:
    """k of the paper's appendix B: by step k (counted from 1) the noised mels differ no more than a wholly noised one from noise; T if they always do."""
    between, noise = divergences(error, square, bars)
    met = (between <= noise).nonzero()
    return int(met[0]) + 1 if len(met) else len(bars)


def boundary_b(gaps: np.ndarray, margin: float = 0.4, share: float = 0.95) -> int:
    """k by the classifier, gaps (items, T): of each item the earliest step from which on `share` of the gaps are below `margin`; their mean.

    T where an item has none.
    """
    below = np.asarray(gaps) < margin
    after = below[:, ::-1].cumsum(1)[:, ::-1] / np.arange(below.shape[1], 0, -1)  # share from each step to the end
    return round(float(np.where((after >= share).any(1), (after >= share).argmax(1) + 1, below.shape[1]).mean()))


def begin(mel: Tensor, k: int, bars: Tensor, noise: Tensor) -> Tensor:
    """The decoder's mel noised to step k, whose index is k − 1; at T noise alone, as full diffusion begins."""
    if k == len(bars):
        return noise
    bar = bars[k - 1].to(mel.device)
    return bar.sqrt() * mel + (1 - bar).sqrt() * noise


def chain(model: Singer, x: Tensor, condition: Tensor, k: int, sampler: str, speedup: int, generator):
    """Yield the state after each of the steps k − 1, k − 1 − speedup, … down to 0 at least."""
    steps = list(range(k - 1, -1, -speedup))
    if sampler == "plms":  # pseudo linear multistep (Liu et al., arXiv 2202.09778), as the official code's speedup
        scheduler, extra = diffusers.PNDMScheduler(**SCHEDULE, skip_prk_steps=True, set_alpha_to_one=True), {}
        scheduler.set_timesteps(STEPS // speedup)
        steps = steps[:2] + steps[1:]  # its first step is taken twice, better the second time
    else:
        scheduler, extra = diffusers.DDPMScheduler(**SCHEDULE, variance_type="fixed_small", clip_sample=True), {"generator": generator}
        scheduler.set_timesteps(timesteps=steps)
    for t in steps:
        x = scheduler.step(model.denoise(x, t, condition), t, x, **extra).prev_sample
        yield len(steps), x


class Stopwatch:
    def __init__(self):
        self.seconds = 0.0

    @contextmanager
    def running(self):
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start


def sing(
    job: Sing, model: Singer | Voicebank, k: int, sampler: str = "ddpm", speedup: int = 1, vocoder: str = "neural", found: tuple[Plot, ...] = ()
) -> Events:
    """Sing the job's score from step k; 0 leaves the decoder's mel as it is. `found`: how k was."""
    from backends.metrics.singing import sharpness, truth

    if isinstance(model, Voicebank):  # its chain runs inside its network
        yield from sing_by_bank(job, model, k, sampler, speedup, vocoder)
        return
    if model.deepest is not None:
        admit(model, k, vocoder)
    watch = Stopwatch()
    with watch.running():
        notes = check(job.score, job.tempo, model.tongue)
        song = model.lay_out(notes, job.tempo, job.vibrato)
        blurry, condition = model.start(song)
        generator = torch.Generator().manual_seed(job.seed)
        x = blurry
    if model.remark:
        yield Note(model.remark)
    finished = lambda mel: model.voice(mel, song, vocoder, job.seed)  # noqa: E731
    decoded = (model.drawn(blurry, "the decoder's mel"),) if k and model.shallow else ()
    beside = lambda mel: (*decoded, model.pitch(song, mel), *found)  # noqa: E731
    if k:
        with watch.running():
            noise = torch.randn(blurry.shape, generator=generator).to(blurry.device)
            states, i, n = chain(model, begin(blurry, k, model.bars, noise), condition, k, sampler, speedup, generator), 0, 1
        while i < n:
            with watch.running():
                n, x = next(states)
            i += 1
            yield Step(i, n, lambda x=x: model.drawn(x), lambda x=x: beside(x), keep=lambda x=x: finished(x))
    else:
        yield Step(1, 1, lambda: model.drawn(x), lambda: beside(x), keep=lambda: finished(x))
    with watch.running():
        sound = finished(x)
    yield Metric("real-time factor", watch.seconds / song.seconds, "lower", f"{song.seconds:.1f} s sung")
    if model.deepest is None and (true := truth(notes, job.tempo, job.vibrato)) is not None:  # of the embedded voice
        made = model.log_mel(x)[0, : len(true)].float().cpu().numpy()
        yield Metric("mel sharpness (voice: 1)", sharpness(made, true), "", "variation in time and frequency, against the held-out recording")
    yield Result(sound, (model.drawn(x, "the mel the vocoder was given"), *beside(x)))
