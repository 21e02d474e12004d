"""Pictures inside the page's own HTML."""

import base64
import io

import PIL.Image


def data_uri(picture: PIL.Image.Image, kind: str = "PNG", **options) -> str:
    """`options`: Pillow's for saving as `kind`."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(out.getvalue()).decode()
