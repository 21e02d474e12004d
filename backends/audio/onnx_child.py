"""Run as a script: a process that reads and runs ONNX files for onnx_runs.py, knows nothing of the studio and can be ended at any moment.

A message either way is its header's length (8 bytes, little-endian), the header as JSON, and the bytes of the arrays that the header names:
bytes and numbers, nothing that could be executed, since a bank may come from anyone.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time

import numpy as np

HEADER, BYTES = 2**20, 2**28  # most of a message's header and of its arrays
KINDS = "biuf"  # of numbers: what arrays may hold
QUIET = 4  # errors come as exceptions


def send(pipe, said: dict, arrays: dict[str, np.ndarray] | None = None) -> None:
    """Write a message; raises ValueError for arrays of something else than numbers, or larger than BYTES together."""
    arrays = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in (arrays or {}).items()}
    if any(a.dtype.kind not in KINDS for a in arrays.values()) or sum(a.nbytes for a in arrays.values()) > BYTES:
        raise ValueError("arrays that are no numbers, or too many")
    header = json.dumps(said | {"arrays": [(name, a.dtype.str, a.shape) for name, a in arrays.items()]}).encode()
    pipe.write(len(header).to_bytes(8, "little") + header)
    for a in arrays.values():
        pipe.write(a.tobytes())
    pipe.flush()


def receive(pipe) -> tuple[dict, dict[str, np.ndarray]]:
    """The next message and its arrays. Raises EOFError where the other side is gone, ValueError where what it says is not to be believed."""
    length = int.from_bytes(_exactly(pipe, 8), "little")
    if length > HEADER:
        raise ValueError("a header too long")
    said, arrays, left = json.loads(_exactly(pipe, length)), {}, BYTES
    for name, kind, shape in said.pop("arrays"):
        kind, shape = np.dtype(kind), tuple(int(n) for n in shape)
        size = kind.itemsize * math.prod(shape)
        if kind.kind not in KINDS or min(shape, default=0) < 0 or size > left:
            raise ValueError("arrays that are no numbers, or too many")
        left -= size
        arrays[str(name)] = np.frombuffer(_exactly(pipe, size), kind).reshape(shape)
    return said, arrays


def _exactly(pipe, size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError("the other side is gone")
    return data


def opened(path: str, seed: int):
    """A new session: onnxruntime draws noise from a state that it takes from the seed when a session begins, and keeps."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET
    onnxruntime.set_seed(seed)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(asked: dict, feeds: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """Asked with a path and a seed: what the file's network is fed; with `run`, what it makes of the feeds and the seconds that took."""
    session = opened(asked["path"], asked["seed"])
    if not asked["run"]:
        return {"inputs": [(i.name, i.type, len(i.shape)) for i in session.get_inputs()]}, {}
    began = time.perf_counter()
    made = session.run(None, feeds)
    seconds = time.perf_counter() - began
    return {"seconds": seconds}, {o.name: np.asarray(value) for o, value in zip(session.get_outputs(), made)}


def bound(memory: int) -> None:
    """Take at most `memory` bytes of addresses (0: any), and be the first to go where the machine has none left."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # not Linux
        pass
    if memory:
        try:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        except (ImportError, ValueError, OSError):  # Windows, macOS
            pass


def main(memory: int) -> None:
    """Answer until the studio closes the pipe."""
    inlet, outlet = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    bound(memory)
    while True:
        try:
            asked, feeds = receive(inlet)
        except EOFError:
            return
        try:
            said, arrays = answer(asked, feeds)
            send(outlet, said, arrays)
        except Exception as error:  # onnxruntime's own classes, one for each way a file can be wrong
            send(outlet, {"error": type(error).__name__, "text": str(error)[:2000]})


if __name__ == "__main__":
    main(int(sys.argv[1]))
