"""Speech in noise and in rooms: clean readings, noises and room impulse responses, mixed in batches on the device.

The corpus is made by `speech_build.py`. One reader is only in the committed test clips; so are the test noises and the test rooms.
16 kHz throughout; sound is (…, T) float32 in [-1, 1].
"""

import lzma
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "speech"
RATE = 16_000
HOP = 256  # of the corpus's own coding, below
FINENESS = 24  # levels of sqrt|coefficient|: 31 dB of signal to coding noise on speech, at 6.3 kB a second
KINDS = ("sounds", "babble", "pink", "hum")


def _transform() -> np.ndarray:
    """(2·HOP, HOP): the windowed MDCT, which is its own inverse by overlap and add (Princen & Bradley 1986)."""
    n, k = np.arange(2 * HOP)[:, None] + 0.5, np.arange(HOP) + 0.5
    return (np.sqrt(2 / HOP) * np.sin(np.pi * n / (2 * HOP)) * np.cos(np.pi / HOP * (n + HOP / 2) * k)).astype(np.float32)


def pack(sound: np.ndarray) -> np.ndarray:
    """(T,) float32 as uint8 bytes. The square root spends the levels as the networks hear: they see |X|^0.5 too."""
    frames = -(-len(sound) // HOP) + 1
    padded = np.pad(sound, (HOP, frames * HOP - len(sound)))
    c = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP][:frames] @ _transform()
    q = np.clip(np.round(np.sign(c) * np.sqrt(np.abs(c)) * FINENESS), -127, 127).astype(np.int8)
    return np.frombuffer(lzma.compress(q.tobytes(), preset=9), np.uint8)


def unpack(data: np.ndarray) -> np.ndarray:
    q = np.frombuffer(lzma.decompress(data.tobytes()), np.int8).reshape(-1, HOP).astype(np.float32) / FINENESS
    halves = ((q * np.abs(q)) @ _transform().T).reshape(-1, 2, HOP)
    return (halves[:-1, 1] + halves[1:, 0]).ravel()


def write(path: Path, speech: dict, noise: dict, rooms: dict) -> None:
    """Each: split -> sound (T,); rooms: split -> (N, L) whose direct sound is the first sample, 1."""
    tensors = {f"speech.{k}": pack(v) for k, v in speech.items()} | {f"noise.{k}": pack(v) for k, v in noise.items()}
    for split, bank in rooms.items():
        tensors[f"rooms.{split}"] = np.frombuffer(lzma.compress(np.round(bank * 8191).astype(np.int16).tobytes()), np.uint8)
        tensors[f"rooms.{split}.shape"] = np.array(bank.shape)
    save_file(tensors, path)


class Corpus:
    """One split ("train" or "validation") of the corpus at `path`, whole on the device; `mix` draws from it without end."""

    def __init__(self, path: Path, split: str, device: str = "cpu"):
        data = load_file(path)
        self.speech = torch.from_numpy(unpack(data[f"speech.{split}"])).to(device)
        self.noise = torch.from_numpy(unpack(data[f"noise.{split}"])).to(device)
        rooms = np.frombuffer(lzma.decompress(data[f"rooms.{split}"].tobytes()), np.int16).reshape(data[f"rooms.{split}.shape"])
        self.rooms = torch.from_numpy(rooms.astype(np.float32) / 8191).to(device)
        self.device = device

    def mix(self, n: int, length: int, seed: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """noisy, clean, each (n, length), both divided by max|noisy|. With a seed the same on any device."""
        if seed is None:
            return mix(self.speech, self.noise, self.rooms, n, length, torch.Generator(self.device).manual_seed(torch.seed() % 2**62))
        parts = mix(self.speech.cpu(), self.noise.cpu(), self.rooms.cpu(), n, length, torch.Generator().manual_seed(seed))
        return tuple(part.to(self.device) for part in parts)


def cut(stream: torch.Tensor, n: int, length: int, g: torch.Generator) -> torch.Tensor:
    """n stretches (n, length) from anywhere in the stream."""
    start = torch.randint(len(stream) - length, (n, 1), generator=g, device=stream.device)
    return stream[start + torch.arange(length, device=stream.device)]


def coloured(n: int, length: int, g: torch.Generator, device) -> torch.Tensor:
    """Noise whose power falls as f^-a, a from 0 (white) to 2 (brown), one a for each."""
    f = torch.arange(length // 2 + 1, device=device).clamp_min(1).float()
    a = 2 * torch.rand(n, 1, generator=g, device=device)
    white = torch.fft.rfft(torch.randn(n, length, generator=g, device=device))
    return torch.fft.irfft(white * f ** (-a / 2), length)


def hum(n: int, length: int, g: torch.Generator, device) -> torch.Tensor:
    """A mains or engine tone of 40 to 240 Hz with 24 harmonics of random strength and phase, a little hiss below."""
    t = torch.arange(length, device=device) / RATE
    pitch = 40 + 200 * torch.rand(n, 1, generator=g, device=device) ** 2
    out = 0.02 * torch.randn(n, length, generator=g, device=device)
    for k in range(1, 25):
        strength, phase = torch.rand(2, n, 1, generator=g, device=device)
        out += strength**2 / k**0.7 * torch.sin(2 * torch.pi * (k * pitch * t + phase))
    return out


def reverberate(dry: torch.Tensor, rooms: torch.Tensor) -> torch.Tensor:
    """dry (n, T) heard in rooms (n, L)."""
    size = dry.shape[1] + rooms.shape[1]
    return torch.fft.irfft(torch.fft.rfft(dry, size) * torch.fft.rfft(rooms, size), size)[:, : dry.shape[1]]


def mix(speech, noise, rooms, n: int, length: int, g: torch.Generator, snr=(-2.0, 15.0), reverberant=0.4,
        shares=(0.55, 0.15, 0.15, 0.15)):  # fmt: skip
    """As `Corpus.mix`: SNR uniform in dB, of the speech as heard in the room; the clean is the dry speech."""
    device = speech.device
    clean = cut(speech, n, length, g)
    room = rooms[torch.randint(len(rooms), (n,), generator=g, device=device)]
    wet = torch.where(torch.rand(n, 1, generator=g, device=device) < reverberant, reverberate(clean, room), clean)
    voices = torch.stack([cut(speech, n, length, g) for _ in range(6)])
    babble = torch.where(torch.rand(6, n, 1, generator=g, device=device) < 0.8, voices, 0).sum(0)
    kinds = torch.stack([cut(noise, n, length, g), babble, coloured(n, length, g, device), hum(n, length, g, device)])
    kinds = kinds / kinds.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-3)
    # Half recorded sounds with a bed of coloured noise under a part of them, the rest in equal parts.
    which = torch.multinomial(torch.tensor(shares, device=device), n, replacement=True, generator=g)
    unwanted = kinds[which, torch.arange(n, device=device)] + kinds[2] * (0.3 * torch.rand(n, 1, generator=g, device=device))
    unwanted = unwanted / unwanted.square().mean(-1, keepdim=True).sqrt()
    level = snr[0] + (snr[1] - snr[0]) * torch.rand(n, 1, generator=g, device=device)
    noisy = wet + unwanted * wet.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-3) * 10 ** (-level / 20)
    peak = noisy.abs().amax(-1, keepdim=True)
    return noisy / peak, clean / peak


def si_sdr(estimate: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """(…,) dB: scale-invariant signal-to-distortion ratio (Le Roux et al., arXiv 1811.02508)."""
    wanted = (estimate * clean).sum(-1, keepdim=True) / clean.square().sum(-1, keepdim=True).clamp_min(1e-9) * clean
    return 10 * torch.log10(wanted.square().sum(-1).clamp_min(1e-9) / (estimate - wanted).square().sum(-1).clamp_min(1e-9))
