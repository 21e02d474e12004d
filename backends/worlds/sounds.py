"""The sounds world: captioned clips of 2.56 s at 16 kHz, put together on the device from a bank of notes and effects.

A `Plan` says what is heard: an instrument playing a motif, an effect once or several times, one followed by another or one over
another. `caption` words it, `events` lays it out as notes, `render` plays a batch of such layouts. The bank is built by sounds_build.py.

Held out by rule: a crc32 of what is heard (never of how it is worded) puts every combination of source, motif, speed and register,
every pair of sources, and every effect said more than once on one side: "model" (60 %), "scorer" (25 %) or "test" (15 %). Effects
heard once at ordinary loudness are all "shared", for else a sound would be unknown to one side. The recordings themselves
are shared by all sides: what is held out is the combination.
"""

import json
import zlib
from dataclasses import dataclass, field

import numpy as np
import torch

RATE = 16_000  # Hz
HOP = 320  # samples a latent frame: 50 frames a second, as EzAudio's
SAMPLES = 128 * HOP  # 2.56 s
SECONDS = SAMPLES / RATE
SLOTS = 12  # notes in a clip at most
STEP = 5  # semitones between the bank's notes of an instrument; what lies between is played faster or slower
NOTES = 6  # notes of an instrument in the bank

# name: (General MIDI programme, lowest note, what it does when it plays)
INSTRUMENTS = {
    "piano": (0, 45), "harpsichord": (6, 48), "glockenspiel": (9, 72), "music box": (10, 67), "vibraphone": (11, 53), "marimba": (12, 48),
    "xylophone": (13, 65), "tubular bell": (14, 60), "church organ": (19, 43), "accordion": (21, 53), "harmonica": (22, 60),
    "acoustic guitar": (24, 45), "electric guitar": (29, 45), "bass guitar": (33, 28), "violin": (40, 57), "cello": (42, 38),
    "pizzicato strings": (45, 45), "harp": (46, 45), "choir": (52, 50), "trumpet": (56, 54), "trombone": (57, 40), "tuba": (58, 29),
    "french horn": (60, 43), "saxophone": (65, 50), "oboe": (68, 60), "bassoon": (70, 36), "clarinet": (71, 52), "flute": (73, 62),
    "recorder": (74, 65), "ocarina": (79, 60), "sitar": (104, 48), "banjo": (105, 50), "kalimba": (108, 60), "bagpipe": (109, 58),
    "steel drum": (114, 55), "electronic beep": (-1, 57),
}  # fmt: skip
SUSTAINED = {"church organ", "accordion", "harmonica", "violin", "cello", "choir", "trumpet", "trombone", "tuba", "french horn", "saxophone", "oboe",
             "bassoon", "clarinet", "flute", "recorder", "ocarina", "bagpipe", "electronic beep"}  # fmt: skip
PLURAL = {"pizzicato strings"}

# key: (what it is, what it does, lasting). What lasts is looped under other sounds; the rest may be heard several times.
EFFECTS = {
    "splat": ("a wet splat", "something goes splat", False),
    "factory whistle": ("a factory whistle", "a factory whistle blows", False),
    "steam train": ("a steam train whistle", "a steam train whistles", False),
    "ship horn": ("a ship horn", "a ship sounds its horn", False),
    "propeller plane": ("a propeller plane starting", "a propeller plane starts its engine", True),
    "jet": ("a jet taking off", "a jet plane takes off", True),
    "train horn": ("a train horn", "a train sounds its horn", False),
    "machinery": ("machinery humming", "a machine hums", True),
    "sparks": ("electric sparks crackling", "electric sparks crackle", True),
    "steam": ("steam hissing", "steam hisses", True),
    "level crossing": ("a level crossing bell", "a level crossing bell rings", True),
    "crash": ("a crash", "something crashes", False),
    "explosion": ("an explosion", "a bomb explodes", False),
    "cash register": ("a cash register", "a cash register rings", False),
    "morse": ("morse code", "morse code beeps", False),
    "helicopter": ("a helicopter flying", "a helicopter flies by", True),
    "truck": ("a truck engine", "a truck pulls away", True),
    "bus": ("a bus starting", "a bus starts and drives off", True),
    "applause": ("applause", "a crowd applauds", True),
    "ooh": ("people saying ooh", "a crowd says ooh", False),
    "jackhammer": ("a jackhammer", "a jackhammer pounds", True),
    "car horn": ("a car horn", "a car honks", False),
    "sheep": ("a sheep bleating", "a sheep bleats", False),
    "cow": ("a cow mooing", "a cow moos", False),
    "horse": ("a horse neighing", "a horse neighs", False),
    "anvil": ("hammering on an anvil", "a smith hammers on an anvil", True),
    "saw": ("a circular saw cutting wood", "a circular saw cuts wood", True),
    "bubbles": ("bubbles", "water bubbles", True),
    "slurp": ("a slurp", "somebody slurps a drink", False),
    "wind": ("wind blowing", "the wind blows", True),
    "tree": ("a tree falling", "a tree falls", False),
    "chainsaw": ("a chainsaw running", "a chainsaw runs", True),
    "train": ("a train passing", "a train passes by", True),
    "tropical bird": ("a tropical bird calling", "a tropical bird calls", False),
    "lion": ("a lion roaring", "a lion roars", False),
    "monkeys": ("monkeys screeching", "monkeys screech", False),
    "crow": ("a crow cawing", "a crow caws", False),
    "burp": ("a burp", "somebody burps", False),
    "hand bell": ("a hand bell", "a hand bell rings", False),
    "finger snap": ("a finger snap", "somebody snaps their fingers", False),
    "door": ("a door closing", "a door closes", False),
    "whoosh": ("a whoosh", "something whooshes by", False),
    "thud": ("a heavy thud", "something heavy falls", False),
    "record scratch": ("a record scratch", "a record is scratched", False),
    "vinyl": ("the crackle of a vinyl record", "a vinyl record crackles", True),
    "rewind": ("a tape rewinding", "a tape is rewound", False),
    "wine glass": ("a wine glass being rubbed", "a wine glass hums", True),
    "boom": ("a deep boom", "a deep boom sounds", False),
    "drum roll": ("a drum roll", "a drummer plays a drum roll", True),
    "cowbell": ("a cowbell", "a cowbell is struck", False),
    "snare drum": ("a snare drum", "a snare drum is hit", False),
    "kick drum": ("a kick drum", "a kick drum is hit", False),
    "tom": ("a tom drum", "a tom drum is hit", False),
    "cymbal": ("a cymbal crash", "a cymbal crashes", False),
    "hi-hat": ("a closed cymbal", "a closed cymbal is tapped", False),
    "tabla": ("a tabla drum", "a tabla is struck", False),
    "drum loop": ("a drum beat", "a drummer plays a beat", True),
    "robot": ("a robot talking", "a robot talks", False),
    "toy phone": ("a toy phone", "a toy phone beeps", False),
    "seashore": ("waves on the seashore", "waves break on the shore", True),
    "bird": ("a bird chirping", "a bird chirps", False),
    "telephone": ("a telephone ringing", "a telephone rings", False),
    "gun": ("a gun shot", "a gun fires", False),
    "hand clap": ("a hand clap", "somebody claps their hands", False),
    "tambourine": ("a tambourine", "a tambourine is shaken", False),
    "bongo": ("a bongo drum", "a bongo is hit", False),
    "maracas": ("maracas", "maracas are shaken", False),
    "wood block": ("a wood block", "a wood block is struck", False),
    "triangle": ("a triangle", "a triangle is struck", False),
    "referee": ("a referee's whistle", "a referee blows a whistle", False),
    "timpani": ("a kettledrum", "a kettledrum is hit", False),
    "reverse cymbal": ("a reversed cymbal", "a cymbal is played backwards", False),
    "siren": ("a siren wailing", "a siren wails", True),
    "static": ("radio static", "a radio hisses with static", True),
    "clock": ("a clock ticking", "a clock ticks", True),
    "heartbeat": ("a heartbeat", "a heart beats", True),
    "alarm": ("an alarm beeping", "an alarm beeps", True),
    "sweep up": ("a rising electronic sweep", "an electronic tone sweeps upwards", False),
    "sweep down": ("a falling electronic sweep", "an electronic tone sweeps downwards", False),
}  # fmt: skip
LASTING = [key for key, (_, _, lasting) in EFFECTS.items() if lasting]
BRIEF = [key for key in EFFECTS if key not in LASTING]

MOTIFS = ("one", "two", "three", "four", "up", "down", "arpeggio up", "arpeggio down", "trill", "chord")
SPEEDS, REGISTERS, LEVELS = ("slow", "", "fast"), ("low", "", "high"), ("soft", "", "loud")
GAIN = {"soft": 0.2, "": 0.55, "loud": 1.1}  # of the bank's level
GAPS = {"slow": 0.46, "": 0.27, "fast": 0.14}  # seconds from note to note
ROOTS = {"low": (0, 3), "": (7, 9), "high": (13, 15)}  # semitones above the instrument's lowest note
SCALE, CHORD = (0, 2, 4, 5, 7, 9, 11, 12), (0, 4, 7, 12)
COUNTS = {"two": 2, "three": 3, "four": 4}
TIMES = {1: "", 2: " twice", 3: " three times", 4: " four times"}


@dataclass(frozen=True)
class Part:
    """One source: an instrument with its motif, speed and register, or an effect heard `count` times."""

    source: str
    motif: str = ""  # of MOTIFS; empty for an effect
    speed: str = ""
    register: str = ""
    level: str = ""
    count: int = 1

    @property
    def key(self) -> str:
        return f"{self.source}|{self.motif}|{self.speed}|{self.register}" if self.motif else f"{self.source}|{self.count}|{self.level}"

    @property
    def side(self) -> str:
        plain = not self.motif and self.count == 1 and not self.level
        return "shared" if plain else side(self.key)


@dataclass(frozen=True)
class Plan:
    """What is heard. `relation`: "" for one part, "then" for one after the other, "over" for the first over a lasting second."""

    parts: tuple[Part, ...]
    relation: str = ""
    jitter: float = field(default=0.0, compare=False)  # seconds that everything starts later

    @property
    def key(self) -> str:
        return f" {self.relation} ".join(part.source for part in self.parts) if self.relation else self.parts[0].key

    @property
    def side(self) -> str:
        """The side of the pair, or "none" where a part belongs to another side: such a clip is given to nobody."""
        if not self.relation:
            return self.parts[0].side
        own, of_parts = side(self.key), {part.side for part in self.parts} - {"shared"}
        return own if own == "test" or of_parts <= {own} else "none"


def side(key: str) -> str:
    number = zlib.crc32(key.encode()) % 20
    return "test" if number < 3 else "scorer" if number < 8 else "model"


# --- drawing a plan ---------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _instrument(rng, brief: bool = False) -> Part:
    name, level = _pick(rng, list(INSTRUMENTS)), "" if brief else _pick(rng, ("", "", *LEVELS))
    motif = _pick(rng, ("one", "two", "three", "up", "down") if brief else MOTIFS)
    speed = "fast" if brief and motif in ("up", "down") else "" if motif in ("one", "chord", "trill") or brief else _pick(rng, SPEEDS)
    return Part(name, motif, speed, _pick(rng, ("low", "high") if rng.random() < 0.7 else REGISTERS), level)


def _effect(rng, brief: bool = False) -> Part:
    key = _pick(rng, BRIEF if brief or rng.random() < 0.7 else LASTING)
    level = "" if brief else _pick(rng, ("", "", *LEVELS))
    return Part(key, level=level, count=1 if brief or key in LASTING or rng.random() < 0.4 else int(rng.integers(2, 5)))


def _draw(rng: np.random.Generator) -> Plan:
    kind, jitter = rng.random(), float(rng.random() * 0.08)
    if kind < 0.45:
        return Plan((_instrument(rng),), jitter=jitter)
    if kind < 0.67:
        return Plan((_effect(rng),), jitter=jitter)
    first = _instrument(rng, True) if rng.random() < 0.5 else _effect(rng, True)
    if kind < 0.9:
        return Plan((first, _instrument(rng, True) if rng.random() < 0.5 else _effect(rng, True)), "then", jitter)
    return Plan((first, Part(_pick(rng, LASTING))), "over", jitter)


def sample(rng: np.random.Generator, sides: tuple[str, ...]) -> Plan:
    """A plan of one of these sides: ("model", "shared") to train a generator, ("scorer", "shared") its judge, ("test",) to test."""
    while True:
        plan = _draw(rng)
        if plan.side in sides and len({part.source for part in plan.parts}) == len(plan.parts):
            return plan


# --- wording it -------------------------------------------------------------------------------------------


def a(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _player(name: str) -> str:
    return name if name in PLURAL else a(name)


def _play(name: str) -> str:
    return "play" if name in PLURAL else "plays"


def _words(*words: str) -> str:
    return " ".join(word for word in words if word)


def _notes(part: Part, speed: str, register: str, level: str) -> tuple[str, str]:
    """What is played, as (object of "plays", noun phrase with the instrument in it)."""
    of = {"pizzicato strings": "pizzicato string"}.get(part.source, part.source)
    if part.motif in COUNTS:
        tail = _words(speed, register)
        return _words(part.motif, level, tail, "notes"), _words(part.motif, level, tail, of, "notes")
    if part.motif in ("one", "chord"):
        noun = "note" if part.motif == "one" else "chord"
        return a(_words(level or ("single" if part.motif == "one" else ""), register, noun)), a(_words(level, register, of, noun))
    noun = {"up": "rising scale", "down": "falling scale", "arpeggio up": "rising arpeggio", "arpeggio down": "falling arpeggio", "trill": "trill"}[part.motif]
    return a(_words(level, speed, register, noun)), _words(a(_words(level, speed, register, noun)), "on", _player(part.source))


def phrase(part: Part, rng: np.random.Generator, clause: bool) -> str:
    """The part in words, as a clause ("a sheep bleats twice") or a noun phrase ("a sheep bleating"); may leave attributes unsaid."""
    says = lambda word: word if rng.random() < 0.85 else ""  # noqa: E731
    if part.motif:
        if rng.random() < 0.06:
            return f"{_player(part.source)} {_play(part.source)}" if clause else f"the sound of {_player(part.source)}"
        played, noun = _notes(part, says(part.speed), says(part.register), says(part.level))
        return f"{_player(part.source)} {_play(part.source)} {played}" if clause else noun
    noun, does, _ = EFFECTS[part.source]
    level = {"soft": "softly", "loud": "loudly"}.get(says(part.level), "")
    if part.count > 1 or clause:
        return _words(does, level) + TIMES[part.count]
    return _words(noun, level if " " in noun and noun.split()[-1].endswith("ing") else {"softly": "in the distance", "loudly": "very loud"}.get(level, ""))


def caption(plan: Plan, rng: np.random.Generator) -> str:
    clause = rng.random() < 0.6
    first = phrase(plan.parts[0], rng, clause)
    if not plan.relation:
        return first
    second = phrase(plan.parts[1], rng, clause)
    if plan.relation == "then":
        joints = (", then ", " and then ") if clause else (" followed by ", ", then ")
        return first + joints[rng.integers(2)] + second
    return first + ((" while ", " as ") if clause else (" with ", " over "))[rng.integers(2)] + (second if clause else second + " in the background")


# --- laying it out ----------------------------------------------------------------------------------------


class Bank:
    """Every note and effect as one line of samples on the device.

    `audio` (N,) float; `starts`, `lengths` (rows,) in samples; `gains` (rows,) bring a row to the common level; `rows` names them:
    an instrument's NOTES rows from its lowest note on, an effect's variants.
    """

    def __init__(self, path, device="cpu"):
        with np.load(path) as stored:
            audio, self.rows = mu_law_decode(stored["audio"]), json.loads(bytes(stored["rows"]).decode())
            self.lengths, gains = stored["lengths"].astype(np.int64), stored["gains"]
        starts = np.concatenate([[0], self.lengths.cumsum()[:-1]])
        self.seconds = self.lengths / RATE
        self.audio = torch.from_numpy(audio).to(device)
        self.starts, self.sizes, self.gains = (torch.from_numpy(x).to(device) for x in (starts, self.lengths, gains))


def mu_law_encode(x: np.ndarray) -> np.ndarray:
    """float in [-1, 1] to uint8, ITU-T G.711's curve with μ = 255."""
    return np.round((np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256) + 1) * 127.5).astype(np.uint8)


def mu_law_decode(codes: np.ndarray) -> np.ndarray:
    y = codes.astype(np.float32) / 127.5 - 1
    return (np.sign(y) * (256 ** np.abs(y) - 1) / 255).astype(np.float32)


def _steps(part: Part, rng, longest: float) -> list[tuple[float, int]]:
    """(onset in seconds, semitones above the root) of an instrument's motif that ends within `longest` seconds."""
    gap = GAPS[part.speed] * (0.93 + 0.14 * rng.random())
    if part.motif == "one":
        return [(0.0, 0)]
    if part.motif == "chord":
        return [(0.0, s) for s in CHORD]
    if part.motif in COUNTS:
        return [(i * max(gap, 0.18), 0) for i in range(COUNTS[part.motif])]
    if part.motif == "trill":
        return [(i * 0.105, 2 * (i % 2)) for i in range(SLOTS)]
    scale = CHORD if "arpeggio" in part.motif else SCALE if gap * 8 < longest else SCALE[:5]
    scale = scale if "up" in part.motif else scale[::-1]
    return [(i * gap, s) for i, s in enumerate(scale)]


def _lay(part: Part, bank: Bank, rng, begin: float, end: float, slots: int) -> list[list[float]]:
    rows, gain = bank.rows[part.source], GAIN[part.level] * (0.85 + 0.3 * rng.random())
    if part.motif:
        low, high = ROOTS[part.register]
        root, steps = int(rng.integers(low, high + 1)), _steps(part, rng, end - begin)[:slots]
        gain *= 0.5 if part.motif == "chord" else 0.85
        out = []
        for i, (onset, above) in enumerate(steps):
            note = min(NOTES - 1, max(0, round((root + above) / STEP)))
            ratio = 2 ** ((root + above - note * STEP) / 12)
            if part.motif in ("one", "chord"):
                gap = 1.2
            else:  # the last note rings on
                gap = steps[i + 1][0] - onset if i + 1 < len(steps) else max(0.6, 1.5 * gap)
            sounding = gap * (0.95 if part.source in SUSTAINED else 1.6)
            out.append([rows[note], ratio, begin + onset, min(sounding, end - begin - onset, bank.seconds[rows[note]] / ratio), gain, 0.004, 0.04])
        return out
    row, ratio = _pick(rng, rows), 2 ** (rng.normal() * 0.7 / 12)
    length = float(bank.seconds[row] / ratio)
    if part.source in LASTING:  # go round, each turn fading into the next
        out, at, fade = [], begin, min(0.2, length / 4)
        while at < end - 0.05 and len(out) < slots:
            out.append([row, ratio, at, min(length, end - at), gain, 0.01 if not out else fade, min(fade, 0.1) if at + length > end else fade])
            at += length - fade
        return out
    gap = (end - begin) / part.count if part.count > 1 else end - begin
    gap = min(gap, max(0.28, min(length, 0.75) * 1.1))
    return [[row, ratio, begin + i * gap, min(length, gap if i + 1 < part.count else end - begin - i * gap), gain, 0.002, 0.03] for i in range(part.count)]


def events(plan: Plan, bank: Bank, rng: np.random.Generator) -> np.ndarray:
    """(SLOTS, 7) float32: row of the bank, speed of playing, onset s, length s, gain, fade-in s, fade-out s. Unused slots are zero."""
    begin, end = 0.02 + plan.jitter, SECONDS
    if plan.relation == "then":
        middle = 1.22 + 0.1 * rng.random()
        made = _lay(plan.parts[0], bank, rng, begin, middle, 5) + _lay(plan.parts[1], bank, rng, middle + 0.05, end, 5)
    elif plan.relation == "over":
        made = _lay(plan.parts[0], bank, rng, 0.5 + 0.5 * rng.random(), end, 6) + _lay(plan.parts[1], bank, rng, 0.0, end, 6)
        for event in made:
            event[4] *= 0.4 if event[0] in bank.rows[plan.parts[1].source] else 1.3
    else:
        made = _lay(plan.parts[0], bank, rng, begin, end, SLOTS)
    out = np.zeros((SLOTS, 7), np.float32)
    out[: len(made)] = made[:SLOTS]
    return out


def render(bank: Bank, layout: torch.Tensor, samples: int = SAMPLES) -> torch.Tensor:
    """(B, samples) in [-1, 1] of (B, SLOTS, 7) `events`, on the bank's device: each note read at its own speed, linearly between samples."""
    layout = layout.to(bank.audio.device)
    clock = torch.arange(samples, device=bank.audio.device) / RATE
    out = torch.zeros(len(layout), samples, device=bank.audio.device)
    for slot in layout.unbind(1):
        row, ratio, onset, length, gain, rise, fall = slot.unbind(1)
        row = row.long()
        t = clock - onset[:, None]
        at = t * RATE * ratio[:, None]
        heard = (t >= 0) & (t < length[:, None]) & (at < bank.sizes[row][:, None] - 1)
        at = at.clamp_min(0).minimum(bank.sizes[row][:, None] - 2)
        i = at.long()
        place = i + bank.starts[row][:, None]
        x = torch.lerp(bank.audio[place], bank.audio[place + 1], at - i)
        shape = (t / rise[:, None].clamp_min(1e-4)).clamp(0, 1) * ((length[:, None] - t) / fall[:, None].clamp_min(1e-4)).clamp(0, 1)
        out += torch.where(heard, x * shape * (gain * bank.gains[row])[:, None], 0.0)
    return out / (out.abs().amax(1, keepdim=True) / 0.95).clamp_min(1)
