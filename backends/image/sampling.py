"""The loop that text-to-image methods share, and the three kinds of piece it is put together from.

A *walk* carries the state from noise to picture (a scheduler); a *guide* combines evaluations of the network
into one x0 (classifier-free guidance); a *patch* changes the network for the length of a run (caching).
A method is a thin composition of them, so pieces of two papers can be stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Protocol

from backends.denoiser import Cond, Denoiser
from backends.image.tasks import TextToImage
from backends.lazy import diffusers
from backends.spec import BadInput, Events, Image, Media, Metric, Note, Result, Step

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from torch import Tensor

Evaluate = Callable[..., tuple]  # evaluate(*conds) -> x0 under each, in one batch at the state in hand
Predict = Callable[..., "Tensor"]  # predict(x, t) -> guided x0; with guide, model or cond in place of the run's


class Guide(Protocol):
    def __call__(self, evaluate: Evaluate, cond: Cond, uncond: Cond, i: int, n: int) -> Tensor: ...


class Walk(Protocol):
    timesteps: list

    def start(self, noise: Tensor) -> Tensor: ...

    def step(self, x: Tensor, i: int, predict: Predict) -> tuple[Tensor, Tensor]:
        """(next state, x0 of this step)."""


class Patch(Protocol):
    """A patch may also have `before_step(x, i, noise) -> x`."""

    def applied(self, model: Denoiser, timesteps: list) -> AbstractContextManager: ...


class Guided:
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598) on x0, which equals guiding ε or v.

    `rescale` φ pulls the guided prediction's standard deviation back to the conditional one's (Lin et al.,
    arXiv 2305.08891, eq. 15–16, there on v); `start, stop` bound the interval of steps that are guided
    (Kynkäänniemi et al., arXiv 2404.07724), as fractions of the run. Outside, only the condition is evaluated.
    """

    def __init__(self, scale: float, rescale: float = 0.0, start: float = 0.0, stop: float = 1.0):
        self.scale, self.rescale, self.start, self.stop = scale, rescale, start, stop

    def __call__(self, evaluate, cond, uncond, i, n):
        if self.idle(i, n):
            return evaluate(cond)[0]
        return self.mix(*evaluate(uncond, cond))

    def idle(self, i: int, n: int) -> bool:
        """Whether step i of n goes without guidance."""
        return self.scale == 1 or not self.start * n <= i < self.stop * n

    def mix(self, u: Tensor, c: Tensor) -> Tensor:
        guided = u + self.scale * (c - u)
        if self.rescale:
            dims = tuple(range(1, c.ndim))
            matched = guided * (c.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
            guided = self.rescale * matched + (1 - self.rescale) * guided
        return guided


class SchedulerWalk:
    """A diffusers scheduler as a walk. `kind`: ddim, euler or dpm++; flow models take their flow counterpart.

    Timesteps are spaced “trailing”, so that the first is the noise end, as zero terminal SNR needs.
    """

    def __init__(self, model: Denoiser, steps: int, kind: str):
        self.model, self.kind = model, kind
        self.scheduler = make_scheduler(model, kind)
        self.scheduler.set_timesteps(steps, device=model.device, **(model.spacing(steps) if kind != "dpm++" else {}))
        self.timesteps = self.scheduler.timesteps.tolist()

    def start(self, noise):
        return noise * self.scheduler.init_noise_sigma if hasattr(self.scheduler, "init_noise_sigma") else noise

    def step(self, x, i, predict):
        t = self.scheduler.timesteps[i]
        scale = getattr(self.scheduler, "scale_model_input", None)
        seen = scale(x, t) if scale else x  # the (α, σ) state the network sees
        x0 = predict(seen, self.timesteps[i])
        out = self.model.from_x0(x0, seen, self.timesteps[i])
        return self.scheduler.step(out, t, x).prev_sample, x0


def make_scheduler(model: Denoiser, kind: str):
    """A fresh diffusers scheduler on the checkpoint's own noise schedule."""
    config = dict(model.scheduler.config) | {"timestep_spacing": "trailing"}
    config.pop("_use_default_values", None)  # from_config would drop what we set where the checkpoint had a default
    if model.prediction == "flow":
        if kind == "dpm++":
            return diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=config.get("shift", 1.0))
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(model.scheduler.config)
    if kind == "ddim":
        return diffusers.DDIMScheduler.from_config(config | {"clip_sample": False, "set_alpha_to_one": True})
    if kind == "euler":
        return diffusers.EulerDiscreteScheduler.from_config(config)
    return diffusers.DPMSolverMultistepScheduler.from_config(config | {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"})


def sample(
    job: TextToImage,
    model: Denoiser,
    *,
    steps: int,
    guide: Guide,
    walk: Walk | None = None,
    patches: tuple = (),
    stack: dict | None = None,
    aside: Callable[[], tuple[Media, ...]] = tuple,
    report: Callable[[], list[Metric]] = list,
    picture: Callable[[Tensor], np.ndarray] | None = None,
) -> Events:
    """Denoise the job's seed under its prompt, yielding a Step with x0 each step. `picture`: what decodes the last latents; the model's where None.

    `stack`: pieces put under this method by the arm (see recipe.py); a piece's `aside()` and `report()` add
    to the method's own.
    """
    stack = stack or {}
    if "wrap" in stack:
        for name in ("scale", "rescale", "start", "stop"):  # how strong and when is the method's own knob, how is the piece's
            setattr(stack["wrap"], name, getattr(guide, name))
        guide = stack["wrap"]
    if "walk" in stack:
        walk = stack["walk"]
    if guide.scale != 1 and "cfg" not in model.card.capabilities:
        guide.scale = 1
        yield Note(f"{model.card.title} draws without guidance: scale 1 was used.")
    walk = (walk or (lambda m, s: SchedulerWalk(m, s, "ddim")))(model, steps)
    patches = (*patches, *([stack["patch"]] if "patch" in stack else []))
    pieces = [p for p in (guide, walk, *patches) if hasattr(p, "aside")]
    reports = [p.report for p in (guide, walk, *patches) if hasattr(p, "report")]
    cond, uncond = model.encode(job.prompt, job.negative)
    n = len(walk.timesteps)

    def shown():
        return (*aside(), *(m for p in pieces for m in p.aside()))

    yield from cut_notes(cond, uncond)
    with closing(denoise(model, cond, uncond, model.noise(job.seed), walk, guide, patches)) as states:
        for i, state in enumerate(states):
            x, x0 = state
            yield Step(i + 1, n, x0, shown)
    yield from report()
    for piece in reports:
        yield from piece()
    yield Result(Image((picture or model.picture)(x), job.prompt), shown())


def denoise(model: Denoiser, cond: Cond, uncond: Cond, noise: Tensor, walk: Walk, guide: Guide, patches: tuple = ()) -> Iterator[tuple[Tensor, Tensor]]:
    """Walk from `noise` (B, C, h, w), yielding (state, x0) after each step; a Cond may hold B prompts' states."""
    n, i, own = len(walk.timesteps), 0, (guide, model, cond)

    def predict(x, t, guide=guide, model=model, cond=cond):
        if guide is own[0] and (model is not own[1] or cond is not own[2]):
            # Another model's or prompt's opinion is guided alike, but a guide that learns from what it sees must not see it.
            guide = Guided(guide.scale, guide.rescale, guide.start, guide.stop)
        return guide(lambda *conds: model.x0s(x, t, *conds), cond, uncond, i, n)

    with ExitStack() as applied:
        for patch in patches:
            applied.enter_context(patch.applied(model, walk.timesteps))
        x = walk.start(noise)
        for i in range(n):
            for patch in patches:
                if hasattr(patch, "before_step"):
                    x = patch.before_step(x, i, noise)
            x, x0 = walk.step(x, i, predict)
            yield x, x0


def ddim_next(model: Denoiser, x0: Tensor, eps: Tensor, t) -> Tensor:
    """α_t·x0 + σ_t·ε: the deterministic step to level t (t < 0: the clean end)."""
    alpha, sigma = model.alpha_sigma(t)
    return alpha * x0 + sigma * eps


def cut_notes(*conds: Cond) -> Iterator[Note]:
    """What of each text the model did not read."""
    for cond in conds:
        if cond.cut:
            yield Note(f"The model reads the beginning of a long prompt only; left out: “{cond.cut[:120]}{'…' if len(cond.cut) > 120 else ''}”.")


def needs_words(cond: Cond, words: list[str]) -> list[list[int]]:
    """Token positions of each word; raises BadInput naming the word that the prompt lacks."""
    rows = []
    for word in words:
        found = cond.rows(word)
        if not found:
            if word.lower() in cond.cut.lower():
                raise BadInput(f"“{word}” stands beyond what the model reads of the prompt; shorten the prompt or name it earlier.")
            raise BadInput(f"“{word}” does not stand in the prompt; name words of the prompt, separated by commas.")
        rows.append(found)
    return rows
