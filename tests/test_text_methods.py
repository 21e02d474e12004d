"""What each text method does, on a tiny random model and on models whose answers are known."""

import math
import types

import pytest
import torch

from backends.text import edlm, rcr
from backends.text.canvas import Canvas
from backends.text.scaffold import read, scaffold
from tests.tiny_text import tiny


class Known:
    """A predictor whose logits are a function of the canvas: (N,) ids -> (N, V)."""

    mask, eos, nfe = 0, 9, 0

    def __init__(self, function):
        self.function = function

    def logits(self, ids):
        self.nfe += len(ids)
        return torch.stack([self.function(row) for row in ids])

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


@pytest.mark.parametrize("k", [1, 4, 8])
def test_two_tied_tokens_come_out_wrong_half_to_the_power_of_k(k):
    """The card's identity: 00 or 11 is right, one step; a sign error raises the rate instead."""
    torch.manual_seed(0)
    model = Known(lambda row: torch.tensor([[-math.inf, 0.0, 0.0]] * 2))
    tied = lambda ids: torch.where(ids[:, 0] == ids[:, 1], math.log(2.0), math.inf)  # noqa: E731
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


def test_after_each_step_as_many_are_masked_as_are_still_planned():
    model = tiny()
    canvas = Canvas.after(model, model.encode("abc", 16), 16)
    left = [int(canvas.masked.sum()) for _ in rcr.running_confidence(canvas, 4, 16, 0.0)]
    assert left == [12, 8, 4, 0]


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
