"""ED-NeRF: fields of latents, the delta of two scores, masks; on a tiny random model."""

import numpy as np
import pytest
import torch

from backends import models
from backends.scene.capturing import posed
from backends.scene.distill import Prior, Scored
from backends.scene.edit_masks import differences, in_space
from backends.scene.ednerf import delta, ednerf, masked
from backends.scene.latent_field import LatentField, fit, in_views, refinement
from backends.scene.tasks import EditObject
from backends.scene.volume import Volume
from backends.spec import BadInput, Images, Metric, Plot
from backends.worlds import objects
from backends.worlds.objects_render import Camera


@pytest.fixture
def prior(tiny):
    def of(prompt, seed=0):
        return Prior(tiny, prompt, torch.Generator().manual_seed(seed), 7.5)

    return of


@pytest.mark.identity("ednerf", "of one prompt and one latent the delta is 0 within 1e-6, where the plain score's gradient is above 0.05 an element")
def test_nothing_moves_where_words_and_latents_are_the_same(prior):
    one, other = prior("a cactus"), prior("a cactus")
    z, cameras = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1)), [Camera(0), Camera(90)]
    for t in (100, 500, 900):
        assert float(delta(one, other, z, z, cameras, t).gradient.abs().max()) <= 1e-6
    assert float(one.score(z, one.cond(cameras), 500).gradient.abs().mean()) > 0.05


def test_the_delta_is_the_difference_of_two_noises(prior):
    one, other, cameras = prior("a cactus"), prior("a red horse"), [Camera(0)]
    z, was = torch.randn(2, 1, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    found = delta(one, other, z, was, cameras, 400).gradient
    noise = prior("", 0).noise(z)
    alpha, sigma = one.model.alpha_sigma(400)
    each = []
    for p, x in ((one, z), (other, was)):
        state = alpha * x + sigma * noise
        seen, blind = (one.model.noise_of(x0, state, 400) for x0 in one.model.x0s(state, 400, p.cond(cameras), p.uncond))
        each.append(blind + 7.5 * (seen - blind))
    assert torch.allclose(found, sigma**2 * (each[0] - each[1]), atol=1e-4)


@pytest.mark.identity("ednerf", "an untrained refinement layer begins as the identity")
def test_the_refinement_adds_nothing_at_first():
    z = torch.randn(1, 8, 16, 16)
    assert not refinement(8)(z).any()


def test_the_objects_model_begins_with_a_layer_that_repairs_and_others_at_nothing():
    card = models.get("objects-ldm")
    z = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    begun = refinement(8, begun=models.ASSETS / card.options["refinement"])
    with torch.no_grad():
        assert 0.02 < begun(z).abs().mean() < 1 and torch.equal(refinement(8)(z), torch.zeros_like(z))
    assert [c.name for c in models.CARDS.values() if "refinement" in c.options] == ["objects-ldm"]


def test_a_field_of_latents_gives_its_views_back(tiny):
    views, cameras = posed(objects.plain("barrel"), 6, 128)
    errors = [error for _, error in fit(tiny, views, cameras, 24, 20, 0)]
    assert errors[-1] < 0.5 * errors[0]
    *_, (field, _) = fit(tiny, views, cameras, 24, 3, 0, refined=False)
    plain, refined, opacity = field.latents(cameras[:2])
    assert plain is refined or torch.equal(plain, refined)
    assert opacity.shape == (2, 1, 16, 16) and 0.02 < float(opacity.mean()) < 0.6


ROUND = [Camera(30.0 * k, e, 2.8) for k, e in enumerate((10, 40, -5, 60) * 3)]


def cloud(model) -> LatentField:
    """Half-dense, of random latents."""
    generator = torch.Generator().manual_seed(0)
    grids = [torch.randn(1, n, 16, 16, 16, generator=generator) for n in (1, 8)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LatentField(model, Volume(0.05 * grids[0] - 0.05, grids[1], colours=False), refinement(8), torch.randn(1, 8, 16, 16))


def test_an_empty_field_is_its_ground(tiny):
    field = cloud(tiny)
    field.volume = Volume.blank(8, 8, colours=False, density=-1.0)
    plain, _, opacity = field.latents(ROUND[:2])
    assert torch.allclose(plain, field.ground.expand(2, -1, -1, -1), atol=1e-5) and float(opacity.max()) < 1e-5


@pytest.mark.identity("ednerf", "outside the mask the masked pull on the refined latents is exactly 0")
def test_masks_stop_the_pull_and_the_rest_is_held(tiny):
    """The same pull for as long, with and without what holds the rest to the original."""
    masks, moved = torch.zeros(12, 1, 16, 16, dtype=torch.bool), {}
    masks[..., :8, :] = True
    for keep in (0.0, 10.0):
        original, edited = cloud(tiny), cloud(tiny).requires_grad_()
        score = lambda now, was, near: Scored(torch.ones_like(now), now, 0.5)  # noqa: E731
        for pulled in masked(
            edited, original, ROUND, masks, torch.ones(16, 16, 16, dtype=torch.bool), score, torch.Generator().manual_seed(0), 8, 2, keep, 0.0
        ):
            gradient = pulled.scored.gradient
            assert float(gradient[..., 8:, :].abs().max()) == 0 and float(gradient[..., :8, :].min()) == 1
        with torch.no_grad():
            change = edited.latents(ROUND)[1] - original.latents(ROUND)[1]
        moved[keep] = [float(change[..., rows, :].square().mean()) for rows in (slice(8), slice(8, None))]
    assert moved[10.0][1] < 0.5 * moved[0.0][1] and moved[10.0][1] < 0.3 * moved[10.0][0]


def test_an_edit_moves_its_own_voxels_and_is_not_carried_on_by_the_layer(tiny):
    original, place = cloud(tiny), torch.zeros(16, 16, 16, dtype=torch.bool)
    original.volume.features *= 4  # beyond what an edit may reach
    with torch.no_grad():
        original.refine[-1].weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    place[:, 10:14, 4:12] = True
    edited = original.copy(around=(original, place))
    before = [p.clone() for p in edited.volume.parameters()]
    score = lambda now, was, near: Scored(torch.ones_like(now), now, 0.5)  # noqa: E731
    masks = in_views(place, ROUND, 16)
    for _ in masked(edited, original, ROUND, masks, place, score, torch.Generator().manual_seed(0), 4, 2, 0.0, 0.0):
        pass
    for now, was in zip(edited.volume.parameters(), before):
        moved = (now != was).any(1, keepdim=True)
        assert moved[place[None, None]].any() and not moved[~place[None, None]].any()
    with torch.no_grad():
        nothing = original.copy(around=(original, place)).latents(ROUND)[1] - original.latents(ROUND)[1]
        with_layer, alone = (
            f.latents(ROUND)[1] - original.latents(ROUND)[1] for f in (edited, LatentField(tiny, edited.volume, original.refine, original.ground))
        )
    assert not nothing.any()
    out = ~masks.expand_as(alone)
    assert with_layer[out].square().mean() < 0.5 * alone[out].square().mean()


def test_like_prompts_part_nowhere(prior):
    z = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    assert not differences(prior("a cat"), prior("a cat"), z, ROUND[:2]).any()
    parted = differences(prior("a cat"), prior("a red cat"), z, ROUND[:2])
    assert parted.shape == (2, 1, 16, 16) and (parted > 0).all()


@pytest.mark.identity("ednerf", "a ball's masks in twelve views find it in space, and space shows them again: intersection over union ≥ 0.6 each")
def test_a_place_in_views_is_found_in_space():
    at = torch.linspace(-1, 1, 24)
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    ball = (x - 0.2) ** 2 + (y - 0.4) ** 2 + z**2 < 0.3**2
    maps = in_views(ball, ROUND, 16)
    found = in_space(maps.float(), ROUND, 24, 0.9)
    again = in_views(found, ROUND, 16)
    for one, other in ((found, ball), (again, maps)):
        assert float((one & other).sum() / (one | other).sum()) >= 0.6


def ran(model, prompt: str = "a barrel wearing a crown", **knobs) -> list:
    job = EditObject(shape=objects.plain("barrel"), source="a barrel", prompt=prompt, seed=1)
    return list(ednerf(job, model, iterations=1, captures=1, grid=16, **knobs))


@pytest.mark.parametrize("knobs", [{"score": "SDS", "refine": False, "where": "everywhere"}, {"where": "attention"}])
def test_its_arms_run(tiny, monkeypatch, knobs):
    monkeypatch.setattr("backends.scene.ednerf.turntable", lambda field: field)
    *steps, end = (e for e in ran(tiny, **knobs) if not isinstance(e, Metric))
    assert len(steps) == 2 and (end.value.refine is None) == (knobs.get("refine") is False)
    assert [type(a) for a in end.aside] == [Images, Plot, Plot, Images] and end.aside[3].items[0].pixels.shape == (128, 128, 3)


def test_a_prompt_without_new_words_has_no_attention_mask(tiny):
    with pytest.raises(BadInput, match="no word that the source lacks"):
        ran(tiny, "the barrel", where="attention")


def test_its_mesh_is_coloured_by_the_decoded_views(tiny):
    volume = Volume.blank(20, 8, colours=False)
    at = torch.linspace(-1, 1, 20)
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    volume.density = (8 * (0.5 - (x**2 + y**2 + z**2).sqrt()))[None, None].clamp(-1, 3)
    field = LatentField(tiny, volume, None, torch.zeros(1, 8, 16, 16))
    mesh = field.mesh()
    # A network of random weights sees some constant in constant latents: all faces have its colour at the object's middle, about.
    seen = (field.decoded([Camera(0, 15, 2.8)])[0][0, :, 60:68, 60:68].mean((1, 2)).clamp(0, 1) * 255).numpy()
    assert np.abs(mesh.colours.mean(0) - seen).max() < 40 and mesh.colours.shape == mesh.faces.shape


def test_points_are_projected_where_rays_pass():
    camera = Camera(30, 20, 2.8)
    eye, ways = camera.rays(16)
    points = torch.tensor(eye + 2.5 * ways.reshape(-1, 3), dtype=torch.float32)
    at = (torch.arange(16) + 0.5) / 16 * 2 - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    assert torch.allclose(camera.project(points), torch.stack([x, y], -1).reshape(-1, 2), atol=1e-5)
