"""DiffSinger voicebanks as OpenUtau uses them (openvpi's export) behind the methods of SING: the whole chain runs inside acoustic.onnx.

A bank knows its sampler and how deep it was trained to begin. k counts hundredths of its chain, `speedup` how many of them a step takes.
Consonants stand before the beat, for as long as the bank's own predictor says, else as the median of the embedded corpus; pitch comes from
the score, with vibrato. Energy, breathiness, voicing and tension come from the bank's predictor, else they are held at neutral values.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from backends.audio import bank_files
from backends.audio.bank_files import BASES, Bank
from backends.audio.bank_line import Line, lay_out, shared, spelled, spoken
from backends.audio.onnx_runs import Process, cast, during, finished
from backends.audio.scores import check
from backends.audio.singer import DB, admit, contour
from backends.audio.tasks import Sing
from backends.download import reading
from backends.models import Card
from backends.spec import Audio, BadInput, Events, Metric, Note, Plot, Result, Spectrogram, Step
from backends.worlds import singing

CHAIN, UNITS = 100, 1000  # steps of k; the steps that old exports count in
# Inputs that the bank's predictors or a user would draw: while sung, in rests. dB but for gender (0: as recorded), velocity (1: as fast)
# and tension (0: the middle of its range).
NEUTRAL = {"gender": (0, 0), "velocity": (1, 1), "energy": (-20, -96), "voicing": (-20, -96), "breathiness": (-50, -96), "tension": (0, 0)}
PREDICTED = ("energy", "breathiness", "voicing", "tension")
PREDICTOR_STEPS = 20
KNOWN = {"tokens", "durations", "f0", "languages", "spk_embed", "depth", "steps", "speedup", *NEUTRAL}


def spread(speaker: np.ndarray | None, length: int) -> np.ndarray | None:
    """(1, length, H) of a speaker's embedding (H,)."""
    return None if speaker is None else np.broadcast_to(speaker, (1, length, len(speaker)))


class Voicebank:
    """A bank and the inputs its networks take. Mels are (1, F, bins) in natural logarithms; `nfe` counts the steps asked of the chain, `seconds` the networks' work."""

    def __init__(self, card: Card, bank: Bank):
        self.card, self.bank, self.device, self.nfe, self.seconds = card, bank, "cpu", 0, 0.0
        self.process = Process(card.title, **card.options)
        files = (bank.acoustic, bank.vocoder, *(path for p in bank.predictors.values() for path in (p.linguistic, p.network)))
        self.taken = {path: self.process.taken(path) for path in files}
        self.inputs, voiced = self.taken[bank.acoustic], set(self.taken[bank.vocoder])
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
        return lay_out(self.bank, notes, tempo, vibrato, self.card.title)

    def feeds(self, line: Line, k: int, steps: int, curves: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The inputs that the acoustic network declares, in its types; `k` of CHAIN in `steps` steps; `curves`: (F,) each, neutral where they are missing."""
        bank, speedup = self.bank, max(1, UNITS // steps)
        while UNITS % speedup:
            speedup -= 1
        depth = k / CHAIN
        if self.shallow and self.inputs["depth"].type is np.int64:
            speedup = max(1, UNITS * k // CHAIN // steps)
            depth = UNITS * k // CHAIN // speedup * speedup
        values = {"depth": depth, "steps": steps, "speedup": speedup}
        values |= {name: np.where(line.sung, *pair)[None] for name, pair in NEUTRAL.items()} | {name: c[None] for name, c in (curves or {}).items()}
        values |= spoken(bank, line, self.card.title) | {"durations": [line.frames], "f0": line.hertz[None], "spk_embed": spread(bank.speaker, len(line.f0))}
        return cast(self.inputs, values)

    def _predicted(self, kind: str, line: Line, seed: int, **values):
        """Generator like `mel`; returns what the bank's predictor makes of the line and the further inputs, by name."""
        own, words = self.bank.predictors[kind], np.flatnonzero(line.begins)
        values |= spoken(own, line, self.card.title) | {"ph_dur": [line.frames], "word_div": [np.diff([*words, len(line.begins)])]}
        values |= {"word_dur": [np.add.reduceat(line.frames, words)], "steps": PREDICTOR_STEPS, "speedup": UNITS // PREDICTOR_STEPS}
        made = {}
        for path in (own.linguistic, own.network):
            made, seconds = yield from self.process.worked(path, seed, cast(self.taken[path], values))
            self.seconds += seconds
            values |= made
        return made

    def timed(self, line: Line, seed: int):
        """Generator like `mel`; returns the line with the lengths that the bank's predictor gives the phonemes from one beat to the next."""
        notes = line.note[np.minimum(np.cumsum(line.frames) - line.frames, len(line.note) - 1)]  # a consonant's is the note it is taken from
        extra = {"ph_midi": [np.round(notes)], "spk_embed": spread(self.bank.predictors["dur"].speaker, len(line.names))}
        made = yield from self._predicted("dur", line, seed, **extra)
        return dataclasses.replace(line, frames=shared(line, self._row(made, "ph_dur_pred", len(line.names))))

    def _row(self, made: dict[str, np.ndarray], name: str, length: int) -> np.ndarray:
        """(length,) of what a predictor made; raises BadInput where it is something else."""
        if name not in made or made[name].size != length or not np.isfinite(made[name]).all():
            raise BadInput(f"{self.card.title}'s predictor did not give {length} numbers as {name}; its files don't fit together.")
        return made[name].reshape(-1)

    def curves(self, line: Line, seed: int):
        """Generator like `mel`; returns the curves (F,) that the bank's predictor draws: dB, of which 0 is the most, and tension."""
        extra = {name: np.zeros((1, len(line.f0))) for name in PREDICTED}
        extra |= {"pitch": line.f0[None], "spk_embed": spread(self.bank.predictors["variance"].speaker, len(line.f0))}
        extra["retake"] = lambda inputs: np.ones((1, len(line.f0), sum(name in inputs for name in PREDICTED)))
        made = yield from self._predicted("variance", line, seed, **extra)
        found = {name: self._row(made, f"{name}_pred", len(line.f0)) for name in PREDICTED if f"{name}_pred" in made}
        return {name: c if name == "tension" else np.minimum(c, 0) for name, c in found.items()}

    def mel(self, line: Line, k: int, steps: int, seed: int, curves: dict[str, np.ndarray] | None = None):
        """Generator: yields None while the network works; returns the mel (1, F, bins)."""
        made, seconds = yield from self.process.worked(self.bank.acoustic, seed, self.feeds(line, k, steps, curves))
        made, self.seconds = next(iter(made.values())), self.seconds + seconds
        if made.shape != (1, len(line.f0), self.bank.bins) or not np.isfinite(made).all():
            raise BadInput(f"{self.card.title} made a mel of {made.shape}, not (1, {len(line.f0)}, {self.bank.bins}) numbers; its files don't fit together.")
        return made.astype(np.float32) * BASES[self.bank.base]

    def voice(self, mel: np.ndarray, line: Line, seed: int):
        """Generator like `mel`; returns Audio, turned down where it is louder than full scale."""
        given = {"mel": mel / BASES[self.bank.vocoder_base], "f0": line.hertz[None]}
        wave, seconds = yield from self.process.worked(self.bank.vocoder, seed, cast(self.taken[self.bank.vocoder], given))
        self.seconds, wave = self.seconds + seconds, next(iter(wave.values())).reshape(-1).astype(np.float32)
        if abs(len(wave) - len(line.f0) * self.bank.hop) > self.bank.hop or not np.isfinite(wave).all():
            raise BadInput(f"{self.card.title}'s vocoder made {len(wave)} samples of {len(line.f0)} frames; its files don't fit together.")
        return Audio(wave / max(1.0, float(np.abs(wave).max())), self.bank.rate, marks=line.marks)

    def drawn(self, mel: np.ndarray, caption: str = "") -> Spectrogram:
        return Spectrogram((DB * mel[0]).T, mel.shape[1] * self.bank.hop / self.bank.rate, self.bank.top, caption)

    def pitch(self, line: Line) -> Plot:
        return contour(line.f0, line.note, self.bank.hop / self.bank.rate)


def load(card: Card) -> Voicebank:
    """The bank that the card's source names: a folder or zip, and after a semicolon its vocoder's where the bank brings none. Raises BadInput."""
    bank, _, vocoder = card.source.partition(";")
    with reading(card, OSError, doing="Unpacking", mend="the host should see to them"):
        folder = bank_files.opened(bank, card.title)
        found = bank_files.read(folder, bank_files.opened(vocoder, f"{card.title}'s vocoder") if vocoder else None, card.title)
        return Voicebank(dataclasses.replace(card, revision=found.revision), found)


def sing(job: Sing, model: Voicebank, k: int, sampler: str = "ddpm", speedup: int = 1, vocoder: str = "neural") -> Events:
    """Sing the job's score from k hundredths of the bank's chain; 0 leaves its decoder's mel as it is. Raises BadInput where it can't begin there."""
    admit(model, k, vocoder)
    model.seconds, bank = 0.0, model.bank
    model.process.round()
    line = model.lay_out(check(job.score, job.tempo, singing.JAPANESE), job.tempo, job.vibrato)
    if len(bank.speakers) > 1:
        yield Note(f"Of the bank's speakers the first sings: {bank.speakers[0]}.")
    if k and sampler != "ddpm":
        yield Note("The bank's sampler stands in its network; the one chosen is not used.")
    n, pitch = bool(k) + model.shallow, (model.pitch(line),)
    step, mel, beside, curves = Step(0, n, None, pitch), None, (), {}
    if "dur" in bank.predictors:
        line = yield from during(model.timed(line, job.seed), step)
    if wanted := [name for name in PREDICTED if name in model.inputs]:
        if "variance" in bank.predictors:
            curves = yield from during(model.curves(line, job.seed), step)
        if even := [name for name in wanted if name not in curves]:
            yield Note(f"Held at even values, as the bank brings no predictor of them: {', '.join(even)}.")
    for depth in ([0] if model.shallow else []) + ([k] if k else []):
        steps = math.ceil(depth / speedup)
        mel = yield from during(model.mel(line, depth, steps or 1, job.seed, curves), step)
        model.nfe += steps
        drawn = model.drawn(mel, "" if depth else "the decoder's mel")
        step = Step(step.i + 1, n, drawn, pitch, keep=lambda mel=mel: finished(model.voice(mel, line, job.seed)))
        yield step
        if k and not depth:
            beside = (drawn,)
    sound = yield from during(model.voice(mel, line, job.seed), step)
    yield Metric("real-time factor", model.seconds / sound.seconds, "lower", f"{sound.seconds:.1f} s sung; the networks' own time")
    yield Result(sound, (model.drawn(mel, "the mel the vocoder was given"), *beside, *pitch))
