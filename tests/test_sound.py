"""Sounds: what is taken and refused, that they travel with their recipe, and how they are drawn."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile

import backends
from backends import headless, inputs, recipe, sound
from backends.spec import Audio, BadInput, Note, Outcome, Result, Spectrogram, Step
from ui import form, results, views
from ui import sound as drawn_sound

RATE = 16_000
TONE = Audio((0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32), RATE)
RESULT = {"schema": 1, "task": "text_to_image", "model": "emoji-ldm", "job": {"prompt": "é", "seed": 7}, "arms": [{"method": "ddim"}]}


def encoded(kind="WAV", samples=TONE.samples, rate=RATE, **options) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, **options)
    return out.getvalue()


def picture_bytes() -> bytes:
    return recipe.png(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_the_content_says_what_a_file_is_not_its_name(tmp_path, kind):
    path = tmp_path / "called.wav"
    path.write_bytes(encoded(kind))
    heard = inputs.sound(path)
    assert heard.rate == RATE and heard.samples.dtype == np.float32 and abs(heard.seconds - 1) < 0.1
    assert abs(np.abs(heard.samples).max() - 0.5) < 0.1


def test_many_channels_are_mixed_and_the_rate_is_kept():
    wide = np.repeat(TONE.samples[:, None], 8, 1) * np.linspace(0, 1, 8, dtype=np.float32)
    heard = inputs.sound(encoded(samples=wide, rate=192_000))
    assert heard.rate == 192_000 and heard.samples.shape == (RATE,)
    assert np.abs(heard.samples - wide.mean(1)).max() < 1e-4


def test_one_channel_and_two_alike_are_taken_as_they_are():
    for samples in (TONE.samples, np.stack([TONE.samples] * 2, 1)):
        assert (inputs.sound(encoded(samples=samples, subtype="FLOAT")).samples == inputs.sound(TONE).samples).all()


def test_channels_of_opposite_sign_are_not_mixed_to_silence():
    heard = inputs.sound(encoded(samples=np.stack([TONE.samples, -TONE.samples], 1)))
    assert np.abs(heard.samples - TONE.samples).max() < 1e-3


def test_louder_than_full_scale_is_turned_down_and_silence_is_taken():
    assert np.abs(inputs.sound(encoded(samples=TONE.samples * 6, subtype="FLOAT")).samples).max() == pytest.approx(1, abs=1e-3)
    assert not inputs.sound(encoded(samples=np.zeros(RATE))).samples.any()


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"hello", "can't be read"),
    "a picture": (picture_bytes(), "can't be read"),
    "noise after a good start": (b"fLaC" + bytes(range(200)), "can't be read"),
    "NaN": (encoded(samples=np.full(RATE, np.nan), subtype="FLOAT"), "not numbers"),
    "no samples": (encoded(samples=np.zeros(0)), "holds no sound"),
    "a click": (encoded(samples=np.zeros(9)), "holds no sound"),
    "an hour": (encoded("FLAC", np.zeros(3600 * 4000, np.int16), 4000), r"longer than 2 s \(it lasts 60 minutes\)"),
    "three seconds": (encoded(samples=np.zeros(3 * RATE)), r"longer than 2 s \(it lasts 3 s\)"),
    "a slow rate": (encoded(samples=np.zeros(1000), rate=1000), "rate of 1,000 Hz"),
    "too many channels": (encoded(samples=np.zeros((RATE, 40))), "40 channels"),
    "too many bytes": (b"RIFF" + bytes(inputs.MAX_BYTES), "larger than 32 MB"),
    "half a WAV": (encoded()[: RATE], "cut off"),
    "half a FLAC": (encoded("FLAC")[:4000], "can't be read|cut off"),
    "half an MP3": (encoded("MP3")[:1600], "cut off"),
    "the start of an MP3": (encoded("MP3")[:60], "can't be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sound_gets_a_sentence(name, tmp_path):
    data, sentence = BAD[name]
    with pytest.raises(BadInput, match=sentence):
        inputs.sound(data, longest=2)
    path = tmp_path / "dropped.flac"
    path.write_bytes(data)
    with pytest.raises(BadInput):
        recipe.from_file(path)


def test_a_stream_whose_header_does_not_know_its_length_is_whole():
    data = bytearray(encoded())
    data[40:44] = b"\xff" * 4
    assert len(inputs.sound(bytes(data)).samples) == RATE


def test_a_picture_is_no_sound_and_a_sound_no_picture():
    with pytest.raises(BadInput, match="is a picture"):
        inputs.sound(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BadInput, match="is a sound"):
        inputs.picture(TONE)
    with pytest.raises(BadInput, match="can't be read"):
        inputs.picture(encoded())


def test_a_result_carries_its_recipe_and_its_inputs(tmp_path):
    heard = inputs.sound(encoded("MP3"))
    name, path = recipe.digest(heard), tmp_path / "result.flac"
    path.write_bytes(recipe.flac(TONE, RESULT, {name: heard}))
    read, carried = recipe.from_file(path)
    assert read == RESULT and list(carried) == [name]
    assert (carried[name].samples == heard.samples).all() and carried[name].rate == RATE
    assert recipe.digest(inputs.sound(path)) == recipe.digest(TONE), "the hash is the same before the file and after it"
    written = tmp_path / "recipe.json"
    written.write_text(json.dumps(RESULT | {"inputs": recipe.encode_inputs({name: heard})}))
    assert list(recipe.from_file(written)[1]) == [name]


def test_a_sound_made_elsewhere_carries_no_recipe(tmp_path):
    path = tmp_path / "other.wav"
    path.write_bytes(encoded())
    with pytest.raises(BadInput, match="sound carries no recipe"):
        recipe.from_file(path)


def test_inputs_too_large_for_a_tag_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "MAX_TAG", 1000)
    path = tmp_path / "result.flac"
    path.write_bytes(recipe.flac(TONE, RESULT, {recipe.digest(TONE): TONE}))
    assert recipe.from_file(path) == (RESULT, {})


def test_a_wav_beside_a_recipe_is_taken():
    named = recipe.decode_inputs({"any": base64.b64encode(encoded()).decode()})
    assert set(named) == {"any", recipe.digest(inputs.sound(encoded()))}, "a job may name it either way"


def test_another_rate_keeps_the_tone():
    made = sound.resample(TONE.samples, RATE, 24_000)
    assert made.shape == (24_000,) and made.dtype == np.float32
    assert np.abs(np.fft.rfft(made)).argmax() == 1000
    assert (sound.resample(TONE.samples, RATE, RATE) == TONE.samples).all()


def test_loudness_leaves_pauses_out():
    assert sound.loudness(TONE) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert sound.loudness(Audio(np.concatenate([TONE.samples, np.zeros(3 * RATE, np.float32)]), RATE)) == pytest.approx(sound.loudness(TONE), abs=0.01)
    assert sound.loudness(Audio(np.zeros(RATE, np.float32), RATE)) == -np.inf


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 192_000])
@pytest.mark.parametrize("seconds", [0.05, 1, 20])
def test_the_mel_spectrogram_shows_the_tone_and_stays_small(rate, seconds):
    wave = np.sin(2 * np.pi * 1000 * np.arange(int(seconds * rate)) / rate).astype(np.float32)
    drawn = sound.log_mel(Audio(wave, rate))
    assert drawn.values.shape[0] == 96 and drawn.values.shape[1] <= 485
    assert drawn.values.max() == pytest.approx(0, abs=0.1) and drawn.values.min() >= -sound.FLOOR
    assert drawn.top == rate / 2 and drawn.seconds == pytest.approx(seconds)
    assert np.isfinite(sound.log_mel(Audio(np.zeros(rate, np.float32), rate)).values).all()


# --- a task of sounds, from the recipe to the page ---------------------------------------------------------


@pytest.fixture
def listen(tiny):
    from tests.fake_audio import listening

    with listening() as task:
        yield task


def asked(value: Audio | None = TONE, **parts) -> tuple[dict, dict]:
    heard = value and inputs.sound(value)
    job = {"sound": {"sha256": recipe.digest(heard)}} if heard else {}
    arms = [{"method": "as_it_came", "knobs": {}}, {"method": "quieter", "knobs": {}}]
    return {"task": "listen", "job": job, "arms": arms} | parts, {recipe.digest(heard): heard} if heard else {}


def test_a_job_with_a_sound_runs_and_its_recipe_makes_it_again(listen):
    given, sounds = asked()
    first = [e.event for e in backends.run(given, sounds) if isinstance(e.event, Outcome)][1]
    again = [e.event for e in backends.run(first.recipe, sounds) if isinstance(e.event, Outcome)][0]
    assert (first.value.samples == again.value.samples).all() and first.value.rate == RATE


@pytest.mark.parametrize(
    ("value", "parts", "said"),
    [
        (None, {}, "Sound is missing; add a sound"),
        (None, {"job": {"sound": {"sha256": "0"}}}, "names a sound that did not come"),
        (None, {"job": {"sound": "/etc/passwd"}}, "by their hash, not by a path"),
        (Audio(np.zeros(4 * RATE, np.float32), RATE), {}, "longer than 3 s"),
    ],
)
def test_a_job_without_its_sound_gets_a_sentence(listen, value, parts, said):
    with pytest.raises(BadInput, match=said):
        recipe.parse(*asked(value, **parts))


def test_a_picture_in_place_of_a_sound_gets_a_sentence(listen):
    with pytest.raises(BadInput, match="Sound is a picture; give a sound"):
        recipe.parse(asked(None, job={"sound": {"sha256": "x"}})[0], {"x": np.zeros((8, 8, 3), np.uint8)})


def test_results_are_written_with_their_recipe(listen, tmp_path):
    *_, end = headless.run(*asked(), tmp_path)
    file = end["recipe"]["outcome"]["arms"][1]["files"][0]
    assert file["name"] == "2-quieter.flac" and file["sha256"] == recipe.digest(inputs.sound(tmp_path / file["name"]))
    read, sounds = recipe.from_file(tmp_path / file["name"])
    task, job, arms = recipe.parse(read, sounds)
    assert task is listen and arms[0].method == "quieter" and job.sound.rate == RATE
    assert len(list(tmp_path.glob("input-*.flac"))) == 1
    recipe.parse(*recipe.from_file(tmp_path / "recipe.json"))


def test_the_tab_shows_each_step_then_players_and_a_switch(listen):
    given, sounds = asked()
    given = given | {"schema": 1, "model": listen.model, "arms": [a | {"stack": []} for a in given["arms"]]}
    from tests.boards import rows

    said = rows(given, sounds, ["a", "b"])
    lives = [row[-2] for row in said if isinstance(row[-2], str)]
    stepped = [html for html in lives if "step " in html]
    assert stepped and all('class="track map"' in html and "<audio" not in html for html in stepped), "drawn, not played, while it runs"
    assert lives[-1].count("<audio") == 1 and "unnoise-1-as_it_came" in lives[-1] and 'class="track wave"' in lives[-1]
    _, shown, *_ = said[-1]
    tracks = json.loads(shown.switch.split('data-tracks="')[1].split('"')[0].replace("&quot;", '"'))
    assert [t["arm"] for t in tracks] == [1, 2, 0], "both arms and the input"
    assert shown.switch.count("</i>sound</button>") == 1, "an input is called as its field is"
    assert tracks[1]["gain"] == 1 and tracks[0]["gain"] == pytest.approx(0.25, abs=0.01), "the louder is turned down to the quietest"
    assert len(results.under(shown)) == results.UNDER
    assert views.thumbnail(TONE).startswith('<img alt="sound" src="data:image/jpeg')
    import zipfile

    assert {"unnoise-1-as_it_came-0.flac", "unnoise-2-quieter-0.flac"} < set(zipfile.ZipFile(shown.bundle).namelist())


def test_an_upload_is_refused_on_the_page_in_the_words_of_the_api(listen, tmp_path, monkeypatch):
    import gradio as gr

    warned, told = [], []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: warned.append(text))
    monkeypatch.setattr(gr, "Info", lambda text, **_: told.append(text))
    path = tmp_path / "called.wav"
    path.write_bytes(picture_bytes())
    assert drawn_sound.taken(path, "Sound", 3) is None
    with pytest.raises(BadInput) as run:
        form.job(listen, ["sound"], [path])
    assert warned == [str(run.value)] and "can't be read" in warned[0]
    path.write_bytes(encoded(samples=np.zeros(RATE)))
    assert drawn_sound.taken(path, "Sound", 3) is not None and told == ["Sound is silent."]
    given, sounds = form.job(listen, ["sound"], [path])
    assert sounds[given["sound"]["sha256"]].rate == RATE
    with gr.Blocks():
        made = form.panel(listen, given, sounds)
    assert inputs.sound(drawn_sound.Path(made["sound"].value["path"])).seconds == 1, "what was given stands there when the tab is drawn anew"


def test_what_a_sound_says_is_escaped():
    evil = "<img src=x onerror=alert(1)>"
    said = views.media(Audio(TONE.samples, RATE, evil, {evil: 0.5}), "/x/" + evil) + views.media(Spectrogram(np.zeros((4, 4)), 1, 8000, evil))
    said += drawn_sound.switch([drawn_sound.track(evil, i, TONE, evil) for i in range(2)])
    assert "<img src=x" not in said and said.count("&lt;img") >= 5


@pytest.mark.parametrize("values", [np.zeros((4, 1)), np.full((3, 5), np.nan), np.full((3, 5), -np.inf), np.random.default_rng(0).normal(size=(80, 2000))])
@pytest.mark.parametrize("mel", [True, False])
def test_any_spectrogram_can_be_drawn_and_stays_small(values, mel):
    html = views.media(Spectrogram(values, 1.5, 8000.0, mel=mel))
    assert "data:image/png" in html and "kHz" in html and "1.5 s" in html and len(html) < 70_000


@pytest.mark.parametrize("samples", [np.zeros(1, np.float32), np.zeros(RATE, np.float32), np.full(9, np.nan, np.float32)])
def test_any_sound_can_be_drawn(samples):
    assert "<polygon" in views.media(Audio(samples, RATE))


def test_a_sound_from_a_stopped_arm_has_its_player(listen):
    live = views.Live()
    live.see(backends.ArmEvent(0, Step(1, 2, TONE), 0.1, 1))
    live.see(backends.ArmEvent(0, Note("n"), 0.1, 1))
    assert "<audio" not in live.html
    live.files = ["/some/where.flac"]
    live.see(backends.ArmEvent(0, Outcome(0, 1.0, 1, 1.0, (), TONE, {}, stopped=True), 0.2, 1))
    assert 'src="gradio_api/file=/some/where.flac"' in live.html and "stopped at step 1 of 2" in live.html


def test_a_further_sound_beside_the_result_can_be_played_once_the_arm_is_done():
    live = views.Live()
    live.see(backends.ArmEvent(0, Result(TONE, aside=(TONE,)), 0.1, 1))
    assert "<audio" not in live.html
    live.see(backends.ArmEvent(0, Outcome(0, 1.0, 1, 1.0, (), TONE, {}), 0.2, 1))
    assert live.html.count("<audio") == 1
