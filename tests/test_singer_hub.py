"""Opencpop's checkpoints of DiffSinger, stood for by small ones in their layout, run through the whole recipe.

Once, and outside these tests, the networks were held against the official code (MoonInTheRiver/DiffSinger): at full size on random weights
names and shapes are the same (the digests below) and outputs agreed within 2e-6 of the largest; on the small checkpoints of `tiny_opencpop`
the official code gave the numbers that stand here.
"""

import dataclasses
import hashlib
import pickle

import numpy as np
import pytest
import torch
import yaml

from backends import cards, models, run
from backends.audio import opencpop, singer_hub
from backends.audio.scores import check
from backends.audio.tasks import Sing
from backends.nets import fastspeech_midi, nsf_hifigan
from backends.nets.diffsinger import SingerDenoiser
from backends.spec import BadInput, Note, Outcome, Step
from backends.worlds import singing
from backends.worlds.pinyin import PINYIN
from tests import tiny_opencpop as tiny

SCORE = "xiao:C#4:0.5 jiu:F#4:0.5 wo:G#4:0.5 ー:A#4:0.5"


def card(folder, name="diffsinger-opencpop"):
    return dataclasses.replace(next(c for c in cards.HUB if c.name == name), source=str(folder))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(cascade, end to end): the acoustic models' folders, which no test changes."""
    home = tmp_path_factory.mktemp("checkpoints")
    return tiny.checkpoints(home), tiny.checkpoints(home, True)


@pytest.fixture
def sung():
    """Runs an arm on a folder's voice, as a recipe does; gives its events."""
    before = dict(models.CARDS)

    def sing(folder, slug, seed=1, score=SCORE, **knobs):
        found = card(folder)
        if models.CARDS.get(found.name) != found:
            models.clear()
            models.CARDS[found.name] = found
        job = {"task": "sing", "model": found.name, "job": {"score": score, "seed": seed}, "arms": [{"method": slug, "knobs": knobs}]}
        return [e.event for e in run(job)]

    yield sing
    models.clear()
    models.CARDS.clear()
    models.CARDS.update(before)


# --- what is sung ----------------------------------------------------------------------------------------


def test_a_score_becomes_opencpops_columns():
    """Phonemes, notes, seconds and slurs of the official README's example, its AP a rest here."""
    lyrics = "xiao jiu wo chang ー jie ー mao"
    tune = "C#4:0.5 F#4:0.25 G#4:0.25 A#4:0.5 F#4:0.25 F#4:0.5 C#4:0.25 C#4:0.5 rest:0.5"
    notes = check(f"{lyrics} | {tune}", 60, singing.MANDARIN)
    names, midis, seconds, slurs, owner = opencpop.spelled(notes, 60)
    assert names == ["SP", "x", "iao", "j", "iu", "w", "o", "ch", "ang", "ang", "j", "ie", "ie", "m", "ao", "SP"]
    assert midis.tolist() == [0, 61, 61, 66, 66, 68, 68, 70, 70, 66, 66, 66, 61, 61, 61, 0]
    assert np.allclose(seconds, [0.8, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.25, 0.5, 0.5, 0.25, 0.5, 0.5, 1.3])
    assert slurs.tolist() == [0] * 9 + [1] + [0] * 2 + [1] + [0] * 3 and owner.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9]


def test_pinyin_is_divided_as_opencpop_divides_it():
    """The digest is of the official cpop_pinyin2ph.txt but for hng, whose final its own list of phonemes lacks; numbers are its text encoder's."""
    lines = "\n".join(f"{s} {' '.join(p)}" for s, p in sorted(PINYIN.items()))
    assert (len(PINYIN), hashlib.sha256(lines.encode()).hexdigest()[:16]) == (417, "ff46b6071b52ac60")
    assert len(opencpop.PHONES) == 60 and [opencpop.NUMBERS[p] for p in ("AP", "SP", "a", "zh")] == [3, 4, 5, 62]
    assert PINYIN["yuan"] == ("y", "van") and PINYIN["ju"] == ("j", "v") and PINYIN["er"] == ("er",)


@pytest.mark.parametrize(("score", "tongue"), [
    ("さくら | A4:1 A4:1 B4:2", singing.JAPANESE), ("do do so | F4:1 F4:1 C5:1", singing.JAPANESE), ("ma:A4:1", singing.JAPANESE), (SCORE, singing.MANDARIN),
    ("LÜ4 ー | A4:1 B4:1", singing.MANDARIN), ("", singing.JAPANESE),
])  # fmt: skip
def test_a_score_tells_its_tongue(score, tongue):
    assert singing.tongue_of(score) is tongue
    assert not score or Sing(score=score).score == score


def test_syllables_of_another_tongue_are_a_sentence(published, sung):
    assert "'さ' is no syllable of pinyin" in sung(published[0], "diffsinger", score="さ:A4:1")[-1].error
    with pytest.raises(BadInput, match="'xiaoo' is no syllable of pinyin"):
        Sing(score="xiaoo:A4:1 jiu:A4:1")
    with pytest.raises(BadInput, match="'xiao' is no syllable of kana or romaji"):
        check(SCORE, 100, singing.JAPANESE)
    assert not sung(published[0], "diffsinger", score="ma:A4:1", speedup=20)[-1].error  # both know it


def test_notes_last_as_the_score_says_and_consonants_as_predicted(published):
    model = singer_hub.load(card(published[0]))
    notes = check(SCORE, 60, singing.MANDARIN)
    song = model.lay_out(notes, 60, 0.25)
    names, *columns, owner = opencpop.spelled(notes, 60)
    bounds = np.round(singing.times(notes, 60) * 24000 / 128).astype(int)
    assert (np.bincount(owner, song.frames) == np.diff(bounds)).all() and song.seconds == pytest.approx(bounds[-1] * 128 / 24000)
    given = [torch.as_tensor(a)[None] for a in ([opencpop.NUMBERS[n] for n in names], *columns)]
    predicted = model.acoustic.encode(*given)[1][0].numpy()
    consonants = [i for i, name in enumerate(names) if name in ("x", "j", "w")]
    assert (song.frames[consonants] == np.clip(predicted[consonants], 1, np.diff(bounds)[owner][consonants] - 1)).all()
    mel = torch.zeros(1, len(song.f0), 80)
    assert model.voice(mel, song, "neural", 1).samples.shape == (128 * len(song.f0),)


# --- the methods -----------------------------------------------------------------------------------------


def test_the_cascade_sings_by_shallow_diffusion(published, sung):
    events = sung(published[0], "diffsinger", speedup=5)
    end, steps = events[-1], [e for e in events if isinstance(e, Step)]
    assert isinstance(end, Outcome) and not end.error and end.nfe == 12 == steps[-1].n == steps[-1].i and end.value.rate == 24000
    assert end.value.seconds == pytest.approx(4 * 0.6, abs=0.01) and np.abs(end.value.samples).max() > 0
    assert [m.value for m in end.metrics if m.name == "k"] == [60] and any("vibrato" in e.text for e in events if isinstance(e, Note))
    again, other = (sung(published[0], "diffsinger", seed=seed, speedup=5)[-1].value.samples for seed in (1, 2))
    assert np.array_equal(end.value.samples, again) and not np.array_equal(again, other)
    assert sung(published[0], "diffsinger", k=30)[-1].nfe == 30 and sung(published[0], "diffsinger", sampler="plms", speedup=20)[-1].nfe == 4
    alone = sung(published[0], "auxiliary")[-1]
    assert alone.nfe == 0 and not alone.error and not np.array_equal(alone.value.samples, again)
    assert end.recipe["outcome"]["model_revision"] == "0303_opencpop_ds58_midi"


def test_the_end_to_end_model_sings_by_full_diffusion(published, sung):
    end = sung(published[1], "full_diffusion", speedup=10)[-1]
    assert not end.error and end.nfe == 10 and end.value.rate == 24000 and np.abs(end.value.samples).max() > 0
    end = sung(published[1], "diffsinger", speedup=20)[-1]
    assert not end.error and end.nfe == 5 and [m.value for m in end.metrics if m.name == "k"] == [100]


@pytest.mark.parametrize(("which", "slug", "knobs", "said"), [
    (0, "full_diffusion", {}, "k = 60 at most"), (0, "diffsinger", {"k": 61}, "k = 60 at most"), (0, "diffsinger", {"vocoder": "griffin-lim"}, "its own vocoder"),
    (1, "auxiliary", {}, "no decoder"), (1, "diffsinger", {"k": 50}, "noise alone"),
])  # fmt: skip
def test_what_a_checkpoint_was_not_trained_for_is_a_sentence(published, sung, which, slug, knobs, said):
    end = sung(published[which], slug, **knobs)[-1]
    assert said in end.error and end.error.endswith(".")


def test_the_end_to_end_pitch_is_heard_from_the_mel(published):
    model = singer_hub.load(card(published[1]))
    song = model.lay_out(check(SCORE, 100, singing.MANDARIN), 100, 0.25)
    low, high = (model.hertz(song, torch.full((1, len(song.f0), 80), level))[0] for level in (-1.0, 1.0))
    assert song.voiced is None and low.shape == (1, len(song.f0)) and not torch.allclose(low, high)
    plot = model.pitch(song, torch.full((1, len(song.f0), 80), 1.0)).series
    assert np.allclose(440 * 2 ** ((np.array(plot["pitch"][1]) - 69) / 12), high[0], rtol=1e-4)


# --- the networks ----------------------------------------------------------------------------------------


def digest(names: dict) -> tuple[int, str]:
    lines = "\n".join(f"{name} {tuple(shape)}" for name, shape in sorted(names.items()))
    return len(names), hashlib.sha256(lines.encode()).hexdigest()[:16]


def test_published_sizes_have_the_official_tensors():
    """Digests and counts are of the official modules with Opencpop's configs: 41.0 M (cascade), 39.3 M (end to end), 3.3 M (pitch extractor)."""
    count = lambda *nets: round(sum(p.numel() for net in nets for p in net.parameters()) / 1e6, 3)  # noqa: E731
    cascade, other = (tiny.meta(fastspeech_midi.FastSpeech2MIDI, **fastspeech_midi.SHAPE | {"pitch": pitch}) for pitch in (True, False))
    wavenet = tiny.meta(SingerDenoiser, condition=256, channels=256, layers=20, dilation_cycle=4, readout=False)
    heard, voice = tiny.meta(fastspeech_midi.PitchExtractor), tiny.meta(nsf_hifigan.NSFHifiGAN, **nsf_hifigan.SHAPE)
    assert digest(tiny.acoustic_names(cascade)) == (141, "66b4c642298b4317") and digest(tiny.wavenet_names(wavenet)) == (170, "0d61cfc076486f7f")
    shapes = {name: tensor.shape for name, tensor in heard.state_dict().items()}
    assert digest(shapes | tiny.positions(shapes)) == (59, "891cc3635a19702f")
    assert (count(cascade, wavenet), count(other, wavenet), count(heard)) == (40.996, 39.276, 3.257)
    weights = sum(shape.numel() for shape in tiny.vocoder_names(voice).values())
    assert weights == 933_068  # of configs/tts/hifigan.yaml; Opencpop's vocoder says its own in its config.yaml


def near(made: torch.Tensor, wanted: list[float]):
    some = made.flatten()[:: max(1, made.numel() // len(wanted))][: len(wanted)]
    assert some.tolist() == pytest.approx(wanted, abs=2e-4)


def test_forward_passes_are_the_official_codes(published):
    """Of every quarter of each output the first number, as the official code gives them on these checkpoints."""
    acoustic, denoiser, vocoder, *_ = singer_hub.read(published[0], "It")
    extractor = singer_hub.read(published[1], "It")[3]
    for net in (acoustic, denoiser, vocoder, extractor):
        net.eval()
    with torch.no_grad():
        notes, seconds = torch.tensor([[0, 61, 61, 66, 66, 68, 0]]), torch.tensor([[0.8, 0.4, 0.4, 0.3, 0.3, 0.2, 0.5]])
        states, frames = acoustic.encode(torch.tensor([[4, 60, 23, 21, 9, 9, 3]]), notes, seconds, torch.tensor([[0, 0, 0, 0, 0, 1, 0]]))
        assert frames[0].tolist() == [9, 13, 5, 0, 0, 0, 1]
        condition, pitch = acoustic.condition(states, frames[0].long())
        hertz, voiced = fastspeech_midi.pitched(pitch)
        assert voiced.all()
        near(hertz / 1000, [0.1571516, 0.5639608, 0.3849282, 0.5393358])
        near(acoustic.decode(condition), [-2.1614, -2.2522, -1.3443, -1.2566])
        x = torch.sin(torch.arange(80 * 28) * 0.1).view(1, 28, 80)
        near(denoiser(x, torch.tensor([37]), condition), [2.2947, 1.9775, 0.6043, 0.4645])
        mel = torch.sin(torch.arange(80 * 9) * 0.1).view(1, 9, 80)
        near(extractor(mel), [7.8409, 10.6512, 7.3263, 9.1034])


def test_the_vocoders_source_is_the_official_one(published, monkeypatch):
    """Without its noise, which both draw at random."""
    vocoder = singer_hub.read(published[0], "It")[2].eval()
    for name in ("randn", "rand"):
        monkeypatch.setattr(torch, name, lambda *shape, generator: torch.zeros(*shape))
    with torch.no_grad():
        wave = vocoder(torch.sin(torch.arange(80 * 9) * 0.1).view(1, 9, 80), torch.tensor([[220.0, 221, 222, 0, 0, 230, 231, 232, 233]]), None)
    assert wave.shape == (1, 1152)
    near(wave, [0.1367, 0.1355, 0.1342, 0.1354, 0.1357, 0.1544])


# --- what is refused -------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def config(**changes):
    return lambda home, acoustic: (acoustic / "config.yaml").write_text(yaml.safe_dump(tiny.CONFIG | changes))


def tensors(change):
    """Write the acoustic checkpoint anew, with its tensors changed."""

    def write(_, acoustic):
        own = tiny.acoustic()
        change(own)
        tiny.saved(acoustic, tiny.CONFIG, own)

    return write


def vocoder(config=tiny.VOCODER, held=None):
    return lambda home, acoustic: tiny.saved(home / "0109_hifigan_bigpopcs_hop128", config, {"model_gen": {}} if held is None else held, 1512000)


BROKEN = {
    "has no config.yaml in 0303": lambda home, acoustic: (acoustic / "config.yaml").unlink(),
    "no valid YAML": lambda home, acoustic: (acoustic / "config.yaml").write_text("a: [1"),
    "has no model_ckpt_steps": lambda home, acoustic: (acoustic / "model_ckpt_steps_160000.ckpt").unlink(),
    r"otherwise \(timesteps = 1000, max_beta = 0.02\)": config(timesteps=1000, max_beta=0.02),
    r"otherwise \(use_spk_id = True\)": config(use_spk_id=True),
    "begins at step 60 from noise of 100": config(gaussian_start=True),
    "no folder 0000_other beside": config(vocoder_ckpt="checkpoints/0000_other"),
    "no folder pe_ckpt beside": config(pe_enable=True),
    "differ in hop_size": config(hop_size=256),
    r"differ in hop_size \(128 and 64\)": vocoder(tiny.VOCODER | {"upsample_rates": [8, 4, 2]}),
    "holds in another shape than its config.yaml says encoder_embed": config(hidden_size=32),
    r"acoustic model lacks encoder.layers.2.* and 9 more": config(enc_layers=3),
    "denoiser holds besides blocks.2": config(residual_layers=2),
    "predicts no pitch": lambda home, acoustic: tiny.saved(acoustic, tiny.CONFIG | {"use_pitch_embed": False}, tiny.acoustic(False)),
    "acoustic model lacks is_slur_embed.weight;": tensors(lambda own: own.pop("model.fs2.is_slur_embed.weight")),
    "takes the pitch from a recording": tensors(lambda own: own.pop("model.fs2.midi_embed.weight")),
    "noise levels": tensors(lambda own: own.update({"model.alphas_cumprod": torch.linspace(1, 0, 100)})),
    "lacks spec_max": tensors(lambda own: own.pop("model.spec_max")),
    "model_ckpt_steps_160000.ckpt holds no state_dict": lambda home, acoustic: torch.save([1], acoustic / "model_ckpt_steps_160000.ckpt"),
    "vocoder has no config.yaml": lambda home, acoustic: (home / "0109_hifigan_bigpopcs_hop128" / "config.yaml").unlink(),
    "vocoder lacks m_source": vocoder(),
    "vocoder holds no model_gen": vocoder(held={"model_disc": {}}),
    r"vocoder was trained otherwise \(use_pitch_embed = False\)": vocoder(tiny.VOCODER | {"use_pitch_embed": False}),
    "can't be read": lambda home, acoustic: (acoustic / "model_ckpt_steps_160000.ckpt").write_bytes(b"\x80"),
    "files of .* can't be read": lambda home, acoustic: torch.save({"state_dict": Evil()}, acoustic / "model_ckpt_steps_160000.ckpt"),
    "The files .* can't be read": lambda home, acoustic: (acoustic / "model_ckpt_steps_160000.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()})),
}  # fmt: skip


@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_checkpoint_is_a_sentence(tmp_path, capsys, said):
    acoustic = tiny.checkpoints(tmp_path)
    BROKEN[said](tmp_path, acoustic)
    with pytest.raises(BadInput, match=said) as refused:
        singer_hub.load(card(acoustic))
    assert "DiffSinger, Opencpop cascade" in str(refused.value) and str(refused.value).endswith(".")
    assert capsys.readouterr().out.strip() != "run"  # no code of the pickles was run


def test_the_checkpoint_of_most_steps_is_read(tmp_path):
    acoustic = tiny.checkpoints(tmp_path)
    changed = tiny.acoustic() | {"model.spec_min": torch.full((1, 1, 80), -5.0)}
    tiny.saved(acoustic, tiny.CONFIG, changed, 99000)
    assert (singer_hub.load(card(acoustic)).low == -6).all()
    tiny.saved(acoustic, tiny.CONFIG, changed, 1000000)
    assert (singer_hub.load(card(acoustic)).low == -5).all()


def test_it_is_offered_where_the_host_has_it(tmp_path):
    names = {"diffsinger-opencpop", "diffsinger-opencpop-e2e"}
    assert not names & {c.name for c in cards.hosted(None)}
    found, other = cards.hosted("diffsinger-opencpop=/checkpoints/0303, diffsinger-opencpop-e2e=/checkpoints/0228")
    assert found.source == "/checkpoints/0303" and {found.name, other.name} == names
    with pytest.raises(BadInput, match="the host names in UNNOISE_MODELS"):
        singer_hub.load(card(tmp_path / "nowhere"))
