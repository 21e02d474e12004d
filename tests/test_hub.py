"""Real checkpoints' loaders, on small random checkpoints with the real classes, configs and key names."""

import contextlib
import dataclasses
import http.server
import threading
import time

import numpy as np
import pytest
import torch

import backends
from backends import cards, download, hub, models
from backends.spec import BadInput, Outcome, Result
from tests import checkpoints, fake_hub

HUB = {c.name: c for c in cards.HUB}
PROMPT, NEGATIVE = "a cat in a red hat", "dog"


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    for name in checkpoints.MAKERS:
        checkpoints.write(name, root / name)
    return root


@contextlib.contextmanager
def small(name, folders):
    """A hub card whose source is the small checkpoint's folder; 32 px, its autoencoder, where it has one, halves once; float32."""
    published, before = HUB[name], models.CARDS.get(name)  # which has those alone whose revision is pinned
    factor = 1 if "pixels" in published.capabilities else 2
    found = dataclasses.replace(published, source=str(folders / name), side=32, factor=factor, options=published.options | {"dtype": "float32"})
    models.clear()
    models.CARDS[name] = found
    yield found
    models.CARDS.pop(name)
    models.CARDS |= {name: before} if before else {}
    models.clear()


@pytest.fixture(scope="module", params=checkpoints.MAKERS)
def card(request, folders):
    with small(request.param, folders) as found:
        yield found


def test_recipes_run_where_the_card_can(card):
    methods = ["ddim", "ddim", "euler", "dpm", "adaptive_guidance"]
    arms = [{"method": m, "knobs": {"steps": 3}} for m in methods]
    recipe = {"task": "text_to_image", "model": card.name, "job": {"prompt": PROMPT, "seed": 1}, "arms": arms}
    events = [e.event for e in backends.run(recipe)]
    outcomes = [e for e in events if isinstance(e, Outcome)]
    guided = "cfg" in card.capabilities
    assert "needs cfg" in outcomes.pop().error if not guided else not outcomes[-1].error
    assert sum(isinstance(e, Result) for e in events) == len(outcomes)
    for outcome in outcomes:
        assert not outcome.error and outcome.value.pixels.shape == (32, 32, 3)
    assert [o.nfe for o in outcomes[:4]] == [6 if guided else 3] * 4
    assert np.array_equal(outcomes[0].value.pixels, outcomes[1].value.pixels)


def test_guidance_caching_reflection_and_distillation_run_where_the_card_can(card):
    quick = {
        "faster_diffusion": {"keys": "uniform", "every": 2, "batch": True},
        "deepcache": {"interval": 2},
        "w2sd": {},
        "adaptive_guidance": {"mode": "LinearAG"},
    }
    arms = [{"method": m, "knobs": {"steps": 4} | knobs} for m, knobs in quick.items()]
    arms += [{"method": "adaptive_guidance", "knobs": {"steps": 4}, "stack": [{"method": "deepcache"}]}, {"method": "sds_picture", "knobs": {"iterations": 2}}]
    for arm in arms:
        (outcome,) = [
            e.event
            for e in backends.run({"task": "text_to_image", "model": card.name, "job": {"prompt": PROMPT}, "arms": [arm]})
            if isinstance(e.event, Outcome)
        ]
        pieces = {arm["method"], *(s["method"] for s in arm.get("stack", ()))}
        if all(backends.METHODS[p].needs <= card.capabilities for p in pieces):
            assert not outcome.error and outcome.value.pixels.shape == (32, 32, 3), (arm, outcome.error)
        else:
            assert " needs " in outcome.error


QUICK = {"iterations": 2, "grid": 16, "views": 1}
IN_3D = {
    "sds": {"size": 16},
    "stabledreamer": {"size": 16, "splats": 50},
    "sds_edit": {"captures": 10, "size": 16},
    "voxe": {"captures": 10, "size": 16, "fits": 10, "extent_of_edit": "local"},
    "ednerf": {"captures": 10, "where": "everywhere"},
}


@pytest.mark.parametrize("method", IN_3D)
def test_a_card_is_the_prior_of_objects_where_it_can(card, method):
    prompt = {"prompt": "a cat wearing a red hat"}
    task, job = ("edit_object", prompt | {"shape": "cat", "source": "a cat"}) if "captures" in IN_3D[method] else ("make_object", prompt)
    recipe = {"task": task, "model": card.name, "job": job, "arms": [{"method": method, "knobs": QUICK | IN_3D[method]}]}
    (outcome,) = [e.event for e in backends.run(recipe) if isinstance(e.event, Outcome)]
    if backends.METHODS[method].needs <= card.capabilities:
        assert not outcome.error and outcome.value.frames.shape == (24, 96, 96, 3) and outcome.nfe >= 4, outcome.error
    else:
        assert " needs " in outcome.error


def test_pixels_lead_to_latents(folders):
    """StableDreamer's two stages, each with a real checkpoint's loader."""
    knobs = QUICK | IN_3D["stabledreamer"] | {"iterations": 4, "geometry": 0.5, "first": "deepfloyd-if"}
    with small("deepfloyd-if", folders), small("sd-1.5", folders):
        recipe = {"task": "make_object", "model": "sd-1.5", "job": {"prompt": PROMPT}, "arms": [{"method": "stabledreamer", "knobs": knobs}]}
        (outcome,) = [e.event for e in backends.run(recipe) if isinstance(e.event, Outcome)]
    assert not outcome.error and outcome.nfe == 8 and len(outcome.value.splats) > 1000


def test_a_picture_conditions_every_card(card):
    """Steered Diffusion on noise, v and flow alike."""
    from backends import recipe as recipes

    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    job = {"image": {"sha256": recipes.digest(picture)}, "prompt": PROMPT, "fill": False, "enlarge": "4"}
    arms = [{"method": m, "knobs": {"steps": 3}} for m in ("unsteered", "noisy_critic", "steered")]
    recipe = {"task": "edit_image", "model": card.name, "job": job, "arms": arms}
    outcomes = [e.event for e in backends.run(recipe, {recipes.digest(picture): picture}) if isinstance(e.event, Outcome)]
    if "vae" not in card.capabilities:
        assert all(" needs vae" in o.error for o in outcomes)
        return
    assert [o.error for o in outcomes] == [""] * 3
    assert all(o.value.pixels.shape == (32, 32, 3) and o.nfe == (6 if "cfg" in card.capabilities else 3) for o in outcomes)


def test_half_precision_as_published(folders):
    card = dataclasses.replace(HUB["flux-schnell"], source=str(folders / "flux-schnell"), side=32, factor=2)
    model = hub.load(card)
    assert model.dtype == torch.bfloat16
    (x0,) = model.x0s(model.noise(0), 700.0, *model.encode(PROMPT))
    assert x0.dtype == torch.float32 and model.picture(x0).shape == (32, 32, 3)


def test_one_loop_gives_what_the_pipeline_gives(card, monkeypatch):
    """Our Denoiser and sampling loop against diffusers' own pipeline: same weights, noise, prompt and schedule."""
    from backends.image.sampling import Guided, SchedulerWalk, make_scheduler

    model = models.load(card.name)
    guided = "cfg" in card.capabilities
    noise, steps, scale = model.noise(3), 4, 4.0
    cond, uncond = model.encode(PROMPT, NEGATIVE)
    walk, guide = SchedulerWalk(model, steps, "ddim"), Guided(scale if guided else 1)
    with torch.no_grad():
        x = walk.start(noise)
        for i in range(steps):
            x, _ = walk.step(x, i, lambda x, t: guide(lambda *c: model.x0s(x, t, *c), cond, uncond, 0, steps))
        pipe = model.pipe
        pipe.scheduler = make_scheduler(model, "ddim")
        pipe.set_progress_bar_config(disable=True)
        kind = card.options["kind"]
        options = dict(num_inference_steps=steps, guidance_scale=scale if guided else 1.0, latents=noise, output_type="latent")
        if kind == "flux":
            options |= dict(latents=pipe._pack_latents(noise, 1, model.channels, 16, 16), height=32, width=32, guidance_scale=0.0, max_sequence_length=256)
        else:
            options |= dict(negative_prompt=NEGATIVE if guided else None, height=32, width=32)
        if kind == "pixart":
            options |= dict(use_resolution_binning=False)
        if kind == "if":
            pipe.scheduler.register_to_config(variance_type="fixed_small")  # its own is learnt, which DDIM doesn't know
            options |= dict(output_type="pt", clean_caption=False)
            options.pop("latents")
            monkeypatch.setattr(pipe, "prepare_intermediate_images", lambda *_: noise)
        theirs = pipe(PROMPT, **options).images
        if kind == "flux":
            theirs = torch.nn.functional.pixel_shuffle(theirs.mT.unflatten(2, (8, 8)), 2)
    assert (x - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_words_of_the_prompt_are_found_among_the_tokens(card):
    cond, empty = models.load(card.name).encode(PROMPT, "")
    rows = cond.rows("hat")
    assert rows and cond.rows("red") and cond.rows("zebra") == []
    assert len(cond.tokens) == cond.embeds.shape[1] and "hat" in cond.tokens[rows[0]]
    assert empty.embeds.shape == cond.embeds.shape


def test_gradients_reach_the_state(card):
    model = models.load(card.name)
    (cond,) = model.encode(PROMPT)
    x = model.noise(0).requires_grad_()
    with torch.enable_grad():
        (x0,) = model.x0s(x, 500, cond)
        model.to_pixels(x0).square().mean().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0


@pytest.mark.parametrize("room", ["all", "network", "text", "nothing"])
def test_short_of_memory_the_result_is_the_same(card, room):
    """The CPU plays the GPU: everything stays, the text encoders visit, or the layers come one by one."""
    model = models.load(card.name)
    size = {part: sum(p.numel() * p.element_size() for p in part.parameters()) / hub.GB for part in (model.net, model.vae, *model.encoders)}
    network, text = size[model.net] + size[model.vae], sum(size[e] for e in model.encoders)
    free = {"all": network + text, "network": network, "text": size[model.vae] + text, "nothing": 0.0}[room] + 1e-9
    if room == "text" and free >= network:
        pytest.skip("the text encoders outweigh the network here")
    pipe = hub.read(model.card, hub.Path(card.source), torch.float32)
    placed = hub.place(card, pipe, "cpu", free)
    assert placed.visit == (room in ("network", "text") and text <= free - (network if room == "network" else size[model.vae]))
    assert ("gradients" in placed.card.capabilities) == (room in ("all", "network"))
    x = model.noise(1)
    with torch.no_grad():
        (ours,), (theirs,) = (m.x0s(x, 400, *m.encode(PROMPT)) for m in (placed, model))
    assert torch.allclose(ours, theirs, atol=1e-5) and placed.nfe == 1
    assert (placed.picture(ours).astype(int) - model.picture(theirs)).max() <= 1
    kept = placed.net.forward
    with placed.patched(lambda *a, **k: kept(*a, **k)), torch.no_grad():  # a method's patch stands on top of the hooks
        assert torch.equal(placed.x0s(x, 400, *placed.encode(PROMPT))[0], ours)


def test_empty_negative_of_sdxl_is_zeros(folders, monkeypatch):
    monkeypatch.setitem(models.CARDS, "sdxl", dataclasses.replace(HUB["sdxl"], source=str(folders / "sdxl"), side=32, factor=2))
    models.clear()
    (empty,) = models.load("sdxl").encode("")
    assert empty.embeds.abs().max() == 0 and empty.extra["text_embeds"].abs().max() == 0
    models.clear()


def test_dynamic_shift_of_flow_schedulers_is_diffusers():
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert hub.shift(config, 1024)["mu"] == pytest.approx(calculate_shift(1024))
    assert hub.shift({}, 1024) == {}


# --- what can go wrong -----------------------------------------------------------------------------------


def test_a_hub_out_of_reach_is_a_sentence_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(BadInput, match="can't be reached"):
        list(backends.run({"task": "text_to_image", "model": "sd-1.5", "job": {"prompt": "a cat"}, "arms": [{"method": "ddim"}]}))
    assert time.monotonic() - start < 8


def test_a_download_says_how_far_it_is_and_can_be_stopped(monkeypatch):
    def slow(card):
        for gigabytes in range(50):
            models.progress[card.name] = f"Downloading: {gigabytes} of 50 GB"
            if stopped.wait(0.3):
                return

    monkeypatch.setattr(hub, "load", slow)
    events, stopped = [], threading.Event()
    for event in backends.run({"task": "text_to_image", "model": "sd-1.5", "job": {"prompt": "a cat"}, "arms": [{"method": "ddim"}]}, stop=stopped.is_set):
        events.append(event.event.text)
        if len(events) == 2:
            stopped.set()
    assert len(events) == 2 and all(e.startswith("Downloading") for e in events) and events[0] != events[1]
    models.progress.clear()


def test_too_little_memory_or_a_broken_file_is_a_sentence(folders, monkeypatch, tmp_path):
    small = dataclasses.replace(HUB["sd-1.5"], source=str(folders / "sd-1.5"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    with pytest.raises(BadInput, match="of memory"):
        hub.load(small)
    monkeypatch.undo()
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(BadInput, match="can't be read"):
        hub.load(dataclasses.replace(small, source=str(tmp_path)))


def test_the_host_chooses_the_models():
    assert [c.name for c in cards.hosted(None)] == [c.name for c in cards.HUB if c.revision]
    assert cards.hosted("none") == []
    turbo, sdxl = cards.hosted("sd-turbo, sdxl=someone/finetune@abc")
    assert turbo == HUB["sd-turbo"]
    assert (sdxl.source, sdxl.revision) == ("someone/finetune", "abc")
    with pytest.raises(ValueError):
        cards.hosted("unheard-of")


def test_every_hub_card_is_pinned():
    for card in cards.HUB:
        assert not card.embedded
        if card.revision:
            assert len(card.revision) == 40 and int(card.revision, 16)
        else:  # offered where the host pins it
            assert card not in cards.hosted(None)
            with pytest.raises(ValueError, match="no revision"):
                cards.hosted(card.name)


def test_download_from_a_hub_fetches_only_what_is_needed(folders, monkeypatch, tmp_path):
    """Against a small server that speaks the hub's protocol; the second load asks it nothing."""
    source, sha = folders / "sd-1.5", fake_hub.SHA
    files = {str(f.relative_to(source)): f.read_bytes() for f in source.rglob("*") if f.is_file()}
    files |= {"unet/diffusion_pytorch_model.bin": b"pickle", "unet/diffusion_pytorch_model.safetensors": b"the full weights", "v1-5.ckpt": b"pickle"}
    served = fake_hub.handler(files)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = []
    monkeypatch.setattr(download, "progress", type("Said", (dict,), {"__setitem__": lambda self, k, v: said.append(v)})())
    card = dataclasses.replace(HUB["sd-1.5"], source="a/b", revision=sha, side=32, factor=2)
    try:
        model = hub.load(card)
        assert model.net.config.sample_size == 16
        got = {p.partition("?")[0].split(f"/resolve/{sha}/")[1] for p in served.asked if "/resolve/" in p}
        assert "unet/diffusion_pytorch_model.fp16.safetensors" in got
        assert not {g for g in got if g.endswith((".bin", ".ckpt"))} and "unet/diffusion_pytorch_model.safetensors" not in got
        assert any("GB" in s for s in said)
        served.asked.clear()
        hub.load(card)
        assert served.asked == []
    finally:
        server.shutdown()
