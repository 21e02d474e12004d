"""The embedded models' loader, on tiny networks of the real classes."""

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler, PixArtTransformer2DModel

from backends import embedded, models, run
from backends.hub import NO_SIZE
from backends.nets.patch_vae import PatchAutoencoderKL
from backends.spec import Outcome
from backends.train.emoji_ldm import DIT, SCHEDULE
from backends.train.emoji_vae import CONFIG


@pytest.fixture
def sister(tmp_path, monkeypatch):
    """The transformer sister's loader on a folder of tiny random weights; its card stands for the default's in recipes."""
    torch.manual_seed(0)
    net = PixArtTransformer2DModel(**DIT | dict(num_layers=1, num_attention_heads=1, attention_head_dim=32, cross_attention_dim=32))
    net.save_pretrained(tmp_path / "sister/transformer")
    DDIMScheduler(**SCHEDULE).save_pretrained(tmp_path / "sister/transformer")
    PatchAutoencoderKL(**CONFIG | dict(block_out_channels=(32, 32), layers_per_block=1)).save_pretrained(tmp_path / "emoji-ldm/vae")
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    capabilities = frozenset({"image", "dit", "cfg", "vae", "gradients", "ddim", "cross_attention", "emoji"})
    card = dataclasses.replace(models.get("emoji-ldm"), source="sister", capabilities=capabilities, previews="backends.denoiser:linear_previewer")
    models.clear()
    monkeypatch.setitem(models.CARDS, "emoji-ldm", card)
    model = embedded.load_ldm(card)
    models._cache["emoji-ldm"] = model
    yield model
    models.clear()


def drawn(method, **knobs):
    *_, last = run({"task": "text_to_image", "job": {"prompt": "a cat"}, "arms": [{"method": method, "knobs": {"steps": 2} | knobs}]})
    assert isinstance(last.event, Outcome)
    return last.event


def test_the_transformer_sister_answers_as_its_class_does(sister):
    x, (cond,) = sister.noise(3), sister.encode("a cat")
    with torch.no_grad():
        own = sister.net(x, timestep=torch.tensor([500]), encoder_hidden_states=cond.embeds, added_cond_kwargs=NO_SIZE).sample
    assert torch.allclose(sister.x0s(x, 500, cond)[0], sister.to_x0(own, x, 500))


@pytest.mark.parametrize("method", ["ddim", "dpm", "adaptive_guidance", "w2sd"])
def test_methods_without_a_unet_run_on_it(sister, method):
    outcome = drawn(method)
    assert not outcome.error and outcome.value.pixels.shape == (128, 128, 3) and outcome.nfe


def test_methods_of_a_unet_say_what_it_lacks(sister):
    assert "unet" in drawn("faster_diffusion").error
