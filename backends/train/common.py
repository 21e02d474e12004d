"""What every training script shares: arguments, a clock, EMA, resuming, saving."""

import argparse
import contextlib
import copy
import json
import time
from pathlib import Path

import torch

MODELS = Path(__file__).resolve().parents[2] / "assets" / "models"
RUNS = Path(__file__).resolve().parents[2] / "runs"  # optimiser states and caches; not committed


def arguments(name: str, **extra) -> argparse.Namespace:
    """`--minutes --device --out --seed --batch` and the script's own, given as name=default."""
    parser = argparse.ArgumentParser(description=f"train {name}; resumes from what is there")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=MODELS / name)
    parser.add_argument("--seed", type=int, default=0)
    for key, default in extra.items():
        kind = type(default) if not isinstance(default, bool) else (lambda s: s == "1")
        parser.add_argument("--" + key.replace("_", "-"), type=kind, default=default)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    return args


def autocast(device: str):
    return torch.autocast(device, dtype=torch.bfloat16)


class Clock:
    """Minutes spent; `over` when the budget is used; `every(seconds)` is true once a period."""

    def __init__(self, minutes: float):
        self.start, self.budget, self.marks = time.monotonic(), minutes * 60, {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def over(self) -> bool:
        return self.seconds >= self.budget

    @property
    def left(self) -> float:
        return max(0.0, self.budget - self.seconds)

    def every(self, seconds: float, key: str = "") -> bool:
        if self.seconds - self.marks.get(key, 0.0) < seconds:
            return False
        self.marks[key] = self.seconds
        return True


class Ema:
    """Exponential moving average of a network's weights, warmed up as min(decay, (1+n)/(10+n))."""

    def __init__(self, net: torch.nn.Module, decay: float = 0.999):
        self.net, self.decay, self.updates = copy.deepcopy(net).eval().requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, net: torch.nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = list(self.net.parameters()), list(net.parameters())
        torch._foreach_mul_(mine, decay)
        torch._foreach_add_(mine, theirs, alpha=1 - decay)


def save_state(path: Path, **parts) -> None:
    """Write optimiser, EMA and counters beside the weights, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save({k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in parts.items()}, temporary)
    temporary.replace(path)


def load_state(path: Path) -> dict | None:
    with contextlib.suppress(FileNotFoundError):
        return torch.load(path, map_location="cpu", weights_only=True)
    return None


def save_pretrained(net: torch.nn.Module, out: Path) -> None:
    """fp16 safetensors in shards under 9.5 MB, as a Space without LFS accepts."""
    half = copy.deepcopy(net).half()
    half.save_pretrained(out, max_shard_size="9MB", safe_serialization=True)
    config = json.loads((out / "config.json").read_text())
    config.pop("_name_or_path", None)  # a path of this machine
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
