"""The figures under each arm of the singing task. Where the score is (the beginning of) a held-out tune, the voice's recording is the truth."""

import functools
import importlib.util

import numpy as np

from backends.audio.scores import check
from backends.audio.tasks import Sing
from backends.lazy import torch
from backends.spec import Audio, Media, Metric
from backends.worlds import singing

SURE = 0.8  # of swift-f0's confidence that a frame has a pitch
CEPSTRA = 24  # mel cepstra that the distortion is taken over


def truth(notes: list[singing.Note], tempo: float, vibrato: float = 0.25) -> np.ndarray | None:
    """(frames, 80) log-mel of the recording of these notes (between rests), up to the end of the last; None where there is none."""
    said = [(n.phones, n.midi, n.beats) for n in notes[1:-1]]
    for name, tune in singing.tunes().items():
        if tempo == tune["tempo"] and vibrato == 0.25:
            own = singing.framed(singing.parse(tune["score"]), tempo)
            if [(n.phones, n.midi, n.beats) for n in own[1 : len(said) + 1]] == said:
                end = round(singing.times(own, tempo)[len(said) + 1] * singing.RATE / singing.HOP)
                return singing.from_bytes(torch.as_tensor(singing.recordings()[name]["mel"][:end])).numpy()
    return None


def variation(mel: np.ndarray) -> np.ndarray:
    """Mean squares of the steps of a log-mel (frames, bins) from frame to frame and from bin to bin."""
    return np.array([np.square(np.diff(mel, axis=axis)).mean() for axis in (0, 1)])


def sharpness(made: np.ndarray, true: np.ndarray) -> float:
    """How much a log-mel varies in time and in frequency against the true one, as the geometric mean of both ratios: 1 as much, less is blur."""
    return float(np.sqrt(np.prod(variation(made) / variation(true))))


@functools.cache
def _cosines(bins: int) -> np.ndarray:
    """(bins, CEPSTRA) of the orthonormal DCT-II, without the mean."""
    return np.sqrt(2 / bins) * np.cos(np.pi / bins * (np.arange(bins)[:, None] + 0.5) * np.arange(1, CEPSTRA + 1))


def mcd(made: np.ndarray, true: np.ndarray) -> float:
    """Mel-cepstral distortion in dB of natural log-mels (frames, bins), frame by frame: the score fixes the times, so nothing is warped.

    Kubichek 1993, with cepstra of the mel spectrogram: 10/ln 10 · √(2 Σ (c − c')²), c of unit scale.
    """
    bins = true.shape[1]
    difference = (made - true) @ _cosines(bins) / np.sqrt(bins / 2)  # amplitudes of the cosines, halved as in c(n) = 2/N Σ
    return float(10 / np.log(10) * np.sqrt(2 * np.square(difference).sum(1)).mean())


def f0_errors(sound: Audio, wanted: np.ndarray, sung: np.ndarray) -> tuple[float, float, float] | None:
    """The sound's pitch, as swift-f0 hears it, against `wanted` (F,) MIDI numbers where `sung` and heard surely.

    RMS error in cents of the frames within a semitone; share of those further off; share
    of sung frames heard. None where swift-f0 is not installed or hears nothing.
    """
    if not importlib.util.find_spec("swift_f0"):
        return None
    heard = _detector().detect(sound.samples, sound.rate)
    at = (np.arange(len(wanted)) + 0.5) * singing.HOP / singing.RATE
    sure = np.interp(at, heard.timestamps, heard.confidence)
    cents = 100 * (69 + 12 * np.log2(np.interp(at, heard.timestamps, np.maximum(heard.pitch_hz, 1)) / 440) - wanted)
    counted = cents[sung & (sure > SURE)]
    near = counted[np.abs(counted) < 100]
    return (float(np.sqrt(np.square(near).mean())), 1 - len(near) / len(counted), len(counted) / sung.sum()) if len(near) else None


@functools.cache
def _detector():
    import swift_f0

    return swift_f0.SwiftF0(threads=1, spin=False)


def heard(sound: Audio) -> np.ndarray:
    return singing.log_mel(torch.as_tensor(sound.samples)[None])[0].numpy()


def sing(job: Sing, value: Media | None, reference: Media | None) -> list[Metric]:
    """Distortion of the sound against the recording where there is one; its pitch against the score."""
    if not isinstance(value, Audio):
        return []
    notes, found = check(job.score, job.tempo), []
    ours = value.rate == singing.RATE  # a voicebank's voice is another, of which there is no recording
    if ours and (true := truth(notes, job.tempo, job.vibrato)) is not None:
        found.append(Metric("MCD (dB)", mcd(heard(value)[: len(true)], true), "lower", "of the sound, against the held-out recording"))
    seconds = singing.times(notes, job.tempo)
    at = (np.arange(int(value.seconds * singing.RATE / singing.HOP + 1e-6)) + 0.5) * singing.HOP / singing.RATE
    note = np.minimum(np.searchsorted(seconds, at, side="right") - 1, len(notes) - 1)
    sung = np.array([bool(n.midi) for n in notes])[note]
    wanted = singing.contour(at, [n.midi for n in notes], seconds, job.vibrato)
    if error := f0_errors(value, wanted, sung):
        found.append(
            Metric("F0 RMSE (cents)", error[0], "lower", f"by swift-f0, on the {100 * error[2]:.0f} % of sung frames where it is sure, within a semitone")
        )
        found.append(Metric("a semitone or more off (%)", 100 * error[1], "lower", "of those frames"))
    return found
