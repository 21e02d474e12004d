"""Sounds in headless Chromium: upload, players with their markers, the switch between arms, a dropped result."""

import numpy as np
import pytest
import soundfile
from browsing import enter, visited

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page():
    from fake_audio import listening
    from serving import studio

    with listening(), studio() as url, visited(url) as page:
        enter(page, "Audio", "Listen")
        yield page


def test_an_upload_is_run_played_and_opened_again(page, tmp_path):
    wrong, right = tmp_path / "wrong.wav", tmp_path / "called.wav"
    wrong.write_bytes(b"no sound at all")
    soundfile.write(right, 0.5 * np.sin(np.arange(48_000) * 0.1), 24_000, format="MP3")
    chooser = page.locator('.sound-field:has-text("up to 3 s") input[type=file]')  # the room's first tab has one too
    chooser.set_input_files(wrong)
    page.get_by_text("Sound can't be read: give a whole WAV, FLAC, OGG or MP3 file.").first.wait_for()
    chooser.set_input_files(right)
    page.locator(".sound-field audio, .sound-field:visible [data-testid^=waveform]").first.wait_for(state="attached")
    page.locator("button.run:visible").click()
    page.locator("table.metrics").wait_for()
    assert page.locator(".arm .main .sound audio").count() == 2
    player = page.locator(".arm-1 .main .sound audio")
    page.wait_for_function("a => a.duration > 1.9", arg=player.element_handle())
    page.locator(".arm-1 .main .track.map").click(position={"x": 10, "y": 10})
    page.wait_for_function("document.querySelector('.arm-1 .main .sound').style.getPropertyValue('--at') > 0")
    page.locator(".switch .play").click()
    page.wait_for_function("parseFloat(document.querySelector('.switch output').textContent) > 0.1")
    before = page.locator(".switch output").inner_text()
    page.get_by_role("radio", name="Quieter").click()
    page.wait_for_function("before => parseFloat(document.querySelector('.switch output').textContent) > parseFloat(before)", arg=before)
    assert page.get_by_role("radio", name="Quieter").get_attribute("aria-checked") == "true"
    assert page.locator(".arm-2 .main .sound").evaluate("s => Number(s.style.getPropertyValue('--at'))") > 0, "both markers follow"
    scales = "() => [...document.querySelectorAll('.arm .main .map img')].map((i) => new DOMMatrix(getComputedStyle(i).transform).a)"
    for key in ("+", "+"):
        page.locator(".arm-1 .main .track.map").press(key)
    assert page.evaluate(scales) == [2.25, 2.25], "spectrograms are enlarged together"
    page.locator(".arm-2 .main .track.map").press("0")
    assert page.evaluate(scales) == [1, 1]
    with page.expect_download() as download:
        page.locator(".arm-2 .main .sound a").click()
    assert download.value.suggested_filename == "unnoise-2-quieter-0.flac"
    download.value.save_as(tmp_path / "result.flac")
    page.locator("input[data-testid$='recipe-upload-button']").set_input_files(tmp_path / "result.flac")
    page.wait_for_function("[...document.querySelectorAll('.arm')].filter(a => a.offsetParent).length == 1")
    page.locator(".sound-field:visible [data-testid^=waveform]").first.wait_for(state="attached")
    assert page.locator(".arm .method input:visible").input_value() == "Quieter"
    page.locator("button.chip:visible", has_text="nothing yet").click()  # it names no sound, and none of another job may stand there
    page.locator(".sound-field:visible").get_by_text("Drop Audio Here").wait_for()
    page.locator("button.run:visible").click()
    page.locator(".message .error:visible").wait_for()


def test_a_clean_sound_goes_with_the_noisy_one_that_it_belongs_to(page):
    enter(page, "Audio", "Enhance speech")
    first, clean = (page.locator(".sound-field:visible").nth(i) for i in range(2))
    clean.get_by_label("Clear").wait_for()  # the example has both
    first.get_by_label("Clear").click()
    clean.get_by_text("Drop Audio Here").wait_for()
    assert clean.get_by_label("Clear").count() == 0
