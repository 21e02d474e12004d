"""A voicebank in headless Chromium: dropped in, chosen, sung; and a file that is none."""

import json

import pytest
from browsing import enter, visited

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(address):
    with visited(address) as page:
        page.set_default_timeout(90_000)
        page.locator(".arm-2 .picture").wait_for()  # tabs drawn at once trip over each other in Gradio's list of events
        enter(page, "Audio", "Sing")
        page.locator(".bring").wait_for()
        page.locator("button.chip:visible").nth(1).click()  # the decoder alone beside DiffSinger
        page.wait_for_function("[...document.querySelectorAll('.arm')].filter(a => a.offsetParent).length == 2")
        yield page


def said(page, words):
    page.wait_for_function("words => document.querySelector('.bring p').textContent.includes(words)", arg=words)


def model(page):
    return page.locator(".desk:visible").get_by_label("Model").input_value()


def test_a_bank_is_dropped_in_chosen_and_sung(page, tmp_path):
    from tests.tiny_bank import tiny

    file, chooser = tiny(tmp_path, mute=True), page.locator(".bring input[type=file]")
    assert model(page) == "Singer (embedded)" and "Up to 256 MB" in page.locator(".bring .note").inner_text()
    page.evaluate(
        """() => {
            const files = new DataTransfer();
            files.items.add(new File(['no zip at all'], 'wrong.zip'));
            document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: files }));
        }"""
    )
    said(page, "wrong is no whole zip file")
    assert page.locator(".bring .error").count() == 1 and model(page) == "Singer (embedded)"
    chooser.set_input_files(file)
    said(page, "brings no vocoder (nsf)")
    chooser.set_input_files(tmp_path / "nsf.zip")
    said(page, "Tiny can sing now")
    assert model(page) == "Voicebank Tiny"
    page.locator("button.run:visible").click()
    page.locator("table.metrics").wait_for()
    assert page.locator(".arm .main .sound audio").count() == 2
    page.locator(".recipe:visible button").first.click()
    given = page.locator(".recipe:visible .cm-content").inner_text()
    assert '"model": "voicebank-' in given, json.dumps(given)[:300]
    page.locator(".more:visible").get_by_role("button", name="+ arm").click()
    page.locator(".arm-3").wait_for()
    assert model(page) == "Voicebank Tiny", "it stays chosen when the tab is drawn anew"
    with (tmp_path / "large.zip").open("wb") as file:
        file.truncate(300 * 2**20)
    page.locator(".bring input[type=file]").set_input_files(tmp_path / "large.zip")
    said(page, "large.zip has 300 MB; up to 256 MB are taken here")
    assert model(page) == "Voicebank Tiny"
