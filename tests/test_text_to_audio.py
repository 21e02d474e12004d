"""EzAudio's identities, editing, bad input and its loop, on a small random model."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from backends import METHODS, BadInput, models, run
from backends.audio import editing
from backends.audio.latent_audio import denoise
from backends.audio.tasks import TextToAudio
from backends.image.sampling import Guided
from backends.nets.ez_dit import EzDiT
from backends.spec import Audio, Metric, Note, Outcome, Result, Spectrogram, Step
from backends.train.sounds_dit import SCHEDULE
from tests.tiny_sounds import tiny


@pytest.fixture
def model():
    models.clear()
    made = tiny()
    models._cache["sounds-dit"] = made
    yield made
    models.clear()


def events(job=None, **knobs):
    """All events of one arm of the method on the model that `model` put in place."""
    job = {"prompt": "a cow moos", "seed": 3, "seconds": 0.6} | (job or {})
    sounds = {}
    if isinstance(job.get("sound"), Audio):
        from backends import recipe

        sounds[recipe.digest(job["sound"])] = job["sound"]
        job["sound"] = {"sha256": recipe.digest(job["sound"])}
    slug = knobs.pop("method", "ezaudio")
    return [e.event for e in run({"task": "text_to_audio", "job": job, "arms": [{"method": slug, "knobs": {"steps": 4} | knobs}]}, sounds)]


def result(*args, **kw):
    found = events(*args, **kw)
    assert not found[-1].error, found[-1].error
    return next(e for e in found if isinstance(e, Result)).value


def tone(seconds=1.5, rate=16_000, level=0.5):
    return Audio((level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32), rate)


@pytest.mark.identity("ezaudio", "with φ = 1 the guided prediction has the deviation of the conditional one, to 1e-5")
@pytest.mark.parametrize("scale", [1.5, 5.0, 15.0])
def test_full_rescaling_keeps_the_deviation(scale):
    u, c = torch.randn(2, 3, 24, 128, generator=torch.Generator().manual_seed(0)).unbind()
    g = Guided(scale, 1.0).mix(u, c)
    assert torch.allclose(g.std((1, 2)), c.std((1, 2)), rtol=1e-5, atol=0)
    plain = Guided(scale).mix(u, c)
    half = Guided(scale, 0.5).mix(u, c)
    assert torch.allclose(half, (g + plain) / 2, atol=1e-5)


@pytest.mark.identity("ezaudio", "the noise end holds no signal, and the first timestep is 999")
@pytest.mark.parametrize("steps", [1, 7, 50, 100])
def test_zero_terminal_snr(steps):
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps)
    assert scheduler.alphas_cumprod[-1] == 0 and int(scheduler.timesteps[0]) == 999


@pytest.mark.identity("ezaudio", "at the start, low-rank modulation (AdaLN-SOLA) computes what the shared one does, bit by bit")
def test_sola_begins_as_the_shared_modulation():
    shape = dict(channels=4, dim=32, depth=2, heads=2, context_dim=16)
    torch.manual_seed(0)
    sola = EzDiT(**shape, modulation="sola", rank=4).eval()
    shared = EzDiT(**shape, modulation="shared").eval()
    left = shared.load_state_dict(sola.state_dict(), strict=False)
    assert not left.missing_keys and all("lora" in k for k in left.unexpected_keys)
    torch.nn.init.normal_(sola.time_ada.weight)  # even where the shared projection is no longer nought
    shared.time_ada.load_state_dict(sola.time_ada.state_dict())
    args = torch.randn(2, 4, 20), torch.tensor([3, 700]), torch.randn(2, 5, 16)
    assert torch.equal(sola(*args), shared(*args))


@pytest.mark.identity("ezaudio", "φ = 0 is plain guidance, bit by bit")
def test_no_rescaling_is_the_baseline(model):
    assert np.array_equal(result(rescale=0.0, scale=7.0).samples, result(method="ddim_audio", scale=7.0).samples)
    assert not np.array_equal(result(rescale=0.75, scale=7.0).samples, result(method="ddim_audio", scale=7.0).samples)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_same_seed_same_bits(model, eta):
    torch.manual_seed(1)
    one = result(eta=eta).samples
    torch.randn(7)
    assert np.array_equal(one, result(eta=eta).samples)
    assert not np.array_equal(one, result({"seed": 4}, eta=eta).samples)
    assert len(one) == round(0.6 * 16_000)


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 10, 13, 14, 19, 20, 23, 24, 25])
def test_as_much_noise_as_ddpm_stays_finite(model, steps):
    """diffusers' DDIM alone gives NaN from the first step of most of these."""
    cond, uncond = model.encode("a", "")
    *_, (x, x0) = denoise(model, cond, uncond, [0, 1], 12, steps, Guided(5.0, 0.75), 1.0)
    assert torch.isfinite(x).all() and x.shape == (2, 4, 12)


def test_a_row_of_a_batch_is_its_own_run(model):
    from backends.denoiser import together

    conds = model.encode("a cow", "a bell")
    *_, (both, _) = denoise(model, together(conds), model.encode("")[0], [5, 6], 12, 3, Guided(4.0, 0.75), 1.0)
    *_, (one, _) = denoise(model, conds[1], model.encode("")[0], [6], 12, 3, Guided(4.0, 0.75), 1.0)
    assert torch.allclose(both[1:], one, atol=1e-4)


def test_what_is_shown(model):
    found = events(steps=30)
    steps = [e for e in found if isinstance(e, Step)]
    assert steps[-1].i == 30 and all(isinstance(s.show, Spectrogram) for s in steps)
    picture, curve = steps[-1].aside
    assert picture.pixels.ndim == 3 and len(curve.series["x0"][1]) == 30
    names = {e.name for e in found if isinstance(e, Metric)}
    assert {"latent deviation", "overdriven samples, %"} <= names
    assert found[-1].nfe == 60


def test_stop_leaves_a_sound(model):
    asked = iter([False] * 4 + [True] * 100)
    recipe = {"task": "text_to_audio", "job": {"prompt": "a cow"}, "arms": [{"method": "ezaudio", "knobs": {"steps": 50}}]}
    *_, last = run(recipe, stop=lambda: next(asked))
    assert isinstance(last.event, Outcome) and last.event.stopped and isinstance(last.event.value, Audio)


# --- editing ---------------------------------------------------------------------------------------------


def test_outside_the_span_the_sound_is_its_own(model):
    sound = tone(4.0)
    made = result({"sound": sound, "start": 1.2, "end": 2.0})
    fade = round(editing.FADE * 16_000)
    a, b = round(1.2 * 16_000), round(2.0 * 16_000)
    assert len(made.samples) == len(sound.samples) and np.abs(made.samples[a:b] - sound.samples[a:b]).max() > 0.01
    sent = np.round(sound.samples * 32767) / 32767  # sounds travel in 16 bits
    assert np.abs(made.samples[: a - fade] - sent[: a - fade]).max() < 1e-4
    assert np.abs(made.samples[b + fade :] - sent[b + fade :]).max() < 1e-4
    assert made.marks == {"made from": 1.2, "to": 2.0}


def test_a_span_past_the_end_goes_on(model):
    made = result({"sound": tone(1.0), "start": 0.8, "end": 1.9})
    assert len(made.samples) == round(1.9 * 16_000)


def test_known_latents_reach_the_network(model):
    edit = editing.opened(TextToAudio(sound=tone(2.0), start=0.5, end=1.0), model)
    assert edit.mask[0, 0].nonzero().flatten().tolist() == list(range(25, 50))
    cond = model.encode("a")
    x = torch.randn(1, 4, edit.known.shape[-1], generator=torch.Generator().manual_seed(0))
    plain = model.velocities(x, 500, *cond)[0]
    shown = model.velocities(x, 500, *cond, known=edit.known, mask=edit.mask)[0]
    assert not torch.allclose(plain, shown)
    hidden = edit.known + 9 * edit.mask  # what stands where the sound is to be made is not seen
    assert torch.equal(shown, model.velocities(x, 500, *cond, known=hidden, mask=edit.mask)[0])


def test_what_is_put_into_a_pause_is_as_loud_as_its_surroundings(model):
    sound = tone(20.0)
    sound.samples[16_000:] = 1e-6
    edits = [editing.opened(TextToAudio(sound=sound, start=start, end=start + 0.5), model) for start in (0.2, 15.0)]
    assert edits[0].gain == edits[1].gain == pytest.approx(editing.PEAK / 0.5, rel=1e-3)


def test_another_rate_is_brought_to_the_models_and_said(model):
    job = {"sound": tone(1.5, 44_100), "start": 0.5, "end": 1.0}
    made = result(job)
    assert made.rate == 16_000 and abs(len(made.samples) - 24_000) < 3
    assert any(isinstance(e, Note) and "44,100 to 16,000 Hz" in e.text for e in events(job))


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"prompt": ""}, "write what should be heard"),
        ({"sound": tone(level=0.0)}, "silent"),
        ({"sound": tone(), "start": 1.0, "end": 1.02}, "too short"),
        ({"sound": tone(), "start": 1.0, "end": 0.5}, "too short"),
        ({"sound": tone(), "start": 5.0, "end": 6.0}, "begin it earlier"),
    ],
)
def test_bad_input_is_refused_before_any_arm_runs(model, job, says):
    with pytest.raises(BadInput, match=says):
        events(job)


def test_a_span_longer_than_the_model_hears_is_refused(model):
    assert "bring the span's ends nearer" in events({"sound": tone(6.0), "start": 1.0, "end": 5.0})[-1].error


@pytest.mark.parametrize("job", [{"seconds": 0}, {"seconds": "long"}, {"start": -1}, {"prompt": "a" * 501}, {"seconds": float("nan")}])
def test_what_is_out_of_range_is_refused(model, job):
    with pytest.raises(BadInput):
        events(job)


def test_an_edit_without_words_is_not_guided(model):
    found = events({"prompt": "", "sound": tone(), "start": 0.5, "end": 1.0})
    assert any(isinstance(e, Note) and "scale 1" in e.text for e in found) and found[-1].nfe == 4


@pytest.mark.parametrize("job", [{}, {"sound": tone(), "start": 0.5, "end": 1.0}])
@pytest.mark.parametrize("level", [0.0, 0.3])
def test_near_silence_is_said(model, monkeypatch, job, level):
    monkeypatch.setattr(model, "wave", lambda latents: np.full(latents.shape[-1] * model.hop, level, np.float32))
    assert any(isinstance(e, Note) and "nearly silent" in e.text for e in events(job)) is (level == 0.0)


def test_longer_than_trained_is_said(model):
    assert any(isinstance(e, Note) and "trained on sounds" in e.text for e in events({"seconds": 4.0}, steps=1))


def test_broken_weights_are_said(model):
    model.vae.decoder.conv2.bias = None
    model.net.head_conv.bias.data[:] = float("nan")
    assert "not numbers" in events()[-1].error


def test_the_method_is_registered():
    assert METHODS["ezaudio"].paper and not METHODS["ddim_audio"].paper
    assert dataclasses.asdict(METHODS["ezaudio"])["needs"] == {"text_audio"}
