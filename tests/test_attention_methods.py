"""Cross-attention maps, A-STAR and Attend-and-Excite on the tiny model."""

import dataclasses

import numpy as np
import pytest
import torch

from backends import models, run
from backends.image import astar as A
from backends.image.attend_excite import AttendExcite
from backends.image.attention_maps import attention_maps, concept_maps, overlays, words_of
from backends.image.concept_words import chosen, concept_words, emoji_concepts
from backends.image.sampling import Guided, sample
from backends.image.tasks import TextToImage
from backends.spec import BadInput, Images, Outcome, Plot, Result, Step
from backends.worlds import emoji
from tests import checkpoints

PROMPT = "a cat next to a cactus on a yellow background"


def arms(*arms, prompt=PROMPT):
    return list(run({"task": "text_to_image", "job": {"prompt": prompt, "seed": 3}, "arms": [{"method": m, "knobs": k} for m, k in arms]}))


def patch(tiny, kind, alpha, steps=4, **kwargs):
    cond = tiny.encode(PROMPT)[0]
    words, rows = chosen("", cond)
    made = kind(alpha, words, rows, cond, **kwargs)
    with torch.no_grad():
        list(sample(TextToImage(prompt=PROMPT, seed=3), tiny, steps=steps, guide=Guided(5.0), patches=(made,)))
    return made


def test_maps_are_distributions_over_the_tokens_at_the_finest_side(tiny):
    cond = tiny.encode(PROMPT)[0]
    x = tiny.noise(0, 2)
    with torch.no_grad():
        plain = tiny.x0s(x, 500, cond)[0]
        with attention_maps(tiny) as store:
            explicit = tiny.x0s(x, 500, cond)[0]
    assert torch.allclose(plain, explicit, atol=1e-5)
    average = store.average()
    assert store.side == 8 and average.shape == (2, len(cond.tokens), 8, 8)
    assert torch.allclose(average.sum(1), torch.ones(2, 8, 8), atol=1e-5)
    assert cond.tokens[words_of(cond)] == tuple(PROMPT.split())
    words = list(range(words_of(cond).start, words_of(cond).stop))
    smooth = concept_maps(average, cond, [[w] for w in words])
    assert torch.allclose(smooth.sum(1), torch.ones(2, 8, 8), atol=1e-5)  # the second softmax and the filter keep the sum


def test_processors_come_back_even_after_an_error(tiny):
    before = {n: type(p) for n, p in tiny.net.attn_processors.items()}
    with pytest.raises(ZeroDivisionError), attention_maps(tiny):
        assert {n: type(p) for n, p in tiny.net.attn_processors.items()} != before
        raise ZeroDivisionError
    assert {n: type(p) for n, p in tiny.net.attn_processors.items()} == before


def test_an_edit_changes_what_the_network_sees(tiny):
    cond, uncond = tiny.encode(PROMPT, "")
    x = tiny.noise(0)

    def uniform(probs, name):
        assert ".attn2." in name
        return torch.full_like(probs, 1 / probs.shape[-1])

    with torch.no_grad(), attention_maps(tiny, uniform) as store:
        edited = tiny.x0s(x, 500, cond)[0]
    assert torch.allclose(store.average(), torch.full((), 1 / len(cond.tokens)))
    assert not torch.allclose(edited, tiny.x0s(x, 500, cond)[0])


@pytest.mark.parametrize(
    ("method", "knobs"),
    [pytest.param("astar", {}, marks=pytest.mark.identity("astar", "without a move it is DDIM, bit by bit")), ("attend_excite", {"refinements": 2})],
)
def test_without_a_move_it_is_ddim_to_the_bit(tiny, method, knobs):
    events = arms(("ddim", {"steps": 4}), (method, {"steps": 4, "alpha": 0.0} | knobs), (method, {"steps": 4, "alpha": 0.5} | knobs))
    plain, still, moved = (e.event for e in events if isinstance(e.event, Outcome))
    assert not still.error and (plain.value.pixels == still.value.pixels).all()
    assert (plain.value.pixels != moved.value.pixels).any()
    steps = [e.event for e in events if isinstance(e.event, Step) and e.arm == 2]
    heat, curves = steps[-1].aside
    assert isinstance(heat, Images) and [i.caption for i in heat.items] == ["cat", "cactus"]
    assert isinstance(curves, Plot) and all(len(xs) == len(ys) for xs, ys in curves.series.values())
    assert sum(isinstance(e.event, Result) for e in events) == 3


def test_astar_costs_one_evaluation_more_a_step(tiny):
    (closing,) = (e.event for e in arms(("astar", {"steps": 4})) if isinstance(e.event, Outcome))
    assert closing.nfe == 4 * 3
    assert {m.name for m in closing.metrics} >= {"L_seg, last half"}


@pytest.mark.identity("astar", "L_seg and L_ret have their ranges and extremes")
def test_losses_have_their_ranges_and_extremes():
    g = torch.Generator().manual_seed(0)
    maps = torch.rand((5, 2, 8, 8), generator=g)
    seg = A.segregation(maps)
    assert seg.shape == (5,) and (seg >= 0).all() and (seg <= 0.5).all()
    same, apart = maps[:, :1].repeat(1, 2, 1, 1), torch.zeros(1, 2, 8, 8)
    apart[:, 0, :4], apart[:, 1, 4:] = 1, 1
    assert torch.allclose(A.segregation(same), torch.full((5,), 0.5)) and float(A.segregation(apart)) == 0
    ret = A.retention(maps, (maps > 0.5).float())
    assert (ret >= 2 * 0.5).all() and (ret <= 2).all()  # two concepts
    assert torch.allclose(A.retention(apart, apart), torch.tensor([1.0])) and float(A.retention(apart, apart.flip(1))) == 2


@pytest.mark.identity("astar", "a move lowers L_seg and its opposite raises it")
def test_the_gradient_lowers_the_segregation_loss_and_its_opposite_raises_it(tiny):
    cond = tiny.encode(PROMPT)[0]
    words, rows = chosen("", cond)
    x = tiny.noise(5, 4)

    def after(sign):
        made = A.AStar(sign, words, rows, cond, retain=False)
        made.model, made.timesteps = tiny, [500, 500]
        moved, before = made.descend(x, 0)
        length = 0.02 * float(tiny.alpha_sigma(500)[1]) * x[0].numel() ** 0.5
        assert torch.allclose((moved - x).flatten(1).norm(dim=1), torch.full((4,), length), rtol=1e-3)
        return before, made.descend(moved, 1)[1]

    (before, lower), (_, higher) = after(0.02), after(-0.02)
    assert (lower < before).all() and (higher > before).all()


def test_each_loss_can_be_used_alone_and_without_both_nothing_moves(tiny):
    ends = [e.event for e in arms(
        ("ddim", {"steps": 4}), ("astar", {"steps": 4, "segregate": False, "retain": False}), ("astar", {"steps": 4, "retain": False}),
        ("astar", {"steps": 4, "segregate": False}), ("astar", {"steps": 4}),
    ) if isinstance(e.event, Outcome)]  # fmt: skip
    assert not any(e.error for e in ends)
    pixels = [e.value.pixels for e in ends]
    assert (pixels[0] == pixels[1]).all()
    made = [patch(tiny, A.AStar, 0.3, segregate=s, retain=r) for s, r in ((True, False), (False, True), (True, True))]
    assert all(len(m.curves["L_seg"]) == 4 and len(m.curves["L_ret"]) == 3 for m in made)


def test_layout_puts_regions_in_the_place_of_the_last_map(tiny):
    assert A.region("left", 8).sum() == 32 and A.region("bottom right", 8).sum() == 16 and A.region("middle", 8).sum() == 16
    made = patch(tiny, A.AStar, 0.1, layout={0: "left"})
    assert len(made.curves["L_ret"]) == 4  # from the first step on
    assert (made._places(torch.rand(1, 2, 8, 8))[:, 0, :, :4] == 1).all()
    for wrong in ("cat: up", "cat", "dog: left", "cat: left right"):
        with pytest.raises(BadInput):
            A.parse_layout(wrong, ["cat", "cactus"])


def test_words_that_the_prompt_lacks_are_refused_with_a_sentence(tiny):
    (closing,) = (e.event for e in arms(("astar", {"steps": 2, "concepts": "cat, elephant"})) if isinstance(e.event, Outcome))
    assert "elephant" in closing.error and closing.value is None
    (closing,) = (e.event for e in arms(("astar", {"steps": 2}), prompt="a and the") if isinstance(e.event, Outcome))
    assert "concepts" in closing.error


def test_refinement_stops_at_its_bound(tiny):
    # A random network never reaches the thresholds: 3 of 4 planned moves at steps 0, 1 and 2 of 4.
    made = patch(tiny, AttendExcite, 1e-6, refinements=3, until=1.0)
    assert 4 <= made.moves <= 4 + 3 * 3


def test_concepts_are_found_in_captions():
    assert concept_words("an ant and a cup of coffee on an orange background") == ["ant", "cup of coffee"]
    assert concept_words("a zeppelin of brass") == ["zeppelin", "brass"]
    assert concept_words("a cat beside a zeppelin") == ["cat", "zeppelin"]
    rng = np.random.default_rng(7)
    for scene in (emoji.sample(rng) for _ in range(60)):
        assert set(emoji_concepts(emoji.caption(scene)).values()) == {o.concept for o in scene.objects}


def test_overlays_show_each_map_in_its_colour():
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, :, :4], maps[0, 1, :, 4:] = 1, 1
    left, right = overlays(np.full((64, 64, 3), 128, np.uint8), maps, ["a", "b"]).items
    assert left.pixels[32, 8].astype(int)[0] > left.pixels[32, 56].astype(int)[2] and (left.pixels[32, 8] != right.pixels[32, 8]).any()


@pytest.mark.parametrize("name", ["sd-1.5", "sdxl"])
def test_they_run_on_real_checkpoints_classes(name, tmp_path, monkeypatch):
    checkpoints.write(name, tmp_path / name)
    card = models.CARDS[name]
    small = dataclasses.replace(card, source=str(tmp_path / name), side=32, factor=2, options=card.options | {"dtype": "float32"})
    monkeypatch.setitem(models.CARDS, name, small)
    models.clear()
    made = [{"method": m, "knobs": {"steps": 3, "concepts": "cat, hat"}} for m in ("astar", "attend_excite")]
    events = list(run({"task": "text_to_image", "model": name, "job": {"prompt": "a cat in a red hat", "seed": 1}, "arms": made}))
    models.clear()
    ends = [e.event for e in events if isinstance(e.event, Outcome)]
    assert [e.error for e in ends] == ["", ""] and ends[0].nfe == 9
