"""The judge of the object world and the figures of the 3D tasks, on true renders; and what a prompt asks for."""

import numpy as np
import pytest
import torch

from backends.metrics.objects import agreement, direction, edited, kept, made, scores, turn
from backends.metrics.objects_judge import FOLDER, HEADS, Judge, probabilities
from backends.scene.tasks import EditObject, MakeObject
from backends.spec import Turntable
from backends.train.objects_judge import varied
from backends.worlds import objects
from backends.worlds.objects import ACCESSORIES, LOOKS, OBJECTS, VIEWS, Thing, caption, held_out, mesh, sample, thing_in, view_of
from backends.worlds.objects_render import Camera, over, render

BARE = Thing("cactus")
DRESSED = next(t for t in (Thing("cactus", look, worn) for look in LOOKS for worn in list(ACCESSORIES)[1:]) if held_out(t) and not t.look)


def shown(thing: Thing, side: int = 72, n: int = 8) -> Turntable:
    return Turntable(turn(mesh(thing), n, side))


def figures(metrics) -> dict[str, float]:
    return {m.name: m.value for m in metrics}


# --- what a prompt asks for ---


def test_a_prompt_is_read_as_its_caption_was_made():
    assert all(thing_in(caption(t, "side")) == t for t in (Thing(n, look, a) for n in OBJECTS for look in LOOKS for a in ACCESSORIES))


@pytest.mark.parametrize(
    ("prompt", "thing"),
    [
        ("a party hat", None),
        ("", None),
        ("a spaceship of 🐴 and catalogues", None),
        ("A HAT!", Thing("hat")),
        ("a hat wearing a top hat", Thing("hat", "", "top hat")),
        ("two dogs", Thing("dog")),
        ("a dog house", Thing("dog house")),
        ("three buses", Thing("bus")),
        ("a yellow tulip", Thing("tulips", "yellow")),
        ("a wooden toy car", Thing("toy car", "wooden")),
        ("a stone lantern", Thing("stone lantern")),
        ("a teddy-bear with a red crown", Thing("teddy bear", "", "crown")),
        ("a red party hat on a blue horse", Thing("horse", "blue", "party hat")),
        ("a red party hat on a horse", Thing("horse", "", "party hat")),
        ("a photo of a cat on a red sofa", Thing("cat")),
    ],
)
def test_odd_prompts_are_read(prompt, thing):
    assert thing_in(prompt) == thing


# --- the judge ---


def test_the_weights_are_small_and_load():
    path = FOLDER / "judge.safetensors"
    assert path.stat().st_size < 4e6 and sum(p.numel() for p in Judge().parameters()) * 2 < 4e6
    seen = probabilities(np.full((1, 50, 40, 3), 128, np.uint8))
    assert {head: p.shape for head, p in seen.items()} == {head: (1, len(words)) for head, words in HEADS.items()}
    assert all(p.sum() == pytest.approx(1, abs=1e-4) for p in seen.values())


def test_the_judge_names_objects_and_sides_on_fresh_renders():
    rng, right = np.random.default_rng(1), []
    for _ in range(20):
        thing, azimuth = sample(rng), float(rng.uniform(-180, 180))
        seen = probabilities(over(render(mesh(thing), [Camera(azimuth, 15.0, 2.7)], 72), 0.9))
        truth = {"object": thing.name, "look": thing.look, "accessory": thing.accessory, "view": view_of(azimuth, 15.0)}
        right.append([HEADS[head][int(seen[head].argmax())] == truth[head] for head in HEADS])
    share = np.mean(right, 0)
    assert share[0] >= 0.7 and (share[1:] >= 0.6).all(), dict(zip(HEADS, share))


def test_scores_are_those_of_the_thing_asked_for():
    pictures = shown(DRESSED, 128, 4).frames
    right, wrong = scores(pictures, DRESSED), scores(pictures, Thing("horse", "blue"))
    assert all(right[head].shape == (4,) and right[head].mean() > wrong[head].mean() for head in ("object", "look", "accessory"))
    assert right["view"].shape == (4, len(VIEWS)) and np.allclose(right["view"].sum(1), 1, atol=1e-4)


def test_variation_keeps_pictures_in_range_and_comes_from_its_generator():
    x = torch.from_numpy(render(mesh(BARE), [Camera(a, 10) for a in (0, 120)], 32)).permute(0, 3, 1, 2)
    a, b, c = (varied(x, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert a.shape == (2, 3, 32, 32) and a.abs().max() <= 1 and torch.equal(a, b) and not torch.equal(a, c)


# --- the figures of the tasks ---


def test_a_dressed_object_ranks_above_the_bare_one_and_a_bare_one_above_another():
    job = MakeObject(prompt=caption(DRESSED))
    dressed, bare, other = (figures(made(job, shown(t), None)) for t in (DRESSED, BARE, Thing("bus")))
    assert list(dressed) == ["seen as the object", "accessory seen", "faces at the back"]
    assert (
        dressed["accessory seen"] > bare["accessory seen"] + 0.3
        and min(dressed["seen as the object"], bare["seen as the object"]) > other["seen as the object"] + 0.3
    )


def test_a_front_on_all_sides_is_called_so():
    job, true = MakeObject(prompt="a horse"), shown(Thing("horse"))
    two_faced = Turntable(np.repeat(true.frames[:1], 8, 0))
    assert figures(made(job, two_faced, None))["faces at the back"] > figures(made(job, true, None))["faces at the back"] + 0.3


def test_an_edit_is_seen_and_what_it_left_is_measured():
    job = EditObject(shape=mesh(BARE), source=caption(BARE), prompt=caption(DRESSED))
    dressed, bare, other = (figures(edited(job, shown(t), None)) for t in (DRESSED, BARE, Thing("bus")))
    assert list(dressed) == ["accessory seen", "still the object", "direction of the edit", "outline kept", "colour change", "PSNR of the rest (dB)"]
    assert bare["outline kept"] == 1 and bare["colour change"] == 0 and dressed["accessory seen"] > bare["accessory seen"] + 0.3
    assert (
        bare["direction of the edit"] == 0
        and dressed["direction of the edit"] == pytest.approx(1)
        and dressed["PSNR of the rest (dB)"] > 25 > other["PSNR of the rest (dB)"]
    )
    assert bare["PSNR of the rest (dB)"] == 60 and other["direction of the edit"] < 0.6
    assert dressed["outline kept"] > 0.9 > other["outline kept"] and dressed["colour change"] < 2 < other["colour change"]


def test_an_edit_of_ones_own_object_leads_to_that_object_dressed():
    shape, wanted = objects.other("horse"), Thing("horse", "", "top hat")
    value = Turntable(turn(objects.dressed(shape, wanted), 8, 72))
    found = figures(edited(EditObject(shape=shape, source="a horse", prompt=caption(wanted)), value, None))
    assert found["direction of the edit"] == pytest.approx(1) and found["outline kept"] > 0.9


def test_where_change_is_asked_for_it_is_not_called_worse():
    value = shown(Thing("horse", "red"))
    repainted = {m.name: m.better for m in edited(EditObject(shape=mesh(Thing("horse")), source="a horse", prompt="a red horse"), value, None)}
    assert repainted["colour change"] == "" and repainted["outline kept"] == "higher"
    replaced = {m.name: m.better for m in edited(EditObject(shape=mesh(Thing("horse")), source="a horse", prompt="a deer"), value, None)}
    assert repainted["PSNR of the rest (dB)"] == "" and replaced["outline kept"] == "" and "seen as the object" in replaced


def test_unknown_words_leave_only_the_figures_that_need_none():
    value = shown(BARE)
    assert made(MakeObject(prompt="a qualm of quoins"), value, None) == []
    assert list(figures(edited(EditObject(shape=mesh(BARE), source="a qualm", prompt="a quoin"), value, None))) == [
        "outline kept",
        "colour change",
        "PSNR of the rest (dB)",
    ]
    assert edited(EditObject(prompt="a quoin"), value, None) == []


def test_the_direction_of_an_edit_tells_it_from_others():
    before, wanted = shown(Thing("horse")).frames, shown(Thing("horse", "rainbow")).frames
    others = [direction(shown(t).frames, before, wanted) for t in (Thing("horse", "red"), Thing("horse", "", "crown"), Thing("bus"))]
    assert max(others) < 0.6 and direction(wanted, before, wanted) == pytest.approx(1)


def test_agreement_asks_for_all_that_the_prompt_does():
    red = Thing("horse", "red", "party hat")
    assert agreement(shown(red).frames, red) > max(
        agreement(shown(t).frames, red) for t in (Thing("horse"), Thing("horse", "red"), Thing("bus", "red", "party hat"))
    )


def test_an_empty_turntable_keeps_nothing():
    empty = np.full((2, 24, 24, 3), 237, np.uint8)
    overlap, change, decibels = kept(empty, turn(objects.plain("barrel"), 2, 24))
    assert (overlap, change) == (0.0, 100.0) and decibels < 20
