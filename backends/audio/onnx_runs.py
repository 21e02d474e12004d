"""Networks in onnxruntime's sessions: made anew for a seed, given what they declare, run so that Stop is heard."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends.spec import BadInput, Step

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
         "tensor(bool)": np.bool_}  # fmt: skip
QUIET = 4  # errors come as exceptions, and a stopped run is none
log = logging.getLogger(__name__)


def session(path: Path, seed: int, what: str):
    """The network, new for each use: onnxruntime draws noise from a state that it takes from the seed when a session begins, and keeps."""
    try:
        import onnxruntime
    except ImportError:
        raise BadInput("onnxruntime is not installed, which voicebanks run on: pip install onnxruntime==1.32.0.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    onnxruntime.set_seed(seed)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes, one for each way a file can be wrong
        log.exception("%s can't be read", path.name)
        raise BadInput(f"{what}: {path.name} can't be read ({type(error).__name__}); it must be a whole ONNX file.") from None


class Input(NamedTuple):
    type: type
    rank: int


def taken(inner) -> dict[str, Input]:
    """The inputs that a session declares."""
    return {i.name: Input(TYPES.get(i.type, np.float32), len(i.shape)) for i in inner.get_inputs()}


def cast(inputs: dict[str, Input], values: dict) -> dict[str, np.ndarray]:
    """The values that a session declares, in its types; single ones in its rank; a function is asked with what it declares. Raises BadInput where one is not there."""
    if missing := [name for name in inputs if values.get(name) is None]:
        raise BadInput(f"The voicebank asks for {', '.join(missing)[:80]}, which is not known here; choose a bank exported for OpenUtau.")
    values = {name: values[name](inputs) if callable(values[name]) else values[name] for name in inputs}
    given = {name: np.asarray(values[name], i.type) for name, i in inputs.items()}
    return {name: a.reshape([1] * inputs[name].rank) if a.ndim == 0 else a for name, a in given.items()}


def worked(inner, feeds: dict[str, np.ndarray]) -> Iterator[None]:
    """Generator: returns (the session's outputs by name, the seconds it took); yields None meanwhile, so that Stop is heard, and ends the work when closed."""
    import onnxruntime

    options, box = onnxruntime.RunOptions(), []
    options.log_severity_level = QUIET

    def work():
        began = time.perf_counter()
        try:
            made = inner.run(None, feeds, options)
            box.append((dict(zip([o.name for o in inner.get_outputs()], made)), time.perf_counter() - began))
        except Exception as error:
            box.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
            if thread.is_alive():
                yield None
    finally:
        options.terminate = True
        thread.join()
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]


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
