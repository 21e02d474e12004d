"""The X/Y grid in headless Chromium: axes are filled in, cells stream in, a figure colours them, and a reload finds them again."""

import re

import pytest
from browsing import visited

pytestmark = pytest.mark.browser
SECONDS = 0.1  # see address in conftest.py
DONE = "n => document.querySelectorAll('.xy [data-cell].done img').length == n"


@pytest.fixture(scope="module")
def page(address):
    with visited(address, 1000) as page:
        page.locator(".arm-2 .picture").wait_for()
        yield page


def test_a_grid_is_filled_in_runs_and_is_found_again(page, tmp_path):
    panel = page.locator(".xy-panel:visible")
    panel.get_by_role("button", name="X/Y grid").click()
    panel.get_by_text("3 × 3 = 9 cells").wait_for()
    for field, values in zip(panel.locator(".xy-axis").all(), ("4, 400", "1, 5")):
        field.get_by_label("values").first.fill(values)
    panel.get_by_text("Cell 2 (steps 400 · scale 1)").wait_for()
    panel.get_by_label("values").first.fill("4-24 step 20")
    panel.get_by_text("2 × 2 = 4 cells").wait_for()
    panel.get_by_role("button", name="Run grid").click()
    page.wait_for_function("/step [0-9]+\\/24/.test(document.querySelector('.xy [data-cell=\"1\"]')?.innerText ?? '')")
    assert panel.locator(".xy [data-cell='1'] img").count() == 1, "a preview comes before the end"
    assert "waiting" in panel.locator(".xy [data-cell='3']").inner_text()
    page.wait_for_function(DONE, arg=4)
    panel.get_by_text("Contact sheet (PNG)").wait_for()
    panel.locator(".xy select").select_option("NFE")
    assert panel.locator(".xy .figure").all_inner_texts() == ["4", "24", "8", "48"]
    shares = [float(cell.evaluate("e => e.style.getPropertyValue('--h')")) for cell in panel.locator(".xy [data-cell]").all()]
    assert shares[0] == 1 and shares[3] == 0, "fewer evaluations are better"
    assert re.fullmatch(r"48\s*4 is best", panel.locator(".xy-scale").inner_text())
    panel.locator(".xy [data-cell='2']").focus()
    page.keyboard.press("Enter")
    panel.locator(".large h4").get_by_text("steps 4 · scale 5").wait_for()
    assert panel.locator(".large .parts > a img").count() == 1
    page.wait_for_function("location.search.includes('run=')")
    page.reload()
    page.wait_for_function(DONE, arg=4)
    assert [box.input_value() for box in panel.get_by_label("values").all() if box.is_visible()] == ["4, 24", "1, 5"]
    assert page.locator(".arm").count() == 1, "the arm that the grid varies"
    on_a_narrow_screen_the_cells_scroll_and_the_page_does_not(page)
    a_dropped_contact_sheet_fills_the_axes_in_again(page, tmp_path)


def on_a_narrow_screen_the_cells_scroll_and_the_page_does_not(page):
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.evaluate("(e => e.scrollWidth >= e.clientWidth && getComputedStyle(e).overflowX == 'auto')(document.querySelector('.xy-scroll'))")
    page.set_viewport_size({"width": 1400, "height": 1000})


def a_dropped_contact_sheet_fills_the_axes_in_again(page, tmp_path):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(page.request.get(page.get_by_text("Contact sheet (PNG)").evaluate("e => e.href")).body())
    page.locator(".xy-panel:visible").get_by_label("values").first.fill("9")
    page.locator("input[data-testid$='recipe-upload-button']").set_input_files(sheet)
    page.wait_for_function("!document.querySelector('.xy')")
    shown = page.locator(".xy-panel:visible").get_by_label("values")
    assert [box.input_value() for box in shown.all() if box.is_visible()] == ["4, 24", "1, 5"]
