"""When memory, disk, model files or the hub fail: the studio goes on, and a sentence says what happened and what to do."""

import dataclasses
import errno
import http.server
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_jobs import Source, asked, ended, until

from backends import METHODS, download, hub, jobs, models, recipe, run, runner
from backends.cards import HUB
from backends.registry import method
from backends.spec import BadInput, Image, Outcome, Result, Step
from backends.store import Store
from tests import checkpoints, fake_hub

RECIPE = {"task": "text_to_image", "job": {"prompt": "a cat", "seed": 3}}
CARDS = {card.name: card for card in HUB}


# --- memory ---


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000000000 bytes."),
        np.zeros,
        torch.zeros,
    ],
    ids=["python", "cuda", "cpu", "numpy itself", "torch itself"],
)
def test_a_method_that_finds_no_memory_says_so_and_the_next_arm_runs(tiny, failure):
    @method("hungry", task=METHODS["ddim"].task, paper=False)
    def hungry(job, model):
        """Hungry.

        Wants more than there is.
        """
        yield Step(1, 2)
        if callable(failure):
            failure(2**46 if failure is np.zeros else (2**30, 2**30))
        raise failure

    try:
        arms = [{"method": "hungry"}, {"method": "ddim", "knobs": {"steps": 1}}]
        short, fine = (e.event for e in run(RECIPE | {"arms": arms}) if isinstance(e.event, Outcome))
    finally:
        del METHODS["hungry"]
    assert "not enough memory" in short.error and "smaller" in short.error and short.value is None
    assert fine.value is not None and not fine.error and not runner._ACCELERATOR.locked()


def test_a_picture_that_can_not_be_drawn_after_stop_is_the_arms_error(tiny):
    @method("broken_end", task=METHODS["ddim"].task, paper=False)
    def broken_end(job, model):
        """Broken end.

        What it keeps can't be drawn.
        """

        def draw():
            raise MemoryError

        for i in range(1, 9):
            yield Step(i, 9, None, keep=draw)
        yield Result(Image(np.zeros((8, 8, 3), np.uint8)))

    try:
        *_, last = run(RECIPE | {"arms": [{"method": "broken_end"}]}, stop=iter([False, False, False, True, True]).__next__)
    finally:
        del METHODS["broken_end"]
    assert last.event.stopped and "not enough memory" in last.event.error


def test_a_model_for_which_there_is_no_memory_ends_the_run_with_a_sentence(tmp_path, monkeypatch):
    def load(card):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    studio, resolve = jobs.Executor(Store(tmp_path)), models.resolve
    models.clear()
    monkeypatch.setattr(models, "resolve", lambda path: load if path == models.get("emoji-ldm").loader else resolve(path))
    short = ended(studio.submit(asked(steps=1), {}, "me"))
    assert short.state == "failed" and "Emoji LDM" in short.error and "not enough memory" in short.error and "smaller" in short.error
    studio.close()


# --- disk ---


@pytest.fixture
def studio(tmp_path):
    source = Source(open_=True)
    made = jobs.Executor(Store(tmp_path), source)
    yield made
    made.close()


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_that_could_not_be_kept_says_so_and_one_after_it_is_kept_again(studio, monkeypatch):
    from ui import running

    with monkeypatch.context() as patch:
        patch.setattr(studio.store, "_write", full)
        lost = ended(studio.submit(asked(steps=1), {}, "me"))
        with studio.watch(lost) as feed:
            assert any(isinstance(e.event, Outcome) for e in feed), "who watches it has the result"
    assert lost.state == "done" and lost.unkept
    assert "could not be kept" in running.ending(lost) and "Download" in running.ending(lost)
    kept = ended(studio.submit(asked("after", 1), {}, "me"))
    assert not kept.unkept and "could not" not in running.ending(kept) and studio.store.events(kept.id)


def test_a_run_whose_inputs_found_no_room_is_kept_whole_once_there_is_room(studio, monkeypatch):
    write, fails = studio.store._write, [True]
    monkeypatch.setattr(studio.store, "_write", lambda name, what, value: full() if what == "inputs" and fails and fails.pop() else write(name, what, value))
    pictures = {"0" * 64: np.zeros((8, 8, 3), np.uint8)}
    run = jobs.Run("r", "me", recipe.whole(asked(steps=1))[1], pictures)
    studio._take(run, METHODS["ddim"].task, False)
    ended(run)
    assert not run.unkept and studio.store.get("r", "me").state == "done"
    assert np.array_equal(studio.store.inputs("r")["0" * 64], pictures["0" * 64]) and studio.store.events("r")


def test_a_run_that_was_never_kept_is_not_listed_and_says_so(studio, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(studio.store, "_write", lambda name, what, value: full() if what == "inputs" else None)
        lost = ended(studio.submit(asked("refuse", 1), {}, "me"))
    assert lost.unkept and studio.store.ended("me") == ([], 0)


def test_what_could_not_be_said_to_the_store_is_said_when_it_takes_it(studio, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.05)
    change = studio.store.change
    with monkeypatch.context() as patch:
        patch.setattr(studio.store, "change", lambda name, **values: full() if "ended" in values else change(name, **values))
        done = ended(studio.submit(asked(steps=1), {}, "me"))
        assert studio.store.get(done.id, "me").state == "running"
    until(lambda: studio.store.get(done.id, "me").state == "done")


def test_a_page_for_which_there_is_no_room_says_so(studio, monkeypatch):
    from test_history import ME, columns, rows_of
    from test_history import TASK as task

    from ui import results, running, visitor

    monkeypatch.setattr(jobs, "_studio", [studio])
    done = ended(studio.submit(asked(steps=1), {}, visitor.owner(ME)))
    monkeypatch.setattr(results, "final", full)
    *_, last = rows_of(running.watcher(task, done.id, columns(done)), ME)
    assert "disk is full" in last[0] and 'role="alert"' in last[0]


# --- model files ---


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def named_otherwise(path):
    save_file({f"other.{name}" if i % 2 else name: value for i, (name, value) in enumerate(load_file(path).items())}, path, {"format": "pt"})


def of_another_shape(path):
    save_file({name: torch.zeros(3, 5) if i == 0 else value for i, (name, value) in enumerate(load_file(path).items())}, path, {"format": "pt"})


HARMS = {"cut off": cut, "empty": lambda path: path.write_bytes(b""), "noise": lambda path: path.write_bytes(b"\xff" * 999),
         "other names": named_otherwise, "another shape": of_another_shape}  # fmt: skip


@pytest.fixture
def loaded(monkeypatch):
    """Loads a card whose files the test harmed, through the cache as a run does."""

    def load(card):
        monkeypatch.setitem(models.CARDS, card.name, card)
        models.clear()
        try:
            return models.load(card.name)
        finally:
            models.clear()

    return load


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_checkpoint_whose_file_is_not_whole_is_a_sentence(tmp_path, loaded, harm, part):
    checkpoints.write("sd-1.5", tmp_path)
    HARMS[harm](next((tmp_path / part).glob("*.safetensors")))
    with pytest.raises(BadInput, match="Stable Diffusion 1.5 can't be read .*load it again"):
        loaded(dataclasses.replace(CARDS["sd-1.5"], source=str(tmp_path), side=32, factor=2))


@pytest.mark.parametrize("harm", HARMS)
def test_an_embedded_model_whose_file_is_not_whole_is_a_sentence(tmp_path, monkeypatch, loaded, harm):
    from transformers import LlamaConfig, LlamaForCausalLM

    from backends import embedded

    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "text-mdm")
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    HARMS[harm](tmp_path / "text-mdm" / "model.safetensors")
    with pytest.raises(BadInput, match="Text MDM .*can't be read .*from the repository"):
        loaded(models.CARDS["text-mdm"])


def test_a_missing_package_is_no_broken_file(loaded, monkeypatch):
    with pytest.raises(BadInput, match=r"package is missing \(no_such_package\)"):
        loaded(dataclasses.replace(models.CARDS["text-mdm"], loader="no_such_package:load"))


# --- the hub ---


def test_a_servedthat_is_gone_in_the_middle_of_a_download_is_a_sentence_and_the_next_try_goes_on(monkeypatch, tmp_path):
    source = tmp_path / "there"
    checkpoints.write("sd-1.5", source)
    files = {str(f.relative_to(source)): f.read_bytes() for f in source.rglob("*") if f.is_file()}
    large, gone, sent = max(files, key=lambda name: len(files[name])), threading.Event(), []
    gone.set()

    def write(request, name, begin):
        if name == large and gone.is_set():
            request.wfile.write(files[name][begin : begin + 1000])
            request.wfile.flush()
            server.socket.close()  # nobody answers any more, and this line is cut
            request.connection.shutdown(2)
            return
        sent.append(name)
        request.wfile.write(files[name][begin:])

    served = fake_hub.handler(files, write)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    monkeypatch.setattr(server, "handle_error", lambda *_: None)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits between its tries
    card = dataclasses.replace(CARDS["sd-1.5"], source="a/b", revision=fake_hub.SHA, side=32, factor=2)
    with pytest.raises(BadInput, match="broke off|can't be reached") as said:
        hub.load(card)
    assert "try again" in str(said.value) and not download.progress
    gone.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert hub.load(card).net.config.sample_size == 16
    finally:
        server.shutdown()
    assert large in sent


def test_a_disk_that_fills_during_a_download_is_a_sentence():
    card = CARDS["sd-1.5"]
    assert "disk is full" in str(download.refusal(card, OSError(errno.ENOSPC, "No space left on device")))
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert "disk is full" in str(download.refusal(card, wrapped))
