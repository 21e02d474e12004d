"""ED-NeRF: the difference of scores, the refinement layer, the field of latents, and masks."""

import dataclasses

import numpy as np
import pytest
import torch

from backends import run
from backends.scene.distill import Prior, Scored
from backends.scene.edit_masks import differences, in_space, in_views
from backends.scene.ednerf import delta, edits
from backends.scene.latent_field import LatentField, encoded, fitted, mesh_of, refinement
from backends.scene.volume import Volume
from backends.spec import Images, Metric, Outcome, Plot, Result, Step
from backends.worlds import objects
from backends.worlds.objects_render import Camera

ROUND = [Camera(60.0 * k, e, 2.8) for k, e in enumerate((10, 35, -5) * 2)]


def prior(model, prompt: str, scale: float = 7.5) -> Prior:
    return Prior(model, prompt, torch.Generator().manual_seed(3), scale)


def field(model, channels: int = 8, side: int = 16, refine: bool = True) -> LatentField:
    """A half-dense cloud of random latents."""
    generator = torch.Generator().manual_seed(0)
    grids = [torch.randn(1, n, side, side, side, generator=generator) for n in (1, channels)]
    made = refinement(channels, 1) if refine else None
    return LatentField(model, Volume(0.05 * grids[0] - 0.05, grids[1], colours=False), made, torch.randn(1, channels, 16, 16, generator=generator))


@pytest.mark.identity("ednerf", "for identical prompts and z̃ = z_s the delta is 0 (norm ≤ 1e-6) where SDS is above 0.05 an element")
def test_no_edit_pulls_nowhere(tiny):
    z, cameras = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1)), ROUND[:2]
    for t in (200, 500, 800):
        one, other = prior(tiny, "a cactus"), prior(tiny, "a cactus")
        assert float(delta(z, z.clone(), cameras, one, other, t).gradient.norm()) <= 1e-6
        assert float(one.score(z, one.cond(cameras), t).gradient.abs().mean()) > 0.05


def test_the_delta_is_the_difference_of_the_networks_noises(tiny):
    generator, cameras, t = torch.Generator().manual_seed(1), ROUND[:2], 400
    z, z_s = (torch.randn(2, 8, 16, 16, generator=generator) for _ in range(2))
    target, source = prior(tiny, "a cactus wearing a hat"), prior(tiny, "a cactus")
    found = delta(z, z_s, cameras, target, source, t)
    noise, (alpha, sigma) = torch.randn(z.shape, generator=torch.Generator().manual_seed(3)), tiny.alpha_sigma(t)

    def predicted(latents, of):
        x = alpha * latents + sigma * noise
        seen, blind = (tiny.noise_of(x0, x, t) for x0 in tiny.x0s(x, t, of.cond(cameras), of.uncond))
        return blind + 7.5 * (seen - blind)

    wanted = sigma**2 * (predicted(z, target) - predicted(z_s, source))
    assert torch.allclose(found.gradient, wanted, atol=2e-4) and float(wanted.abs().mean()) > 1e-3


@pytest.mark.identity("ednerf", "the refinement layer passes its input through, bit by bit, before it is trained")
def test_refinement_begins_as_nothing():
    z = torch.randn(2, 8, 16, 16)
    layer = refinement(8, 0)
    assert torch.equal(layer(z), z)
    layer(z).square().sum().backward()
    assert float(layer.leave.weight.grad.abs().sum()) > 0
    assert torch.equal(layer.enter.weight, refinement(8, 0).enter.weight) and not torch.equal(layer.enter.weight, refinement(8, 1).enter.weight)


def test_refinement_is_made_of_the_autoencoders_own_blocks():
    kinds = [type(m).__name__ for m in refinement(4, 0).modules()]
    assert kinds.count("ResnetBlock2D") == 2 and kinds.count("Attention") == 1


def test_an_empty_field_is_its_ground(tiny):
    empty = field(tiny, refine=False)
    empty.volume = Volume.blank(8, 8, colours=False, density=-1.0)
    seen = empty.latents(ROUND[:2])
    assert torch.allclose(seen.picture, empty.ground.expand(2, -1, -1, -1), atol=1e-5) and float(seen.opacity.max()) < 1e-5


def test_views_of_a_field_give_its_latents_back(tiny):
    """A field of known latents is rendered; another is fitted to it, refined better than not."""
    views = encoded(tiny, objects.plain("barrel"), 6)
    known = views.z.mean((0, 2, 3))
    assert views.z.shape == (6, 8, 16, 16) and views.cover.shape == (6, 1, 16, 16) and 0.05 < float(views.cover.mean()) < 0.6
    coloured = views.ground + views.cover * (2 + known.view(1, -1, 1, 1) - views.ground)  # every cell's latents follow from how much it covers
    views = dataclasses.replace(views, z=coloured)
    error = {}
    for refine in (False, True):
        *_, found = fitted(tiny, views, 20, 60, torch.Generator().manual_seed(0), refine)
        with torch.no_grad():
            error[refine] = float((found.refined(found.latents(views.cameras).picture) - views.z).square().mean() / views.z.var())
    assert error[False] < 0.03 and error[True] < error[False]


@pytest.mark.identity("ednerf", "outside the mask the masked pull on the refined latents is exactly 0")
def test_masks_stop_the_pull(tiny):
    mask = torch.zeros(6, 1, 16, 16)
    mask[..., :8, :] = 1
    moving, still = field(tiny).requires_grad_(), field(tiny)
    score = lambda z, z_s, cameras: Scored(torch.ones_like(z), z, 0.5)  # noqa: E731
    for edit in edits(moving, still, ROUND, mask, score, torch.Generator().manual_seed(0), 2, 2, 1.0, 0.01):
        assert float(edit.pull[..., 8:, :].abs().max()) == 0 and float(edit.pull[..., :8, :].min()) == 1


def test_what_is_outside_is_held(tiny):
    """The same pull for as long, with and without the loss that holds on to the source."""
    mask = torch.zeros(6, 1, 16, 16)
    mask[..., :8, :] = 1
    score, moved = (lambda z, z_s, cameras: Scored(torch.ones_like(z), z, 0.5)), {}
    for outside in (0.0, 10.0):
        moving, still = field(tiny).requires_grad_(), field(tiny)
        for _ in edits(moving, still, ROUND, mask, score, torch.Generator().manual_seed(0), 15, 2, outside, 0.0):
            pass
        with torch.no_grad():
            change = moving.refined(moving.latents(ROUND).picture) - still.refined(still.latents(ROUND).picture)
        moved[outside] = [float(change[..., rows, :].square().mean()) for rows in (slice(8), slice(8, None))]
    assert moved[10.0][1] < 0.5 * moved[0.0][1] and moved[10.0][1] < 0.3 * moved[10.0][0]


@pytest.mark.identity("ednerf", "a mask found in views and shown in them again is where it was: overlap ≥ 0.6 of the true ball's")
def test_a_place_in_views_is_found_in_space():
    grid = torch.linspace(-1, 1, 24)
    z, y, x = torch.meshgrid(grid, grid, grid, indexing="ij")
    ball = (x - 0.2) ** 2 + (y - 0.4) ** 2 + z**2 < 0.3**2
    cameras = [Camera(30.0 * k, e, 2.8) for k, e in enumerate((10, 40, -5, 60) * 3)]
    maps = in_views(ball, cameras, 16)
    found = in_space(maps, cameras, 24, 0.9)
    assert float((found & ball).sum() / (found | ball).sum()) >= 0.6
    again = in_views(found, cameras, 16)
    assert float((again * maps).sum() / (again + maps).clamp(max=1).sum()) >= 0.6


def test_alike_prompts_differ_nowhere(tiny):
    z = torch.randn(2, 8, 16, 16)
    assert float(differences(z, prior(tiny, "a cat"), prior(tiny, "a cat"), ROUND[:2]).max()) == 0
    assert differences(z, prior(tiny, "a cat"), prior(tiny, "a red cat"), ROUND[:2]).shape == (2, 1, 16, 16)


def test_a_mesh_takes_its_colours_from_decoded_views(tiny, monkeypatch):
    """Half of a ball is decoded as red, half as blue, by where it is seen on the picture."""
    made = field(tiny, refine=False)
    grid = torch.linspace(-1, 1, 24)
    z, y, x = torch.meshgrid(grid, grid, grid, indexing="ij")
    made.volume = Volume(torch.where(x**2 + y**2 + z**2 < 0.36, 0.5, -0.5)[None, None], torch.zeros(1, 8, 24, 24, 24), colours=False)
    picture = torch.full((1, 3, 128, 128), -1.0)
    picture[:, 0, :64], picture[:, 2, 64:] = 1, 1
    monkeypatch.setattr(tiny, "to_pixels", lambda latents: picture.expand(len(latents), -1, -1, -1))
    mesh = mesh_of(made)
    height = mesh.vertices[mesh.faces].mean(1)[:, 1]
    assert mesh.colours[height > 0.45][:, 0].mean() > 180 and mesh.colours[height < -0.45][:, 2].mean() > 180


def events(knobs: dict, **job) -> list:
    job = {"shape": "cactus", "source": "a cactus", "prompt": "a cactus wearing a party hat", "seed": 1} | job
    knobs = {"iterations": 2, "captures": 10, "grid": 16} | knobs
    return [e.event for e in run({"task": "edit_object", "job": job, "arms": [{"method": "ednerf", "knobs": knobs}]}, {})]


@pytest.mark.parametrize("knobs", [{"score": "SDS", "refine": False}, {"mask": "attention"}, {"mask": "everywhere"}])
def test_its_arms_run(tiny, knobs):
    found = events(knobs)
    assert found[-1].value is not None and not found[-1].error
    (result,) = [e for e in found if isinstance(e, Result)]
    pictures, curves = result.aside
    assert isinstance(pictures, Images) and len(pictures.items) == 4 and isinstance(curves, Plot)
    names = [e.name for e in found if isinstance(e, Metric)]
    assert ("change outside the mask" in names) == (knobs.get("mask") != "everywhere")
    assert sum(isinstance(e, Step) for e in found) == 12


def test_a_prompt_without_new_words_has_no_attention_mask(tiny):
    (closing,) = [e for e in events({"mask": "attention"}, prompt="a cactus") if isinstance(e, Outcome)]
    assert "no word that the source lacks" in closing.error
