"""Where an object is given: one of the studio's, chosen by its name or its picture, or a file of one's own."""

import functools
import io
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np
import PIL.Image

from backends import inputs
from backends.spec import Mesh
from backends.worlds.objects import ASSETS, OBJECTS, plain
from ui import inline, sound, toast
from ui.reading import EVENT, anew, read

SHEET = ASSETS / "sheet.webp"  # all objects in the order of OBJECTS, CELL px each, COLUMNS in a row
CELL, COLUMNS, SIDE = 64, 10, 224
ENDINGS = [".glb", ".obj", ".ply"]
CHOOSE = "element.addEventListener('click', (e) => { const b = e.target.closest('[data-object]'); if (b) trigger('click', { object: b.dataset.object }); });"


def field(what: str, label: str, help: str, value: str | Mesh | None) -> gr.State:
    """A state that holds a name, a Mesh or None, and around it what fills it."""
    made = gr.State(value)
    with gr.Column(elem_classes=["shape-field"]):
        gr.HTML(f'<p class="editor-label">{escape(label)} <span>{escape(help)}</span></p>')
        seen = gr.HTML(view(value))
        with gr.Row(elem_classes=["choose"]):
            name = gr.Dropdown(
                list(OBJECTS),
                value=value if isinstance(value, str) else None,
                container=False,
                show_label=False,
                label=what,
                interactive=True,
                min_width=120,
                **anew(),
            )
            file = gr.UploadButton("Open a file", file_types=ENDINGS, size="sm", elem_classes=["quiet"], min_width=90, scale=0)
        sheet = gr.HTML(gallery(), js_on_load=CHOOSE)

    def press(event: gr.EventData):
        chosen = str(event.object)
        return (chosen, view(chosen), chosen) if chosen in OBJECTS else [gr.skip()] * 3

    name.input(lambda chosen: (chosen, view(chosen)), name, [made, seen], **EVENT)
    sheet.click(press, None, [made, seen, name], **EVENT)
    file.upload(lambda path: taken(Path(path), what), file, [made, seen, name], **EVENT)
    return made


def taken(path: Path, what: str) -> tuple:
    """(mesh, its view, no name) of an upload; what stood there stays, with a warning that says why, when it can't be taken."""
    mesh = read(inputs.mesh, path, what, "Object")
    if mesh is None:
        return (gr.skip(),) * 3
    if said := inputs.left_out(path):
        toast.info(said, title="Taken, but")
    return mesh, view(mesh), None


def view(value: str | Mesh | None) -> str:
    """The object from above on its front's right, on nothing."""
    if value is None:
        return '<div class="shape-view empty">Choose an object, or open your own.</div>'
    named = isinstance(value, str)
    mesh = plain(value) if named else value
    uri = _named(value) if named else _uri(seen(mesh, SIDE))
    said = f"{value if named else 'your own'} · {len(mesh.faces):,} triangles"
    return f'<figure class="shape-view"><img alt="{escape(said)}" src="{uri}"><figcaption>{escape(said)}</figcaption></figure>'


@functools.lru_cache(96)
def _named(name: str) -> str:
    return _uri(seen(plain(name), SIDE))


def seen(mesh: Mesh, side: int) -> PIL.Image.Image:
    """An RGBA picture of a mesh, which fills it."""
    from backends.worlds.objects_render import Camera, render

    whole = render(mesh, [Camera(35, 20, 2.3)], side * 4 // 3)[0]
    whole[..., :3] /= np.maximum(whole[..., 3:], 1e-6)  # was premultiplied
    picture = PIL.Image.fromarray((whole.clip(0, 1) * 255).round().astype(np.uint8))
    left, top, right, bottom = picture.getbbox() or (0, 0, *picture.size)
    half, x, y = 0.53 * max(right - left, bottom - top), (left + right) / 2, (top + bottom) / 2
    box = [round(v) for v in (x - half, y - half, x + half, y + half)]
    return picture.crop(box).resize((side, side), PIL.Image.LANCZOS)


def _uri(picture: PIL.Image.Image) -> str:
    return inline.data_uri(picture, "WEBP", quality=85)


@functools.cache
def gallery() -> str:
    """All objects as small pictures; one file serves them."""
    rows = -(-len(OBJECTS) // COLUMNS)

    def cell(i: int, name: str) -> str:
        x, y = 100 * (i % COLUMNS) / (COLUMNS - 1), 100 * (i // COLUMNS) / (rows - 1)
        return (
            f'<button type="button" data-object="{escape(name)}" title="{escape(name)}" aria-label="{escape(name)}" style="--x:{x:.2f}%;--y:{y:.2f}%"></button>'
        )

    url = sound.url(sound.saved(SHEET.read_bytes(), SHEET.name))
    cells = "".join(cell(i, name) for i, name in enumerate(OBJECTS))
    return f'<details class="gallery"><summary>All {len(OBJECTS)} objects</summary><div style="--sheet:url(\'{escape(url)}\');--columns:{COLUMNS};--rows:{rows}">{cells}</div></details>'


@functools.cache
def icon(name: str) -> str:
    """The path of an object's small picture."""
    i = OBJECTS.index(name)
    x, y = i % COLUMNS * CELL, i // COLUMNS * CELL
    out = io.BytesIO()
    PIL.Image.open(SHEET).crop((x, y, x + CELL, y + CELL)).save(out, "PNG")
    return sound.saved(out.getvalue(), f"{name.replace(' ', '_')}.png")


def draw_sheet() -> None:
    """Writes SHEET anew: python -c "from ui import shape; shape.draw_sheet()"."""
    sheet = PIL.Image.new("RGBA", (COLUMNS * CELL, -(-len(OBJECTS) // COLUMNS) * CELL))
    for i, name in enumerate(OBJECTS):
        sheet.paste(seen(plain(name), CELL), (i % COLUMNS * CELL, i // COLUMNS * CELL))
    sheet.save(SHEET, "WEBP", quality=82, method=6)
