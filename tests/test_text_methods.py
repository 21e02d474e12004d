"""What each text method does, on a tiny random model and on models whose answers are known."""

import json
import math
import types

import pytest
import torch
from transformers import AddedToken

from backends.metrics import text as figures
from backends.text import edlm, rcr
from backends.text.canvas import Canvas
from backends.text.predictor import MaskPredictor
from backends.text.scaffold import read, scaffold
from tests.tiny_text import tiny


class Known:
    """A predictor whose logits are a function of the canvas: (N,) ids -> (N, V)."""

    mask, ends, nfe = 0, (9,), 0

    def __init__(self, function):
        self.function = function

    def logits(self, ids):
        self.nfe += len(ids)
        return torch.stack([self.function(row) for row in ids])

    def answers(self, ids, length):
        return self.logits(ids)[:, -length:]

    def text(self, ids):
        return " ".join(str(int(i)) for i in ids)

    def piece(self, token):
        return str(token)


def sure(n: int, said: dict[int, tuple[int, float]], words: int = 10):
    """Logits (n, words) that say a token at a position with a probability."""
    rows = torch.full((n, words), 0.1 / (words - 1)).log()
    for place, (token, p) in said.items():
        rows[place] = torch.full((words,), (1 - p) / (words - 1)).log()
        rows[place, token] = math.log(p)
    return rows


# --- EDLM ---


@pytest.mark.identity("edlm", "two tied tokens in one step come out wrong in 0.5^k of cases, k = 1, 4, 8")
@pytest.mark.parametrize("k", [1, 4, 8])
def test_two_tied_tokens_come_out_wrong_half_to_the_power_of_k(k):
    """The card's identity: 00 or 11 is right, one step; a sign error raises the rate instead."""
    torch.manual_seed(0)
    model = Known(lambda row: torch.tensor([[-math.inf, 0.0, 0.0]] * 2))
    tied = lambda ids, under: torch.where(ids[:, 0] == ids[:, 1], math.log(2.0), math.inf)  # noqa: E731
    wrong, n = 0, 3000
    for _ in range(n):
        canvas = Canvas(model, torch.zeros(2, dtype=torch.long), 0)
        list(edlm.denoise(canvas, 1, k, (0.0, 1.0), 1.0, tied))
        wrong += int(canvas.ids[0] != canvas.ids[1])
    expected = 0.5**k
    assert abs(wrong / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_the_choice_follows_the_boltzmann_weights():
    torch.manual_seed(0)
    energies = torch.tensor([0.0, math.log(3.0)])
    share = sum(edlm.pick(energies, 1.0) == 0 for _ in range(4000)) / 4000
    assert abs(share - 0.75) < 0.03
    assert {edlm.pick(torch.tensor([math.inf, math.nan]), 1.0) for _ in range(50)} == {0, 1}  # uniform where none is valid


def test_edlm_draws_noise_for_masked_tokens_alone(monkeypatch):
    """For every candidate and position at once it would be gigabytes with a vocabulary of 126,000."""
    model, drawn, rand = tiny(), [], torch.rand_like
    monkeypatch.setattr(torch, "rand_like", lambda logits, **kw: drawn.append(tuple(logits.shape)) or rand(logits, **kw))
    canvas = Canvas.after(model, model.encode("a" * 30, 8), 8)
    left = [8] + [int(canvas.masked.sum()) for _ in edlm.denoise(canvas, 3, 2, (0.0, 1.0), 1.0, lambda ids, under: under)]
    assert drawn == [(n, 56) for n in left[:3] for _ in range(2)] and left[3] == 0


def test_outside_its_window_edlm_is_the_plain_sampler():
    model = tiny()
    outcomes = []
    for k, window in ((8, (2.0, 3.0)), (1, (0.0, 1.0))):
        torch.manual_seed(3)
        canvas = Canvas.after(model, model.encode("abc", 8), 8)
        list(edlm.denoise(canvas, 4, k, window, 1.0, None))
        outcomes.append(canvas.ids.tolist())
    assert outcomes[0] == outcomes[1] and model.mask not in outcomes[0]


# --- RCR ---


@pytest.mark.identity("mdpo", "after RCR's step i as many tokens are masked as later steps are to reveal")
def test_after_each_step_as_many_are_masked_as_are_still_planned():
    model = tiny()
    canvas = Canvas.after(model, model.encode("abc", 16), 16)
    left = [int(canvas.masked.sum()) for _ in rcr.running_confidence(canvas, 4, 16, 0.0)]
    assert left == [12, 8, 4, 0]


@pytest.mark.identity("mdpo", "a token first wrong at 0.3 and later right at 0.9 ends right with RCR")
def test_a_token_that_turns_out_unsure_is_taken_back():
    """The card's identity: first predicted wrong at 0.3, later right at 0.9; it ends right, and wrong without remasking."""

    def say(row):
        known = row != 0
        first = (5, 0.3) if not known.any() else (6, 0.9)
        return sure(4, {0: first, 1: (1, 0.2), 2: (2, 0.25), 3: (3, 0.28)} if not known.any() else {0: first, 1: (1, 0.95), 2: (2, 0.95), 3: (3, 0.95)})

    canvas = Canvas(Known(say), torch.zeros(4, dtype=torch.long), 0)
    steps = rcr.running_confidence(canvas, 4, 4, 0.0)
    next(steps)
    assert canvas.ids.tolist() == [5, 0, 0, 0]
    next(steps)  # the others come at 0.95, so the token at 0.3 is the least sure of all
    assert canvas.ids[0] == 0
    list(steps)
    assert canvas.ids.tolist() == [6, 1, 2, 3]


# --- scaffolds ---


def test_a_scaffold_is_json_around_slots():
    model = tiny()
    made = scaffold(model.tokens, model.mask, {"name": 3, "age": 2})
    assert [b - a for a, b in made.slots.values()] == [3, 2]
    assert all(made.ids[a:b] == [model.mask] * (b - a) for a, b in made.slots.values())
    filled = list(made.ids)
    a, b = made.slots["name"]
    filled[a:b] = [*model.tokens("ab"), 2]  # 2: the null filler
    a, b = made.slots["age"]
    filled[a:b] = [2, 2]
    decode = types.MethodType(lambda self, ids: self.tokenizer.decode(ids).replace(" ", ""), model)
    assert read(filled, made.slots, decode) == {"name": "ab", "age": None}


@pytest.mark.identity("s3", "three fields of 16 tokens in 16 steps: 3 reveals a step, 16 evaluations, the scaffold unchanged, the result parses")
def test_three_slots_in_sixteen_steps():
    from backends.spec import Result, Step
    from backends.text.s3 import s3
    from backends.text.tasks import FillForm

    model = tiny(context=512)
    before = model.nfe
    *steps, _, last = s3(FillForm(text="abc", form="name, age, city"), model, steps=16, budget=16)
    shows = [e.show for e in steps if isinstance(e, Step)]
    assert model.nfe - before == 16 and [s.marks.count("n") for s in shows] == [3] * 16
    given = [[p for p, m in zip(s.pieces, s.marks) if m == "g"] for s in shows]
    assert all(g == given[0] for g in given)
    assert isinstance(last, Result) and list(json.loads(last.value.text)) == ["name", "age", "city"]


def test_a_model_that_knows_no_null_token_is_told_of_one_and_spells_it():
    from backends.spec import Result
    from backends.text.forms import asked
    from backends.text.s3 import s3
    from backends.text.tasks import FillForm

    model = tiny(context=512)
    assert "<none>" in asked(model, "abc", ["name"], null=True) and "<none>" not in asked(model, "abc", ["name"], null=False)
    model.card.capabilities |= {"null"}
    assert asked(model, "abc", ["name"], null=True) == "abc fields: name"
    model.card.capabilities -= {"null"}
    # A real checkpoint's tokenizer has no such token, and its embedding more rows than the tokenizer has words.
    model.tokenizer.convert_tokens_to_ids = lambda word: None
    inner, spare = model.net.forward, 7
    model.net.forward = lambda **kw: types.SimpleNamespace(logits=torch.nn.functional.pad(inner(**kw).logits, (0, spare), value=1e4))
    *_, last = s3(FillForm(text="abc", form="name, age"), model, steps=4, budget=4, null=False)
    assert isinstance(last, Result) and list(json.loads(last.value.text)) == ["name", "age"]


def test_needles_are_sought_past_the_trained_length():
    from backends.spec import Result
    from backends.text.longllada import lengths_up_to, longllada
    from backends.text.tasks import FindNeedle

    assert lengths_up_to(384, 128) == [64, 128, 192, 256, 320, 384]
    assert lengths_up_to(16384, 4096) == [2048 * k for k in range(1, 9)]
    assert len(lengths_up_to(32768, 4096)) <= 10 and lengths_up_to(32768, 4096)[-1] == 32768
    model = tiny(context=128)  # which `encode` holds it to; a real checkpoint's context is what it was trained on
    last = next(e for e in longllada(FindNeedle(reach=1.5, needles=1), model) if isinstance(e, Result))
    assert [int(c) for c in last.value.columns] == [64, 128, 192]


@pytest.mark.identity("longllada", "the NTK rule gives LLaDA's constants: d_c = 64 and λ = 3.40, 13.60, 30.60, 54.40")
def test_the_ntk_rule_gives_the_published_constants():
    from backends.text.longllada import critical_dimension, ntk_factor

    assert critical_dimension(128, 500000, 4096) == 64
    assert [round(ntk_factor(128, 500000, 4096, length), 2) for length in (8192, 16384, 24576, 32768)] == [3.4, 13.6, 30.6, 54.4]
    assert math.ceil(ntk_factor(128, 1e6, 2048, 4096)) == 5  # Dream's, trained on 2,048


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("", "empty"), ("{not json", "not JSON"), ("[1, 2]", "properties"), ('{"properties": {"a": {"type": "object"}}}', "of type object"),
        (", ,", "names no field"), ('{"properties": {"a": {"type": "string", "enum": ["x"]}}}', "asks for “enum”"), ('{"properties": {"a": "string"}, "oneOf": []}', "asks for “oneOf”"), ("a" * 80, "field's name"), (", ".join("abcdefghijklmn"), "at most 12"), ('a"b', "field's name"),
    ],
)  # fmt: skip
def test_a_form_that_can_not_be_taken_is_answered_with_a_sentence(form, said):
    from backends.spec import BadInput
    from backends.text.forms import fields_of

    with pytest.raises(BadInput, match=said):
        fields_of(form)


def test_a_rope_base_is_put_back():
    from backends.text.predictor import rope_base

    model = tiny()
    ids = model.encode("abcdef", 0)[None]
    before = model.logits(ids)
    with rope_base(model, 500.0):
        assert torch.allclose(model.logits(ids), before, atol=1e-5)  # its own base
    with rope_base(model, 5000.0):
        assert not torch.allclose(model.logits(ids)[..., 2:], before[..., 2:], atol=1e-4)
    assert torch.equal(model.logits(ids), before)


def test_the_energy_network_starts_at_zero_and_tells_answers_apart_when_trained():
    from backends.nets.energy import EnergyNetwork

    torch.manual_seed(0)
    model = tiny()
    net = EnergyNetwork(hidden_size=32, intermediate_size=64, layers=2, heads=2, key_value_heads=2)
    net.start_from(model.net)
    embed, answer = model.net.model.embed_tokens, torch.ones(16, 8, dtype=torch.bool)
    noisy = embed(torch.full((16, 8), model.mask))
    right, wrong = torch.full((16, 8), 10), torch.randint(12, 40, (16, 8))
    assert not net(noisy, embed(right), answer).any()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(30):
        loss = torch.nn.functional.softplus(net(noisy, embed(right), answer)).mean() + torch.nn.functional.softplus(-net(noisy, embed(wrong), answer)).mean()
        loss.backward()
        optimiser.step(), optimiser.zero_grad()
    assert (net(noisy, embed(right), answer) < net(noisy, embed(wrong), answer)).all()


def test_what_looks_like_a_special_token_is_spelt_out():
    from backends.embedded import text_tokenizer

    read = text_tokenizer()
    typed = read("make <mask> 3 <eos> <answer>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not set(typed) & set(read.all_special_ids) and read.decode(typed) == "make <mask> 3 <eos> <answer>"


@pytest.mark.parametrize(("given", "kind", "made"), [
    ("41", "integer", 41), ("41", "number", 41), ("4.5", "number", 4.5), ("nan", "number", "nan"), ("4.5", "integer", "4.5"), ("yes", "boolean", True),
    ("perhaps", "boolean", "perhaps"), (None, "integer", None), ("x", "string", "x"),
])  # fmt: skip
def test_a_slot_is_read_as_its_type_or_left_as_it_is(given, kind, made):
    from backends.text.forms import typed

    assert typed(given, kind) == made and type(typed(given, kind)) is type(made)


def test_half_a_surrogate_pair_in_a_schema_comes_back_in_words():
    from backends.spec import BadInput
    from backends.text.forms import fields_of

    for form in ('{"properties": {"\\ud800": {"type": "string"}}}', '{"properties": {"a": {"type": "\\ud800"}}}'):
        with pytest.raises(BadInput) as refused:
            fields_of(form)
        str(refused.value).encode("utf-8")


@pytest.mark.parametrize("cache", ["prefix", "dual", "features"])
def test_a_cache_that_a_model_has_no_layers_for_is_refused(cache):
    from backends.spec import BadInput
    from backends.text.dlm_survey import dlm_survey
    from backends.text.tasks import WriteText

    model = tiny()
    model.card = types.SimpleNamespace(title="Other", embedded=False, capabilities=frozenset({"text", "masked"}))
    with pytest.raises(BadInput, match="not made for Other"):
        list(dlm_survey(WriteText(prompt="ab", length=8), model, cache=cache))


def test_padding_behind_an_answer_counts_as_no_work():
    from backends.text.canvas import Canvas

    model = tiny()
    canvas = Canvas.after(model, model.encode("ab", 8), 8)
    canvas.ids[canvas.start :] = torch.tensor([7, 8, model.eos, model.eos, 9, 9, model.eos, model.eos])
    assert canvas.written() == 3
    canvas.ids[canvas.start :] = 7
    assert canvas.written() == 8


def test_either_end_token_ends_an_answer():
    """LLaDA ends a turn with <|eot_id|> and pads with <|endoftext|>."""
    from backends.text.canvas import until_end
    from backends.text.dlm_survey import late
    from backends.text.longllada import ask

    model = tiny(ends=(0, 7))
    assert model.eos == 0 and late(model, True) == (0, 7) and late(model, False) == ()
    a, b = model.tokens("ab")
    assert model.text([a, 7, b, 0]) == model.text([a, 0, b]) == model.text([a]) and model.piece(7) == model.piece(0) == "∎"
    assert until_end(torch.tensor([a, 7, 0, b]), model.ends).tolist() == [True, True, False, False]
    canvas = Canvas.after(model, model.encode("ab", 4), 4)
    rcr.remask(canvas, ~canvas.given, 4)
    canvas.ids[canvas.start :], canvas.confidence[canvas.start :] = torch.tensor([a, 7, b, 0]), torch.tensor([0.1, 0.9, 0.2, 0.9])
    rcr.remask(canvas, ~canvas.given, 2, ends_last=True)
    assert canvas.ids[canvas.start :].tolist() == [a, model.mask, b, model.mask]
    ended, asked = sure(4, {0: (5, 0.9), 1: (7, 0.8), 2: (8, 0.2), 3: (8, 0.2)}, len(model.tokenizer)), []
    assert ask(lambda ids: asked.append(1) or ended, Canvas.after(model, model.encode("ab", 4), 4)) == model.text([5]) and len(asked) == 2


def test_no_special_token_comes_into_a_slot():
    """Real tokenizers have special tokens that `all_special_ids` doesn't name."""
    from backends.text.s3 import Filler

    model = tiny(context=512, ends=(0, 7))
    model.tokenizer.add_tokens([AddedToken("<role>", special=True)])
    role = model.tokenizer.convert_tokens_to_ids("<role>")
    assert role not in model.tokenizer.all_special_ids
    model = MaskPredictor(model.card, model.net, model.tokenizer, mask=1, ends=(0, 7), template=model.template, context=512)
    barred = Filler(model, 0.0, null=True).barred
    assert barred[[0, 1, 3, 7, role]].all() and not barred[2] and not barred[model.tokens("ab")].any()  # 2: the null filler
    assert Filler(model, 0.0, null=False).barred[2] and model.text([role, *model.tokens("a")]) == "a"


def test_edlm_weighs_what_its_draw_says_up_to_the_end():
    """Tokens behind the first end are not in the autoregressive model's likelihood, so they may not be in the draw's either."""
    from backends.text import edlm
    from backends.text.canvas import Canvas

    model, seen = tiny(), []
    canvas = Canvas.after(model, model.encode("ab", 6), 6)
    logits = torch.full((1, len(canvas.ids), 56), -20.0)
    logits[0, :, 7] = 0.0
    logits[0, canvas.start + 1, 7], logits[0, canvas.start + 1, model.eos] = -20.0, 0.0
    logits[0, canvas.start + 2 :, 9] = 0.0  # behind the end: a toss
    model.answers = lambda ids, length: logits[:, -length:].clone()
    list(edlm.denoise(canvas, 1, 4, (0.0, 1.0), 1.0, lambda ids, under: seen.append(under) or torch.zeros(4)))
    assert torch.allclose(seen[0], torch.zeros(4), atol=1e-4)


def test_smollm2_as_its_package_holds_it_knows_some_english():
    assert figures.perplexity("The capital of France is", "Paris.") < figures.perplexity("The capital of France is", "umbrella.") / 10
