"""Objects from files: what is taken and refused, their colours, and that they travel with their recipe."""

import base64
import io
import json
import struct
import time
import zipfile

import numpy as np
import PIL.Image
import pytest
import trimesh

from backends import inputs, meshes, recipe
from backends.spec import BadInput, Mesh
from backends.worlds import objects

BOX = trimesh.creation.box((1, 2, 3))


def packed(tree: dict, binary: bytes = b"") -> bytes:
    """A GLB of a JSON chunk and a binary one."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def glb(change=None, scene=None, **parts) -> bytes:
    """A box (or a scene) as a GLB; `change(tree)` alters its JSON, `parts` its entries."""
    data = trimesh.Scene(scene or BOX).export(file_type="glb")
    length = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + length]) | parts
    if change:
        change(tree)
    return packed(tree, data[28 + length :])


def square(texture: PIL.Image.Image, uv=((0, 0), (1, 0), (1, 1), (0, 1)), **material) -> trimesh.Trimesh:
    found = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    found.visual = trimesh.visual.TextureVisuals(list(uv), trimesh.visual.material.PBRMaterial(baseColorTexture=texture, **material))
    return found


def textured(colour=(200, 30, 40), size=(8, 8), **material) -> bytes:
    return glb(scene=square(PIL.Image.new("RGB", size, colour), **material))


def moved_texture(move: dict) -> bytes:
    """A square of one texture, red above on the left and blue elsewhere, under a KHR_texture_transform; wrapS and wrapT are its sampler's."""
    two = PIL.Image.new("RGB", (2, 2), (0, 0, 255))
    two.putpixel((0, 0), (255, 0, 0))

    def change(tree):
        wraps = {key: move[key] for key in ("wrapS", "wrapT") if key in move}
        moved = {key: value for key, value in move.items() if key not in wraps}
        tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["extensions"] = {"KHR_texture_transform": moved}
        tree["samplers"], tree["textures"][0]["sampler"] = [wraps], 0

    return glb(change if move else None, square(two))


def ply(vertices="0 0 0\n1 0 0\n0 1 0\n1 1 0", faces="3 0 1 2\n3 1 2 3", n=(4, 2), more="") -> bytes:
    head = f"ply\nformat ascii 1.0\nelement vertex {n[0]}\nproperty float x\nproperty float y\nproperty float z\n{more}"
    return f"{head}element face {n[1]}\nproperty list uchar int vertex_indices\nend_header\n{vertices}\n{faces}\n".encode()


def obj(text="v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n") -> bytes:
    return text.encode()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.obj", b"0" * 2**22)
    return out.getvalue()


def set_count(n):
    def change(tree):
        for accessor in tree["accessors"]:
            del accessor["bufferView"]
            accessor["count"] = n

    return change


def compressed(tree):
    tree["extensionsUsed"] = tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    tree["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}


def huge_texture(tree):
    image = io.BytesIO()
    PIL.Image.new("1", (9000, 9000)).save(image, "PNG")
    tree["images"] = [{"uri": "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()}]


def instances(tree):
    tree["nodes"] = [{"mesh": 0}] * 1900
    tree["scenes"][0]["nodes"] = list(range(1900))


cloud = trimesh.PointCloud(np.random.default_rng(0).normal(size=(9, 3)))
ball = trimesh.creation.icosphere(4)
BAD = {
    "empty": (b"", "empty file"),
    "text": (b"hello", "can't be read"),
    "a picture": (recipe.png(np.zeros((8, 8, 3), np.uint8)), "can't be read"),
    "a zip": (zipped(), "is a zip"),
    "too many bytes": (b"glTF" + bytes(inputs.MAX_BYTES), "larger than 32 MB"),
    "a glTF of many files": (json.dumps({"asset": {"version": "2.0"}, "buffers": [{"uri": "box.bin"}]}).encode(), "export it as GLB"),
    "half a GLB": (glb()[:500], "cut off"),
    "the start of a GLB": (b"glTF\2\0\0\0", "cut off"),
    "a GLB of version 1": (b"glTF\1\0\0\0" + glb()[8:], "can't be read"),
    "a GLB with noise for JSON": (b"glTF\2\0\0\0\x40\0\0\0\x20\0\0\0JSON" + b"\xff" * 60, "can't be read"),
    "a GLB of deep JSON": (packed({})[:12] + struct.pack("<I4s", 2**18, b"JSON") + b"[" * 2**18, "can't be read"),
    "a GLB whose textures are of another kind": (packed({"asset": {"version": "2.0"}, "extensionsRequired": ["KHR_texture_basisu"]}), "needs KHR_texture_basisu"),
    "a GLB with a texture moved to nowhere": (moved_texture({"offset": "aside"}), "can't be read"),
    "a GLB with nothing in it": (packed({"asset": {"version": "2.0"}}), "no triangles|can't be read"),
    "a GLB of points": (trimesh.Scene(cloud).export(file_type="glb"), "no triangles"),
    "a GLB whose buffer is a file": (glb(buffers=[{"uri": "../../etc/passwd", "byteLength": 9}]), "keeps parts in other files"),
    "a GLB whose texture is a file": (glb(images=[{"uri": "skin.png"}]), "keeps parts in other files"),
    "Draco": (glb(compressed), "compressed"),
    "Meshopt": (glb(extensionsUsed=["EXT_meshopt_compression"]), "compressed"),
    "an extension of its own": (glb(extensionsRequired=["ACME_voxels"]), "needs ACME_voxels"),
    "a GLB that would swell": (glb(set_count(10**9)), "more than 200,000"),
    "a negative count": (glb(set_count(-4)), "can't be read"),
    "sparse data": (glb(set_count(4)), "sparse"),
    "one box 1,900 times, too many": (glb(instances, scene=ball), "triangles; at most 200,000"),
    "too many parts": (glb(nodes=[{}] * 3000), "2,000 parts"),
    "a huge texture": (glb(huge_texture), "4096×4096"),
    "a broken texture": (glb(images=[{"uri": "data:image/png;base64,aGVsbG8="}]), "texture that can't be read"),
    "a GLB with NaN": (glb(scene=trimesh.Trimesh([[0, 0, 0], [np.nan, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)), "not numbers"),
    "an OBJ of points": (obj("v 0 0 0\nv 1 0 0\n"), "no triangles"),
    "an OBJ with NaN": (obj("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"), "not numbers|can't be read"),
    "an OBJ whose corners are missing": (obj("v 0 0 0\nv 1 0 0\nf 1 2 3\n"), "can't be read|does not hold"),
    "an OBJ of one point": (obj("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n"), "no extent"),
    "an OBJ of a line": (obj("v 0 0 0\nv 1 1 0\nv 2 2 0\nf 1 2 3\nf 3 1 2\n"), "lie in a line"),
    "an OBJ that counts from 0": (obj("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 1 1 0\nf 0 1 2\nf 1 2 3\n"), "from 1"),
    "an OBJ that counts textures and normals from 0": (obj("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1//1 2//2 0//3\n"), "from 1"),
    "an OBJ of a million triangles": (obj("v 0 0 0\nv 1 0 0\nv 0 1 0\n" + "f 1 2 3\n" * 10**6), "1,000,000 triangles"),
    "a PLY of points": (ply(faces="", n=(4, 0)), "no triangles"),
    "a PLY with NaN": (ply("nan 0 0\n1 0 0\n0 1 0\n1 1 0"), "not numbers"),
    "a PLY that ends early": (ply(faces="3 0 1 2", n=(4, 20)), "cut off"),
    "half a binary PLY": (BOX.export(file_type="ply")[:-20], "can't be read"),
    "a PLY whose corners are missing": (ply(faces="3 0 1 2\n3 1 2 9"), "does not hold"),
    "a PLY of a million triangles": (ply(n=(4, 10**6)), "1,000,000 triangles"),
    "a PLY without an end": (b"ply\nformat ascii 1.0\n", "can't be read|cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_object_gets_a_sentence(name, tmp_path):
    data, sentence = BAD[name]
    (tmp_path / "called.glb").write_bytes(data)
    for source in (data, tmp_path / "called.glb"):
        with pytest.raises(BadInput, match=sentence) as refused:
            inputs.mesh(source)
        assert str(refused.value).endswith(".")


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_the_content_says_what_a_file_is_and_the_object_fills_the_cube(tmp_path, kind):
    moved = BOX.copy().apply_translation((50, 0, 0))
    data = trimesh.Scene(moved).export(file_type="glb") if kind == "glb" else moved.export(file_type=kind)
    (tmp_path / "called.stl").write_bytes(data if isinstance(data, bytes) else data.encode())
    mesh = inputs.mesh(tmp_path / "called.stl")
    assert len(mesh.faces) == 12 and mesh.vertices.dtype == np.float32
    assert np.allclose(mesh.vertices.max(0), [objects.BASE / 3, objects.BASE * 2 / 3, objects.BASE], atol=1e-5)
    assert np.allclose(mesh.vertices.min(0), -mesh.vertices.max(0), atol=1e-5), "centred, its axes as they were"
    assert np.abs(mesh.colours.astype(int) - 204).max() <= 60, "light grey"


def test_corners_that_no_triangle_uses_do_not_move_the_object():
    mesh = inputs.mesh(obj("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 900 900 900\nf 1 2 3\n"))
    assert len(mesh.vertices) == 3 and mesh.vertices.max() == pytest.approx(objects.BASE)


def test_a_scene_is_joined_with_its_transforms():
    scene = trimesh.Scene()
    for k in range(3):
        scene.add_geometry(trimesh.creation.box((1, 1, 1)), transform=trimesh.transformations.translation_matrix((0, 4.5 * k, 0)))
    mesh = inputs.mesh(scene.export(file_type="glb"))
    assert len(mesh.faces) == 36
    assert np.allclose(np.ptp(mesh.vertices, axis=0), 2 * objects.BASE * np.array([0.1, 1, 0.1]), atol=1e-5)


def test_a_deep_scene_and_one_that_holds_itself_are_read_at_once():
    def deep(tree):
        tree["nodes"] = [{"mesh": 0, "children": [i + 1], "translation": [0, 3, 0]} for i in range(1999)] + [{"mesh": 0}]
        tree["scenes"][0]["nodes"] = [0]

    def circular(tree):
        tree["nodes"], tree["scenes"][0]["nodes"] = [{"mesh": 0, "children": [1]}, {"mesh": 0, "children": [0]}], [0]

    assert len(inputs.mesh(glb(deep)).faces) == 24_000 and inputs.mesh(glb(circular)).faces.shape[1] == 3


def test_an_animation_stands_as_it_was_made():
    moving = glb(
        lambda tree: tree.update(
            animations=[{"channels": [{"sampler": 0, "target": {"node": 0, "path": "translation"}}], "samplers": [{"input": 0, "output": 0}]}]
        )
    )
    assert len(inputs.mesh(moving).faces) == 12


def test_edges_of_three_triangles_and_polygons_are_taken():
    assert len(inputs.mesh(obj("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nv 1 1 1\nf 1 2 3\nf 1 2 4\nf 1 2 5\n")).faces) == 3
    assert len(inputs.mesh(obj("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n")).faces) == 2
    assert len(inputs.mesh(ply(faces="4 0 1 3 2", n=(4, 1))).faces) == 2
    assert len(inputs.mesh(ply(faces="4 0 1 3 2\n3 0 1 2")).faces) == 3


def test_colours_come_from_corners_faces_materials_and_textures():
    assert inputs.mesh(obj("v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\nf 1 2 3\n")).colours.tolist() == [[255, 0, 0]]
    shades = "0 0 0 9 200 40\n1 0 0 9 200 40\n0 1 0 9 200 40\n1 1 0 9 200 40"
    assert inputs.mesh(ply(shades, more="".join(f"property uchar {c}\n" for c in ("red", "green", "blue")))).colours.tolist() == [[9, 200, 40]] * 2
    faces = BOX.copy()
    faces.visual.face_colors = np.arange(36).reshape(12, 3) * 7
    assert (inputs.mesh(faces.export(file_type="ply")).colours == np.arange(36).reshape(12, 3) * 7).all()
    seen = inputs.mesh(textured()).colours
    assert len(seen) > 1000 and (seen == [200, 30, 40]).all(), "a coarse surface is divided, so that its texture is seen"
    half = inputs.mesh(textured((255, 255, 255), baseColorFactor=[0.5, 0.5, 0.5, 1.0])).colours  # a factor is light: 0.5 is sRGB 188
    assert np.abs(half.astype(int) - 188).max() <= 1


@pytest.mark.parametrize(
    "move, right, above",
    [
        ({}, False, True),
        ({"offset": [0.5, 0.0]}, True, True),
        ({"scale": [-1, -1], "wrapS": 33648, "wrapT": 33648}, False, True),  # mirrored at the corner
        ({"offset": [0.5, 0.0], "wrapS": 33071}, None, None),  # shifted to the blue half, whose edge goes on
        ({"offset": [0.0, -0.5], "wrapT": 33071, "wrapS": 33648, "scale": [-1, 1]}, False, None),
        ({"offset": [0.0, 0.5], "rotation": 0.0, "scale": [1, 1]}, False, False),
        ({"rotation": np.pi / 2}, True, True),  # of the coordinates against the clock: the picture turns with it
        ({"rotation": np.pi}, True, False),
        ({"scale": [-1, 1]}, True, True),
    ],
)
def test_a_texture_lies_the_right_way_up(move, right, above):
    mesh = inputs.mesh(moved_texture(move))
    middle = mesh.vertices[mesh.faces].mean(1)
    red, wanted = mesh.colours[:, 0] > 128, np.ones(len(mesh.faces), bool)
    if right is None:
        wanted &= above is not None
    else:
        wanted &= (middle[:, 0] > 0) == right
    if above is not None:
        wanted &= (middle[:, 1] > 0) == above
    assert (wanted == red).mean() > 0.97


@pytest.mark.parametrize("sets", [1, 2])
def test_a_texture_is_read_at_the_coordinates_that_its_material_asks_for(sets):
    """A square whose texture is half red, half blue; the first set of coordinates looks at the red alone, the second at the blue."""
    halves = PIL.Image.new("RGB", (8, 8), (255, 0, 0))
    halves.paste((0, 0, 255), (4, 0, 8, 8))
    data = trimesh.Scene(square(halves, [[0.25, 0.5]] * 4)).export(file_type="glb")
    length = int.from_bytes(data[12:16], "little")
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    second = np.float32([[0.75, 0.5]] * 4).tobytes()
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(second)})
    tree["accessors"].append({"bufferView": len(tree["bufferViews"]) - 1, "componentType": 5126, "count": 4, "type": "VEC2"})
    tree["buffers"][0]["byteLength"] = len(binary) + len(second)
    tree["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_1"] = len(tree["accessors"]) - 1
    texture = tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    texture["texCoord"] = sets - 1
    seen = inputs.mesh(packed(tree, binary + second)).colours
    assert (seen == ([255, 0, 0] if sets == 1 else [0, 0, 255])).all()
    texture["texCoord"] = 3
    with pytest.raises(BadInput, match="coordinates that it does not hold"):
        inputs.mesh(packed(tree, binary + second))


def test_a_glb_of_ours_gives_its_faces_and_colours_back():
    mesh = objects.plain("basketball")
    again = inputs.mesh(recipe.glb(mesh))
    assert np.allclose(again.vertices[again.faces], mesh.vertices[mesh.faces], atol=0.02)
    assert np.abs(again.colours.astype(int) - mesh.colours).max() <= 7, "8 bits of linear light are coarse where it is dark"


def test_a_mesh_is_no_sound_and_no_picture():
    with pytest.raises(BadInput, match="is a picture; give an object"):
        inputs.mesh(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(BadInput, match="no object is called unicorn"):
        inputs.mesh("unicorn")


# --- in a recipe ---------------------------------------------------------------------------------------------

EDIT = {
    "schema": 1,
    "task": "edit_object",
    "job": {"shape": "horse", "source": "a horse", "prompt": "a wooden horse", "seed": 1},
    "arms": [{"method": "sds_edit"}],
}


def test_an_object_of_the_studio_keeps_its_name_in_a_recipe():
    task, job, arms = recipe.parse(EDIT)
    assert job.shape is objects.plain("horse")
    written = recipe.build(task, job, arms)
    assert written["job"]["shape"] == "horse" and recipe.inputs_of(job) == {}
    assert recipe.parse(written)[1].shape is job.shape


def test_an_object_of_ones_own_travels_with_its_result(tmp_path):
    mine = inputs.mesh(glb())
    digest = recipe.digest(mine)
    task, job, arms = recipe.parse(EDIT | {"job": EDIT["job"] | {"shape": {"sha256": digest}}}, {digest: mine})
    written = recipe.build(task, job, arms)
    (tmp_path / "result.glb").write_bytes(recipe.glb(objects.plain("cactus"), written, recipe.inputs_of(job)))
    found, came = recipe.from_file(tmp_path / "result.glb")
    assert found == written and list(came) == [digest]
    again = recipe.parse(found, came)[1].shape
    assert all(np.array_equal(getattr(again, k), getattr(mine, k)) for k in ("vertices", "faces", "colours"))
    with pytest.raises(BadInput, match="names an object that did not come"):
        recipe.parse(found, {})


@pytest.mark.parametrize("part", ["vertices", "faces", "colours"])
def test_a_packed_object_that_does_not_fit_gets_a_sentence(part):
    mesh = objects.plain("crate")
    wrong = {k: getattr(mesh, k) for k in ("vertices", "faces", "colours")} | {part: getattr(mesh, part)[:3, :2]}
    with pytest.raises(BadInput, match="no surface|does not hold"):
        meshes.unpacked(recipe.packed(Mesh(**wrong)), "The object")


def test_an_obj_of_many_materials_is_one_surface_read_in_no_time():
    rows = ["v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1"]
    for i in range(20_000):
        rows += [f"usemtl m{i}", f"f 1 2 {3 + i % 2}"]
    began = time.process_time()
    mesh = inputs.mesh(obj("\n".join(rows)))
    assert len(mesh.faces) >= 2 and time.process_time() - began < 20
