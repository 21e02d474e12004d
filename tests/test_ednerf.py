"""ED-NeRF: fields of latents, the delta of two scores, masks; on a tiny random model."""

import numpy as np
import pytest
import torch

from backends.scene.capturing import posed
from backends.scene.distill import Prior
from backends.scene.ednerf import delta, edit_masks
from backends.scene.latent_field import LatentField, fit, refinement
from backends.scene.volume import Volume
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


@pytest.mark.identity("ednerf", "the refinement layer begins as the identity")
def test_the_refinement_adds_nothing_at_first():
    z = torch.randn(1, 8, 16, 16)
    assert not refinement(8)(z).any()


def test_a_field_of_latents_gives_its_views_back(tiny):
    views, cameras = posed(objects.plain("barrel"), 6, 128)
    errors = [error for _, error in fit(tiny, views, cameras, 24, 20, 0)]
    assert errors[-1] < 0.5 * errors[0]
    *_, (field, _) = fit(tiny, views, cameras, 24, 3, 0, refined=False)
    plain, refined, opacity = field.latents(cameras[:2])
    assert plain is refined or torch.equal(plain, refined)
    assert opacity.shape == (2, 1, 16, 16) and 0.02 < float(opacity.mean()) < 0.6


def test_the_mask_of_two_like_prompts_and_of_a_field_is_bounded(prior):
    z = torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    masks = edit_masks(prior("a cactus wearing a crown"), prior("a cactus"), z, [Camera(0), Camera(120), Camera(240)], 0.5)
    assert masks.shape == (3, 1, 16, 16) and masks.any() and not masks.all()


def test_its_mesh_is_coloured_by_the_decoded_views(tiny):
    volume = Volume.blank(20, 8, colours=False)
    at = torch.linspace(-1, 1, 20)
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    volume.density = (8 * (0.5 - (x**2 + y**2 + z**2).sqrt()))[None, None].clamp(-1, 3)
    field = LatentField(tiny, volume, None, torch.zeros(8))
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
