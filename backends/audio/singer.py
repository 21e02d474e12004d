"""The singing model: a score laid out in frames, the decoder's mel of it, the denoiser's next, and a vocoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.lazy import diffusers, torch
from backends.models import ASSETS, Card, device
from backends.spec import Audio, BadInput, Plot, Spectrogram
from backends.worlds import singing

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 100  # T
SCHEDULE = dict(num_train_timesteps=STEPS, beta_start=1e-4, beta_end=0.06, beta_schedule="linear")  # the paper's
DB = 20 / np.log(10)  # of a natural logarithm of magnitudes


@dataclass(frozen=True)
class Song:
    """What is sung, in frames. `phones`, `notes` (MIDI), `note_frames`, `frames`: (P,) int64; `f0`: (F,) float32 MIDI numbers; `marks` as in Audio; `frame` in seconds."""

    phones: np.ndarray
    notes: np.ndarray
    note_frames: np.ndarray
    frames: np.ndarray
    f0: np.ndarray
    marks: dict[str, float]
    frame: float = singing.HOP / singing.RATE

    @property
    def seconds(self) -> float:
        return len(self.f0) * self.frame

    @classmethod
    def recorded(cls, tune: str) -> Song:
        """A held-out tune with the durations and the pitch of its recording."""
        own = singing.recordings()[tune]
        return cls(*(own[k].astype(np.int64) for k in ("phones", "note", "note_frames", "frames")), own["f0"].astype(np.float32), {})


class Singer:
    """Networks and schedule around a score; `nfe` counts the denoiser's calls. Mels are (1, F, 80), scaled to [-1, 1] a bin.

    `validation`: what the boundaries are computed from, over melodies kept from training: `error` E[(M−M̃)²], `square` E[M²], `gap` (items, T)
    |BP(M_t, t) − BP(M̃_t, t)| (see evaluate/singing.py).
    Of a published voice it is None, and `deepest` says from which k its makers trained it; `shallow`: whether it has a decoder to begin at.
    """

    tongue, deepest, shallow, remark = singing.JAPANESE, None, True, ""
    frame, top = singing.HOP / singing.RATE, singing.MEL_HIGH  # seconds of a frame; Hz

    def __init__(self, card, acoustic, denoiser, vocoder, validation: dict, device: str = "cpu"):
        self.card, self.acoustic, self.net, self.vocoder, self.validation, self.device = card, acoustic, denoiser, vocoder, validation, device
        self.bars = diffusers.DDPMScheduler(**SCHEDULE).alphas_cumprod
        self.nfe = 0
        denoiser.register_forward_pre_hook(self._count)

    def _count(self, _module, args):
        self.nfe += len(args[0])

    def lay_out(self, notes: list[singing.Note], tempo: float, vibrato: float) -> Song:
        """See `shared` for the time of each phone; the pitch is the notes', with vibrato."""
        seconds = singing.times(notes, tempo)
        note_frames = np.diff(np.round(seconds * singing.RATE / singing.HOP).astype(int))
        owner = np.array([i for i, n in enumerate(notes) for _ in n.phones])
        phones = np.array([singing.PHONES.index(p) for n in notes for p in n.phones])
        midis = np.array([n.midi for n in notes])
        with torch.no_grad():
            _, logs = self.acoustic.encode(*(torch.as_tensor(a)[None].to(self.device) for a in (phones, midis[owner], note_frames[owner])))
        frames = shared(logs[0].exp().round().cpu().numpy(), owner, note_frames)
        at = (np.arange(note_frames.sum()) + 0.5) * singing.HOP / singing.RATE
        f0 = singing.contour(at, midis.tolist(), seconds, vibrato).astype(np.float32)
        return Song(phones, midis[owner], note_frames[owner], frames, f0, phrases(notes, seconds))

    def start(self, song: Song) -> tuple[Tensor, Tensor]:
        """The auxiliary decoder's mel M̃ and the denoiser's condition (1, F, dim)."""
        columns = (torch.as_tensor(c)[None].to(self.device) for c in (song.phones, song.notes, song.note_frames, song.frames, song.f0))
        mel, condition, *_ = self.acoustic(*columns)
        return mel, condition

    def normalise(self, log_mel: Tensor) -> Tensor:
        return self.acoustic.normalise(log_mel)

    def log_mel(self, mel: Tensor) -> Tensor:
        return self.acoustic.log_mel(mel)

    def denoise(self, x: Tensor, t: int, condition: Tensor) -> Tensor:
        """ε of the state x at step t (0 to T − 1)."""
        return self.net(x, torch.full((len(x),), int(t), device=x.device), condition)

    def voice(self, mel: Tensor, song: Song, vocoder: str, seed: int) -> Audio:
        log_mel = self.log_mel(mel.clamp(-1, 1))
        if vocoder == "neural":
            f0 = torch.as_tensor(song.f0)[None].to(log_mel.device)
            wave = self.vocoder(log_mel, f0, torch.Generator().manual_seed(seed))[0]
        else:
            wave = griffin_lim(log_mel[0], seed)
        wave = wave.float().cpu().numpy()
        return Audio((wave / max(1.0, np.abs(wave).max())).astype(np.float32), singing.RATE, marks=song.marks)

    def pitch(self, song: Song, mel: Tensor) -> Plot:
        """The pitch sung, were this the mel, and the notes asked."""
        return contour(song.f0, np.repeat(held(song.notes), song.frames), song.frame)

    def drawn(self, mel: Tensor, caption: str = "") -> Spectrogram:
        return Spectrogram((DB * self.log_mel(mel)[0]).T.float().cpu().numpy(), mel.shape[1] * self.frame, self.top, caption)


def phrases(notes: list[singing.Note], seconds: np.ndarray) -> dict[str, float]:
    """Where the first syllables of each phrase begin."""
    starts = [i for i in range(1, len(notes)) if notes[i].midi and not notes[i - 1].midi]
    return {f"{n} {''.join(note.syllable for note in notes[i : i + 4])}": float(seconds[i]) for n, i in enumerate(starts, 1)}


def shared(predicted: np.ndarray, owner: np.ndarray, note_frames: np.ndarray) -> np.ndarray:
    """(P,) frames: notes (`owner` (P,) of each phone) last as the score says, consonants as predicted (at most all but a frame), vowels the rest."""
    frames = np.maximum(1, predicted.astype(int))
    for note, total in enumerate(note_frames):
        mine = np.flatnonzero(owner == note)
        before = np.minimum(frames[mine[:-1]], (total - 1) // max(1, len(mine) - 1))
        frames[mine[:-1]], frames[mine[-1]] = before, total - before.sum()
    return frames


def admit(model, k: int, vocoder: str) -> None:
    """Raises BadInput where a voice that others trained can't begin at k, or can't be heard by another vocoder than its own."""
    title = model.card.title
    if vocoder != "neural":
        raise BadInput(f"{title} brings its own vocoder; set the vocoder to neural.")
    if not k and not model.shallow:
        raise BadInput(f"{title} has no decoder beside its diffusion; choose Full diffusion.")
    if k > model.deepest:
        raise BadInput(f"{title} was trained to begin at k = {model.deepest} at most, not at {k}; choose DiffSinger with k = 0.")
    if k and not model.shallow and k < STEPS:
        raise BadInput(f"{title} begins from noise alone; set k to 0 or {STEPS}.")


def contour(f0: np.ndarray, note: np.ndarray, frame: float) -> Plot:
    """The pitch sung and the notes asked, (F,) MIDI numbers each, of frames of `frame` seconds."""
    at = (np.arange(len(f0)) * frame).tolist()
    return Plot({"pitch": (at, f0.tolist()), "note": (at, note.astype(float).tolist())}, x="seconds", y="MIDI number")


def held(notes: np.ndarray) -> np.ndarray:
    """Rests take the note before them, leading ones the note after."""
    sung = np.flatnonzero(notes)
    return notes[sung[np.maximum(np.searchsorted(sung, np.arange(len(notes)), side="right") - 1, 0)]]


def griffin_lim(log_mel: Tensor, seed: int, rounds: int = 60, momentum: float = 0.99) -> Tensor:
    """(F, 80) natural log magnitudes -> (F · HOP,) samples whose phases are guessed: the choice without a neural vocoder.

    The fast variant of Perraudin et al. 2013. librosa's would take seconds to be imported.
    """
    magnitudes = (log_mel.float().cpu().exp() @ torch.linalg.pinv(singing.mel_bank())).clamp_min(0).T
    window, size, length = torch.hann_window(singing.WINDOW), (singing.WINDOW, singing.HOP), (len(log_mel) - 1) * singing.HOP
    phases, before = torch.polar(torch.ones_like(magnitudes), 6.2832 * torch.rand(magnitudes.shape, generator=torch.Generator().manual_seed(seed))), 0
    for _ in range(rounds):
        wave = torch.istft(magnitudes * phases, *size, window=window, length=length)
        rebuilt = torch.stft(wave, *size, window=window, return_complex=True)
        phases = rebuilt - momentum / (1 + momentum) * before
        phases, before = phases / phases.abs().clamp_min(1e-9), rebuilt
    # The mel's frames are centred half a hop later than these.
    return torch.nn.functional.pad(wave, (singing.HOP // 2, singing.HOP - singing.HOP // 2))


def load(card: Card) -> Singer:
    from backends.nets.diffsinger import SingerAcoustic, SingerDenoiser
    from backends.nets.hn_vocoder import HarmonicNoiseVocoder

    folder, where = ASSETS / card.source, device()
    parts = [kind.from_pretrained(folder / name, torch_dtype=torch.float32).eval().requires_grad_(False).to(where)
             for kind, name in ((SingerAcoustic, "acoustic"), (SingerDenoiser, "denoiser"), (HarmonicNoiseVocoder, "vocoder"))]  # fmt: skip
    known = folder / "boundary" / "validation.json"  # not yet there while it is measured (evaluate/singing.py)
    seen = json.loads(known.read_text()) if known.exists() else {}
    model = Singer(card, *parts, seen, where)
    song = model.lay_out(singing.framed(singing.parse("あ:A4:1"), 120), 120, 0.25)
    mel, condition = model.start(song)  # the first calls choose kernels; that time is not the first arm's
    model.denoise(mel, 0, condition)
    model.nfe = 0
    return model
