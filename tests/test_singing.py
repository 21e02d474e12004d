"""DiffSinger: the boundaries, where the chain begins, the chain, scores that are refused."""

import numpy as np
import pytest
import torch

from backends import METHODS, BadInput, models, run
from backends.audio import shallow
from backends.audio.scores import check
from backends.audio.singer import STEPS, Song, griffin_lim
from backends.audio.tasks import SING, Sing
from backends.metrics import singing as metric
from backends.nets.diffsinger import KNOTS, hats
from backends.spec import Audio, Outcome, Result, Spectrogram, Step
from backends.worlds import singing
from tests.tiny_singer import tiny

SCORE = "さ:A4:1 く:A4:1 ら:B4:2"


@pytest.fixture
def model():
    models.clear()
    models._cache["singer"] = made = tiny()
    yield made
    models.clear()


def sung(slug="diffsinger", seed=1, **knobs) -> list:
    return [e.event for e in run({"task": "sing", "job": {"score": SCORE, "seed": seed}, "arms": [{"method": slug, "knobs": knobs}]})]


def samples(events) -> np.ndarray:
    assert isinstance(events[-1], Outcome) and not events[-1].error
    return events[-1].value.samples


# --- identities ------------------------------------------------------------------------------------------


@pytest.mark.identity("diffsinger", "E[M²] = 0.3 and errors of 0.005, 0.01, 0.02, 0.05 put boundary A at k = 32, 42, 53, 70")
def test_boundary_a_of_known_figures(model):
    assert [shallow.boundary_a(error, 0.3, model.bars) for error in (0.005, 0.01, 0.02, 0.05)] == [32, 42, 53, 70]


@pytest.mark.identity("diffsinger", "boundary A is where torch's own KL divergences of the noised mels, taken element by element, cross")
def test_boundary_a_is_the_divergence():
    from torch.distributions import Normal, kl_divergence

    torch.manual_seed(0)
    mel = torch.randn(4000, dtype=torch.float64) * 0.5
    blurry = mel + torch.randn(4000, dtype=torch.float64) * 0.15
    bars = (1 - torch.linspace(1e-4, 0.06, STEPS, dtype=torch.float64)).cumprod(0)
    at = lambda m, bar: Normal(bar.sqrt() * m, (1 - bar).sqrt())  # noqa: E731
    noise = kl_divergence(at(mel, bars[-1]), Normal(torch.zeros(()).double(), 1)).mean()
    first = next(t for t, bar in enumerate(bars, 1) if kl_divergence(at(mel, bar), at(blurry, bar)).mean() <= noise)
    assert shallow.boundary_a(float((mel - blurry).square().mean()), float(mel.square().mean()), bars) == first


@pytest.mark.identity("diffsinger", "k = T is full diffusion, bit by bit")
@pytest.mark.parametrize("knobs", [{}, {"sampler": "plms", "speedup": 10}])
def test_k_of_all_steps_is_full_diffusion(model, knobs):
    assert np.array_equal(samples(sung(k=STEPS, **knobs)), samples(sung("full_diffusion", **knobs)))
    assert not np.array_equal(samples(sung(k=STEPS - 1, **knobs)), samples(sung("full_diffusion", **knobs)))


@pytest.mark.identity("diffsinger", "the chain begins at √ᾱ·M̃ + √(1 − ᾱ)·ε with ᾱ of index k − 1, and asks the denoiser at k − 1 first and 0 last")
def test_the_chain_begins_at_index_k_minus_one(model):
    mel, noise = torch.randn(1, 9, 80), torch.randn(1, 9, 80)
    bar = (1 - torch.linspace(1e-4, 0.06, STEPS, dtype=torch.float64)).cumprod(0).float()
    for k in (1, 42, STEPS - 1):
        wanted = bar[k - 1].sqrt() * mel + (1 - bar[k - 1]).sqrt() * noise
        assert torch.allclose(shallow.begin(mel, k, model.bars, noise), wanted, atol=1e-6)
    asked = []
    handle = model.net.register_forward_pre_hook(lambda _, args: asked.append(int(args[1])))
    assert samples(sung(k=7)).any()
    handle.remove()
    assert asked == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.identity("diffsinger", "an untrained denoiser says zero: its last layer begins at zero")
def test_the_denoiser_begins_at_zero():
    net = tiny(zero=True).net
    assert not net(torch.randn(2, 30, 80), torch.tensor([3, 99]), torch.randn(2, 30, 16)).any()


@pytest.mark.identity("diffsinger", "a denoiser that knows the true mel leads both samplers to it")
@pytest.mark.parametrize(("sampler", "speedup"), [("ddpm", 1), ("ddpm", 5), ("plms", 1), ("plms", 10)])
def test_an_exact_denoiser_finds_the_mel(model, sampler, speedup):
    mel = torch.rand(1, 9, 80) * 1.8 - 0.9
    bars = model.bars
    model.denoise = lambda x, t, condition: (x - bars[t].sqrt() * mel) / (1 - bars[t]).sqrt()
    begun = shallow.begin(mel + 0.1, 50, bars, torch.randn(1, 9, 80))
    *_, (_, x) = shallow.chain(model, begun, None, 50, sampler, speedup, torch.Generator().manual_seed(0))
    assert torch.allclose(x, mel, atol=2e-2)


# --- the chain and its events ----------------------------------------------------------------------------


def test_boundary_b_is_the_mean_of_the_first_steps_from_which_gaps_are_small():
    gaps = np.ones((2, 100))
    gaps[0, 40:], gaps[1, 59:] = 0.1, 0.1  # small from step 41 and from step 60 on; of the steps from 38 (57) on, 95 % are
    assert shallow.boundary_b(gaps) == round((38 + 58) / 2)
    assert shallow.boundary_b(np.ones((1, 100))) == 100 and shallow.boundary_b(np.zeros((3, 100))) == 1


@pytest.mark.parametrize(("knobs", "calls"), [({}, 42), ({"boundary": "B: classifier"}, 59), ({"k": 30}, 30), ({"k": 30, "speedup": 4}, 8), ({"k": 30, "speedup": 4, "sampler": "plms"}, 9), ({"k": 1}, 1)])  # fmt: skip
def test_it_calls_the_denoiser_k_times(model, knobs, calls):
    events = sung(**knobs)
    assert events[-1].nfe == calls and not events[-1].error
    steps = [e for e in events if isinstance(e, Step)]
    assert all(isinstance(s.show, Spectrogram) for s in steps) and steps[-1].i == steps[-1].n == calls


@pytest.mark.parametrize(("slug", "vocoder"), [("diffsinger", "neural"), ("full_diffusion", "neural"), ("auxiliary", "neural"), ("auxiliary", "griffin-lim")])
def test_same_seed_same_bits(model, slug, vocoder):
    knobs = {"vocoder": vocoder} | ({"speedup": 20} if slug != "auxiliary" else {})
    one, two, other = (samples(sung(slug, seed, **knobs)) for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert np.abs(one).max() <= 1 and np.isfinite(one).all()


def test_stopped_it_leaves_the_sound_of_where_it_was(model):
    asked = iter([False, False, True, True])
    events = [e.event for e in run({"task": "sing", "job": {"score": SCORE, "seed": 1}, "arms": [{"method": "diffsinger"}]}, stop=lambda: next(asked, True))]
    assert events[-1].stopped and isinstance(events[-1].value, Audio)


def test_the_sound_lasts_as_long_as_the_score_and_marks_its_phrases(model):
    events = [e.event for e in run({"task": "sing", "job": {"score": SCORE + " rest:1 や:C5:1", "tempo": 120}, "arms": [{"method": "auxiliary"}]})]
    sound = next(e.value for e in events if isinstance(e, Result))
    assert abs(sound.seconds - 8 / 120 * 60) < 0.02
    assert sound.marks == {"1 さくら": 0.5, "2 や": 3.0}


def test_a_consonant_never_outlasts_its_note(model):
    model.acoustic.durations[2].bias.fill_(6.0)  # hundreds of frames each
    song = model.lay_out(check("しゃ:A4:0.125 さ:A4:1", 100), 100, 0.25)
    assert (song.frames >= 1).all() and song.frames.sum() == len(song.f0)
    assert [song.frames[i : i + 2].sum() for i in (1, 3)] == [song.note_frames[1], song.note_frames[3]]


def test_the_read_out_of_a_step_is_mixed_from_its_neighbours():
    mixed = hats(torch.tensor([0, 1, 2, 15, 99]))
    assert torch.allclose(mixed.sum(1), torch.ones(5)) and mixed[0, 0] == mixed[2, 1] == mixed[4, -1] == 1 and mixed[1, 0] == 0.5
    assert mixed[3, KNOTS.index(10)] == 0.5 and mixed[3, KNOTS.index(20)] == 0.5


@pytest.mark.parametrize("frames", [3, 50, 72, 73, 200])
def test_the_vocoder_in_windows_is_as_long_as_the_mel_and_where_one_window_is_enough_the_same(frames):
    net = tiny().vocoder
    mel, f0 = torch.randn(2, frames, 80), torch.full((2, frames), 69.0)
    assert net(mel, f0).shape == (2, frames * singing.HOP)
    net.coarse, net.fine, net.input = torch.nn.ModuleList(), torch.nn.ModuleList(), torch.nn.Conv1d(81, 16, 1)  # nothing that reaches over frames
    assert torch.allclose(net.in_windows(mel, f0), net.controls(mel, f0), atol=1e-4)


def test_no_example_clicks_and_recordings_are_left_as_they_are(monkeypatch):
    model = models.load("singer")
    for tune, own in list(singing.recordings().items())[:3]:
        mel, f0 = singing.from_bytes(torch.as_tensor(own["mel"])).float()[None], torch.as_tensor(own["f0"]).float()[None]
        made = model.vocoder.in_windows(mel, f0)
        assert torch.equal(model.vocoder.limited(made, mel), made), tune
    example = next(e for e in SING.examples if e["job"]["score"].startswith("do do"))  # its mel has a frame unlike the recordings'

    def peak() -> float:
        """Of the sung example, against what all but a thousandth of it stays below."""
        *_, end = run({"task": "sing", "job": example["job"], "arms": [{"method": "auxiliary"}]})
        loud = np.abs(end.event.value.samples)
        return loud.max() / np.quantile(loud, 0.999)

    assert peak() < 2
    monkeypatch.setattr(type(model.vocoder), "limited", lambda self, controls, mel: controls)
    assert peak() > 2  # what the ceilings are for
    models.clear()


def test_the_embedded_singer_sings_the_notes():
    pytest.importorskip("swift_f0")
    models.clear()
    end = [
        e.event for e in run({"task": "sing", "job": {"score": "さくら | A4:1 C5:1 F4:2", "seed": 3}, "arms": [{"method": "diffsinger", "knobs": {"k": 20}}]})
    ][-1]
    found = {m.name: m.value for m in end.metrics}
    assert not end.error and found["F0 RMSE (cents)"] < 15 and found["a semitone or more off (%)"] < 10
    assert np.abs(end.value.samples).max() > 0.02 and end.value.samples.std() > 0.01
    models.clear()


# --- the world and the figures ---------------------------------------------------------------------------


def test_scores_read_alike_in_kana_romaji_and_as_lyrics():
    forms = (
        "つ:A4:1 きょ:Bb4:0.5 ー:C5:1 rest:1",
        "tsu:a4:1 kyo:A#4:0.5 -:C5:1 rest:1",
        "ツきょー | A4:1 A#4:0.5 C5:1 rest:1",
        "tu kyo - | A4:1 A#4:0.5 C5:1 rest:1",
    )
    first, *others = (singing.parse(f) for f in forms)
    assert all(o == first for o in others) and first[2].phones == ("o",)


BAD = {
    "": "empty", "a cat next to a cactus": "is not syllable:note:beats", "さくら | A4:1 A4:1": "3 syllables for 2 notes", "さ | A4:1 A4:1": "1 syllables for 2 notes",
    "tsu:A4": "is not syllable", "xq:A4:1": "no syllable of kana or romaji", "さっか | A4:1 A4:1 A4:1": "begins with no syllable", "さ:A2:1": "outside the voice's range, C4 to G#5",
    "さ:C7:1": "outside the voice's range", "さ:H4:1": "is no note", "ー:A4:1": "there is none", "rest:1": "rests only", "|": "rests only", "さ:A4:0.01": "shortest note lasts 6 ms",
    " ".join(["ら:A4:16"] * 4): "at most 30 s", "さ:A4:nan": "lasts nan beats", "さ:A4:-1": "lasts -1 beats", "さ:A4:99": "lasts 99 beats; a note has more than none and at most 16", "\x00:A4:1": "no syllable", "\ud800:A4:1": "no syllable",
}  # fmt: skip


@pytest.mark.parametrize("score", BAD)
def test_a_score_that_cannot_be_sung_gets_a_sentence(score):
    with pytest.raises(BadInput, match=BAD[score]) as refused:
        Sing(score=score)
    assert str(refused.value).endswith(".") and str(refused.value).encode()


def test_the_recordings_keep_the_time_of_their_scores(model):
    for name, tune in singing.tunes().items():
        own, song = singing.recordings()[name], model.lay_out(check(tune["score"], tune["tempo"]), tune["tempo"], 0.25)
        assert (own["phones"] == song.phones).all() and (own["note"] == song.notes).all()
        assert abs(len(song.f0) - len(own["f0"])) <= 1
        n = min(len(song.f0), len(own["f0"]))
        assert np.abs(own["f0"][:n].astype(float) - song.f0[:n]).mean() < 0.15, "a note begins within a frame of the recording's"
        assert len(Song.recorded(name).f0) == len(own["mel"])


def test_the_beginning_of_a_tune_has_a_true_mel_and_another_melody_has_none():
    tune = singing.tunes()["Sakura"]
    assert len(metric.truth(check(tune["score"], 84), 84)) > len(metric.truth(check(" ".join(tune["score"].split()[:5]), 84), 84)) > 100
    assert metric.truth(check(tune["score"], 90), 90) is None and metric.truth(check(SCORE, 100), 100) is None


def test_figures_of_mels_do_what_they_say():
    true = singing.from_bytes(torch.as_tensor(singing.recordings()["Sakura"]["mel"])).numpy()
    blurred = torch.nn.functional.avg_pool2d(torch.as_tensor(true)[None, None], 5, 1, 2)[0, 0].numpy()
    assert metric.sharpness(true, true) == pytest.approx(1) and metric.sharpness(blurred, true) < 0.6
    assert metric.mcd(true, true) == 0 < metric.mcd(blurred, true) and metric.mcd(true + 1, true) == pytest.approx(0, abs=1e-4), "loudness is no distortion"


def test_the_pitch_of_a_recording_is_heard():
    pytest.importorskip("swift_f0")
    own = singing.recordings()["Sakura"]
    sound = Audio((own["wave"] / 32768).astype(np.float32), singing.RATE)
    cents, off, share = metric.f0_errors(sound, own["f0"].astype(float), np.repeat(own["note"] > 0, own["frames"]))
    assert cents < 40 and off < 0.05 and share > 0.6
    mel = singing.from_bytes(torch.as_tensor(own["mel"]))
    guessed = Audio(griffin_lim(mel[:300], 0).numpy(), singing.RATE)
    assert metric.mcd(metric.heard(guessed), mel[:300].numpy()) < 3, "Griffin-Lim gives back the mel"


def test_the_arms_of_one_task():
    assert {m.slug for m in METHODS.values() if m.task.slug == "sing"} == {"diffsinger", "auxiliary", "full_diffusion"}
