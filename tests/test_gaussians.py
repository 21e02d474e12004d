"""3D Gaussians: where and how large they are seen, in which order, how they grow; and StableDreamer's identities."""

import sys
import types

import numpy as np
import pytest
import torch

from backends import models
from backends.scene.capturing import posed
from backends.scene.distill import Prior
from backends.scene.gaussians import SMALLEST, Gaussians
from backends.scene.volume import Rendered
from backends.spec import BadInput, Metric, Plot, Result
from backends.worlds import objects
from backends.worlds.objects_render import Camera


def one(at=(0.0, 0.0, 0.0), scale=(0.1, 0.1, 0.1), opacity=6.0, colour=(6.0, -6.0, -6.0)) -> Gaussians:
    return Gaussians(torch.tensor([at]), torch.tensor([scale]).log(), torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([opacity]), torch.tensor([colour]))


def both(a: Gaussians, b: Gaussians) -> Gaussians:
    return Gaussians(*(torch.cat(p) for p in zip(a.parameters(), b.parameters())))


def test_a_gaussian_is_seen_where_and_as_large_as_the_pinhole_says():
    camera, size = Camera(0, 0, 3.0, 40), 48
    focal = 1 / np.tan(np.radians(20))
    place, covariance, depth = one((0.2, 0.1, 0.5), (0.05, 0.02, 0.3)).splats(camera, size)
    assert place[0].tolist() == pytest.approx([focal * 0.2 / 2.5, -focal * 0.1 / 2.5], abs=1e-5) and float(depth) == pytest.approx(2.5)
    blur = (2 * SMALLEST / size) ** 2
    # Its length along the view spreads it away from the middle: ∂u/∂z = f·x/depth².
    wide, high = (focal / 2.5) ** 2 * (0.05**2 + (0.3 * 0.2 / 2.5) ** 2), (focal / 2.5) ** 2 * (0.02**2 + (0.3 * 0.1 / 2.5) ** 2)
    assert covariance[0].diagonal().tolist() == pytest.approx([wide + blur, high + blur], rel=1e-4)


def test_a_sum_of_one_gaussian_over_pixels_is_its_integral():
    seen = one(opacity=0.0).seen([Camera(0, 0, 3.0)], 64, 0.0)
    _, covariance, _ = one().splats(Camera(0, 0, 3.0), 64)
    assert float(seen.opacity.sum()) * (2 / 64) ** 2 == pytest.approx(0.5 * 2 * np.pi * float(covariance[0].det().sqrt()), rel=1e-3)


def test_the_nearer_one_hides_the_farther_from_either_side():
    red, blue = one((0, 0, 0.4)), one((0, 0, -0.4), colour=(-6.0, -6.0, 6.0))
    front, back = both(blue, red).seen([Camera(0, 0, 3.0), Camera(180, 0, 3.0)], 33, 1.0).picture[:, :, 16, 16]
    assert front[0] > 0.95 > 0.1 > front[2] and back[2] > 0.95 > 0.1 > back[0]


def test_tiles_add_up_to_every_splat_at_every_pixel():
    cloud, camera, size = Gaussians.ball(60, 0), Camera(40, 20, 2.6), 40  # not a whole number of tiles
    cloud.scales = cloud.scales + 0.4 * torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    places, covariance, depth = cloud.splats(camera, size)
    order, at = depth.argsort(), (torch.arange(size) + 0.5) / size * 2 - 1
    gap = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)[:, :, None] - places[order]
    alpha = (cloud.opacities[order].sigmoid() * (-0.5 * torch.einsum("hwni,nij,hwnj->hwn", gap, covariance[order].inverse(), gap)).exp()).clamp_max(0.99)
    through = torch.cat([torch.ones(size, size, 1), (1 - alpha).cumprod(-1)], -1)
    wanted = (through[..., :-1] * alpha) @ cloud.colours[order].sigmoid() + through[..., -1:] * 0.7
    seen = cloud.seen([camera], size, 0.7)
    assert torch.allclose(seen.picture[0].permute(1, 2, 0), wanted, atol=2e-3) and torch.allclose(seen.opacity[0, 0], 1 - through[..., -1], atol=2e-3)


def test_a_file_of_splats_has_their_attributes_turned_upside_down():
    cloud = one((0.1, 0.2, 0.3), opacity=1.5)
    head, _, data = cloud.ply().partition(b"end_header\n")
    names = [line.split()[-1] for line in head.decode().splitlines() if line.startswith("property float")]
    kept = dict(zip(names, np.frombuffer(data, "<f4").tolist(), strict=True))
    assert [kept[n] for n in "xyz"] == pytest.approx([0.1, -0.2, -0.3]) and kept["opacity"] == 1.5 and kept["scale_0"] == pytest.approx(np.log(0.1))
    assert [kept[f"rot_{k}"] for k in range(4)] == [0, 1, 0, 0] and kept["f_dc_0"] * 0.2820948 + 0.5 == pytest.approx(1, abs=0.01)


def test_a_quaternion_turns_by_its_direction_alone():
    cloud = Gaussians.ball(5, 0)
    cloud.turns = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    longer = cloud.copy()
    longer.turns = 3 * longer.turns
    assert torch.allclose(cloud.covariances(), longer.covariances(), atol=1e-7)
    assert torch.allclose(torch.linalg.eigvalsh(cloud.covariances()), (2 * cloud.scales).exp().sort(1).values, rtol=1e-3)


def test_views_are_fitted_with_finite_gradients_and_the_mesh_is_where_the_object_is():
    views, cameras = posed(objects.plain("barrel"), 6, 32)
    wanted = torch.from_numpy(views[..., :3] + 1 - views[..., 3:]).permute(0, 3, 1, 2)
    cloud = Gaussians.ball(150, 0).requires_grad_()
    optimiser, gaps = torch.optim.Adam(cloud.rates(0.02)), []
    for i in range(60):
        some = slice(i % 2, None, 2)
        gap = (cloud.seen(cameras[some], 32).picture - wanted[some]).square().mean()
        gap.backward()
        assert all(torch.isfinite(p.grad).all() for p in cloud.parameters())
        optimiser.step(), optimiser.zero_grad()
        gaps.append(float(gap.detach()))
    assert -10 * np.log10(max(gaps[-2:])) > 19 and gaps[-1] < 0.2 * gaps[0]
    mesh = cloud.mesh()
    assert np.abs(mesh.vertices).max() < 0.8 and np.ptp(mesh.vertices, axis=0).min() > 0.4


def test_growing_splits_the_most_pulled_and_drops_the_faint():
    cloud = Gaussians.ball(100, 0)
    cloud.opacities = torch.full((100,), 1.0)
    cloud.opacities[:30] = -9.0
    pull = torch.zeros(100)
    pull[50:60] = 1.0
    grown = cloud.densified(pull, 300, torch.Generator().manual_seed(0), share=1 / 7)
    assert len(grown.means) == 80 and torch.equal(grown.means[:70], cloud.means[30:])
    assert (torch.cdist(grown.means[70:], cloud.means[50:60]).amin(1) < 0.5).all()
    assert len(cloud.densified(pull, 72, torch.Generator().manual_seed(0)).means) == 72


class Modes:
    """The exact denoiser of two narrow modes, ±1, in one dimension, with Stable Diffusion's schedule."""

    deviation = 0.05

    def __init__(self):
        beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.bar = (1 - beta).cumprod(0).float()

    def encode(self, *texts):
        from backends.denoiser import Cond

        return tuple(Cond(t, torch.zeros(1, 1, 1)) for t in texts)

    def alpha_sigma(self, t):
        return self.bar[t].sqrt(), (1 - self.bar[t]).sqrt()

    def x0s(self, x, t, *conds):
        alpha, sigma = self.alpha_sigma(t)
        var = alpha**2 * self.deviation**2 + sigma**2
        sure = torch.tanh(alpha * x / var)  # of the mode +1 over −1
        estimate = sure + alpha * self.deviation**2 / var * (x - alpha * sure)
        return tuple(estimate for _ in conds)


@pytest.mark.identity("stabledreamer", "the gradient of ½·w·(α/σ)·‖z − sg(x̂)‖² is w(ε̂ − ε) within 1e-5")
@pytest.mark.identity("sds", "the gradient of ½·w·(α/σ)·‖z − sg(x̂)‖² is w(ε̂ − ε) within 1e-5")
def test_sds_is_a_squared_error_to_the_one_step_estimate():
    model = Modes()
    prior = Prior(model, "x", torch.Generator().manual_seed(0), scale=7.0)
    for t in (50, 300, 600, 950):
        z, (alpha, sigma) = torch.randn(64, 1, 1, 1, requires_grad=True), model.alpha_sigma(t)
        noise = torch.randn(64, 1, 1, 1)
        scored = prior.score(z.detach(), None, t, noise)
        (0.5 * sigma**2 * alpha / sigma * (z - scored.target).square()).sum().backward()
        state = alpha * z.detach() + sigma * noise
        wanted = sigma**2 * ((state - alpha * model.x0s(state, t, None)[0]) / sigma - noise)  # the two prompts' estimates are one here
        for found in (z.grad, scored.gradient):
            assert float((found - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.identity(
    "stabledreamer",
    "on two modes with their exact denoiser, falling noise ends at a mode in 95 % of runs; the constant range stays between them, its late gradients vary 4 times as much",
)
def test_falling_noise_chooses_a_mode():
    model, steps = Modes(), 3000
    ends, late = {}, {}
    for falling in (True, False):
        prior = Prior(model, "x", draw := torch.Generator().manual_seed(0), scale=1.0)
        x, sizes = 0.3 * torch.randn(200, 1, 1, 1, generator=draw), []
        for i in range(steps):
            scored = prior.score(x, None, prior.level(0.02, 0.98 - (0.98 - 0.1) * i / steps if falling else 0.98))
            x = x - 0.05 * scored.gradient
            if i > 0.9 * steps:
                sizes.append(scored.gradient)
        ends[falling], late[falling] = x.flatten(), float(torch.stack(sizes).var())
    assert float(((ends[True].abs() - 1).abs() < 0.1).float().mean()) >= 0.95
    assert float((ends[False].abs() < 0.5).float().mean()) >= 0.95
    assert late[False] > 4 * late[True]


@pytest.mark.parametrize("form", ["voxels", "Gaussians"])
def test_the_regularisers_fall_with_the_pull(tiny, monkeypatch, form):
    from backends.scene import stabledreamer as module
    from backends.scene.distill import Look, distil
    from backends.scene.tasks import MakeObject

    found, done = [], 0

    def spied(field, prior, generator, n, *rest):
        nonlocal done
        *_, regular = rest
        flat = Rendered(torch.zeros(1, 3, 4, 4), torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4))
        at = lambda i: float(regular(flat, Look(i - done, [], 0.5)).detach())  # noqa: E731
        found.extend(at(done + i) / at(0) for i in range(n))  # of one field, so that the weight alone differs
        done += n
        return distil(field, prior, generator, n, *rest)

    monkeypatch.setattr(module, "distil", spied)
    job, cheap = MakeObject(prompt="a ball", seed=1), dict(iterations=10, form=form, splats=50, size=16, grid=16, views=1)
    list(module.stabledreamer(job, tiny, **cheap))
    prior = Prior(tiny, "a ball", torch.Generator(), 4.0)
    assert found[-1] == pytest.approx(prior.size(0.02, 0.3) / prior.size(0.02, 0.98), rel=1e-4) and found[0] == 1 and found[-1] < 0.7
    found, done = [], 0
    list(module.stabledreamer(job, tiny, annealed=False, **cheap))
    assert found == [1] * 10


def test_voxels_without_falling_noise_are_sds(tiny, monkeypatch):
    from backends.scene import sds, stabledreamer
    from backends.scene.tasks import MakeObject

    made, cheap = [], dict(iterations=4, size=16, grid=16, views=1)
    for module in (sds, stabledreamer):
        monkeypatch.setattr(module, "turntable", lambda field: made.append(field.copy()))
    list(sds.sds(MakeObject(prompt="a ball", seed=1), tiny, **cheap))
    list(stabledreamer.stabledreamer(MakeObject(prompt="a ball", seed=1), tiny, form="voxels", annealed=False, **cheap))
    one, other = made
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))


def test_the_method_counts_its_gaussians_and_refuses_a_prior_that_is_not_there(tiny):
    from backends.scene.stabledreamer import first_stage, stabledreamer
    from backends.scene.tasks import MakeObject

    events = list(stabledreamer(MakeObject(prompt="a ball", seed=1), tiny, iterations=9, splats=50, size=16, views=1))
    (count,) = [e.value for e in events if isinstance(e, Metric)]
    assert 50 < count <= 150 and isinstance(events[-1], Result)
    curves, counts = events[-1].aside
    assert isinstance(curves, Plot) and curves.series["pull"][0] == list(range(1, 10))
    levels = curves.series["noise level t"][1]
    assert max(levels) <= 0.98 and levels[-1] <= 0.3  # the highest level has fallen to `end`
    assert counts.series["Gaussians"][1][0] == 50 and max(counts.series["Gaussians"][1]) == count
    assert events[-1].value.splats.startswith(b"ply\n")
    assert first_stage(tiny) == () and first_stage(tiny, geometry=0.5, first="emoji-ldm") == ("emoji-ldm",)
    with pytest.raises(BadInput, match="lacks cfg"):
        first_stage(tiny, geometry=0.5, first="sd-turbo")
    with pytest.raises(BadInput, match="nothing"):
        first_stage(tiny, geometry=0.5, first="nothing")
    assert first_stage(tiny, geometry=0.5) == ("objects-pixels",)


def test_the_first_stage_is_led_by_another_model(tiny):
    from backends.scene.stabledreamer import stabledreamer
    from backends.scene.tasks import MakeObject

    other, before = models.load("emoji-ldm"), tiny.nfe
    events = list(
        stabledreamer(
            MakeObject(prompt="a ball", seed=1), models.load("objects-ldm"), iterations=4, splats=50, size=16, views=1, geometry=0.5, first="emoji-ldm"
        )
    )
    assert isinstance(events[-1], Result) and other.nfe - before == 4  # two steps, two prompts each


def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, eps2d, packed, render_mode):
    """gsplat's documented call, (C, H, W, 3 + 1) colours and summed depths and (C, H, W, 1) opacities, in plain sums over all pixels."""
    assert render_mode == "RGB+D" and not packed
    w, x, y, z = quats.T
    turns = torch.stack([torch.stack(row, -1) for row in (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)))], -2)  # fmt: skip
    covariances = turns @ torch.diag_embed(scales**2) @ turns.mT
    row, column = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    drawn = []
    for view, lens in zip(viewmats, Ks):
        seen = means @ view[:3, :3].T + view[:3, 3]
        (u, v, depth), (fx, fy) = seen.T, lens.diagonal()[:2]
        none = torch.zeros_like(u)
        jacobian = torch.stack([torch.stack([fx / depth, none, -fx * u / depth**2], -1), torch.stack([none, fy / depth, -fy * v / depth**2], -1)], -2)
        flat = jacobian @ view[:3, :3] @ covariances @ view[:3, :3].T @ jacobian.mT + eps2d * torch.eye(2)
        off = torch.stack([column, row], -1) - torch.stack([fx * u / depth + lens[0, 2], fy * v / depth + lens[1, 2]], -1)[:, None, None]
        alpha = opacities[:, None, None] * torch.exp(-0.5 * (off[..., None, :] @ flat.inverse()[:, None, None] @ off[..., None])[..., 0, 0])
        alpha = alpha[order := depth.argsort()] * (depth[order] > near_plane)[:, None, None]
        weights = alpha * torch.cat([torch.ones_like(alpha[:1]), (1 - alpha).cumprod(0)[:-1]])
        given = torch.cat([colors, depth[:, None], torch.ones_like(depth)[:, None]], 1)[order]
        drawn.append(torch.einsum("nhw,nc->hwc", weights, given))
    colours = torch.stack(drawn)
    return colours[..., :4], colours[..., 4:], {}


def test_gsplat_is_asked_for_the_same_pictures(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace(rasterization=rasterization))
    cloud, cameras = Gaussians.ball(40, 2), [Camera(40, 20, 2.6), Camera(-100, -10, 2.9, 55)]
    cloud.turns = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    cloud.scales = cloud.scales + 0.5 * torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    ours = torch.stack([cloud._view(camera, 48, (torch.arange(48) + 0.5) / 48 * 2 - 1) for camera in cameras])
    theirs = cloud.by_gsplat(cameras, 48)
    assert theirs.shape == ours.shape and ours[:, 3].max() > 0.5
    assert torch.allclose(ours, theirs, atol=2e-3), "beyond REACH a splat is not drawn"
