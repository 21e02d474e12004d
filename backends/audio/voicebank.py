"""DiffSinger voicebanks as OpenUtau uses them (openvpi's export) behind the methods of SING: the whole chain runs inside acoustic.onnx.

A bank knows its sampler and how deep it was trained to begin. k counts hundredths of its chain, `speedup` how many of them a step takes.
Consonants stand before the beat, for as long as the median of the embedded corpus; pitch comes from the score, with vibrato. What
a bank's own predictors would say (durations, energy, breathiness, voicing, tension) is held at neutral values.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends.audio import bank_files
from backends.audio.bank_files import BASES, Bank
from backends.audio.scores import check
from backends.audio.singer import held, phrases
from backends.audio.tasks import Sing
from backends.models import Card, progress
from backends.spec import Audio, BadInput, Events, Metric, Note, Plot, Result, Spectrogram, Step
from backends.worlds import singing

CHAIN, UNITS = 100, 1000  # steps of k; the steps that old exports count in
SECONDS = {"k": 0.13, "s": 0.13, "sh": 0.14, "t": 0.11, "ch": 0.13, "ts": 0.13, "h": 0.13, "f": 0.12, "n": 0.08, "m": 0.08, "y": 0.08,
           "r": 0.06, "w": 0.08, "g": 0.06, "d": 0.09, "b": 0.08}  # fmt: skip  # medians of `recordings`, w and y shortened
OTHER = 0.09  # of consonants not among them
NAMES = {"pau": ("SP", "pau", "sil", "AP"), "N": ("N", "nn", "ng"), "sh": ("sh", "sy"), "ch": ("ch", "ty"), "j": ("j", "jh", "zy"), "f": ("f", "fh")}
LANGUAGES = ("", "ja/", "jp/", "jpn/")  # what banks of several languages put before a phoneme
# Inputs that the bank's predictors or a user would draw: while sung, in rests. dB but for gender (0: as recorded), velocity (1: as fast)
# and tension (0: the middle of its range).
NEUTRAL = {"gender": (0, 0), "velocity": (1, 1), "energy": (-20, -96), "voicing": (-20, -96), "breathiness": (-50, -96), "tension": (0, 0)}
KNOWN = {"tokens", "durations", "f0", "languages", "spk_embed", "depth", "steps", "speedup", *NEUTRAL}
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """What is sung, in frames. `names`: phonemes; `frames`: (P,) int64 each lasts; `f0`: (F,) MIDI numbers; `sung`: (F,) bool; `note`: (F,) MIDI, rests held."""

    names: tuple[str, ...]
    frames: np.ndarray
    f0: np.ndarray
    sung: np.ndarray
    note: np.ndarray
    marks: dict[str, float]


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


class Voicebank:
    """A bank and the inputs its networks take. Mels are (1, F, bins) in natural logarithms; `nfe` counts the steps asked of the chain, `seconds` the networks' work."""

    def __init__(self, card: Card, bank: Bank):
        self.card, self.bank, self.device, self.nfe, self.seconds = card, bank, "cpu", 0, 0.0
        self.inputs, voiced = taken(session(bank.acoustic, 0, card.title)), set(taken(session(bank.vocoder, 0, card.title)))
        if missing := sorted({"tokens", "durations", "f0"} - set(self.inputs)) + sorted({"mel"} - voiced):
            raise BadInput(f"{card.title} takes no {', '.join(missing)}; it is no DiffSinger voicebank for OpenUtau.")
        if unknown := sorted(set(self.inputs) - KNOWN) + sorted(voiced - {"mel", "f0"}):
            raise BadInput(f"{card.title} asks for {', '.join(unknown)[:80]}, which is not known here; choose a bank exported for OpenUtau.")
        if missing := [p for p in ("pau", *singing.VOWELS) if not spelled(p, bank.phonemes)]:
            raise BadInput(f"{card.title} has no phoneme for {', '.join(missing)}; Japanese can't be sung with it. Choose a bank with Japanese phonemes.")
        if "spk_embed" in self.inputs and bank.speaker is None:
            raise BadInput(f"{card.title} wants a speaker and its dsconfig.yaml names none; fetch it again.")

    @property
    def shallow(self) -> bool:
        """Whether it has a decoder of its own that its chain may begin at."""
        return "depth" in self.inputs

    @property
    def deepest(self) -> int:
        """The largest k that it was trained for."""
        if not self.shallow or self.bank.deepest is None:
            return CHAIN
        share = self.bank.deepest if self.inputs["depth"].type is not np.int64 else self.bank.deepest / UNITS
        return max(1, min(CHAIN, round(CHAIN * share)))

    def lay_out(self, notes: list[singing.Note], tempo: float, vibrato: float) -> Line:
        """Vowels begin with their notes, which a rest leads; a consonant takes at most half of the phoneme before. Raises BadInput for one the bank lacks."""
        bank, seconds = self.bank, singing.times(notes, tempo)
        bounds = np.round(seconds * bank.rate / bank.hop).astype(int)
        names, frames = [], []
        for note, length in zip(notes, np.diff(bounds)):
            *consonant, vowel = note.phones
            before = self._spelled(consonant[0], note.syllable) if consonant else ()
            if before:
                wanted = round(SECONDS.get(consonant[0], OTHER) * bank.rate / bank.hop)
                each = max(1, min(wanted, frames[-1] // 2) // len(before))
                frames[-1] -= each * len(before)
                frames += [each] * len(before)
            names += [*before, *self._spelled(vowel, note.syllable)]
            frames.append(int(length))
        midis = [n.midi for n in notes]
        at = (np.arange(bounds[-1]) + 0.5) * bank.hop / bank.rate
        owner = np.repeat(np.arange(len(notes)), np.diff(bounds))
        sung = np.array([bool(m) for m in midis])[owner]
        return Line(tuple(names), np.array(frames), singing.contour(at, midis, seconds, vibrato), sung, held(np.array(midis))[owner], phrases(notes, seconds))

    def _spelled(self, phone: str, syllable: str) -> tuple[str, ...]:
        found = spelled(phone, self.bank.phonemes)
        if not found:
            raise BadInput(f"{self.card.title} has no phoneme for {phone} (in {syllable}); change that syllable or choose another voice.")
        return found

    def feeds(self, line: Line, k: int, steps: int) -> dict[str, np.ndarray]:
        """The inputs that the acoustic network declares, in its types; `k` of CHAIN in `steps` steps."""
        bank, speedup = self.bank, max(1, UNITS // steps)
        while UNITS % speedup:
            speedup -= 1
        depth = k / CHAIN
        if self.shallow and self.inputs["depth"].type is np.int64:
            speedup = max(1, UNITS * k // CHAIN // steps)
            depth = UNITS * k // CHAIN // speedup * speedup
        values = {"depth": depth, "steps": steps, "speedup": speedup}
        values |= {name: np.where(line.sung, *pair)[None] for name, pair in NEUTRAL.items()}
        values["tokens"] = [[bank.phonemes[name] for name in line.names]]
        values["languages"] = [[bank.languages.get(name.partition("/")[0], 0) if "/" in name else 0 for name in line.names]]
        values["durations"], values["f0"] = [line.frames], hertz(line)[None]
        if bank.speaker is not None:
            values["spk_embed"] = np.broadcast_to(bank.speaker, (1, len(line.f0), len(bank.speaker)))
        given = {name: np.asarray(values[name], i.type) for name, i in self.inputs.items()}
        return {name: a.reshape([1] * self.inputs[name].rank) if a.ndim == 0 else a for name, a in given.items()}

    def mel(self, line: Line, k: int, steps: int, seed: int):
        """Generator: yields None while the network works; returns the mel (1, F, bins)."""
        made, seconds = yield from worked(session(self.bank.acoustic, seed, self.card.title), self.feeds(line, k, steps))
        self.seconds += seconds
        if made.shape != (1, len(line.f0), self.bank.bins) or not np.isfinite(made).all():
            raise BadInput(f"{self.card.title} made a mel of {made.shape}, not (1, {len(line.f0)}, {self.bank.bins}) numbers; its files don't fit together.")
        return made.astype(np.float32) * BASES[self.bank.base]

    def voice(self, mel: np.ndarray, line: Line, seed: int):
        """Generator like `mel`; returns Audio, turned down where it is louder than full scale."""
        inner = session(self.bank.vocoder, seed, self.card.title)
        given = {"mel": mel / BASES[self.bank.vocoder_base], "f0": hertz(line)[None]}
        wave, seconds = yield from worked(inner, {name: given[name].astype(i.type) for name, i in taken(inner).items()})
        self.seconds, wave = self.seconds + seconds, wave.reshape(-1).astype(np.float32)
        if abs(len(wave) - len(line.f0) * self.bank.hop) > self.bank.hop or not np.isfinite(wave).all():
            raise BadInput(f"{self.card.title}'s vocoder made {len(wave)} samples of {len(line.f0)} frames; its files don't fit together.")
        return Audio(wave / max(1.0, float(np.abs(wave).max())), self.bank.rate, marks=line.marks)

    def drawn(self, mel: np.ndarray, caption: str = "") -> Spectrogram:
        return Spectrogram((20 / np.log(10) * mel[0]).T, mel.shape[1] * self.bank.hop / self.bank.rate, self.bank.top, caption)

    def pitch(self, line: Line) -> Plot:
        at = (np.arange(len(line.f0)) * self.bank.hop / self.bank.rate).tolist()
        return Plot({"pitch": (at, line.f0.tolist()), "note": (at, line.note.astype(float).tolist())}, x="seconds", y="MIDI number")


def hertz(line: Line) -> np.ndarray:
    """(F,) float32."""
    return (440 * 2 ** ((line.f0 - 69) / 12)).astype(np.float32)


def session(path: Path, seed: int, what: str):
    """The network, new for each use: onnxruntime draws noise from a state that it takes from the seed when a session begins, and keeps."""
    try:
        import onnxruntime
    except ImportError:
        raise BadInput("onnxruntime is not installed, which voicebanks run on: pip install onnxruntime==1.32.0.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    onnxruntime.set_seed(seed)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes, one for each way a file can be wrong
        log.exception("%s can't be read", path.name)
        raise BadInput(f"{what}: {path.name} can't be read ({type(error).__name__}); it must be a whole ONNX file.") from None


class Input(NamedTuple):
    type: type
    rank: int


def taken(inner) -> dict[str, Input]:
    """The inputs that a session declares."""
    return {i.name: Input(TYPES.get(i.type, np.float32), len(i.shape)) for i in inner.get_inputs()}


def worked(inner, feeds: dict[str, np.ndarray]) -> Iterator[None]:
    """Generator: returns (the session's first output, the seconds it took); yields None meanwhile, so that Stop is heard, and ends the work when closed."""
    import onnxruntime

    options, box = onnxruntime.RunOptions(), []

    def work():
        began = time.perf_counter()
        try:
            box.append((inner.run(None, feeds, options)[0], time.perf_counter() - began))
        except Exception as error:
            box.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            if thread.is_alive():
                yield None
    finally:
        options.terminate = True
        thread.join()
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]


def during(work: Iterator[None], step: Step):
    """Generator: repeats the step while the work goes on; returns what the work returns."""
    try:
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value
            yield step
    finally:
        work.close()


def finished(work: Iterator[None]):
    """What the work returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def load(card: Card) -> Voicebank:
    """The bank that the card's source names: a folder or zip, and after a semicolon its vocoder's where the bank brings none. Raises BadInput."""
    bank, _, vocoder = card.source.partition(";")
    progress[card.name] = f"Unpacking {card.title}"
    try:
        folder = bank_files.opened(bank, card.title)
        found = bank_files.read(folder, bank_files.opened(vocoder, f"{card.title}'s vocoder") if vocoder else None, card.title)
        return Voicebank(dataclasses.replace(card, revision=found.revision), found)
    except OSError as error:
        raise BadInput(f"The files of {card.title} can't be read ({type(error).__name__}); the host should see to them.") from error
    finally:
        progress.pop(card.name, None)


def sing(job: Sing, model: Voicebank, k: int, sampler: str = "ddpm", speedup: int = 1, vocoder: str = "neural") -> Events:
    """Sing the job's score from k hundredths of the bank's chain; 0 leaves its decoder's mel as it is. Raises BadInput where it can't begin there."""
    title, bank = model.card.title, model.bank
    if vocoder != "neural":
        raise BadInput(f"{title} brings its own vocoder; set the vocoder to neural.")
    if not k and not model.shallow:
        raise BadInput(f"{title} has no decoder beside its diffusion; choose Full diffusion.")
    if k > model.deepest:
        raise BadInput(f"{title} was trained to begin at k = {model.deepest} at most, not at {k}; choose DiffSinger with k = 0.")
    if k and not model.shallow and k < CHAIN:
        raise BadInput(f"{title} begins from noise alone; set k to 0 or {CHAIN}.")
    model.seconds = 0.0
    line = model.lay_out(check(job.score, job.tempo), job.tempo, job.vibrato)
    if len(bank.speakers) > 1:
        yield Note(f"Of the bank's speakers the first sings: {bank.speakers[0]}.")
    if even := [name for name in NEUTRAL if name in model.inputs and name not in ("gender", "velocity")]:
        yield Note(f"Held at even values, which the bank's own predictors would draw: {', '.join(even)}.")
    if k and sampler != "ddpm":
        yield Note("The bank's sampler stands in its network; the one chosen is not used.")
    n, pitch = bool(k) + model.shallow, (model.pitch(line),)
    step, mel, beside = Step(0, n, None, pitch), None, ()
    for depth in ([0] if model.shallow else []) + ([k] if k else []):
        steps = math.ceil(depth / speedup)
        mel = yield from during(model.mel(line, depth, steps or 1, job.seed), step)
        model.nfe += steps
        drawn = model.drawn(mel, "" if depth else "the decoder's mel")
        step = Step(step.i + 1, n, drawn, pitch, keep=lambda mel=mel: finished(model.voice(mel, line, job.seed)))
        yield step
        if k and not depth:
            beside = (drawn,)
    sound = yield from during(model.voice(mel, line, job.seed), step)
    yield Metric("real-time factor", model.seconds / sound.seconds, "lower", f"{sound.seconds:.1f} s sung; the networks' own time")
    yield Result(sound, (model.drawn(mel, "the mel the vocoder was given"), *beside, *pitch))
