"""Decoding what people upload, with limits and a sentence for each way it can go wrong."""

import io
import logging
import os
import re
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from backends import models
from backends.spec import Audio, BadInput, Brought, Cube, Mesh, Prompt, Task

MAX_BYTES = 32 * 2**20
MAX_ZIPS = 4  # at once, of what a visitor brings
MAX_SCORE = 2**20  # bytes of a file that fills fields
MAX_PIXELS = 4096 * 4096
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
MAX_SECONDS, MIN_SECONDS = 600.0, 0.05  # of a sound; a job's field may ask for less
RATES = 4_000, 384_000  # Hz
MAX_CHANNELS = 32
TOO_LARGE = "{name} has {size} MB; up to {most} MB are taken here. The host can raise that (UNNOISE_MAX_UPLOAD_MB)."  # of a zip; the page says it too
log = logging.getLogger(__name__)
# How the files start that are taken as sound: WAV, RF64, FLAC, OGG, AIFF, MP3 with and without tags.
SOUNDS = re.compile(rb"RIFF....WAVE|RF64....WAVE|fLaC|OggS|FORM....AIF[FC]|ID3|\xff[\xe2-\xff]", re.DOTALL)


def picture(source: bytes | Path | np.ndarray, what: str = "The picture") -> np.ndarray:
    """(H, W, 3) uint8 from a file's bytes, its path or an array; raises BadInput."""
    if isinstance(source, np.ndarray):
        return _array(source, what)
    if isinstance(source, Audio | Cube):
        raise BadInput(f"{what} is a {'sound' if isinstance(source, Audio) else 'spectral cube'}; give a picture.")
    source = _bytes(source, what)
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
    if image.mode[0] in "IF":  # grey in 16 bits, or in numbers of any size: Pillow would cut them off at 255
        values = np.asarray(image, np.float32)
        return _array(values if image.mode[0] == "F" else values / 65535, what)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _bytes(source: bytes | Path, what: str) -> bytes:
    if (source.stat().st_size if isinstance(source, Path) else len(source)) > MAX_BYTES:
        raise BadInput(f"{what} is larger than {MAX_BYTES >> 20} MB; give a smaller file.")
    data = source.read_bytes() if isinstance(source, Path) else source
    if not data:
        raise BadInput(f"{what} is an empty file; choose another.")
    return data


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
        wide = array.dtype == np.uint16 or (array.dtype.kind in "iu" and array.max() > 255)
        top = 2**16 - 1 if wide else 1 if array.max() <= 1 else 255
        array = (np.clip(array, 0, top) * (255 / top)).astype(np.uint8)
    if array.shape[-1] == 4:  # on white, as files are
        share = array[..., 3:].astype(np.float32) / 255
        array = (array[..., :3] * share + 255 * (1 - share)).round().astype(np.uint8)
    return np.ascontiguousarray(array)


def sound(source: bytes | Path | Audio, what: str = "The sound", longest: float = MAX_SECONDS) -> Audio:
    """Audio at the file's own rate, its channels mixed to one (the first, where they undo each other), from a file's bytes or its path; raises BadInput.

    Rounded to 16 bits, so that it can travel beside a recipe as FLAC and keep its hash; louder than full scale is turned down.
    """
    if isinstance(source, np.ndarray | Cube):
        raise BadInput(f"{what} is a {'picture' if isinstance(source, np.ndarray) else 'spectral cube'}; give a sound.")
    samples, rate = (source.samples, source.rate) if isinstance(source, Audio) else _decoded(_bytes(source, what), what, longest)
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise BadInput(f"{what} holds values that are not numbers.")
    seconds = len(samples) / rate
    if seconds > longest:
        raise _too_long(what, seconds, longest)
    if seconds < MIN_SECONDS:
        raise BadInput(f"{what} holds no sound: it lasts {1000 * seconds:.0f} ms.")
    samples = samples / max(1.0, float(np.abs(samples).max()))
    return Audio(np.clip(np.round(samples * 32768), -32768, 32767).astype(np.float32) / 32768, int(rate))


def _decoded(data: bytes, what: str, longest: float) -> tuple[np.ndarray, int]:
    """(samples, rate), read block by block, so that neither many channels nor a header that lies fills the memory."""
    import soundfile

    unread = BadInput(f"{what} can't be read: give a whole WAV, FLAC, OGG or MP3 file.")
    if not is_sound(data):  # by content: a picture called .wav is none, an MP3 called .wav is one
        raise unread
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, said = file.samplerate, file.frames / file.samplerate
            if said > longest and file.frames < 2**40:  # more is “unknown”
                raise _too_long(what, said, longest)
            if not RATES[0] <= rate <= RATES[1]:
                raise BadInput(f"{what} has a rate of {rate:,} Hz; from {RATES[0]:,} to {RATES[1]:,} Hz are taken.")
            if file.channels > MAX_CHANNELS:
                raise BadInput(f"{what} has {file.channels} channels; at most {MAX_CHANNELS} are taken.")
            blocks, first, read = [], [], 0
            while len(block := file.read(2**14, dtype="float32", always_2d=True)):  # `blocks` fills up a short file
                blocks.append(block.mean(1))
                first += [block[:, 0].copy()] if file.channels > 1 else []
                read += len(block)
                if read > longest * rate:
                    raise _too_long(what, read / rate, longest)
            # A WAV's own size is taken from what is there; libsndfile's log tells when its header said more.
            sizes = re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info)
            short = sizes and int(sizes[2]) < int(sizes[1]) < 2**31 - 64  # a stream's header gives the largest size there is
            if short or read < file.frames < 2**40:
                raise BadInput(f"{what} is cut off: the file ends before its sound does. Give the whole file.")
    except BadInput:
        raise
    except Exception:
        raise unread from None
    mean = np.concatenate([*blocks, np.zeros(0, np.float32)])
    if first and np.abs(mean).max() < 1e-4 < np.abs(one := np.concatenate(first)).max():  # channels of opposite sign
        return one, rate
    return mean, rate


def is_sound(data: bytes) -> bool:
    return SOUNDS.match(data) is not None


def _too_long(what: str, seconds: float, longest: float) -> BadInput:
    said = f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 60:,.0f} minutes"
    return BadInput(f"{what} is longer than {longest:.10g} s (it lasts {said}); cut it shorter.")


def mesh(source: bytes | Path | str | Mesh, what: str = "The object") -> Mesh:
    """A mesh in the object world's cube, from a file's bytes, its path, or the name of one of the studio's objects; raises BadInput."""
    from backends import meshes
    from backends.worlds import objects

    if isinstance(source, str):
        if source not in objects.OBJECTS:
            raise BadInput(f"{what}: no object is called {source[:60]}; there are {', '.join(objects.OBJECTS)}.")
        return objects.plain(source)
    if isinstance(source, Mesh):
        return meshes.checked(source, what)
    if isinstance(source, np.ndarray | Audio | Cube):
        raise BadInput(f"{what} is a {'sound' if isinstance(source, Audio) else 'cube' if isinstance(source, Cube) else 'picture'}; give an object.")
    return meshes.decoded(_bytes(source, what), what)


def left_out(path: Path) -> str:
    """A sentence on the colours that a file names and that are not read, for who gave it; empty where there are none."""
    data = path.read_bytes()
    if b"\0" in data or data[:3] == b"ply" or not re.search(rb"(?m)^[ \t]*(?:usemtl|mtllib)[ \t]", data):
        return ""
    return "The materials of an OBJ are in other files, which are not read: it is grey where its corners have no colours. Export it as GLB to keep them."


def cube(source: bytes | Path | Cube, what: str = "The cube") -> Cube:
    """A spectral cube from a file's bytes or its path; raises BadInput."""
    from backends import cubes

    if isinstance(source, Cube):
        return source
    if isinstance(source, np.ndarray | Audio | Mesh):
        raise BadInput(
            f"{what} is {'a sound' if isinstance(source, Audio) else 'an object' if isinstance(source, Mesh) else 'a picture'}; give a spectral cube."
        )
    return cubes.decoded(_bytes(source, what), what)


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


def fields(path: Path, rule: Prompt, text: str) -> tuple[dict, list[str]]:
    """({field: value}, notes to the visitor) from a file that fills a job's fields; raises BadInput."""
    if path.stat().st_size > MAX_SCORE:
        raise BadInput(f"The file is larger than {MAX_SCORE >> 20} MB; choose a smaller one.")
    return models.resolve(rule.read)(path.read_bytes(), text or "")


def max_zip() -> int:
    """Bytes of the largest zip that a visitor may bring, as the host says in UNNOISE_MAX_UPLOAD_MB; 0 where none may. Raises ValueError for what is no number."""
    said = os.environ.get("UNNOISE_MAX_UPLOAD_MB", "256")
    if not said.isdecimal():
        raise ValueError(f"UNNOISE_MAX_UPLOAD_MB is {said!r}; it must be a whole number of megabytes, or 0 to take no zips.")
    return int(said) * 2**20


def brought(task: Task, files: list[Path], held: tuple[str, ...] = ()) -> Brought:
    """What the zips that a visitor brought give the task; `held`: that of the Brought before. Raises BadInput."""
    most = max_zip()
    if task.brings is None or not most:
        raise BadInput(f"{task.title} takes no models of visitors here.")
    if not 0 < len(files) <= MAX_ZIPS:
        raise BadInput(f"Bring one to {MAX_ZIPS} zips at once; these are {len(files)}.")
    for file in files:
        if not file.is_file():  # two visitors' uploads of one content are one file
            raise BadInput(f"{file.name[:60]} is not here any more; choose it again.")
        if (size := file.stat().st_size) > most:
            raise BadInput(TOO_LARGE.format(name=file.name[:60], size=f"{size / 2**20:,.0f}", most=f"{most >> 20:,}"))
    try:
        return models.resolve(task.brings.read)(files, tuple(held))
    except BadInput:
        raise
    except Exception:
        log.exception("what a visitor brought could not be taken")
        raise BadInput(f"{', '.join(f.name[:60] for f in files)} could not be taken; the log holds the details.") from None
