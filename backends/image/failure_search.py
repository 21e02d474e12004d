"""What the searches for failures share: the short differentiable sampler, the judges, the shell of plausible noise.

The sampler's gradient takes a residual path. A DDIM step in the angle of (α, σ) is x ← cos Δ·x + sin Δ·v; early on the
network's v is held constant, so that the noise reaches the picture through Π cos Δ alone, and only the last steps are
differentiated truly. In eight steps of the embedded model nothing vanishes, and the true gradient of all of them leads as well or
better (see the proof); the path spares its cost. (SAGE holds ε constant; with zero terminal SNR that path has no finite factor at the first step.)
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backends.denoiser import Cond, Denoiser, as_uint8
from backends.image.concept_words import emoji_concepts
from backends.image.sampling import make_scheduler
from backends.image.tasks import FindFailures
from backends.lazy import F, torch
from backends.spec import BadInput, Events, Image, Images, Metric, Note, Plot, Result, Step
from backends.worlds import emoji

if TYPE_CHECKING:
    from torch import Tensor

RIVALS = 63
SURELY = 0.8  # a target that a judge gives this much is not pushed further
SLACK = 1.0  # a judge this far below its goal (in log-probability) is not pushed further: fooling one alone is no gain
SURE = "judges’ mean probability"
JUDGES = ("second", "main", "scorer")  # two detectors, heads at other depths and resolutions of the same frozen features; picture and text towers
HELD_OUT = "second"  # the judge that no search looks at unless another is chosen to confirm


def short_chain(model: Denoiser, z: Tensor, cond: Cond, uncond: Cond, steps: int, scale: float, deep: int = 0) -> Tensor:
    """x0 (B, C, h, w) after `steps` guided DDIM steps; gradients pass truly through the last `deep`, residually before.

    With respect to `cond` every step is differentiated. With deep = steps it is the plain chain.
    """
    scheduler = make_scheduler(model, "ddim")
    scheduler.set_timesteps(steps)
    levels = [*scheduler.timesteps.tolist(), -1]
    x = z
    for i in range(steps):
        seen = x if i >= steps - deep else x.detach()
        u, c = model.x0s(seen, levels[i], uncond, cond)
        (alpha, sigma), (alpha_next, sigma_next) = model.alpha_sigma(levels[i]), model.alpha_sigma(levels[i + 1])
        v = (alpha * seen - (u + scale * (c - u))) / sigma
        x = (alpha * alpha_next + sigma * sigma_next) * x + (sigma_next * alpha - alpha_next * sigma) * v
    return x


def onto_shell(z: Tensor) -> Tensor:
    """Mean 0 and norm √d, as nearly all Gaussian noise has; rows apart."""
    z = z - z.mean((1, 2, 3), keepdim=True)
    return z / z.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * z[0].numel() ** 0.5


def normality(z: Tensor) -> float:
    """p of the Kolmogorov–Smirnov test of z's entries against N(0, 1)."""
    from scipy.stats import kstest

    return float(kstest(z.flatten().cpu().numpy(), "norm").pvalue)


def log_probs(pixels: Tensor, concepts: list[int], name: str) -> Tensor:
    """(B,) log-probability that a judge (detector.py) sees each picture's own concept; differentiable."""
    from backends.metrics import detector

    return detector.log_probs(pixels, concepts, name).diagonal()


def scorer_log_probs(pixels: Tensor, concepts: list[int]) -> Tensor:
    """(B,) the scorer's log-softmax of “a <concept>” against the RIVALS first common concepts; differentiable."""
    from backends.metrics import scorer

    rivals = [i for i in emoji.common() if i not in concepts][:RIVALS]
    shown, names = scorer.embed_images(pixels), scorer.embed_texts([_named(i) for i in rivals]).T
    own = (shown * scorer.embed_texts([_named(i) for i in concepts])).sum(1, keepdim=True)
    return (torch.cat([own, shown @ names], 1) * scorer.scorer().scale.exp()).log_softmax(1)[:, 0]


def judge(pixels: Tensor, concepts: list[int], name: str) -> Tensor:
    """(B,) log-probability that one of JUDGES gives each picture's own concept; differentiable."""
    return scorer_log_probs(pixels, concepts) if name == "scorer" else log_probs(pixels, concepts, name)


def _named(concept: int) -> str:
    return emoji.article(emoji.concepts()[concept].name)


def detect(pixels: Tensor, name: str) -> list:
    from backends.metrics import detector

    return detector.detect(pixels, name)


def judges_stand() -> bool:
    from backends.metrics import detector

    return detector.available("main") and detector.available(HELD_OUT)


def scorer_stands() -> bool:
    from backends.metrics import scorer

    return scorer.available()


def views(pixels: Tensor, generator) -> Tensor:
    """(3B, 3, H, W): the pictures and two copies, shifted by up to 6 px and noised, one of them mirrored.

    A pattern of pixels that only fools a judge seldom survives them.
    """
    rows, (height, width) = [pixels], pixels.shape[2:]
    for mirror in (True, False):
        dx, dy = torch.randint(0, 13, (2,), generator=generator).tolist()
        moved = F.pad(pixels, (6, 6, 6, 6), mode="replicate")[..., dy : dy + height, dx : dx + width]
        noise = torch.randn(pixels.shape, generator=generator).to(pixels) * 0.05
        rows.append((moved.flip(3) if mirror else moved) + noise)
    return torch.cat(rows)


def ensemble(pixels: Tensor, concepts: list[int], generator, leaders: list[str]) -> Tensor:
    """(judges, B) log-probability of each picture's concept, mean over its views: what a search lowers."""
    seen = views(pixels, generator)
    return torch.stack([judge(seen, concepts * 3, name).view(3, len(pixels)).mean(0) for name in leaders])


def labelled(pixels: Tensor, captions: list[str]) -> Images:
    return Images(tuple(Image(as_uint8(pixels[i : i + 1]), caption) for i, caption in enumerate(captions)))


@dataclass
class Search:
    """One search under way: spends pictures from its budget, keeps the worst, says what it does."""

    job: FindFailures
    model: Denoiser
    budget: int
    steps: int
    scale: float
    low: float  # a judge that gives the object less than this does not see it
    rows: int = 1  # pictures drawn at a time
    target: int | None = None  # a concept that is to appear; without it the prompted one is to vanish
    confirms: str = HELD_OUT  # the judge that takes no part: "second" or "main"
    prompts: list[str] = field(default_factory=list)  # of the rows, where each has its own
    spent: int = 0
    found: bool = False
    best: float = float("inf")
    start: Image | None = None
    worst: Image | None = None
    sure: float = 1.0  # what the judges gave the worst, on average
    pixels: Tensor | None = None  # the worst, (B, 3, H, W)
    at: Any = None  # the point searched that gave it
    history: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self):
        named = emoji_concepts(self.job.prompt)
        if not named:
            raise BadInput("The judges know the emoji world's objects only; name one, such as “a cat” or “a burger”.")
        if not judges_stand():
            raise BadInput("The judges of the emoji world are missing; build them with `make train MODEL=emoji_judges`.")
        # The scorer's picture tower reads what "main" sees: where main confirms, neither leads.
        scorer_leads = scorer_stands() and self.confirms != "main"
        self.leaders = [name for name in JUDGES if name != self.confirms and (name != "scorer" or scorer_leads)]
        self.word, self.concept = next(iter(named.items()))
        if self.target is not None:
            self.word, self.concept = emoji.concepts()[self.target].name, self.target
        self.cond, self.uncond = self.model.encode(self.job.prompt, "")
        self.generator = torch.Generator().manual_seed(self.job.seed + 1)

    @property
    def open(self) -> bool:
        return not self.found and (not self.spent or self.spent + self.rows <= self.budget)

    def loss(self, judged: Tensor) -> Tensor:
        """What the search lowers, from (judges, B) log-probabilities: their mean, each held at SLACK past its goal."""
        if self.target is not None:
            return -judged.clamp_max(math.log(SURELY)).mean()
        return judged.clamp_min(math.log(self.low) - SLACK).mean()

    def reached(self, sure: Tensor) -> bool:
        """Whether every judge agrees that the goal is reached in every picture; `sure`: (judges, B) probabilities."""
        return bool((sure > 0.5).all() if self.target is not None else (sure < self.low).all())

    def drawn(self, z: Tensor, cond: Cond, deep: int = 0) -> Tensor:
        """(B, 3, H, W) for latents z; spends nothing of the budget."""
        return self.model.to_pixels(short_chain(self.model, z, cond, self.uncond, self.steps, self.scale, deep))

    def draw(self, z: Tensor, cond: Cond | None = None, concepts: list[int] | None = None, deep: int = 0) -> tuple[Tensor, Tensor]:
        """(pixels (B, 3, H, W), (judges, B) log-probabilities) for latents z; spends B pictures."""
        pixels = self.drawn(z, cond or self.cond, deep)
        self.spent += len(z)
        return pixels, ensemble(pixels, concepts or [self.concept] * len(z), self.generator, self.leaders)

    def keep(self, pixels: Tensor, judged: Tensor, caption: str, at: Any = None) -> Image:
        """Note what the judges said of pictures drawn `at` a point (their mean counts, the first is shown); keep them if the worst so far."""
        judged = judged.detach()
        sure, score = judged.exp().mean(1), float(self.loss(judged))
        self.log(SURE, float(sure.mean()))
        picture = Image(as_uint8(pixels), caption)
        self.start = self.start or picture
        reached = self.reached(judged.exp())  # the score is floored per judge, so the goal may be reached at no better score
        if reached or score < self.best:
            self.best, self.worst, self.pixels, self.sure, self.at = score, picture, pixels.detach(), float(sure.mean()), at
            self.found = reached
        return picture

    def log(self, name: str, value: float) -> None:
        self.history.setdefault(name, []).append(value)

    def step(self, show: Image) -> Step:
        return Step(min(self.spent, self.budget), self.budget, show, self.aside, keep=self.worst)

    def aside(self) -> tuple:
        lines = {k: ([i + 1.0 for i in range(len(v))], list(v)) for k, v in self.history.items()}
        sure = lines.pop(SURE)
        score = Plot(
            {SURE: sure, "goal": ([1.0, max(2.0, sure[0][-1])], [self.low if self.target is None else 0.5] * 2)}, x="iteration", y=f"probability of {self.word}"
        )
        pair = Images((dataclasses.replace(self.start, caption="start"), dataclasses.replace(self.worst, caption=f"worst: {self.worst.caption}")))
        rows = (labelled(self.pixels, self.prompts),) if self.prompts else ()
        return (pair, score, *((Plot(lines, x="iteration"),) if lines else ()), *rows)

    def confirm(self, pixels: Tensor, concepts: list[int] | None = None) -> tuple[Tensor, Tensor]:
        """((B,) probabilities by the judge that took no part, (B,) bool whether each is what was searched for)."""
        sure = judge(pixels, concepts or [self.concept] * len(pixels), self.confirms).exp()
        return sure, sure > 0.5 if self.target is not None else sure < 0.5

    def close(self, fresh: Tensor | None = None, captions: list[str] = ()) -> Events:
        """The closing events. `fresh`: pictures by independent seeds at the found point, judged in the worst's place and shown."""
        seen = self.pixels[:1] if fresh is None else fresh
        sure, failed = self.confirm(seen)
        share = float(failed.float().mean())
        metrics = [] if fresh is None else [Metric("failures of fresh seeds", share, "higher")]
        shown = [f"{caption}: {float(s):.0%}" for caption, s in zip(captions, sure)]
        yield from self.end(float(sure.mean()), self._told(seen, share > 0.5), metrics, (labelled(fresh, shown),) if shown else ())

    def end(self, sure: float, told: str, metrics: list[Metric], shown: tuple) -> Events:
        """`sure`: what the held-out judge gives on average; `told`: what is said of it; `shown`: further media."""
        better = "lower" if self.target is None else "higher"
        yield Metric("pictures drawn", self.spent, "lower")
        yield Metric("search judges’ probability", self.sure, better)
        yield Metric("held-out judge’s probability", sure, better)
        yield from metrics
        if self.found and len(self.history[SURE]) == 1:
            found = "fails" if self.target is None else "already shows the target"
            yield Note(f"The start itself {found}, so nothing was searched; take another seed or another object.")
        else:
            head = "Found" if self.found else "No failure was found; the worst is shown"
            yield Note(f"{head} after {self.spent} pictures; the held-out judge {told}.")
        yield Result(self.worst, (*self.aside(), *shown))

    def instead(self, pixels: Tensor, concept: int) -> str:
        """What else is recognised in (1, 3, H, W); empty for nothing, as in a distorted picture. (The scorer detects nothing.)"""
        found = detect(pixels, self.confirms)[0]
        return next((f.name for f in found if f.concept != concept), "")

    def _told(self, seen: Tensor, agrees: bool) -> str:
        """What the held-out judge sees: the object after all, something else (a natural failure), or nothing (a distorted one)."""
        if self.target is not None:
            return f"{'sees' if agrees else 'sees no'} “{self.word}” in most fresh pictures"
        if not agrees:
            return f"still sees “{self.word}”"
        other = self.instead(seen[:1], self.concept)
        return f"agrees and sees “{other}” instead: a natural picture" if other else "agrees and recognises nothing: a distorted picture"
