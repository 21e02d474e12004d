"""Every tab in headless Chromium: room, tab and Run are the three clicks to a first result. Methods are left out: what is looked at is the page, what it
asks for and that this is taken."""

import pytest
from browsing import enter, visited

from backends import jobs
from backends.registry import TASKS
from backends.spec import ArmEvent, Metric, Outcome, Result, Text
from backends.store import Store
from ui import page as pages

pytestmark = pytest.mark.browser


def source(given, pictures, stop, hold):
    """Each arm's result at once."""
    for arm, asked in enumerate(given["arms"]):
        said, made = Text(f"the result of {asked['method']}"), given | {"arms": [asked], "outcome": {"stopped": False}}
        yield ArmEvent(arm, Result(said), 1.0, 1)
        yield ArmEvent(arm, Outcome(arm, 1.0, 1, 1.0, (Metric("m", 1.0),), said, made), 1.0, 1)


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    made, before = jobs.Executor(Store(tmp_path_factory.mktemp("runs")), source), list(jobs._studio)
    jobs._studio[:] = [made]
    yield made
    jobs._studio[:] = before
    made.close()


@pytest.fixture(scope="module")
def page(queue, address):
    with visited(address) as page:
        yield page


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.ready], ids=lambda task: task.slug)
def test_three_clicks_give_a_first_result(page, queue, address, task):
    page.goto(address)  # a page that has drawn every tab takes a minute for one more on a busy machine
    page.locator(".arm-2 .picture").wait_for()
    enter(page, pages.ROOMS[pages.room_of(task)], task.title)
    page.locator(".arm-1:visible").first.wait_for()
    page.locator("button.run:visible").wait_for()
    page.wait_for_timeout(500)  # what is drawn is pressed in vain until Gradio's script knows its handlers
    before = {kept["id"] for kept in queue.store._do("SELECT id FROM runs")}
    page.locator("button.run:visible").click()
    page.locator("table.metrics:visible, .message .error:visible").first.wait_for()
    assert page.locator(".message .error:visible").all_inner_texts() == []
    (run,) = [row for row in queue.store._do("SELECT * FROM runs") if row["id"] not in before]
    assert f'"task": "{task.slug}"' in run["given"] and run["state"] in ("running", "done")
    assert "the result of" in page.locator(".arm-1:visible").first.inner_text()
    assert page.locator("button.chip:visible").count() >= 1, "an example to go on with"
