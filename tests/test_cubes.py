"""Spectral cubes: files, recipes and the page; how they are measured; DDS2M's network and walk."""

import base64
import dataclasses
import io
import itertools
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backends import BadInput, cubes, headless, inputs, recipe, run
from backends.metrics import cubes as figures
from backends.restore import cube_task, dds2m, degrading
from backends.restore.cube_task import Problem, RestoreCube
from backends.spec import Cube, Image, Note, Outcome, Plot, Step
from backends.worlds import cubes as world


def identity(statement: str):
    return pytest.mark.identity("dds2m", statement)


def small(side=16, bands=4, seed=0) -> Cube:
    return world.generated(seed, side, bands)


# --- files -----------------------------------------------------------------------------------------------------------


def npy(values) -> bytes:
    out = io.BytesIO()
    np.save(out, values, allow_pickle=True)
    return out.getvalue()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


def envi(values: np.ndarray, order: str, kind: str, code: int, more: str = "") -> bytes:
    """A zip of an ENVI header and its data."""
    h, w, b = values.shape
    axes = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}[order]
    header = f"ENVI\nsamples = {w}\nlines = {h}\nbands = {b}\nheader offset = 0\ndata type = {code}\ninterleave = {order}\nbyte order = {int(kind[0] == '>')}\n{more}"
    return zipped(scene__hdr=header.encode(), scene__img=np.ascontiguousarray(values.transpose(axes)).astype(kind).tobytes())


VALUES = np.random.default_rng(0).random((20, 18, 5)).astype(np.float32)


def test_arrays_are_taken_and_scaled():
    from scipy import io as mat

    saved = io.BytesIO()
    mat.savemat(saved, {"small": np.eye(3), "cube": VALUES.astype(float)})
    many = io.BytesIO()
    np.savez(many, note=np.arange(3), cube=VALUES)
    for data in (npy(VALUES), saved.getvalue(), many.getvalue(), npy(np.asfortranarray(VALUES))):
        found = inputs.cube(data)
        assert found.values.shape == (20, 18, 5) and found.values.dtype == np.float32 and (found.low, found.high) == (0, 1)
        assert np.abs(found.values - VALUES).max() < 1e-5
    whole = (VALUES * 9000 - 50).astype(np.int16)
    found = inputs.cube(npy(whole))
    assert (found.low, found.high) == (whole.min(), whole.max()) and found.values.min() == 0 and found.values.max() == 1
    assert np.abs(found.low + (found.high - found.low) * found.values - whole).max() < 0.1


def test_only_a_0_of_the_file_is_a_missing_value():
    there = np.round(VALUES * 60000) + 100
    assert (inputs.cube(npy(there)).values > 0).all(), "the least is no missing value"
    holed = np.where(VALUES < 0.2, 0, there)
    assert np.array_equal(inputs.cube(npy(holed)).values == 0, holed == 0)
    told = inputs.cube(envi(np.where(VALUES < 0.2, -9999, there), "bil", "<i4", 3, "data ignore value = -9999\n"))
    assert np.array_equal(told.values == 0, holed == 0) and told.low == 0
    with pytest.raises(BadInput, match="add a constant"):
        RestoreCube(cube=inputs.cube(npy(holed - 50)), what="complete", harm=False)


def test_the_data_of_an_envi_header_is_the_largest_file_of_its_name():
    data = envi(VALUES, "bsq", "<f4", 4)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {n.replace(".", "__"): archive.read(n) for n in archive.namelist()}
    assert np.allclose(
        inputs.cube(zipped(scene__hdr=files["scene__hdr"], scene__txt=b"taken in June", scene__img=files["scene__img"])).values, VALUES, atol=1e-4
    )


@pytest.mark.parametrize("order", ["bsq", "bil", "bip"])
@pytest.mark.parametrize(("kind", "code"), [("<f4", 4), (">f4", 4), ("<u2", 12)])
def test_envi(order, kind, code):
    values = VALUES if code == 4 else np.round(VALUES * 60000)
    found = inputs.cube(envi(values, order, kind, code, "wavelength units = Micrometers\nwavelength = {\n 0.4, 0.5,\n 0.6, 0.7, 0.8 }\n"))
    assert found.wavelengths == pytest.approx((400, 500, 600, 700, 800))
    assert np.abs(found.values * (found.high - found.low) + found.low - values).max() < 1e-5 * values.max()


BAD = {
    "objects": (npy(np.array([[[{}] * 3] * 20] * 20, dtype=object)), "objects, which are not opened"),
    "text": (npy(np.array([[["a"] * 3] * 20] * 20)), "plain real numbers"),
    "complex": (npy(VALUES.astype(complex)), "plain real numbers"),
    "a picture": (npy(VALUES[..., 0]), "2 axes"),
    "NaN": (npy(np.where(VALUES > 0.5, np.nan, VALUES)), "write 0 where one is missing"),
    "infinite": (npy(np.where(VALUES > 0.5, np.inf, VALUES)), "not numbers"),
    "one value": (npy(np.full((20, 20, 4), 3.0)), "its values are all 3"),
    "tiny": (npy(VALUES[:4]), "16 to 512 pixels"),
    "two bands": (npy(VALUES[..., :2]), "3 to 512 bands"),
    "cut off": (npy(VALUES)[:-40], "cut off"),
    "empty": (b"", "empty"),
    "no cube": (b"GIF89a" + bytes(40), "give npy"),
    "broken": (b"\x93NUMPY\x01\x00" + bytes(30), "give a whole file"),
    "7.3": (b"MATLAB 7.3 MAT-file" + bytes(200), "-v7"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(200), "-v7"),
    "header alone": (b"ENVI\nsamples = 4", "one zip"),
    "no data": (zipped(a__hdr=b"ENVI"), "no data file of that name"),
    "no sizes": (zipped(a__hdr=b"ENVI\nlines = 20", a__img=b"1234"), "lacks lines"),
    "complex ENVI": (zipped(a__hdr=b"ENVI\nlines = 20\nsamples = 20\nbands = 4\ninterleave = bsq\ndata type = 6", a__img=b"1234"), "lacks lines"),
    "short": (zipped(a__hdr=b"ENVI\nlines = 20\nsamples = 20\nbands = 4\ninterleave = bsq\ndata type = 4", a__img=b"1234"), "cut off"),
    "zip of nothing": (zipped(a__txt=b"hello"), "neither an array"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_cube_is_refused_with_a_sentence(case):
    data, said = BAD[case]
    with pytest.raises(BadInput, match=said) as refused:
        inputs.cube(data, "The cube")
    assert str(refused.value).startswith("The cube") and str(refused.value).endswith(".")


def test_a_header_that_promises_too_much_is_refused_before_it_is_read():
    header = npy(np.zeros((16, 16, 3)))
    for shape in ("(512, 512, 512)", "(9999, 9999, 9999)"):
        text = header[10:128].decode("latin-1").replace("(16, 16, 3)", shape).rstrip()
        with pytest.raises(BadInput, match="taken"):
            inputs.cube(header[:10] + text.ljust(117).encode("latin-1") + b"\n" + bytes(64))
    lying = io.BytesIO(cubes.packed(small()))
    with zipfile.ZipFile(lying) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    parts["cube.npy"] = npy(np.array([[[{}] * 4] * 16] * 16, dtype=object))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(BadInput, match="objects, which are not opened"):
        recipe.decode_inputs({"x": base64.b64encode(out.getvalue()).decode()})


def test_another_kind_of_input_is_refused():
    with pytest.raises(BadInput, match="is a picture; give a spectral cube"):
        inputs.cube(np.zeros((8, 8, 3), np.uint8))
    for read in (inputs.picture, inputs.sound, inputs.mesh):
        with pytest.raises(BadInput, match="cube; give"):
            read(small())


# --- recipes ---------------------------------------------------------------------------------------------------------


def asked(cube: Cube, arms=("truncated_svd",), knobs=None, **job):
    digest = recipe.digest(cube)
    rows = [{"method": a, "knobs": (knobs or {}).get(a, {})} for a in arms]
    return {"task": "restore_cube", "job": {"cube": {"sha256": digest}, "seed": 3} | job, "arms": rows}, {digest: cube}


def test_a_cube_travels_beside_its_recipe_and_keeps_its_hash():
    cube = dataclasses.replace(small(), low=-3.5, high=900.25)
    packed = recipe.packed(cube)
    assert cubes.is_packed(packed) and len(packed) < 10_000
    found = recipe.decode_inputs(recipe.encode_inputs({recipe.digest(cube): cube}))
    ((digest, again),) = found.items()
    assert digest == recipe.digest(cube) and np.array_equal(again.values, cube.values) and again.wavelengths == cube.wavelengths and again.low == -3.5
    assert recipe.digest(dataclasses.replace(cube, low=0.0)) != digest
    again = inputs.cube(packed)  # and as a file
    assert np.array_equal(again.values, cube.values) and again.high == 900.25


def test_a_result_carries_its_recipe(tmp_path):
    given, pictures = asked(small(), knobs={"truncated_svd": {"rank": 2}})
    *_, end = headless.run(given, pictures, tmp_path)
    assert end["complete"]
    names = {f["name"] for f in end["recipe"]["outcome"]["arms"][0]["files"]}
    assert names == {"1-truncated_svd.png", "1-truncated_svd.npz"}
    assert {p.suffix for p in tmp_path.glob("input-*")} == {".npz"}
    for name in names:
        back, found = recipe.from_file(tmp_path / name)
        assert back["arms"][0]["knobs"]["rank"] == 2 and list(found) == list(pictures)
    made = inputs.cube(tmp_path / "1-truncated_svd.npz")
    assert made.values.shape == (16, 16, 4) and made.wavelengths == small().wavelengths
    with pytest.raises(BadInput, match="carries no recipe"):
        (tmp_path / "plain.npz").write_bytes(cubes.packed(small()))
        recipe.from_file(tmp_path / "plain.npz")


@pytest.mark.parametrize("job, said", [
    ({"what": "denoise", "sigma": 0.0}, "set sigma above 0"),
    ({"what": "enlarge 4"}, "cut it to a multiple of 4"),
])  # fmt: skip
def test_what_can_not_be_done_is_refused(job, said):
    with pytest.raises(BadInput, match=said):
        recipe.parse(*asked(small(18), **job))
    with pytest.raises(BadInput, match="would have more than"):
        RestoreCube(cube=Cube(np.zeros((400, 400, 10), np.float32)), what="enlarge 4", harm=False)
    with pytest.raises(BadInput, match="too little to go by"):
        RestoreCube(cube=Cube(np.zeros((20, 20, 4), np.float32)), what="complete", harm=False)


# --- how a cube is measured ------------------------------------------------------------------------------------------


def operators():
    rng = torch.Generator().manual_seed(0)
    mask = (torch.rand(4, 16, 24, generator=rng) < 0.3).float()
    return [degrading.Masked(torch.ones(4, 16, 24)), degrading.Masked(mask), degrading.Shrunk(16, 24, 2), degrading.Shrunk(16, 24, 4)]


@identity("each measurement is U·S·Vᵀ: V turns back, and Uᵀy is s·Vᵀx wherever s is not 0")
@pytest.mark.parametrize("n", range(4))
def test_the_singular_basis(n):
    operator, x = operators()[n], torch.rand(4, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = operator.coordinates(x)
    torch.testing.assert_close(operator.back(z), x, atol=1e-5, rtol=1e-5)
    assert float(z.square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-5)
    torch.testing.assert_close(operator.ybar(operator.measured(x)), operator.s * z * (operator.s > 0), atol=1e-5, rtol=1e-5)


def test_the_bicubic_rows_keep_what_is_flat():
    for factor in (2, 4):
        rows = degrading.rows(24, factor)
        assert rows.shape == (24 // factor, 24) and torch.allclose(rows.sum(1), torch.ones(24 // factor, dtype=torch.float64))
        ramp = torch.arange(24, dtype=torch.float64)
        inner = (rows @ ramp)[2:-2]
        assert torch.allclose(inner, (torch.arange(24 // factor) * factor + (factor - 1) / 2).double()[2:-2])


class Three:
    """Singular values 0, ½ and 1 in an identity basis."""

    s = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3)

    def coordinates(self, x):
        return x

    back = coordinates


@identity("DDRM's three cases: measured with more noise than the state, with less, and not at all")
@pytest.mark.parametrize(("sigma", "eta", "eta_b"), [(0.05, 0.95, 1.0), (0.3, 0.95, 1.0), (3.0, 0.8, 0.7), (0.05, 1.0, 1.0)])
def test_ddrm(monkeypatch, sigma, eta, eta_b):
    monkeypatch.setattr(degrading, "_normal", lambda like, generator: torch.full_like(like, 0.7))
    x0, eps, ybar = (torch.tensor(v).view(1, 1, 3) for v in ([0.2, -0.3, 0.4], [1.0, -2.0, 0.5], [0.0, 0.1, 0.35]))
    sigma_y = 0.2
    found = degrading.stepped(Three(), ybar, x0, eps, sigma_y, sigma, eta, eta_b, None)[0, 0]
    for k, s in enumerate((0.0, 0.5, 1.0)):
        x, e, y = float(x0[0, 0, k]), float(eps[0, 0, k]), float(ybar[0, 0, k])
        if s == 0:
            wanted = x + (1 - eta**2) ** 0.5 * sigma * e + eta * sigma * 0.7
        elif s * sigma < sigma_y:
            wanted = x + (1 - eta**2) ** 0.5 * sigma * (y - s * x) / sigma_y + eta * sigma * 0.7
        else:
            wanted = (1 - eta_b) * x + eta_b * y / s + (sigma**2 - (eta_b * sigma_y / s) ** 2) ** 0.5 * 0.7
        assert float(found[k]) == pytest.approx(wanted, abs=1e-5)


@identity("the first state is the measurement under the noise that its timestep has more, divided by that")
def test_the_beginning(monkeypatch):
    monkeypatch.setattr(degrading, "_normal", lambda like, generator: torch.full_like(like, 0.7))
    found = degrading.begun(Three(), torch.tensor([0.0, 0.1, 0.35]).view(1, 1, 3), 0.2, 10.0, None)[0, 0]
    wanted = [0.7, (0.2 + (100 - 0.16) ** 0.5 * 0.7) / 10, (0.35 + (100 - 0.04) ** 0.5 * 0.7) / 10]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)


@identity("values in [-1, 1]: σ_y is twice the job's σ; β is linear from 1e-4 to 0.005 over 2000, 3000 and 1000 timesteps")
def test_the_scale_and_the_schedule():
    job = RestoreCube(cube=small(), sigma=0.1, seed=5)
    problem = Problem(job)
    assert problem.sigma == 0.2
    clean = cube_task.as_tensor(job.cube.values)
    assert clean.min() >= -1 and float((problem.y - clean).std()) == pytest.approx(0.2, rel=0.1)
    assert dds2m.T == {"denoise": 2000, "complete": 3000, "enlarge 2": 1000, "enlarge 4": 1000}
    bar = dds2m.bars(2000)
    assert float(bar[0]) == pytest.approx(1 - 1e-4) and float(bar[-1] / bar[-2]) == pytest.approx(1 - 0.005)
    same = Problem(job).y
    assert torch.equal(problem.y, same)


# --- the network and the walk ----------------------------------------------------------------------------------------


@identity("R networks as one of R groups are R networks: the cube is the sum of theirs")
def test_groups_are_networks():
    from backends.nets.factor_net import Factors

    torch.manual_seed(0)
    both = Factors(2, 5, 32, 32, widths=(4, 6, 8), kernels=(5, 3, 3), skips=(0, 2, 4))
    alone = [Factors(1, 5, 32, 32, widths=(4, 6, 8), kernels=(5, 3, 3), skips=(0, 2, 4)) for _ in range(2)]
    for i, net in enumerate(alone):
        net.load_state_dict({k: v if v.shape == net.state_dict()[k].shape else v.chunk(2)[i] for k, v in both.state_dict().items()})
    torch.testing.assert_close(both(), alone[0]() + alone[1](), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(alone[0](), alone[1](), atol=1e-2)


@identity("what the network draws has rank R")
def test_rank():
    from backends.nets.factor_net import PAPER, Factors

    torch.manual_seed(0)
    for size, config in (((24, 16), {}), ((33, 20), PAPER)):
        made = Factors(2, 6, *size, **config)()
        assert made.shape == (6, *size)
        values = torch.linalg.svdvals(made.detach().flatten(1))
        assert values[2] < 1e-4 * values[0] < values[1] * 10


class Constant(torch.nn.Module):
    """Draws one value, whatever it learns; `calls`: how often."""

    def __init__(self, value, shape):
        super().__init__()
        self.value, self.shape, self.calls, self.weight = value, shape, 0, torch.nn.Parameter(torch.zeros(()))

    def forward(self):
        self.calls += 1
        return torch.full(self.shape, self.value) + 0 * self.weight


@identity("the network is called in the second half of the steps alone, once each; its running mean of decay 0.98 is the answer")
def test_the_walk():
    problem = Problem(RestoreCube(cube=small(), sigma=0.1, seed=1))
    net, steps = Constant(0.75, (4, 16, 16)), 2000
    x0s = [x0 for x0, _ in itertools.islice(dds2m.walked(problem, net, steps, 1e-3, 0.0, torch.Generator().manual_seed(0)), 1011)]
    assert net.calls == 11
    first = x0s[steps // 2 - 1]
    begun, after = x0s[steps // 2], x0s[steps // 2 + 10]
    assert not torch.allclose(begun, first)  # the state that it began as was drawn anew
    torch.testing.assert_close(after - 0.5, 0.98**10 * (begun - 0.5), atol=1e-5, rtol=1e-4)
    assert begun.abs().max() <= 1
    *_, (last, _) = dds2m.walked(problem, net, 100, 1e-3, 0.0, torch.Generator().manual_seed(0))
    assert net.calls == 11 + 50 and (last - 0.5).abs().max() < 1e-5  # 2·0.75 − 1


@pytest.mark.parametrize("steps", [1000, 100, 50])
def test_the_image_priors_mean_reaches_over_the_same_share_of_any_number_of_steps(monkeypatch, steps):
    class Begins(Constant):
        def forward(self):
            return super().forward() - 0.5 * (self.calls == 1)

    monkeypatch.setattr(dds2m, "factors", lambda *_: Begins(0.75, (4, 16, 16)))
    job, model = RestoreCube(cube=small(), sigma=0.1, seed=1), SimpleNamespace(device="cpu", nfe=0)
    events = list(itertools.islice(dds2m.image_prior(job, model, steps=steps), steps // 10 + 1))
    left = (0.75 - events[-1].keep().values) / 0.5  # of the first draw
    assert np.allclose(left, 0.98**100, atol=1e-3) and model.nfe == steps // 10 + 1


@identity("the network stays itself from step to step, and is not begun anew")
def test_the_network_learns_on():
    problem = Problem(RestoreCube(cube=small(), sigma=0.1, seed=1))
    net = dds2m.factors(problem.job, 2, "small", "cpu")
    before = {k: v.clone() for k, v in net.named_parameters()}
    losses = [loss for _, loss in dds2m.walked(problem, net, 60, 5e-3, 0.0, torch.Generator().manual_seed(0))]
    assert all(loss != loss for loss in losses[:30]) and sum(losses[-5:]) < sum(losses[30:35])
    assert any(not torch.equal(v, before[k]) for k, v in net.named_parameters())


@pytest.mark.parametrize("slug", ["dds2m", "image_prior", "truncated_svd", "low_rank_tensor"])
@pytest.mark.parametrize("what", ["denoise", "complete", "enlarge 2"])
def test_every_arm_does_every_task_or_says_that_it_does_not(slug, what):
    quick = {"dds2m": {"steps": 4}, "image_prior": {"steps": 4}, "truncated_svd": {"rank": 2, "iterations": 4}, "low_rank_tensor": {"rounds": 3}}
    events = list(run(*asked(small(), [slug], quick, what=what, sigma=0.05)))
    end = events[-1].event
    assert isinstance(end, Outcome)
    if slug == "low_rank_tensor" and what == "enlarge 2":
        assert "denoises and completes" in end.error
        return
    assert not end.error and not [e for e in events if isinstance(e.event, Note)]
    steps = [e.event for e in events if isinstance(e.event, Step)]
    assert all(isinstance(s.show, Image) and s.show.before is not None for s in steps if s.show) and any(isinstance(a, Plot) for s in steps for a in s.aside)
    assert end.value.values.shape == (16, 16, 4) and end.value.picture.before.shape == (16, 16, 3)
    assert {m.name for m in end.metrics} == {"PSNR, dB", "SSIM", "spectral angle"}
    assert end.nfe == {"dds2m": 2, "image_prior": 4}.get(slug, 0)


def test_a_cube_that_is_harmed_already():
    missing = dataclasses.replace(small(), values=small().values * (np.random.default_rng(0).random((16, 16, 4)) < 0.4))
    found = list(run(*asked(missing, knobs={"truncated_svd": {"rank": 3}}, what="complete", sigma=0.0, harm=False)))[-1].event
    assert figures.psnr(found.value.values, small().values) > figures.psnr(missing.values, small().values) + 10
    assert [m.name for m in found.metrics] == ["jumps from band to band"]
    found = list(run(*asked(small(), what="enlarge 2", sigma=0.0, harm=False)))[-1].event
    assert found.value.values.shape == (32, 32, 4)


def test_truncated_svd_of_the_true_rank_gains_what_theory_says():
    """Of σ² a share of about R·(m + n − R)/(m·n) stays."""
    cube = world.generated(0)
    problem = Problem(RestoreCube(cube=cube, sigma=0.05, seed=0))
    from backends.restore.cube_baselines import low_rank

    made = low_rank(problem.y, 3)
    share = float((made - cube_task.as_tensor(cube.values)).square().mean()) / problem.sigma**2
    assert share == pytest.approx(3 * (4096 + 16 - 3) / (4096 * 16), rel=0.1)


def test_figures():
    clean = small().values
    assert (
        figures.psnr(clean, clean) == 100 and figures.ssim(clean, clean) == pytest.approx(1) and figures.angle(clean, 0.5 * clean) == pytest.approx(0, abs=0.1)
    )
    assert figures.psnr(clean, clean + 0.1) == pytest.approx(20)
    turned = clean[..., ::-1]
    assert figures.angle(clean, turned) > 1 and figures.jumps(np.ones((16, 16, 8))) == 0


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_shows_a_cube_and_takes_one(tmp_path):
    from backends import TASKS
    from ui import cube as page
    from ui import form, views

    shown = views.media(dataclasses.replace(small(24, 6), low=1.0, high=2.5))
    assert 'data-bands="6"' in shown and "24×24 pixels, 6 bands, 1 to 2.5" in shown and "nm" in shown
    big = Cube(np.random.default_rng(0).random((300, 200, 200)).astype(np.float32))
    assert 'data-bands="96"' in page.html(big) and 'data-width="67"' in page.html(big)
    path = tmp_path / "cube.npy"
    path.write_bytes(npy(VALUES))
    found, view = page.taken(path, "Cube")
    assert isinstance(found, Cube) and "18×20 pixels" in view
    given, pictures = form.job(TASKS["restore_cube"], ["cube", "what"], [found, "complete"])
    assert given == {"cube": {"sha256": recipe.digest(found)}, "what": "complete"} and list(pictures.values()) == [found]
    json.dumps(given)
    for example in TASKS["restore_cube"].examples:
        assert isinstance(form._given(example["job"]["cube"], {}, inputs.cube), Cube)
