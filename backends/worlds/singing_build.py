"""Sing the corpus of the singing world with an HTS voice.

    pip install pysinsy==0.0.5 pyworld==0.3.5     # build time only; pysinsy wants setuptools<81, cython, numpy and --no-build-isolation
    python -m backends.worlds.singing_build --minutes 17 --out runs/singing.npz

Sinsy (modified BSD) reads the score and the voice NIT SONG070 F001 (Nagoya Institute of Technology, CC BY 3.0) sings it at 48 kHz. The voice
is up to a semitone off its notes, so WORLD (modified BSD) gives it the pitch of `singing.contour`, transposed by up to 4 semitones either
way to widen the range. Phone durations are the voice's own, from its label with times.

The file: of all songs one after the other `mel` (frames, 80) bytes and `f0` (frames,) MIDI numbers; `phones`, `note`, `frames` (of the
phone) and `note_frames` a phone; `songs` (n, 4): frames, phones, split, samples in `wave` (int16, of the first songs only).
"""

import argparse
import ctypes
import functools
import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import torch

from backends.worlds import singing
from backends.worlds.singing import HOP, RATE, SYLLABLES, Note

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 1, 5, 7, 8))
BARS = ((1, 1, 1, 1), (1, 1, 2), (2, 1, 1), (1.5, 0.5, 1, 1), (0.5, 0.5, 1, 1, 1), (1, 0.5, 0.5, 2), (2, 2), (0.5,) * 4 + (1, 1), (3, 1), (1.5, 0.5, 2))


def melody(rng: np.random.Generator, bars: int = 4) -> tuple[list[Note], float]:
    """A random walk on a scale between MIDI 64 and 76, random syllables, a rest at its middle and end; and its tempo."""
    scale, root = SCALES[rng.integers(len(SCALES))], rng.integers(12)
    steps = [m for m in range(64, 77) if (m - root) % 12 in scale]
    at, notes, kanas = rng.integers(len(steps)), [Note("", ("pau",), 0, 1.0)], [k for k in SYLLABLES if k != "を"]
    for bar in range(bars):
        for beats in BARS[rng.integers(len(BARS))]:
            at = int(np.clip(at + rng.choice([-4, -3, -2, -1, 0, 1, 2, 3, 4], p=[0.04, 0.06, 0.12, 0.2, 0.16, 0.2, 0.12, 0.06, 0.04]), 0, len(steps) - 1))
            held = len(notes) > 1 and notes[-1].midi and rng.random() < 0.06
            kana = kanas[rng.integers(len(kanas))] if rng.random() < 0.75 else "あいうえおかさたなはまやらわん"[rng.integers(15)]
            notes.append(Note(*(("ー", notes[-1].phones[-1:]) if held else (kana, SYLLABLES[kana])), int(steps[at]), float(beats)))
        if bar % 2:
            notes.append(Note("", ("pau",), 0, 1.0))
    return notes, float(rng.uniform(80, 150))


def music_xml(notes: list[Note], tempo: float) -> str:
    """MusicXML, a bar ending at the first note's end at or after four beats."""
    bars, length = [[]], 0.0
    for note in notes:
        if length >= 4:
            bars.append([])
            length = 0.0
        bars[-1].append(note)
        length += note.beats
    out = []
    for number, bar in enumerate(bars):
        quarters = round(sum(n.beats for n in bar) * 4)
        body = "".join(
            f"<note>{pitch(n.midi) if n.midi else '<rest/>'}<duration>{round(n.beats * 4)}</duration>"
            + (f"<lyric><syllabic>single</syllabic><text>{spelled(n)}</text></lyric>" if n.midi else "")
            + "</note>"
            for n in bar
        )
        sound = f'<direction><sound tempo="{tempo:.3f}"/></direction>' if not number else ""
        out.append(
            f'<measure number="{number + 1}"><attributes><divisions>4</divisions><time><beats>{quarters}</beats><beat-type>16</beat-type></time></attributes>{sound}{body}</measure>'
        )
    return ('<?xml version="1.0" encoding="UTF-8"?><score-partwise version="2.0"><part-list><score-part id="P1"><part-name>m</part-name>'
            f'</score-part></part-list><part id="P1">{"".join(out)}</part></score-partwise>')  # fmt: skip


def spelled(note: Note) -> str:
    """A held vowel is sung as the vowel anew."""
    return {"a": "あ", "i": "い", "u": "う", "e": "え", "o": "お", "N": "ん"}[note.phones[0]] if note.syllable == "ー" else note.syllable


def pitch(midi: int) -> str:
    step, alter = (("C", 0), ("C", 1), ("D", 0), ("D", 1), ("E", 0), ("F", 0), ("F", 1), ("G", 0), ("G", 1), ("A", 0), ("A", 1), ("B", 0))[midi % 12]
    return f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{midi // 12 - 1}</octave></pitch>"


class Voice:
    """Sinsy's labels, and the HTS engine inside pysinsy's library called directly, since only it tells the phones' times."""

    def __init__(self):
        import pysinsy

        pysinsy._lazy_init()
        self.sinsy, package = pysinsy._global_sinsy, Path(pysinsy.__file__).parent
        self.hts, self.c = ctypes.CDLL(str(next(package.glob("sinsy*.so")))), ctypes.CDLL(None)
        self.engine = ctypes.create_string_buffer(1 << 16)  # an HTS_Engine, whose size is not exported
        self.hts.HTS_Engine_get_generated_speech.restype = ctypes.c_double
        self.hts.HTS_Engine_get_nsamples.restype = ctypes.c_size_t
        self.c.fopen.restype = ctypes.c_void_p
        voice = str(next(package.glob("htsvoice/*.htsvoice"))).encode()
        self.hts.HTS_Engine_initialize(self.engine)
        assert self.hts.HTS_Engine_load(self.engine, (ctypes.c_char_p * 1)(voice), ctypes.c_size_t(1))
        self.hts.HTS_Engine_set_phoneme_alignment_flag(self.engine, ctypes.c_char(1))

    def sing(self, notes: list[Note], tempo: float) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
        """48 kHz samples in [-1, 1], and of each phone its name, start and end in seconds."""
        with tempfile.TemporaryDirectory() as folder:
            score, labels = Path(folder, "score.xml"), Path(folder, "labels")
            score.write_text(music_xml(notes, tempo))
            self.sinsy.clearScore()
            self.sinsy.clearScore()
            self.sinsy.loadScoreFromMusicXML(str(score))
            lines = [line.encode() for line in self.sinsy.createLabelData(False, 1, 2).getData()]
            assert self.hts.HTS_Engine_synthesize_from_strings(self.engine, (ctypes.c_char_p * len(lines))(*lines), ctypes.c_size_t(len(lines)))
            count = self.hts.HTS_Engine_get_nsamples(self.engine)
            wave = np.array([self.hts.HTS_Engine_get_generated_speech(self.engine, ctypes.c_size_t(i)) for i in range(count)]) / 32768
            file = ctypes.c_void_p(self.c.fopen(str(labels).encode(), b"w"))
            self.hts.HTS_Engine_save_label(self.engine, file)
            self.c.fclose(file)
            self.hts.HTS_Engine_refresh(self.engine)
            rows = [line.split(maxsplit=2) for line in labels.read_text().splitlines()]
        return wave, [(label.split("-", 1)[1].split("+", 1)[0], int(a) / 1e7, int(b) / 1e7) for a, b, label in rows]


def decimate(wave: np.ndarray, factor: int = 3) -> np.ndarray:
    """Every third sample behind a windowed-sinc low pass just under the new Nyquist frequency."""
    n = np.arange(-96, 97)
    kernel = np.sinc(n * 0.94 / factor) * np.kaiser(len(n), 9)
    return np.ascontiguousarray(np.convolve(wave, kernel / kernel.sum(), "same")[::factor])


def repitch(wave: np.ndarray, midis: list[int], bounds: np.ndarray, vibrato: float) -> np.ndarray:
    """The 16 kHz wave with the pitch of the score, unvoiced where it was."""
    import pyworld

    f0, at = pyworld.dio(wave, RATE, f0_floor=150.0, f0_ceil=900.0, frame_period=5.0)
    f0 = pyworld.stonemask(wave, f0, at, RATE)
    envelope, aperiodicity = pyworld.cheaptrick(wave, f0, at, RATE), pyworld.d4c(wave, f0, at, RATE)
    wanted = 440 * 2 ** ((singing.contour(at, midis, bounds, vibrato) - 69) / 12)
    return pyworld.synthesize(np.where(f0 > 0, wanted, 0.0), envelope, aperiodicity, RATE, 5.0)


def song(voice: Voice, notes: list[Note], tempo: float, shift: int, vibrato: float) -> dict[str, np.ndarray] | None:
    """One song's columns of the corpus; None where the label does not have the score's phones."""
    wave, labels = voice.sing(notes, tempo)
    merged: list[tuple[str, float, float]] = []
    for phone, start, end in labels:  # the label joins and splits rests as it likes
        phone = "pau" if phone in ("sil", "br") else phone
        if merged and phone == "pau" == merged[-1][0]:
            merged[-1] = ("pau", merged[-1][1], end)
        else:
            merged.append((phone, start, end))
    wanted = [(p, n.midi, i) for i, n in enumerate(notes) for p in n.phones]
    if [p for p, *_ in merged] != [p for p, *_ in wanted]:
        print("skipped:", [p for p, *_ in merged], [p for p, *_ in wanted])
        return None
    # A note begins where its first phone does.
    owner = np.array([i for *_, i in wanted])
    bounds = np.append([next(start for (_, start, _), i in zip(merged, owner) if i == note) for note in range(len(notes))], merged[-1][2])
    midis = [n.midi + shift if n.midi else 0 for n in notes]
    wave = repitch(decimate(wave), midis, bounds, vibrato)
    edges = np.round(np.append([start for _, start, _ in merged], merged[-1][2]) * RATE / HOP).astype(int)
    frames = np.diff(edges)
    if frames.min() < 1:
        print("skipped: a phone shorter than a frame")
        return None
    wave = np.pad(wave, (0, HOP * edges[-1]))[: HOP * edges[-1]].astype(np.float32)
    at = (np.arange(edges[-1]) + 0.5) * HOP / RATE
    mel = singing.log_mel(torch.as_tensor(wave)[None])[0].numpy()
    return dict(mel=singing.to_bytes(mel), f0=singing.contour(at, midis, bounds, vibrato).astype(np.float16),
                phones=np.array([singing.PHONES.index(p) for p, *_ in wanted], np.uint8), note=np.array([midis[i] for i in owner], np.uint8),
                frames=frames.astype(np.uint16), note_frames=np.array([frames[owner == i].sum() for i in owner], np.uint16),
                wave=np.clip(wave * 32768, -32768, 32767).round().astype(np.int16))  # fmt: skip


@functools.cache
def voice() -> Voice:
    return Voice()  # one a process


def take(number: int) -> dict | None:
    """The corpus' song of that number: the tunes first, then random melodies."""
    torch.set_num_threads(1)
    rng, rest = np.random.default_rng([7, number]), Note("", ("pau",), 0, 1.0)
    if number < len(singing.tunes()):
        tune = list(singing.tunes().values())[number]
        notes, tempo, shift, vibrato, split = [rest, *singing.parse(tune["score"]), rest], tune["tempo"], 0, 0.25, singing.TUNE
        rests = [notes[0]]
        for n in notes[1:]:  # the label knows one rest where the score has two
            rests[-1:] = [Note("", ("pau",), 0, rests[-1].beats + n.beats)] if not n.midi and not rests[-1].midi else [rests[-1], n]
        notes = rests
    else:
        (notes, tempo), shift, vibrato = melody(rng), int(rng.integers(-4, 5)), float(rng.uniform(0.1, 0.4))
        split = singing.VALIDATION if number % 12 == 0 else singing.TRAIN
    one = song(voice(), notes, tempo, shift, vibrato)
    return one and one | {"split": split}


def write(path: Path, songs: list[dict], waves: float) -> None:
    """`waves` seconds of the songs keep their sound."""
    rows, kept, left = [], [], waves * RATE
    for one in songs:
        rows.append((len(one["mel"]), len(one["phones"]), one["split"], len(one["wave"]) if left > 0 else 0))
        kept += [one["wave"]] if left > 0 else []
        left -= len(one["wave"])
    columns = {k: np.concatenate([one[k] for one in songs]) for k in ("mel", "f0", "phones", "note", "frames", "note_frames")}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, songs=np.array(rows), wave=np.concatenate(kept), **columns)
    print(f"{path}: {len(songs)} songs, {sum(r[0] for r in rows) * HOP / RATE / 60:.1f} min, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=17.0)
    parser.add_argument("--wave-minutes", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("runs/singing.npz"))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    tunes, melodies = [], []
    with multiprocessing.Pool(args.workers) as pool:
        for one in pool.imap(take, range(1000)):
            if one:
                (tunes if one["split"] == singing.TUNE else melodies).append(one)
            if sum(len(o["wave"]) for o in melodies) >= args.minutes * 60 * RATE:
                pool.terminate()
                break
    write(args.out, melodies, args.wave_minutes * 60)
    write(singing.ASSETS / "held_out.npz", tunes, 40)


if __name__ == "__main__":
    main()
