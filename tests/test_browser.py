"""The page in headless Chromium: what a visitor does, with a tiny random model whose steps are slow enough to watch."""

import json
import re

import PIL.Image
import pytest
from browsing import enter, playwright, visited

pytestmark = pytest.mark.browser
SECONDS = 0.12  # see address in conftest.py

# Tabs that were opened before stay in the page, hidden: only what is seen counts.
TWO = " return arms.length == 2 && arms[1].querySelector('.method input').value == 'Adaptive Guidance' && arms.every((a) => a.querySelector('input[type=number]')?.value == '25'); "


@pytest.fixture(scope="module")
def page(address):
    """One page for all tests, as loading it is what takes longest; each test sets what it needs."""
    with visited(address, 900) as page:
        page.locator(".arm-2 .picture").wait_for()
        page.wait_for_function("!document.querySelector('textarea').disabled")
        yield page


@pytest.fixture(autouse=True)
def two_arms(page):
    """Back to the first tab with its first example."""
    enter(page, "Images", "Text to image")
    for box in page.locator(".arm:visible").all():  # a value that the example does not have, so that its drawing can be waited for
        box.locator("input[type=number]").first.fill("99")
    page.locator("button.chip:visible").first.click()
    page.wait_for_function("() => { const arms = [...document.querySelectorAll('.arm')].filter((a) => a.offsetParent);" + TWO + "}")
    page.wait_for_function("!document.querySelector('table.metrics')")
    page.wait_for_timeout(400)  # what is drawn is pressed in vain until Gradio's script knows its handlers


def press(page, button: str, then: str) -> None:
    """Until it does what it should: on a busy machine a press on what was drawn this moment is lost."""
    for tries in range(5):
        page.locator(button).first.dispatch_event("click")
        try:
            page.wait_for_function(then, timeout=10_000 if tries < 4 else 60_000)
            return
        except playwright.TimeoutError:
            continue
    raise AssertionError(f"{button} does nothing")


def set_steps(page, steps: int):
    for arm in page.locator(".arm:visible").all():
        box = arm.locator("input[type=number]").first
        box.fill(str(steps))
        box.blur()


def done(page):
    page.locator("table.metrics").wait_for()


def test_two_arms_run_with_previews_before_the_end_and_are_compared(page):
    set_steps(page, 24)  # a busy machine shows the first of six when all are done
    page.locator("textarea").first.click()
    page.keyboard.press("Control+Enter")
    seen = "() => { const [img, ...lines] = ['.arm-1 .picture img', '.arm-1 .line b', '.arm-2 .line b'].map((s) => document.querySelector(s)); return img && [img.src, ...lines.map((l) => l.innerText)]; }"
    first, line, other = page.wait_for_function(seen).json_value()  # all three of one moment
    assert re.fullmatch(r"step ([1-9]|1\d|2[0-3])/24", line), "the preview came before the end"
    assert other == "waiting for its turn"
    page.wait_for_function("before => document.querySelector('.arm-1 .picture img').src != before", arg=first)
    done(page)
    assert page.locator("table.metrics tbody tr").count() == 2
    assert "NFE" in page.locator("table.metrics thead").inner_text()
    assert "48" in page.locator("table.metrics tbody tr").first.inner_text()  # guided steps
    assert page.locator(".pair .slider-wrap, .pair .image-container img").count() >= 2
    assert "pixels differ" in page.locator(".said").last.inner_text()
    assert page.locator(".arm-2 .plot polyline").count() >= 1, "Adaptive Guidance shows its curve"
    page.get_by_role("tab", name="My runs").click()
    page.locator(".past [data-act=open]").first.wait_for()


def test_a_seed_out_of_range_is_refused_and_run_is_free_again(page):
    seed = page.get_by_label("Seed")
    seed.fill("-1")
    page.keyboard.press("Control+Enter")
    page.locator(".message .error").wait_for()
    assert "from 0 to 4294967295" in page.locator(".message .error").inner_text()
    assert "loading" not in page.locator(".arm-1").inner_text()
    seed.fill("3")
    set_steps(page, 2)
    page.keyboard.press("Control+Enter")
    done(page)


def test_stop_ends_the_arm_within_a_step_and_keeps_the_partial_result(page):
    set_steps(page, 60)
    page.locator("button.run").click()
    page.wait_for_function("/^step ([3-9]|[1-5][0-9])/.test((document.querySelector('.arm-1 .line b')?.innerText ?? ''))")
    seen = int(re.search(r"step (\d+)", page.locator(".arm-1 .line b").inner_text())[1])
    page.keyboard.press("Escape")
    page.wait_for_function("(document.querySelector('.arm-1 .line b')?.innerText ?? '').startsWith('stopped')")
    ended = int(re.search(r"step (\d+) of 60", page.locator(".arm-1 .line b").inner_text())[1])
    assert ended <= seen + 12  # what is seen lags behind, on a busy machine by some steps
    done(page)
    assert page.locator(".arm-1 .picture img").count() == 1
    assert page.locator(".arm-2 .line b").inner_text() == "not started"


def test_a_dropped_result_fills_the_tab_again(page, tmp_path):
    set_steps(page, 2)
    page.locator("textarea").first.fill("two green frogs")
    page.locator("button.run").click()
    done(page)
    source = page.locator(".arm-2 .picture img").get_attribute("src")
    result = tmp_path / "result.png"
    result.write_bytes(page.request.get(source).body())
    page.locator("button.chip:visible").nth(1).click()
    page.wait_for_function("document.querySelector('textarea').value.includes('strawberry')")
    page.locator("input[data-testid$='recipe-upload-button']").set_input_files(result)
    page.wait_for_function("document.querySelector('textarea').value == 'two green frogs'")
    page.wait_for_function("document.querySelectorAll('.arm').length == 1")
    assert page.locator(".arm .method input").input_value() == "Adaptive Guidance"
    assert page.locator(".arm input[type=number]").first.input_value() == "2"
    wrong = json.dumps({"schema": 99, "task": "text_to_image"})
    page.evaluate(
        """text => {
            const files = new DataTransfer();
            files.items.add(new File([text], 'wrong.json', { type: 'application/json' }));
            document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: files }));
        }""",
        wrong,
    )
    page.get_by_text("newer version").first.wait_for()


def test_a_paper_opens_with_its_baseline_and_an_example(page):
    page.get_by_role("tab", name="Papers").click()
    page.locator(".papers .paper").first.wait_for()
    page.get_by_placeholder("Search 79 papers").fill("attention segregation")
    page.wait_for_function("document.querySelectorAll('.papers .paper').length == 1")
    page.locator("[data-open=astar]").click()
    page.wait_for_function("[...document.querySelectorAll('.arm .method input')].some(i => i.value.startsWith('A-STAR'))")
    assert page.locator(".arm").count() == 2
    assert page.locator("textarea:visible").first.input_value()


def test_knobs_keep_their_values_when_an_arm_or_a_piece_is_added(page):
    set_steps(page, 9)
    page.get_by_role("button", name="+ arm").click()
    page.locator(".arm-3").wait_for()
    assert [a.locator("input[type=number]").first.input_value() for a in page.locator(".arm").all()[:2]] == ["9", "9"]
    page.locator(".arm-2 .add input").click()
    page.get_by_role("option", name=re.compile("Faster Diffusion")).click()
    page.locator(".arm-2 .piece").wait_for()
    assert page.locator(".arm-2 input[type=number]").first.input_value() == "9"
    press(page, ".arm-3 button.remove", "document.querySelectorAll('.arm').length == 2")


def test_an_arm_that_is_removed_takes_its_row_with_it(page):
    set_steps(page, 2)
    page.locator("button.run").click()
    done(page)
    assert page.locator("table.metrics tbody tr").count() == 2
    moved = """() => {
      const table = document.querySelector('table.metrics'), frame = table.closest('.scroll'), [name, first] = table.querySelectorAll('tbody tr:first-child > *');
      table.style.minWidth = '3000px'; frame.scrollLeft = 700;
      const [at, its, next] = [frame, name, first].map((e) => e.getBoundingClientRect());
      table.style.minWidth = '';
      return [its.left - at.left, its.right - next.left];
    }"""
    beside, over = page.evaluate(moved)
    assert abs(beside) <= 1 and over > 100, "the arms' names stay in sight while a wide table is moved"
    assert "radial-gradient" in page.locator(".under .scroll").first.evaluate("e => getComputedStyle(e).backgroundImage"), "a shadow where it hides more"
    press(page, ".arm-1 button.remove", "document.querySelectorAll('.arm').length == 1")
    page.wait_for_function("document.querySelectorAll('table.metrics tbody tr').length == 1")
    assert "Adaptive Guidance" in page.locator("table.metrics tbody th").inner_text()
    assert page.locator(".arm-1 .picture img").count() == 1 and not page.locator(".pair").is_visible()


def test_every_tab_is_seen_on_a_narrow_screen(page):
    size = page.viewport_size
    page.set_viewport_size({**size, "width": 1280})
    page.wait_for_timeout(500)  # tabs are measured after the change
    names = page.locator('.rooms button[role="tab"]:visible').all_inner_texts()
    page.set_viewport_size(size)
    assert {"Papers", "My runs", "About"} <= set(names), "some tabs hide behind the overflow's “…”"


def test_a_run_is_paused_and_goes_on_and_is_stopped_while_paused(page):
    set_steps(page, 100)
    page.locator("button.run").click()
    page.locator(".arm-1 .picture img").wait_for()
    line = page.locator(".arm-1 .line")
    press(page, "button.pause", "document.querySelector('button.resume')?.offsetParent")
    held = line.inner_text()
    assert "paused at step" in held and page.locator(".message .paused").inner_text().startswith("Paused. The clock stands")
    page.wait_for_timeout(400)
    assert line.inner_text() == held
    page.locator("button.resume").click()
    page.locator("button.pause:visible").wait_for()
    page.wait_for_function("held => document.querySelector('.arm-1 .line').innerText != held", arg=held)
    press(page, "button.pause", "document.querySelector('button.resume')?.offsetParent")
    page.locator("button.stop").click()
    done(page)
    assert "stopped at step" in line.inner_text() and page.locator("button.pause:visible").count() == 1


def step_of(page) -> int:
    """Read in one go: the line changes with every step."""
    found = page.wait_for_function("/^step ([0-9]+)/.exec(document.querySelector('.arm-1 .line b')?.innerText ?? '')?.[1]")
    return int(found.json_value())


def test_a_run_goes_on_over_a_reload_is_listed_and_is_opened_by_a_link_once_it_is_shared(page, address):
    set_steps(page, 100)  # on a busy machine a reload takes as long as forty
    page.locator(".arm-2 input[type=number]").first.fill("10")
    page.locator("textarea").first.fill("a cat that stays")
    page.locator("button.run").click()
    page.wait_for_url(re.compile(r"[?&]run="))
    before = step_of(page)
    page.reload()
    page.locator(".arm-1 .picture img").wait_for()
    after = step_of(page)
    assert before <= after < 100 and page.locator("textarea").first.input_value() == "a cat that stays"
    assert "running …" in page.locator(".message.prose").inner_text() and page.locator("button.stop").is_enabled()
    page.wait_for_function("step => Number(/[0-9]+/.exec(document.querySelector('.arm-1 .line b').innerText)) > step", arg=after)
    done(page)
    link = page.url
    page.reload()
    done(page)
    page.locator(".arm-1 .picture img").wait_for()
    page.locator(".arm-2 .picture img").wait_for()
    assert "done · 10 steps" in page.locator(".arm-2 .line").inner_text() and "Kept, from" in page.locator(".message.prose").inner_text()
    page.get_by_role("tab", name="My runs").click()
    row = page.locator(".past", has_text="a cat that stays")
    row.locator(".thumbs img").nth(1).wait_for()
    visitor = page.context.browser.new_context()
    other = visitor.new_page()
    other.goto(link)
    other.get_by_text("has not shared it").first.wait_for()
    other.get_by_role("tab", name="My runs").click()
    other.get_by_text("Nothing of yours has run yet").wait_for()
    row.get_by_role("button", name="Share link").click()
    row.get_by_role("button", name="Stop sharing").wait_for()
    other.reload()
    done(other)
    assert other.locator("textarea").first.input_value() == "a cat that stays" and "Shared with you" in other.locator(".message.prose").inner_text()
    visitor.close()
    row.get_by_role("button", name="Delete").click()
    row.get_by_role("button", name="Really delete?").click()
    row.wait_for(state="detached")


def test_an_animation_is_refused_when_it_is_uploaded_and_a_good_picture_shown(page, tmp_path):
    enter(page, "Images", "Condition on an image")
    page.locator("canvas:visible").first.wait_for()
    page.locator("textarea:visible").first.fill("two green frogs")
    page.get_by_label("Clear canvas").click()
    chooser = page.locator(".desk .upload-container input[type=file]")
    still, moves = PIL.Image.new("RGB", (64, 48), "red"), tmp_path / "moves.gif"
    still.save(moves, save_all=True, append_images=[PIL.Image.new("RGB", (64, 48))])
    chooser.set_input_files(moves)
    page.get_by_text("Image is an animation; give a still picture.").first.wait_for()
    still.save(tmp_path / "still.png")
    chooser.set_input_files(tmp_path / "still.png")
    page.locator("canvas:visible").first.wait_for()
    assert page.locator("textarea:visible").first.input_value() == "two green frogs"
    prevented = page.locator("canvas:visible").first.evaluate(
        """element => {
            const files = new DataTransfer();
            files.items.add(new File(['x'], 'other.png', { type: 'image/png' }));
            return ['dragover', 'drop'].map((name) => !element.dispatchEvent(new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer: files })));
        }"""
    )
    assert prevented == [True, True], "the browser does not open a file dropped on the picture in the page's place"


def test_what_a_dropped_file_says_is_text_in_the_message(page, tmp_path):
    (tmp_path / "evil.json").write_text(json.dumps({"task": "<img src=x id=evil onerror=window.evil=1>", "job": {}, "arms": []}))
    page.locator("input[type=file]").first.set_input_files(tmp_path / "evil.json")
    # What the test before was told may still be seen beside it.
    page.locator(".toast-message-text", has_text="No task is called <img src=x id=evil").first.wait_for()
    assert page.locator("#evil").count() == 0 and page.evaluate("window.evil") is None


def test_stop_where_nothing_runs_says_nothing_and_locks_nothing(page):
    page.keyboard.press("Escape")
    page.locator("button.stop").first.dispatch_event("click")
    page.wait_for_timeout(500)
    assert page.locator(".message .running").count() == 0
    page.locator("button.chip:visible").first.click()
