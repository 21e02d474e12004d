"""A frozen TensorFlow.js graph run by torch, differentiable in its input: for networks that training alone needs."""

import base64
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F


class Graph(torch.nn.Module):
    """`file`: the .json of a graph model, its .bin beside it. Pictures go in as (B, 3, H, W); the last node comes out.

    Knows convolutions, plain and depthwise, with their fused biases and ReLUs, sums and products, Relu, Abs, and what ends in a vector of unit length.
    """

    def __init__(self, file: Path):
        super().__init__()
        model = json.loads(file.read_text())
        self.nodes = [n for n in model["modelTopology"]["node"] if n["op"] not in ("Const", "Placeholder")]
        self.input = next(n["name"] for n in model["modelTopology"]["node"] if n["op"] == "Placeholder")
        raw, at = file.with_suffix(".bin").read_bytes(), 0
        self.names = {}
        for entry in (w for group in model["weightsManifest"] for w in group["weights"]):
            size, dtype = int(np.prod(entry["shape"])), {"float32": "<f4", "int32": "<i4"}[entry["dtype"]]
            value = torch.from_numpy(np.frombuffer(raw, dtype, size, at).copy().reshape(entry["shape"]))
            at += 4 * size
            self.names[entry["name"]] = f"w{len(self.names)}"
            self.register_buffer(self.names[entry["name"]], value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = {self.input: x}

        def get(name: str) -> torch.Tensor:
            return seen[name] if name in seen else getattr(self, self.names[name])

        for node in self.nodes:
            args = [get(i.split(":")[0]) for i in node["input"] if not i.startswith("^")]
            seen[node["name"]] = out = self._run(node, *args)
        return out

    def _run(self, node: dict, *args: torch.Tensor) -> torch.Tensor:
        op = node["op"]
        if op in ("_FusedConv2D", "FusedDepthwiseConv2dNative"):
            return self._convolved(node, *args)
        if op in ("Add", "Sub", "Mul", "Maximum"):
            a, b = (v.view(1, -1, 1, 1) if v.ndim == 1 and len(v) > 1 else v for v in args)  # a number a channel
            return {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Maximum": torch.maximum}[op](a, b)
        if op == "Sum":
            return args[0].sum(1, keepdim=True)
        return {"Relu": F.relu, "Abs": torch.abs, "Square": torch.square, "Rsqrt": torch.rsqrt, "Squeeze": lambda v: v.flatten(1)}[op](args[0])

    @staticmethod
    def _convolved(node: dict, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        attributes = node["attr"]
        depthwise, stride = node["op"].startswith("FusedDepthwise"), int(attributes["strides"]["list"]["i"][1])
        if depthwise:
            weight = weight.transpose(0, 1)
        if base64.b64decode(attributes["padding"]["s"]) == b"SAME":
            pads = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(x.shape[:1:-1], weight.shape[:1:-1])]  # width, then height
            x = F.pad(x, (pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2))
        out = F.conv2d(x, weight, bias, stride, groups=x.shape[1] if depthwise else 1)
        return out.relu() if b"Relu" in [base64.b64decode(s) for s in attributes["fused_ops"]["list"]["s"]] else out
