"""Where a picture is given, and a mask painted on it. The file comes as it is and inputs.picture decodes it, so that the page
refuses what the API refuses, in the same words: Gradio's editor alone would send a canvas, on which an animation is its first frame."""

from html import escape
from pathlib import Path

import gradio as gr
import numpy as np

from backends import inputs
from ui import toast, views
from ui.reading import EVENT, anew, read

SOURCES = ["upload", "clipboard"]


class Upload(gr.Image):
    """A gr.Image whose value is the uploaded file's Path, not decoded. (Gradio writes a .pyi for it beside this file.)"""

    is_template = True  # for Gradio: drawn as its parent

    def preprocess(self, payload) -> Path | None:
        return payload and Path(payload.path)


def taken(path: Path | None, what: str, longest: int) -> np.ndarray | None:
    """(H, W, 3) uint8 of an upload, shrunk to `longest` px; None when it can't be taken."""
    pixels = None if path is None else read(inputs.picture, path, what, "Picture")
    if pixels is None:
        return None
    made = inputs.shrunk(pixels, longest)
    if made.shape != pixels.shape:
        toast.info(f"It had {pixels.shape[1]}×{pixels.shape[0]} px; {made.shape[1]}×{made.shape[0]} are worked on.", title="Picture made smaller")
    return made


def plain(what: str, label: str, longest: int, image: np.ndarray | None) -> Upload:
    made = Upload(image, label=label, format="png", height=220, interactive=True, buttons=[], sources=SOURCES, **anew())
    made.upload(lambda path: taken(path, what, longest), made, made, **EVENT)
    return made


def editor(what: str, help: str, longest: int, image: np.ndarray | None, mask: np.ndarray | None) -> gr.ImageEditor:
    """Where the mask is painted; a place to upload stands there until there is a picture.

    A mask that came along is shown beside it and holds until another is painted.
    """
    help = escape(help)
    if image is not None and mask is not None and mask.shape == image.shape:
        tinted = np.where(mask > 127, image // 4 + np.array([180, 70, 46], np.uint8), image).astype(np.uint8)
        help += f'<img alt="the mask" src="{views.data_uri(tinted, 96)}"> this part is chosen; paint to choose another'
    gr.HTML(f'<p class="editor-label">{escape(what)} <span>{help}</span></p>')
    common = dict(label=what, show_label=False, format="png", interactive=True, buttons=[])
    empty = Upload(visible=image is None, height=220, sources=SOURCES, **common, **anew())
    made = gr.ImageEditor(
        _value(image), visible=image is not None, type="numpy", image_mode="RGBA", height=330, sources=(), transforms=(), layers=False,
        brush=gr.Brush(default_size=14, colors=["#e85d3ac8"], color_mode="fixed"), canvas_size=(512, 512), **common, **anew(),
    )  # fmt: skip

    def show(image: np.ndarray | None) -> tuple:
        return Upload(value=None, visible=image is None), gr.ImageEditor(value=_value(image), visible=image is not None)

    empty.upload(lambda path: show(taken(path, what, longest)), empty, [empty, made], **EVENT)
    made.clear(lambda: show(None), None, [empty, made], **EVENT)
    return made


def _value(image: np.ndarray | None) -> dict | None:
    return None if image is None else {"background": image, "layers": [], "composite": None}
