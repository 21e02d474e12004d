"""The 3D tabs: the voxel field and its renderer, score distillation, and the object world."""

import numpy as np
import pytest
import torch

from backends import recipe
from backends.scene.distill import Prior, pull
from backends.scene.volume import SHARP, Volume, capture, march, mesh_of, render
from backends.spec import Mesh
from backends.worlds import objects
from backends.worlds.objects_render import Camera, over
from backends.worlds.objects_render import render as cast


def ball(side: int = 32, radius: float = 0.5, colour=(2.0, -2.0, -2.0)) -> Volume:
    at = torch.linspace(-1, 1, side)
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    volume = Volume.blank(side)
    volume.density = (8 * (radius - (x**2 + y**2 + z**2).sqrt()))[None, None].clamp(-1, 3)
    volume.features = torch.tensor(colour).view(1, 3, 1, 1, 1).expand(1, 3, side, side, side).contiguous()
    return volume


def test_a_ray_through_fog_adds_up_as_the_integral_says():
    volume = Volume.blank(8, density=0.05)
    sigma = float(torch.nn.functional.softplus(torch.tensor(SHARP * 0.05)))
    eyes, ways = torch.tensor([[[0.0, 0.0, 3.0]]]), torch.tensor([[[0.0, 0.0, -1.0]]])
    picture, opacity, depth = march(volume, eyes, ways, 256, background=1.0)
    through = np.exp(-2 * sigma)  # the cube is two wide
    assert float(opacity) == pytest.approx(1 - through, abs=1e-3)
    assert picture[0, 0].tolist() == pytest.approx([0.5 * (1 - through) + through] * 3, abs=1e-3)
    missed, *_ = march(volume, torch.tensor([[[0.0, 5.0, 3.0]]]), ways, 16, background=0.25)
    assert missed[0, 0].tolist() == [0.25] * 3


def test_a_ball_is_round_red_and_as_large_from_all_sides():
    seen = render(ball(), [Camera(a, e, 3.0) for a, e in ((0, 0), (90, 0), (45, 60))], 48, 64, background=0.0)
    share = seen.opacity.mean((1, 2, 3))
    assert np.ptp(share.numpy()) < 0.02 and float(share.mean()) == pytest.approx(np.pi * (0.5 / 1.09 / 2) ** 2, abs=0.04)
    middle = seen.picture[:, :, 24, 24]
    assert (middle[:, 0] > 0.8).all() and (middle[:, 1:] < 0.2).all()
    assert torch.allclose(seen.depth[:, 0, 24, 24], torch.tensor(2.5), atol=0.08)


def test_the_surface_of_a_ball_is_its_sphere_in_its_colour():
    mesh = mesh_of(ball(40))
    radius = np.linalg.norm(mesh.vertices, axis=1)
    # Half is let through where the density is ln 2 a voxel: a little inside of where it begins.
    assert radius.mean() == pytest.approx(0.5 - np.log(2) * 39 / 2 / SHARP / 8, abs=0.01) and radius.std() < 0.01
    normals = np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]] for k in (1, 2)))
    assert ((normals * mesh.vertices[mesh.faces].mean(1)).sum(1) > 0).mean() > 0.99  # they look outwards
    assert (mesh.colours[:, 0] > 200).all() and (mesh.colours[:, 1:] < 60).all()
    assert mesh_of(Volume.blank(8)) is None


def test_views_of_a_volume_give_it_back():
    truth, cameras = ball(24), [Camera(a, e, 3.0) for a, e in zip(range(-180, 180, 30), [-10, 20, 50, 10] * 3)]
    seen = render(truth, cameras, 24, 48, background=0.0)
    views = torch.cat([seen.picture, seen.opacity], 1).permute(0, 2, 3, 1).numpy()
    *_, (step, found) = capture(views, cameras, 24, 80, seed=0, rays=512)
    assert step == 80
    other = [Camera(100, 35, 3.0)]
    gap = render(found, other, 24, 48, background=0.0).picture - render(truth, other, 24, 48, background=0.0).picture
    assert float(-10 * gap.square().mean().log10()) > 20


class Gaussian:
    """A model that knows the exact denoiser of data N(μ, s²), for any prompt."""

    def __init__(self, mean: float, deviation: float):
        self.mean, self.var = mean, deviation**2

    def encode(self, *texts):
        from backends.denoiser import Cond

        return tuple(Cond(t, torch.zeros(1, 1, 1)) for t in texts)

    def alpha_sigma(self, t):
        angle = torch.as_tensor(t / 1000 * np.pi / 2)
        return angle.cos(), angle.sin()

    def x0s(self, x, t, *conds):
        alpha, sigma = self.alpha_sigma(t)
        estimate = self.mean + alpha * self.var / (alpha**2 * self.var + sigma**2) * (x - alpha * self.mean)
        return tuple(estimate for _ in conds)


@pytest.mark.identity("sds", "on data N(μ, s²) with its exact denoiser the mean gradient is w·σα(x − μ)/(α²s² + σ²) within 2 %")
def test_the_mean_gradient_is_the_exact_one():
    model = Gaussian(0.3, 0.4)
    prior = Prior(model, "a ball", torch.Generator().manual_seed(0), scale=7.0)
    for t in (200, 500, 800):
        z = torch.full((20_000, 1, 1, 1), 1.5)
        alpha, sigma = model.alpha_sigma(t)
        wanted = sigma**2 * sigma * alpha * (1.5 - 0.3) / (alpha**2 * 0.16 + sigma**2)
        assert float(prior.score(z, None, t).gradient.mean()) == pytest.approx(float(wanted), rel=0.02)


def test_the_expected_size_of_the_pull_is_that_of_data_of_unit_variance():
    prior = Prior(Gaussian(0.0, 1.0), "a ball", torch.Generator().manual_seed(0), scale=7.0)
    for low, high in ((0.02, 0.98), (0.02, 0.3), (0.6, 0.5)):  # the last: no range
        found = [float(prior.score(torch.ones(100, 1, 1, 1), None, prior.level(low, high)).gradient.mean()) for _ in range(1500)]
        assert prior.size(low, high) == pytest.approx(np.mean(found), rel=0.08)


@pytest.mark.identity("sds", "descending it reaches the mean of the data: |x − μ| < 0.05")
def test_descending_the_gradient_reaches_the_mean():
    prior = Prior(Gaussian(0.3, 0.4), "a ball", torch.Generator().manual_seed(0), scale=1.0)
    z = torch.full((256, 1, 1, 1), 2.0, requires_grad=True)
    optimiser = torch.optim.SGD([z], lr=25.0)
    for i in range(300):
        optimiser.param_groups[0]["lr"] = 25.0 * (1 - i / 300)
        pull(z, prior.score(z, None, prior.level(0.02, 0.98)).gradient).backward()
        optimiser.step(), optimiser.zero_grad()
    assert abs(float(z.detach().mean()) - 0.3) < 0.05


@pytest.mark.identity("sds", "without “− ε” the gradient has the same mean, and at t = 0.8 at least 5 times the variance")
def test_taking_the_noise_away_calms_the_gradient():
    model, t = Gaussian(0.3, 0.4), 800
    z, generator = torch.full((20_000, 1, 1, 1), 1.5), torch.Generator().manual_seed(0)
    prior, noise, (_, sigma) = Prior(model, "a ball", generator, scale=7.0), torch.randn(z.shape, generator=generator), model.alpha_sigma(t)
    calm = prior.score(z, None, t, noise).gradient
    loud = calm + sigma**2 * noise
    assert float(loud.mean()) == pytest.approx(float(calm.mean()), abs=0.02) and float(loud.var()) >= 5 * float(calm.var())


# --- the object world ---


def test_captions_say_what_a_thing_is():
    assert objects.caption(objects.Thing("horse", "red", "party hat"), "side") == "a red horse wearing a party hat, side view"
    assert objects.caption(objects.Thing("armchair")) == "an armchair" and objects.caption(objects.Thing("tulips", "snowy")) == "snowy tulips"
    assert [objects.view_of(a, e) for a, e in ((0, 0), (-170, 10), (100, 30), (10, 80), (-44, 0))] == ["front", "back", "side", "overhead", "front"]


def test_what_is_held_out_is_never_trained_on():
    rng = np.random.default_rng(0)
    trained, kept = [objects.sample(rng) for _ in range(300)], [objects.sample(rng, kept=True) for _ in range(100)]
    assert not set(trained) & set(kept) and not any(map(objects.held_out, trained)) and all(map(objects.held_out, kept))


@pytest.mark.parametrize("name", objects.OBJECTS)
def test_every_object_is_there_with_its_source(name):
    mesh = objects.plain(name)
    assert mesh.faces.max() < len(mesh.vertices) and len(mesh.colours) == len(mesh.faces) and np.abs(mesh.vertices).max() <= objects.BASE + 1e-3
    assert objects.sources()[name]["licence"].startswith("CC")


@pytest.mark.parametrize("name", objects.sources(others=True))
def test_other_models_of_some_objects_are_kept_for_proofs(name):
    mesh, known = objects.other(name), objects.sources()[name]
    assert mesh.faces.max() < len(mesh.vertices) and np.abs(mesh.vertices).max() <= objects.BASE + 1e-3
    assert objects.sources(others=True)[name]["licence"].startswith("CC") and objects.sources(others=True)[name]["model"] != known["model"]


@pytest.mark.parametrize("look", objects.LOOKS)
def test_looks_change_colours_alone(look):
    plain, painted = objects.plain("horse"), objects.mesh(objects.Thing("horse", look))
    assert np.array_equal(plain.vertices, painted.vertices) and (look == "") == np.array_equal(plain.colours, painted.colours)


@pytest.mark.parametrize("accessory", list(objects.ACCESSORIES)[1:])
def test_accessories_stand_on_top_within_the_cube(accessory):
    plain, dressed = objects.plain("dog"), objects.mesh(objects.Thing("dog", "", accessory))
    assert 0.2 < dressed.vertices[:, 1].max() - plain.vertices[:, 1].max() < 0.42 and np.abs(dressed.vertices).max() <= 1.02


def test_a_cast_ray_sees_what_stands_before_the_camera():
    square = Mesh(np.float32([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), np.int32([[0, 1, 2], [0, 2, 3]]), np.uint8([[200, 0, 0], [200, 0, 0]]))
    seen = cast(square, [Camera(0, 0, 3.0, 90), Camera(90, 0, 3.0, 90)], 16, light=(0, 0, 1))
    assert seen[0, 8, 8, 3] == 1 and seen[0, 8, 8, 0] == pytest.approx(200 / 255, abs=0.02) and seen[0, 0, 0, 3] == 0
    assert seen[1, ..., 3].mean() < 0.1  # from the side it is a line
    assert over(seen, 1.0)[0, 0, 0].tolist() == [255] * 3


def test_a_result_carries_its_recipe_in_the_gltf(tmp_path):
    mesh, said = objects.plain("basketball"), {"schema": 1, "task": "make_object", "job": {"prompt": "a ball"}, "arms": [{"method": "sds"}]}
    (tmp_path / "ball.glb").write_bytes(recipe.glb(mesh, said))
    found, pictures = recipe.from_file(tmp_path / "ball.glb")
    assert {k: found[k] for k in said} == said and pictures == {}
    import trimesh

    assert len(trimesh.load(tmp_path / "ball.glb", force="mesh").faces) == len(mesh.faces)
    (tmp_path / "bare.glb").write_bytes(recipe.glb(mesh))
    film = recipe.webp(np.zeros((2, 8, 8, 3), np.uint8))
    for name, data in (("bare", None), ("cut", b"glTF\x02\0\0\0"), ("odd", b"glTF" + b"\xff" * 40), ("film", film), ("half", film[:30])):
        if data:
            (tmp_path / f"{name}.glb").write_bytes(data)
        with pytest.raises(recipe.BadInput, match="carries no recipe"):
            recipe.from_file(tmp_path / f"{name}.glb")
