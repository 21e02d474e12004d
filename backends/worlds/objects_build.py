"""Build the object world from a Debian package: named meshes with a colour a face, small enough to be committed.

    apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb meshes    # 120 MB
    pip install open3d==0.19.0 trimesh==5.2.0
    python -m backends.worlds.objects_build meshes/usr/share/sweethome3d/furniture

Textures become face colours: points are drawn on the textured surface, the surface is simplified and its large faces cut, and a face takes the
mean colour of the points nearest to it. Writes assets/worlds/objects/<name>.npz, those of OTHERS to its folder `others`, and sources.json in each (who made each, under which licence).
"""

import argparse
import io
import json
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from backends.worlds.objects import ASSETS, BASE, GROUPS

C0, BY, KL, SC = "BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Scopia"
LICENCES = {C0: "CC0 1.0", BY: "CC-BY 3.0", KL: "CC-BY 3.0 US", SC: "CC-BY 3.0"}
# name -> (collection, file name of its model)
PICKS = {
    "horse": (C0, "horse2"), "deer": (C0, "deer"), "chicken": (C0, "chicken"), "teddy bear": (C0, "teddyBear"), "dog": (SC, "dog"), "cat": (SC, "cat"),
    "rabbit": (SC, "rabbit"), "bulldog": (BY, "bulldog"), "siamese cat": (BY, "siameseCat"), "snowman": (BY, "bonecoDeNeve"), "rocking horse": (C0, "caballito"),
    "wooden toy": (C0, "woodToy"), "doll": (SC, "doll"),
    "armchair": (C0, "armchair2"), "chair": (C0, "oakChair"), "sofa": (SC, "leather_sofa"), "table": (C0, "oakTable"), "stool": (C0, "stool"), "bed": (C0, "bed3"),
    "bench": (C0, "bench"), "deck chair": (C0, "deckChair"), "grand piano": (C0, "pianoAQueue"), "upright piano": (BY, "piano"), "wardrobe": (C0, "bookcase"),
    "refrigerator": (C0, "refrigerator"), "desk lamp": (C0, "desklamp"), "cuckoo clock": (C0, "cuckooClock"), "radio": (BY, "radio"), "safe": (BY, "sef-kasa"),
    "dresser": (BY, "chest"), "television": (SC, "tv"), "washing machine": (BY, "washing_machine"),
    "cactus": (C0, "cactus"), "christmas tree": (BY, "arbolito"), "bonsai tree": (SC, "bonsai-tree"), "palm tree": (SC, "palm"), "tulips": (BY, "tulip"),
    "rock": (C0, "rock1"), "stone lantern": (C0, "lantern"), "fountain": (BY, "fountain"),
    "biplane": (C0, "cartoon_biplane"), "spring rider": (C0, "motorbike"), "toy train": (BY, "toyTrain"), "tricycle": (SC, "tricycle"),
    "bus": (SC, "bus"), "rowboat": (BY, "rowboat"), "toy car": (BY, "carrito-de-madera"), "fork lift": (C0, "forkLift"), "wheelbarrow": (C0, "wheelbarrow"),
    "skateboard": (SC, "skateboard"), "bicycle": (BY, "bike"),
    "barrel": (C0, "barrel"), "crate": (C0, "crate"), "basketball": (C0, "basketball"), "soccer ball": (BY, "ballonFoot"), "umbrella": (C0, "umbrella"),
    "electric guitar": (C0, "electricGuitar"), "xylophone": (BY, "xylophone"), "backpack": (BY, "backpack"), "suitcase": (BY, "suitcase"), "handbag": (C0, "handbag"),
    "gift": (BY, "gift"), "book": (BY, "book"), "mailbox": (C0, "mofx_mailbox"), "fire hydrant": (KL, "fire-hydrant"), "tent": (SC, "campingTent"),
    "dog house": (SC, "dog-house"), "boots": (C0, "bootie"), "hat": (SC, "chapeau"), "helmet": (SC, "casque"), "traffic cone": (SC, "cone"),
    "teapot": (SC, "teapot"), "coffee cup": (C0, "caffe_final"), "cupcake": (C0, "cupcake"), "hamburger": (BY, "hamburger"), "hot dog": (C0, "hotDog"),
    "birthday cake": (SC, "birthday_cake"), "wine bottle": (KL, "red-wine-bottle-01"), "camera": (SC, "basic_camera"), 
    "vase": (SC, "vase1"), "laptop": (BY, "laptop"), "bush": (SC, "bush"),
}  # fmt: skip
# Other models of the same names, never trained on: what proofs edit, as a visitor brings a horse of their own. Of 26 tried those that the judge,
# which knows the first ones, takes for what they are from most sides.
OTHERS = {
    "bed": (C0, "bed1"), "bus": (SC, "cityBus"), "camera": (SC, "reflex_camera"), "christmas tree": (SC, "christmas_tree"), "horse": (BY, "horse"),
    "palm tree": (SC, "sabalPalmeto"), "refrigerator": (C0, "largeFridge"), "television": (C0, "led_tv"), "washing machine": (SC, "clothes_washing_machine"),
}  # fmt: skip
POINTS, FACES, EDGE = 150_000, 4000, 0.14  # points drawn, faces after simplification, longest edge after cutting


def catalogue(collection: zipfile.ZipFile) -> dict[str, dict]:
    """Model's file name without its ending -> its entry of the collection's catalogue."""
    entries: dict[str, dict] = {}
    for line in collection.read("PluginFurnitureCatalog.properties").decode("latin-1").splitlines():
        if found := re.match(r"(\w+)#(\d+)=(.*)", line):
            entries.setdefault(found[2], {})[found[1]] = found[3].strip()
    return {Path(e["model"]).stem: e for e in entries.values() if "model" in e}


def read(collection: zipfile.ZipFile, entry: dict):
    """The mesh's parts with their materials, read from where its files are unpacked."""
    import trimesh

    with tempfile.TemporaryDirectory() as folder:
        path = entry["model"].lstrip("/")
        inside = [n for n in collection.namelist() if Path(n).parent == Path(path).parent]
        for name in inside:
            if not name.endswith("/"):
                (Path(folder) / Path(name).name).write_bytes(collection.read(name))
        scene = trimesh.load(Path(folder) / Path(path).name, force="scene", skip_materials=False)
        return [g for g in scene.dump() if len(g.faces)]


def coloured_points(parts, rng) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) points on the parts, by area, and their (n, 3) colours from texture or material."""
    import trimesh

    areas = np.array([p.area for p in parts])
    points, colours = [], []
    for part, share in zip(parts, areas / areas.sum()):
        n = max(200, int(POINTS * share))
        some, faces = trimesh.sample.sample_surface(part, n, seed=int(rng.integers(2**31)))
        visual = part.visual
        material = getattr(visual, "material", None)
        picture = getattr(material, "image", None)
        if picture is not None and getattr(visual, "uv", None) is not None:
            weights = trimesh.triangles.points_to_barycentric(part.triangles[faces], some)
            uv = (visual.uv[part.faces[faces]] * weights[:, :, None]).sum(1) % 1.0
            texture = np.asarray(picture.convert("RGB"))
            rows = ((1 - uv[:, 1]) * (texture.shape[0] - 1)).astype(int)
            seen = texture[rows, (uv[:, 0] * (texture.shape[1] - 1)).astype(int)]
        else:
            plain = getattr(material, "diffuse", None)
            plain = plain if plain is not None else getattr(material, "main_color", np.array([160, 160, 160, 255]))
            seen = np.repeat(np.asarray(plain)[None, :3], len(some), 0)
        points.append(some), colours.append(seen)
    return np.concatenate(points), np.concatenate(colours).astype(np.float64)


def simplified(parts) -> tuple[np.ndarray, np.ndarray]:
    """(vertices, faces): at most FACES by quadric decimation, then long edges cut."""
    import open3d
    import trimesh

    whole = trimesh.util.concatenate([trimesh.Trimesh(p.vertices, p.faces, process=False) for p in parts])
    mesh = open3d.geometry.TriangleMesh(open3d.utility.Vector3dVector(whole.vertices), open3d.utility.Vector3iVector(whole.faces))
    mesh = mesh.merge_close_vertices(1e-4).remove_degenerate_triangles().remove_duplicated_triangles()
    if len(mesh.triangles) > FACES:
        mesh = mesh.simplify_quadric_decimation(FACES)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.triangles)
    return trimesh.remesh.subdivide_to_size(vertices, faces, EDGE, max_iter=8)


def built(parts, rng) -> dict[str, np.ndarray]:
    """Vertices in [-BASE, BASE] as 16 bits, faces, and a colour a face; y is up and the front looks along +z."""
    from scipy.spatial import cKDTree

    corners = np.concatenate([p.bounds for p in parts])
    low, high = corners.min(0), corners.max(0)
    for p in parts:
        p.vertices = (p.vertices - (low + high) / 2) * (2 * BASE / (high - low).max())
    points, colours = coloured_points(parts, rng)
    vertices, faces = simplified(parts)
    near = cKDTree(points).query(vertices[faces].mean(1), k=4)[1]
    kind = np.uint16 if len(vertices) < 65536 else np.uint32
    return {
        "vertices": np.round((vertices / BASE + 1) / 2 * 65535).clip(0, 65535).astype(np.uint16),
        "faces": faces.astype(kind),
        "colours": colours[near].mean(1).round().astype(np.uint8),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="names")
    args = parser.parse_args()
    opened = {c: zipfile.ZipFile(args.folder / f"{c}.sh3f") for c in LICENCES}
    lists = {c: catalogue(z) for c, z in opened.items()}
    assert set(PICKS) == {n for group in GROUPS.values() for n in group}, set(PICKS) ^ {n for group in GROUPS.values() for n in group}
    for folder, picks in ((ASSETS, PICKS), (ASSETS / "others", OTHERS)):
        write(folder, {n: pick for n, pick in picks.items() if not args.only or n in args.only}, opened, lists)


def write(folder: Path, picks: dict[str, tuple[str, str]], opened: dict[str, zipfile.ZipFile], lists: dict[str, dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "sources.json"
    sources = json.loads(known.read_text()) if known.exists() else {}
    for name, (collection, model) in picks.items():
        if model not in lists[collection]:
            print(f"{name}: no {model} in {collection}; there are {[m for m in lists[collection] if model[:4].lower() in m.lower()]}")
            continue
        try:
            made = built(read(opened[collection], lists[collection][model]), np.random.default_rng(0))
        except Exception as error:  # one model that can't be read must not stop the others
            print(f"{name}: {type(error).__name__}: {error}")
            continue
        out = io.BytesIO()
        np.savez_compressed(out, **made)
        (folder / f"{name.replace(' ', '_')}.npz").write_bytes(out.getvalue())
        sources[name] = {"by": lists[collection][model].get("creator", collection), "licence": LICENCES[collection], "model": f"{collection}/{model}"}
        print(f"{name}: {len(made['faces'])} faces, {len(out.getvalue()) / 1024:.0f} KiB, {sources[name]['by']}", flush=True)
    known.write_text(json.dumps(dict(sorted(sources.items())), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
