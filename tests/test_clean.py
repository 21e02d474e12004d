"""Harms of photographs, Noise-DA's losses on networks that know the answer, and the task around them."""

import math

import numpy as np
import pytest
import torch

from backends import METHODS, models, recipe, run
from backends.metrics import clean as figures
from backends.restore import adapting, clean_task, harming
from backends.restore.clean_task import CleanPhoto
from backends.spec import BadInput, Image, Outcome, Plot, Step
from tests.tiny_restorers import tiny as tiny_restorers


def identity(statement: str):
    return pytest.mark.identity("noise_da", statement)


class Knows(torch.nn.Module):
    """A diffusion network that solves c_n for ε from a picture it takes for c; `seen`: what it was given."""

    def __init__(self, clean=None):
        super().__init__()
        self.clean, self.seen = clean, []

    def forward(self, noisy, first, second, level):
        self.seen.append((noisy, first, second, level))
        at = level.view(-1, 1, 1, 1)
        c = first if self.clean is None else self.clean.repeat(len(noisy) // len(self.clean), 1, 1, 1)
        return (noisy - at.sqrt() * c) / (1 - at).sqrt()


def adds(value: float):
    """A restorer whose residual is one value."""
    return lambda x: torch.full_like(x, value)


def batch(n=4, side=16):
    return tuple(torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(i)) for i in range(3))


@pytest.fixture
def light():
    """The tiny restorers alone."""
    models.clear()
    models._cache["restorers"] = tiny_restorers()
    yield
    models.clear()


# --- the losses ------------------------------------------------------------------------------------------------------


@identity("noise levels lie between γ of two neighbouring steps of β linear from 1e-6 to 0.01")
def test_levels():
    bar, beta = adapting.gammas().double(), torch.linspace(1e-6, 0.01, 1000, dtype=torch.float64)
    assert torch.allclose(bar, torch.cumprod(1 - beta, 0), atol=1e-7)
    drawn = adapting.levels(4000, generator=torch.Generator().manual_seed(0))
    assert drawn.min() >= bar[999] - 1e-6 and drawn.max() <= bar[0] + 1e-6
    assert abs(drawn.mean() - (bar[1:] + bar[:-1]).mean() / 2) < 0.02  # t is even over the steps


@identity("α rises from 0 to 0.2·(2/(1 + e⁻⁵) − 1)")
def test_weight():
    assert adapting.weight(0) == 0 and adapting.weight(1) == pytest.approx(0.2 * (2 / (1 + math.exp(-5)) - 1))
    assert adapting.weight(0.1) == pytest.approx(0.2 * math.tanh(0.25)) and adapting.weight(2) == adapting.weight(1)


@identity("an F that knows ε leaves L_noise = ½·max(0, 0.1 − MSE⁻), and MSE⁻ is that of the swapped residuals")
def test_the_noise_loss():
    c, s, r = batch()
    found = adapting.losses(lambda x: torch.cat([torch.full_like(s, 0.1), torch.full_like(r, 0.3)]), Knows(c), c, s, r, 1.0)
    assert found.error < 1e-8 and found.noise == pytest.approx(0.05)  # it is as right about the negatives: MSE⁻ is 0
    net = Knows()
    torch.manual_seed(0)
    found = adapting.losses(lambda x: torch.cat([torch.full_like(s, 0.1), torch.full_like(r, 0.3)]), net, c, s, r, 1.0, shuffle=False)
    noisy, first, second, level = net.seen[0]
    n = len(c)
    torch.testing.assert_close(first, torch.cat([s + 0.1, s + 0.3]))  # ŝ, then s + G(r)
    torch.testing.assert_close(second, torch.cat([r + 0.3, r + 0.1]))
    at = level.view(-1, 1, 1, 1)
    eps = (noisy - at.sqrt() * c.repeat(2, 1, 1, 1)) / (1 - at).sqrt()
    torch.testing.assert_close(eps[:n], eps[n:], atol=1e-4, rtol=1e-4)
    wrong = [((g - e).square().mean()) for g, e in zip(((noisy - at.sqrt() * first) / (1 - at).sqrt()).chunk(2), eps.chunk(2))]
    assert float(found.noise) == pytest.approx(float(wrong[0] + (wrong[0] - wrong[1] + 0.1).clamp_min(0)) / 2, rel=1e-3)
    assert float(found.total) == pytest.approx(float(found.synthetic + found.noise), rel=1e-5)
    assert float(found.synthetic) == pytest.approx(float(((s + 0.1 - c).square() + 1e-6).sqrt().mean()), rel=1e-5)


@identity("the shuffle changes the places of half of the pairs and keeps each pair together")
def test_the_shuffle():
    a, b = torch.zeros(4000, 1, 1, 1), torch.ones(4000, 1, 1, 1)
    one, two = adapting.swapped(a, b, torch.Generator().manual_seed(0))
    assert torch.equal(one + two, a + b) and abs(one.mean() - 0.5) < 0.03


@identity("the noise loss reaches the restored real picture: its gradient there is not zero")
def test_the_gradient_reaches_the_real_picture():
    from backends.nets.restorers import NoiseUNet, RestorationUNet

    torch.manual_seed(0)
    c, s, r = batch()
    net, noiser = RestorationUNet(widths=(8, 8)), NoiseUNet(widths=(8, 8), dropout=0.0)
    made = {}

    def keep(_module, _given, out):
        out.retain_grad()
        made["out"] = out

    net.register_forward_hook(keep)
    adapting.losses(net, noiser, c, s, r, 1.0).noise.backward()
    for_synthetic, for_real = made["out"].grad.chunk(2)
    assert for_real.abs().sum() > 0 and for_synthetic.abs().sum() > 0
    assert sum(float(p.grad.abs().sum()) for p in net.parameters()) > 0


def test_source_only_is_charbonnier_alone():
    c, s, _ = batch()
    found = adapting.losses(adds(0.0), None, c, s, None, 1.0)
    assert float(found.total) == float(found.synthetic) == pytest.approx(float(((s - c).square() + 1e-6).sqrt().mean())) and found.noise == 0


# --- the harms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", harming.KINDS)
@pytest.mark.parametrize("real", [False, True])
def test_harms(kind, real):
    x = torch.nn.functional.interpolate(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), size=64, mode="bicubic").clamp(0, 1)
    made = [harming.harmed(x, kind, 0.5, real, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert made[0].shape == x.shape and made[0].min() >= 0 and made[0].max() <= 1
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    worse = [(harming.harmed(x, kind, s, real, torch.Generator().manual_seed(1)) - x).square().mean() for s in (0.2, 0.5, 1.0)]
    assert worse[0] < worse[1] < worse[2]


def test_the_real_noise_is_as_strong_but_its_neighbours_are_alike():
    x = torch.full((4, 3, 96, 96), 0.5)
    noise = [harming.harmed(x, "noise", 0.3, real, torch.Generator().manual_seed(0)) - x for real in (False, True)]
    alike = [float((n[..., 1:] * n[..., :-1]).mean() / n.square().mean()) for n in noise]
    assert abs(alike[0]) < 0.02 and alike[1] > 0.4
    for n in noise:
        assert float(n.std()) == pytest.approx(15 / 255, rel=0.05)


def test_a_kernel_of_one_point_changes_nothing():
    x, kernel = torch.rand(2, 3, 40, 30), torch.zeros(2, 1, 25, 25)
    kernel[:, :, 12, 12] = 1
    torch.testing.assert_close(harming.convolved(x, kernel), x, atol=1e-5, rtol=1e-5)
    kernel = kernel.roll(3, 3)  # to the right
    torch.testing.assert_close(harming.convolved(x, kernel)[..., 3:], x[..., :-3], atol=1e-5, rtol=1e-5)


# --- the task --------------------------------------------------------------------------------------------------------


def photo(h=70, w=90):
    y, x = np.mgrid[:h, :w]
    return np.stack([(x * 2) % 256, (y * 3) % 256, (x + y) % 256], -1).astype(np.uint8)


def outcome_of(slug, knobs=None, image=None, **job):
    image = photo() if image is None else image
    digest = recipe.digest(image)
    given = {"task": "restore_image", "job": {"image": {"sha256": digest}, "seed": 3} | job, "arms": [{"method": slug, "knobs": knobs or {}}]}
    events = list(run(given, {digest: image}))
    assert isinstance(events[-1].event, Outcome) and not events[-1].event.error, events[-1].event.error
    return events[-1].event, events


@identity("to restore, F is called 0 times")
def test_f_takes_no_part(light):
    model, called = models.load("restorers"), []
    for noiser in model.noisers.values():
        noiser.register_forward_pre_hook(lambda *_: called.append(1))
    for harm in harming.KINDS:
        found, _ = outcome_of("noise_da", harm=harm)
        assert isinstance(found.value, Image) and found.value.pixels.shape == photo().shape and found.value.before.shape == photo().shape
    assert not called and found.nfe == 1


@identity("restored tile by tile, a picture is what it is restored whole")
def test_tiles_leave_no_seam():
    from backends.nets.restorers import RestorationUNet

    torch.manual_seed(0)
    model, net = tiny_restorers(), RestorationUNet().eval()
    net.conv_out.weight.data.mul_(10)
    x = torch.rand(1, 3, 304, 280, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        *_, (i, n, made) = model.restored(net, x)
        wide = torch.nn.functional.pad(x, (32, 32, 32, 32), mode="reflect")
        whole = net.restore(wide)[..., 32:-32, 32:-32]
    assert i == n == 4
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=0)


def test_adapting_shows_curves_and_changes_the_restorer_but_not_the_model(light):
    model = models.load("restorers")
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    found, events = outcome_of("noise_da", {"adapt": 10, "rate": 1e-3})
    steps = [e.event for e in events if isinstance(e.event, Step)]
    assert any(isinstance(a, Plot) and len(a.series) == 2 for s in steps for a in s.aside)
    assert found.nfe == 10 * 4 * 4 + 1
    again, _ = outcome_of("noise_da", {"adapt": 10, "rate": 1e-3})
    plain, _ = outcome_of("source_only")
    assert np.array_equal(found.value.pixels, again.value.pixels) and not np.array_equal(found.value.pixels, plain.value.pixels)
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())


def test_what_is_asked_is_refused_with_a_sentence(light):
    with pytest.raises(BadInput, match="at least 16×16"):
        recipe.parse(
            {"task": "restore_image", "job": {"image": {"sha256": recipe.digest(photo(8, 40))}}, "arms": []}, {recipe.digest(photo(8, 40)): photo(8, 40)}
        )
    events = list(run({"task": "restore_image", "job": {"image": {"sha256": recipe.digest(photo(40, 40))}}, "arms": [{"method": "noise_da", "knobs": {"adapt": 10}}]},
                      {recipe.digest(photo(40, 40)): photo(40, 40)}))  # fmt: skip
    assert "patches of 64×64" in events[-1].event.error


def test_all_arms_are_given_the_same_and_odd_sizes_fit(light):
    given = [outcome_of(slug, image=photo(33, 71))[0].value for slug in ("source_only", "noise_da", "unshuffled", "classical")]
    assert all(np.array_equal(v.before, given[0].before) and v.pixels.shape == (33, 71, 3) for v in given)
    assert np.array_equal(given[0].before, clean_task.harmed(CleanPhoto(image=photo(33, 71), seed=3)))


@pytest.mark.parametrize("harm", harming.KINDS)
def test_the_classical_filters_help(harm):
    from skimage import data

    image = data.astronaut()[100:260, 150:310]
    job = CleanPhoto(image=image, harm=harm, strength=0.4, real=False, seed=0)
    *_, result = METHODS["classical"].function(job, None)
    assert figures.psnr(result.value.pixels, image) > figures.psnr(clean_task.harmed(job), image) + 0.3


def test_figures():
    image, job = photo(), CleanPhoto(image=photo(), strength=0.5, seed=1)
    found = {m.name: m.value for m in figures.clean_photo(job, Image(image), None)}
    assert found["PSNR, dB"] == 100 and found["SSIM"] == pytest.approx(1) and found["LPIPS-like"] == pytest.approx(0, abs=1e-6)
    rng = np.random.default_rng(0)
    noisy = np.clip(image.astype(int) + rng.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
    found = {m.name: m.value for m in figures.clean_photo(CleanPhoto(image=noisy, strength=0), Image(image), None)}
    assert abs(found["structure in what was taken out"]) < 0.1 and set(found) == {"sharpness", "structure in what was taken out"}
    assert figures.clean_photo(job, Image(image[:10, :10]), None) == []


def test_the_embedded_restorers_restore_what_they_learned():
    from skimage import data

    models.clear()
    image = data.astronaut()[40:168, 150:278]
    for harm in harming.KINDS:
        for slug in ("source_only", "noise_da"):
            found, _ = outcome_of(slug, image=image, harm=harm, real=False)
            assert figures.psnr(found.value.pixels, image) > figures.psnr(found.value.before, image) + 1
    models.clear()
