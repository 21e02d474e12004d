"""The arithmetic of the face world's training scripts, on networks that know the answer."""

import types

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

from backends.nets import face_prompt
from backends.nets.face_unet import FaceUNet
from backends.train import faces_lcm, faces_prior, loop
from backends.worlds import faces


class Knows(torch.nn.Module):
    """The exact ε of data that is one picture, `x0`."""

    def __init__(self, x0, schedule):
        super().__init__()
        self.x0, self.bar = x0, DDIMScheduler(**schedule).alphas_cumprod

    def forward(self, x, t, encoder_hidden_states=None, timestep_cond=None):
        a = self.bar[t].view(-1, 1, 1, 1)
        return types.SimpleNamespace(sample=(x - a.sqrt() * self.x0) / (1 - a).sqrt())


@pytest.mark.parametrize("space, start", [("pixels", 1000), ("pixels", 400), ("latents", 1000)])
def test_the_walk_ends_at_the_data(space, start):
    x0, schedule = torch.rand(2, 3, 8, 8) * 1.6 - 0.8, faces_prior.SCHEDULES[space]
    context = torch.ones(2, 16, 128) if space == "latents" else None
    out = faces_prior.walked(Knows(x0, schedule), schedule, torch.randn(2, 3, 8, 8), 50, context, start=start)
    assert (out - x0).abs().max() < 0.02


def test_the_students_estimate_is_the_schedulers():
    z, net = torch.randn(3, 4, 8, 8), Knows(torch.randn(3, 4, 8, 8), faces_prior.SCHEDULES["latents"])
    scheduler = LCMScheduler(**faces_lcm.SCHEDULE)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 759, 499, 259]
    t = scheduler.timesteps[1]
    theirs = scheduler.step(net(z, t.expand(3)).sample, t, z, return_dict=False)[1]
    mine = faces_lcm.consistent(net, scheduler.alphas_cumprod, z, t.expand(3), torch.zeros(3, 16, 128), torch.ones(3))
    torch.testing.assert_close(mine, theirs)
    at_zero = faces_lcm.consistent(net, scheduler.alphas_cumprod, z, torch.zeros(3, dtype=torch.long), torch.zeros(3, 16, 128), torch.ones(3))
    assert torch.equal(at_zero, z)
    assert (faces_lcm.drawn(net, z, torch.zeros(3, 16, 128), 4) - net.x0).abs().max() < 0.02


def test_a_prompt_tells_faces_and_places_apart():
    x = faces.as_tensor(faces.kept()[:3]) * 2 - 1
    context = face_prompt.prompt(x)
    assert context.shape == (3, 16, face_prompt.WIDTH) and not torch.allclose(context[0], context[1])
    assert torch.equal(context[..., face_prompt.FEATURES :], torch.eye(16).expand(3, -1, -1))


def test_the_network_on_pixels_saves_and_restores(tmp_path):
    net = FaceUNet(block_out_channels=(32, 64), layers_per_block=1, attention=1).eval()
    y = torch.rand(2, 3, 16, 16) * 2 - 1
    net.save_pretrained(tmp_path)
    again = FaceUNet.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        out = net(y, torch.tensor([3, 700])).sample
        assert out.shape == y.shape and torch.equal(out, again(y, torch.tensor([3, 700])).sample)
        assert not torch.allclose(out[0], net(y, 700).sample[0]) and net.restore(y).abs().max() <= 1


@pytest.mark.parametrize("minutes, most, steps", [(10, 100, 25), (10, 90, 23), (0, 100, 0)])
def test_a_sitting_ends_at_its_samples_or_minutes(tmp_path, monkeypatch, minutes, most, steps):
    monkeypatch.setattr(loop, "RUNS", tmp_path)
    rates, rate = [], loop.MuonAdamW.rate
    monkeypatch.setattr(loop.MuonAdamW, "rate", lambda self, lr: rates.append(lr) or rate(self, lr))
    args, log = types.SimpleNamespace(device="cpu", lr=1e-2, ema=0.9, batch=4, minutes=minutes, out=tmp_path), {"samples": 40, "minutes": 0}
    sheet = types.SimpleNamespace(save=lambda path: None)
    loop.train(
        args,
        "tiny",
        torch.nn.Conv2d(1, 1, 1),
        log,
        lambda net, _: net(torch.ones(1, 1, 2, 2)).square().mean(),
        lambda _: {},
        lambda _: sheet,
        lambda *_: None,
        most,
    )
    assert log["samples"] == 40 + 4 * steps and len(rates) == steps
    assert not rates or rates[-1] < 0.2 * max(rates), "the rate falls towards the end"
