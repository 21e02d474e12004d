"""Voicebanks that visitors bring: unpacked, checked, sung, let go, and what is refused."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from backends import TASKS, BadInput, archive, headless, inputs, models, recipe, run
from backends.audio import bank_drop
from backends.audio.onnx_runs import Process, finished
from backends.spec import Audio, Outcome
from tests.tiny_bank import HELD, TensorProto, bank, elsewhere, endless, helper, onnx, save, tiny, zipped
from ui import bring, form

SING = TASKS["sing"]
SCORE = "さ:A4:1 く:A4:1"


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    for zipped_ in list(bank_drop._kept):
        bank_drop.let_go(zipped_)
    assert not models.brought() and not any(bank_drop.folder("").glob("*")), "what was refused or let go leaves nothing"
    models.clear()


def take(*files, mine=None):
    """What the page's button does with the files, of which it deletes its copies."""
    copies = []
    for file in files:
        copy = file.parent / "uploaded" / file.name
        copy.parent.mkdir(exist_ok=True)
        copies.append(shutil.copy(file, copy))
    try:
        return bring.taken(SING, [str(c) for c in copies], mine or bring.Mine())
    finally:
        assert not any(Path(c).exists() for c in copies if Path(c).suffix in SING.brings.files)


def sung(name, slug="diffsinger"):
    job = {"task": "sing", "model": name, "job": {"score": SCORE, "seed": 1}, "arms": [{"method": slug}]}
    return next(e.event for e in run(job) if isinstance(e.event, Outcome))


def test_a_bank_is_brought_chosen_and_sung(tmp_path):
    mine, name, said = take(tiny(tmp_path))
    assert mine.names == (name,) and models.BROUGHT.fullmatch(name) and said.startswith("Tiny can sing") and "terms" in said
    end = sung(name)
    assert isinstance(end.value, Audio) and not end.error and end.recipe["model"] == name
    task, job, _ = recipe.parse(end.recipe)
    assert task is SING and job.model == name
    assert take(tmp_path / "Tiny.zip", mine=mine)[:2] == (mine, name), "the same zip is the same model"
    assert "own terms" in models.get(name).licence and "visitor" in models.get(name).about


def test_it_is_a_choice_for_its_visitor_alone(tmp_path):
    mine, name, _ = take(tiny(tmp_path))
    assert ("Voicebank Tiny", name) in form.cards(SING, mine.names)
    assert name not in dict(map(reversed, form.cards(SING))) and name not in models.CARDS and name not in str(headless.describe())
    with pytest.raises(BadInput) as other:
        models.get("nobody")
    assert name not in str(other.value)


def test_its_vocoder_may_come_later_before_or_with_it(tmp_path):
    file = tiny(tmp_path, mute=True)
    mine, name, said = take(file)
    assert not name and "brings no vocoder (nsf): bring the vocoder's zip too" in said and "UNNOISE" not in said and ";" not in said
    mine, name, _ = take(tmp_path / "nsf.zip", mine=mine)
    assert not sung(name).error
    first, none, said = take(tmp_path / "nsf.zip")
    assert not none and "nsf is a vocoder; it waits" in said
    assert take(file, mine=first)[1] == name == take(file, tmp_path / "nsf.zip")[1]


def test_a_refusal_leaves_what_was_there(tmp_path):
    mine, name, _ = take(tiny(tmp_path))
    with pytest.raises(BadInput, match="no whole zip"):
        take(_written(tmp_path / "text.zip", b"hello"), mine=mine)
    with pytest.raises(BadInput, match="two voicebanks"):
        take(tmp_path / "Tiny.zip", tiny(tmp_path, "Other"), mine=mine)
    kept = list(bank_drop._kept)
    with pytest.raises(BadInput, match="no whole zip"):
        take(tiny(tmp_path, "Third", config={"max_depth": 0.5}), tmp_path / "text.zip", mine=mine)
    with pytest.raises(BadInput, match="the log holds the details"):
        take(tiny(tmp_path, "Fourth", config={"speakers": 5}), mine=mine)
    assert list(bank_drop._kept) == kept and not sung(name).error


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _raw(path: Path, name: str, data) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data)
    return path


def _with(tmp_path, change) -> Path:
    folder = bank(tmp_path / "made")
    change(folder)
    return zipped(folder, tmp_path / "made.zip")


def _disguised(folder: Path) -> None:
    elsewhere(folder / "acoustic.onnx", "character.txt")
    (folder / "acoustic.onnx").rename(folder / "acoustic.txt")
    config = folder / "dsconfig.yaml"
    config.write_text(config.read_text().replace("acoustic.onnx", "acoustic.txt"))


def _custom(path: Path) -> None:
    graph = onnx.load(path)
    graph.graph.node.append(helper.make_node("Evil", ["f0"], ["seen"], domain="my.own"))
    graph.opset_import.append(helper.make_opsetid("my.own", 1))
    onnx.save(graph, path)


REFUSED = {
    "no whole zip file": lambda t: _written(t / "a.zip", b"hello"),
    "a is no whole zip file": lambda t: _written(t / "a.zip", tiny(t).read_bytes()[:-100]),
    "unpacks to more than is allowed": lambda t: _raw(t / "a.zip", "a.onnx", b"\0" * (archive.RATIO * 2**20)),
    "leads out of it": lambda t: _raw(t / "a.zip", "../../a.yaml", "x"),
    "no dsconfig.yaml with acoustic; it is no DiffSinger voicebank": lambda t: _raw(t / "a.zip", "a.txt", "x"),
    "no phoneme for u, o; Japanese can't be sung": lambda t: tiny(t, phonemes=[p for p in HELD if p not in "uo"]),
    "keeps its numbers in another file": lambda t: _with(t, lambda f: elsewhere(f / "acoustic.onnx", "character.txt")),
    "acoustic.txt keeps its numbers in another file": lambda t: _with(t, _disguised),
    "acoustic.onnx can't be read": lambda t: _with(t, lambda f: _custom(f / "acoustic.onnx")),
    "nsf.onnx can't be read": lambda t: _with(t, lambda f: (f / "dsvocoder" / "nsf.onnx").write_bytes(b"")),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_bank_is_refused_in_a_sentence(tmp_path, said):
    with pytest.raises(BadInput, match=said) as refused:
        take(REFUSED[said](tmp_path))
    assert str(refused.value).endswith(".") and str(tmp_path) not in str(refused.value)


def test_a_zip_larger_than_the_host_says_is_refused(tmp_path, monkeypatch):
    file = tiny(tmp_path)
    monkeypatch.setenv("UNNOISE_MAX_UPLOAD_MB", "1")
    with pytest.raises(BadInput, match=r"big.zip has 2 MB; up to 1 MB .*UNNOISE_MAX_UPLOAD_MB"):
        take(_written(tmp_path / "big.zip", b"0" * 2**21))
    monkeypatch.setenv("UNNOISE_MAX_UPLOAD_MB", "0")
    with pytest.raises(BadInput, match="takes no models"):
        take(file)
    monkeypatch.setenv("UNNOISE_MAX_UPLOAD_MB", "many")
    with pytest.raises(ValueError, match="whole number"):
        inputs.max_zip()
    monkeypatch.delenv("UNNOISE_MAX_UPLOAD_MB")
    with pytest.raises(BadInput, match="takes no models"):
        inputs.brought(TASKS["text_to_image"], [file])
    with pytest.raises(BadInput, match="these are 5"):
        inputs.brought(SING, [file] * 5)


def test_the_oldest_makes_room_and_its_recipe_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(bank_drop, "ZIPS", 1)
    _, name, _ = take(tiny(tmp_path))
    models.load(name)
    given = {"task": "sing", "model": name, "job": {"score": SCORE}, "arms": [{"method": "diffsinger"}]}
    recipe.parse(given)
    take(tiny(tmp_path, "Other", config={"max_depth": 0.5}))
    assert name not in models._cache and len(models.brought()) == 1
    with pytest.raises(BadInput, match=f"{name} is a model that a visitor brought and is not here .any more.; bring its zip again"):
        recipe.parse(given)
    assert "bring its zip again" in bring._missing(name) and not bring._missing("singer") and not bring._missing("")


# --- the process that networks run in --------------------------------------------------------------------


def test_a_network_that_takes_too_long_is_ended(tmp_path):
    process = Process("The bank", seconds=1.0)
    with pytest.raises(BadInput, match="more than the 1 s"):
        finished(process.worked(endless(tmp_path / "endless.onnx"), 0, {"x": np.zeros(1, np.float32)}))
    assert process.child.poll() is not None


def test_a_network_that_wants_too_much_memory_is_refused(tmp_path):
    F, I = TensorProto.FLOAT, TensorProto.INT64
    save(tmp_path / "large.onnx", [helper.make_node("ConstantOfShape", ["shape"], ["y"])], [("shape", I, [1])], [("y", F, ["n"])], [])
    process = Process("The bank", memory=4 * 2**30)
    with pytest.raises(BadInput, match="not enough memory"):
        finished(process.worked(tmp_path / "large.onnx", 0, {"shape": np.array([2 * 2**30])}))


def test_the_process_holds_none_of_the_studios_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    process = Process("The bank")
    process.taken(endless(tmp_path / "endless.onnx"))
    environment = Path(f"/proc/{process.child.pid}/environ")
    if not environment.exists():
        pytest.skip("no /proc here")
    assert b"secret" not in environment.read_bytes()


def test_a_process_that_died_is_a_sentence_and_begins_again(tmp_path):
    process = Process("The bank")
    work = process.worked(endless(tmp_path / "endless.onnx"), 0, {"x": np.zeros(1, np.float32)})
    next(work)
    process.child.kill()
    with pytest.raises(BadInput, match="ended the process it ran in"):
        finished(work)
    assert set(process.taken(tmp_path / "endless.onnx")) == {"x"}
