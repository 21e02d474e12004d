"""How a proof is recorded: its effects as it states them, its identities as the marked tests of any folder come out."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from backends import headless
from scripts import readme_table
from ui import catalogue

PROOFS = Path(__file__).parent / "proofs"
MARKED = """
import pytest

@pytest.mark.identity("some_method", "one is one")
@pytest.mark.parametrize("one", [1, 1.0])
def test_one(one):
    assert one == 1

@pytest.mark.identity("some_method", "two is three")
def test_two():
    assert 2 == 3

@pytest.mark.identity("some_method", "what can't be tried")
def test_three():
    pytest.skip("no device")

@pytest.mark.identity("another_method", "four is four")
def test_four():
    assert 4 == 4

def test_unmarked():
    raise ZeroDivisionError
"""


@pytest.fixture
def recorder(monkeypatch):
    """The proofs' own conftest; its folder is on the path as it is when they run."""
    import importlib.util

    monkeypatch.setattr(sys, "path", [str(PROOFS), *sys.path])
    spec = importlib.util.spec_from_file_location("proofs_conftest", PROOFS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_marked_checks_of_a_method_are_run_and_counted(recorder, tmp_path):
    (tmp_path / "test_marked.py").write_text(MARKED)
    assert recorder.checks("some_method", tmp_path) == {"one is one": [True, True], "two is three": [False], "what can't be tried": [False]}
    assert recorder.checks("no_method", tmp_path) == {}


def test_a_proof_records_its_identities_beside_its_effects(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "FILE", tmp_path / "assets" / "proofs.json")
    monkeypatch.setattr(recorder, "checks", lambda slug: {"one is one": [True, True], "two is three": [False]} if slug == "some_method" else {})
    monkeypatch.setattr(recorder.Proof, "commit", staticmethod(lambda: "abc"))
    recorder.FILE.parent.mkdir()
    proof = recorder.Proof("some_method")
    proof.state("it helps", 0.7, ">=", 0.5, n=8)
    with pytest.raises(AssertionError, match="two is three"):
        proof.close()
    entry = json.loads(recorder.FILE.read_text())["some_method"]
    effect, one, two = entry["statements"]
    assert [s["kind"] for s in entry["statements"]] == ["effect", "identity", "identity"] and not entry["passed"]
    assert set(effect) == set(one) and one["held"] and not two["held"]
    assert (one["value"], one["op"], one["threshold"], one["n"]) == (1, "==", 1, 2)


@pytest.fixture
def measure(monkeypatch):
    """What proofs share, imported as they do."""
    monkeypatch.setattr(sys, "path", [str(PROOFS), *sys.path])
    yield importlib.import_module("measure")
    sys.modules.pop("measure")


@pytest.mark.parametrize("n", [4, 6])
def test_an_interval_of_few_rows_holds_the_mean_as_often_as_it_says(measure, n):
    draws = np.random.default_rng(n).normal(5.0, 2.0, (1500, n))
    held = lambda of: np.mean([low <= 5 <= high for low, high in map(of, draws)])  # noqa: E731
    assert abs(held(measure.interval) - 0.95) < 0.02  # 3.5 standard errors
    assert held(measure.bootstrap) < 0.89, "the percentiles of a bootstrap are clearly too narrow"


def test_an_interval_is_of_rows_and_of_many_a_bootstrap(measure):
    rows = np.random.default_rng(0).normal(size=(measure.FEW, 3))
    low, high = measure.interval(rows)
    assert [low, high] == pytest.approx(measure.bootstrap(rows.mean(1)), abs=1e-4) and measure.interval(np.repeat(rows, 2, 1)) == [low, high]
    wide = np.subtract(*measure.interval(rows[:-1])[::-1])  # a row fewer is Student's
    assert wide == pytest.approx(np.subtract(*measure.student(rows[:-1].mean(1))[::-1]), abs=2e-4)
    assert measure.interval([0.3]) == [-np.inf, np.inf] and measure.interval([2, 2, 2]) == [2, 2]


def test_identities_are_counted_apart_from_effects():
    row = dict(statement="it helps", value=0.7, op=">=", threshold=0.5, n=8)
    effect, exact = row | dict(kind="effect", held=True), row | dict(kind="identity", held=True)
    proof = {"passed": True, "date": "2026-01-02", "stale": False, "statements": [effect, exact, exact]}
    assert headless.identities(proof) == "2 identities hold" and headless.identities(proof | {"statements": [effect]}) == ""
    assert headless.identities(proof | {"statements": [exact, exact | {"held": False}]}) == "1 of 2 identities hold"
    assert headless.identities(proof | {"statements": [exact]}) == "1 identity holds"
    assert "2 identities hold" in catalogue._proof(proof) and "0.7" in catalogue._proof(proof)
    method = next(m for m in readme_table.METHODS.values() if m.paper)
    assert f"✓ [1 of 1](docs/proofs.md#{method.slug})" in readme_table.row(method, proof)
    failed = proof | {"passed": False, "statements": [*proof["statements"], effect | {"held": False, "statement": "it | does not"}]}
    assert "✗ [1 of 2]" in readme_table.row(method, failed) and "✗ | it \\| does not | 0.7 | >= 0.5 | 8" in readme_table.section(method, failed)
    assert f'id="{method.slug}"' in readme_table.section(method, proof) and "1 of 1 statements hold, 2 identities hold." in readme_table.section(method, proof)
    others = {
        "1": {"passed": False, "held": [3, 4], "weights": None},
        "2": {"passed": True, "weights": None},
        "3": {"passed": True, "weights": {"other": "weights"}},
    }
    assert "| 3 of 4, all |" in readme_table.row(method, proof | {"other_seeds": others})


@pytest.mark.parametrize("slug", sorted(p.stem.removeprefix("test_") for p in PROOFS.glob("test_*.py")))
def test_every_proof_has_an_identity(slug):
    assert any(f'mark.identity("{slug}"' in p.read_text() for p in Path(__file__).parent.rglob("test_*.py"))
