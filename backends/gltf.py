"""Objects as binary glTF (GLB): a scene of surfaces with materials is read, a surface with a colour a face written.

glTF keeps colours of corners and materials as linear light, textures as sRGB.
"""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import PIL.Image

from backends import inputs, meshes
from backends.spec import BadInput, Mesh

MAX_PARTS = 2_000  # nodes and primitives of a GLB's scene
FINE = 24_000  # triangles that coarse surfaces are divided into, so that their texture is seen
COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
READ = re.compile("KHR_materials_|KHR_lights_punctual|KHR_mesh_quantization|EXT_texture_webp|KHR_texture_transform")
CLAMPED, MIRRORED = 33071, 33648  # of samplers
SIZES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5124: 4, 5125: 4, 5126: 4}  # bytes of a component; SHAPES: components of an item
SHAPES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def read(data: bytes, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All surfaces of its scene where they stand; what moves stands as it was made."""
    from trimesh.exchange.gltf import load_glb

    if len(data) < 20 or int.from_bytes(data[8:12], "little") > len(data):
        raise meshes.cut_off(what)
    length = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + length])
    _admit(tree, data[28 + length :], what)
    data, textures = _unwrapped(tree, data, what)
    found = load_glb(io.BytesIO(data))
    # Edges come from the root on; trimesh's own graph looks each path up anew, which takes minutes where it is deep.
    placed, pixels, parts, n = {}, {}, [], 0
    fine = FINE // max(1, sum("geometry" in edge for edge in found["graph"]))
    for edge in found["graph"]:
        matrix = placed[edge["frame_to"]] = placed.get(edge["frame_from"], np.eye(4)) @ edge["matrix"]
        part = found["geometry"][edge["geometry"]] if "geometry" in edge else {}
        n += len(part.get("faces", ()))
        if n > meshes.MAX_FACES:
            raise meshes.too_many(what, n)
        if "faces" in part:
            vertices, faces, colours = _surfaced(part, pixels, fine, textures)
            if np.linalg.det(matrix[:3, :3]) < 0:
                faces = faces[:, ::-1]
            parts.append((vertices @ matrix[:3, :3].T + matrix[:3, 3], faces, colours))
    return meshes.joined(parts, what)


def _admit(tree: dict, binary: bytes, what: str) -> None:
    """Refuse what a reader can't have, or what would swell beyond the file's size in memory."""
    needed = tree.get("extensionsRequired", [])
    if any(name in COMPRESSED for name in [*needed, *tree.get("extensionsUsed", [])]):
        raise BadInput(f"{what} is compressed (Draco or Meshopt), which can't be read here; export it without compression.")
    if unknown := [name for name in needed if not READ.match(name)]:
        raise BadInput(f"{what} needs {str(unknown[0])[:60]}, which can't be read here; export it without that extension.")
    if any("uri" in part and not str(part["uri"]).startswith("data:") for kind in ("buffers", "images") for part in tree.get(kind, [])):
        raise BadInput(f"{what} keeps parts in other files; export it as one GLB file with everything in it.")
    primitives = [p for m in tree.get("meshes", []) for p in m["primitives"]]
    if max(len(primitives), len(tree.get("nodes", []))) > MAX_PARTS:
        raise BadInput(f"{what} is put together from more than {MAX_PARTS:,} parts; join them.")
    accessors, views = tree.get("accessors", []), tree.get("bufferViews", [])
    sizes = [_whole(v["byteLength"]) for v in views], [_whole(a["count"]) * SIZES[a["componentType"]] * SHAPES[a["type"]] for a in accessors]
    read = [[*p["attributes"].values(), *([p["indices"]] if "indices" in p else [])] for p in primitives]
    corners = sum(max(_whole(accessors[i]["count"]) for i in some) for some in read if some)
    if max(map(sum, sizes)) > 4 * inputs.MAX_BYTES or corners > 8 * meshes.MAX_FACES:
        raise BadInput(f"{what} holds more than {meshes.MAX_FACES:,} triangles and their corners; simplify it.")
    if any("sparse" in accessors[i] or "bufferView" not in accessors[i] for some in read for i in some):
        raise BadInput(f"{what} holds sparse data, which can't be read here; export it anew without.")
    _admit_images([_content(image, views, binary) for image in tree.get("images", [])], what)


def _admit_images(files: list[bytes], what: str) -> None:
    total = 0
    for file in files:
        try:
            width, height = PIL.Image.open(io.BytesIO(file), formats=("PNG", "JPEG", "WEBP")).size
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
            width = height = inputs.MAX_PIXELS
        except Exception:
            raise BadInput(f"{what} has a texture that can't be read; use PNG, JPEG or WebP.") from None
        total += width * height
        if width * height > inputs.MAX_PIXELS or total > 4 * inputs.MAX_PIXELS:
            raise BadInput(f"{what} has textures of more than {inputs.MAX_PIXELS:,} pixels (4096×4096), or too many of them; make them smaller.")


def _unwrapped(tree: dict, data: bytes, what: str) -> tuple[bytes, dict[str, tuple]]:
    """What trimesh leaves out of base colours' textures: the file with the coordinates that each asks for as the first set, TEXCOORD_0, the only one
    that is read, and its materials named anew; by those names, how coordinates are moved (2, 3) and how the texture goes on beyond its edges, across and down."""
    placed = {}
    for part in (p for m in tree.get("meshes", []) for p in m["primitives"] if "material" in p):
        material = tree["materials"][_whole(part["material"])]
        gloss = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})  # which trimesh puts over the rest
        texture = gloss.get("diffuseTexture") or material.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})
        move = texture.get("extensions", {}).get("KHR_texture_transform", {})
        if asked := _whole(move.get("texCoord", texture.get("texCoord", 0))):
            if (named := f"TEXCOORD_{asked}") not in part["attributes"]:
                raise BadInput(f"{what} has a texture that asks for coordinates that it does not hold ({named}); export it anew.")
            part["attributes"]["TEXCOORD_0"] = part["attributes"][named]
        if texture:
            source = tree["textures"][_whole(texture["index"])]
            sampler = tree["samplers"][_whole(source["sampler"])] if "sampler" in source else {}
            placed[f"{part['material']}"] = _move(move), (sampler.get("wrapS"), sampler.get("wrapT"))
    for i, material in enumerate(tree.get("materials", [])):
        material["name"] = f"{i}"
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + int.from_bytes(data[12:16], "little") :]
    return data[:8] + (20 + len(text) + len(rest)).to_bytes(4, "little") + len(text).to_bytes(4, "little") + data[16:20] + text + rest, placed


def _move(of: dict) -> np.ndarray:
    """(2, 3): scaled, turned against the clock as the picture is seen, and shifted, v running down (KHR_texture_transform)."""
    (x, y), (wide, high), turn = of.get("offset", (0, 0)), of.get("scale", (1, 1)), float(of.get("rotation", 0))
    return np.array([[np.cos(turn) * wide, np.sin(turn) * high, x], [-np.sin(turn) * wide, np.cos(turn) * high, y]], float)


def _whole(value) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _content(image: dict, views: list[dict], binary: bytes) -> bytes:
    if "uri" in image:
        return base64.b64decode(image["uri"].partition("base64,")[2])
    view = views[image["bufferView"]]
    start = _whole(view.get("byteOffset", 0))
    return binary[start : start + view["byteLength"]]


def _surfaced(part: dict, pixels: dict[int, np.ndarray], fine: int, textures: dict[str, tuple]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices, triangles, colours): material × texture × colours of the corners, multiplied as light, as glTF has them.

    `pixels`: the textures decoded so far; `fine`: how many triangles a textured one may be divided into; `textures`: see `_unwrapped`.
    """
    from trimesh.remesh import subdivide

    vertices, faces, visual = np.asarray(part["vertices"], float), np.asarray(part["faces"], int).reshape(-1, 3), part.get("visual")
    own, material = part.get("vertex_colors"), getattr(visual, "material", None)
    own = visual.vertex_attributes.get("color") if visual is not None else own
    if len(faces) and faces.max() >= len(vertices):
        return vertices, faces, np.zeros(faces.shape, np.uint8)  # for `joined` to refuse
    image, uv = getattr(material, "baseColorTexture", None), getattr(visual, "uv", None)
    known = {"own": meshes.share(own)} if own is not None else {}
    if image is not None and uv is not None:
        known["uv"] = np.asarray(uv, float)
        move, wraps = textures.get(material.name, (_move({}), (None, None)))
        known["uv"] = np.stack([known["uv"][:, 0], 1 - known["uv"][:, 1], np.ones(len(uv))], 1) @ move.T  # trimesh has turned v around
        while 0 < len(faces) * 4 <= fine:
            vertices, faces, known = subdivide(vertices, faces, vertex_attributes=known)
    light = np.ones(faces.shape)
    if "own" in known:
        light = light * known["own"][faces].mean(1)
    if "uv" in known:
        if id(image) not in pixels:
            pixels[id(image)] = np.asarray(image.convert("RGB"))
        light = light * light_of(_texels(pixels[id(image)], known["uv"][faces].mean(1), wraps))
    factor = getattr(material, "baseColorFactor", None)
    if factor is not None:
        light = light * np.asarray(factor, float)[:3] / 255
    if not known and factor is None:
        return vertices, faces, meshes.as_bytes(np.full(faces.shape, meshes.GREY))
    return vertices, faces, meshes.as_bytes(shown(light))


def _texels(pixels: np.ndarray, uv: np.ndarray, wraps: tuple) -> np.ndarray:
    """(n, 3) from 0 to 1 at (u, v), v from the upper edge down; beyond its edges the texture is repeated, mirrored or its edge goes on (`wraps`, as glTF numbers them)."""
    at = []
    for part, wrap, size in zip(np.nan_to_num(uv).T, wraps, pixels.shape[1::-1]):
        part = part.clip(0, 1) if wrap == CLAMPED else 1 - abs(part % 2 - 1) if wrap == MIRRORED else part % 1
        at.append((part * size).astype(int).clip(0, size - 1))
    return pixels[at[1], at[0]] / 255


def light_of(values: np.ndarray) -> np.ndarray:
    """sRGB -> linear light, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def shown(light: np.ndarray) -> np.ndarray:
    """Linear light -> sRGB, both 0 to 1."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def written(mesh: Mesh, extras: dict | None = None) -> bytes:
    """A binary glTF file, a colour a face, as linear light at its corners; `extras`: what its asset says beside the version."""
    import trimesh

    # A corner is shared by the triangles around it that have one colour.
    named = mesh.colours.astype(np.int64) @ [65536, 256, 1]
    pairs, corners = np.unique(np.stack([mesh.faces.reshape(-1), np.repeat(named, 3)], 1), axis=0, return_inverse=True)
    colours = (pairs[:, 1:] >> [16, 8, 0]) & 255
    made = trimesh.Trimesh(mesh.vertices[pairs[:, 0]], corners.reshape(-1, 3), vertex_colors=meshes.as_bytes(light_of(colours / 255)), process=False)

    def tag(tree):
        tree["asset"] |= {"extras": extras} if extras else {}

    return trimesh.exchange.gltf.export_glb(trimesh.Scene(made), tree_postprocessor=tag)
