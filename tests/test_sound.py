"""Sounds: what is taken and refused, that they travel with their recipe, and how they are drawn."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile

from backends import inputs, recipe, sound
from backends.spec import Audio, BadInput

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
    (name,) = recipe.decode_inputs({"any": base64.b64encode(encoded()).decode()})
    assert name == recipe.digest(inputs.sound(encoded()))


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
    assert drawn.values.max() == pytest.approx(0, abs=0.1) and drawn.values.min() >= -80
    assert drawn.top == rate / 2 and drawn.seconds == pytest.approx(seconds)
    assert np.isfinite(sound.log_mel(Audio(np.zeros(rate, np.float32), rate)).values).all()
