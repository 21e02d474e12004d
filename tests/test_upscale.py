"""Enlarging pictures: the job, tiles, the processes, and the three papers' exact statements on tiny random networks."""

import io

import numpy as np
import PIL.Image
import pytest
import torch

from backends import BadInput, inputs, models, recipe, run
from backends.nets import eight_bits
from backends.nets.aff import AffUNet, Filter
from backends.nets.space_moe import SpaceMoe
from backends.nets.sr_decoders import LiifDecoder, grid, parted
from backends.restore import moe_sr, packaged_upscalers
from backends.restore.arbitrary_scale import at_any_size, fixed
from backends.restore.latent_sr import SCHEDULE, ddim, original, trust
from backends.restore.resshift import Shift, estimate
from backends.restore.tiling import Tiles, starts, tiled
from backends.restore.upscale_task import Upscale, given, resized
from backends.restore.upscaler import Canvas, kept
from backends.spec import Image, Outcome, Step
from tests.tiny_upscaler import tiny

RNG = np.random.default_rng(0)
PICTURE = np.kron(RNG.integers(0, 256, (12, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)  # 48×64


@pytest.fixture
def model():
    models.clear()
    models._cache["photos-sr"] = made = tiny()
    yield made
    models.clear()


def outcome(slug: str, pixels: np.ndarray = PICTURE, knobs: dict | None = None, **job) -> Outcome:
    sha = recipe.digest(pixels)
    arm = {"method": slug, "knobs": knobs or {}}
    *_, last = run({"task": "super_resolve", "job": {"image": {"sha256": sha}, "seed": 1} | job, "arms": [arm]}, {sha: pixels})
    return last.event


# --- the job ---


@pytest.mark.parametrize(("factor", "size"), [(1.0, (48, 64)), (2.5, (120, 160)), (3.3, (158, 211)), (6.0, (288, 384))])
@pytest.mark.parametrize("slug", ["bicubic", "tadsr", "arbitrary_scale"])
def test_any_factor_gives_that_size(model, slug, factor, size):
    end = outcome(slug, factor=factor, knobs={"tadsr": {"teacher": False}, "arbitrary_scale": {"steps": 2}}.get(slug))
    assert not end.error and end.value.pixels.shape == (*size, 3) and end.value.before.shape == PICTURE.shape
    assert all(np.isfinite(m.value) for m in end.metrics)


def test_shrunk_first_the_picture_itself_is_the_reference(model):
    source = given(Upscale(image=PICTURE, factor=4, shrink=True))
    assert source.small.shape == (12, 16, 3) and source.size == (48, 64) and np.array_equal(source.reference, PICTURE)
    names = {m.name for m in outcome("bicubic", shrink=True).metrics}
    assert {"PSNR, dB", "SSIM", "LPIPS-like"} <= names
    assert not {"PSNR, dB"} & {m.name for m in outcome("bicubic", factor=2).metrics}


def test_noise_and_jpeg_are_the_same_for_a_seed():
    job = dict(image=PICTURE, factor=2, noise=10.0, quality=60)
    one, two, other = (given(Upscale(**job, seed=seed)).small for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("pixels", "job", "says"),
    [
        (PICTURE[:6], {}, "8 a side"),
        (PICTURE, {"shrink": True, "factor": 8}, "once shrunk"),
        (np.zeros((1024, 1024, 3), np.uint8), {"factor": 8}, "Lower the factor"),
    ],
)
def test_a_picture_too_small_or_too_large_is_refused_with_a_sentence(pixels, job, says):
    with pytest.raises(BadInput, match=says):
        Upscale(image=pixels, **job)


def test_a_strip_and_a_grey_picture_are_enlarged(model):
    strip = PICTURE[:8, :8].repeat(20, 1)
    assert outcome("tadsr", strip, factor=3).value.pixels.shape == (24, 480, 3)
    assert outcome("moe_sr", np.repeat(PICTURE[..., :1], 3, 2), {"steps": 2}, factor=2).value.pixels.shape == (96, 128, 3)


def test_pictures_of_sixteen_bits_and_turned_ones_are_read_right():
    ramp = np.linspace(0, 65535, 64 * 32).reshape(64, 32).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        file = io.BytesIO()
        PIL.Image.fromarray(ramp).save(file, kind)
        read = inputs.picture(file.getvalue())
        assert read.shape == (64, 32, 3) and np.abs(read[..., 0] - ramp / 257.0).max() <= 1
    exif = PIL.Image.Exif()
    exif[274] = 6  # a quarter turn
    file = io.BytesIO()
    PIL.Image.fromarray(PICTURE).save(file, "JPEG", exif=exif)
    assert inputs.picture(file.getvalue()).shape == (64, 48, 3)


# --- tiles ---


@pytest.mark.parametrize("size", [(5, 7), (64, 64), (65, 200), (130, 64)])
def test_tiles_cover_and_join_to_what_they_were_cut_from(size):
    x, tiles = torch.randn(1, 3, *size), Tiles(*size, 64, 16)
    assert torch.allclose(tiles.join(tiles.cut(x)), x, atol=1e-6)
    big = torch.randn(1, 2, 4 * size[0], 4 * size[1])
    assert torch.allclose(tiled(lambda t: t, tiles, 2, (big, 4), scale=4), big, atol=1e-6)
    for length, found in ((size[0], starts(size[0], 64, 16)), (size[1], starts(size[1], 64, 16))):
        assert found[0] == 0 and all(b - a <= 48 for a, b in zip(found, found[1:])) and found[-1] == max(0, length - 64)


# --- weights ---


def test_eight_bits_come_back_within_half_a_step(tmp_path):
    net = LiifDecoder(48, 32, 32, 1)
    eight_bits.save(net, tmp_path)
    back = eight_bits.load(LiifDecoder, tmp_path)
    for (name, a), b in zip(net.named_parameters(), back.parameters()):
        step = a.flatten(1).abs().amax(1) / 127 if a.ndim > 1 else a.abs() / 1000
        assert ((a - b).abs().flatten(1 if a.ndim > 1 else 0) <= 0.51 * step.view(-1, *[1] * (a.ndim > 1)) + 1e-4).all(), name


# --- residual shifting and TAD-SR ---


@pytest.mark.identity("tadsr", "√η goes from 0.1 to 0.99 in 15 steps, and one deterministic step back is the same noise a step earlier")
def test_residual_shifting_goes_where_its_marginals_are():
    shift, (x0, y0, noise) = Shift(), torch.randn(3, 2, 8, 6, 6, dtype=torch.float64)
    assert shift.steps == 15 and torch.allclose(shift.eta[[0, -1]].sqrt(), torch.tensor([0.1, 0.99], dtype=torch.float64))
    ratio = shift.eta.sqrt().log().diff()
    assert (ratio > 0).all()
    for t in range(1, 15):
        back = shift.back(shift.noised(x0, y0, t, noise), x0, y0, t, None)
        assert torch.allclose(back, shift.noised(x0, y0, t - 1, noise), atol=1e-10)
        # The posterior's mean and variance make the marginal a step earlier.
        eta, before = shift.eta[t], shift.eta[t - 1]
        mean = shift.back(shift.noised(x0, y0, t, 0 * noise), x0, y0, t, 0 * noise)
        assert torch.allclose(mean, x0 + before * (y0 - x0), atol=1e-10)
        variance = (before / eta) ** 2 * 4 * eta + 4 * before / eta * (eta - before)
        assert torch.allclose(variance, 4 * before)
    assert torch.allclose(shift.start(y0, noise), y0 + 2 * 0.99 * noise)


@pytest.mark.identity("tadsr", "HFSD's gradient is exactly 0 where student and teacher agree, plain score distillation's is not")
def test_the_score_difference_vanishes_where_student_and_teacher_agree(model):
    from backends.train.sr_student import hfsd

    shift, teacher, low = Shift(), model.net["shift"], torch.rand(2, 3, 32, 32) * 2 - 1
    x0, other, y0, noise = torch.randn(4, 2, 8, 8, 8)
    t = torch.tensor([0, 4])
    assert float(hfsd(teacher, shift, x0, x0.clone(), y0, low, t, noise).norm()) <= 1e-7
    assert float(hfsd(teacher, shift, other, x0, y0, low, t, noise).norm()) > 0.1
    x = shift.noised(x0, y0, t, noise)
    eta = shift.at(t, x)
    found = (x - (1 - eta) * estimate(teacher, shift, x, t, y0, low) - eta * y0) / (shift.kappa * eta.sqrt())  # ε̂
    assert float((found - noise).norm() / noise.norm()) > 0.05


@pytest.mark.identity("tadsr", "the student is asked once, at the last timestep; the teacher fifteen times")
def test_one_evaluation_against_fifteen(model):
    asked = []
    model.net["student"].register_forward_pre_hook(lambda _m, args: asked.append(args[1].tolist()))
    assert outcome("tadsr", factor=2).nfe == 1 and asked == [[14]]
    assert outcome("resshift", factor=2).nfe == 15
    assert outcome("tadsr", factor=2, knobs={"losses": "regression alone", "teacher": False}).nfe == 1


def test_the_estimate_begins_at_the_small_picture(model):
    shift, y0, low = Shift(), torch.randn(1, 8, 8, 8), torch.zeros(1, 3, 32, 32)
    nothing = lambda x, t, low: torch.zeros_like(x)  # noqa: E731
    assert torch.equal(estimate(nothing, shift, shift.start(y0, torch.randn_like(y0)), 14, y0, low), y0)


# --- latent diffusion and MoE-SR ---


def test_ddim_with_the_true_noise_ends_at_the_picture():
    from diffusers import DDIMScheduler

    x0, rng, bar = torch.randn(1, 8, 4, 4), torch.Generator().manual_seed(0), DDIMScheduler(**SCHEDULE).alphas_cumprod
    true = lambda x, t: (x - bar[t].sqrt() * x0) / (1 - bar[t]).sqrt()  # noqa: E731
    *_, (t, last) = ddim(true, x0, lambda: torch.randn(x0.shape, generator=rng), 10, 1.0)
    assert torch.allclose(last, x0, atol=1e-4) and t < 100


def test_an_estimate_is_believed_as_far_as_it_errs():
    assert all(0 < trust(t + 50) < trust(t) < 1 for t in range(0, 950, 50))
    x, y0, noise = torch.randn(3, 1, 8, 4, 4)
    last = original(x, 999, noise, y0)
    assert float((last - y0).norm() / (original(x, 0, noise, y0) - y0).norm()) < 1 and trust(999) < 0.01


@pytest.mark.identity("moe_sr", "the experts' weighted average keeps their mean and shrinks each one's deviation by 1 − β − β/15")
@pytest.mark.parametrize("beta", [0.3, 0.1])
def test_experts_draw_near_each_other_about_their_mean(beta):
    moe = SpaceMoe(32, 16)
    for p in (moe.w1, moe.w2, moe.b1, moe.b2):
        torch.nn.init.normal_(p)
    before = moe.w1.detach().double().clone()
    moe.ewa(beta)
    after = moe.w1.detach().double()
    assert (after.mean(0) - before.mean(0)).abs().max() <= 1e-6
    factor = 1 - beta - beta / 15
    assert torch.allclose(after - after.mean(0), factor * (before - before.mean(0)), atol=1e-6)
    assert abs(float(after.var(0).mean() / before.var(0).mean()) - factor**2) < 1e-5
    if beta == 0.3:
        assert abs(factor - 0.68) < 1e-12 and abs(factor**2 - 0.4624) < 1e-12


@pytest.mark.identity("moe_sr", "with equal experts the order in which tokens are dealt changes nothing, nor does averaging them")
def test_equal_experts_do_not_mind_the_order(model):
    moe, x = SpaceMoe(32, 16).double(), torch.randn(2, 32, 8, 8, dtype=torch.float64)
    torch.nn.init.normal_(moe.w2)
    with torch.no_grad():
        for p in (moe.w1, moe.w2):
            p.copy_(p[:1].expand_as(p))
        outs = [moe(x, torch.randperm(64)) for _ in range(3)] + [moe.averaged().double()(x)]
    assert max(float((o - outs[0]).abs().max()) for o in outs) <= 1e-6
    from backends.train.sr_moe import multiplied

    net, low = model.net["single"], torch.rand(1, 3, 32, 32)
    x, t = torch.randn(1, 8, 8, 8), torch.tensor([500])
    many = multiplied(net, 16).eval()
    assert len(many.moes()) == len(net.moes()) > 0
    assert torch.allclose(many(x, t, low), net(x, t, low), atol=1e-5) and torch.allclose(multiplied(many, 1).eval()(x, t, low), net(x, t, low), atol=1e-5)


@pytest.mark.identity("moe_sr", "timestep t goes to expert ⌊t/250⌋, from the most noise to the least")
def test_each_quarter_of_the_timesteps_has_its_expert(model):
    assert [moe_sr.stage(t) for t in (0, 249, 250, 499, 500, 749, 750, 999)] == [0, 0, 1, 1, 2, 2, 3, 3]
    seen = []
    for i in range(4):
        model.net[f"stage{i}"].register_forward_pre_hook(lambda _m, args, i=i: seen.append((i, int(args[1][0]))))
    end = outcome("moe_sr", factor=2, knobs={"steps": 8})
    assert not end.error and end.nfe == 8 and [i for i, _ in seen] == [3, 3, 2, 2, 1, 1, 0, 0]
    assert all(t // 250 == i for i, t in seen)
    assert outcome("moe_sr", factor=2, knobs={"steps": 8, "experts": "one for all"}).nfe == 8 and len(seen) == 8


@pytest.mark.identity("moe_sr", "a frequency filter whose mask is 0 changes nothing; one whose mask is 1 doubles")
def test_the_filter_multiplies_the_spectrum():
    unit, x = Filter(16), torch.randn(2, 16, 12, 10)
    with torch.no_grad():
        for p in unit.parameters():
            p.zero_()
        assert torch.allclose(unit(x), x)
        unit.b2[0].fill_(1 + unit.shrink)
        assert torch.allclose(unit(x), 2 * x, atol=1e-5)
    names = AffUNet(32).state_dict()
    assert {"conv1.filter.w1", "context_refine.3.mlp.block.conv_3x3.block.norm.running_mean", "up3.0.weight", "up_conv2.up_dim.bias"} <= set(names)


# --- arbitrary scale ---


@pytest.mark.identity("arbitrary_scale", "the networks are called equally often whatever the size")
def test_the_cost_of_diffusion_does_not_know_the_size(model):
    calls = [outcome("arbitrary_scale", PICTURE[:16, :16], {"steps": 2}, factor=f).nfe for f in (1.0, 1.5, 2.0, 3.3, 8.0)]
    assert calls == [2] * 5


@pytest.mark.identity("arbitrary_scale", "one latent gives the same colour at a place whatever else is asked, and the four neighbours' shares add up to 1")
def test_a_place_has_one_colour(model):
    liif = model.net["liif"]
    (_, features), at, cell = parted(liif.read(model.net["vae"], torch.randn(1, 8, 12, 10))), grid((9, 7), "cpu"), torch.tensor([2 / 9, 2 / 7])
    whole = liif.query(features, at, cell)
    assert torch.allclose(liif.query(features, at[:, 20:31], cell), whole[:, 20:31], atol=1e-6)
    with torch.no_grad():
        for p in liif.rest[-1].parameters():
            p.zero_()
        liif.rest[-1].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    assert torch.allclose(liif.query(features, at, cell), torch.tensor([0.1, 0.2, 0.3]).expand(1, 63, 3), atol=1e-6)


def test_an_untaught_decoder_for_any_size_is_the_plain_one_brought_to_size(model):
    vae, z = model.net["vae"], torch.randn(1, 8, 12, 16)
    assert torch.allclose(LiifDecoder()(vae, z, (48, 64)), vae.pixels(z), atol=1e-5)
    canvas = fixed(model, PICTURE[:, :60])  # tiles and an edge that fills the canvas up: no matter
    taught = at_any_size(canvas, canvas.y0, (192, 240))
    torch.nn.init.zeros_(model.net["liif"].rest[-1].weight), torch.nn.init.zeros_(model.net["liif"].rest[-1].bias)
    made = at_any_size(canvas, canvas.y0, (192, 240))
    assert np.abs(made.astype(int) - canvas.decoded(canvas.y0)).max() <= 1 < np.abs(made.astype(int) - taught).max()


@pytest.mark.parametrize("factor", [2.0, 4.0, 8.0])
def test_low_frequencies_are_the_small_pictures_and_high_ones_the_decoders(factor):
    across = torch.arange(192.0).expand(1, 3, 192, -1)
    wave = lambda period: torch.cos(2 * torch.pi * across / period)  # noqa: E731
    slow, fast, edge = wave(24 * factor), wave(2.0), wave(2 * factor)  # the last of one pixel and the next in the small picture
    inner = lambda x: x[..., 48:-48, 48:-48]  # noqa: E731
    assert (inner(kept(fast, slow, factor)) - inner(slow + fast)).abs().max() < 0.15
    assert torch.allclose(inner(kept(torch.zeros_like(edge), edge, factor)), inner(edge / 2), atol=0.05)
    assert torch.allclose(kept(slow, slow, factor), slow, atol=1e-6)


def test_what_latents_say_of_the_mean_is_not_shown(model):
    canvas = fixed(model, PICTURE[:, :60])
    assert canvas.size == (192, 240) and canvas.low.shape[-2:] == (192, 240)
    small = lambda made: resized(made, (48, 60)).astype(int)  # noqa: E731
    for z in (canvas.y0, canvas.y0 + 2):
        for made in (canvas.decoded(z), at_any_size(canvas, z, (192, 240))):
            assert np.abs(small(made).mean((0, 1)) - PICTURE[:, :60].mean((0, 1))).max() < 4
    odd = fixed(model, PICTURE[:9, :11])  # an edge that fills the canvas up is not seen
    assert odd.low.shape[-2:] == (48, 48) and at_any_size(odd, odd.y0, (20, 31)).shape == (20, 31, 3)


def test_a_large_picture_is_done_in_tiles_without_seams(model):
    small = np.kron(RNG.integers(0, 256, (10, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    canvas = Canvas(model, small, (320, 384))
    assert len(canvas.tiles) > 1
    assert torch.allclose(canvas.on_tiles(lambda low, z: low + z.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :3], canvas.y0, scale=4),
                          canvas.low + canvas.y0.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :3], atol=1e-5)  # fmt: skip


def test_each_step_shows_the_whole_picture(model):
    small = PICTURE[:16, :16]
    sha = recipe.digest(small)
    for slug in ("resshift", "ldm_sr", "moe_sr", "arbitrary_scale", "fixed_decoder"):
        knobs = {} if slug == "resshift" else {"steps": 3}
        events = run(
            {"task": "super_resolve", "job": {"image": {"sha256": sha}, "factor": 2, "seed": 1}, "arms": [{"method": slug, "knobs": knobs}]}, {sha: PICTURE}
        )
        shown = [e.event.show for e in events if isinstance(e.event, Step)]
        assert shown and all(isinstance(s, Image) for s in shown if s is not None)


def test_a_packaged_network_reads_pixels_however_they_lie_in_memory():
    pytest.importorskip("ncnn", reason="the packaged networks are optional")
    run, rng = packaged_upscalers.opened_span(), np.random.default_rng(0)
    flat = np.kron(rng.random((4, 4, 3)), np.ones((16, 16, 1))).astype(np.float32)
    rows = np.ascontiguousarray(flat.transpose(2, 0, 1))
    expected = run(rows)
    for _ in range(3):
        np.empty((3, 64, 64), np.float32).fill(1e6)  # what stands in memory that was given back
        assert np.array_equal(run(flat.transpose(2, 0, 1)), expected)
