"""ONNX files run in a process of their own (onnx_child.py), so that Stop ends even a network that is one endless step, and a file made to do harm
reaches neither the studio's memory nor its secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends.audio import onnx_child
from backends.spec import BadInput, Step

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
         "tensor(bool)": np.bool_}  # fmt: skip
PASSED = ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TMPDIR", "SYSTEMROOT")  # of the environment, which may hold secrets
log = logging.getLogger(__name__)


class Input(NamedTuple):
    type: type
    rank: int


class Process:
    """The process that runs a model's files, started when it is first asked. `memory`: bytes of addresses it may take, 0 for any; `seconds`: how
    long one `round` may keep it busy."""

    def __init__(self, what: str, memory: int = 0, seconds: float = float("inf")):
        self.what, self.memory, self.seconds, self.until, self.child = what, memory, seconds, float("inf"), None
        self.round()

    def round(self) -> None:
        """The time that is allowed begins anew."""
        self.until = time.monotonic() + self.seconds

    def _started(self) -> subprocess.Popen:
        if self.child is None or self.child.poll() is not None:
            if self.child:
                end(self.child)
            environment = {key: os.environ[key] for key in PASSED if key in os.environ}
            command = [sys.executable, "-I", onnx_child.__file__, str(self.memory)]
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
            weakref.finalize(self, end, self.child)
        return self.child

    def asked(self, path: Path, seed: int, feeds: dict[str, np.ndarray] | None = None):
        """Generator: yields None while the process works, ends it when closed; returns (what it says, its arrays). Raises BadInput."""
        child, box = self._started(), []

        def work():
            try:
                onnx_child.send(child.stdin, {"path": str(path), "seed": seed, "run": feeds is not None}, feeds)
                box.append(onnx_child.receive(child.stdout))
            except Exception as error:  # it ended, or says what can't be read
                box.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.2)
                if thread.is_alive() and time.monotonic() > self.until:
                    raise BadInput(f"{self.what} took more than the {self.seconds:.0f} s that a bank brought here has; choose fewer steps or a shorter song.")
                if thread.is_alive():
                    yield None
        finally:
            if thread.is_alive():
                end(child)
                thread.join()
        if isinstance(box[0], Exception):
            end(child)
            log.error("the process of %s ended at %s", self.what, path.name, exc_info=box[0])
            raise BadInput(f"{self.what}: {path.name} ended the process it ran in; it may want more memory than there is.")
        said, arrays = box[0]
        if error := said.get("error"):
            log.error("%s: %s: %s: %s", self.what, path.name, error, said.get("text"))
            raise BadInput(self._refusal(path, error, str(said.get("text")), feeds is not None))
        return said, arrays

    def _refusal(self, path: Path, error: str, text: str, ran: bool) -> str:
        if error == "ModuleNotFoundError":
            return "onnxruntime is not installed, which voicebanks run on: pip install onnxruntime==1.32.0."
        if error == "MemoryError" or "alloc" in text:
            return f"There is not enough memory for {self.what}; choose a shorter song."
        if ran:
            return f"{self.what}: {path.name} failed as it ran ({error}); its files don't fit together."
        return f"{self.what}: {path.name} can't be read ({error}); it must be a whole ONNX file."

    def taken(self, path: Path) -> dict[str, Input]:
        """The inputs that a file's network declares; raises BadInput where it is none."""
        said, _ = finished(self.asked(path, 0))
        return {name: Input(TYPES.get(kind, np.float32), rank) for name, kind, rank in said["inputs"]}

    def worked(self, path: Path, seed: int, feeds: dict[str, np.ndarray]):
        """Generator like `asked`; returns (the network's outputs by name, the seconds it ran), its noise drawn from the seed."""
        said, made = yield from self.asked(path, seed, feeds)
        return made, float(said["seconds"])


def end(child: subprocess.Popen) -> None:
    """Kill the process, which holds nothing that would be lost, and close its pipes."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):  # what it was not there to read any more
            pipe.close()


def cast(inputs: dict[str, Input], values: dict) -> dict[str, np.ndarray]:
    """The values that a network declares, in its types; single ones in its rank; a function is asked with what it declares. Raises BadInput where one is not there."""
    if missing := [name for name in inputs if values.get(name) is None]:
        raise BadInput(f"The voicebank asks for {', '.join(missing)[:80]}, which is not known here; choose a bank exported for OpenUtau.")
    values = {name: values[name](inputs) if callable(values[name]) else values[name] for name in inputs}
    given = {name: np.asarray(values[name], i.type) for name, i in inputs.items()}
    return {name: a.reshape([1] * inputs[name].rank) if a.ndim == 0 else a for name, a in given.items()}


def during(work: Iterator[None], step: Step):
    """Generator: repeats the step while the work goes on; returns what the work returns."""
    try:
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value
            yield step
    finally:
        work.close()


def finished(work: Iterator[None]):
    """What the work returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
