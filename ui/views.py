"""One function a medium: what a method yields -> HTML that fits light and dark. All text is escaped."""

import json
import math
from html import escape

import numpy as np
import PIL.Image

from backends import colours, stills
from backends.spec import (
    ArmEvent,
    Audio,
    Cube,
    Heat,
    Held,
    Image,
    Images,
    Media,
    Metric,
    Note,
    Outcome,
    Plot,
    Spectrogram,
    Step,
    Table,
    Text,
    Tokens,
    Turntable,
)
from ui import cube, inline, sound, turntable

DRAWN = 100  # points at most of a curve; of longer ones means of neighbours, since a line to and fro at each step hides the others
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 168, 40, 24, 8  # of a plot, in its own units


def number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


# --- media -----------------------------------------------------------------------------------------------


def media(value: Media, *paths: str) -> str:
    """`paths`: the file that a sound's player plays, or those of an object or cube; without one a sound is only drawn."""
    if isinstance(value, Plot):
        return plot(value)
    if isinstance(value, Images):
        return '<div class="pictures">' + "".join(_figure(i) for i in value.items) + "</div>"
    if isinstance(value, Image):
        return '<div class="pictures">' + _figure(value) + "</div>"
    if isinstance(value, Table):
        return table(value.columns, value.rows)
    if isinstance(value, Tokens):
        return tokens(value)
    if isinstance(value, Heat):
        return heat(value)
    if isinstance(value, Audio):
        return sound.audio(value, *paths)
    if isinstance(value, Spectrogram):
        return sound.spectrogram(value)
    if isinstance(value, Turntable):
        return turntable.html(value, *paths)
    if isinstance(value, Cube):
        return cube.html(value, *paths)
    if isinstance(value, Text):
        return f'<p class="text">{escape(value.text)}</p>'
    return ""


LEGEND = (
    '<p class="legend"><span style="--c:.2">unsure</span><span style="--c:.6"></span><span style="--c:1">sure</span>'
    '<span class="n" style="--c:1">new</span><span class="r">taken back</span><i>∎ end, · space</i></p>'
)
SCROLL = '<div class="scroll" tabindex="0" role="region" aria-label="table">'  # wider than a phone: the keyboard moves it too
SCRUBBED = 64  # steps that the scrubber keeps; of longer runs an even choice


def tokens(value: Tokens) -> str:
    """The answer as a grid of tokens, coloured by confidence; with a past, a scrubber over its steps (its script is in theme.py)."""
    cells = "".join(f'<span class="{mark}" style="--c:{sure:.2f}" title="{sure:.0%}">{_shown(piece)}</span>' for piece, sure, mark in _cells(value))
    past, scrub = value.past, ""
    if len(past) > 1:
        chosen = sorted({round(i * (len(past) - 1) / (min(len(past), SCRUBBED) - 1)) for i in range(min(len(past), SCRUBBED))})
        steps = json.dumps(
            [[i + 1, [[_shown_raw(p), round(s, 2), m] for p, s, m in _cells(past[i])]] for i in chosen], ensure_ascii=False, separators=(",", ":")
        )
        scrub = (
            f'<label class="scrub"><input type="range" min="0" max="{len(chosen) - 1}" value="{len(chosen) - 1}" aria-label="step" data-steps="{escape(steps)}">'
            f"<output>step {len(past)}/{len(past)}</output></label>"
        )
    said = f'<p class="text answer">{escape(value.text)}</p>' if value.text.strip() else ""
    return f'<div class="tokens"><div class="grid">{cells}</div>{scrub}{LEGEND}</div>{said}'


def heat(value: Heat) -> str:
    """A map as a table whose cells are coloured by their value."""
    head = "".join(f"<th>{escape(c)}</th>" for c in value.columns)
    body = "".join(f"<tr><th>{escape(name)}</th>{''.join(_warm(v) for v in row)}</tr>" for name, row in zip(value.rows, value.values, strict=True))
    corner = f"{escape(value.y)} ↓ · {escape(value.x)} →" if value.x or value.y else ""
    return f'{SCROLL}<table class="heat"><caption>{corner}</caption><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _warm(value: float) -> str:
    return f'<td style="--c:{value:.2f}">{100 * value:.0f}</td>' if math.isfinite(value) else '<td class="m"></td>'


def _cells(value: Tokens):
    return zip(value.pieces, value.confidence, value.marks, strict=True)


def _shown_raw(piece: str) -> str:
    """A token's text with its white space to be seen; masked ones are empty."""
    return piece.replace(" ", "\u00b7").replace("\n", "\u21b5") if piece.strip() != piece or not piece else piece


def _shown(piece: str) -> str:
    return escape(_shown_raw(piece))


def data_uri(pixels: np.ndarray, side: int = 192, kind: str = "PNG") -> str:
    """A small inline picture."""
    picture = PIL.Image.fromarray(pixels)
    if max(picture.size) > side:
        picture.thumbnail((side, side))
    return inline.data_uri(picture, kind)


def thumbnail(value: Media, side: int = 96) -> str:
    """A medium as small HTML: a picture of `side` px at most, a plot, or words."""
    if isinstance(value, Plot):
        return f'<div class="small">{plot(value)}</div>'
    drawn = stills.still(value)
    if isinstance(drawn, str):
        return f'<p class="words">{escape(drawn)}</p>'
    alt = "sound" if isinstance(value, Audio | Spectrogram) else "map" if isinstance(value, Heat) else ""
    return f'<img alt="{alt}" src="{data_uri(drawn, side, "JPEG")}">'


def _figure(image: Image) -> str:
    caption = f"<figcaption>{escape(image.caption)}</figcaption>" if image.caption else ""
    height, width = image.pixels.shape[:2]
    # A row of cells takes the whole line, and so does what time runs through.
    kind, side = (' class="strip"', 640) if width > 4 * height else (' class="wide"', 640) if width > 2 * height else ("", 192)
    return f'<figure{kind}><img alt="{escape(image.caption)}" src="{data_uri(image.pixels, side)}">{caption}</figure>'


def table(columns, rows) -> str:
    head = "".join(f"<th>{escape(str(c))}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(v)}</td>" for v in row) + "</tr>" for row in rows)
    return f'{SCROLL}<table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else escape(str(value))


def plot(value: Plot) -> str:
    """A line chart as SVG: crisp at any size, coloured by the page's own variables."""
    drawn = {name: [(x, y) for x, y in zip(*points) if math.isfinite(x) and math.isfinite(y)] for name, points in value.series.items()}
    each = math.ceil(max(map(len, drawn.values()), default=0) / DRAWN)
    drawn = {name: _means(points, each) for name, points in drawn.items() if points}
    flat = [p for points in drawn.values() for p in points]
    if not flat:
        return ""
    xs, ys = [p[0] for p in flat] + list(value.marks.values()), [p[1] for p in flat]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, pad = x1 if x1 > x0 else x0 + 1, (y1 - y0) * 0.08 or abs(y1) * 0.05 or 1
    y0, y1 = y0 - pad, y1 + pad

    def at(x, y):
        return LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 8), TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in _ticks(y0, y1):
        y = at(x0, tick)[1]
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/><text x="{LEFT - 5}" y="{y + 3:.1f}" text-anchor="end">{tick:.4g}</text>'
        )
    for tick in _ticks(x0, x1, 6, whole=all(x == int(x) for x in xs)):
        parts.append(f'<text x="{at(tick, y0)[0]:.1f}" y="{HEIGHT - BOTTOM + 12}" text-anchor="middle">{tick:.4g}</text>')
    parts.append(f'<text class="axis" x="{WIDTH - 8}" y="{HEIGHT - 2}" text-anchor="end">{escape(value.x)}{f", means of {each}" if each > 1 else ""}</text>')
    if value.y:
        parts.append(f'<text class="axis" x="{LEFT}" y="{HEIGHT - 2}">↑ {escape(value.y)}</text>')
    for label, x in value.marks.items():
        px = at(x, y0)[0]
        side = ("end", -4) if px > WIDTH / 2 else ("start", 4)
        parts.append(f'<line class="mark" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
                     f'<text class="marked" x="{px + side[1]:.1f}" y="{(TOP + HEIGHT - BOTTOM) / 2:.0f}" text-anchor="{side[0]}">{escape(label)}</text>')  # fmt: skip
    legend, turn, levels = [], 0, 0
    for i, (name, points) in enumerate(drawn.items()):
        level = i > 0 and len(points) > 1 and len({y for _, y in points}) == 1  # a threshold, not a curve
        kind = ("level", "level other")[levels % 2] if level else f"s{turn % 5}"
        turn, levels = turn + (not level), levels + level
        places = [at(*p) for p in points]
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        if not level:
            parts.append(f'<circle class="{kind}" cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="2.6"/>')
        legend.append(f'<span class="{kind}">{escape(name)}</span>')
    told = "; ".join(f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in drawn.items())
    told = escape(f"{value.y or 'values'} over {value.x}: {told}")
    head = f'<figure class="plot"><figcaption>{"".join(legend)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
    return f"{head}{''.join(parts)}</svg></figure>"


def _means(points: list[tuple[float, float]], each: int) -> list[tuple[float, float]]:
    """The points, or the means of `each` neighbours."""
    if each < 2 or len(points) <= each:
        return points
    return [tuple(np.mean(points[k : k + each], 0).tolist()) for k in range(0, len(points), each)]


def _ticks(low: float, high: float, count: int = 4, whole: bool = False) -> list[float]:
    """Round numbers inside [low, high]."""
    raw = max((high - low) / count, 1.0 if whole else 0.0)
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
    first = math.ceil(low / step - 1e-9)
    return [first * step + i * step for i in range(int((high - first * step) / step + 1e-9) + 1)]


# --- an arm as it runs -----------------------------------------------------------------------------------


class Live:
    """What one arm's column says under its picture; `see` takes each event, `html` gives the present state.

    `pictures`: whether pictures stand above it; else they are shown here, such as the views of an object that is being made.
    """

    def __init__(self, state: str = "waiting", pictures: bool = True):
        self.pictures = pictures
        self.state, self.i, self.n, self.seconds, self.nfe = state, 0, 0, 0.0, 0
        self.aside, self.notes, self.error, self.metrics = (), [], "", ()
        self.main: Media | None = None  # a result that is no single picture stands here
        self.files: list[str] = []  # of the result, when it is a sound or an object

    def see(self, event: ArmEvent) -> "Live":
        self.seconds, self.nfe, what = event.seconds, event.nfe, event.event
        self.state = "paused" if isinstance(what, Held) and what.left else "running"
        if isinstance(what, Step):
            self.i, self.n = what.i, what.n
        main = what.show if isinstance(what, Step) else what.value if isinstance(what, Outcome) else None
        if isinstance(main, Media) and not (isinstance(main, Image) and self.pictures):
            self.main = main
        if aside := getattr(what, "aside", ()):
            self.aside = aside
        if isinstance(what, Note) and what.text not in self.notes:
            self.notes = [*self.notes, what.text][-3:]
        if isinstance(what, Outcome):
            self.error, self.metrics = what.error, what.metrics
            self.state = "failed" if what.error else "stopped" if what.stopped else "done"
        return self

    @property
    def share(self) -> float:
        """How far it is, 0 to 1; it may end before the steps it was given."""
        return 1 if self.state == "done" else self.i / self.n if self.n else 0

    @property
    def said(self) -> str:
        """What it does, in a few words."""
        return {"waiting": "waiting for its turn", "loading": "getting ready …", "idle": "", "failed": "no result", "stopped": f"stopped at step {self.i} of {self.n}", "cut": f"cut off at step {self.i} of {self.n}",
                "paused": f"paused at step {self.i} of {self.n}",
                "done": f"done · {self.i} step{'s' * (self.i != 1)}" if self.n else "done", "skipped": "not started"}.get(self.state, f"step {self.i}/{self.n}" if self.n else "starting …")  # fmt: skip

    @property
    def html(self) -> str:
        said = self.said
        figures = f"<span>{self.seconds:.1f} s</span><span>{self.nfe:,} NFE</span>" if self.seconds else ""
        line = f'<div class="line"><b>{said}</b>{figures}</div>' if said else ""
        error = f'<p class="error" role="alert">{escape(self.error)}</p>' if self.error else ""
        notes = "".join(f'<p class="note">{escape(n)}</p>' for n in self.notes)
        done = self.state in ("done", "stopped", "failed")  # a player that is drawn anew at each step could not be heard
        asides = "".join(media(m, *([sound.file(m)] if done and isinstance(m, Audio) else [])) for m in self.aside)
        drawn = turntable.live(self.main) if isinstance(self.main, Image) else media(self.main, *self.files)
        main = f'<div class="main">{drawn}</div>' if self.main is not None else ""
        return f'<div class="live {self.state}"><div class="bar"><i style="width:{100 * self.share:.1f}%"></i></div>{line}{error}{main}{notes}{asides}</div>'


# --- under the arms --------------------------------------------------------------------------------------


TELLS = {
    "seconds": "the method's own time, without loading, previews and figures", "NFE": "evaluations of the network, a picture or text each",
    "peak memory (MB)": "above what was in memory when the arm began; what an earlier run left there does not count again",
    "tokens per NFE": "tokens of the answer up to its end, divided by the evaluations that they took",
}  # fmt: skip


def metrics_table(titles: list[str], outcomes: list[Outcome], of: str = "arm") -> str:
    """A row for each arm, or what else they are `of`; the best of each column stands out when there is something to compare."""
    costs = {"seconds": "lower", "NFE": "lower", "peak memory (MB)": ""}  # memory already warm is not seen again: no contest
    columns: dict[str, str] = {}
    rows = []
    for outcome in outcomes:
        measured = {"seconds": outcome.seconds, "NFE": outcome.nfe, "peak memory (MB)": outcome.peak_mb}
        for metric in outcome.metrics:
            measured[metric.name] = metric
            columns[metric.name] = metric.better
        rows.append(measured)
    columns |= costs
    best = {name: _best([r for r, o in zip(rows, outcomes) if not (o.stopped or o.error)], name, better) for name, better in columns.items()}
    arrows = {"lower": "\u00a0↓", "higher": "\u00a0↑"}
    said = {name: _common([row.get(name) for row in rows]) for name in columns}  # what is said of all figures of a column stands above them
    head = "".join(f'<th title="{escape(TELLS.get(name, ""))}">{escape(name)}{arrows.get(better, "")}{said[name]}</th>' for name, better in columns.items())
    body = []
    for outcome, title, row in zip(outcomes, titles, rows):
        state = " (stopped)" if outcome.stopped else " (no result)" if outcome.error else ""
        cells = "".join(_metric(row.get(name), best[name], outcome, not said[name]) for name in columns)
        body.append(f'<tr><th scope="row" class="arm-{outcome.arm + 1}"><i></i>{escape(title)}{state}</th>{cells}</tr>')
    return f'{SCROLL}<table class="metrics"><thead><tr><th>{of}</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _best(rows: list[dict], name: str, better: str) -> float | None:
    values = [_value(row[name]) for row in rows if name in row]
    if better not in ("lower", "higher") or len(values) < 2 or len(set(values)) == 1:
        return None
    return min(values) if better == "lower" else max(values)


def _value(figure: Metric | float) -> float:
    return figure.value if isinstance(figure, Metric) else figure


def _common(figures: list) -> str:
    """The aside that all figures of a column share, when there are several."""
    asides = {f.aside for f in figures if isinstance(f, Metric)}
    return f"<small>{escape(asides.pop())}</small>" if len(figures) > 1 and len(asides) == 1 and asides != {""} else ""


def _metric(figure: Metric | float | None, best, outcome, apart: bool) -> str:
    if figure is None:
        return "<td>–</td>"
    marked = ' class="best"' if _value(figure) == best and not (outcome.stopped or outcome.error) else ""
    said = f"<small>{escape(figure.aside)}</small>" if apart and isinstance(figure, Metric) and figure.aside else ""
    return f"<td{marked}>{number(_value(figure))}{said}</td>"


def fitted(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`picture` at the size of `other`."""
    return np.asarray(PIL.Image.fromarray(picture).resize((other.shape[1], other.shape[0])))


def difference(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, str]:
    """(heat map of |a − b|, one line that says how much differs and what the brightest colour stands for)."""
    if a.shape != b.shape:
        b = fitted(b, a)
    gap = np.abs(a.astype(float) - b.astype(float)).mean(-1)
    top = float(np.clip(np.percentile(gap, 99.5), 16, 255))
    return colours.warm(
        gap / top
    ), f"mean difference {gap.mean():.1f} of 255; {100 * (gap > 16).mean():.0f} % of the pixels differ visibly; brightest: {top:.0f}"


__all__ = ["Live", "Metric", "difference", "media", "metrics_table"]
