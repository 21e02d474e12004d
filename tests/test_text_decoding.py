"""The decoding loop: how much it reveals, in which order, and that a cache that is always renewed changes nothing."""

import pytest
import torch

from backends.spec import BadInput
from backends.text.canvas import Canvas, shares
from backends.text.decoding import BlockCache, Reader, Rule, decode
from backends.text.feature_cache import FeatureCache
from tests.tiny_text import tiny

PROMPT, LENGTH = "what is 3+4?", 16


@pytest.fixture(scope="module")
def model():
    return tiny()


PLAIN = Rule()


def run(model, read=None, rule=PLAIN, steps=LENGTH, block=LENGTH, temperature=0.0):
    torch.manual_seed(0)
    canvas, before = Canvas.after(model, model.encode(PROMPT, LENGTH), LENGTH), model.nfe
    read, left = read or Reader(model), []
    for _ in decode(canvas, read, rule, steps, block, temperature):
        left.append(int(canvas.masked.sum()))
    return canvas, left, model.nfe - before


def test_the_network_looks_both_ways(model):
    ids = model.encode(PROMPT, 0)[None]
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 30 + 4
    assert not torch.allclose(model.logits(ids)[0, 0, 2:], model.logits(changed)[0, 0, 2:])


def test_an_even_share_a_step(model):
    _, left, nfe = run(model, steps=5)
    assert shares(16, 5) == [4, 3, 3, 3, 3] and left == [12, 9, 6, 3, 0] and nfe == 5


@pytest.mark.identity("dlm_survey", "a threshold above 1 gives the text of one token a step, in as many evaluations as tokens")
def test_a_threshold_above_one_is_one_token_a_step(model):
    slow, left, nfe = run(model, rule=Rule(commit="threshold", threshold=1.01))
    assert nfe == LENGTH and left == list(range(LENGTH - 1, -1, -1))
    assert slow.ids.tolist() == run(model)[0].ids.tolist()


@pytest.mark.identity("dlm_survey", "a threshold of 0 takes one evaluation a block")
def test_a_threshold_of_zero_is_one_step_a_block(model):
    assert run(model, rule=Rule(commit="threshold", threshold=0.0), block=4)[2] == LENGTH // 4


def test_factor_reveals_as_many_as_the_rule_allows(model):
    confidence, among = torch.tensor([0.99, 0.9, 0.5, 0.95]), torch.tensor([True, True, True, True])
    # (n + 1)(1 − c_n): 0.02, 0.15, 0.4, 2.5
    assert Rule(commit="factor", factor=0.3).choose(None, torch.arange(len(among)), confidence, among, 1).tolist() == [True, False, False, True]
    assert Rule(commit="factor", factor=0.01).choose(None, torch.arange(len(among)), confidence, among, 1).tolist() == [True, False, False, False]


def test_blocks_are_done_from_left_to_right(model):
    canvas = Canvas.after(model, model.encode(PROMPT, LENGTH), LENGTH)
    for done, _ in decode(canvas, Reader(model), Rule(), LENGTH, 4):
        masked = canvas.masked[canvas.start :]
        assert not masked[: (done - 1) // 4 * 4].any() and masked[((done - 1) // 4 + 1) * 4 :].all()


def test_blocks_must_divide_the_answer(model):
    with pytest.raises(BadInput, match="blocks of 5; choose 2, 4, 8, or 0 for a single one"):
        run(model, block=5)


def test_left_to_right_order(model):
    canvas = Canvas.after(model, model.encode(PROMPT, LENGTH), LENGTH)
    for done, _ in decode(canvas, Reader(model), Rule(order="left to right"), LENGTH, LENGTH):
        assert canvas.masked[canvas.start :].tolist() == [False] * done + [True] * (LENGTH - done)


@pytest.mark.identity("dlm_survey", "a cache renewed at every step changes logits by less than 1e-5")
@pytest.mark.parametrize("guidance", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["prefix", "dual", "features"])
def test_a_cache_renewed_at_every_step_changes_nothing(model, kind, guidance):
    """The card's identity: logits within 1e-5."""
    plain = Reader(model, guidance)
    cached = FeatureCache(model, guidance, 1, 1) if kind == "features" else BlockCache(model, guidance, kind == "dual", refresh=1)
    canvas = Canvas.after(model, model.encode(PROMPT, LENGTH), LENGTH)
    cached.begin(canvas, canvas.start, canvas.start + 8)
    for place in (3, 1, 6):
        a, b = plain(canvas), cached(canvas)
        seen = torch.isfinite(b)
        assert torch.isfinite(a).sum() == seen.sum() and (a - b)[seen].abs().max() < 1e-5
        canvas.ids[canvas.start + place] = 7


@pytest.mark.identity("dlm_survey", "reused keys and values give the plain pass while the canvas stays as it was")
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_a_block_cache_is_exact_while_nothing_outside_changes(kind, shift):
    """Only keys and values are kept, so with one layer's inputs unchanged the first cached step differs by what the block changed alone."""
    model = tiny(shift=shift)
    plain, cached = Reader(model), BlockCache(model, dual=kind == "dual")
    canvas = Canvas.after(model, model.encode(PROMPT, LENGTH), LENGTH)
    cached.begin(canvas, canvas.start, canvas.start + 8)
    cached(canvas)
    again, inside = cached(canvas), slice(canvas.start, canvas.start + 8)
    finite = torch.isfinite(again[inside])
    assert (plain(canvas)[inside] - again[inside])[finite].abs().max() < 1e-5
    assert cached.computed < cached.asked


def test_feature_cache_computes_a_share(model):
    read = FeatureCache(model, prompt_every=8, answer_every=8, share=0.25)
    run(model, read)
    assert 0.1 < read.computed / read.asked < 0.75


def test_guidance_of_zero_costs_one_evaluation_and_more_two(model):
    assert run(model, Reader(model, 0.0), steps=4)[2] == 4 and run(model, Reader(model, 1.0), steps=4)[2] == 8


def test_what_is_shown(model):
    canvas, *_ = run(model, steps=2)
    fresh = Canvas.after(model, model.encode(PROMPT, LENGTH), LENGTH)
    fresh.show()
    for _ in decode(fresh, Reader(model), Rule(), 2, LENGTH):
        shown = fresh.show()
    assert shown.marks.count("n") == 8 and shown.marks.count("k") == 8 and len(shown.pieces) == LENGTH
    assert len(fresh.final().past) == 3 and fresh.final().text == model.text(canvas.ids[canvas.start :])


def test_too_long_is_a_sentence(model):
    with pytest.raises(BadInput, match="together more than the 128"):
        model.encode("a" * 120, 16)


def test_end_tokens_wait_for_words():
    ids, confidence, among = torch.tensor([0, 5, 0, 7]), torch.tensor([0.99, 0.2, 0.95, 0.4]), torch.ones(4, dtype=torch.bool)
    torch.manual_seed(0)
    for _ in range(8):
        assert not (Rule("random", late=(0,)).choose(None, ids, confidence, among, 2) & (ids == 0)).any()
    for commit in ("steps", "threshold", "factor"):
        rule = Rule(commit=commit, late=(0,))
        assert rule.choose(None, ids, confidence, among, 1).tolist() == [False, False, False, True]
        assert not (rule.choose(None, ids, confidence, among & (ids == 0), 2) & (ids != 0)).any()
        assert rule.choose(None, ids, confidence, among & (ids == 0), 2).any()
    assert Rule().choose(None, ids, confidence, among, 1).tolist() == [True, False, False, False]
