"""Vox-E: the correlation of densities, attention lifted into voxels, the cut and the merge."""

import dataclasses

import numpy as np
import pytest
import torch

from backends import run
from backends.scene.attention_grids import attention_of, extent, lifted, merged, sides_of, telling
from backends.scene.distill import Look, Prior
from backends.scene.graph_cut import cut
from backends.scene.tasks import EditObject
from backends.scene.volume import Volume
from backends.scene.voxe import decorrelation, difference, falling, tied
from backends.spec import Images, Metric, Outcome, Result
from backends.worlds.objects_render import Camera


def grids(*seeds: int, side: int = 24) -> list[torch.Tensor]:
    return [torch.randn(1, 1, side, side, side, generator=torch.Generator().manual_seed(s)) for s in seeds]


def rod(side: int = 20) -> tuple[Volume, torch.Tensor]:
    """A thick upright rod, blue and at the top red, and where it is red."""
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 3, indexing="ij")
    solid, top = (x.abs() < 0.4) & (z.abs() < 0.4) & (y.abs() < 0.8), y > 0.3
    colours = torch.where(top, torch.tensor([3.0, -3.0, -3.0]).view(3, 1, 1, 1), torch.tensor([-3.0, -3.0, 3.0]).view(3, 1, 1, 1))
    return Volume(torch.where(solid, 0.4, -0.3)[None, None], colours[None]), solid & top


@pytest.mark.identity("voxe", "L_dc(a·g + b, g) ≤ 1e-4 for a > 0")
@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.01, 5.0), (300.0, -40.0)])
def test_a_scaled_and_shifted_grid_is_wholly_correlated(a, b):
    (g,) = grids(0)
    assert abs(float(decorrelation(a * g + b, g))) <= 1e-4


@pytest.mark.identity("voxe", "L_dc(a·g + b, g) = 2 for a < 0 within 1e-4")
def test_a_turned_grid_is_as_far_as_can_be():
    (g,) = grids(0)
    assert float(decorrelation(-0.3 * g + 2, g)) == pytest.approx(2, abs=1e-4)


@pytest.mark.identity("voxe", "L_dc of an independent grid is 1 ± 0.05")
def test_an_independent_grid_is_uncorrelated():
    for seed in range(1, 4):
        assert float(decorrelation(*grids(0, seed))) == pytest.approx(1, abs=0.05)


def test_an_empty_grid_has_a_finite_gradient():
    flat = torch.full((1, 1, 8, 8, 8), -0.25, requires_grad=True)
    decorrelation(flat, grids(0, side=8)[0]).backward()
    assert torch.isfinite(flat.grad).all()


def test_the_weight_stands_against_as_many_latents_as_in_the_paper():
    original, edited = Volume(*grids(0), torch.zeros(1)), Volume(*grids(1), torch.zeros(1))
    found = 16384 * float(tied(edited, original, "correlation", 200.0)(None, None))
    assert found == pytest.approx(200 * float(decorrelation(edited.density, original.density)), rel=1e-5)
    assert tied(edited, original, "none", 200.0)(None, None) == 0
    assert 16384 * float(tied(edited, original, "L2 on the grid", 1.0)(None, None)) == pytest.approx(1, rel=0.1)  # of two standard normals


def test_the_squared_gap_of_a_small_change_is_what_it_loses_in_correlation():
    original, change = (g - g.mean() for g in grids(0, 1))
    change = change - (change * original).mean() / original.square().mean() * original
    edited = Volume(original + 0.05 * change, torch.zeros(1))
    one, other = (float(tied(edited, Volume(original, torch.zeros(1)), name, 100.0)(None, None)) for name in ("L2 on the grid", "correlation"))
    assert one == pytest.approx(other, rel=0.01)


def test_the_gap_of_the_views_is_of_the_same_cameras_and_ground():
    volume, _ = rod()
    look, paler = Look(3, [Camera(30, 10, 2.8), Camera(120, 40, 2.8)], 0.7), Volume(volume.density, volume.features * 0.5)
    gap = lambda of, said=look: 16384 * float(tied(of, volume, "L1 on the views", 1.0)(of.seen(look.cameras, 16, 0.7), said))  # noqa: E731
    seen, was = (v.seen(look.cameras, 16, 0.7).picture for v in (paler, volume))
    assert gap(volume) == 0 and gap(paler) == pytest.approx(float((seen - was).abs().mean()), rel=1e-4) and gap(paler) > 0.005
    assert gap(volume, Look(3, look.cameras, 0.9)) > 0.05 and gap(volume, Look(3, look.cameras[::-1], 0.7)) > 0.005


@pytest.mark.identity("voxe", "the highest noise level is 0.98 until the 4200th of 8000 steps, ×0.75 every 600, and no less than 0.22")
def test_noise_levels_fall_as_in_the_official_code():
    found = [falling(step - 1, 8000, 0.98) for step in (1, 4000, 4199, 4200, 4799, 4800, 6600, 7200, 8000)]
    assert found == pytest.approx([0.98, 0.98, 0.98, 0.735, 0.735, 0.55125, 0.98 * 0.75**5, 0.22, 0.22])
    assert falling(249, 250, 0.98) == 0.22 and falling(124, 250, 0.98) == 0.98 and falling(249, 250, 0.1) == 0.1


# --- the extent of an edit ---


@pytest.mark.identity("voxe", "of a rod in two colours the cut gives back the coloured end, voxel by voxel")
def test_the_cut_follows_the_border_of_colours():
    volume, top = rod()
    colours, solid = volume.features[0].sigmoid().permute(1, 2, 3, 0).numpy(), (volume.density[0, 0] > 0).numpy()
    rng = np.random.default_rng(0)
    inside, outside = (part & (rng.random(solid.shape) < 0.1) for part in (top.numpy(), solid & ~top.numpy()))
    assert np.array_equal(cut(colours, solid, inside, outside), top.numpy())


def test_the_cut_without_seeds_or_apart_from_them_is_empty():
    volume, top = rod()
    colours, solid, none = np.zeros((20, 20, 20, 3)), (volume.density[0, 0] > 0).numpy(), np.zeros((20, 20, 20), bool)
    assert not cut(colours, solid, none, solid).any()
    island = none.copy()
    island[0, 0, 0] = True
    assert not cut(colours, solid | island, top.numpy(), solid & ~top.numpy())[0, 0, 0]
    assert np.array_equal(cut(colours, solid, top.numpy(), none), solid)  # nothing pulls the other way


@pytest.fixture(scope="module")
def lifted_rod():
    """The rod, where it is red, and grids fitted to two maps: the red part's and the rest's renders."""
    volume, top = rod()
    cameras = [Camera(30.0 * k, e, 3.0) for k, e in enumerate((10, 40, -10, 60) * 3)]
    marks = Volume(volume.density, torch.stack([top.float(), 1 - top.float()])[None], colours=False)
    maps = marks.seen(cameras, 24, 0.0).picture * 0.5
    *_, found = lifted(volume.density, cameras, maps, torch.Generator().manual_seed(0), 60, smooth=0.01)
    return volume, top, found


@pytest.mark.identity("voxe", "grids fitted to the renders of a part tell it from the rest: balanced accuracy on visible voxels ≥ 0.95")
def test_lifted_maps_give_back_the_part_in_voxels(lifted_rod):
    volume, top, found = lifted_rod
    solid = volume.density[0, 0] > 0
    hidden = -torch.nn.functional.max_pool3d(-solid.float()[None], 3, 1, 1)[0] > 0  # behind a layer of voxels
    visible, said = solid & ~hidden, found.features[0, 0] > found.features[0, 1]
    rates = [(said == truth)[visible & (top == truth)].float().mean() for truth in (True, False)]
    assert float(sum(rates)) / 2 >= 0.95


@pytest.mark.identity("voxe", "lifted, softened, seeded and cut, a known part is found: IoU ≥ 0.9")
def test_the_extent_of_a_known_part_is_found(lifted_rod):
    volume, top, found = lifted_rod
    solid = volume.density[0, 0] > 0
    segment = extent(volume, found, torch.Generator().manual_seed(0)) & solid
    assert float((segment & top).sum() / (segment | (solid & top)).sum()) >= 0.9


@pytest.mark.identity("voxe", "outside the segment the merged volume equals the original bit for bit")
def test_outside_the_segment_nothing_changes():
    original, edited = (Volume(grids(s)[0], torch.cat(grids(s + 10, s + 20, s + 30), 1)) for s in (0, 1))
    segment = grids(5)[0][0, 0] > 1
    found = merged(edited, original, segment)
    for got, old, new in zip(found.parameters(), original.parameters(), edited.parameters()):
        assert torch.equal(got[..., ~segment], old[..., ~segment]) and torch.equal(got[..., segment], new[..., segment])


def test_the_difference_shows_what_was_gained_at_the_top():
    volume, _ = rod()
    grown = volume.copy()
    grown.density[0, 0, 8:12, 18:, 8:12] = 0.5
    seen = difference(grown, volume)
    assert (seen[:10, 72] == (255, 0, 0)).all(-1).any() and (seen[72] == 255).all() and (seen[-10:] == 255).all()


# --- words and attention ---


def test_the_words_that_tell_are_found():
    assert telling("A cactus, wearing a party hat.") == ["cactus", "party", "hat"] and telling("with a") == []


def test_attention_is_read_for_both_sides_and_the_network_left_alone(tiny):
    job = EditObject(source="a cactus", prompt="a cactus wearing a party hat")
    prior, (cond,) = Prior(tiny, job.prompt, torch.Generator().manual_seed(0), 5.0), tiny.encode(job.prompt)
    edit, others = sides_of(prior, job, ["party", "hat"])
    assert [cond.tokens[r] for r in edit] == ["party", "hat"] and others == cond.rows("cactus")
    edit, others = sides_of(prior, dataclasses.replace(job, source="a dog"), ["hat"])  # nothing shared: all others
    assert others == list(range(1, edit[0]))
    before = {n: type(p) for n, p in tiny.net.attn_processors.items()}
    maps = attention_of(rod()[0], prior, [Camera(0.0), Camera(120.0)], edit, others)
    assert maps.shape[:2] == (2, 2) and maps.shape[2] == maps.shape[3] and (maps >= 0).all() and (maps <= 1).all()
    assert {n: type(p) for n, p in tiny.net.attn_processors.items()} == before


def events(prompt: str, **knobs):
    knobs = dict(iterations=2, captures=10, fits=10, grid=16, size=16) | knobs
    job = {"seed": 1, "shape": "cactus", "source": "a cactus", "prompt": prompt}
    return [e.event for e in run({"task": "edit_object", "job": job, "arms": [{"method": "voxe", "knobs": knobs}]}, {})]


def test_a_local_edit_counts_its_steps_and_shows_the_cut(tiny):
    *found, last = events("a cactus wearing a party hat")
    assert isinstance(last, Outcome) and not last.error
    (result,) = (e for e in found if isinstance(e, Result))
    labels = [item.caption for part in result.aside if isinstance(part, Images) for item in part.items]
    assert "the cut: the edit in red" in labels and labels[-1].startswith("density gained")
    assert {e.name for e in found if isinstance(e, Metric)} >= {"voxels of the edit"}
    assert not {e.name for e in events("a wooden cactus") if isinstance(e, Metric)} & {"voxels of the edit"}


@pytest.mark.parametrize(("prompt", "knobs", "said"), [
    ("a cactus", {"extent_of_edit": "local"}, "lacks"), ("a cactus wearing a party hat", {"edit_words": "crown"}, "crown")])  # fmt: skip
def test_an_edit_without_words_is_refused(tiny, prompt, knobs, said):
    error = events(prompt, **knobs)[-1].error
    assert said in error and error.endswith(".")
