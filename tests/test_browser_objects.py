"""Objects in headless Chromium: one is chosen, one of one's own is opened, an edit runs, its turntables turn together, its film is dropped again."""

import pytest
import trimesh
from browsing import enter, visited

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(address):
    with visited(address) as page:
        enter(page, "3D", "Edit an object")
        page.locator(".shape-view img:visible").wait_for()
        yield page


def caption(page) -> str:
    return page.locator(".shape-view figcaption:visible").inner_text()


def told(page, said: str):
    page.wait_for_function(
        "said => [...document.querySelectorAll('.shape-view figcaption')].some(f => f.offsetParent && f.textContent.startsWith(said))", arg=said
    )


def test_an_object_is_chosen_edited_turned_and_opened_again(page, tmp_path):
    assert caption(page).startswith("cactus · "), "the first example"
    page.locator(".gallery:visible summary").click()
    page.locator(".gallery [data-object='dog house']:visible").click()
    told(page, "dog house · ")
    assert page.locator(".shape-field input[role=combobox]:visible").input_value() == "dog house"
    (tmp_path / "wrong.glb").write_bytes(b"glTF\2\0\0\0")
    mine = tmp_path / "mine.glb"
    mine.write_bytes(trimesh.Scene(trimesh.creation.icosphere(2)).export(file_type="glb"))
    opener = page.locator(".shape-field:visible input[type=file]")
    opener.set_input_files(tmp_path / "wrong.glb")
    page.get_by_text("Shape is cut off").first.wait_for()
    assert caption(page).startswith("dog house · ")
    opener.set_input_files(mine)
    told(page, "your own · 320 triangles")

    page.locator(".arm-3 button.remove:visible").click()  # of the example's three arms
    page.locator(".arm-3").wait_for(state="hidden")
    told(page, "your own · 320 triangles")
    for arm in page.locator(".arm:visible").all():
        for label, value in (("iterations", 2), ("captures", 10), ("grid", 16)):
            box = arm.get_by_label(f"number input for {label}").first
            box.fill(str(value))
            box.blur()
    page.locator("button.run:visible").click()
    page.locator("table.metrics").wait_for(timeout=120_000)
    assert page.locator(".arm .main .turntable[data-frames] .view i:visible").count() == 2

    position = "k => document.querySelectorAll('.arm .main .view i')[k].style.backgroundPosition"
    before = page.evaluate(position, 0)
    page.wait_for_function(f"before => ({position})(0) != before", arg=before)  # it turns by itself
    page.locator(".arm-1 .turn input").fill("5")
    assert page.evaluate(position, 0) == page.evaluate(position, 1), "both turn together"
    assert page.locator(".arm-2 .turn input").input_value() == "5"
    page.locator(".arm-2 .view").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".arm-1 .turn input").input_value() == "6"
    page.locator(".arm-2 .turn .spin").click()
    page.wait_for_function("[1, 2].every((k) => document.querySelector(`.arm-${k} .turn .spin.on`))")  # one button lets all turn
    page.wait_for_function(f"({position})(0) == ({position})(1) && document.querySelector('.arm-1 .turn input').value != 6")
    page.locator(".arm-1 .turn .spin").click()
    page.wait_for_function("!document.querySelector('.turn .spin.on')")
    page.locator(".arm-1 .turn input").fill("6")
    view = page.locator(".arm-1 .view").bounding_box()
    page.mouse.move(view["x"] + view["width"] / 2, view["y"] + 50)
    page.mouse.down()
    page.mouse.move(view["x"] + view["width"] / 4, view["y"] + 50)
    page.mouse.up()
    assert page.locator(".arm-2 .turn input").input_value() == "12", "a quarter of its width is a quarter of a turn"

    page.locator(".solid:visible canvas").wait_for()
    for kind in ("GLB", "WebP"):
        with page.expect_download() as download:
            page.locator(".arm-1 .turntable").get_by_text(kind, exact=True).click()
        taken = tmp_path / download.value.suggested_filename
        assert taken.suffix == f".{kind.lower()}"
        download.value.save_as(taken)
    page.locator("button.chip:visible").nth(1).click()
    told(page, "teddy bear · ")
    page.locator("input[data-testid$='recipe-upload-button']").set_input_files(taken)  # the film
    told(page, "your own · 320 triangles")
    assert page.locator(".arm:visible").count() == 1
    page.get_by_role("tab", name="My runs").click()
    page.locator(".past img").first.wait_for()


def test_a_file_dropped_on_the_object_is_its_shape_not_a_recipe(page):
    enter(page, "3D", "Edit an object")
    text = trimesh.creation.box().export(file_type="obj")
    page.locator(".shape-field:visible").evaluate(
        """(field, text) => {
            const files = new DataTransfer();
            files.items.add(new File([text], 'box.obj'));
            field.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: files }));
        }""",
        text,
    )
    told(page, "your own · 12 triangles")
