"""The singing world: kana on notes, sung by one voice; its scores, phones, pitch contour and log-mel spectrogram.

A score is words of `syllable:note:beats` (kana or romaji, C4 = MIDI 60) and `rest:beats`; a syllable `ー` goes on with the last vowel.
Or the lyrics stand before a bar, the notes behind it: `さくら | A4:1 A4:1 B4:2`. Syllables are those of a `Tongue`: kana and romaji, or pinyin.
Time is counted in mel frames of HOP / RATE = 16 ms. The corpus and how it was sung: `singing_build`.
Public-domain tunes are never trained on; of the random melodies every twelfth is for validation.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends.lazy import torch
from backends.worlds.pinyin import PINYIN

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "worlds" / "singing"
RATE, HOP, WINDOW, MELS = 16000, 256, 1024, 80
MEL_LOW, MEL_HIGH = 40.0, 8000.0  # Hz
FLOOR = 1e-5  # of mel magnitudes before the (natural) logarithm
LOG_LOW, LOG_HIGH = math.log(FLOOR), 4.0  # what the corpus' bytes span
NOTES = (60, 80)  # MIDI; what the voice was pitched to in training
TRAIN, VALIDATION, TUNE = 0, 1, 2

PHONES = ("pau", "a", "i", "u", "e", "o", "N", "k", "ky", "g", "gy", "s", "sh", "z", "j", "t", "ch", "ts", "d", "n", "ny", "h", "hy",
          "f", "b", "by", "p", "py", "m", "my", "y", "r", "ry", "w")  # fmt: skip
VOWELS = "aiueo"
ROWS = {"": "あいうえお", "k": "かきくけこ", "g": "がぎぐげご", "s": "さ すせそ", "z": "ざ ずぜぞ", "t": "た  てと", "d": "だ  でど",
        "n": "なにぬねの", "h": "はひ へほ", "b": "ばびぶべぼ", "p": "ぱぴぷぺぽ", "m": "まみむめも", "y": "や ゆ よ", "r": "らりるれろ",
        "w": "わ    "}  # fmt: skip
SMALL = {"ky": "き", "gy": "ぎ", "sh": "し", "j": "じ", "ch": "ち", "ny": "に", "hy": "ひ", "by": "び", "py": "ぴ", "my": "み", "ry": "り"}


def _syllables() -> dict[str, tuple[str, ...]]:
    table = {kana: ((row, vowel) if row else (vowel,)) for row, kanas in ROWS.items() for kana, vowel in zip(kanas, VOWELS) if kana != " "}
    table |= {first + small: (row, vowel) for row, first in SMALL.items() for small, vowel in zip("ゃゅょ", "auo")}
    table |= {"し": ("sh", "i"), "じ": ("j", "i"), "ち": ("ch", "i"), "つ": ("ts", "u"), "ふ": ("f", "u"), "ん": ("N",), "を": ("o",)}
    table |= {"ぢ": ("j", "i"), "づ": ("z", "u"), "しぇ": ("sh", "e"), "じぇ": ("j", "e"), "ちぇ": ("ch", "e"), "てぃ": ("t", "i"), "とぅ": ("t", "u")}
    return table | {"ふ" + small: ("f", vowel) for small, vowel in zip("ぁぃぇぉ", "aieo")}


SYLLABLES = _syllables()  # hiragana -> phones
ROMAJI = {"".join(phones).lower(): kana for kana, phones in reversed(SYLLABLES.items())}  # "sha" -> しゃ; reversed: the first kana wins
HELD = ("ー", "-")
ROMAJI |= {"si": "し", "ti": "ち", "tu": "つ", "hu": "ふ", "zi": "じ", "wo": "を"} | dict(zip(("la", "li", "lu", "le", "lo"), ROWS["r"]))


@dataclass(frozen=True)
class Note:
    """One syllable or rest: phones, MIDI number (0 for a rest), beats."""

    syllable: str
    phones: tuple[str, ...]
    midi: int
    beats: float


def midi_of(name: str) -> int:
    """60 of "C4"; sharps and flats as # and b."""
    found = re.fullmatch(r"([A-Ga-g])([#b♯♭]?)(-?\d)", name)
    if not found:
        raise ValueError(f"{name[:20]!r} is no note; write notes like C4, F#4 or Bb4.")
    letter, accidental, octave = found.groups()
    return {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[letter.upper()] + {"": 0, "#": 1, "♯": 1}.get(accidental, -1) + 12 * (int(octave) + 1)


def note_name(midi: int) -> str:
    return f"{('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')[midi % 12]}{midi // 12 - 1}"


def hiragana(text: str) -> str:
    return "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ン" else c for c in text)


def syllables(lyrics: str) -> list[str]:
    """Words of kana or romaji -> their syllables, the longest that fits first."""
    found = []
    for word in hiragana(lyrics.lower()).split():
        while word:
            size = next((n for n in (4, 3, 2, 1) if word[:n] in SYLLABLES or word[:n] in ROMAJI or word[:n] in HELD), 0)
            if not size:
                raise ValueError(f"{word[:20]!r} begins with no syllable of kana or romaji that the voice knows.")
            found.append(word[:size])
            word = word[size:]
    return found


class Tongue(NamedTuple):
    """How lyrics are written: `phones` of a syllable by its name, `named` gives the name of one as written, `split` the syllables of words."""

    called: str
    phones: dict[str, tuple[str, ...]]
    named: Callable[[str], str]
    split: Callable[[str], list[str]]


JAPANESE = Tongue("kana or romaji", SYLLABLES, lambda word: hiragana(ROMAJI.get(word.lower(), word)), syllables)
MANDARIN = Tongue("pinyin", PINYIN, lambda word: word.lower().replace("ü", "v").rstrip("12345"), str.split)
TONGUES = (JAPANESE, MANDARIN)


def tongue_of(score: str) -> Tongue:
    """That which knows the most of a score's words, Japanese where it knows as many."""
    words = score.split("|")[0].split() if "|" in score else [word.split(":")[0] for word in score.split()]
    return max(TONGUES, key=lambda tongue: sum(tongue.named(word) in tongue.phones for word in words))


def parse(score: str, tongue: Tongue = JAPANESE) -> list[Note]:
    """The notes of a score; ValueError says in a sentence which word is not understood."""
    if "|" in score:
        lyrics, tune = score.split("|", 1)
        sung, places = tongue.split(lyrics), tune.split()
        if len(sung) != (wanted := sum(not p.startswith("rest") for p in places)):
            raise ValueError(f"The lyrics don't match the notes: {len(sung)} syllables for {wanted} notes; a ー holds the vowel over another note.")
        given = iter(sung)
        score = " ".join(p if p.startswith("rest") else f"{next(given)}:{p}" for p in places)
    notes: list[Note] = []
    for word in score.split():
        parts = word.split(":")
        try:
            beats = float(parts[-1])
        except ValueError:
            beats = None
        if len(parts) != (2 if parts[0] == "rest" else 3) or beats is None:
            raise ValueError(f"{word[:30]!r} is not syllable:note:beats or rest:beats; write for example さ:A4:1 く:A4:1 ら:B4:2.")
        if not 0 < beats <= 16:
            raise ValueError(f"{word[:30]!r} lasts {parts[-1][:10]} beats; a note has more than none and at most 16.")
        if parts[0] == "rest":
            notes.append(Note("", ("pau",), 0, beats))
            continue
        name = tongue.named(parts[0])
        if name in HELD and notes and notes[-1].midi:
            name, phones = "ー", notes[-1].phones[-1:]
        elif name in tongue.phones:
            phones = tongue.phones[name]
        elif name in HELD:
            raise ValueError("A ー holds the vowel of the note before it; here there is none.")
        else:
            raise ValueError(f"{parts[0][:20]!r} is no syllable of {tongue.called} that the voice knows.")
        notes.append(Note(name, phones, midi_of(parts[1]), beats))
    return notes


def framed(notes: list[Note], tempo: float) -> list[Note]:
    """The notes between rests of a beat (at most 0.8 s), as the corpus has them; rests that follow each other become one."""
    rest, out = Note("", ("pau",), 0, min(1.0, 0.8 * tempo / 60)), []
    for note in (rest, *notes, rest):
        if out and not note.midi and not out[-1].midi:
            out[-1] = Note("", ("pau",), 0, out[-1].beats + note.beats)
        else:
            out.append(note)
    return out


@functools.cache
def tunes() -> dict[str, dict]:
    """Public-domain tunes: name -> tempo (beats a minute), credit, score."""
    return json.loads((ASSETS / "songs.json").read_text())


def times(notes: list[Note], tempo: float) -> np.ndarray:
    """(notes + 1,) seconds at which they begin, and the end."""
    return np.concatenate([[0.0], np.cumsum([n.beats for n in notes])]) * 60 / tempo


def contour(at: np.ndarray, midis: list[int], bounds: np.ndarray, vibrato: float = 0.25, hertz: float = 5.5, glide: float = 0.03) -> np.ndarray:
    """MIDI numbers sung at the seconds `at`: steps with a Gaussian glide of `glide` s, and after 0.3 s of a note a vibrato of ±`vibrato` semitones.

    A rest (0) takes the pitch of the note before it, a leading one that of the note after.
    """
    held = np.array(midis, float)
    sung = np.flatnonzero(held)
    if len(sung):
        held = held[np.maximum(sung[np.maximum(np.searchsorted(sung, np.arange(len(held)), side="right") - 1, 0)], 0)]
    out = np.full(len(at), held[0])
    for before, after, bound in zip(held, held[1:], bounds[1:]):  # a sum of smoothed steps
        z = (at - bound) / glide
        out += (after - before) / (1 + np.exp(np.clip(-1.702 * z, -60, 60)))  # the logistic curve nearest to the normal's integral
    for midi, start, end in zip(midis, bounds, bounds[1:]):
        inside = (at >= start) & (at < end)
        rise = np.clip((at - start - 0.3) / 0.25, 0, 1) * np.clip((end - at) / 0.08, 0, 1)
        out += inside * bool(midi) * vibrato * rise * np.sin(2 * np.pi * hertz * (at - start))
    return out


@functools.cache
def mel_bank() -> torch.Tensor:
    """(513, MELS) triangles on Slaney's mel scale (linear below 1 kHz, logarithmic above), each of area 1."""
    low, high = (hz / (200 / 3) if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4) for hz in (MEL_LOW, MEL_HIGH))
    mels = torch.linspace(low, high, MELS + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * math.log(6.4) / 27))
    hz = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)[:, None]
    up, down = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    return (torch.minimum(up, down).clamp_min(0) * 2 / (edges[2:] - edges[:-2])).float()


def log_mel(samples: torch.Tensor) -> torch.Tensor:
    """(B, frames, MELS) natural logarithms of mel magnitudes of (B, frames · HOP) samples in [-1, 1]; frame i is centred on sample (i + ½) HOP."""
    edge = (WINDOW - HOP) // 2
    padded = torch.nn.functional.pad(samples, (edge, edge), mode="reflect")
    spectrum = torch.stft(padded, WINDOW, HOP, window=torch.hann_window(WINDOW, device=samples.device), center=False, return_complex=True).abs()
    return (spectrum.mT @ mel_bank().to(samples.device)).clamp_min(FLOOR).log()


def to_bytes(mel: np.ndarray) -> np.ndarray:
    return np.clip((mel - LOG_LOW) / (LOG_HIGH - LOG_LOW) * 255, 0, 255).round().astype(np.uint8)


def from_bytes(stored: torch.Tensor) -> torch.Tensor:
    return stored.float() / 255 * (LOG_HIGH - LOG_LOW) + LOG_LOW


@functools.cache
def recordings() -> dict[str, dict[str, np.ndarray]]:
    """How the voice sings the tunes: name -> the corpus' columns (see `singing_build`); `wave` is empty but for the first three."""
    data = np.load(ASSETS / "held_out.npz")
    songs, parts = data["songs"], {}
    for name, column in (("mel", 0), ("f0", 0), ("phones", 1), ("note", 1), ("frames", 1), ("note_frames", 1), ("wave", 3)):
        parts[name] = np.split(data[name], np.cumsum(songs[:, column])[:-1])
    return {tune: {name: part[i] for name, part in parts.items()} for i, tune in enumerate(tunes())}
