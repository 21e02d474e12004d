"""StoRM's and SGMSE+'s published checkpoints, stood for by small random ones in their layout."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from backends import models
from backends.audio import speech_hub
from backends.audio.speech_models import Chunks
from backends.audio.storm import regenerate
from backends.cards import HUB
from backends.nets.ncsnpp import LARGE, SMALL, Block, NCSNpp, double, halve
from backends.spec import Audio, BadInput, Result

SHRUNK = dict(width=16, multiples=(1, 2, 2), blocks=1, attention=(128,))


def checkpoint(folder, kind: str, **changes):
    torch.manual_seed(0)
    channels = {"storm": {"denoiser_net.": 2, "score_net.": 6}, "sgmse": {"dnn.": 4}}[kind]
    nets = {prefix: NCSNpp(c, prefix != "denoiser_net.", kind == "sgmse", **SHRUNK) for prefix, c in channels.items()}
    tensors = {prefix + name: t for prefix, net in nets.items() for name, t in net.state_dict().items()}
    average = [p.detach() + 0.5 if p.ndim == 1 else p.detach() for net in nets.values() for p in net.parameters()]
    whole = {"state_dict": tensors, "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": average, "collected_params": None},
             "hyper_parameters": {"shrunk": SHRUNK, "sde": "ouve", "spec_factor": 0.2, "spec_abs_exponent": 0.5}} | changes  # fmt: skip
    torch.save(whole, folder / "model.ckpt")
    return nets, average


def card(kind: str, folder):
    return dataclasses.replace(next(c for c in HUB if c.name == f"{kind}-ncsnpp"), source=str(folder))


@pytest.mark.parametrize("kind", ["storm", "sgmse"])
def test_a_checkpoint_is_read_with_its_averages_and_its_transform(kind, tmp_path):
    nets, average = checkpoint(tmp_path, kind)
    model = speech_hub.load(card(kind, tmp_path))
    assert set(model.net) == {"storm": {"predictive", "storm"}, "sgmse": {"sgmse"}}[kind] and model.factor == 0.2 and model.multiple == 64
    mine = [p for part in speech_hub.NETS[kind].values() for p in model.net[part].parameters()]
    assert all(torch.equal(a, b) for a, b in zip(mine, average, strict=True))
    t = np.arange(16_000) / 16_000
    chunks = Chunks(Audio((0.3 * np.sin(2 * np.pi * 300 * t)).astype(np.float32), 16_000), model)
    assert chunks.y.shape[3] % 64 == 0 and np.abs(chunks.join(chunks.y).samples - 0.3 * np.sin(2 * np.pi * 300 * t)).max() < 1e-3
    centre = model.denoise(chunks.y) if kind == "storm" else chunks.y
    before = model.nfe
    job = type("Job", (), {"seed": 0})()
    last = list(regenerate(job, model, chunks, kind, centre, (chunks.y, centre) if kind == "storm" else (chunks.y,), 2, False, 0.5))[-1]
    assert isinstance(last, Result) and len(last.value.samples) == 16_000 and model.nfe - before == 2


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    def millions(**kw):
        with torch.device("meta"):
            return sum(p.numel() for p in NCSNpp(**kw).parameters()) / 1e6

    assert millions(channels=4, timed=True, centred=True, **LARGE) == pytest.approx(65.6, abs=0.1)  # Richter et al., section IV
    assert millions(channels=6, timed=True, centred=False, **SMALL) == pytest.approx(27.8, abs=0.1)  # Lemercier et al., table I


def test_resampling_is_the_fir_filter_1331():
    line = torch.zeros(1, 1, 8, 8)
    line[..., 4, 4] = 1
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    near = torch.stack([weights[3], weights[1]])  # the point is the last that one output sees and the second that the next one sees
    assert torch.allclose(halve(line)[0, 0, 1:3, 1:3], torch.outer(near, near)) and halve(line).sum() == pytest.approx(0.25)
    assert torch.allclose(halve(torch.ones(1, 2, 8, 8))[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    assert torch.allclose(double(torch.ones(1, 2, 8, 8))[..., 2:-2, 2:-2], torch.ones(1, 2, 12, 12))
    assert torch.allclose(double(line)[0, 0, 7:11, 9], 2 * weights * 2 * weights[2], atol=1e-6)


def test_a_block_whose_second_convolution_is_nothing_passes_its_input_by_root_two():
    block = Block(16, 16, 64)
    torch.nn.init.zeros_(block.Conv_1.weight), torch.nn.init.zeros_(block.Conv_1.bias)
    x = torch.randn(2, 16, 8, 8)
    assert torch.allclose(block(x, torch.randn(2, 64)), x / 2**0.5)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_such_checkpoint_is_refused_with_a_sentence(tmp_path, capsys):
    with pytest.raises(BadInput, match="names a folder"):
        speech_hub.load(card("storm", tmp_path))
    checkpoint(tmp_path, "sgmse")
    with pytest.raises(BadInput, match="no denoiser_net"):
        speech_hub.load(card("storm", tmp_path))
    checkpoint(tmp_path, "sgmse", hyper_parameters={"shrunk": SHRUNK, "spec_abs_exponent": 1.0})
    with pytest.raises(BadInput, match="spec_abs_exponent = 1.0"):
        speech_hub.load(card("sgmse", tmp_path))
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(BadInput, match="can't be read"):
        speech_hub.load(card("sgmse", tmp_path))
    assert "run" not in capsys.readouterr().out  # no code of the pickle was run
    (tmp_path / "model.ckpt").write_bytes(b"\x80")
    with pytest.raises(BadInput, match="can't be read"):
        speech_hub.load(card("sgmse", tmp_path))


def test_without_a_folder_the_cards_are_not_offered():
    assert not {"storm-ncsnpp", "sgmse-ncsnpp"} & set(models.CARDS)
