"""Restore a face: what the arms are given, and the identities of DifFace, InterLCM and LAFR."""

import hashlib
import io

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from PIL import Image

from backends import BadInput, inputs, recipe
from backends.denoiser import from_uint8
from backends.evaluate import faces as measured
from backends.image.conditions import LUMA
from backends.metrics import restored_faces
from backends.restore import consistency, difface, face_finding, face_task, interlcm, lafr
from backends.restore.aligned import finish
from backends.restore.aligned import timesteps as low_times
from backends.restore.face_task import RestoreFace
from backends.spec import Image as SpecImage
from backends.spec import Result, Step
from backends.train import faces_lafr, faces_lcm, faces_prior
from backends.worlds import faces
from tests.tiny_faces import tiny

FACE = faces.examples()[0]
BAD = dict(image=FACE, blur=1.5, factor=3.0, noise=10, quality=40, seed=3)


@pytest.fixture(scope="module")
def model():
    return tiny()


def ran(method, model, job=None, **knobs):
    model.nfe = 0
    with torch.no_grad():
        events = list(method(job or RestoreFace(**BAD), model, **knobs))
    return [e for e in events if isinstance(e, Step)], next(e.value for e in events if isinstance(e, Result))


# --- what the arms are given -------------------------------------------------------------------------------------------


def test_a_slider_makes_the_picture_the_reference():
    one, again, other = (face_task.given(RestoreFace(**BAD | {"seed": s})) for s in (3, 3, 4))
    assert np.array_equal(one.reference, FACE) and np.array_equal(one.y, again.y) and not np.array_equal(one.y, other.y)
    rest = face_task.given(RestoreFace(image=FACE, seed=3))
    assert rest.reference is None and np.array_equal(rest.y, FACE) and not rest.notes


@pytest.mark.parametrize("side", [64, 128, 512])
def test_larger_pictures_are_degraded_in_proportion(side):
    clean = faces.as_tensor(FACE[None])
    big = torch.nn.functional.interpolate(clean, (side, side), mode="nearest")
    how = faces.chosen(blur=1.5, factor=3, quality=95)
    small = torch.nn.functional.interpolate(faces.degrade(big, how), (64, 64), mode="area")
    assert (small - faces.degrade(clean, how)).abs().mean() < 0.02


def png(image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_uploads_of_every_kind():
    grey = Image.fromarray(FACE).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert np.abs(inputs.picture(png(deep)).astype(int) - inputs.picture(png(grey))).max() <= 1, "16 bits"
    assert np.isfinite(inputs.picture(png(grey))).all() and inputs.picture(png(grey)).shape == (64, 64, 3)
    clear = Image.fromarray(np.dstack([FACE, np.zeros((64, 64), np.uint8)]))
    assert (inputs.picture(png(clear)) == 255).all(), "what is transparent is white"
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(FACE[:, :48]).save(out, "JPEG", exif=exif, quality=95)
    assert inputs.picture(out.getvalue()).shape == (48, 64, 3)


@pytest.mark.parametrize("shape", [(8, 8), (64, 15)])
def test_too_small_a_picture_is_refused(shape):
    small = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(BadInput, match=f"{shape[1]}×{shape[0]} pixels"):
        recipe.parse({"task": "restore_face", "job": {"image": {"sha256": recipe.digest(small)}}, "arms": []}, {recipe.digest(small): small})


def test_nothing_to_restore_is_refused(model):
    with pytest.raises(BadInput, match="Add a picture"):
        ran(difface.untouched_face, model, RestoreFace())


def test_a_face_is_found_in_a_larger_picture():
    from skimage import data

    rows, columns = face_finding.find(data.astronaut())
    assert rows.start < 70 < 160 < rows.stop and columns.start < 200 < 255 < columns.stop and rows.stop - rows.start < 200
    assert face_finding.find(data.coffee()[::2, ::2]) is None
    assert face_finding.find(FACE) == np.s_[0:64, 0:64]
    said = face_task.given(RestoreFace(image=np.ascontiguousarray(data.coffee()[::2, ::2]))).notes
    assert "No face was found" in said[0]


def hole(rows=slice(20, 38), columns=slice(36, 56)):
    mask = np.zeros_like(FACE)
    mask[rows, columns] = 255
    return mask


def test_a_hole_is_filled_smoothly_and_what_was_painted_over_is_the_reference():
    given = face_task.given(RestoreFace(image=FACE, mask=hole(), seed=3))
    assert given.hole.sum() == 18 * 20 and given.hole[25, 40] and np.array_equal(given.y[~given.hole], FACE[~given.hole])
    assert np.array_equal(given.reference, FACE) and not np.array_equal(given.y, FACE)
    spoilt = FACE.copy()
    spoilt[given.hole] = 0
    assert np.array_equal(face_task.given(RestoreFace(image=spoilt, mask=hole(), seed=3)).y, given.y), "what lies under the paint is not seen"
    grey = face_task.given(RestoreFace(image=FACE, grey=True))
    assert np.ptp(grey.y, -1).max() == 0 and np.array_equal(grey.reference, FACE)


@pytest.mark.parametrize(
    ("mask", "message"),
    [(hole()[:32], "paint it on this picture"), (np.zeros_like(FACE), "paint on the face"), (np.full_like(FACE, 255), "leave some of it")],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    with pytest.raises(BadInput, match=message):
        face_task.given(RestoreFace(image=FACE, mask=mask))


@pytest.mark.parametrize("method", [difface.difface, difface.face_restorer, interlcm.interlcm, lafr.lafr])
def test_what_is_known_of_a_face_stays(model, method):
    knobs = {"N": 5} if method is difface.difface else {}
    painted = ran(method, model, RestoreFace(image=FACE, mask=hole(), seed=1), **knobs)[1].pixels
    inside = hole()[..., 0] > 0
    assert np.array_equal(painted[~inside], FACE[~inside]) and not np.array_equal(painted[inside], FACE[inside])
    grey = ran(method, model, RestoreFace(image=FACE, grey=True, seed=1), **knobs)[1].pixels
    apart = grey @ np.array(LUMA) - face_task.given(RestoreFace(image=FACE, grey=True)).y[..., 0]
    fits = (grey > 0).all(-1) & (grey < 255).all(-1)  # elsewhere a colour was cut off
    assert fits.any() and np.abs(apart[fits]).max() < 1.1
    blurred = ran(method, model, RestoreFace(**BAD | {"mask": hole()}), **knobs)[1].pixels
    assert not np.array_equal(blurred[~inside], face_task.given(RestoreFace(**BAD | {"mask": hole()})).y[~inside]), (
        "of a degraded face nothing is known for sure"
    )


@pytest.mark.identity("difface", "with a hole each estimate is pulled to the known pixels by γ = 0.5, which puts them in")
def test_the_pull_to_the_known_pixels_is_their_replacement():
    guess, y, known = torch.rand(2, 1, 3, 8, 8).unbind() + (torch.rand(1, 1, 8, 8) > 0.4,)
    x = guess.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((known * (x - y)).square().sum(), x)
    torch.testing.assert_close(guess - 0.5 * gradient, torch.where(known, y, guess))
    seen = [g for _, g in difface.backwards(guess, 4, 1.0, DDIMScheduler(**faces_prior.SCHEDULES["pixels"]).alphas_cumprod, lambda x, t: 0 * x,
                                            lambda: torch.zeros_like(guess), known=lambda g: torch.where(known, y, g))]  # fmt: skip
    assert len(seen) == 4 and all(torch.equal(g[known.expand_as(g)], y[known.expand_as(y)]) for g in seen)


def test_figures_of_holes_and_colours():
    found = {m.name: m for m in restored_faces.restore_face(RestoreFace(image=FACE, mask=hole(), grey=True), SpecImage(FACE), None)}
    assert found["PSNR in the hole, dB"].value == 100 and found["colours off"].value == 0
    assert "smoothly" in found["PSNR in the hole, dB"].aside and float(found["colours off"].aside.split()[0]) > 1
    plain = {m.name for m in restored_faces.restore_face(RestoreFace(**BAD), SpecImage(FACE), None)}
    assert not plain & {"PSNR in the hole, dB", "colours off"}


# --- DifFace -----------------------------------------------------------------------------------------------------------


@pytest.mark.identity("difface", "iDDPM's grid of 250 steps; √ᾱ where the walk begins at N = 100 is 0.4453")
def test_the_grid():
    grid, bar = difface.respaced(), DDIMScheduler(**faces_prior.SCHEDULES["pixels"]).alphas_cumprod
    assert len(set(grid)) == 250 and grid[0] == 0 and grid[-1] == 999 and grid[99:101] == [397, 401]
    assert bar[grid[99]].sqrt() == pytest.approx(0.4453, abs=1e-4) and bar[grid[100]].sqrt() == pytest.approx(0.4382, abs=1e-4)


@pytest.mark.identity("difface", "with η = 0.5 every state is diffusers' DDIM's")
def test_the_walk_is_ddim():
    kind = faces_prior.SCHEDULES["pixels"] | {"timestep_spacing": "leading", "clip_sample": True}
    scheduler, x0 = DDIMScheduler(**kind), torch.rand(1, 3, 8, 8) * 2 - 1
    scheduler.set_timesteps(250)
    draws = [torch.randn(x0.shape) for _ in range(6)]
    net = lambda x, t: torch.sin(3 * x) + t / 1000  # noqa: E731
    walk = difface.backwards(x0, 6, 0.5, scheduler.alphas_cumprod, net, iter(draws).__next__, list(range(0, 1000, 4)))
    a = scheduler.alphas_cumprod[20]
    x = a.sqrt() * x0 + (1 - a).sqrt() * draws[0]
    for i, (mine, guess) in enumerate(walk):
        torch.testing.assert_close(mine, x, atol=1e-5, rtol=1e-4)
        noise = draws[i + 1] if i < 5 else torch.zeros_like(x)
        x, theirs = scheduler.step(net(x, 20 - 4 * i), 20 - 4 * i, x, eta=0.5, use_clipped_model_output=True, variance_noise=noise, return_dict=False)
        torch.testing.assert_close(guess, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.identity(
    "difface", "on data in 8 of 64 dimensions, what lies off them is gone for every N (< 1e-6 of it stays); without noise too little is on them"
)
def test_errors_contract():
    torch.manual_seed(0)
    grid, bar = difface.respaced(), DDIMScheduler(**faces_prior.SCHEDULES["pixels"]).alphas_cumprod.double()
    truth = torch.zeros(512, 64, dtype=torch.double)
    truth[:, :8] = 0.25 * torch.randn(512, 8)  # small, so that nothing is clipped
    rough = truth + 0.125 * torch.randn(512, 64)

    def exact(x, t):
        """ε of data N(0, 1/16) on the first eight dimensions, 0 on the others."""
        a, v = bar[t], torch.zeros(64, dtype=torch.double)
        v[:8] = 1 / 16
        x0 = a.sqrt() * v / (a * v + 1 - a) * x
        return (x - a.sqrt() * x0) / (1 - a).sqrt()

    def made(n, noise):
        """What N = n steps without fresh noise end at."""
        *_, (_, x0) = difface.backwards(rough, n, 0.0, bar, exact, noise, grid)
        return x0

    for n in (20, 50, 100):
        found, a = made(n, lambda: torch.randn(512, 64).double()), float(bar[grid[n - 1]])
        assert found[:, 8:].norm() < 1e-6 * rough[:, 8:].norm()
        alike = float(torch.corrcoef(torch.stack([found[:, :8].flatten(), truth[:, :8].flatten()]))[0, 1])
        assert alike == pytest.approx(0.25 * a**0.5 / (a * (0.25**2 + 0.125**2) + 1 - a) ** 0.5, abs=0.03)
        assert float(found[:, :8].std()) == pytest.approx(0.25, abs=0.02)
        assert float(made(n, lambda: torch.zeros(512, 64).double())[:, :8].std()) < 0.2


@pytest.mark.identity("difface", "N evaluations of the prior and one of the restorer, none of it where the picture itself is noised")
def test_difface_counts(model):
    steps, value = ran(difface.difface, model, N=7)
    assert model.nfe == 8 and len(steps) == 8 and steps[-1].i == steps[-1].n == 8
    assert value.before.shape == (64, 64, 3)
    ran(difface.difface, model, N=7, start="the picture as it is")
    assert model.nfe == 7
    ran(difface.face_restorer, model)
    assert model.nfe == 1


def test_the_untouched_face_is_what_was_given(model):
    assert np.array_equal(ran(difface.untouched_face, model)[1].pixels, face_task.given(RestoreFace(**BAD)).y)


# --- InterLCM ----------------------------------------------------------------------------------------------------------


@pytest.mark.identity("interlcm", "the schedule is LCMScheduler's; the first state is 0.2285·z + 0.9735·ε")
def test_the_schedule():
    scheduler = LCMScheduler(**faces_lcm.SCHEDULE)
    for n in (1, 2, 3, 4, 8):
        scheduler.set_timesteps(n)
        assert consistency.timesteps(n) == scheduler.timesteps.tolist()
    scheduler.set_timesteps(4, strength=0.5)
    assert consistency.timesteps(4, end=0.5) == scheduler.timesteps.tolist()
    z, seen = torch.randn(1, 4, 2, 2), []
    list(consistency.walk(z, [759], scheduler.alphas_cumprod, lambda: torch.ones_like(z), lambda x, t: seen.append(x) or x))
    torch.testing.assert_close(seen[0], 0.2285 * z + 0.9735, atol=2e-4, rtol=0)


@pytest.mark.identity("interlcm", "four steps call the network three times, two once; img2img four times")
def test_interlcm_counts(model):
    for steps, calls in ((4, 3), (2, 1)):
        seen, _ = ran(interlcm.interlcm, model, steps=steps)
        assert model.nfe == calls and [s.i for s in seen] == list(range(1, steps + 1))
    for method in (interlcm.lcm_img2img, interlcm.lcm_from_noise):
        ran(method, model)
        assert model.nfe == 4


@pytest.mark.identity("interlcm", "encoders as they begin change nothing: no difference at all from the model without them")
def test_new_encoders_change_nothing(model):
    z, y = torch.randn(2, 4, 16, 16), torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        tokens = model.prompt(y)
        assert torch.equal(model.mended(tokens), tokens)
        assert torch.equal(model.consistency(z, 499, tokens, y), model.consistency(z, 499, tokens))


@pytest.mark.identity("interlcm", "the colour fix keeps a picture that has the colours already, and gives a grey one those of the other")
def test_the_colour_fix():
    x = faces.as_tensor(faces.examples()[:2]) * 1.8 - 0.9
    torch.testing.assert_close(interlcm.recoloured(x, x), x, atol=1e-5, rtol=0)
    grey = x.mean(1, keepdim=True).expand_as(x)
    fixed = interlcm.recoloured(grey, x)
    far = lambda a: (a.mean((2, 3)) - x.mean((2, 3))).abs().mean()  # noqa: E731
    assert far(fixed) < 0.15 * far(grey)


@pytest.mark.parametrize("method", [interlcm.interlcm, interlcm.lcm_from_noise, interlcm.lcm_img2img])
def test_every_consistency_arm_has_the_same_colour_fix(model, method):
    asked, y = RestoreFace(**BAD), from_uint8(face_task.given(RestoreFace(**BAD)).y)
    fixed, bare = (from_uint8(ran(method, model, asked, **knobs)[1].pixels) for knobs in ({}, {"colour_fix": False}))
    torch.testing.assert_close(fixed, interlcm.recoloured(bare, y), atol=0.02, rtol=0)  # two roundings to eight bits
    assert (fixed - bare).abs().max() > 0.05, "the fix changes what these weights draw"


def test_every_measured_consistency_arm_has_the_same_colour_fix(model):
    y = measured.severe(0, 1.0, 2)[1]
    for name in measured.FIXED:
        fixed, bare = (measured.made_by(arm, model, y, 3) for arm in (name, name + measured.NO_FIX))
        torch.testing.assert_close(fixed, interlcm.recoloured(bare, y))
        assert (fixed - bare).abs().max() > 0.05, name


# --- LAFR --------------------------------------------------------------------------------------------------------------


def digest(net) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in net.state_dict().values())).hexdigest()


@pytest.mark.identity("lafr", "each place takes the nearest of the codes that are looked at; the autoencoder is bit for bit what it was")
def test_the_codebook(model):
    net, z, before = model.net["adapter"], torch.randn(2, 4, 16, 16), digest(model.net["vae"])
    with torch.no_grad():
        f = net.features(z)
        for use in (16, 64):
            at = net(z, use)[1]
            theirs = torch.stack([torch.cdist(f[..., g, :].flatten(0, 2), net.codes[g, :use]).argmin(1) for g in range(4)], 1)
            assert torch.equal(at, theirs.view(2, 16, 16, 4)) and at.max() < use
    ran(lafr.lafr, model)
    assert model.nfe == 1 and digest(model.net["vae"]) == before


@pytest.mark.identity("lafr", "the finishing walk is DDIM from t = 199: with the exact ε it ends at the data, in as many evaluations as steps")
def test_the_finish():
    bar, x0, calls = DDIMScheduler(**faces_prior.SCHEDULES["latents"]).alphas_cumprod, torch.randn(2, 4, 4, 4), []

    def exact(z, t):
        calls.append(t)
        return (z - bar[t].sqrt() * x0) / (1 - bar[t]).sqrt()

    assert low_times(1, 199) == [199] and low_times(2, 199) == [199, 99] and low_times(0) == []
    *_, (_, made) = finish(x0 + 0.3 * torch.randn_like(x0), low_times(4, 199), bar, torch.randn_like(x0), exact)
    torch.testing.assert_close(made, x0, atol=1e-4, rtol=0)
    assert calls == [199, 149, 99, 49]


def test_lafr_without_its_parts(model):
    decoded = ran(lafr.lafr, model, align="none", steps=0)[1].pixels
    assert model.nfe == 0
    assert not np.array_equal(decoded, ran(lafr.lafr, model, align="codebook", steps=0)[1].pixels)
    whole = ran(lafr.lafr, model, align="codebook", codes=64, steps=2)
    assert model.nfe == 2 and len(whole[0]) == 3
    maps = whole[0][0].aside()
    assert [i.caption for i in maps[0].items] == ["z_L", "z_A", "z_H"] and len(maps[1].values) == 16


def test_k_means_and_perplexity():
    x = torch.tensor([[0.0, 0], [0, 0.1], [5, 5], [5, 5.1]]).repeat(8, 1)
    centres = faces_lafr.k_means(x + 1e-3 * torch.randn_like(x), 2)
    assert {round(float(c)) for c in centres[:, 0]} == {0, 5}
    assert faces_lafr.perplexity(torch.arange(8)[:, None], 16) == pytest.approx(8)
    assert faces_lafr.perplexity(torch.zeros(8, 2).long(), 16) == pytest.approx(1)


def test_a_change_of_low_rank_begins_at_nothing():
    from backends.text import adapter

    net, z = tiny().net["finisher"], torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        before = net(z, 99, torch.zeros(1, 16, 128)).sample
        adapter.low_rank(net, 16)
        assert torch.equal(net(z, 99, torch.zeros(1, 16, 128)).sample, before)
    kept = adapter.kept(net)
    assert kept and all(16 in v.shape for v in kept.values())
