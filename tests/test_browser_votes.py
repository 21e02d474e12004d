"""Comparing in headless Chromium: a blind comparison and its vote by key, and zoom and pan that all arms share."""

import json
import re

import pytest
from browsing import settled, visited

pytestmark = pytest.mark.browser
SECONDS = 0.02  # see address in conftest.py
# Everything that comes into the stage or under the buttons from now on, be it seen or not.
LISTEN = """() => {
  window.came = [];
  const note = (node) => window.came.push(node.outerHTML ?? node.textContent);
  new MutationObserver((changes) => changes.forEach((change) => {
    if (!change.target.parentElement?.closest('.stage, .message') || change.target.parentElement.closest('.arms, .votes')) return;
    change.type === 'childList' ? change.addedNodes.forEach(note) : note(change.target);
  })).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
}"""
PLACE = "s => { const t = new DOMMatrix(getComputedStyle(document.querySelector(s + ' .image-frame img')).transform), r = (v) => Math.round(v * 100) / 100; return [t.a, t.e, t.f].map(r); }"


@pytest.fixture(scope="module")
def page(address):
    with visited(address, 1000) as page:
        page.locator(".arm-2 .picture").wait_for()
        page.wait_for_function("!document.querySelector('textarea').disabled")
        for arm in page.locator(".arm:visible").all():
            box = arm.locator("input[type=number]").first
            box.fill("3")
            box.blur()
        yield page


def run_blind(page):
    page.get_by_label("Blind").check()
    page.locator("button.run").click()
    page.locator(".ballot [data-vote='2']").wait_for()


def test_a_blind_comparison_names_nothing_until_it_is_voted_on_by_key(page, address):
    page.evaluate(LISTEN)
    run_blind(page)
    came = " ".join(page.evaluate("window.came")) + page.locator(".stage:visible").inner_text() + page.locator(".ballot").evaluate("b => b.outerHTML")
    assert "result.png" in came and not re.search(r"DDIM|ddim|Adaptive|adaptive|guidance|NFE|metrics|unnoise-", came)
    assert page.locator(".arms:visible, .recipe:visible, .take:visible, table.metrics:visible").count() == 0
    page.reload()  # and it stays blind
    page.locator(".ballot [data-vote='2']").wait_for()
    assert "DDIM" not in page.locator(".stage:visible").inner_text()
    page.locator("textarea").first.press("2")
    assert page.locator(".ballot").count() == 1, "what is written is no vote"
    page.locator("textarea").first.blur()
    page.keyboard.press("2")
    page.locator(".verdict").wait_for()
    page.locator("table.metrics").first.wait_for()
    best = re.search(r"Your vote: (.*?)\. In", page.locator(".verdict").inner_text())[1]
    assert page.locator(".verdict li").nth(1).inner_text().split("\n")[-1].strip().startswith(best) or best in page.locator(".verdict li").nth(1).inner_text()
    assert page.locator(".arms:visible .picture img").count() == 2 and "NFE" in page.locator("table.metrics").first.inner_text()
    page.get_by_text("Blind votes", exact=True).click()
    page.locator(".strengths").wait_for()
    assert page.locator(".strengths tbody tr").first.inner_text().startswith(best)
    with page.expect_download() as download:
        page.locator(".votes a", has_text="JSON").click()
    told = json.loads(download.value.path().read_text())
    assert len(told["votes"]) == 1 and {row["title"] for row in told["scores"]} == {"DDIM with classifier-free guidance", "Adaptive Guidance"}
    other = page.context.browser.new_context()
    stranger = other.new_page()
    stranger.goto(address)
    stranger.get_by_text("Blind votes", exact=True).click()
    stranger.get_by_text("No votes yet").wait_for()
    assert stranger.locator(".strengths").count() == 0
    other.close()


def test_all_arms_and_the_difference_move_together_and_keep_their_place_while_previews_come(page):
    page.get_by_label("Blind").uncheck()
    page.locator("button.run").click()
    page.wait_for_function("document.querySelector('.arm-2 .line b')?.innerText.startsWith('done') && document.querySelector('table.metrics')")
    for place in (".arm-1", ".arm-2", ".pair"):
        page.wait_for_function("s => document.querySelector(s + ' .image-frame img')?.naturalWidth", arg=place)
    settled(page, ".stage")
    frame = page.locator(".arm-1 .image-frame")
    frame.evaluate("f => f.scrollIntoView({ block: 'center' })")
    page.wait_for_timeout(400)  # a page that still scrolls is not stopped by a picture
    box = frame.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6)
    page.mouse.wheel(0, -120)
    page.wait_for_function(f"({PLACE})('.arm-1')[0] > 1.2")
    first = page.evaluate(PLACE, ".arm-1")
    assert first == page.evaluate(PLACE, ".arm-2") and first[1] < 0 and first[2] < 0, "what is under the pointer stays there"
    scale, x, _ = page.evaluate(PLACE, ".pair")
    width = "s => { const i = document.querySelector(s + ' .image-frame img'); return i.clientWidth * i.style.getPropertyValue('--w'); }"
    assert scale == first[0] and x / page.evaluate(width, ".pair") == pytest.approx(first[1] / page.evaluate(width, ".arm-1"), abs=2e-3), "the same place of it"
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.6, steps=3)
    page.mouse.up()
    dragged = page.evaluate(PLACE, ".arm-2")
    assert dragged[1] < first[1] and dragged[2] == first[2]
    page.locator(".arm-2 .picture button:has(.image-frame)").focus()
    for key in ("+", "+", "+", "+", "ArrowLeft"):
        page.keyboard.press(key)
    near = page.evaluate(PLACE, ".arm-1")
    assert near[0] > 4 and near == page.evaluate(PLACE, ".arm-2")
    assert frame.locator("img").evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"
    source = frame.locator("img").get_attribute("src")
    page.locator("button.run").click()
    page.wait_for_function(
        "source => { const i = document.querySelector('.arm-1 .image-frame img'); return i && i.src != source && i.naturalWidth > 0 && i.style.getPropertyValue('--w'); }",
        arg=source,
    )
    page.wait_for_function(f"near => ({PLACE})('.arm-1').every((v, i) => v == near[i])", arg=near)
    page.wait_for_function("document.querySelector('.arm-2 .line b')?.innerText.startsWith('done')")
    settled(page, ".stage")
    page.wait_for_function(f"near => ({PLACE})('.arm-2').every((v, i) => v == near[i])", arg=near)
    frame.dblclick()
    assert page.evaluate(PLACE, ".arm-1") == page.evaluate(PLACE, ".arm-2") == [1, 0, 0]
    pinch = """frame => {
        const at = (kind, id, x) => frame.dispatchEvent(new PointerEvent(kind, { bubbles: true, pointerId: id, clientX: x, clientY: 200, pointerType: 'touch' }));
        at('pointerdown', 7, 100), at('pointerdown', 8, 140), at('pointermove', 8, 180), at('pointerup', 7, 100), at('pointerup', 8, 180);
    }"""
    frame.evaluate(pinch)
    assert page.evaluate(PLACE, ".arm-2")[0] == 2
    page.keyboard.press("0")
    page.locator(".arm-2 .picture button:has(.image-frame)").focus()
    page.keyboard.press("0")
    assert page.evaluate(PLACE, ".arm-1")[0] == 1
