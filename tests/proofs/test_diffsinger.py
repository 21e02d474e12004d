"""DiffSinger: begun at the found step, the mel is as sharp as the voice, which the decoder's is not, at a fraction of full diffusion's calls.

On the held-out tunes, with the recording's durations and pitch, so that frames stand beside frames; other seeds draw other noise and other
segments. Its identities (boundary A of known figures, k = T, index k − 1, a denoiser that begins at zero) stand in tests/test_singing.py.
"""

import time

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.audio.singer import STEPS, Song
from backends.evaluate.singing import arms, made
from backends.metrics.singing import mcd, variation
from backends.worlds import singing

EACH, FRAMES = 4, 256  # segments a tune, and how long (4 s)


@pytest.mark.proof
def test_sharper_than_the_decoder_and_as_good_as_full_diffusion(proof):
    proof.models = ["singing"]
    model, rng = models.load("singer"), np.random.default_rng([9, proof.seed])
    chosen = {name: arms(model)[name] for name in ("auxiliary", "shallow (A)", "shallow (B)", "full")}
    blur, distortion, seconds, calls = ({name: [] for name in chosen} for _ in range(4))
    for number, (tune, own) in enumerate(singing.recordings().items()):
        true = singing.from_bytes(torch.as_tensor(own["mel"])).numpy()
        starts = rng.integers(0, len(true) - FRAMES, EACH)
        for name, (k, *_) in chosen.items():
            before, start = model.nfe, time.perf_counter()
            mel = model.log_mel(made(model, Song.recorded(tune), k, seed=1000 * proof.seed + number))[0].numpy()
            seconds[name].append(time.perf_counter() - start)
            calls[name].append(model.nfe - before)
            for a in starts:
                part, wanted = mel[a : a + FRAMES], true[a : a + FRAMES]
                blur[name].append(np.abs(np.log(variation(part) / variation(wanted))))
                distortion[name].append(mcd(part, wanted))
    n, tunes = len(distortion["full"]), len(singing.recordings())
    # (tunes, segments, ·): the segments of a tune stand together in the intervals
    blur, distortion = ({name: np.array(rows).reshape(tunes, EACH, -1) for name, rows in found.items()} for found in (blur, distortion))
    for name in ("shallow (A)", "shallow (B)"):
        for axis, said in enumerate(("time", "frequency")):
            gain = blur["auxiliary"][..., axis] - blur[name][..., axis]
            proof.state(f"{name}: |ln sharpness in {said}| less than the decoder's (low end of the 95 % interval; mean {gain.mean():.3f})", interval(gain)[0], ">", 0,
                        baseline=float(blur["auxiliary"][..., axis].mean()), n=n, interval=interval(gain))  # fmt: skip
        loss = blur[name] - blur["full"]
        proof.state(f"{name}: |ln sharpness| above full diffusion's (high end of the 95 % interval)", interval(loss)[1], "<=", 0.05,
                    baseline=float(blur["full"].mean()), n=n, interval=interval(loss))  # fmt: skip
        loss = distortion[name] - distortion["full"]
        proof.state(f"{name}: mel-cepstral distortion above full diffusion's, dB (high end of the 95 % interval; mean {loss.mean():.3f})", interval(loss)[1], "<=", 0.1,
                    baseline=float(distortion["full"].mean()), n=n, interval=interval(loss))  # fmt: skip
        proof.state(f"{name}: calls of the denoiser, as a share of full diffusion's", sum(calls[name]) / sum(calls["full"]), "<=", 0.71, n=len(calls[name]))
        proof.state(f"{name}: seconds, as a share of full diffusion's", sum(seconds[name]) / sum(seconds["full"]), "<=", 0.8, n=len(seconds[name]))
    assert set(calls["full"]) == {STEPS}
    proof.close()
