"""What the tests in headless Chromium share; those that import it are skipped where Chromium or playwright is not installed."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
if CHROMIUM is None:
    pytest.skip("Chromium is not installed (apt-get install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -r requirements-dev.txt)")


def enter(page, room: str, task: str) -> None:
    """Open a task's tab in its room."""
    page.get_by_role("tab", name=room, exact=True).click()
    page.get_by_role("tab", name=task, exact=True).click()


def settled(page, place: str) -> None:
    """Wait until what the selector names is there and hasn't been redrawn for half a second: a run's last pictures come after it says that it is done."""
    page.wait_for_function(
        """place => {
          const found = document.querySelector(place), looks = found?.outerHTML;
          if (!found || looks != window.looked) [window.looked, window.since] = [looks, performance.now()];
          return found && performance.now() - window.since > 500;
        }""",
        arg=place,
    )


@contextmanager
def visited(address: str, height: int = 1200):
    """A page at the address; no script of it may fail."""
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1400, "height": height})
        page.set_default_timeout(60_000)  # a busy machine takes its time
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
        assert not errors
