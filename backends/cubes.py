"""Spectral cubes from files: npy, npz, MATLAB's mat and ENVI, with limits and a sentence for each way they can go wrong.

An array's axes are height × width × bands. Values that are not all in [0, 1] are scaled so, by their least and greatest; the cube remembers both. A 0
stands for a missing value, so that where none is 0 the least becomes the next above it.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile

import numpy as np

from backends import inputs
from backends.spec import BadInput, Cube, Image

MOST = 6_000_000  # values
SIDES, BANDS = (16, 512), (3, 512)  # px; how many
ENVI = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}  # “data type” of its headers
ORDERS = {"bsq": ("bands", "lines", "samples"), "bil": ("lines", "bands", "samples"), "bip": ("lines", "samples", "bands")}
KINDS = "npy, npz, mat (before 7.3), or a zip of an ENVI header and its data"


def cube(values: np.ndarray, wavelengths: tuple[float, ...] = (), low: float = 0.0, high: float = 1.0) -> Cube:
    """A Cube of (H, W, B) values: clipped to [0, 1] and rounded to 16 bits, so that it can travel beside a recipe and keep its hash."""
    rounded = np.round(np.clip(values, 0, 1) * 65535).astype(np.float32) / np.float32(65535)
    return Cube(rounded, tuple(map(float, wavelengths)), float(low), float(high))


def decoded(data: bytes, what: str) -> Cube:
    """A cube from a file's bytes, told apart by what they hold; raises BadInput."""
    if data[:6] == b"\x93NUMPY":
        read = _npy
    elif data[:4] == b"PK\x03\x04":
        read = _zip
    elif data[:10] == b"MATLAB 5.0":
        read = _mat
    elif data[:4] == b"\x89HDF" or data[:10] == b"MATLAB 7.3":
        raise BadInput(f"{what} is an HDF5 file, as MATLAB 7.3 writes them; save it with -v7, or as npy.")
    elif data[:4] == b"ENVI":
        raise BadInput(f"{what} is an ENVI header alone; put it and its data file into one zip.")
    else:
        raise BadInput(f"{what} can't be read: give {KINDS}.")
    try:
        return read(data, what)
    except BadInput:
        raise
    except Exception:  # the readers raise many kinds for a broken file
        raise BadInput(f"{what} can't be read: give a whole file of {KINDS}.") from None


def checked(values: np.ndarray, what: str, wavelengths: tuple[float, ...] = ()) -> Cube:
    """The cube when its values can be taken; raises BadInput."""
    _fits(values.shape, values.dtype, what)
    if not (finite := np.isfinite(values)).all():
        raise BadInput(f"{what} holds {(~finite).sum():,} values that are not numbers; write 0 where one is missing.")
    values, low, high = values.astype(np.float64), 0.0, 1.0
    if values.min() < 0 or values.max() > 1:
        low, high = float(values.min()), float(values.max())
        if low > 0:
            low -= (high - low) / 65534
        values = (values - low) / (high - low) if 0 < high - low < np.inf else values
    if values.min() == values.max() or not np.isfinite(values).all():
        raise BadInput(f"{what} holds nothing that could be told apart: its values are all {'too large' if high - low == np.inf else f'{low:.4g}'}.")
    wavelengths = wavelengths if len(wavelengths) == values.shape[2] and np.isfinite(wavelengths).all() else ()
    return cube(values, wavelengths, low, high)


def _fits(shape: tuple[int, ...], dtype: np.dtype, what: str) -> None:
    """Refuse what is too large before it is read."""
    if dtype.kind not in "iuf":
        raise BadInput(f"{what} holds {'objects, which are not opened' if dtype.kind == 'O' else f'values of type {dtype}'}; give plain real numbers.")
    if len(shape) != 3:
        raise BadInput(f"{what} has {len(shape)} axes; a cube has three: height × width × bands.")
    h, w, bands = shape
    said = f"{what} has {h:,}×{w:,} pixels and {bands:,} bands"
    if not (SIDES[0] <= min(h, w) and max(h, w) <= SIDES[1] and BANDS[0] <= bands <= BANDS[1]):
        raise BadInput(f"{said}; taken are {SIDES[0]} to {SIDES[1]} pixels a side and {BANDS[0]} to {BANDS[1]} bands. The axes are height × width × bands.")
    if h * w * bands > MOST:
        raise BadInput(f"{said}, {h * w * bands:,} values; at most {MOST:,} are taken. Cut it, or leave out bands.")


# --- readers ---------------------------------------------------------------------------------------------------------


def _header(file, what: str) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, type) of an npy file, by its header alone; `file` stands behind it afterwards."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise BadInput(f"{what} is an npy file of version {version[0]}.{version[1]}; save it anew with numpy.save.")
    shape, _, dtype = read(file)
    return shape, dtype


def _npy(data: bytes, what: str, wavelengths: tuple[float, ...] = ()) -> Cube:
    shape, dtype = _header(file := io.BytesIO(data), what)
    _fits(shape, dtype, what)
    if len(data) - file.tell() < int(np.prod(shape)) * dtype.itemsize:
        raise BadInput(f"{what} is cut off: the file ends before its values do. Give the whole file.")
    return checked(np.load(io.BytesIO(data), allow_pickle=False), what, wavelengths)


def _mat(data: bytes, what: str) -> Cube:
    from scipy import io as mat

    found = {name: shape for name, shape, kind in mat.whosmat(io.BytesIO(data)) if len(shape) == 3 and kind.startswith(("int", "uint", "single", "double"))}
    if not found:
        raise BadInput(f"{what} holds no variable of three axes with real numbers; a cube is height × width × bands.")
    name = max(found, key=lambda n: int(np.prod(found[n])))
    _fits(found[name], np.dtype(float), what)
    return checked(np.ascontiguousarray(mat.loadmat(io.BytesIO(data), variable_names=[name])[name]), what)


def _zip(data: bytes, what: str) -> Cube:
    """An npz of ours or of others, or an ENVI header with its data beside it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [e for e in archive.infolist() if not e.is_dir() and "__MACOSX" not in e.filename]
        if sum(e.file_size for e in entries) > 2 * inputs.MAX_BYTES:
            raise BadInput(f"{what} unpacks to more than {2 * inputs.MAX_BYTES >> 20} MB; give a smaller one.")
        names = {e.filename: e for e in entries}
        if header := next((n for n in names if n.lower().endswith(".hdr")), None):
            stem = header[:-4].lower()
            beside = [n for n in names if n != header and (n.lower() == stem or n.lower().rpartition(".")[0] == stem)]
            if not beside:
                raise BadInput(f"{what} holds {header[:60]} and no data file of that name.")
            largest = max(beside, key=lambda n: names[n].file_size)  # not a description of it
            return _envi(_entry(archive, names[header]).decode("latin-1"), _entry(archive, names[largest]), what)
        if is_packed(data):
            return unpacked(data, what)
        for name in sorted((n for n in names if n.endswith(".npy")), key=lambda n: -names[n].file_size):
            read = _entry(archive, names[name])
            if read[:6] == b"\x93NUMPY" and len(_header(io.BytesIO(read), what)[0]) == 3:
                return _npy(read, what)
    raise BadInput(f"{what} holds neither an array of three axes nor an ENVI header (.hdr) with its data.")


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        return file.read(2 * inputs.MAX_BYTES)  # whatever the zip said of its size


def _envi(header: str, data: bytes, what: str) -> Cube:
    """As NV5's documentation of ENVI headers: `name = value` or `name = {…}`."""
    found = {k.strip().lower(): v.strip("{} \t\r\n") for k, v in re.findall(r"(?m)^[ \t]*([\w ]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\r\n]*)", header)}
    try:
        sizes = {name: int(found[name]) for name in ("lines", "samples", "bands")}
        kind, offset = int(found["data type"]), int(found.get("header offset", 0))
        order = ORDERS[found["interleave"].lower()]
        dtype = np.dtype((">" if found.get("byte order", "0") == "1" else "<") + ENVI[kind])
    except (KeyError, ValueError):
        raise BadInput(f"{what}: its ENVI header lacks lines, samples, bands, interleave or a data type of real numbers.") from None
    shape = tuple(sizes[name] for name in order)
    _fits((sizes["lines"], sizes["samples"], sizes["bands"]), dtype, what)
    if offset < 0 or len(data) < offset + int(np.prod(shape)) * dtype.itemsize:
        raise BadInput(f"{what} is cut off: its ENVI header tells of more values than its data file holds.")
    values = np.frombuffer(data, dtype, int(np.prod(shape)), offset).reshape(shape)
    with contextlib.suppress(KeyError, ValueError):
        values = np.where(values == float(found["data ignore value"]), 0, values)
    return checked(values.transpose([order.index(n) for n in ("lines", "samples", "bands")]), what, _nanometres(found))


def _nanometres(header: dict[str, str]) -> tuple[float, ...]:
    try:
        values = [float(v) for v in header.get("wavelength", "").split(",") if v.strip()]
    except ValueError:
        return ()
    micro = header.get("wavelength units", "").lower().startswith("micro") or (values and max(values) < 100)
    return tuple(1000 * v if micro else v for v in values)


# --- beside a recipe, and on the page --------------------------------------------------------------------------------


def packed(cube: Cube, **more: np.ndarray) -> bytes:
    """An npz that gives the very cube back: `cube` as 16 bits, `wavelengths`, `range` (low, high)."""
    out = io.BytesIO()
    np.savez_compressed(out, cube=sixteen(cube), wavelengths=np.array(cube.wavelengths), range=np.array([cube.low, cube.high]), **more)
    return out.getvalue()


def sixteen(cube: Cube) -> np.ndarray:
    return np.round(cube.values * 65535).astype("<u2")


def is_packed(data: bytes) -> bool:
    if data[:4] != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {"cube.npy", "wavelengths.npy", "range.npy"} <= set(archive.namelist())
    except Exception:
        return False


def unpacked(data: bytes, what: str) -> Cube:
    """A cube from `packed`'s npz; raises BadInput."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: _entry(archive, archive.getinfo(f"{name}.npy")) for name in ("cube", "wavelengths", "range")}
        for name, part in parts.items():
            shape, dtype = _header(io.BytesIO(part), what)
            if name == "cube":
                _fits(shape, dtype, what)
        values, nm, (low, high) = (np.load(io.BytesIO(part), allow_pickle=False) for part in parts.values())
    except BadInput:
        raise
    except Exception:
        raise BadInput(f"{what} can't be read.") from None
    if values.dtype != np.dtype("<u2") or nm.ndim != 1 or len(nm) not in (0, values.shape[2]) or not np.isfinite([low, high, *nm]).all():
        raise BadInput(f"{what} can't be read: it is no cube of this studio.")
    return cube(values / 65535, tuple(nm), low, high)


def text(data: bytes, name: str) -> str:
    """What the array of bytes `name` in an npz says; empty where there is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return np.load(io.BytesIO(_entry(archive, archive.getinfo(f"{name}.npy"))), allow_pickle=False).astype(np.uint8).tobytes().decode()
    except Exception:
        return ""


def colours(cube: Cube) -> tuple[int, int, int]:
    """The bands to show as red, green and blue: those next to 650, 550 and 450 nm where the cube has them, else three from the last to the first."""
    nm, bands = np.array(cube.wavelengths), cube.values.shape[2]
    if len(nm) and nm.min() <= 480 and nm.max() >= 620:
        return tuple(int(np.abs(nm - at).argmin()) for at in (650, 550, 450))
    return tuple(round(at * (bands - 1)) for at in (0.8, 0.45, 0.1))


def picture(cube: Cube) -> Image:
    """How a cube looks in three bands."""
    return cube.picture or Image(false_colour(cube))


def false_colour(cube: Cube, like: Cube | None = None) -> np.ndarray:
    """(H, W, 3) uint8: three bands, each stretched to what 98 % of its values (of `like`'s, where given) span."""
    of = like or cube
    bands = list(colours(of))
    low, high = np.percentile(of.values[..., bands], (1, 99), axis=(0, 1))
    return (((cube.values[..., bands] - low) / np.maximum(high - low, 1e-6)).clip(0, 1) * 255).round().astype(np.uint8)
