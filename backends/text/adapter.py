"""What a training changed, kept small: a change of low rank a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.lazy import torch

ROWS = ".rows"  # the first rows of a matrix, as they are to be

if TYPE_CHECKING:
    from torch import Tensor


def low_rank(net, rank: int) -> None:
    """Freeze a network and give each linear layer but the last a change of low rank to train (LoRA: Hu et al., arXiv 2106.09685), zero at first."""
    net.requires_grad_(False)
    for name, layer in net.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            wide = layer.weight.shape[1]
            layer.up = torch.nn.Parameter(layer.weight.new_zeros(len(layer.weight), rank))
            layer.down = torch.nn.Parameter(torch.randn_like(layer.weight[:rank]) / wide**0.5)
            layer.register_forward_hook(_changed)


def _changed(layer, args, out: Tensor) -> Tensor:
    return out + torch.nn.functional.linear(torch.nn.functional.linear(args[0], layer.down), layer.up)


def kept(net) -> dict[str, Tensor]:
    """name.up (out, rank) and name.down (rank, in), fp16, of each change that `low_rank` gave a network."""
    ends = {n: n.rsplit(".", 1) for n, _ in net.named_parameters()}
    return {f"{at}.weight.{end}": net.get_parameter(n).detach().half().contiguous() for n, (at, end) in ends.items() if end in ("up", "down")}


def apply(net, file: Path) -> None:
    """Add a kept change to a frozen network's weights."""
    from safetensors.torch import load_file

    weights, kept = dict(net.named_parameters()), load_file(file)
    for name, change in kept.items():
        if name.endswith(".up"):
            name, change = name.removesuffix(".up"), change.float() @ kept[name.removesuffix(".up") + ".down"].float()
        elif name.endswith(ROWS):
            name = name.removesuffix(ROWS)
            weights[name].data[: len(change)] = change.to(weights[name])
            continue
        elif name.endswith(".down"):
            continue
        weights[name].data += change.to(weights[name])
