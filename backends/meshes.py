"""Objects from files: GLB, OBJ and PLY by trimesh's readers, with limits and a sentence for each way they can go wrong.

What comes out fills the object world's cube: centred, its longest half-extent `objects.BASE`; a colour a face. A GLB's y is up, as glTF says;
the axes of OBJ and PLY are left as they are.
"""

from __future__ import annotations

import io
import re
import zipfile

import numpy as np

from backends import gltf, inputs
from backends.spec import BadInput, Mesh

MAX_FACES = 200_000  # triangles
GREY = 0.8  # of what has no colour


def decoded(data: bytes, what: str) -> Mesh:
    """A mesh from the bytes of a GLB, OBJ or PLY file, told apart by what they hold; raises BadInput."""
    if data[:4] == b"glTF":
        read = gltf.read
    elif data[:4] in (b"ply\n", b"ply\r"):
        read = _ply
    elif data.lstrip()[:1] == b"{" and b'"asset"' in data:
        raise BadInput(f"{what} is a glTF of text, whose parts may be in other files; export it as GLB, which is one file.")
    elif data[:2] == b"PK":
        raise BadInput(f"{what} is a zip; unpack it and give the GLB, OBJ or PLY file that is in it.")
    elif b"\0" not in data and re.search(rb"(?m)^[ \t]*v[ \t]+[-+.\dnNiI]", data):
        read = _obj
    else:
        raise _unread(what)
    try:
        return checked(_fitted(*read(data, what), what), what)
    except BadInput:
        raise
    except Exception:
        raise _unread(what) from None


def _unread(what: str) -> BadInput:
    return BadInput(f"{what} can't be read: give a whole GLB, OBJ or PLY file.")


def too_many(what: str, n: int) -> BadInput:
    return BadInput(f"{what} has {n:,} triangles; at most {MAX_FACES:,} are taken. Simplify it.")


def checked(mesh: Mesh, what: str) -> Mesh:
    """The mesh when its arrays fit together; raises BadInput."""
    vertices, faces, colours = mesh.vertices, mesh.faces, mesh.colours
    if vertices.ndim != 2 or faces.ndim != 2 or vertices.shape[1:] != (3,) or faces.shape[1:] != (3,) or colours.shape != faces.shape or not len(faces):
        raise BadInput(f"{what} has no surface; give an object with triangles.")
    if len(faces) > MAX_FACES:
        raise too_many(what, len(faces))
    if not (vertices.dtype.kind in "fiu" and faces.dtype.kind in "iu" and colours.dtype.kind in "iu"):
        raise BadInput(f"{what} holds corners or triangles that are not numbers of their kind.")
    if not (np.isfinite(vertices) & (np.abs(vertices) < 3e38)).all():
        raise BadInput(f"{what} holds corners that are not numbers.")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise BadInput(f"{what} has triangles whose corners it does not hold.")
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32), colours.astype(np.uint8))


def _fitted(vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, what: str) -> Mesh:
    """The corners that are used, centred and scaled; non-manifold surfaces are taken as they are."""
    from backends.worlds.objects import BASE

    checked(Mesh(vertices, faces, colours), what)
    used, faces = np.unique(faces, return_inverse=True)
    vertices = vertices[used]
    low, high = vertices.min(0), vertices.max(0)
    half = float((high - low).max()) / 2
    if not 1e-30 < half < 1e30:
        raise BadInput(f"{what} has no extent: all its corners are in one place.")
    vertices, faces = (vertices - (low + high) / 2) / half * BASE, faces.reshape(-1, 3)
    a, b, c = (vertices[corner] for corner in faces.T)
    if np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() < 1e-9:
        raise BadInput(f"{what} has no surface: the corners of each triangle lie in a line.")
    return Mesh(np.float32(vertices), np.int32(faces), colours)


def is_packed(data: bytes) -> bool:
    return data[:4] == b"PK\x03\x04"


def unpacked(data: bytes, what: str) -> Mesh:
    """A mesh from `recipe.packed`'s npz, none of whose arrays may be larger than MAX_BYTES; raises BadInput."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > inputs.MAX_BYTES:
                raise BadInput(f"{what} is larger than {inputs.MAX_BYTES >> 20} MB; give a smaller one.")
        with np.load(io.BytesIO(data), allow_pickle=False) as parts:
            mesh = Mesh(parts["vertices"], parts["faces"], parts["colours"])
    except BadInput:
        raise
    except Exception:
        raise BadInput(f"{what} can't be read.") from None
    mesh = checked(mesh, what)
    if np.abs(mesh.vertices).max() > 2:
        raise BadInput(f"{what} lies outside the studio's cube; give the file it came from.")
    return mesh


# --- OBJ and PLY: one surface in its file's axes ------------------------------------------------------------


def _obj(data: bytes, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Its materials are other files and not asked for; colours of the corners are taken."""
    from trimesh.exchange.obj import load_obj

    if (n := len(re.findall(rb"(?m)^[ \t]*f[ \t]", data))) > MAX_FACES:
        raise too_many(what, n)
    if re.search(rb"(?m)^[ \t]*f[ \t](?:[^\r\n]*[ \t])?0(?:[/ \t\r\n]|$)", data):
        raise BadInput(f"{what} names a corner 0; an OBJ counts its corners from 1.")
    data = re.sub(rb"(?m)^[ \t]*usemtl[^\r\n]*", b"", data)  # trimesh takes quadratic time over the groups that they make
    found = load_obj(io.StringIO(data.decode("utf-8", "replace")), skip_materials=True)
    return joined([_coloured(part) for part in found.get("geometry", {}).values()], what)


def _ply(data: bytes, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from trimesh.exchange.ply import load_ply

    head, _, body = data.partition(b"end_header")
    counts = {name: int(n) for name, n in re.findall(rb"(?m)^element[ \t]+(\w+)[ \t]+(\d+)", head)}
    if (n := counts.get(b"face", 0)) > MAX_FACES:
        raise too_many(what, n)
    if b"ascii" in head[:40] and len(re.split(rb"\r\n|\r|\n", body)) - 1 < sum(counts.values()):
        raise cut_off(what)
    return joined([_coloured(load_ply(io.BytesIO(data), skip_materials=True))], what)


def cut_off(what: str) -> BadInput:
    return BadInput(f"{what} is cut off: the file ends before the object does. Give the whole file.")


def _coloured(part: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, triangles, colours) of what a reader found; polygons become fans."""
    from trimesh.geometry import triangulate_quads

    vertices, faces = np.asarray(part.get("vertices", np.zeros((0, 3))), float), part.get("faces")
    if faces is None or not len(faces):
        return vertices, np.zeros((0, 3), int), np.zeros((0, 3), np.uint8)
    colours = part.get("face_colors")
    if np.ndim(faces) == 2:
        faces = np.asarray(faces, int)
        fans = [faces[:, [0, i, i + 1]] for i in range(1, faces.shape[1] - 1)]
        colours = colours if colours is None else np.concatenate([colours] * len(fans))
        faces = np.concatenate(fans)
    else:
        faces, colours = np.asarray(triangulate_quads(faces), int), None
    if colours is None and part.get("vertex_colors") is not None and np.size(faces) and 0 <= faces.min() <= faces.max() < len(vertices):
        colours = share(part["vertex_colors"])[faces].mean(1)
    if colours is None or len(colours) != len(faces):
        return vertices, faces, as_bytes(np.full(faces.shape, GREY))
    return vertices, faces, as_bytes(share(colours))


def share(colours) -> np.ndarray:
    """(n, 3) from 0 to 1 of RGB or RGBA in any of the ways that files hold them."""
    colours = np.asarray(colours)[:, :3]
    top = np.iinfo(colours.dtype).max if colours.dtype.kind == "u" else 255 if colours.dtype.kind == "i" or np.nanmax(colours, initial=0) > 1 else 1
    return np.nan_to_num(colours / top).clip(0, 1)


def as_bytes(colours: np.ndarray) -> np.ndarray:
    return (colours.clip(0, 1) * 255).round().astype(np.uint8)


def joined(parts: list[tuple], what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not sum(len(faces) for _, faces, _ in parts):
        raise BadInput(f"{what} holds no triangles, at most points or lines; give an object with a surface.")
    offsets = np.cumsum([0, *(len(v) for v, _, _ in parts)])
    if any(len(f) and (f.min() < 0 or f.max() >= len(v)) for v, f, _ in parts):
        raise BadInput(f"{what} has triangles whose corners it does not hold.")
    return np.concatenate([v for v, _, _ in parts]), np.concatenate([f + o for (_, f, _), o in zip(parts, offsets)]), np.concatenate([c for *_, c in parts])
