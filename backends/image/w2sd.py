"""Weak-to-Strong Diffusion with Reflection (arXiv 2502.00473): step with the strong side, invert with the weak one."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from backends import models
from backends.image.sampling import Guided, SchedulerWalk, ddim_next, sample
from backends.image.tasks import TEXT_TO_IMAGE, TextToImage
from backends.lazy import torch
from backends.registry import method
from backends.spec import BadInput, Choice, Events, Guidance, Image, Images, Plot, Slider, Steps, TextKnob, Toggle

Pair = Annotated[str, Choice(("guidance", "model", "prompt"), help="what makes the weak side weak: little guidance, a weaker model, a plainer prompt")]
WeakScale = Annotated[float, Slider(0, 15, 0.1, help="guidance of the weak side, for the pair “guidance”")]
WeakModel = Annotated[str, TextKnob(60, help="card of the weaker model, for the pair “model”; it must share the latents")]
Plain = Annotated[str, TextKnob(400, help="the plainer prompt, for the pair “prompt”; empty is no prompt")]
Strength = Annotated[float, Slider(0, 3, 0.05, help="share of the reflection's residual that is added; 0 is the plain sampler")]
Start = Annotated[float, Slider(0, 1, 0.05, help="reflect from this fraction of the steps on")]
Stop = Annotated[float, Slider(0, 1, 0.05, help="reflect up to this fraction of the steps")]
Reverse = Annotated[bool, Toggle(help="S2WD, the control: step with the weak side, invert with the strong one")]
KEEPS_STATE = "Faster Diffusion decodes skipped steps without looking at the state, so W2SD's reflection would change nothing; cache with DeepCache instead."


class Reflection:
    """The walk's settings; called with (model, steps) it gives the walk."""

    def __init__(self, pair: Pair = "guidance", weak_scale: WeakScale = 1.0, weak_model: WeakModel = "emoji-ldm-weak", plain: Plain = "", strength: Strength = 1.0, start: Start = 0.0, stop: Stop = 1.0, reverse: Reverse = False):  # fmt: skip
        self.pair, self.weak_scale, self.weak_model, self.plain = pair, weak_scale, weak_model, plain
        self.strength, self.first, self.last, self.reverse = strength, start, stop, reverse

    def __call__(self, model, steps):
        return ReflectedWalk(self, model, steps)

    def weak_side(self, model) -> dict:
        """What `predict` takes in place of the run's own to speak for the weak side."""
        if self.pair == "guidance":
            return {"guide": Guided(self.weak_scale)}
        if self.pair == "prompt":
            return {"cond": model.encode(self.plain)[0]}
        return {"model": Twin(model, self.weak_model)}


def weak_cards(model, pair: str, weak_model: str, strength: float, **_) -> tuple[str, ...]:
    """The weaker model that these knobs take; raises BadInput when its card tells that it can't be the weak side."""
    if pair != "model" or not strength:
        return ()
    card = models.get(weak_model)
    if "cfg" not in card.capabilities:
        raise BadInput(f"{card.title} works without guidance and can't be the weak side; choose another model.")
    if (card.embedded, card.options.get("kind")) != (model.card.embedded, model.card.options.get("kind")):
        raise _unlike(model, card)  # before gigabytes are fetched for nothing
    return (weak_model,)


def _unlike(model, card) -> BadInput:
    return BadInput(f"{card.title} draws in other latents or on another noise schedule than {model.card.title}; choose a weaker model of its kind.")


class Twin:
    """A second model on the same latents; its evaluations count as the run's."""

    def __init__(self, model, name: str):
        self.model, self.weak, self.encoded = model, models.load(name), {}
        if not _same_latents(model, self.weak):
            raise _unlike(model, self.weak.card)

    def x0s(self, x, t, *conds):
        if self.weak is not self.model and not self.model.card.embedded:  # the embedded models share one text encoder
            for cond in conds:
                if cond.text not in self.encoded:
                    self.encoded[cond.text] = self.weak.encode(cond.text)[0]
            conds = [self.encoded[c.text] for c in conds]
        before = self.weak.nfe
        found = self.weak.x0s(x, t, *conds)
        if self.weak is not self.model:
            self.model.nfe += self.weak.nfe - before
        return found


class ReflectedWalk:
    """DDIM, with each step but the last begun by one step down with one side and back up with the other."""

    def __init__(self, settings: Reflection, model, steps: int):
        self.settings, self.model = settings, model
        self.ddim = SchedulerWalk(model, steps, "ddim")
        self.timesteps, self.start = self.ddim.timesteps, self.ddim.start
        strong, weak = {}, settings.weak_side(model) if settings.strength else {}
        self.down, self.up = (weak, strong) if settings.reverse else (strong, weak)
        self.norms, self.pictures = {}, ()

    def step(self, x, i, predict):
        settings, n = self.settings, len(self.timesteps)
        if settings.strength and i < n - 1 and settings.first * n <= i < settings.last * n:
            x = self.reflect(x, i, predict)
        return self.ddim.step(x, i, predict)

    def reflect(self, x, i, predict):
        """x + strength·(x̃ − x), x̃ being x stepped to the next level by one side and inverted by the other."""
        t, after = self.timesteps[i], self.timesteps[i + 1]
        x0_down = predict(x, t, **self.down)
        y = ddim_next(self.model, x0_down, self.model.noise_of(x0_down, x, t), after)
        x0_up = predict(y, t, **self.up)  # asked at level t, as the official code does
        back = invert(self.model, x0_up, y, t, after)
        moved = back - x
        self.norms[i] = float(moved.flatten(1).norm(dim=1).mean() / x.flatten(1).norm(dim=1).mean())
        self.pictures = (x0_down, x0_up, moved)
        return x + self.settings.strength * moved

    def aside(self):
        curve = Plot({"‖reflected − state‖ / ‖state‖": ([i + 1.0 for i in self.norms], list(self.norms.values()))}, y="residual")
        if not self.pictures:
            return (curve,)
        down, up, moved = self.pictures
        names = ("weak side, stepping", "strong side, inverting") if self.settings.reverse else ("strong side, stepping", "weak side, inverting")
        shown = [Image(self.model.preview(z), name) for z, name in zip((down, up), names, strict=True)]
        return Images((*shown, Image(heat(moved, self.model.side), "where the state was moved"))), curve


def invert(model, x0, y, t, after):
    """y at level `after` taken up to the noisier level t, by a prediction x0 made of y as if it stood at t.

    The paper holds that prediction's ε fixed. At zero terminal SNR (α = 0) ε is y itself and says nothing of
    what the side believes, so there x0 is held. Both undo a DDIM step exactly when the prediction made of y agrees with the one that made y;
    as y is asked at t, that is so in the limit of small steps, and few steps leave a residual of their own.
    """
    if float(model.alpha_sigma(t)[0]) == 0:
        return ddim_next(model, x0, model.noise_of(x0, y, after), t)
    eps = model.noise_of(x0, y, t)
    alpha, sigma = model.alpha_sigma(after)
    return ddim_next(model, (y - sigma * eps) / alpha, eps, t)


def heat(moved, side: int) -> np.ndarray:
    """(side, side, 3) uint8: the residual's length at each latent cell, white where there is most."""
    cells = moved[0].norm(dim=0)
    grey = (255 * cells / cells.max().clamp(min=1e-12)).round().byte().cpu().numpy()
    grey = grey.repeat(-(-side // grey.shape[0]), 0).repeat(-(-side // grey.shape[1]), 1)[:side, :side]
    return np.repeat(grey[..., None], 3, -1)


def _same_latents(one, two) -> bool:
    if one.prediction == "flow" or two.prediction == "flow":
        grid = one.prediction == two.prediction and one.scheduler.config.num_train_timesteps == two.scheduler.config.num_train_timesteps
    else:
        grid = len(one.alphas_cumprod) == len(two.alphas_cumprod) and torch.allclose(one.alphas_cumprod, two.alphas_cumprod, atol=1e-4)
    if not grid or one.channels != two.channels or one.vae.config.scaling_factor != two.vae.config.scaling_factor:
        return False
    first, second = next(one.vae.encoder.parameters()).float(), next(two.vae.encoder.parameters()).float()
    return first.shape == second.shape and torch.allclose(first, second.to(first.device), atol=1e-2)


@method(
    "w2sd",
    task=TEXT_TO_IMAGE,
    needs={"cfg"},
    slot="walk",
    piece=Reflection,
    holds={"patch", "wrap"},
    loads=weak_cards,
    clashes={"faster_diffusion": KEEPS_STATE},
)
def w2sd(job: TextToImage, model, stack: dict, steps: Steps = 25, scale: Guidance = 2.5, pair: Pair = "guidance", weak_scale: WeakScale = 1.0, weak_model: WeakModel = "emoji-ldm-weak", plain: Plain = "", strength: Strength = 1.0, start: Start = 0.0, stop: Stop = 1.0, reverse: Reverse = False) -> Events:  # fmt: skip
    """Weak-to-Strong Diffusion with Reflection.

    Before each step the state is denoised with a strong side and inverted with a weak one. What remains points
    from weak to strong, and so, it is hoped, further from strong to ideal.

    Bai et al., arXiv 2502.00473; details from the official code (xie-lab-ml): every step but the last is
    reflected; the inverse asks the weak side at t, not at t − 1, and goes exactly from t − 1 to t. Pairs:
    guidance 5.5 against 1 (equal to Z-Sampling), a weaker model of the same latents, a plainer prompt. Each
    reflected step costs up to three times a plain one. To first order the pair “guidance” adds the difference of its sides once more,
    so that 5.5 against 1 acts as guidance near 10, past what the embedded model bears: its strong side is 2.5 here. Where we differ: `strength` scales the residual (the
    paper adds it whole), and the noise end of a zero-terminal-SNR schedule is inverted apart (see `invert`).
    """
    walk = Reflection(pair, weak_scale, weak_model, plain, strength, start, stop, reverse)
    return sample(job, model, steps=steps, guide=Guided(scale), walk=walk, stack=stack)
