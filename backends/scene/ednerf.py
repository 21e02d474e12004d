"""ED-NeRF (arXiv 2310.02712): a scene in the latents of the model that edits it, by the difference of two scores within a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

from backends.lazy import F, torch
from backends.registry import method
from backends.scene.capturing import Captured, posed
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Pulled, Scored, Views, pull, watched
from backends.scene.edit_masks import extent
from backends.scene.latent_field import LatentField, encoded, fit, in_views
from backends.scene.tasks import EDIT_OBJECT, EditObject
from backends.scene.turning import GROUND, turning, turntable
from backends.scene.volume import Rendered, smoothness
from backends.spec import BadInput, Choice, Events, Image, Images, Metric, Result, Slider, Step, Toggle

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from backends.worlds.objects_render import Camera

LARGEST = 3.0  # of a latent, whose deviation is about 1
Weight = Annotated[float, Slider(0, 10, 0.01, help="of staying as it was")]


def delta(target: Prior, source: Prior, z: Tensor, z_source: Tensor, cameras, t: int) -> Scored:
    """w(t)·[ε̂(z_t; target) − ε̂(z_source,t; source)] (Hertz et al., arXiv 2304.07090, eq. 3), both guided, of one noise at one level."""
    noise = target.noise(z)
    wanted, was = target.score(z, target.cond(cameras), t, noise), source.score(z_source, source.cond(cameras), t, noise)
    # Prior.score gives w(ε̂ − ε); of one noise, the ε cancel.
    return Scored(wanted.gradient - was.gradient, z_source + wanted.target - was.target, t / 1000)


@method("ednerf", task=EDIT_OBJECT, needs={"image", "cfg", "gradients", "vae"})
def ednerf(
    job: EditObject, model, iterations: Iterations = 120, scale: Annotated[float, Slider(1, 100, 0.5, help="classifier-free guidance of both scores")] = 7.5,
    low: Low = 0.02, high: High = 0.98, grid: Grid = 40, views: Views = 2, captures: Captured = 240,
    score: Annotated[str, Choice(("delta", "SDS"), help="the difference of two scores (ED-NeRF), or the new words' alone, within the same mask")] = "delta",
    where: Annotated[str, Choice(("difference", "attention", "everywhere"), help="the mask: where the two prompts part, where the new words are looked at, "
                                                                                  "or all of the view")] = "difference",
    share: Annotated[float, Slider(0.05, 0.95, 0.05, help="of the strongest place's difference or attention, from which on a place is part of the edit")] = 0.4,
    keep_out: Weight = 5.0, keep_in: Weight = 0.01,
    refine: Annotated[bool, Toggle(help="the layer that repairs rendered latents")] = True,
) -> Events:  # fmt: skip
    """ED-NeRF.

    The object is captured in the latents of the very model that edits it, so that no step passes through pixels. What the new words ask for, less
    what the old words ask for, moves the latents where the two part; everywhere else they are held to what they were.

    Park et al., arXiv 2310.02712: a field that renders latents, a refinement layer of ResNet and self-attention blocks, masked delta denoising score
    with w = σ². Its repository holds no code and its constants are unverified. Where we differ: a voxel grid and no TensoRF; the density is held to
    the views' alpha; the source is what the captured field renders, not the encoded views, so that at first nothing is left to repair and the delta
    speaks of the words alone; opacity is held as the latents are, for many densities give one latent, and latents stay within ±3, or what the capture gave, for the same reason.
    Only voxels of the edit move, and λ_out is 5; the layer stays as the capture left it and speaks within the mask, for its attention would
    carry the edit to all of a view.
    The mask is where the model's estimates under the two prompts part on the encoded views (as in DiffEdit, arXiv 2210.11427), in place of a
    text-driven segmenter, which would be one more network and does not know where a hat is to come; the views' maps are brought together in space
    and seen again, so that all sides agree.
    """
    if job.prompt.lower().strip(" .,") == job.source.lower().strip(" .,"):
        raise BadInput("Source and prompt ask for the same; say in the prompt what the object shall be.")
    shots, cameras = posed(job.shape, size=model.side)
    z, _ = known = encoded(model, shots)
    for i, (field, _) in enumerate(fit(model, shots, cameras, grid, captures, job.seed, refine, known=known), 1):
        yield Step(i, captures + iterations, lambda i=i, field=field: turning(field, i), keep=lambda field=field: turntable(field))
    generator = torch.Generator().manual_seed(job.seed)
    target, source = Prior(model, job.prompt, generator, scale), Prior(model, job.source, generator, scale)
    place = extent(where, job, target, source, z, cameras, grid, share)
    masks, original, edited = in_views(place, cameras, z.shape[-1]), field, field.copy(around=(field, place))
    if not masks.any():
        raise BadInput("No cell of any view is part of the edit; lower its share.")

    def scored(now: Tensor, was: Tensor, near: list[Camera]) -> Scored:
        level = target.level(low, high)
        return delta(target, source, now, was, near, level) if score == "delta" else target.score(now, target.cond(near), level)

    pulls = masked(edited, original, cameras, masks, place, scored, generator, iterations, views, keep_out, keep_in)
    shown = yield from watched(pulls, edited, target, iterations, captures, beside=lambda: (marked(edited, cameras, shots, masks),))
    edited.requires_grad_(False)
    inside, outside = changes(original, edited, masks, cameras)
    if not masks.all():
        yield Metric("change outside the mask, of that inside (%)", 100 * outside / max(inside, 1e-9), "lower", aside="root mean square over latents")
    yield Result(turntable(edited), shown)


def masked(edited: LatentField, original: LatentField, cameras: list[Camera], masks: Tensor, place: Tensor, score: Callable[[Tensor, Tensor, list[Camera]], Scored], generator,
           iterations: int, views: int, keep_out: float, keep_in: float) -> Iterator[Pulled]:  # fmt: skip
    """Pull the refined latents within the masks (n, 1, h, w) and hold them to the original's; yields after each step of Adam.

    `place` (R, R, R) bool: nodes that may move.
    """
    features = original.volume.features
    least, most = features.clamp(max=-LARGEST), features.clamp(min=LARGEST)
    with torch.no_grad():
        still = [torch.cat(parts) for parts in zip(*(original.latents([camera]) for camera in cameras))]  # it stays as it is, and its views with it
    optimiser = torch.optim.Adam(edited.volume.requires_grad_().rates(0.015, 0.05))
    for i in range(iterations):
        chosen = torch.randperm(len(cameras), generator=generator)[:views].tolist()
        near, inside, (plain, was, solid) = [cameras[c] for c in chosen], masks[chosen].float(), (part[chosen] for part in still)
        with torch.enable_grad():
            _, now, opacity = edited.latents(near, generator, (was - plain, masks[chosen]))
            scored = score(now.detach(), was, near)
            moved = (now - was).square().sum(1, keepdim=True) + (opacity - solid).square()
            rough = 0.01 * now[0].numel() * smoothness(edited.volume.density - original.volume.density)
            (pull(now, scored.gradient * inside) + ((keep_out * (1 - inside) + keep_in * inside) * moved).sum() / len(now) + rough).backward()
        for p in edited.volume.parameters():
            p.grad *= place
        optimiser.step(), optimiser.zero_grad()
        with torch.no_grad():  # else a thin veil of extreme latents would do for something solid
            edited.volume.features.clamp_(least, most)
        scored = Scored(scored.gradient * inside, scored.target, scored.t)
        yield Pulled(i + 1, Rendered(now.detach(), opacity.detach(), opacity.detach()), now.detach(), scored)


def changes(original: LatentField, edited: LatentField, masks: Tensor, cameras, batch: int = 8) -> tuple[float, float]:
    """Root mean square change of the refined latents inside and outside the masks."""
    moved = torch.cat([edited.latents(cameras[k : k + batch])[1] - original.latents(cameras[k : k + batch])[1] for k in range(0, len(cameras), batch)])
    moved = moved.square().mean(1, keepdim=True)
    return tuple(float(moved[m].mean().sqrt()) if m.any() else 0.0 for m in (masks, ~masks))


def marked(field: LatentField, cameras: list[Camera], shots: np.ndarray, masks: Tensor) -> Images:
    """A view's latents as they are rendered, three channels as colours, and masks of the edit on views, darkened outside."""
    with torch.no_grad():
        raw = field.latents(cameras[:1])[0][0, :3]
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    raw = F.interpolate(((raw - low) / (high - low).clamp_min(1e-6))[None], shots.shape[1:3])[0].permute(1, 2, 0)
    latents = Image((raw * 255).round().byte().cpu().numpy(), "latents as rendered, three channels as RGB")
    return Images((latents, *(Image(over(shots[k], masks[k, 0]), f"the mask, {cameras[k].azimuth:.0f}°") for k in (0, 6, 12))))


def over(shot, mask: Tensor):
    """(H, W, 3) uint8: an RGBA view on the ground, what is outside the mask (h, w) darkened."""
    picture = torch.from_numpy(shot[..., :3] + (1 - shot[..., 3:]) * GROUND)
    light = F.interpolate(0.35 + 0.65 * mask[None, None].float().cpu(), picture.shape[:2])[0, 0, :, :, None]
    return (picture * light * 255).round().byte().numpy()
