"""ED-NeRF (arXiv 2310.02712): a scene in the latents of the model that edits it, by the difference of two scores within a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from backends.lazy import F, torch
from backends.registry import method
from backends.scene.capturing import Captured, posed
from backends.scene.distill import Grid, High, Iterations, Low, Prior, Pulled, Scored, Views, pull, watched
from backends.scene.latent_field import GROUND, LatentField, encoded, fit
from backends.scene.tasks import EDIT_OBJECT, EditObject
from backends.scene.turning import turning, turntable
from backends.scene.volume import Rendered
from backends.spec import Choice, Events, Image, Images, Metric, Result, Slider, Step, Toggle

if TYPE_CHECKING:
    from torch import Tensor

Weight = Annotated[float, Slider(0, 10, 0.01, help="of staying as it was")]


def delta(target: Prior, source: Prior, z: Tensor, z_source: Tensor, cameras, t: int) -> Scored:
    """w(t)·[ε̂(z_t; target) − ε̂(z_source,t; source)] (Hertz et al., arXiv 2304.07090, eq. 3), both guided, of one noise at one level."""
    noise = target.noise(z)
    wanted, was = target.score(z, target.cond(cameras), t, noise), source.score(z_source, source.cond(cameras), t, noise)
    # Prior.score gives w(ε̂ − ε); of one noise, the ε cancel.
    return Scored(wanted.gradient - was.gradient, z_source + wanted.target - was.target, t / 1000)


def edit_masks(target: Prior, source: Prior, z: Tensor, cameras, share: float, levels=(500, 600, 700, 800), batch: int = 8) -> Tensor:
    """(n, 1, h, w) bool: where the two prompts part by at least `share` of the most, in the mean over noises; a cell more all around."""
    parted = []
    for k in range(0, len(z), batch):
        some, near, total = z[k : k + batch], cameras[k : k + batch], 0.0
        for t in levels:
            noise = target.noise(some)
            gap = target.score(some, target.cond(near), t, noise).target - source.score(some, source.cond(near), t, noise).target
            total = total + gap.square().mean(1, keepdim=True).sqrt()
        parted.append(F.avg_pool2d(total, 3, 1, 1, count_include_pad=False))
    parted = torch.cat(parted)
    return F.max_pool2d((parted > share * parted.flatten(1).quantile(0.995, 1).view(-1, 1, 1, 1)).float(), 3, 1, 1) > 0


@method("ednerf", task=EDIT_OBJECT, needs={"image", "cfg", "gradients", "vae"})
def ednerf(
    job: EditObject, model, iterations: Iterations = 200, scale: Annotated[float, Slider(1, 100, 0.5, help="classifier-free guidance of both scores")] = 7.5,
    low: Low = 0.02, high: High = 0.98, grid: Grid = 40, views: Views = 2, captures: Captured = 100,
    score: Annotated[str, Choice(("delta", "SDS"), help="the difference of two scores (ED-NeRF), or the new words' alone, within the same mask")] = "delta",
    where: Annotated[str, Choice(("difference", "everywhere"), help="the mask: where the two prompts part, or all of the view")] = "difference",
    share: Annotated[float, Slider(0.05, 0.95, 0.05, help="of the largest difference, from which on a cell is part of the edit")] = 0.5,
    keep_out: Weight = 1.0, keep_in: Weight = 0.01,
    refine: Annotated[bool, Toggle(help="the layer that repairs rendered latents")] = True,
) -> Events:  # fmt: skip
    """ED-NeRF.

    The object is captured in the latents of the very model that edits it, so that no step passes through pixels. What the new words ask for, less
    what the old words ask for, moves the latents where the two part; everywhere else they are held to what they were.

    Park et al., arXiv 2310.02712: a field that renders latents, a refinement layer of ResNet and self-attention blocks, masked delta denoising score
    with w = σ². Its code was never released and its constants are unverified. Where we differ: a voxel grid and no TensoRF; the density is held to
    the views' alpha; the mask is where the model's estimates under the two prompts part on the encoded views (as in DiffEdit, arXiv 2210.11427), in
    place of a text-driven segmenter, which would be one more network; the field is edited from the posed views alone, whose latents are the source.
    """
    shots, cameras = posed(job.shape, size=model.side)
    for i, (field, _) in enumerate(fit(model, shots, cameras, grid, captures, job.seed, refine), 1):
        yield Step(i, captures + iterations, lambda i=i, field=field: turning(field, i), keep=lambda field=field: turntable(field))
    original, edited = field, field.copy().requires_grad_()
    generator = torch.Generator().manual_seed(job.seed)
    target, source = Prior(model, job.prompt, generator, scale), Prior(model, job.source, generator, scale)
    z, _ = encoded(model, shots)
    masks = edit_masks(target, source, z, cameras, share) if where == "difference" else torch.ones_like(z[:, :1], dtype=torch.bool)

    def pulls():
        optimiser = torch.optim.Adam(edited.rates())
        for i in range(iterations):
            chosen = torch.randperm(len(cameras), generator=generator)[:views].tolist()
            near, was, inside = [cameras[c] for c in chosen], z[chosen], masks[chosen].float()
            with torch.enable_grad():
                _, now, opacity = edited.latents(near, generator)
                level = target.level(low, high)
                scored = delta(target, source, now.detach(), was, near, level) if score == "delta" else target.score(now, target.cond(near), level)
                moved = (now - was).square()
                kept = (keep_out * (1 - inside) * moved + keep_in * inside * moved).sum() / views
                (pull(now, scored.gradient * inside) + kept).backward()
            optimiser.step(), optimiser.zero_grad()
            scored = Scored(scored.gradient * inside, scored.target, scored.t)
            yield Pulled(i + 1, near, Rendered(now.detach(), opacity.detach(), opacity.detach()), now.detach(), scored)

    for step in watched(pulls(), edited, target, iterations, captures):
        yield step
    edited.requires_grad_(False)
    inside, outside = changes(original, edited, masks, cameras)
    yield Metric("change outside the mask, of that inside (%)", 100 * outside / max(inside, 1e-9), "lower", aside="root mean square over latents")
    yield Result(
        turntable(edited), (*step.aside(), Images(tuple(Image(over(shots[k], masks[k, 0]), f"the mask, {cameras[k].azimuth:.0f}°") for k in (0, 6, 12))))
    )


def changes(original: LatentField, edited: LatentField, masks: Tensor, cameras, batch: int = 8) -> tuple[float, float]:
    """Root mean square change of the refined latents inside and outside the masks."""
    moved = torch.cat([edited.latents(cameras[k : k + batch])[1] - original.latents(cameras[k : k + batch])[1] for k in range(0, len(cameras), batch)])
    moved = moved.square().mean(1, keepdim=True)
    return tuple(float(moved[m].mean().sqrt()) if m.any() else 0.0 for m in (masks, ~masks))


def over(shot, mask: Tensor):
    """(H, W, 3) uint8: an RGBA view on the ground, what is outside the mask (h, w) darkened."""
    picture = torch.from_numpy(shot[..., :3] + (1 - shot[..., 3:]) * GROUND)
    light = F.interpolate(0.35 + 0.65 * mask[None, None].float().cpu(), picture.shape[:2])[0, 0, :, :, None]
    return (picture * light * 255).round().byte().numpy()
