"""DiffSinger's Opencpop voice (MoonInTheRiver/DiffSinger): a score in pinyin laid out in its phonemes, sung by the publishers' networks.

Where we differ: notes last as the score says (see `singer.shared`), while the official code lets predicted durations shift the beat. A rest is
sung as SP (silence), never as AP (breath).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.audio.singer import Singer, Song, contour, held, phrases, shared
from backends.lazy import torch
from backends.spec import Audio, Plot
from backends.worlds import singing
from backends.worlds.pinyin import PINYIN

if TYPE_CHECKING:
    from torch import Tensor

LN10 = float(np.log(10))
PHONES = ("AP", "SP", *sorted({phone for phones in PINYIN.values() for phone in phones}))
NUMBERS = {phone: i for i, phone in enumerate(PHONES, 3)}  # behind padding, end and unknown


@dataclass(frozen=True)
class Line(Song):
    """A song that the network has laid out: `condition` (1, F, dim); `voiced` (F,) bool, None where the pitch is heard from the mel."""

    condition: Tensor | None = None
    voiced: np.ndarray | None = None


def spelled(notes: list[singing.Note], tempo: float) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Opencpop's columns of a score, a phoneme each: names, MIDI notes (0: rest), seconds of the note, 1 where it is slurred; and which note it is of."""
    owner = np.array([i for i, note in enumerate(notes) for _ in note.phones])
    column = lambda values: np.asarray(values)[owner]  # noqa: E731
    names = ["SP" if phone == "pau" else phone for note in notes for phone in note.phones]
    seconds = np.diff(singing.times(notes, tempo)).astype(np.float32)
    return names, column([n.midi for n in notes]), column(seconds), column([int(n.syllable == "ー") for n in notes]), owner


class OpencpopSinger(Singer):
    """The same interface on the publishers' networks. `low`, `high`: (mels,) of the base-10 log-mels that [-1, 1] spans; `top` in Hz; `frame` in seconds."""

    tongue, remark = singing.MANDARIN, "The voice draws its own pitch from the notes; the vibrato asked for is not used."

    def __init__(self, card, acoustic, denoiser, vocoder, extractor, spans: tuple[Tensor, Tensor], deepest: int, shallow: bool, top: float, device: str):
        super().__init__(card, acoustic, denoiser, vocoder, None, device)
        self.extractor, (self.low, self.high), self.deepest, self.shallow, self.top = extractor, spans, deepest, shallow, top
        self.frame = vocoder.hop / vocoder.rate

    def lay_out(self, notes: list[singing.Note], tempo: float, vibrato: float) -> Line:
        """See `shared` for the time of each phoneme; the pitch is the network's own, or for now the notes'."""
        from backends.nets.fastspeech_midi import pitched

        names, midis, lengths, slurs, owner = spelled(notes, tempo)
        phones, seconds = np.array([NUMBERS[name] for name in names]), singing.times(notes, tempo)
        note_frames = np.diff(np.round(seconds / self.frame).astype(int))
        given = (torch.as_tensor(a)[None].to(self.device) for a in (phones, midis, lengths, slurs))
        states, predicted = self.acoustic.encode(*given)
        frames = shared(predicted[0].cpu().numpy(), owner, note_frames)
        condition, pitch = self.acoustic.condition(states, torch.as_tensor(frames, device=self.device))
        f0, voiced = np.repeat(held(midis), frames).astype(np.float32), None
        if pitch is not None:
            hertz, voiced = (a[0].cpu().numpy() for a in pitched(pitch))
            f0 = 69 + 12 * np.log2(hertz / 440)
        return Line(phones, midis, note_frames[owner], frames, f0, phrases(notes, seconds), self.frame, condition, voiced)

    def start(self, song: Line) -> tuple[Tensor, Tensor]:
        """As of Singer; where there is no decoder M̃ is nought, and the chain must begin at T."""
        if not self.shallow:
            return torch.zeros(1, len(song.f0), len(self.low), device=self.device), song.condition
        return self.normalise(LN10 * self.acoustic.decode(song.condition)), song.condition

    def normalise(self, log_mel: Tensor) -> Tensor:
        return (log_mel / LN10 - self.low) / (self.high - self.low) * 2 - 1

    def log_mel(self, mel: Tensor) -> Tensor:
        return LN10 * ((mel + 1) / 2 * (self.high - self.low) + self.low)

    def hertz(self, song: Line, mel: Tensor) -> tuple[Tensor, Tensor]:
        """The pitch (1, F) in Hz and whether it is voiced: predicted with the song, or heard from the mel."""
        from backends.nets.fastspeech_midi import pitched

        if self.extractor is not None:
            return pitched(self.extractor(self.log_mel(mel) / LN10))
        return tuple(torch.as_tensor(a)[None].to(mel.device) for a in (440 * 2 ** ((song.f0 - 69) / 12), song.voiced))

    def pitch(self, song: Line, mel: Tensor) -> Plot:
        f0 = 69 + 12 * (self.hertz(song, mel)[0][0] / 440).log2().cpu().numpy()
        return contour(f0, np.repeat(held(song.notes), song.frames), self.frame)

    def voice(self, mel: Tensor, song: Line, vocoder: str, seed: int) -> Audio:
        hertz, voiced = self.hertz(song, mel)
        wave = self.vocoder(self.log_mel(mel) / LN10, hertz * voiced, torch.Generator().manual_seed(seed))[0].float().cpu().numpy()
        return Audio((wave / max(1.0, float(np.abs(wave).max()))).astype(np.float32), self.vocoder.rate, marks=song.marks)
