"""Whatever comes, a result or a sentence: no other error, no hang, no memory without bounds. Recipes, knobs, grids, forms, scores, and files of every medium.

    make fuzz              thousands of new cases each time
    make fuzz FUZZ=20000   as many for each test

As a part of the tests: some hundreds, the same each time.
"""

import copy
import faulthandler
import io
import json
import math
import os
import resource
import tempfile
import wave
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_cubes import envi, npy, small
from test_mesh_files import glb, obj, ply, textured
from test_score_files import TUNE, midi, mxl, note, xml
from test_sound import TONE, encoded

from backends import archive, cubes, grids, inputs, meshes, recipe
from backends.audio import bank_files, score_files, scores
from backends.registry import METHODS, TASKS
from backends.spec import Audio, BadInput, Choice, Picture, Prompt, Shape, Slider, Sound, Spectra, Toggle, marks
from backends.text import forms
from backends.worlds import objects

CASES = int(os.environ.get("FUZZ", 0))
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.function_scoped_fixture]
LONGEST, MOST = 300, 2**30  # seconds of a case before the process ends with its trace; bytes by which its memory may grow


def fuzz(few: int):
    """`few`: cases among the tests."""
    return settings(max_examples=CASES or few, derandomize=not CASES, deadline=None, database=None, suppress_health_check=SLOW, print_blob=True)


def outcome(do, *given):
    """What it gives, or None for a BadInput whose sentence can be shown."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    try:
        return do(*given)
    except BadInput as bad:
        said = str(bad)
        said.encode()  # what can't be sent would be no answer
        assert 10 < len(said) < 3000 and "Traceback" not in said and said.isprintable(), said
        return None
    finally:
        faulthandler.cancel_dump_traceback_later()
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST


# --- recipes ---

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
GIVEN = {Picture: PIXELS, Sound: TONE, Spectra: small()}
WITH = {recipe.digest(value): value for value in GIVEN.values()}
ODD = st.sampled_from(["", " ", "\0", "\ud800", "<img src=x onerror=alert(1)>", "../../etc/passwd", "a" * 5000, "１", "NaN", "1e999", "1-9999999999999", "0..1 step 1e-300",
                       "1..2 step 0", "-", "😀", "\u202e", "{}", "[[", "null", "a|b|c", "1,2,3", "on", 0, -1, 1.5, 2**31, 2**63, 10**400, -(10**400), 1e308, -1e-308,
                       math.nan, math.inf, -math.inf, True, False, None, [], {}, [[]], {"sha256": "x"}, {"sha256": []}, [1] * 50, {"axis": "seed", "values": "1-3"}])  # fmt: skip
WORDS = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)  # halves of surrogate pairs as well
JSON = st.recursive(
    ODD | st.integers() | st.floats() | WORDS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=8
)


def filled(task, slug: str) -> dict:
    job = {}
    for name, rule in marks(task.job).items():
        if type(rule) in GIVEN:
            job[name] = {"sha256": recipe.digest(GIVEN[type(rule)])}
        elif isinstance(rule, Shape):
            job[name] = next(iter(objects.OBJECTS))
        elif isinstance(rule, Prompt):
            job[name] = "さ:A4:1" if name == "score" else "a, b"
    return {"schema": 1, "task": task.slug, "model": task.model, "job": job, "arms": [{"method": slug, "knobs": {}}]}


BASES = [filled(method.task, slug) for slug, method in METHODS.items() if method.task.ready]


def places(value, way=()):
    """The ways to each value within."""
    yield way
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*way, key))


@st.composite
def recipes(draw, grid=False):
    made = json.loads(json.dumps(draw(st.sampled_from(BASES))))
    if grid:
        task, arm = TASKS[made["task"]], made["arms"][0]
        axes = st.sampled_from(list(grids.axes(task, {**arm, "stack": []}))) | WORDS
        values = st.lists(JSON, max_size=5) | WORDS | st.sampled_from(["1-4", "10..50 step 10", "0.1, 0.2", "1-99999", "1e300-2e300", "5-1", "a | b"]) | JSON
        made["grid"] = draw(st.fixed_dictionaries({"x": st.fixed_dictionaries({"axis": axes, "values": values})},
                                                  optional={"y": st.fixed_dictionaries({"axis": axes, "values": values})}))  # fmt: skip
        made = copy.deepcopy(made)  # what is drawn may be one object many times
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from([w for w in places(made) if w] or [("task",)]))
        inside = made
        for key in way:
            inside = inside[key]
        what = draw(st.integers(0, 2))
        if what == 0 and isinstance(inside, dict):
            del inside[last]
        elif what == 1 and isinstance(inside, dict):
            inside[draw(WORDS)] = copy.deepcopy(draw(JSON))
        else:
            inside[last] = copy.deepcopy(draw(JSON))
    return made


def whole(given):
    """What is kept of a recipe goes through JSON and is taken again as it is."""
    found = outcome(recipe.whole, given, WITH)
    if found is not None:
        _, kept, pictures = found
        said = json.loads(json.dumps(kept, allow_nan=False))
        assert said == kept and recipe.whole(said, pictures)[1] == kept
    return found


@fuzz(150)
@given(recipes())
def test_recipes(given):
    whole(given)


@fuzz(100)
@given(recipes(grid=True))
def test_grids(given):
    found = whole(given)
    assert found is None or not found[1].get("grid") or 0 < len(grids.cells(found[1])) <= grids.MAX_CELLS


@fuzz(60)
@given(JSON)
def test_what_is_no_recipe(given):
    whole(given)
    outcome(recipe.decode_inputs, given)


@fuzz(60)
@given(st.one_of(WORDS, recipes().map(json.dumps), st.integers(1, 10**5).map(lambda n: "[" * n)))
@example("1" * 5000)
def test_recipes_as_text(text):
    outcome(recipe.whole, text, WITH)


KNOBS = [knob for method in METHODS.values() for knob in (*method.knobs, *method.piece_knobs)]


@fuzz(150)
@given(st.sampled_from(KNOBS), JSON)
def test_knobs(knob, value):
    found = outcome(knob.check, value, "Arm 1")
    if found is not None and isinstance(knob.control, Slider):
        assert knob.control.low <= found <= knob.control.high and type(found) is knob.kind
    elif found is not None and isinstance(knob.control, Choice | Toggle):
        assert found in getattr(knob.control, "options", (True, False))


@fuzz(60)
@given(st.one_of(JSON.map(json.dumps), WORDS, st.fixed_dictionaries({"type": JSON, "properties": st.dictionaries(WORDS, JSON, max_size=4)}).map(json.dumps)))
def test_forms(form):
    outcome(forms.fields_of, form)


NOTES = st.sampled_from(
    ["さ:A4:1", "rest:1", "ー:B4:2", "a:C9:1", "さ:A4:", "さ::1", ":", "ら:A4:1e9", "ら:A4:-1", "ら:A4:nan", "ら:A4:inf", "x:A4:1", "さくら | A4:1", "ni:H2:0"]
)


@fuzz(60)
@given(st.lists(NOTES | WORDS, max_size=8).map(" ".join), st.floats(40, 200))
def test_scores(score, tempo):
    outcome(scores.check, score, tempo)


# --- files ---


def saved(image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def zipped(files: dict[str, bytes], kind=zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(4000))
    return out.getvalue()


IMAGE = PIL.Image.fromarray(PIXELS)
TEXT = {**BASES[0], "inputs": {}}
MESH = objects.plain(next(iter(objects.OBJECTS)))
VALUES = np.random.default_rng(0).uniform(size=(16, 16, 4))
CONFIG = b"phonemes: p.txt\nacoustic: a.onnx\nvocoder: v\nspeakers: [s]\nuse_lang_id: true\nlanguages: l.json\n"
BANK = {"b/dsconfig.yaml": CONFIG, "b/p.txt": b"SP\na\n", "b/l.json": b'{"ja": 1}', "b/a.onnx": b"\x08\x07", "b/s.emb": bytes(16),
        "b/dsvocoder/vocoder.yaml": b"model: m.onnx\n", "b/dsvocoder/m.onnx": b"\x08"}  # fmt: skip
FILES = {
    "picture": [saved(IMAGE, "PNG"), saved(IMAGE, "JPEG"), saved(IMAGE, "WEBP"), saved(IMAGE, "GIF"), saved(IMAGE, "BMP"), saved(IMAGE, "TIFF", compression="tiff_lzw"),
                saved(IMAGE.convert("P"), "PNG", transparency=3), saved(IMAGE.convert("I;16"), "PNG"), saved(IMAGE.convert("F"), "TIFF")],
    "sound": [encoded("WAV"), encoded("FLAC"), encoded("OGG"), encoded("MP3"), encoded("AIFF"), wav()],
    "object": [glb(), textured(), ply(), obj(), obj("v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\nv 1 1 1 0 0 0\nf 1 2 3 4\n")],
    "cube": [npy(VALUES), cubes.packed(small()), zipped({"x.npy": npy(VALUES)}), envi(VALUES.astype("f4"), "bsq", "f4", 4)],
    "score": [midi(TUNE, 84, ["さ", "く", "ら", "ー"]), xml(note(), note("B")), mxl(xml(note()))],
    "bank": [zipped(BANK), zipped(BANK, zipfile.ZIP_STORED)],
    "result": [recipe.png(PIXELS, BASES[0], {"x": PIXELS}), recipe.flac(TONE, BASES[0], {"x": TONE}), recipe.glb(MESH, BASES[0]), recipe.webp(np.stack([PIXELS] * 2), BASES[0]),
               recipe.npz(small(), BASES[0]), json.dumps(TEXT).encode(), json.dumps({"text": "x", "recipe": TEXT}).encode()],
    "input": [recipe.packed(value) for value in (PIXELS, TONE, MESH, small())],
}  # fmt: skip
NUMBERS = st.sampled_from(
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\0\0\0\x80",
        b"\x7f\xff\xff\xff",
        b"\1\0\0\0",
        b"\0\0\x10\0",
        b"99999999",
        b"-1",
        b"nan",
        b"1e308",
    ]
)


@st.composite
def harmed(draw, kind: str) -> bytes:
    """A whole file of the kind with some bytes changed, left out, said twice, or another file's."""
    data = bytearray(draw(st.sampled_from(FILES[kind])))
    for _ in range(draw(st.integers(0, 4))):
        near = draw(st.sampled_from([min(64, len(data)), min(400, len(data)), len(data)]))  # headers are where it hurts
        at = draw(st.integers(0, max(0, near - 1)))
        what, n = draw(st.integers(0, 5)), draw(st.integers(1, 64))
        if what == 0:
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif what == 1:
            number = draw(NUMBERS)
            data[at : at + len(number)] = number
        elif what == 2:
            del data[at : at + n]
        elif what == 3:
            data[at:at] = data[at : at + n] * draw(st.sampled_from([1, 2, 100]))
        elif what == 4:
            del data[len(data) - min(len(data), n * draw(st.sampled_from([1, 50]))) :]
        else:
            other = draw(st.sampled_from(FILES[draw(st.sampled_from(list(FILES)))]))
            data[at:at] = other[: draw(st.sampled_from([8, 64, len(other)]))]
    return bytes(data)


@fuzz(80)
@given(harmed("picture"))
def test_pictures(data):
    found = outcome(inputs.picture, data)
    assert found is None or (found.dtype == np.uint8 and found.shape[2] == 3 and found[..., 0].size <= inputs.MAX_PIXELS)


@fuzz(80)
@given(harmed("sound"))
def test_sounds(data):
    found = outcome(inputs.sound, data)
    assert found is None or (np.isfinite(found.samples).all() and np.abs(found.samples).max() <= 1 and found.seconds <= inputs.MAX_SECONDS)


@fuzz(80)
@given(harmed("object"))
def test_objects(data):
    found = outcome(inputs.mesh, data)
    assert found is None or (np.isfinite(found.vertices).all() and 0 < len(found.faces) <= meshes.MAX_FACES and found.faces.max() < len(found.vertices))


@fuzz(60)
@given(harmed("cube"))
def test_cubes(data):
    found = outcome(inputs.cube, data)
    assert found is None or (0 <= found.values.min() <= found.values.max() <= 1 and found.values.size <= cubes.MOST)


@fuzz(60)
@given(harmed("score"), WORDS)
def test_score_files(data, typed):
    found = outcome(score_files.read, data, typed)
    assert found is None or (len(found[0]["score"]) <= score_files.LONGEST and 40 <= found[0]["tempo"] <= 200)
    if found is not None:
        outcome(scores.check, found[0]["score"], found[0]["tempo"])


@fuzz(60)
@given(harmed("bank"))
def test_voicebanks(data):
    with tempfile.TemporaryDirectory() as folder:
        path, home = Path(folder) / "x.zip", Path(folder) / "home"
        home.mkdir()
        path.write_bytes(data)
        unpacked = outcome(archive.unpacked, path, bank_files.KEPT, "The zip", home, 2**26)
        assert {p.name for p in Path(folder).iterdir()} == {"x.zip", "home"}, "nothing beside its folder"
        if unpacked is not None:
            outcome(bank_files.read, unpacked, None, "The zip")


@fuzz(80)
@given(harmed("result"))
def test_results_that_are_dropped(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dropped"
        path.write_bytes(data)
        found = outcome(recipe.from_file, path)
    if found is not None:
        outcome(recipe.whole, *found)


@fuzz(60)
@given(st.dictionaries(WORDS, harmed("input"), max_size=2))
def test_inputs_beside_a_recipe(files):
    import base64

    found = outcome(recipe.decode_inputs, {name: base64.b64encode(data).decode() for name, data in files.items()})
    assert found is None or all(isinstance(value, np.ndarray | Audio | meshes.Mesh | cubes.Cube) for value in found.values())


# --- what swells ---


def png_of(width: int, height: int) -> bytes:
    import struct
    import zlib

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(2**24), 9))
        + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text(recipe.KEY, "x" * 2**25, zip=True)
    return saved(IMAGE, "PNG", pnginfo=info)


def silence(seconds: int) -> bytes:
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(seconds // 100):
            file.write(np.zeros(800_000, np.int16))
    return out.getvalue()


@pytest.mark.parametrize(
    "read, make",
    [
        (inputs.picture, lambda: png_of(60_000, 60_000)),
        (inputs.picture, lambda: png_of(4096, 4097)),
        (inputs.picture, lambda: saved(PIL.Image.new("1", (20_000, 20_000)), "TIFF", compression="group4")),
        (inputs.sound, lambda: silence(20_000)),
        (inputs.cube, lambda: zipped({"x.npy": npy(np.zeros((512, 512, 64)))})),
        (inputs.cube, lambda: zipped({f"{i}.npy": bytes(2**24) for i in range(5)})),
        (inputs.mesh, lambda: zipped({"x.obj": b"v 0 0 0\n" * 2**20})),
        (lambda data: meshes.unpacked(data, "The object"), lambda: zipped({f"{n}.npy": npy(np.zeros((2**22, 3))) for n in ("vertices", "faces", "colours")})),
        (score_files.read, lambda: mxl(b"<a>" + b" " * 2**25)),
        (score_files.read, lambda: b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "' + b"a" * 1000 + b'"><!ENTITY b "' + b"&a;" * 1000 + b'">]><x>&b;&b;</x>'),
    ],
)
def test_what_swells_is_refused(read, make):
    assert outcome(read, make()) is None


def test_a_dropped_picture_whose_text_swells_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(text_bomb())
    assert outcome(recipe.from_file, tmp_path / "x.png") is None


def test_a_zip_that_swells_is_not_unpacked(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped({"b/dsconfig.yaml": bytes(2**27)}))
    assert outcome(archive.unpacked, tmp_path / "x.zip", bank_files.KEPT, "The zip", tmp_path, 2**28) is None
