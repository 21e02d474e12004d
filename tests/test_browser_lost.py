"""A lost connection and a studio that ends under an open page, as a visitor meets them: what is said, and that nothing finished and no run is lost."""

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from browsing import visited
from load import answers, until

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[1]


def free() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


class Relay:
    """Between browser and studio: `cut` is a connection that breaks, `ended` one whose answers are ended by a proxy, `held` one through which nothing comes."""

    def __init__(self, studio: int):
        self.studio, self.port, self.open, self.held, self.pairs = studio, free(), True, False, {}
        self.listening = socket.create_server(("127.0.0.1", self.port))
        self.ready = selectors.DefaultSelector()
        self.ready.register(self.listening, selectors.EVENT_READ)
        self.lock = threading.Lock()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            for key, _ in self.ready.select(0.05):
                with self.lock:
                    if not self.held:
                        self._pass(key.fileobj)

    def _pass(self, end) -> None:
        if end is self.listening:
            browser, _ = end.accept()
            try:
                studio = socket.create_connection(("127.0.0.1", self.studio)) if self.open else None
            except OSError:
                studio = None
            if studio is None:
                return browser.close()
            self.pairs |= {browser: studio, studio: browser}
            for one in (browser, studio):
                self.ready.register(one, selectors.EVENT_READ)
        elif end in self.pairs:
            try:
                data = end.recv(2**16)
                self.pairs[end].sendall(data)
            except OSError:
                data = b""
            if not data:
                self._close(end)

    def _close(self, end) -> None:
        for one in (end, self.pairs[end]):
            self.ready.unregister(one)
            del self.pairs[one]
            one.close()

    def cut(self, ending: bytes = b"") -> None:
        with self.lock:
            self.open = bool(ending)
            for end in list(self.pairs):
                if end in self.pairs:
                    browser = end if end.getsockname()[1] == self.port else self.pairs[end]
                    browser.sendall(ending)
                    self._close(end)


@contextmanager
def server(folder: Path, port: int, seconds: float = 0.2):
    """A studio in a process of its own, a step takes so long; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serving", str(folder), str(port), str(seconds)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        until(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}"), 120, "the studio did not start")
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def opened(address: str):
    with visited(address, 900) as page:
        page.locator(".arm-2 .picture").wait_for()
        page.wait_for_timeout(500)
        yield page


def runs(page, words: str, steps: int) -> None:
    page.locator("textarea").first.fill(words)
    for arm in page.locator(".arm:visible").all():
        arm.locator("input[type=number]").first.fill(str(steps))
        arm.locator("input[type=number]").first.blur()
    page.locator("button.run:visible").click()


def step(page, least: int = 1) -> int:
    found = page.wait_for_function(
        "least => { const step = Number(/^step ([0-9]+)/.exec(document.querySelector('.arm-1 .line b')?.innerText ?? '')?.[1]); return step >= least && step; }",
        arg=least,
    )
    return int(found.json_value())


def bar(page, words: str) -> None:
    page.locator(".lost", has_text=words).wait_for()


def test_a_connection_that_breaks_ends_or_falls_silent_comes_back_to_the_run(tmp_path):
    port = free()
    relay = Relay(port)
    with server(tmp_path, port, 1.0), opened(f"http://127.0.0.1:{relay.port}") as page:
        runs(page, "a cat that is cut off", 100)
        before = step(page, 2)
        page.wait_for_url(re.compile(r"[?&]run="))
        relay.cut()
        bar(page, "What runs there goes on")
        assert page.locator("button.run:visible").evaluate("b => getComputedStyle(b).pointerEvents") == "none"
        relay.open = True
        page.locator(".lost").wait_for(state="detached")
        before = step(page, before + 1)

        relay.held = True
        bar(page, "No connection")
        relay.held = False
        page.locator(".lost").wait_for(state="detached")
        before = step(page, before + 1)

        page.evaluate("window.mark = 1")
        relay.cut(b"0\r\n\r\n")  # the last chunk: for the browser each stream has ended as it should
        page.wait_for_function("!window.mark")  # loaded anew
        assert step(page, before + 1) < 100
        page.keyboard.press("Escape")
        page.wait_for_function("document.querySelector('.arm-1 .line b')?.innerText.startsWith('stopped')")


def test_a_studio_that_is_killed_or_ended_under_a_run_tells_how_far_it_came(tmp_path):
    port = free()
    with server(tmp_path, port) as process, opened(f"http://127.0.0.1:{port}") as page:
        runs(page, "a done cat", 1)
        page.locator("table.metrics").wait_for()
        runs(page, "a killed cat", 100)
        far = step(page, 40)  # it is kept every five seconds, and a step takes 0.2
        process.send_signal(signal.SIGKILL)
        bar(page, "No connection to the studio")
        with server(tmp_path, port) as process:
            told = page.locator(".message .error", has_text="Interrupted: the studio ended while this ran")
            told.wait_for()
            kept = int(re.search(r"None of 2 arms had ended, arm 1 was at step (\d+) of 100\.", told.inner_text())[1])
            assert 10 <= kept <= far + 10 and f"cut off at step {kept} of 100" in page.locator(".arm-1 .line").inner_text()
            assert page.locator(".arm-2 .line").inner_text() == "not started" and page.locator("textarea").first.input_value() == "a killed cat"
            page.get_by_role("tab", name="My runs").click()
            page.locator(".past", has_text="a killed cat").get_by_text("arm 1 was at step").wait_for()
            page.locator(".past", has_text="a done cat").locator(".thumbs img").first.wait_for()

            page.get_by_role("tab", name="Images", exact=True).click()
            runs(page, "an ended cat", 60)
            far = step(page, 3)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) is not None
        with server(tmp_path, port):
            page.wait_for_function("document.querySelector('.lost button') || /had ended/.test(document.querySelector('.message .error')?.innerText ?? '')")
            if page.locator(".lost button").count():  # it was told of the end before
                page.locator(".lost button").click()
            told = page.locator(".message .error", has_text="1 of 2 arms had ended.")
            told.wait_for()
            ended = int(re.search(r"stopped at step (\d+) of 60", page.locator(".arm-1 .line").inner_text())[1])
            assert far <= ended < 60 and page.locator(".arm-1 .picture img").count() == 1
            runs(page, "a cat made anew", 1)
            page.locator("table.metrics tbody tr").nth(1).wait_for()
