"""The text world: what is drawn is right, held out is held out, and what is wrong or unparsable is not taken for right."""

import json

import numpy as np
import pytest

from backends.metrics.text import entropy, fill_form
from backends.spec import Tokens
from backends.text.tasks import FillForm
from backends.worlds import text


@pytest.mark.parametrize("kind", text.KINDS)
@pytest.mark.parametrize("for_test", [False, True])
def test_what_is_drawn_is_right_and_known_by_its_form(kind, for_test):
    rng = np.random.default_rng(0)
    for _ in range(40):
        example = text.draw(rng, kind, for_test)
        assert text.kind_of(example.prompt) == kind and text.held_out(example.prompt) is for_test
        assert text.check(example.prompt, example.answer) == 1.0


def test_a_sudoku_has_one_solution():
    assert len(text.grids()) == 288
    rng = np.random.default_rng(1)
    for _ in range(20):
        clues = [int(c) if c != "_" else 0 for c in text.draw(rng, "sudoku").prompt.split(" ", 1)[1].replace(" ", "")]
        fits = [g for g in text.grids() if all(c in (0, v) for c, v in zip(clues, g))]
        assert len(fits) == 1


@pytest.mark.parametrize(
    ("prompt", "answer", "right"),
    [
        ("3 + 4 =", "7", 1), ("3 + 4 =", "8", 0), ("3 + 4 =", "", 0), ("make 17 from 3, 5, 2", "3 * 5 + 2", 1), ("make 17 from 3, 5, 2", "17", 0),
        ("make 17 from 3, 5, 2", "3 * 5 + 2 + 0", 0), ("make 17 from 3, 5, 2", "__import__('os')", 0), ("make 17 from 3, 5, 2", "9**9**9", 0),
        ("make 17 from 3, 5, 2", "(" * 150 + "3", 0), ("sudoku 12__ 34__ 21__ 43__", "1234 3412 2143 4321", 1), ("sudoku 12__ 34__ 21__ 43__", "1234 3412 2143 4312", 0),
        ("red box: 1234. blue key: 5678. what is blue key?", "5678", 1), ("red box: 1234. blue key: 5678. what is blue key?", "1234", 0),
        ("Ada Berg lives in Oslo. fields: name, city, age", '{"name": "Ada Berg", "city": "Oslo", "age": "<none>"}', 1),
        ("Ada Berg lives in Oslo. fields: name, city, age", '{"name": "Ada Berg", "city": "Oslo", "age": "30"}', 2 / 3),
        ("Ada Berg lives in Oslo. fields: name, city", "{", 0), ("Someone lives in Oslo. fields: name, city", "{}", None), ("tell me a story", "once", None),
    ],
)  # fmt: skip
def test_answers_are_checked(prompt, answer, right):
    assert text.check(prompt, answer) == (None if right is None else pytest.approx(right))


def test_a_key_stands_at_its_depth():
    rng = np.random.default_rng(0)
    for depth, place in ((0.0, 0), (1.0, 9)):
        notes, question, answer = text.recall_text(rng, 10, depth)
        assert notes.split(". ")[place].rstrip(".") == f"{question[8:-1]}: {answer}"


def test_repetition_has_little_entropy():
    assert entropy("a a a a") == 0 and entropy("one two three four") == 2


def test_a_form_is_measured_against_its_text():
    job = FillForm(text="Ada Berg lives in Oslo.", form="name, city, age")

    def figures(form):
        return {m.name: m.value for m in fill_form(job, Tokens((), (), "", form), None)}

    right = {"name": "Ada Berg", "city": "Oslo", "age": None}
    assert figures(json.dumps(right)) == {"valid (%)": 100, "facts filled in rightly (%)": 100, "fields invented (%)": 0}
    assert figures(json.dumps(right | {"age": "30"}))["fields invented (%)"] == 100
    schema = FillForm(text="?", form='{"properties": {"age": {"type": "integer"}, "pet": {"type": "boolean"}}}')
    for age, valid in ((41, 100), ("41", 100), ("old", 0), (True, 0), (None, 100), ("<none>", 100)):
        said = Tokens((), (), "", json.dumps({"age": age, "pet": True}))
        assert fill_form(schema, said, None)[0].value == valid, age
    assert figures("no JSON") == {"valid (%)": 0, "facts filled in rightly (%)": 0, "fields invented (%)": 0}


@pytest.mark.parametrize("kind", ["sum", "countdown", "sudoku", "recall"])
def test_a_solution_is_right(kind):
    rng = np.random.default_rng(2)
    for _ in range(20):
        prompt = text.draw(rng, kind).prompt
        assert text.check(prompt, text.solution(prompt)) == 1.0


@pytest.mark.parametrize("prompt", ["tell me a story", "make 99 from 1, 1, 1", "sudoku 11__ ____ ____ ____", "red box: 1234. what is blue box?"])
def test_where_there_is_no_solution_none_is_said(prompt):
    assert text.solution(prompt) == ""
