"""Noise-DA (arXiv 2406.18516), and what it is compared with: the restorer without the other domain, and with the shortcut left open."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated

from backends import inputs
from backends.lazy import torch
from backends.models import ASSETS, uncounted
from backends.registry import method
from backends.restore import adapting, clean_task, harming
from backends.restore.clean_task import CLEAN_PHOTO, KINDS, CleanPhoto, as_pixels, as_tensor
from backends.restore.restorers import Restorers
from backends.spec import BadInput, Events, Image, Note, Plot, Result, Slider, Step, Toggle

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

PATCH, BATCH, SHOWN = 64, 4, 128  # px of a patch, patches of each kind in a step, px of the part that is shown restored
AVERAGE = 0.98  # of the weights while they adapt

Adapt = Annotated[int, Slider(0, 1000, 10, help="training steps on this very picture, from the source-only restorer; 0: the adapted weights as they are")]
Alpha = Annotated[float, Slider(0, 2, 0.05, help="adapting: final weight of the noise loss")]
Shuffle = Annotated[bool, Toggle(help="adapting: F is not told which of its two pictures is the synthetic one")]
Contrast = Annotated[bool, Toggle(help="adapting: pictures with each other's residuals must be of less use to F")]
Rate = Annotated[float, Slider(1e-5, 1e-3, 1e-5, help="adapting: learning rate")]


def restored(model: Restorers, net, pixels: np.ndarray, done: int = 0, aside: tuple = ()) -> Events:
    """Tile by tile, then the result beside what it was made from."""
    for i, n, made in model.restored(net, as_tensor(pixels)):
        yield Step(done + i, done + n, lambda made=made: Image(as_pixels(made), before=pixels))
    yield Result(Image(as_pixels(made), before=pixels), aside)


@method("noise_da", task=CLEAN_PHOTO, needs={"photo", "noise_da"})
def noise_da(job: CleanPhoto, model: Restorers, adapt: Adapt = 0, alpha: Alpha = adapting.WEIGHT, shuffle: Shuffle = True, contrast: Contrast = True,
             rate: Rate = 1e-4) -> Events:  # fmt: skip
    """Noise-DA.

    A restorer learns from pairs of one make of a harm. While it learns, a diffusion network looks at what it makes of another make, for which there are no
    clean answers, and can tell the noise only where that is clean: its loss pulls the restorer there. Then it is thrown away.

    Liao et al., arXiv 2406.18516; details from the official code (KangLiao929/Noise-DA): losses in restore/adapting.py, training in
    train/noise_da.py. With `adapt` the training runs here: the unlabelled domain is this picture alone, the pairs are made of three photographs that
    ship with the studio, G begins as the source-only restorer and F as the training left it. Where we differ: smaller networks; patches
    of 64 px, four of each kind in a step, for some hundred steps and not 300 epochs; an average of decay 0.98, not 0.9999.

    The committed weights adapted for some 200 to 400 steps of 128 patches: that helps against rain and noise, and hardly against motion. So few steps
    as a visitor waits for, on one picture, may lose what they gain: watch, and stop in time.
    """
    task, pixels = KINDS[job.harm], clean_task.harmed(job)
    if not adapt:
        yield from restored(model, model.net[f"{task}-full"], pixels)
        return
    if min(pixels.shape[:2]) < PATCH:
        raise BadInput(f"Adapting takes patches of {PATCH}×{PATCH} pixels; give a larger picture, or set adapt to 0.")
    if not job.strength:
        yield Note("There is no clean picture to compare with; the figures under the arms tell only how sharp it is and what was taken out.")
    tuned = Tuned(job, model, pixels, shuffle, contrast, rate)
    for i in range(1, adapt + 1):
        tuned.step(adapting.weight(i / adapt, alpha))
        yield Step(i, adapt, tuned.middle, lambda i=i: (tuned.curves(i),), keep=tuned.whole)
    yield from restored(model, tuned.average, pixels, adapt, (tuned.curves(adapt),))


@method("source_only", task=CLEAN_PHOTO, needs={"photo", "noise_da"}, paper=False)
def source_only(job: CleanPhoto, model: Restorers) -> Events:
    """Source-only restorer.

    The same network, taught by pairs of one make of the harm alone: what Noise-DA begins with.
    """
    yield from restored(model, model.net[f"{KINDS[job.harm]}-source"], clean_task.harmed(job))


@method("unshuffled", task=CLEAN_PHOTO, needs={"photo", "noise_da"}, paper=False)
def unshuffled(job: CleanPhoto, model: Restorers) -> Events:
    """Noise-DA with the shortcut open.

    Trained as Noise-DA but for the shuffle and the contrast: the diffusion network knows which picture belongs to the noise, and need not look at the other.
    """
    yield from restored(model, model.net[f"{KINDS[job.harm]}-unshuffled"], clean_task.harmed(job))


class Tuned:
    """Copies of G and F that learn on a job's picture; `average`: the EMA of G, which is the answer."""

    def __init__(self, job: CleanPhoto, model: Restorers, pixels: np.ndarray, shuffle: bool, contrast: bool, rate: float):
        task, self.job, self.model, self.pixels, self.settings = KINDS[job.harm], job, model, pixels, (shuffle, contrast)
        self.restorer = copy.deepcopy(model.net[f"{task}-source"]).requires_grad_(True)
        self.noiser = copy.deepcopy(model.noisers[task]).requires_grad_(True).train()
        self.average = copy.deepcopy(model.net[f"{task}-source"])
        self.optimiser = torch.optim.Adam([*self.restorer.parameters(), *self.noiser.parameters()], lr=rate)
        self.real, self.clean = as_tensor(pixels), [as_tensor(p) for p in photographs() if p.shape != job.image.shape or (p != job.image).any()]
        self.generator, self.series = torch.Generator().manual_seed(job.seed), {"distance of the pairs": [], "error of the noise": []}

    def step(self, alpha: float) -> None:
        """One step of Adam on a batch of each kind."""
        kind, rng, where = self.job.harm, self.generator, self.model.device
        clean = torch.cat([self._patch(self.clean[int(torch.randint(len(self.clean), (), generator=rng))]) for _ in range(BATCH)])
        synthetic = harming.harmed(clean, kind, 0.1 + 0.9 * torch.rand(BATCH, generator=rng), False, rng)
        real = torch.cat([self._patch(self.real) for _ in range(BATCH)])
        with torch.enable_grad():
            parts = adapting.losses(self.restorer, self.noiser, clean.to(where), synthetic.to(where), real.to(where), alpha, *self.settings)
            parts.total.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        for mine, theirs in zip(self.average.parameters(), self.restorer.parameters()):
            mine.lerp_(theirs, 1 - AVERAGE)
        self.model.nfe += BATCH * (4 if self.settings[1] else 3)
        for values, part in zip(self.series.values(), (parts.synthetic, parts.error)):
            values.append(float(part))

    def _patch(self, picture: Tensor) -> Tensor:
        top, left = (int(torch.randint(n - PATCH + 1, (), generator=self.generator)) for n in picture.shape[-2:])
        x = picture[..., top : top + PATCH, left : left + PATCH]
        turn = int(torch.randint(8, (), generator=self.generator))
        return (x.flip(3) if turn > 3 else x).rot90(turn % 4, (2, 3))

    def middle(self) -> Image:
        """The middle of the picture as it is restored now."""
        sides = [min(n, SHOWN) // 8 * 8 for n in self.real.shape[-2:]]
        (top, left), (h, w) = ((n - side) // 2 for n, side in zip(self.real.shape[-2:], sides)), sides
        part = self.real[..., top : top + h, left : left + w]
        return Image(as_pixels(self.average.restore(part.to(self.model.device))), before=as_pixels(part))

    def whole(self) -> Image:
        with uncounted(self.model):  # made for a picture that nobody may have asked for
            *_, (_, _, made) = self.model.restored(self.average, self.real)
        return Image(as_pixels(made), before=self.pixels)

    def curves(self, n: int) -> Plot:
        return Plot({name: (list(range(1, n + 1)), values[:n]) for name, values in self.series.items()}, y="loss")


def photographs() -> list[np.ndarray]:
    """(H, W, 3) uint8 each: clean ones that the synthetic pairs are cut from."""
    from backends.worlds.photos import EXAMPLES

    return [inputs.picture(ASSETS.parent / "examples" / name, name) for name in EXAMPLES]
