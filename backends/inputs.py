"""Decoding what people upload, with limits and a sentence for each way it can go wrong."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from backends.spec import BadInput

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 4096 * 4096
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def picture(source: bytes | Path | np.ndarray, what: str = "The picture") -> np.ndarray:
    """(H, W, 3) uint8 from a file's bytes, its path or an array; raises BadInput."""
    if isinstance(source, np.ndarray):
        return _array(source, what)
    if isinstance(source, Path):
        if source.stat().st_size > MAX_BYTES:
            raise BadInput(f"{what} is larger than {MAX_BYTES >> 20} MB; give a smaller file.")
        source = source.read_bytes()
    if not source:
        raise BadInput(f"{what} is an empty file; choose another.")
    if len(source) > MAX_BYTES:
        raise BadInput(f"{what} is larger than {MAX_BYTES >> 20} MB; give a smaller file.")
    try:
        image = PIL.Image.open(io.BytesIO(source), formats=("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))
        if image.width * image.height > MAX_PIXELS:
            raise PIL.Image.DecompressionBombError
        if getattr(image, "n_frames", 1) > 1:
            raise BadInput(f"{what} is an animation; give a still picture.")
        image.load()
    except BadInput:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise BadInput(f"{what} has more than {MAX_PIXELS:,} pixels (4096×4096); give a smaller one.") from None
    except Exception:
        raise BadInput(f"{what} can't be read: give a whole PNG, JPEG or WebP file.") from None
    image = PIL.ImageOps.exif_transpose(image)  # phones store the turn apart from the pixels
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _array(array: np.ndarray, what: str) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, -1)
    if array.ndim != 3 or array.shape[-1] not in (3, 4) or 0 in array.shape:
        raise BadInput(f"{what} must be an array of height × width × 3 values.")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise BadInput(f"{what} has more than {MAX_PIXELS:,} pixels (4096×4096); give a smaller one.")
    if array.dtype != np.uint8:
        if not np.isfinite(array).all():
            raise BadInput(f"{what} holds values that are not numbers.")
        array = np.clip(array * (255 if array.max() <= 1 else 1), 0, 255).astype(np.uint8)
    if array.shape[-1] == 4:  # on white, as files are
        share = array[..., 3:].astype(np.float32) / 255
        array = (array[..., :3] * share + 255 * (1 - share)).round().astype(np.uint8)
    return np.ascontiguousarray(array)


def text(value, what: str, limit: int, required: bool) -> str:
    """The text without control characters; raises BadInput when it is empty or too long."""
    if not isinstance(value, str):
        raise BadInput(f"{what} must be a text.")
    if len(value) > limit:
        raise BadInput(f"{what} has {len(value):,} characters; at most {limit:,} are taken.")
    clean = "".join(c for c in value if c.isprintable() or c in "\n\t").strip()
    if required and not clean:
        raise BadInput(f"{what} is empty; write something there.")
    return clean


def shrunk(pixels: np.ndarray, longest: int) -> np.ndarray:
    """The picture with its longer side at most `longest` px; pictures of one size keep one size."""
    h, w = pixels.shape[:2]
    if max(h, w) <= longest:
        return pixels
    size = tuple(max(1, round(v * longest / max(h, w))) for v in (w, h))
    return np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.LANCZOS))


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Crop the middle square and resize it to `side` px."""
    h, w = pixels.shape[:2]
    n = min(h, w)
    top, left = (h - n) // 2, (w - n) // 2
    image = PIL.Image.fromarray(pixels[top : top + n, left : left + n])
    return np.asarray(image.resize((side, side), PIL.Image.LANCZOS))
