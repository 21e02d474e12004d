"""A score laid out in a voicebank's phonemes and frames. Vowels begin on the beat, consonants stand before it, as OpenUtau has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.audio.bank_files import Bank, Predictor
from backends.audio.singer import held, phrases
from backends.spec import BadInput
from backends.worlds import singing

SECONDS = {"k": 0.13, "s": 0.13, "sh": 0.14, "t": 0.11, "ch": 0.13, "ts": 0.13, "h": 0.13, "f": 0.12, "n": 0.08, "m": 0.08, "y": 0.08,
           "r": 0.06, "w": 0.08, "g": 0.06, "d": 0.09, "b": 0.08}  # fmt: skip  # medians of `recordings`, w and y shortened
OTHER = 0.09  # of consonants not among them
NAMES = {"pau": ("SP", "pau", "sil", "AP"), "N": ("N", "nn", "ng"), "sh": ("sh", "sy"), "ch": ("ch", "ty"), "j": ("j", "jh", "zy"), "f": ("f", "fh")}
LANGUAGES = ("", "ja/", "jp/", "jpn/")  # what banks of several languages put before a phoneme


@dataclass(frozen=True)
class Line:
    """What is sung, in frames. `names`: phonemes; `begins`: (P,) bool, those on a beat; `rests`: (P,) bool; `frames`: (P,) int64 each lasts;
    `f0`: (F,) MIDI numbers; `note`: (F,) MIDI, rests held; `marks` as in Audio.
    """

    names: tuple[str, ...]
    begins: np.ndarray
    rests: np.ndarray
    frames: np.ndarray
    f0: np.ndarray
    note: np.ndarray
    marks: dict[str, float]

    @property
    def sung(self) -> np.ndarray:
        """(F,) bool: no rest."""
        return np.repeat(~self.rests, self.frames)

    @property
    def hertz(self) -> np.ndarray:
        """(F,) float32."""
        return (440 * 2 ** ((self.f0 - 69) / 12)).astype(np.float32)


def spelled(phone: str, phonemes: dict[str, int]) -> tuple[str, ...]:
    """The bank's names for a phone of `singing.PHONES`: one, or a consonant and y for a palatal that it has no name for; empty where it has none."""
    for language in LANGUAGES:
        for name in (*NAMES.get(phone, ()), phone):
            if language + name in phonemes:
                return (language + name,)
    if len(phone) == 2 and phone[1] == "y":
        parts = spelled(phone[0], phonemes) + spelled("y", phonemes)
        return parts if len(parts) == 2 else ()
    return ()


def lay_out(bank: Bank, notes: list[singing.Note], tempo: float, vibrato: float, title: str) -> Line:
    """The line of notes that a rest leads; a consonant takes at most half of the phoneme before. Raises BadInput for one that the bank lacks."""
    seconds = singing.times(notes, tempo)
    bounds = np.round(seconds * bank.rate / bank.hop).astype(int)
    names, begins, rests, frames = [], [], [], []
    for note, length in zip(notes, np.diff(bounds)):
        *consonant, vowel = ((phone, spelled(phone, bank.phonemes)) for phone in note.phones)
        if missing := [phone for phone, found in (*consonant, vowel) if not found]:
            raise BadInput(f"{title} has no phoneme for {missing[0]} (in {note.syllable}); change that syllable or choose another voice.")
        before = consonant[0][1] if consonant else ()
        if before:
            wanted = round(SECONDS.get(consonant[0][0], OTHER) * bank.rate / bank.hop)
            each = max(1, min(wanted, frames[-1] // 2) // len(before))
            frames[-1] -= each * len(before)
            frames += [each] * len(before)
        names += [*before, *vowel[1]]
        begins += [False] * len(before) + [True]
        rests += [not note.midi] * (len(before) + 1)
        frames.append(int(length))
    midis = [n.midi for n in notes]
    at = (np.arange(bounds[-1]) + 0.5) * bank.hop / bank.rate
    note = np.repeat(held(np.array(midis)), np.diff(bounds))
    f0 = singing.contour(at, midis, seconds, vibrato)
    return Line(tuple(names), np.array(begins), np.array(rests), np.array(frames), f0, note, phrases(notes, seconds))


def spoken(own: Bank | Predictor, line: Line, title: str) -> dict[str, list]:
    """The line's phonemes and their languages as a network counts them; raises BadInput for one that it lacks."""
    if missing := [name for name in line.names if name not in own.phonemes]:
        raise BadInput(f"{title}'s predictor has no phoneme {missing[0]}, which its singer has; its files don't fit together.")
    languages = [own.languages.get(name.partition("/")[0], 0) if "/" in name else 0 for name in line.names]
    return {"tokens": [[own.phonemes[name] for name in line.names]], "languages": [languages]}


def shared(line: Line, predicted: np.ndarray) -> np.ndarray:
    """(P,) frames: from each beat to the next as before, shared as predicted; a frame at least each, and half of the time for the first.

    A rest may be longer than a predictor knows: the consonant after it keeps its own length.
    """
    out = line.frames.copy()
    for start, end in zip(words := np.flatnonzero(line.begins), [*words[1:], len(out)]):
        total, wanted = out[start:end].sum(), np.maximum(predicted[start:end], 1e-3)
        ratio = min(1.0, total / wanted.sum()) if line.rests[start] else total / wanted.sum()
        after = np.maximum(1, np.round(wanted[1:] * min(ratio, total / 2 / max(wanted[1:].sum(), 1e-3)))).astype(int)
        if len(after) and after.sum() < total:
            out[start:end] = total - after.sum(), *after
    return out
