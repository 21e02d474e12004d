"""Figures under each arm of “Text to audio”, by our scorer of sounds (nets/sounds_scorer.py): not CLAP, it knows the sounds world alone.

The scorer was trained on combinations of sounds that no generator has heard (worlds/sounds.py).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from backends.audio.tasks import TextToAudio
from backends.lazy import torch
from backends.models import ASSETS, device
from backends.sound import log_mel, resample
from backends.spec import Audio, Media, Metric

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = ASSETS / "sounds-scorer"


def available() -> bool:
    return (FOLDER / "config.json").exists()


@functools.cache
def scorer():
    from backends.nets.sounds_scorer import SoundsScorer

    return SoundsScorer.from_pretrained(FOLDER, torch_dtype=torch.float32).eval().requires_grad_(False).to(device())


def embed_waves(waves: Tensor) -> Tensor:
    """(B, 96) of unit length; waves: (B, T) at 16 kHz in [-1, 1]."""
    return scorer().audio(waves.to(device()))


@functools.lru_cache(1024)
def _read(text: str) -> Tensor:
    from backends.embedded import LAYER, token_states

    states = token_states([text], LAYER)[0].to(device())
    with torch.no_grad():
        return scorer().text(states, states.abs().sum(2) > 0)[0]


def embed_texts(texts: list[str]) -> Tensor:
    """(B, 96) of unit length."""
    return torch.stack([_read(text) for text in texts])


def cosines(waves: Tensor, texts: list[str]) -> Tensor:
    """(B,) cosine of each sound with its text."""
    return (embed_waves(waves) * embed_texts(texts)).sum(1)


def mel_distance(a: Audio, b: Audio) -> float:
    """Mean absolute difference of log-mel spectrograms in dB, over the time that both last; each under its own loudest, floor −80 dB."""
    seconds = min(a.seconds, b.seconds)
    one, two = (log_mel(Audio(resample(s.samples, s.rate, 16_000)[: round(seconds * 16_000)], 16_000)).values for s in (a, b))
    return float(np.abs(one - two).mean())


def text_to_audio(job: TextToAudio, value: Media, reference: Media | None) -> list[Metric]:
    from backends.nets.sounds_scorer import RATE

    out = []
    if not isinstance(value, Audio):
        return out
    if available() and job.prompt and len(value.samples) > value.rate // 10:
        wave = torch.from_numpy(resample(value.samples, value.rate, RATE))[None]
        out.append(Metric("agreement", 100 * float(cosines(wave, [job.prompt])), "higher", "our scorer, 100 × cosine"))
    if isinstance(reference, Audio):
        out.append(Metric("mel distance to the first, dB", mel_distance(value, reference)))
    return out
