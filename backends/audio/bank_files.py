"""What a DiffSinger voicebank for OpenUtau holds: dsconfig.yaml, a phoneme list, acoustic.onnx, and a vocoder with its vocoder.yaml.

Predictors of durations and of variances (energy, breathiness, voicing, tension) stand in folders of their own, with a linguistic encoder each.

Keys and their defaults are facts of openvpi/DiffSinger's exporters and of OpenUtau's renderer, read in July 2026.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backends.archive import digest, unpacked
from backends.spec import BadInput

KEPT = (".yaml", ".onnx", ".txt", ".json", ".emb")
TEXT = 2**20  # bytes of a YAML file or a phoneme list
SHARED = dict(sample_rate=44100, hop_size=512, win_size=2048, fft_size=2048, num_mel_bins=128, mel_fmin=40.0, mel_fmax=16000.0, mel_scale="slaney")
BASES = {"e": 1.0, "10": float(np.log(10))}  # what a bank's logarithms are multiplied by to be natural ones
LOOKED = 20  # files of one name, at most, in which a bank is looked for
SLOWEST = 0.02  # seconds a frame: a short note must have room for its consonant


class NoVocoder(BadInput):
    """A bank whose vocoder is to come from elsewhere; `said`: that, without what the host can do."""

    def __init__(self, what: str, wanted: str):
        self.said = f"{what} brings no vocoder" + (f" ({wanted[:60]})" if wanted else "")
        super().__init__(f"{self.said}; name the vocoder's folder or zip behind it: bank.zip;vocoder.zip.")


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network behind a linguistic encoder; `phonemes`, `languages`, `speaker` as in Bank, but its own."""

    linguistic: Path
    network: Path
    phonemes: dict[str, int]
    languages: dict[str, int]
    speaker: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Bank:
    """`phonemes`, `languages`: name -> id; `speaker`: (H,) float32 or None; `rate` Hz, `hop` samples a frame, `bins` and `top` Hz of a mel.

    `base`, `vocoder_base`: keys of BASES; `deepest`: the depth the bank was trained for, None where its file doesn't say: a share of
    the chain, in old exports steps of 1000. `predictors`: "dur" and "variance", those of the bank's own frames.
    """

    folder: Path
    acoustic: Path
    vocoder: Path
    phonemes: dict[str, int]
    languages: dict[str, int] = field(default_factory=dict)
    speakers: tuple[str, ...] = ()
    speaker: np.ndarray | None = None
    rate: int = 44100
    hop: int = 512
    bins: int = 128
    top: float = 16000.0
    base: str = "10"
    vocoder_base: str = "10"
    deepest: float | None = None
    predictors: dict[str, Predictor] = field(default_factory=dict)

    @property
    def revision(self) -> str:
        """Twelve digits of the hash of what sings."""
        return digest(self.acoustic, self.vocoder, *(path for p in self.predictors.values() for path in (p.linguistic, p.network)))[:12]


def opened(source: str, what: str) -> Path:
    """A folder, or the folder of a zip once it is unpacked; raises BadInput."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not path.is_file():
        raise BadInput(f"{what} is not where UNNOISE_MODELS says; the host should name a folder or a zip.")
    return unpacked(path, KEPT, what)


def read(folder: Path, vocoders: Path | None, what: str) -> Bank:
    """The bank in `folder` or below it; `vocoders`: where its vocoder is when the bank brings none. Raises BadInput."""
    folder, config = _home(folder, "dsconfig.yaml", "acoustic", what)
    acoustic = within(folder, config["acoustic"], what)
    places = (folder / "dsvocoder", folder / Path(str(config.get("vocoder") or "dsvocoder")).name, *([vocoders] if vocoders else []))
    found = next((p for p in places if p.is_dir() and any(p.rglob("vocoder.yaml"))), None)
    if found is None:
        raise NoVocoder(what, str(config.get("vocoder") or ""))
    home, vocoder = _home(found, "vocoder.yaml", "", what)
    for key, default in SHARED.items():
        mine, other = config.get(key, default), vocoder.get(key, default)
        if mine != other:
            raise BadInput(f"{what} and its vocoder differ in {key} ({mine} and {other}); they must be made for one another.")
    bases = [str(c.get("mel_base", "10")) for c in (config, vocoder)]
    if not set(bases) <= set(BASES):
        raise BadInput(f"{what} has mels of base {' and '.join(bases)[:40]}; 10 and e are known.")
    speakers = tuple(str(s) for s in config.get("speakers") or ())
    try:
        rate, hop, bins, top = (
            kind(config.get(k, SHARED[k])) for kind, k in ((int, "sample_rate"), (int, "hop_size"), (int, "num_mel_bins"), (float, "mel_fmax"))
        )
        deepest = None if config.get("max_depth") is None else float(config["max_depth"])
    except (TypeError, ValueError):
        raise BadInput(f"{what}: dsconfig.yaml says something that is no number where one is due.") from None
    if not (8000 <= rate <= 96000 and 0 < hop <= SLOWEST * rate and 0 < bins < 256):
        raise BadInput(f"{what} has {bins} mel bins, {hop} samples a frame at {rate} Hz; up to 255 bins, {1000 * SLOWEST:.0f} ms and 96 kHz are taken.")
    predictors = {kind: _predictor(folder, kind, (rate, hop), what) for kind in ("dur", "variance")}
    return Bank(
        folder, acoustic, within(home, vocoder.get("model", "model.onnx"), what), *_names(folder, config, what), speakers, _speaker(folder, config, what),
        rate, hop, bins, top, *bases, deepest, {kind: p for kind, p in predictors.items() if p},
    )  # fmt: skip


def _predictor(folder: Path, kind: str, frames: tuple[int, int], what: str) -> Predictor | None:
    """The bank's network that dsconfig.yaml calls `kind`; None where it has none, or one of other frames."""
    for place in (folder / f"ds{kind}", folder):
        if not (place / "dsconfig.yaml").is_file():
            continue
        config = read_yaml(place / "dsconfig.yaml", what)
        if not (config.get(kind) and config.get("linguistic")) or tuple(config.get(k, SHARED[k]) for k in ("sample_rate", "hop_size")) != frames:
            continue
        files = (within(place, config[key], what, folder) for key in ("linguistic", kind))
        return Predictor(*files, *_names(place, config, what, folder), _speaker(place, config, what, folder))
    return None


def _names(folder: Path, config: dict, what: str, bank: Path | None = None) -> tuple[dict[str, int], dict[str, int]]:
    """(phonemes, languages) that a dsconfig.yaml names."""
    phonemes = _phonemes(within(folder, config.get("phonemes", "phonemes.txt"), what, bank), what)
    wanted = config.get("use_lang_id") and config.get("languages")
    return phonemes, _table(within(folder, config["languages"], what, bank), what) if wanted else {}


def _speaker(folder: Path, config: dict, what: str, bank: Path | None = None) -> np.ndarray | None:
    """The first speaker's embedding, None where a dsconfig.yaml names no speakers."""
    speakers = config.get("speakers") or ()
    return _embedding(within(folder, f"{speakers[0]}.emb", what, bank), what) if speakers else None


def within(folder: Path, name, what: str, bank: Path | None = None) -> Path:
    """The file of that name in or beside the folder, which must lie in the bank (else in the folder); raises BadInput."""
    path = (folder / str(name).replace("\\", "/")).resolve()
    if not path.is_relative_to((bank or folder).resolve()) or not path.is_file():
        raise BadInput(f"{what} has no file {str(name)[:60]!r}, which it names; fetch it again.")
    return path


def _home(folder: Path, name: str, key: str, what: str) -> tuple[Path, dict]:
    """(the folder of the uppermost file of that name that has `key`, what it says): a zip may hold the bank in a folder of its own."""
    for path in sorted(folder.rglob(name), key=lambda p: (len(p.parts), p))[:LOOKED]:
        said = read_yaml(path, what)
        if not key or said.get(key):
            return path.parent, said
    raise BadInput(f"{what} holds no {name}{f' with {key}' if key else ''}; it is no DiffSinger voicebank for OpenUtau.")


def _text(path: Path, what: str) -> str:
    if path.stat().st_size > TEXT:
        raise BadInput(f"{what}: {path.name} is larger than {TEXT >> 20} MB.")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{what}: {path.name} is not written in UTF-8.") from None


def read_yaml(path: Path, what: str) -> dict:
    import yaml

    class Plain(yaml.SafeLoader):
        """Without aliases: a few lines of them can name more than any memory holds."""

        def compose_node(self, *where):
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError
            return super().compose_node(*where)

    try:
        said = yaml.load(_text(path, what), Plain)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{what}: {path.name} is no valid YAML.") from None
    if not isinstance(said, dict):
        raise BadInput(f"{what}: {path.name} says nothing.")
    return said


def _table(path: Path, what: str) -> dict[str, int]:
    try:
        said = json.loads(_text(path, what))
        return {str(k): int(v) for k, v in said.items()}
    except BadInput:
        raise
    except (ValueError, AttributeError, TypeError, RecursionError, OverflowError):
        raise BadInput(f"{what}: {path.name} is no table of names and numbers.") from None


def _phonemes(path: Path, what: str) -> dict[str, int]:
    """Names and ids: a JSON table, or lines counted from 0."""
    if path.suffix == ".json":
        return _table(path, what)
    return {name.strip(): i for i, name in enumerate(_text(path, what).splitlines()) if name.strip()}


def _embedding(path: Path, what: str) -> np.ndarray:
    """(H,) float32 of a speaker's file."""
    if not 0 < path.stat().st_size <= 2**16 or path.stat().st_size % 4:
        raise BadInput(f"{what}: {path.name} is no speaker's embedding.")
    return np.frombuffer(path.read_bytes(), "<f4")
