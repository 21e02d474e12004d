"""Faster Diffusion: nine encoder calls for fifty steps, less time, a picture near the whole network's.

Its identity (a key at every step is the plain sampler, bit by bit) stands in tests/test_image_methods.py.
"""

import time
from contextlib import contextmanager

import numpy as np
import pytest
from measure import captions, draw, interval, psnr

from backends import models
from backends.image.faster_diffusion import KeySteps, key_steps
from backends.image.sampling import Guided

STEPS, SCALE, PROMPTS, BATCH = 50, 5.0, 16, 2


class HeldOutput:
    """The control: at skipped steps the decoder's work is reused as well, so the last prediction stands."""

    @contextmanager
    def applied(self, model, timesteps):
        self.keys, self.out, whole = key_steps("paper", 1, "", len(timesteps)), None, model.net.forward

        def forward(*args, **kwargs):
            if self.i in self.keys:
                self.out = whole(*args, **kwargs)
            return self.out

        with model.patched(forward):
            yield

    def before_step(self, x, i, noise):
        self.i = i
        return x


@pytest.mark.proof
def test_fewer_encoder_calls_less_time_and_a_near_picture(proof):
    model, texts, calls = models.load("emoji-ldm"), captions(proof.seed, PROMPTS), []

    def timed(rows, steps=STEPS, patches=()):
        start = time.perf_counter()
        pictures = draw(model, texts[rows], list(range(proof.seed, proof.seed + PROMPTS))[rows], Guided(SCALE), steps, patches=patches)
        return pictures, time.perf_counter() - start

    timed(slice(0, 1), 2)  # first use loads
    seconds, near, noisy, held, fewer = [], [], [], [], []
    for first in range(0, PROMPTS, BATCH):
        rows, patch = slice(first, first + BATCH), KeySteps(noise=0.0)
        full, long = timed(rows)
        fast, short = timed(rows, patches=(patch,))
        seconds.append((long, short))
        calls.append(patch.calls)
        near += psnr(fast, full).tolist()
        noisy += psnr(timed(rows, patches=(KeySteps(),))[0], full).tolist()
        held += psnr(timed(rows, patches=(HeldOutput(),))[0], full).tolist()
        fewer += psnr(timed(rows, max(1, round(STEPS * short / long)))[0], full).tolist()
    near, noisy, held, fewer, seconds = map(np.array, (near, noisy, held, fewer, seconds))
    proof.state("encoder calls in 50 steps", max(calls), "==", 9, baseline=50, n=PROMPTS)
    ratios = seconds[:, 1] / seconds[:, 0]
    proof.state(
        "time against the whole network, turn about in the same run", np.median(ratios), "<=", 0.75, baseline=1.0, n=len(ratios), interval=interval(ratios)
    )
    proof.state(f"PSNR to the whole network's picture, dB, without prior noise ({noisy.mean():.1f} with it)",
                near.mean(), ">=", 20, baseline=float(fewer.mean()), n=PROMPTS, interval=interval(near))  # fmt: skip
    band = interval(near - fewer)
    proof.state("PSNR above that of as many whole steps as fit the same time, dB (low end of the 95 % interval)", band[0], ">", 0,
                baseline=float(fewer.mean()), n=PROMPTS, interval=band)  # fmt: skip
    band = interval(near - held)
    proof.state("PSNR above that of reusing the decoder's features too, dB (low end of the 95 % interval)", band[0], ">", 0,
                baseline=float(held.mean()), n=PROMPTS, interval=band)  # fmt: skip
    proof.close()
