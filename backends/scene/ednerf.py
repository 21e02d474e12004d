"""ED-NeRF (arXiv 2310.02712): an object's field lives in the model's latents, and the difference of two scores edits it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from backends.denoiser import as_uint8, together
from backends.lazy import F, torch
from backends.registry import method
from backends.scene.attention_grids import attention_in, sides_of, telling
from backends.scene.capturing import Captured
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Scale, Scored, Views, pull, strength
from backends.scene.edit_masks import differences, in_space, in_views
from backends.scene.latent_field import Encoded, LatentField, encoded, fitted, mesh_of
from backends.scene.tasks import EDIT_OBJECT, EditObject
from backends.scene.turning import turning, turntable
from backends.spec import BadInput, Choice, Events, Image, Images, Metric, Plot, Result, Slider, Step, Toggle, Turntable
from backends.worlds.objects_render import Camera

if TYPE_CHECKING:
    from torch import Tensor

VIEWS, SIDE = 36, 128  # of the capture; px of the result's views
LARGEST = 3.0  # of a latent, whose deviation is about 1


def delta(z: Tensor, z_s: Tensor, cameras: list[Camera], target: Prior, source: Prior, t: int) -> Scored:
    """w(t)(ε̂(z_t; target) − ε̂(z_s,t; source)), both guided, under one noise: the difference of two scores of SDS, evaluated as one batch."""
    noise = target.noise(z)
    both = target.score(torch.cat([z, z_s]), together((target.cond(cameras), source.cond(cameras))), t, torch.cat([noise, noise]))
    (one, other), (wanted, _) = both.gradient.chunk(2), both.target.chunk(2)
    return Scored(one - other, wanted, both.t)


@dataclass(frozen=True)
class Edited:
    """One iteration: its first view as rendered, `raw` (1, C, h, w), and refined, `z`; its mask; the masked pull; what holds on to the source."""

    i: int
    raw: Tensor
    z: Tensor
    mask: Tensor
    pull: Tensor
    t: float
    held: float


def edits(field: LatentField, still: LatentField, cameras: list[Camera], masks: Tensor, score: Callable[[Tensor, Tensor, list[Camera]], Scored], generator,
          iterations: int, batch: int, outside: float, inside: float) -> Iterator[Edited]:  # fmt: skip
    """Masked distillation in latents, held on to what `still` gives; yields after each step of Adam."""
    optimiser = torch.optim.Adam(field.rates(0.015, 0.05, 1e-4))
    for i in range(iterations):
        chosen = torch.randperm(len(masks), generator=generator)[:batch].tolist()
        those, mask = [cameras[c] for c in chosen], masks[chosen]
        with torch.no_grad():
            was = still.latents(those)
            z_s = still.refined(was.picture)
        with torch.enable_grad():
            seen = field.latents(those, generator)
            z = field.refined(seen.picture)
            scored = score(z.detach(), z_s, those)
            gap = (z - z_s).square().sum(1, keepdim=True) + (seen.opacity - was.opacity).square()
            held = ((outside * (1 - mask) + inside * mask) * gap).sum() / len(z)
            (pull(z, mask * scored.gradient) + held).backward()
        optimiser.step(), optimiser.zero_grad()
        with torch.no_grad():  # else a thin veil of extreme latents would do for something solid
            field.volume.features.clamp_(-LARGEST, LARGEST)
        yield Edited(i + 1, seen.picture.detach()[:1], z.detach()[:1], mask[:1], (mask * scored.gradient)[:1], scored.t, float(held.detach()))


@method("ednerf", task=EDIT_OBJECT, needs={"image", "cfg", "gradients", "vae"})
def ednerf(
    job: EditObject, model, iterations: Iterations = 200, scale: Scale = 7.5, low: Low = 0.02, high: High = 0.98, grid: Grid = 40, views: Views = 2,
    captures: Captured = 100,
    score: Annotated[str, Choice(("delta", "SDS"), help="the difference of two scores, or the prompt's own alone")] = "delta",
    mask: Annotated[str, Choice(("difference", "attention", "everywhere"), help="where the edit goes: where the predictions for both prompts differ, "
                                                                                 "or where the new words are looked at")] = "difference",
    share: Annotated[float, Slider(0.1, 0.9, 0.05, help="of the strongest difference or attention, from which on a place is of the edit")] = 0.4,
    outside: Annotated[float, Slider(0, 10, 0.1, help="how much is held on to the source outside the mask")] = 1.0,
    inside: Annotated[float, Slider(0, 1, 0.01, help="the same inside it")] = 0.01,
    refine: Annotated[bool, Toggle(help="repair the rendered latents by ResNet and self-attention blocks")] = True,
    weight: Annotated[float, Slider(0, 10, 0.1, help="of the refined latents' error against the rendered ones'")] = 1.0,
) -> Events:  # fmt: skip
    """ED-NeRF.

    The object's field gives the model's latents instead of colours, so that nothing is encoded or decoded while it is edited. What the model makes
    of the new words, less what it makes of the old ones on the source, pulls where the edit goes; the rest is held.
    """
    generator = torch.Generator().manual_seed(job.seed)
    target, source = Prior(model, job.prompt, generator, scale), Prior(model, job.source, generator, scale)
    seen = encoded(model, job.shape, VIEWS)
    total = captures + iterations
    for i, field in enumerate(fitted(model, seen, grid, captures, generator, refine, weight), 1):
        yield Step(i, total, lambda i=i, field=field: turning(field, i, SIDE), keep=lambda field=field: turned(field))
    still = field.copy()
    masks = in_views(extent(seen, target, source, job, grid, mask, share), seen.cameras, seen.z.shape[-1])

    def scored(z: Tensor, z_s: Tensor, cameras: list[Camera]) -> Scored:
        t = target.level(low, high)
        return delta(z, z_s, cameras, target, source, t) if score == "delta" else target.score(z, target.cond(cameras), t)

    at, pulls, helds = [], [], []
    for edit in edits(field, still, seen.cameras, masks, scored, generator, iterations, views, outside, inside):
        at.append(edit.i), pulls.append(float(edit.pull.square().mean().sqrt())), helds.append(edit.held)

        def aside(edit=edit):
            return pictured(edit, model), Plot({"pull": (at, pulls), "held on to": (at, helds)}, x="iteration")

        yield Step(captures + edit.i, total, lambda i=edit.i: turning(field, i, SIDE), aside, keep=lambda: turned(field))
    field.requires_grad_(False)
    yield from changes(through(field, seen.cameras) - through(still, seen.cameras), masks)
    yield Result(turned(field), aside())


def extent(seen: Encoded, target: Prior, source: Prior, job: EditObject, grid: int, mask: str, share: float) -> Tensor:
    """(R, R, R) bool: where in space the edit goes."""
    parts = [(seen.z[k : k + 6], seen.cameras[k : k + 6]) for k in range(0, len(seen.cameras), 6)]
    if mask == "everywhere":
        return torch.ones(grid, grid, grid, dtype=torch.bool, device=seen.z.device)
    if mask == "attention":
        words = [w for w in telling(job.prompt) if w not in telling(job.source)]
        if not words:
            raise BadInput("The prompt has no word that the source lacks; name what shall be new, or let the mask be where the predictions differ.")
        if "cross_attention" not in target.model.card.capabilities:
            raise BadInput("This model has no cross-attention to read a mask from; let the mask be where the predictions differ.")
        rows, _ = sides_of(target, job, words)
        maps = [attention_in(z, target, cameras, rows).amax(1, keepdim=True) for z, cameras in parts]
    else:
        maps = [differences(z, target, source, cameras) for z, cameras in parts]
    return in_space(torch.cat(maps), seen.cameras, grid, share)


def through(field: LatentField, cameras: list[Camera]) -> Tensor:
    """R(ẑ) of all cameras."""
    with torch.no_grad():
        return torch.cat([field.refined(field.latents(cameras[k : k + 6]).picture) for k in range(0, len(cameras), 6)])


def turned(field: LatentField) -> Turntable:
    return turntable(field, side=SIDE, mesh=mesh_of)


def changes(change: Tensor, masks: Tensor) -> Events:
    """How much the refined latents changed inside the masks and outside."""
    square = change.square().mean(1, keepdim=True)
    within, without = (float((square * m).sum() / m.sum().clamp_min(1)) ** 0.5 for m in (masks, 1 - masks))
    yield Metric("change inside the mask", within, aside="RMS of the latents, whose deviation is about 1")
    if masks.mean() < 1:
        yield Metric("change outside the mask", without, "lower", aside="likewise")


def pictured(edit: Edited, model) -> Images:
    raw, side = edit.raw[0, :3], model.side
    raw = (raw - raw.amin((1, 2), keepdim=True)) / (raw.amax((1, 2), keepdim=True) - raw.amin((1, 2), keepdim=True)).clamp_min(1e-6)
    latents, mask = ((F.interpolate(m[None], (side, side))[0].permute(1, 2, 0) * 255).byte().cpu().numpy() for m in (raw, edit.mask[0].expand(3, -1, -1)))
    view = as_uint8(model.to_pixels(edit.z))
    return Images((Image(latents, "latents as rendered, three channels as RGB"), Image(view, "refined and decoded"), Image(mask, "mask of the edit"),
                   Image(strength(edit.pull, side), f"pull, t = {edit.t:.2f}")))  # fmt: skip
