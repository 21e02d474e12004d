"""The emoji world: everything it says of a scene is true of the picture."""

import hashlib

import numpy as np
import pytest

from backends.worlds import emoji


@pytest.fixture
def scenes():
    rng = np.random.default_rng(0)
    return [emoji.sample(rng) for _ in range(60)]


def test_the_world_is_large_enough():
    groups = {c.group for c in emoji.concepts()}
    assert len(emoji.concepts()) >= 600 and len(emoji.common()) == 200
    assert groups == {"face", "animal", "food", "travel", "activity", "object"}
    assert len({c.name for c in emoji.concepts()}) == len(emoji.concepts())


def test_masks_cover_what_was_drawn(scenes):
    for scene in scenes:
        picture = emoji.render(scene).astype(int)
        empty = emoji.render(emoji.Scene((), scene.background)).astype(int)
        changed = np.abs(picture - empty).max(-1) > 60
        anywhere = emoji.masks(scene, visible=False).any(0)
        grown = anywhere.copy()
        for shift in (1, -1):
            grown |= np.roll(anywhere, shift, 0) | np.roll(anywhere, shift, 1)
        assert not (changed & ~grown).any()


def test_front_objects_hide_back_ones(scenes):
    for scene in scenes:
        visible, whole = emoji.masks(scene), emoji.masks(scene, visible=False)
        assert (visible.sum(0) <= 1).all()
        assert (visible[-1] == whole[-1]).all()


def test_boxes_fit_and_lie_inside(scenes):
    for scene in scenes:
        for box, mask in zip(emoji.boxes(scene), emoji.masks(scene, visible=False), strict=True):
            x0, y0, x1, y1 = box
            assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 128
            assert mask[y0:y1, x0:x1].sum() == mask.sum()


def test_edges_lie_on_outlines(scenes):
    for scene in scenes[:10]:
        edges, inside = emoji.edges(scene), emoji.masks(scene).any(0)
        assert edges.any() and edges.sum() < 0.2 * edges.size
        near = inside.copy()
        for shift in (1, -1):
            near |= np.roll(inside, shift, 0) | np.roll(inside, shift, 1)
        assert not (edges & ~near).any()


RELATIONS = {"to the left of": lambda p, q, back: p.x < q.x, "above": lambda p, q, back: p.y < q.y, "behind": lambda p, q, back: p is back}


def test_what_a_caption_says_of_places_is_true():
    seen = 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        scene = emoji.sample(rng, counts=(0, 1, 0, 0))
        a, b = scene.objects
        text = emoji.caption(scene, rng)
        for first, second in ((a, b), (b, a)):
            name = emoji.concepts()[first.concept].name
            for words, holds in RELATIONS.items():
                if a.concept != b.concept and f"{name} {words} a" in text:
                    seen += 1
                    assert holds(first, second, a), text
    assert seen > 50


def test_held_out_pairs_never_meet_in_training():
    rng = np.random.default_rng(1)
    for _ in range(300):
        for held_out in (False, True):
            scene = emoji.sample(rng, held_out, counts=(0, 1, 1, 0))
            found = [p.concept for p in scene.objects]
            pairs = {emoji.held_out_pair(a, b) for a in found for b in found if a != b}
            assert pairs <= {held_out}


def test_a_scene_is_the_same_every_time():
    a, b = (emoji.sample(np.random.default_rng(5)) for _ in range(2))
    assert a == b and (emoji.render(a) == emoji.render(b)).all()


def test_scenes_and_words_are_those_that_the_weights_were_trained_on():
    """A change of the world's words or odds shows here: the trained models and their figures then stand on another world."""
    captions = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        captions.append(emoji.caption(emoji.sample(rng), rng))
    assert hashlib.sha256("\n".join(captions).encode()).hexdigest()[:16] == "e6386db792c74e30"
