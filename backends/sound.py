"""What is done to any sound: another rate, how loud it is, its mel spectrogram. Heavy modules are imported when first needed."""

import math

import numpy as np

from backends.spec import Audio, Events, Note, Spectrogram

FLOOR = 70.0  # dB under the loudest that a spectrogram shows


def resample(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """(T,) at `rate` Hz -> (T·to/rate,) float32 at `to` Hz."""
    if rate == to:
        return np.asarray(samples, np.float32)
    import soxr

    return soxr.resample(np.asarray(samples, np.float32), rate, to)


def loudness(sound: Audio) -> float:
    """dB of full scale: RMS over the 0.1 s blocks at most 20 dB under the loudest, so that pauses don't count; −inf of silence."""
    size = max(1, sound.rate // 10)
    blocks = np.pad(np.asarray(sound.samples, np.float64), (0, -len(sound.samples) % size)).reshape(-1, size)
    power = (blocks**2).mean(1)
    heard = power[power >= power.max() / 100]
    return 10 * math.log10(heard.mean()) if power.max() > 1e-10 else -math.inf


def resampled(sound: Audio, rate: int) -> Events:
    """A Note where `sound` has another rate than the network's `rate` in Hz."""
    if sound.rate != rate:
        said = f"The sound was brought from {sound.rate:,} to {rate:,} Hz, the network's rate"
        yield Note(f"{said}; what lay above {rate // 2:,} Hz is lost." if sound.rate > rate else f"{said}; it holds nothing above {sound.rate // 2:,} Hz.")


def log_mel(sound: Audio, bins: int = 96, frames: int = 480) -> Spectrogram:
    """Power in dB under its own loudest, (bins, about `frames`) values from −70 to 0; windows of 46 ms."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function  # librosa's filters without its start of seconds

    window = max(32, 2 * round(0.023 * sound.rate))
    hop = max(8, -(-len(sound.samples) // frames), sound.rate // 200)
    wave = np.asarray(sound.samples, np.float32)
    wave = np.pad(wave, (0, max(0, window + 1 - len(wave))))
    size = 2 ** math.ceil(math.log2(2 * window))
    filters = mel_filter_bank(size // 2 + 1, bins, 0, sound.rate / 2, sound.rate, norm="slaney", mel_scale="slaney")
    power = spectrogram(wave, window_function(window), window, hop, fft_length=size, power=2.0, mel_filters=filters, mel_floor=1e-12)
    values = 10 * np.log10(power / max(power.max(), 1e-9))
    return Spectrogram(np.maximum(values, -FLOOR).astype(np.float32), sound.seconds, sound.rate / 2)


def shades(values: np.ndarray) -> np.ndarray:
    """A spectrogram's values as they are drawn, 0 to 1, low rows at the bottom; what is FLOOR under the loudest, or the least, is 0."""
    values = np.nan_to_num(np.asarray(values, np.float32), nan=-1e9, posinf=1e9, neginf=-1e9)
    top = float(np.percentile(values, 99.9))
    low = max(float(np.percentile(values, 1)), top - FLOOR)
    return np.clip((values[::-1] - low) / max(top - low, 1e-6), 0, 1) if top > low else np.zeros_like(values)
