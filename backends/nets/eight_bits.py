"""Weights in eight bits: half of fp16's bytes for networks that are evaluated a few times and forgive an error of a percent.

A matrix or kernel is kept as int8 with a scale for each output channel, everything else in fp16.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FILE, SCALE = "weights8.safetensors", ".scale"


def packed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` with matrices as int8 beside scales; a weight comes back within half of its channel's largest / 127."""
    out = {}
    for name, w in state.items():
        w = w.detach().float().cpu()
        if w.ndim < 2 or w.numel() < 1024:
            out[name] = w.half().contiguous()
            continue
        scale = (w.flatten(1).abs().amax(1) / 127).clamp_min(1e-7).half().float()  # as it will be read
        rows = scale.view(-1, *[1] * (w.ndim - 1))
        out[name] = (w / rows).round().clamp(-127, 127).to(torch.int8).contiguous()
        out[name + SCALE] = scale.half()
    return out


def unpacked(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """fp32 weights of what `packed` gave."""
    out = {}
    for name, w in state.items():
        if name.endswith(SCALE):
            continue
        scale = state.get(name + SCALE)
        out[name] = w.float() if scale is None else w.float() * scale.float().view(-1, *[1] * (w.ndim - 1))
    return out


def save(net, out: Path) -> None:
    """Write `config.json` and the weights of a diffusers model."""
    out.mkdir(parents=True, exist_ok=True)
    net.save_config(out)
    save_file(packed(net.state_dict()), out / FILE)


def load(kind, folder: Path):
    """A diffusers model of class `kind` as `save` wrote it, fp32."""
    net = kind.from_config(kind.load_config(folder))
    net.load_state_dict(unpacked(load_file(folder / FILE)))
    return net
