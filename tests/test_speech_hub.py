"""StoRM's and SGMSE+'s published checkpoints, stood for by small random ones in their layout, run through the whole recipe.

Once, and outside these tests, NCSNpp was held against the official code on random weights: names, shapes and order of all tensors are the same
(the digests below), outputs agreed within 3e-5 of the largest for sp-uhh/storm's two networks and its smallest one, and for sp-uhh/sgmse's.
"""

import dataclasses
import hashlib
import math
import pickle
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backends import models, recipe, run
from backends.audio import ouve, speech_hub
from backends.audio.speech_models import Chunks
from backends.cards import HUB, hosted
from backends.nets import ncsnpp
from backends.nets.ncsnpp import NCSNpp, double, halve
from backends.spec import Audio, BadInput, Outcome

SMALL, LARGE = ncsnpp.SMALL, ncsnpp.LARGE
SHRUNK = dict(width=16, multiples=(1, 2, 2), blocks=1, attention=(128,))
TONE = Audio((0.3 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)).astype(np.float32), 16_000)
GIVEN = {  # as Lightning keeps them
    "storm": {"backbone_denoiser": "ncsnpp", "backbone_score": "ncsnpp", "condition": "both", "mode": "regen-joint-training", "spatial_channels": 1,
              "loss_type_denoiser": "mse", "loss_type_score": "mse"},
    "sgmse": {"backbone": "ncsnpp", "centered": True, "loss_type": "mse"},
}  # fmt: skip
COMMON = {"sde": "ouve", "theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5, "t_eps": 0.03, "n_fft": 510, "hop_length": 128, "window": "hann",
          "spec_factor": 0.2, "spec_abs_exponent": 0.5, "gpus": 1}  # fmt: skip


@pytest.fixture(autouse=True)
def shrunk(monkeypatch):
    monkeypatch.setattr(ncsnpp, "SMALL", SHRUNK)
    monkeypatch.setattr(ncsnpp, "LARGE", SHRUNK)


def checkpoint(folder, kind: str, hyper_parameters: dict | None = None, **changes):
    """Write one as Lightning does, the class of the data among its hyper-parameters; gives its averages."""
    torch.manual_seed(0)
    channels = {"storm": {"denoiser_net.": 2, "score_net.": 6}, "sgmse": {"dnn.": 4}}[kind]
    nets = {prefix: NCSNpp(c, prefix != "denoiser_net.", kind == "sgmse", **SHRUNK) for prefix, c in channels.items()}
    tensors = {prefix + name: t for prefix, net in nets.items() for name, t in net.state_dict().items()}
    average = [p.detach() + 0.5 if p.ndim == 1 else p.detach() for net in nets.values() for p in net.parameters()]
    module = types.ModuleType("sgmse.data_module")
    module.SpecsDataModule = type("SpecsDataModule", (), {"__module__": "sgmse.data_module"})
    sys.modules |= {"sgmse": types.ModuleType("sgmse"), "sgmse.data_module": module}
    given = GIVEN[kind] | COMMON | {"data_module_cls": module.SpecsDataModule} | (hyper_parameters or {})
    whole = {"epoch": 3, "pytorch-lightning_version": "1.8.3", "callbacks": {"ModelCheckpoint{'monitor': 'pesq'}": {"best_model_score": torch.tensor(2.9)}},
             "state_dict": tensors, "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": average, "collected_params": None},
             "hparams_name": "kwargs", "hyper_parameters": given} | changes  # fmt: skip
    try:
        torch.save(whole, folder / "model.ckpt")
    finally:
        del sys.modules["sgmse"], sys.modules["sgmse.data_module"]
    return average


def card(kind: str, folder):
    return dataclasses.replace(next(c for c in HUB if c.name == f"{kind}-ncsnpp"), source=str(folder))


@pytest.mark.parametrize("kind", ["storm", "sgmse"])
def test_a_checkpoint_is_read_with_its_averages_and_its_transform(kind, tmp_path):
    average = checkpoint(tmp_path, kind)
    model = speech_hub.load(card(kind, tmp_path))
    assert set(model.net) == {"storm": {"predictive", "storm"}, "sgmse": {"sgmse"}}[kind] and model.factor == 0.2 and model.multiple == 64
    assert all(net.centred == (kind == "sgmse") for net in model.net.values())
    mine = [p for part in speech_hub.NETS[kind].values() for p in model.net[part].parameters()]
    assert all(torch.equal(a, b) for a, b in zip(mine, average, strict=True))
    chunks = Chunks(TONE, model)
    assert chunks.y.shape[3] % 64 == 0 and np.abs(chunks.join(chunks.y).samples - TONE.samples).max() < 1e-3


@pytest.mark.parametrize("kind", ["storm", "sgmse"])
def test_recipes_run(kind, tmp_path):
    checkpoint(tmp_path, kind)
    found, digest = card(kind, tmp_path), recipe.digest(TONE)
    models.clear()
    before, models.CARDS[found.name] = models.CARDS.get(found.name), found
    other = "sgmse" if kind == "storm" else "storm"
    arms = [{"method": m, "knobs": k} for m, k in {"storm": [("predictive", {}), ("storm", {"steps": 2})], "sgmse": [("sgmse", {"steps": 2})]}[kind]]
    given = {"task": "enhance_speech", "model": found.name, "job": {"sound": {"sha256": digest}}, "arms": [*arms, {"method": other}]}
    try:
        *ends, lacking = [e.event for e in run(given, {digest: TONE}) if isinstance(e.event, Outcome)]
    finally:
        models.clear()
        models.CARDS.pop(found.name) if before is None else models.CARDS.update({found.name: before})
    assert [e.error for e in ends] == [""] * len(arms) and [e.nfe for e in ends] == {"storm": [1, 3], "sgmse": [4]}[kind]
    assert f"which {found.title} lacks" in lacking.error


# --- the network ---


@pytest.mark.parametrize(("channels", "timed", "config", "said"), [
    (6, True, SMALL, "271 3ae9e466e4c1baf1 27.8"), (2, False, SMALL, "267 6faa88c13c56ded1 27.3"), (4, True, LARGE, "647 dc6b6c97a6caa59e 65.6"),
])  # fmt: skip
def test_tensors_are_named_shaped_and_ordered_as_the_official_ones(channels, timed, config, said):
    """The digest is of "name (shape)" lines of the official modules; the score networks' 27.8 M and 65.6 M are the papers' figures."""
    with torch.device("meta"):
        net = NCSNpp(channels, timed, False, **config)
    lines = "\n".join(f"{k} {tuple(v.shape)}" for k, v in net.state_dict().items())
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    assert f"{len(net.state_dict())} {hashlib.sha256(lines.encode()).hexdigest()[:16]} {millions:.1f}" == said


def fir(n: int, up: bool) -> torch.Tensor:
    """[1, 3, 3, 1] along a line of n, by its definition: zeros between and beyond, filtered, every second kept."""
    tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    matrix = torch.zeros(2 * n, n) if up else torch.zeros(n // 2, n)
    for i in range(matrix.shape[0]):
        for j in range(n):
            k = i - 2 * j + 1 if up else j - 2 * i + 1
            matrix[i, j] = (2 if up else 1) * tap[k] if 0 <= k < 4 else 0
    return matrix


def resampled(x, up: bool):
    return fir(x.shape[2], up) @ x @ fir(x.shape[3], up).mT


def test_resampling_is_the_fir_filter_and_keeps_what_is_constant():
    x = torch.randn(2, 3, 8, 12)
    assert torch.allclose(halve(x), resampled(x, up=False), atol=1e-6) and torch.allclose(double(x), resampled(x, up=True), atol=1e-6)
    assert torch.allclose(halve(torch.ones(1, 2, 8, 8))[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    assert torch.allclose(double(torch.ones(1, 2, 8, 8))[..., 2:-2, 2:-2], torch.ones(1, 2, 12, 12))


def reference(w: dict, x, t):
    """NCSN++ of two levels, one block a level, written out by the numbers of its layers."""
    get = lambda i, name: (w[f"all_modules.{i}.{name}weight"], w[f"all_modules.{i}.{name}bias"])  # noqa: E731
    normed = lambda h, i, name="": F.group_norm(h, h.shape[1] // 4, *get(i, name), 1e-6)  # noqa: E731
    angle = 2 * math.pi * t.log()[:, None] * w["all_modules.0.W"]
    time = F.linear(torch.cat([angle.sin(), angle.cos()], 1), *get(1, ""))
    time = F.silu(F.linear(F.silu(time), *get(2, "")))  # every block begins by silu(embedding)

    def block(i, x, way=None):
        h = F.silu(normed(x, i, "GroupNorm_0."))
        if way:
            h, x = (resampled(v, way == "up") for v in (h, x))
        h = F.conv2d(h, *get(i, "Conv_0."), padding=1) + F.linear(time, *get(i, "Dense_0."))[:, :, None, None]
        h = F.conv2d(F.silu(normed(h, i, "GroupNorm_1.")), *get(i, "Conv_1."), padding=1)
        return (h + (F.conv2d(x, *get(i, "Conv_2.")) if f"all_modules.{i}.Conv_2.weight" in w else x)) / 2**0.5

    def attention(i, x):
        nin = lambda n, h: torch.einsum("bchw,cd->bdhw", h, w[f"all_modules.{i}.NIN_{n}.W"]) + w[f"all_modules.{i}.NIN_{n}.b"][:, None, None]  # noqa: E731
        q, k, v = (nin(n, normed(x, i, "GroupNorm_0.")) for n in range(3))
        weight = torch.einsum("bchw,bcij->bhwij", q, k).flatten(3).div(x.shape[1] ** 0.5).softmax(-1).unflatten(3, x.shape[2:])
        return (x + nin(3, torch.einsum("bhwij,bcij->bchw", weight, v))) / 2**0.5

    shown = 2 * x - 1
    a = F.conv2d(shown, *get(3, ""), padding=1)
    b = block(4, a)
    c = block(5, b, "down") + F.conv2d(resampled(shown, up=False), *get(6, "Conv_0."))  # input_skip
    d = block(7, c)
    h = block(10, attention(9, block(8, d)))
    h = block(12, torch.cat([block(11, torch.cat([h, d], 1)), c], 1))
    low = F.conv2d(F.silu(normed(h, 13)), *get(14, ""), padding=1)
    h = block(15, h, "up")
    h = block(17, torch.cat([block(16, torch.cat([h, b], 1)), a], 1))
    out = resampled(low, up=True) + F.conv2d(F.silu(normed(h, 18)), *get(19, ""), padding=1)  # output_skip
    return F.conv2d(out / t.view(-1, 1, 1, 1), w["output_layer.weight"], w["output_layer.bias"])


def test_the_networks_forward_is_the_one_written_out_here():
    torch.manual_seed(0)
    net = NCSNpp(6, True, False, width=16, multiples=(1, 2), height=16).eval()
    for p in net.parameters():
        p.data += 0.05 * torch.randn_like(p)
    x, t = 0.3 * torch.randn(2, 6, 16, 8), torch.tensor([0.03, 0.8])
    with torch.no_grad():
        mine, theirs = net(x, t), reference(net.state_dict(), x, t)
    assert mine.shape == (2, 2, 16, 8) and (mine - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert torch.equal(net.score(x[:, :2], t, x[:, 2:4], x[:, 4:]), -mine)


def test_noise_is_complex_as_the_official_codes():
    """σ is a complex number's deviation: each of its two parts deviates by σ/√2."""
    start = next(ouve.reverse(lambda x, t: -x / ouve.std(t).view(-1, 1, 1, 1) ** 2, torch.zeros(1, 2, 256, 256), 1, torch.Generator().manual_seed(0)))
    length, g2, s2 = 1.0, float(ouve.diffusion(torch.tensor(1.0))) ** 2, float(ouve.std(torch.tensor(1.0))) ** 2
    assert float(start.std()) == pytest.approx(abs(1 + ouve.THETA * length - g2 * length / s2) * (s2 / 2) ** 0.5, rel=0.01)


# --- what is refused ---


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(("kind", "given", "said"), [
    ("sgmse", {"spec_abs_exponent": 1.0}, "spec_abs_exponent = 1.0"),
    ("sgmse", {"sigma_max": 1.0, "theta": 2.0}, "theta = 2.0, sigma_max = 1.0"),
    ("sgmse", {"backbone": "ncsnpp_v2"}, "the network ncsnpp_v2"),  # the same tensors, and no division by t
    ("sgmse", {"sde": "sbve", "loss_type": "data_prediction"}, "sde = sbve"),
    ("storm", {"condition": "noisy"}, "condition = noisy"),
    ("storm", {"backbone_denoiser": "gagnet"}, "the network gagnet"),
])  # fmt: skip
def test_what_was_trained_otherwise_is_refused_by_what_it_says_of_itself(kind, given, said, tmp_path):
    checkpoint(tmp_path, kind, given)
    with pytest.raises(BadInput, match=said):
        speech_hub.load(card(kind, tmp_path))


def test_what_is_no_such_checkpoint_is_refused_with_a_sentence(tmp_path, capsys):
    with pytest.raises(BadInput, match="a folder with one .ckpt file"):
        speech_hub.load(card("storm", tmp_path))
    checkpoint(tmp_path, "sgmse")
    with pytest.raises(BadInput, match="no denoiser_net"):
        speech_hub.load(card("storm", tmp_path))
    average = checkpoint(tmp_path, "sgmse")
    for ema in ({"shadow_params": average[:-1]}, {"shadow_params": average[::-1]}):
        checkpoint(tmp_path, "sgmse", ema=ema)
        with pytest.raises(BadInput, match="can't be read|not those of its network"):
            speech_hub.load(card("sgmse", tmp_path))
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": Evil()}, file)
    with pytest.raises(BadInput, match="can't be read"):
        speech_hub.load(card("sgmse", tmp_path))
    for data in (pickle.dumps({"state_dict": Evil()}), b"\x80"):
        file.write_bytes(data)
        with pytest.raises(BadInput, match="can't be read"):
            speech_hub.load(card("sgmse", tmp_path))
    assert "run" not in capsys.readouterr().out  # no code of the pickles was run


def test_sgmse_is_pinned_on_the_hub_and_storm_is_offered_where_the_host_has_it(monkeypatch, tmp_path):
    offered = {c.name for c in hosted(None)}
    assert "sgmse-ncsnpp" in offered and "storm-ncsnpp" not in offered
    asked = []
    monkeypatch.setattr(speech_hub, "fetch", lambda card: asked.append((card.source, card.revision[:7])) or tmp_path)
    (tmp_path / "train_vb_29nqe0uh_epoch=115.ckpt").write_bytes(b"")
    assert speech_hub.file_of(next(c for c in HUB if c.name == "sgmse-ncsnpp")).is_file() and asked == [("sp-uhh/speech-enhancement-sgmse", "b648521")]
