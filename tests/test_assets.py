"""What is committed under assets/: sizes a Space accepts, sources named, models that load and draw."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from backends import METHODS, models, run
from backends.spec import Outcome
from backends.worlds import text

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = [c for c in models.CARDS.values() if c.embedded]
PICTURES, TEXT = ([c for c in EMBEDDED if kind in c.capabilities] for kind in ("image", "text"))


def committed() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / n for n in names if n and (ROOT / n).exists()]


def test_no_file_needs_lfs():
    assert not [f.name for f in committed() if f.stat().st_size > 9.5e6]


def test_the_assets_stay_small():
    assert sum(f.stat().st_size for f in committed() if "assets" in f.parts) < 380e6  # a clone of minutes on a slow line; the pixels’ prior alone is 36 MB


def test_every_asset_has_its_source_in_the_notice():
    notice = (ROOT / "assets/NOTICE.md").read_text()
    for path in committed():
        parts = path.relative_to(ROOT).parts
        if parts[0] == "assets" and len(parts) > 1 and parts[-1] not in ("NOTICE.md", "style.css"):
            name = "/".join(parts[1:3]) if parts[1] in ("models", "worlds") else parts[1]
            assert name in notice, f"{path.name} is not in assets/NOTICE.md"


def test_weights_are_safetensors():
    assert not [f for f in committed() if f.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl")]


def test_nothing_committed_names_a_path_of_some_machine():
    for path in committed():
        if path.suffix in (".py", ".md", ".txt", ".json", ".sh", ".css", ".toml") and path.name != Path(__file__).name:
            text = path.read_text()
            assert "/work/" not in text and "/root/" not in text, path


@pytest.mark.parametrize("card", PICTURES, ids=lambda c: c.name)
def test_an_embedded_model_draws(card):
    models.clear()
    recipe = {"task": "text_to_image", "model": card.name, "job": {"prompt": "a red apple", "seed": 0}, "arms": [{"method": "dpm", "knobs": {"steps": 6}}]}
    *_, last = run(recipe)
    assert isinstance(last.event, Outcome) and not last.event.error
    pixels = last.event.value.pixels.astype(float)
    assert pixels.shape == (card.side, card.side, 3) and pixels.std() > 5
    # A picture is smooth where noise is not: neighbouring pixels are alike.
    assert np.abs(np.diff(pixels, axis=1)).mean() < 0.5 * pixels.std()
    models.clear()


@pytest.mark.parametrize("card", TEXT, ids=lambda c: c.name)
def test_an_embedded_model_writes(card):
    models.clear()
    model, rng = models.load(card.name), np.random.default_rng(text.HELD_OUT_SEED)
    problems = [text.draw(rng, "sudoku", for_test=True, empty=4) for _ in range(10)]
    right = []
    for problem in problems:
        recipe = {"task": "write_text", "model": card.name, "job": {"prompt": problem.prompt, "length": 20}, "arms": [{"method": "dlm_survey"}]}
        *_, last = run(recipe)
        assert isinstance(last.event, Outcome) and not last.event.error
        right.append(text.check(problem.prompt, last.event.value.text))
    assert sum(right) >= 2 and model.context >= 128, "sudokus with four empty cells, none of which it has seen; at random 1 in 256"
    models.clear()


def test_the_papers_are_all_here():
    papers = json.loads((ROOT / "assets/papers.json").read_text())
    assert len({p["slug"] for p in papers}) == 79
    assert all(p["title"] and len(p["idea"]) < 400 for p in papers)
    slugs = {p["slug"] for p in papers}
    assert all(m.slug in slugs for m in METHODS.values() if m.paper)
