"""For people at a keyboard, with a screen reader or on a phone: axe-core on every tab in light and dark, focus, three clicks, 390 px."""

import os
from pathlib import Path

import axe_playwright_python
import pytest
from browsing import enter, playwright, settled, visited

from backends.registry import TASKS
from ui import page as pages

pytestmark = pytest.mark.browser
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
EVERY = os.environ.get("ACCESS") == "all"  # `make access`: every tab; `make test` looks at the first of each room
TABS = [(title, task.title) for name, title in pages.ROOMS.items() for task in TASKS.values() if task.ready and pages.room_of(task) == name]
TABS = TABS if EVERY else [tab for tab, before in zip(TABS, [("", ""), *TABS]) if tab[0] != before[0]]
# What Gradio draws itself and can't be mended from outside: (rule, part of the element's HTML, why).
GRADIO = [
    ("aria-prohibited-attr", '<div aria-label="Empty value" class="empty', "gr.Image without a value labels a div"),
    (
        "aria-prohibited-attr",
        '<div data-testid="image" aria-dropeffect="copy" aria-label="Click to upload or drop',
        "gr.ImageEditor labels the div that takes a file",
    ),
]
LOOK = """async (dark) => {
    document.body.classList.toggle('dark', dark);
    const found = await axe.run(document, { resultTypes: ['violations'], ...(dark ? { runOnly: ['color-contrast'] } : {}) });
    document.body.classList.remove('dark');
    return found.violations.filter((v) => ['serious', 'critical'].includes(v.impact)).flatMap((v) => v.nodes.map((n) => [v.id, n.html.slice(0, 160), n.failureSummary]));
}"""


@pytest.fixture(scope="module")
def opened(address):
    with visited(address, 900) as page:
        yield page


@pytest.fixture
def page(opened, address):
    """Loaded anew, since tabs that were drawn stay in the page and slow the next ones down."""
    opened.goto(address)
    opened.locator(".arm-1 .picture").wait_for()
    opened.evaluate(AXE)
    opened.add_style_tag(content="* { transition: none !important; animation: none !important; }")  # colours are looked at, not their way
    return opened


def troubles(page) -> list:
    """What axe finds serious or critical, in light and in dark."""
    found = [(theme, *row) for theme in ("light", "dark") for row in page.evaluate(LOOK, theme == "dark")]
    return [row for row in found if not any(row[1] == rule and row[2].startswith(html) for rule, html, _ in GRADIO)]


def too_wide(page) -> bool:
    """Whether a phone of 390 px scrolls sideways."""
    size = page.viewport_size
    page.set_viewport_size({**size, "width": 390})
    page.wait_for_timeout(200)
    wide = page.evaluate("() => document.scrollingElement.scrollWidth") > 390
    page.set_viewport_size(size)
    page.evaluate("() => dispatchEvent(new Event('resize'))")  # tabs that did not fit are measured anew
    page.wait_for_timeout(300)
    return wide


@pytest.mark.parametrize(("room", "task"), TABS, ids=[task for _, task in TABS])
def test_a_tab_is_fit_for_everyone(page, room, task):
    enter(page, room, task)  # two clicks; the third is Run, which is filled in already (test_ui.py)
    page.locator(".arm-1:visible").wait_for()
    assert page.locator("button.run:visible").is_enabled()
    assert not troubles(page)
    assert not too_wide(page)


@pytest.mark.parametrize(("room", "task"), TABS if EVERY else TABS[:1], ids=lambda name: name)
def test_what_a_run_leaves_is_fit_for_everyone(page, room, task):
    enter(page, room, task)
    page.locator(".arm-1:visible").wait_for()
    page.wait_for_timeout(500)
    page.locator("button.run:visible").click()
    figures = page.locator("table.metrics:visible")
    try:
        figures.wait_for(timeout=30_000)
    except playwright.TimeoutError:  # minutes, on a busy machine many: what Stop leaves is looked at
        page.keyboard.press("Escape")
        figures.wait_for(timeout=300_000)
    settled(page, "table.metrics")
    assert not troubles(page)
    assert not too_wide(page)
    page.get_by_role("tab", name="My runs", exact=True).click()
    page.locator(".past:visible").first.wait_for()
    assert not troubles(page)
    assert not too_wide(page)


@pytest.mark.parametrize("tab", ["Papers", "My runs", "About"])
def test_the_other_pages_are_fit_for_everyone(page, tab):
    page.get_by_role("tab", name=tab, exact=True).click()
    page.locator({"Papers": ".papers .paper", "My runs": ".empty:visible, .past:visible", "About": ".about .prose:visible"}[tab]).first.wait_for()
    assert not troubles(page)
    assert not too_wide(page)


def focused(page) -> str:
    return page.evaluate(
        "() => (document.activeElement.getAttribute('aria-label') || document.activeElement.innerText || document.activeElement.className).trim()"
    )


def test_the_keyboard_reaches_everything_and_is_seen_and_keeps_its_place(page):
    enter(page, "Images", "Text to image")
    page.locator("textarea:visible").first.click()
    order, seen = [], []
    for _ in range(22):
        page.keyboard.press("Tab")
        order.append(focused(page))
        seen.append(page.evaluate("() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle != 'none' || s.boxShadow != 'none'; }"))
    assert all(seen), [name for name, shown in zip(order, seen) if not shown]
    assert order.index("Run") < order.index("Stop") < next(i for i, name in enumerate(order) if "penguin" in name), order
    count = page.locator(".arm:visible").count()
    page.get_by_role("button", name="+ arm").focus()
    page.keyboard.press("Enter")
    page.locator(f".arm-{count + 1}:visible").wait_for()
    page.wait_for_function("() => document.activeElement.innerText?.trim() == '+ arm'")
    page.wait_for_timeout(500)  # a button that is drawn is pressed in vain until Gradio has told the server of it
    page.locator("button.remove:visible").last.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("n => [...document.querySelectorAll('.arm')].filter((a) => a.offsetParent).length == n", arg=count)
    page.wait_for_function("() => document.activeElement.innerText?.trim() == 'Run'")  # what was pressed is gone
    page.locator("textarea:visible").first.focus()
    page.keyboard.press("Control+Enter")
    page.locator("table.metrics:visible").wait_for()
    assert page.evaluate("() => document.activeElement.tagName") == "TEXTAREA"
