"""Fixtures: a small random model with the real classes, so that tests need no weights and take milliseconds."""

import atexit
import dataclasses
import functools
import importlib
import os
import shutil
import tempfile

import pytest
import torch

from backends import models

# Runs of tests are kept apart from the user's own, and each process's from the others'; some tests import this file again.
MINE = f"unnoise-tests-{os.getpid()}-"
if MINE not in os.environ.get("UNNOISE_DATA", ""):
    os.environ["UNNOISE_DATA"] = tempfile.mkdtemp(prefix=MINE)
    atexit.register(shutil.rmtree, os.environ["UNNOISE_DATA"], ignore_errors=True)

# As many processes as cores run the tests (Makefile), and networks this small only wait for each other's threads.
torch.set_num_threads(1)


def tiny_denoiser(card, prediction="v_prediction"):
    """A Denoiser of a few thousand parameters: 16×16×8 latents, cross-attention at 8×8 and in the middle."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    from backends.denoiser import Denoiser
    from backends.embedded import encode_text
    from backends.nets.patch_vae import PatchAutoencoderKL
    from backends.train.emoji_ldm import SCHEDULE, UNET
    from backends.train.emoji_vae import CONFIG

    torch.manual_seed(0)
    net = UNet2DConditionModel(**UNET | dict(block_out_channels=(32, 32, 64), attention_head_dim=(1, 1, 1), layers_per_block=1))
    vae = PatchAutoencoderKL(**CONFIG | dict(block_out_channels=(32, 32), layers_per_block=1))
    for part in (net, vae):
        part.eval().requires_grad_(False)
    return Denoiser(card, net, vae, DDIMScheduler(**SCHEDULE | {"prediction_type": prediction}), encode_text)


@functools.cache
def made(module: str):
    """A tiny model that takes a while to make, once a process: methods leave networks as they found them (test_contract.py)."""
    return importlib.import_module(f"tests.{module}").tiny()


@pytest.fixture(scope="module")
def address(request):
    """Where a studio with a tiny random model is served; a module's SECONDS is how long each evaluation of its network takes at least."""
    from serving import studio

    with studio(getattr(request.module, "SECONDS", 0.0)) as url:
        yield url


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """(source, queue) of the studio: steps are made when the test lets go of them."""
    from test_jobs import Source

    from backends import jobs
    from backends.store import Store

    source = Source()
    queue = jobs.Executor(Store(tmp_path), source)
    monkeypatch.setattr(jobs, "_studio", [queue])
    yield source, queue
    source.open = True
    source.let(200)
    queue.close()


@pytest.fixture
def tiny(monkeypatch):
    """The tiny picture model; it and a tiny text model stand under the default cards' names, so that whole recipes run on them."""
    from tests.tiny_text import tiny as tiny_text

    card = dataclasses.replace(models.get("emoji-ldm"), previews="backends.denoiser:linear_previewer")
    model = tiny_denoiser(card)
    models.clear()
    models._cache["emoji-ldm"] = model
    if "objects-ldm" in models.CARDS:
        models._cache["objects-ldm"] = tiny_denoiser(dataclasses.replace(models.get("objects-ldm"), previews=card.previews))
    for name in {"text-mdm", "text-notes"} & models.CARDS.keys():
        models._cache[name] = tiny_text(card=models.get(name), context=512)
    monkeypatch.setattr("backends.image.any_size.decoder", made("tiny_liif"))
    twin = tiny_text().net
    monkeypatch.setattr("backends.embedded.load_twin", lambda: (twin, tiny_text().tokenizer))
    monkeypatch.setattr("backends.text.smollm.load", made("tiny_smollm"))
    if "speech" in models.CARDS:
        from backends.metrics import speech as figures

        models._cache["speech"] = made("tiny_speech")
        monkeypatch.setitem(figures.PACKAGES, "DNSMOS", "left out of tests")  # it takes seconds an arm
    if "singer" in models.CARDS:
        models._cache["singer"] = made("tiny_singer")
    if "sounds-dit" in models.CARDS:
        models._cache["sounds-dit"] = made("tiny_sounds")
    if "untrained" in models.CARDS:
        models._cache["untrained"] = models.resolve(models.get("untrained").loader)(models.get("untrained"))
    if "restorers" in models.CARDS:
        models._cache["restorers"] = made("tiny_restorers")
    if "faces" in models.CARDS:
        models._cache["faces"] = made("tiny_faces")
    if "photos-sr" in models.CARDS:
        models._cache["photos-sr"] = made("tiny_upscaler")
    yield model
    models.clear()
