"""The core types: what is asked (Task, Job), how it is tuned (Knob), what a method says (events, media).

Plain dataclasses, no torch, no gradio. A method is a generator function `f(job, model, **knobs)` that yields
events; its signature is its form.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np


class BadInput(ValueError):
    """A mistake in what was asked, as one sentence that says what to change. Shown to the user as it is, but for what it repeats of the input: characters
    that can't be seen or sent become “�”, and more than LONGEST is left out."""

    LONGEST = 1500  # characters

    def __init__(self, said: object = ""):
        seen = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in str(said))
        super().__init__(seen if len(seen) <= self.LONGEST else f"{seen[: self.LONGEST - 403]} … {seen[-400:]}")


# --- media: what can be shown ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """`pixels`: (H, W, 3) uint8. `before`: what it was made from, of any size, (H, W, 3) uint8; shown under a slider."""

    pixels: np.ndarray
    caption: str = ""
    before: np.ndarray | None = None


@dataclass(frozen=True)
class Images:
    """Several pictures in a row, each (H, W, 3) uint8, with a label each."""

    items: tuple[Image, ...]


@dataclass(frozen=True)
class Plot:
    """Curves: `series` maps a label to (xs, ys). `marks`: x positions worth a vertical line, with a label."""

    series: dict[str, tuple[list[float], list[float]]]
    x: str = "step"
    y: str = ""
    marks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple, ...]


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Tokens:
    """A text on its way, token by token. `pieces`: what each token reads as, empty while masked; `confidence`: 0 to 1 each.

    `marks`: a letter each: g given, m masked, n new in this step, k kept, r masked again. `text`: the answer read as text.
    `past`: on a result, every step on the way to it.
    """

    pieces: tuple[str, ...]
    confidence: tuple[float, ...]
    marks: str
    text: str = ""
    past: tuple["Tokens", ...] = ()


@dataclass(frozen=True)
class Heat:
    """A map of values from 0 to 1: `values[row][column]`, NaN where there is none yet; `x`, `y`: what columns and rows are."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    x: str = ""
    y: str = ""


@dataclass(frozen=True, eq=False)  # known by identity: a page's state is hashed
class Audio:
    """Sound, one channel. `samples`: (T,) float32 in [-1, 1] at `rate` per second; `marks`: label -> seconds, drawn on the wave."""

    samples: np.ndarray
    rate: int
    caption: str = ""
    marks: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True, eq=False)  # known by identity: a page's state is hashed
class Spectrogram:
    """`values`: (bins, frames) float32, dB or another log unit, the low row the low frequency; of `seconds`, up to `top` Hz.

    `mel`: whether the rows are even in mel, not in Hz.
    """

    values: np.ndarray
    seconds: float
    top: float
    caption: str = ""
    mel: bool = True


@dataclass(frozen=True, eq=False)  # known by identity: a page's state is hashed
class Mesh:
    """A surface. `vertices`: (V, 3) float32, y up, the front along +z; `faces`: (F, 3) int32; `colours`: (F, 3) uint8, one a face."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


@dataclass(frozen=True, eq=False)
class Turntable:
    """An object from all around. `frames`: (N, H, W, 3) uint8, a full turn from the front on; `mesh`: its surface, None where it has none.

    `splats`: a PLY file of 3D Gaussians, empty where it is made of something else.
    """

    frames: np.ndarray
    mesh: Mesh | None = None
    caption: str = ""
    splats: bytes = b""


@dataclass(frozen=True, eq=False)  # known by identity: a page's state is hashed
class Cube:
    """A picture of many bands. `values`: (H, W, B) float32 in [0, 1], rounded to 16 bits; `wavelengths`: nm of each band, () where not known.

    `low`, `high`: what 0 and 1 stand for in the unit of the file it came from. `picture`: three of its bands as colours, beside those of what it
    was made from.
    """

    values: np.ndarray
    wavelengths: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 1.0
    picture: Image | None = None


Media = Image | Images | Plot | Table | Text | Tokens | Heat | Audio | Spectrogram | Turntable | Cube


# --- events: what a method yields ------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Step `i` of `n` is done. `show`: a Media, or latents that the model's previewer turns into an Image.

    `aside`: what is particular to the method (curves, heat maps), shown beside the picture. `keep`: what a stopped
    arm leaves as its result when that is not what was shown last, such as the best find of a search. Each may be a function
    that gives it, which the runner calls only when the step is shown (`keep`: when the arm is stopped), while the clock stands.
    """

    i: int
    n: int
    show: Any = None
    aside: tuple[Media, ...] | Callable[[], tuple[Media, ...]] = ()
    keep: Media | Callable[[], Media] | None = None


@dataclass(frozen=True)
class Metric:
    """A measured figure. `better`: which way is better, for the table's highlighting; `aside`: small print under it."""

    name: str
    value: float
    better: Literal["higher", "lower", ""] = ""
    aside: str = ""


@dataclass(frozen=True)
class Note:
    text: str


@dataclass(frozen=True)
class Result:
    """The last event of a method. `aside` as in Step."""

    value: Media
    aside: tuple[Media, ...] = ()


Event = Step | Metric | Note | Result
Events = Iterator[Event]


# --- jobs: the inputs a comparison holds equal -----------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """Marks a text field of a Job: longest length in characters, and whether it may be empty.

    `files`: endings of files that the page can fill it from, by `read`, "module:function", called as f(bytes, the field's text) ->
    ({field: value}, notes to the visitor); `fills`: the fields it gives.
    """

    limit: int = 2000
    required: bool = True
    help: str = ""
    files: tuple[str, ...] = ()
    read: str = ""
    fills: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """Marks an image field of a Job, (H, W, 3) uint8 or None. `mask_of`: painted on the picture named so.

    `longest`: the page shrinks a larger upload to this side in px, so that results, which carry their inputs, stay small. `smallest`: px that a side must have.
    """

    required: bool = True
    mask_of: str = ""
    help: str = ""
    longest: int = 1024
    smallest: int = 1


@dataclass(frozen=True)
class Sound:
    """Marks a sound field of a Job, Audio or None, at the rate it came with. `longest`: seconds; longer ones are refused. `of`: the field
    whose sound it belongs to; taken away there, it goes too."""

    required: bool = True
    help: str = ""
    longest: float = 60.0
    of: str = ""


@dataclass(frozen=True)
class Shape:
    """Marks an object field of a Job, Mesh or None. A recipe may also name one of the studio's objects, as “horse”."""

    required: bool = True
    help: str = ""


@dataclass(frozen=True)
class Spectra:
    """Marks a cube field of a Job, Cube or None."""

    required: bool = True
    help: str = ""


@dataclass(frozen=True)
class Job:
    """What every task asks. `seed`: 0 to 2³²−1; `model`: a card's name, the task's default when empty."""

    model: str = ""
    seed: Annotated[int, "seed"] = 0


# --- knobs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slider:
    low: float
    high: float
    step: float | None = None
    unit: str = ""
    help: str = ""
    tried: tuple[float, ...] = ()  # what a grid along it is offered, where half the default, itself and twice it would say little


@dataclass(frozen=True)
class Choice:
    options: tuple[str | float, ...]
    help: str = ""


@dataclass(frozen=True)
class Toggle:
    help: str = ""


@dataclass(frozen=True)
class TextKnob:
    limit: int = 400
    help: str = ""


Control = Slider | Choice | Toggle | TextKnob


@dataclass(frozen=True)
class Knob:
    """One setting of a method, read from its signature."""

    name: str
    control: Control
    default: Any

    @property
    def kind(self) -> type:
        return type(self.default)

    def check(self, value: Any, where: str) -> Any:
        """Return `value` as the knob's type; raises BadInput naming the range when it does not fit."""
        control = self.control
        if isinstance(control, Toggle):
            if isinstance(value, bool):
                return value
            raise BadInput(f"{where}: {self.name} is on or off; give true or false.")
        if isinstance(control, Choice):
            if value in control.options:
                return value
            raise BadInput(f"{where}: {self.name} must be one of {', '.join(map(str, control.options))}.")
        if isinstance(control, TextKnob):
            if isinstance(value, str) and len(value) <= control.limit:
                return value
            raise BadInput(f"{where}: {self.name} must be a text of at most {control.limit} characters.")
        whole = self.kind is int
        span = f"{where}: {self.name} must be a {'whole ' if whole else ''}number from {control.low:.10g} to {control.high:.10g}."
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(span)
        if not control.low <= value <= control.high or (whole and value != int(value)):
            raise BadInput(span)
        return self.kind(value)


# Shared by the methods of many tasks.
Steps = Annotated[int, Slider(1, 100, 1, help="denoising steps")]
Guidance = Annotated[float, Slider(1, 15, 0.1, help="strength of the prompt; 1 is no guidance")]


@dataclass(frozen=True)
class Brings:
    """What a visitor may add to a task's models, as one or several files with the endings `files`.

    `read`: "module:function", called as f(paths, held) -> Brought, with what came and the `held` of the Brought before; it may raise BadInput. `label`: words on the button; `help`: what it takes.
    """

    read: str
    label: str
    files: tuple[str, ...] = (".zip",)
    help: str = ""


@dataclass(frozen=True)
class Brought:
    """The card's name, or "" where more is needed; `held`: what waits for it, to be given back with the next files; `said`: a sentence to the visitor."""

    name: str = ""
    held: tuple[str, ...] = ()
    said: str = ""


# --- tasks and methods -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What is asked: owns the tab, the Job type, the metrics and the default baseline.

    `metrics`: "module:function", called as f(job, value, reference) -> list[Metric] after each arm;
    `reference` is the first arm's result, or None for the first arm itself. `pictures`: whether its arms give pictures.
    """

    slug: str
    title: str
    job: type[Job]
    baseline: str
    model: str  # the default card
    metrics: str = ""
    help: str = ""
    examples: tuple[dict, ...] = ()  # recipes' "job" (and "arms") parts, one click each; "title" where no words of the job tell them apart
    pictures: bool = True
    brings: Brings | None = None
    ready: bool = True  # False: its model is not trained far enough to be shown; recipes and tests reach it, the page does not


Slot = Literal["wrap", "walk", "patch", ""]


@dataclass(frozen=True)
class Method:
    """A registered generator function. `slot`: the part it can play in a stack; `piece` builds that part.

    `holds`: the slots of pieces that may be stacked under it.
    """

    slug: str
    title: str
    task: Task
    needs: frozenset[str]
    function: Callable[..., Events]
    knobs: tuple[Knob, ...]
    summary: str
    doc: str
    slot: Slot = ""
    piece: Callable[..., Any] | None = None
    piece_knobs: tuple[Knob, ...] = ()
    holds: frozenset[str] = frozenset()
    paper: bool = True  # False for a baseline that is not one of the 79
    loads: Callable[..., tuple[str, ...]] | None = None  # loads(model, **knobs): further cards, got before the clock starts; may raise BadInput
    prepare: Callable[..., object] | None = None  # prepare(model, **knobs) reads what it needs besides cards, likewise
    clashes: dict[str, str] = field(default_factory=dict)  # a method that can't share an arm -> the sentence that says why


@dataclass(frozen=True)
class Stacked:
    """A piece in a stack: which method gives it, and its knobs."""

    method: str
    knobs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One column of a comparison, or one cell of a grid. `job`: fields of the job, the model among them, that a cell has for itself."""

    method: str
    knobs: dict[str, Any] = field(default_factory=dict)
    stack: tuple[Stacked, ...] = ()
    job: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the runner measured of one arm; complete when `error` is empty and `stopped` is false."""

    arm: int
    seconds: float
    nfe: int
    peak_mb: float
    metrics: tuple[Metric, ...]
    value: Media | None
    recipe: dict
    stopped: bool = False
    error: str = ""


@dataclass(frozen=True)
class Held:
    """The arm waits between two steps because a visitor paused it. `left`: seconds after which it goes on by itself; 0: it does so now,
    and this run is not held again."""

    left: float


@dataclass(frozen=True)
class ArmEvent:
    """An event of arm number `arm`, with the seconds and function evaluations so far."""

    arm: int
    event: Event | Outcome | Held
    seconds: float = 0.0
    nfe: int = 0


def fields_of(job: type[Job]) -> dict[str, dataclasses.Field]:
    return {f.name: f for f in dataclasses.fields(job)}


def marks(job: type[Job]) -> dict[str, Any]:
    """field -> Prompt, Picture, Sound, Shape, Spectra, Slider, Choice, Toggle, "seed"; the model has no mark."""
    hints = typing.get_type_hints(job, include_extras=True)
    return {name: get_args(hint)[1] for name, hint in hints.items() if get_origin(hint) is Annotated}
