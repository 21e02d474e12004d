"""What runs leave, as bytes and back: the dataclasses of spec.py with the arrays in them, bit for bit, without pickles.

One path for every medium: an npz of the arrays and of one JSON text that says where each belongs. A medium that spec.py gains needs nothing here.
"""

import dataclasses
import io
import json

import numpy as np

from backends import spec

KIND = "$"  # marks an object of the JSON that stands for something else


def pack(value) -> bytes:
    """Raises TypeError for what has no place in a file, such as a function."""
    arrays: dict[str, np.ndarray] = {}

    def array(value: np.ndarray) -> str:
        arrays[name := f"a{len(arrays)}"] = value
        return name

    def plain(value):
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, np.ndarray) and value.dtype != object:
            return {KIND: "array", "of": array(value)}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, bytes):
            return {KIND: "bytes", "of": array(np.frombuffer(value, np.uint8))}
        if dataclasses.is_dataclass(value) and getattr(spec, type(value).__name__, None) is type(value):
            return {KIND: type(value).__name__, "of": {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
        if isinstance(value, tuple):
            return {KIND: "tuple", "of": [plain(v) for v in value]}
        if isinstance(value, list):
            return [plain(v) for v in value]
        if isinstance(value, dict) and all(isinstance(k, str) for k in value) and KIND not in value:
            return {k: plain(v) for k, v in value.items()}
        raise TypeError(f"{type(value).__name__} can't be kept")

    said = json.dumps(plain(value), ensure_ascii=False)
    out = io.BytesIO()
    np.savez_compressed(out, said=np.frombuffer(said.encode(), np.uint8), **arrays)
    return out.getvalue()


def unpack(data: bytes):
    """What `pack` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:

        def whole(value):
            if isinstance(value, list):
                return [whole(v) for v in value]
            if not isinstance(value, dict):
                return value
            if KIND not in value:
                return {k: whole(v) for k, v in value.items()}
            kind, of = value[KIND], value["of"]
            if kind == "array":
                return arrays[of]
            if kind == "bytes":
                return arrays[of].tobytes()
            return tuple(map(whole, of)) if kind == "tuple" else getattr(spec, kind)(**whole(of))

        return whole(json.loads(arrays["said"].tobytes()))
