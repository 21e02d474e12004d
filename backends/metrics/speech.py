"""Figures under each arm of “Enhance speech”: what a listener would say of it, and, with the clean sound beside it, how near it comes.

Everything at 16 kHz and of the first 20 s at most. PESQ, ESTOI and DNSMOS come from optional packages.
"""

import importlib.util
from collections.abc import Callable

import numpy as np

from backends.audio.tasks import EnhanceSpeech
from backends.sound import loudness, resample
from backends.spec import Audio, Media, Metric

RATE = 16_000
SCORED = 20  # s
PACKAGES = {"PESQ": "pesq", "ESTOI": "pystoi", "DNSMOS": "speechmos"}


def si_sdr(made: np.ndarray, clean: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., arXiv 1811.02508); ±100 at most."""
    wanted = clean * (made @ clean) / max(clean @ clean, 1e-12)
    rest = made - wanted
    return float(np.clip(10 * np.log10(max(wanted @ wanted, 1e-12) / max(rest @ rest, 1e-12)), -100, 100))


def pesq(made: np.ndarray, clean: np.ndarray) -> float:
    """Perceptual evaluation of speech quality, wide band (ITU-T P.862.2): 1.04 to 4.64."""
    from pesq import pesq as score

    return float(score(RATE, clean, made, "wb"))


def estoi(made: np.ndarray, clean: np.ndarray) -> float:
    """Extended short-time objective intelligibility, about 0 to 1 (Jensen & Taal 2016)."""
    from pystoi import stoi

    return float(stoi(clean, made, RATE, extended=True))


def dnsmos(made: np.ndarray) -> dict[str, float]:
    """What listeners would give from 1 to 5 for the whole, the speech and the background (Reddy et al., arXiv 2110.01763, P.835)."""
    from speechmos import dnsmos as scorer

    found = scorer.run(made.clip(-1, 1), RATE)
    return {"overall": float(found["ovrl_mos"]), "speech": float(found["sig_mos"]), "background": float(found["bak_mos"])}


def log_spectral_distance(made: np.ndarray, clean: np.ndarray) -> float:
    """dB: over frames, the mean of the RMS difference of log powers, each under its own loudest bin and not below −60 dB."""
    one, two = (_log_powers(x) for x in (made, clean))
    return float(np.sqrt(((one - two) ** 2).mean(1)).mean())


def detail(made: np.ndarray) -> float:
    """dB: how much log powers vary from bin to bin and frame to frame (RMS of the differences); smoothed speech has little of it."""
    powers = _log_powers(made)
    return float(np.sqrt((np.diff(powers, axis=1) ** 2).mean() + (np.diff(powers, axis=0) ** 2).mean()))


def _log_powers(sound: np.ndarray, size: int = 512, hop: int = 128) -> np.ndarray:
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (0, size)), size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2
    return np.maximum(10 * np.log10(np.maximum(power, 1e-20) / max(power.max(), 1e-12)), -60)


def missing() -> dict[str, str]:
    """figure -> the package that gives it, of those that are not installed."""
    return {figure: package for figure, package in PACKAGES.items() if importlib.util.find_spec(package) is None}


def enhance_speech(job: EnhanceSpeech, value: Media, reference: Media | None) -> list[Metric]:
    if not isinstance(value, Audio):
        return []
    made, clean = (None if a is None else resample(a.samples, a.rate, RATE)[: SCORED * RATE] for a in (value, job.clean))
    absent, out = missing(), []
    if clean is not None:
        length = min(len(made), len(clean))
        made, clean = made[:length], clean[:length]
        out.append(Metric("SI-SDR, dB", si_sdr(made, clean), "higher", "to the clean sound"))
        if "PESQ" not in absent:
            out += _taken("PESQ", lambda: pesq(made, clean), "wide band, 1.04 to 4.64")
        if "ESTOI" not in absent:
            out += _taken("ESTOI, %", lambda: 100 * estoi(made, clean), "intelligibility")
        out.append(Metric("log-spectral distance, dB", log_spectral_distance(made, clean), "lower"))
    if "DNSMOS" not in absent:
        out += _opinions(made)
    wanted = [figure for figure in absent if figure == "DNSMOS" or clean is not None]
    level = loudness(value)
    if np.isfinite(level):
        said = f"{', '.join(wanted)} not taken: pip install {' '.join(absent[f] for f in wanted)}" if wanted else ""
        out.append(Metric("loudness, dB of full scale", level, "", said))
    return out


def _opinions(made: np.ndarray) -> list[Metric]:
    said = {}

    def score() -> float:
        said.update(dnsmos(made))
        return said["overall"]

    return _taken("DNSMOS", score, lambda: f"speech {said['speech']:.2f}, background {said['background']:.2f}")


def _taken(name: str, score: Callable[[], float], aside: str | Callable[[], str]) -> list[Metric]:
    """One figure, or none where the scorer finds no speech to score."""
    try:
        value = score()
    except Exception:  # the packages raise what they like on silence and on clicks
        return []
    return [Metric(name, value, "higher", aside if isinstance(aside, str) else aside())] if np.isfinite(value) else []
