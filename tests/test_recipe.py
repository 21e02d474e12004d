"""Recipes: what goes in comes out, and every mistake gets a sentence."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from backends import METHODS, recipe
from backends.spec import BadInput

GOOD = {
    "schema": 1, "task": "text_to_image", "model": "emoji-ldm", "job": {"prompt": "a cat", "seed": 7},
    "arms": [{"method": "ddim", "knobs": {"steps": 9}}, {"method": "adaptive_guidance", "stack": [{"method": "dpm"}]}],
}  # fmt: skip


def test_round_trip_fills_in_the_defaults():
    task, job, arms = recipe.parse(GOOD)
    assert (job.prompt, job.seed, arms[0].knobs["steps"]) == ("a cat", 7, 9)
    written = recipe.build(task, job, arms)
    assert recipe.parse(json.dumps(written)) == (task, job, arms)
    assert written["arms"][1]["knobs"]["threshold"] == METHODS["adaptive_guidance"].knobs[-2].default
    assert written["arms"][1]["stack"] == [{"method": "dpm", "knobs": {}}]


def test_a_picture_carries_its_recipe(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    path = tmp_path / "result.png"
    path.write_bytes(recipe.png(pixels, GOOD, {recipe.digest(pixels): pixels}))
    read, pictures = recipe.from_file(path)
    assert read == GOOD
    assert (pictures[recipe.digest(pixels)] == pixels).all()


def test_pictures_travel_by_hash():
    pixels = np.full((64, 64, 3), 9, np.uint8)
    given = {"task": "edit_image", "job": {"image": {"sha256": recipe.digest(pixels)}}, "arms": [{"method": "unsteered"}]}
    pytest.importorskip("backends.image.steered")
    _, job, _ = recipe.parse(given, {recipe.digest(pixels): pixels})
    assert (job.image == pixels).all()
    with pytest.raises(BadInput, match="did not come with it"):
        recipe.parse(given)


def test_a_recipe_with_a_large_picture_comes_back(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(GOOD | {"inputs": recipe.encode_inputs({recipe.digest(pixels): pixels})}))
    read, pictures = recipe.from_file(path)
    assert read == GOOD and list(pictures) == [recipe.digest(pixels)]


def test_pictures_beside_a_recipe_are_bounded_and_checked():
    with pytest.raises(BadInput, match="at most"):
        recipe.decode_inputs({str(i): "" for i in range(99)})
    with pytest.raises(BadInput, match="base64"):
        recipe.decode_inputs({"a": "*"})


def change(**parts):
    return GOOD | parts


BAD = {
    "not JSON": ("{", "not JSON"),
    "deep JSON": ("[" * 100_000, "not JSON"),
    "a list": ("[]", "JSON object"),
    "newer": (change(schema=2), "newer version"),
    "unknown task": (change(task="dance"), "No task is called dance"),
    "a path": (change(model="../../etc/passwd"), "path"),
    "no prompt": (change(job={"prompt": "  "}), "empty"),
    "a prompt of control characters": (change(job={"prompt": "\x00\x07"}), "empty"),
    "a long prompt": (change(job={"prompt": "a" * 100_000}), "100,000 characters"),
    "a prompt that is a number": (change(job={"prompt": 3}), "must be a text"),
    "a negative seed": (change(job={"prompt": "a", "seed": -1}), "from 0 to"),
    "an unknown field": (change(job={"prompt": "a", "mood": "blue"}), "does not take mood"),
    "no arms": (change(arms=[]), "list of arms"),
    "seven arms": (change(arms=[{"method": "ddim"}] * 7), "At most 6"),
    "unknown method": (change(arms=[{"method": "magic"}]), "no method is called magic"),
    "unknown knob": (change(arms=[{"method": "ddim", "knobs": {"zeal": 1}}]), "no knob zeal"),
    "too many steps": (change(arms=[{"method": "ddim", "knobs": {"steps": 1000}}]), "from 1 to 100"),
    "negative steps": (change(arms=[{"method": "ddim", "knobs": {"steps": -3}}]), "from 1 to 100"),
    "a number beyond floating point": (change(arms=[{"method": "ddim", "knobs": {"scale": 10**400}}]), "from 1 to 15"),
    "steps and a half": (change(arms=[{"method": "ddim", "knobs": {"steps": 2.5}}]), "whole number"),
    "NaN": (change(arms=[{"method": "ddim", "knobs": {"scale": float("nan")}}]), "from 1 to 15"),
    "true for a number": (change(arms=[{"method": "ddim", "knobs": {"scale": True}}]), "from 1 to 15"),
    "two walks": (change(arms=[{"method": "ddim", "stack": [{"method": "dpm"}]}]), "filled already"),
    "a knob of the top in the piece": (change(arms=[{"method": "adaptive_guidance", "stack": [{"method": "dpm", "knobs": {"steps": 3}}]}]), "no knob steps"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_gets_a_sentence(name):
    given, sentence = BAD[name]
    with pytest.raises(BadInput, match=sentence):
        recipe.parse(given)


def picture_bytes(kind="PNG", size=(64, 64), **kw):
    out = io.BytesIO()
    PIL.Image.new("RGB", size, "red").save(out, kind, **kw)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty"),
        (b"hello", "can't be read"),
        (picture_bytes()[:60], "can't be read"),
        (picture_bytes("GIF", save_all=True, append_images=[PIL.Image.new("RGB", (64, 64), "blue")]), "animation"),
        (picture_bytes(size=(20_000, 2_000)), "pixels"),
    ],
    ids=["empty", "text", "truncated", "animated", "huge"],
)
def test_a_bad_picture_gets_a_sentence(data, sentence, tmp_path):
    from backends import inputs

    with pytest.raises(BadInput, match=sentence):
        inputs.picture(data)
    path = tmp_path / "dropped.png"
    path.write_bytes(data)
    with pytest.raises(BadInput):
        recipe.from_file(path)


def test_transparency_lies_on_white_and_grey_becomes_rgb():
    from backends import inputs

    out = io.BytesIO()
    PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(out, "PNG")
    assert (inputs.picture(out.getvalue()) == 255).all()
    assert (inputs.picture(np.zeros((4, 4, 4), np.uint8)) == 255).all(), "the page's editor gives arrays"
    assert inputs.picture(np.zeros((4, 4))).shape == (4, 4, 3)
    with pytest.raises(BadInput, match="not numbers"):
        inputs.picture(np.full((4, 4, 3), np.nan))
