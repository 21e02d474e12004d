"""Voicebanks for OpenUtau: what their networks are given, what is sung, what is refused, and how zips are unpacked."""

import stat
import time
import zipfile

import numpy as np
import pytest

from backends import BadInput, archive, cards, models, run
from backends.audio import bank_files, voicebank
from backends.audio.bank_line import spelled
from backends.audio.onnx_runs import Process, cast, finished
from backends.audio.scores import check
from backends.spec import Audio, Note, Outcome, Step
from tests.tiny_bank import BINS, HELD, HOP, RATE, VARIANCES, bank, elsewhere, endless, predictors, zipped

SCORE = "さ:A4:1 く:A4:1 ら:B4:2 ー:C5:1"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(path, vocoder=""):
    return voicebank.load(cards.voicebank("voicebank-tiny", f"{path};{vocoder}" if vocoder else str(path)))


@pytest.fixture
def sung(tmp_path):
    """Runs an arm on a bank, as a recipe does; gives its events."""
    made = []

    def sing(path, slug="diffsinger", seed=1, score=SCORE, **knobs):
        card = cards.voicebank("voicebank-tiny", str(path))
        models.CARDS[card.name] = card
        made.append(models._cache.pop(card.name, None))
        job = {"task": "sing", "model": card.name, "job": {"score": score, "seed": seed}, "arms": [{"method": slug, "knobs": knobs}]}
        return [e.event for e in run(job)]

    yield sing
    models.CARDS.pop("voicebank-tiny", None)
    models.clear()


def mel_of(model, k=60, steps=60, seed=1, score=SCORE):
    line = model.lay_out(check(score, 100), 100, 0.25)
    return line, finished(model.mel(line, k, steps, seed))[0]


# --- what the networks are given -------------------------------------------------------------------------


def test_the_network_is_given_the_score(tmp_path):
    model = opened(bank(tmp_path / "a"))
    line, mel = mel_of(model)
    ids = {name: i for i, name in enumerate(HELD, 1)}
    assert line.names == ("SP", "s", "a", "k", "u", "r", "a", "a", "SP")  # a ー goes on with its vowel
    assert (mel[:, 3] == np.repeat([ids[n] for n in line.names], line.frames)).all(), "each phoneme as long as its duration says"
    assert np.allclose(mel[:, 0], 0.001 * 440 * 2 ** ((line.f0 - 69) / 12), rtol=1e-5), "f0 in Hz"
    assert np.allclose(mel[:, 1], 0.6) and (mel[:, 2] == 60).all(), "depth as a share, steps"
    assert (mel[:, 5] == 0).all() and (mel[:, 6] == 1).all(), "gender and velocity are neutral"


def test_vowels_begin_on_the_beat_and_consonants_before_it(tmp_path):
    model = opened(bank(tmp_path / "a"))
    line = model.lay_out(notes := check(SCORE, 100), 100, 0.25)
    starts = np.cumsum([0, *line.frames]) * HOP / RATE
    rests = notes[0].beats * 0.6
    assert np.allclose([starts[line.names.index(v)] for v in ("a", "u")], [rests, rests + 0.6], atol=HOP / RATE)
    assert line.frames.sum() == len(line.f0) and (line.frames > 0).all()
    short = model.lay_out(check("しゃ:A4:0.11 さ:A4:0.11 しゃ:A4:0.11", 100), 100, 0.25)
    assert (short.frames > 0).all() and short.frames.sum() == len(short.f0)


@pytest.mark.parametrize(("k", "steps", "depth", "speedup"), [(60, 60, 600, 10), (60, 12, 600, 50), (53, 11, 528, 48), (0, 1, 0, 1)])
def test_old_exports_count_steps_of_a_thousand(tmp_path, k, steps, depth, speedup):
    model = opened(bank(tmp_path / "a", legacy=True))
    assert model.deepest == 60
    _, mel = mel_of(model, k, steps)
    assert (mel[:, 1] == depth).all() and (mel[:, 2] == speedup).all() and depth % speedup == 0


def test_an_old_export_without_depth_divides_the_thousand(tmp_path):
    model = opened(bank(tmp_path / "a", legacy=True, shallow=False))
    for steps, speedup in ((100, 10), (20, 50), (5, 200), (15, 50)):  # 66 is no divisor of 1000
        assert (mel_of(model, 100, steps)[1][:, 2] == speedup).all()


def test_what_predictors_would_draw_is_neutral_in_song_and_silence(tmp_path):
    model = opened(bank(tmp_path / "a", extra=VARIANCES[:3]))
    line, mel = mel_of(model)
    for i, (song, silence) in enumerate([(-20, -96), (-50, -96), (-20, -96)], 5):
        assert (mel[line.sung, i] == song).all() and (mel[~line.sung, i] == silence).all()


def test_the_first_speaker_sings(tmp_path, sung):
    path = bank(tmp_path / "a", speaker=True)
    assert (mel_of(opened(path))[1][:, 7] == 0 + 1 + 2 + 3).all()
    assert any("voice.soft" in e.text for e in sung(path) if isinstance(e, Note))
    (path / "voice.soft.emb").unlink()
    with pytest.raises(BadInput, match="no file 'voice.soft.emb'"):
        opened(path)


@pytest.mark.parametrize("as_json", [True, False])
def test_phonemes_as_a_table_or_as_lines(tmp_path, as_json):
    model = opened(bank(tmp_path / "a", as_json=as_json))
    assert model.bank.phonemes == {name: i for i, name in enumerate(HELD, 1)} | ({} if as_json else {"<PAD>": 0})


def test_mels_of_either_base_reach_the_vocoder_in_its_own(tmp_path):
    sounds = {}
    for mine in ("e", "10"):
        for other in ("e", "10"):
            model = opened(bank(tmp_path / (mine + other), vocoder_base=other, config={"mel_base": mine}))
            line = model.lay_out(check(SCORE, 100), 100, 0.25)
            mel = finished(model.mel(line, 60, 60, 1))
            sounds[mine + other] = finished(model.voice(mel, line, 1)).samples
    ratio = np.log(10)
    assert np.allclose(sounds["ee"], sounds["1010"], rtol=1e-4)
    assert np.allclose(sounds["e10"] * ratio, sounds["ee"], rtol=1e-4) and np.allclose(sounds["10e"], sounds["ee"] * ratio, rtol=1e-4)


@pytest.mark.parametrize("words", [True, False])
def test_the_banks_own_predictor_draws_the_curves(tmp_path, sung, words):
    path = bank(tmp_path / "a", extra=("energy", "breathiness", "tension"))
    assert any("energy, breathiness, tension" in e.text for e in sung(path) if isinstance(e, Note))
    predictors(path / "dsvariance", words=words)
    assert not any("even values" in e.text for e in sung(path) if isinstance(e, Note))
    model = opened(path)
    line = model.lay_out(check(SCORE, 100), 100, 0.25)
    curves = finished(model.curves(line, 1))
    mel = finished(model.mel(line, 60, 60, 1, curves))[0]
    assert (mel[:, 5] == 0).all(), "energy is 0 dB at most"
    assert np.allclose(mel[:, 6], line.f0 - 100, atol=1e-3) and (mel[:, 7] == voicebank.PREDICTOR_STEPS).all()


def test_the_banks_own_predictor_shares_the_time_between_beats(tmp_path, sung):
    path = bank(tmp_path / "a")
    predictors(path / "dsdur")
    model, ids = opened(path), {name: i for i, name in enumerate(HELD, 1)}
    line = model.lay_out(check(SCORE, 100), 100, 0.25)
    made = finished(model.timed(line, 1))
    starts = np.flatnonzero(line.begins)
    assert (np.add.reduceat(made.frames, starts) == np.add.reduceat(line.frames, starts)).all(), "no beat moves"
    for i in np.flatnonzero(~line.begins):
        span = made.frames[i - 1] + made.frames[i]
        share = ids[line.names[i]] / (ids[line.names[i]] + ids[line.names[i - 1]])
        wanted = ids[line.names[i]] if line.rests[i - 1] else span * min(0.5, share)  # a rest doesn't draw out what follows
        assert abs(made.frames[i] - wanted) <= 1
    assert not sung(path)[-1].error and made.sung.sum() == made.frames[~line.rests].sum()


def test_words_begin_at_vowels(tmp_path, monkeypatch):
    path = bank(tmp_path / "a")
    predictors(path / "dsdur")
    model, seen = opened(path), {}
    monkeypatch.setattr(voicebank, "cast", lambda inputs, values: seen.update(values) or cast(inputs, values))
    line = model.lay_out(check("さ:A4:1 rest:1 く:A4:1", 100), 100, 0.25)
    finished(model.timed(line, 1))
    assert line.names == ("SP", "s", "a", "SP", "k", "u", "SP") and seen["word_div"][0].tolist() == [2, 1, 2, 1, 1]
    assert sum(seen["word_dur"][0]) == line.frames.sum() and seen["ph_midi"][0].tolist() == [69] * 7


def test_a_predictor_of_other_frames_is_not_asked_and_one_of_other_phonemes_refused(tmp_path, sung):
    path = bank(tmp_path / "a", extra=("breathiness",))
    predictors(path / "dsvariance", hop_size=256)
    assert "variance" not in opened(path).bank.predictors and not sung(path)[-1].error
    other = bank(tmp_path / "b", extra=("breathiness",))
    predictors(other / "dsvariance", phonemes=[p for p in HELD if p != "k"])
    assert "predictor has no phoneme k" in sung(other)[-1].error


# --- the methods on a bank -------------------------------------------------------------------------------


def test_a_bank_sings_by_the_same_methods(tmp_path, sung):
    path = bank(tmp_path / "a")
    events = sung(path)
    end, steps = events[-1], [e for e in events if isinstance(e, Step)]
    assert isinstance(end, Outcome) and not end.error and end.nfe == 60 and end.value.rate == RATE
    assert abs(end.value.seconds - 7 * 0.6) < 0.02 + 0.6 and end.value.marks
    assert [s.show.caption for s in steps if s.i == 1][0] == "the decoder's mel" and steps[-1].i == steps[-1].n == 2
    assert {m.name for m in end.metrics} >= {"k", "real-time factor"}
    assert sung(path, speedup=5)[-1].nfe == 12 and sung(path, k=30)[-1].nfe == 30
    assert sung(path, "auxiliary")[-1].nfe == 0 and not sung(path, "auxiliary")[-1].error
    assert end.recipe["outcome"]["model_revision"] == bank_files.read(path, None, "it").revision


def test_same_seed_same_bits_of_a_bank(tmp_path, sung):
    path = bank(tmp_path / "a")
    one, two, other = (sung(path, seed=s)[-1].value.samples for s in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_a_bank_without_a_decoder_begins_from_noise(tmp_path, sung):
    path = bank(tmp_path / "a", shallow=False)
    assert sung(path)[-1].nfe == 100 and sung(path, "full_diffusion")[-1].nfe == 100
    assert "no decoder" in sung(path, "auxiliary")[-1].error and "noise alone" in sung(path, k=30)[-1].error


@pytest.mark.parametrize(("slug", "knobs", "said"), [
    ("full_diffusion", {}, "k = 60 at most"), ("diffsinger", {"k": 61}, "k = 60 at most"), ("diffsinger", {"vocoder": "griffin-lim"}, "its own vocoder"),
])  # fmt: skip
def test_what_a_bank_can_not_do_is_a_sentence(tmp_path, sung, slug, knobs, said):
    end = sung(bank(tmp_path / "a"), slug, **knobs)[-1]
    assert said in end.error and end.error.endswith(".")


def test_stopped_it_leaves_the_decoders_sound(tmp_path):
    models.CARDS["voicebank-tiny"] = cards.voicebank("voicebank-tiny", str(bank(tmp_path / "a")))
    models._cache.pop("voicebank-tiny", None)
    models.load("voicebank-tiny")
    asked = iter([False, False, False])
    try:
        job = {"task": "sing", "model": "voicebank-tiny", "job": {"score": SCORE}, "arms": [{"method": "diffsinger"}]}
        seen = []
        for event in run(job, stop=lambda: any(isinstance(e, Step) for e in seen) or next(asked, False)):
            seen.append(event.event)
    finally:
        del models.CARDS["voicebank-tiny"]
        models.clear()
    assert seen[-1].stopped and isinstance(seen[-1].value, Audio) and seen[-1].nfe == 0


def test_the_page_offers_a_bank_to_sing(tmp_path, monkeypatch):
    from backends import TASKS
    from ui import form

    monkeypatch.setitem(models.CARDS, "voicebank-tiny", cards.voicebank("voicebank-tiny", "/nowhere"))
    assert ("Voicebank tiny", "voicebank-tiny") in form.cards(TASKS["sing"]) and ("Voicebank tiny", "voicebank-tiny") not in form.cards(TASKS["text_to_image"])


def test_stopped_while_the_network_works_it_ends_the_work(tmp_path):
    process = Process("The bank")
    work = process.worked(endless(tmp_path / "endless.onnx"), 0, {"x": np.zeros(1, np.float32)})
    assert next(work) is None
    began = time.perf_counter()
    work.close()
    assert process.child.poll() is not None and time.perf_counter() - began < 5, "its process is gone"
    assert set(process.taken(bank(tmp_path / "a") / "acoustic.onnx")) > {"tokens", "f0"}, "and is there again for the next"


# --- phonemes --------------------------------------------------------------------------------------------


def test_phones_are_spelled_as_the_bank_does():
    assert spelled("pau", {"SP": 1, "pau": 2}) == ("SP",) and spelled("sh", {"sy": 1}) == ("sy",)
    assert spelled("a", {"en/a": 1, "ja/a": 2}) == ("ja/a",) and spelled("N", {"n": 1}) == ()
    assert spelled("ry", {"r": 1, "y": 2}) == ("r", "y") and spelled("ry", {"ry": 3, "r": 1, "y": 2}) == ("ry",) and spelled("ry", {"r": 1}) == ()


def test_an_unknown_phoneme_is_a_sentence(tmp_path, sung):
    path = bank(tmp_path / "a", phonemes=[p for p in HELD if p != "ts"])
    assert "no phoneme for ts (in つ)" in sung(path, score="つ:A4:1")[-1].error
    assert not sung(path, score="りゃ:A4:1")[-1].error  # r and y


def test_a_bank_without_japanese_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no phoneme for u, o; Japanese"):
        opened(bank(tmp_path / "a", phonemes=[p for p in HELD if p not in "uo"]))


# --- files -----------------------------------------------------------------------------------------------


def test_a_zip_is_unpacked_once_by_its_content(tmp_path):
    folder = bank(tmp_path / "a")
    file = zipped(folder, tmp_path / "bank.zip")
    first = opened(file)
    home = archive.cache() / archive.digest(file)
    assert first.bank.folder == home / "Tiny Voice" and not list(home.rglob("character.png"))
    before = first.bank.acoustic.stat().st_mtime_ns
    file.rename(tmp_path / "other.zip")
    assert opened(tmp_path / "other.zip").bank.acoustic.stat().st_mtime_ns == before
    assert [p.name for p in archive.cache().iterdir()] == [home.name], "nothing is left over"


def test_the_vocoder_may_stand_in_a_zip_of_its_own(tmp_path):
    folder = bank(tmp_path / "a")
    voc = zipped(folder / "dsvocoder", tmp_path / "nsf.zip", "")
    for one in (folder / "dsvocoder").iterdir():
        one.unlink()
    with pytest.raises(BadInput, match="brings no vocoder .nsf."):
        opened(folder)
    assert opened(folder, voc).bank.vocoder.name == "nsf.onnx"


BROKEN = {
    "no dsconfig.yaml": lambda f: (f / "dsconfig.yaml").unlink(),
    "no valid YAML": lambda f: (f / "dsconfig.yaml").write_text("acoustic: [1"),
    "dsconfig.yaml is no valid YAML": lambda f: (f / "dsconfig.yaml").write_text("a: &a [1, 1]\nacoustic: [*a, *a]"),
    "says nothing": lambda f: (f / "dsconfig.yaml").write_text("- 1"),
    "larger than 1 MB": lambda f: (f / "dsconfig.yaml").write_bytes(b"#" * 2**21),
    "not written in UTF-8": lambda f: (f / "dsconfig.yaml").write_bytes("acoustic: さ".encode("utf-16")),
    "no file 'acoustic.onnx'": lambda f: (f / "acoustic.onnx").unlink(),
    "acoustic.onnx can't be read": lambda f: (f / "acoustic.onnx").write_bytes((f / "acoustic.onnx").read_bytes()[:200]),
    "no table of names": lambda f: (f / "phonemes.json").write_text("[1, 2]"),
    "it is no DiffSinger voicebank": lambda f: (f / "acoustic.onnx").write_bytes((f / "dsvocoder" / "nsf.onnx").read_bytes()),
}  # fmt: skip


@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_bank_is_a_sentence(tmp_path, said):
    folder = bank(tmp_path / "a")
    BROKEN[said](folder)
    with pytest.raises(BadInput, match=said) as refused:
        opened(folder)
    assert str(refused.value).startswith("Voicebank tiny")


@pytest.mark.parametrize(("config", "said"), [
    ({"hop_size": 256}, "differ in hop_size"), ({"mel_fmax": 12000}, "differ in mel_fmax"), ({"mel_base": "2"}, "base 2 and e"),
    ({"acoustic": "../../bank.onnx"}, "no file"), ({"acoustic": "/etc/passwd"}, "no file"), ({"max_depth": "deep"}, "no number"), ({"phonemes": "none.json"}, "no file"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(tmp_path, config, said):
    with pytest.raises(BadInput, match=said):
        opened(bank(tmp_path / "a", config=config))


def test_inputs_that_are_not_known_are_refused(tmp_path):
    with pytest.raises(BadInput, match="asks for magic"):
        opened(bank(tmp_path / "a", extra=("magic",)))


def test_weights_outside_the_bank_are_not_read(tmp_path):
    folder = bank(tmp_path / "a")
    (tmp_path / "secret.bin").write_bytes(np.full(8, 1000, "<f4").tobytes())
    elsewhere(folder / "acoustic.onnx", "../secret.bin")
    with pytest.raises(BadInput, match="acoustic.onnx can't be read"):
        opened(folder)


def test_files_that_do_not_fit_together_are_a_sentence(tmp_path, sung):
    assert "don't fit together" in sung(bank(tmp_path / "a", bins=BINS + 1))[-1].error


def raw(path, *entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def link(name="dsconfig.yaml"):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(("entries", "said"), [
    ([("../../evil.yaml", "x")], "leads out"), ([("/evil.yaml", "x")], "leads out"), ([("..\\evil.txt", "x")], "leads out"), ([("c:evil.yaml", "x")], "leads out"),
    ([("a/../../evil.png", "x")], "leads out"), ([(link(), "/etc/passwd")], "a link"), ([("A.yaml", "x"), ("a.yaml", "y")], "two files of one name"),
    ([("zeros.onnx", b"\0" * (archive.RATIO * 2**20))], "more than is allowed"), ([(f"{i}.txt", "") for i in range(archive.ENTRIES + 1)], "at most 5,000"),
    ([(f"{i:0250}.txt", "") for i in range(archive.DIRECTORY // 200)], "too long a list of files"),
    ([("a.yaml", "x"), ("a.yaml/b.yaml", "y")], "could not be unpacked"),
])  # fmt: skip
def test_a_zip_that_is_not_to_be_trusted_is_refused(tmp_path, entries, said):
    file = raw(tmp_path / "bank.zip", *entries)
    with pytest.raises(BadInput, match=said):
        opened(file)
    assert not any(archive.cache().iterdir()) and not list(tmp_path.rglob("evil*")), "nothing is left"


def test_a_zip_that_is_none_or_is_broken_is_refused(tmp_path):
    whole = zipped(bank(tmp_path / "a"), tmp_path / "bank.zip").read_bytes()
    scratched = bytearray(whole)
    at = whole.index(b"acoustic.onnx") + 60
    scratched[at : at + 40] = b"\xff" * 40
    for name, data in {"short": whole[:-100], "text": b"hello", "empty": b"", "scratched": bytes(scratched)}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match="no whole zip"):
            opened(tmp_path / name)
    assert not any(archive.cache().iterdir())
    with pytest.raises(BadInput, match="not where UNNOISE_MODELS says"):
        opened(tmp_path / "nowhere.zip")


def test_a_zip_that_lies_about_its_size_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SMALL", 1000)
    monkeypatch.setattr(archive, "RATIO", 2)
    with pytest.raises(BadInput, match="more than is allowed"):
        archive.unpacked(raw(tmp_path / "bank.zip", ("a.txt", "a" * 50_000)), (".txt",), "The bank")


# --- cards -----------------------------------------------------------------------------------------------


def test_the_host_names_banks():
    one, other = cards.hosted("voicebank=/banks/a@2.zip;/banks/nsf.zip, voicebank-haru=/banks/haru")
    assert (one.name, one.source, one.title) == ("voicebank", "/banks/a@2.zip;/banks/nsf.zip", "Voicebank")
    assert (other.name, other.source, other.title) == ("voicebank-haru", "/banks/haru", "Voicebank haru") and not other.embedded
    with pytest.raises(ValueError, match="voicebank and no file"):
        cards.hosted("voicebank")
    assert not any(c.name.startswith("voicebank") for c in cards.hosted(None))
