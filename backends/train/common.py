"""What every training script shares: arguments, a clock, EMA, resuming, saving."""

import argparse
import contextlib
import copy
import functools
import itertools
import json
import time
from pathlib import Path

import torch

MODELS = Path(__file__).resolve().parents[2] / "assets" / "models"
RUNS = Path(__file__).resolve().parents[2] / "runs"  # optimiser states and caches; not committed


def arguments(name: str, **extra) -> argparse.Namespace:
    """`--minutes --device --out --seed --workers` and the script's own, given as name=default."""
    parser = argparse.ArgumentParser(description=f"train {name}; resumes from what is there")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=MODELS / name)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that make examples; worth it beside a GPU")
    for key, default in extra.items():
        kind = type(default) if not isinstance(default, bool) else (lambda s: s == "1")
        parser.add_argument("--" + key.replace("_", "-"), type=kind, default=default)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    return args


@functools.cache
def bf16_pays(device: str) -> bool:
    """Whether a bf16 convolution is faster than an fp32 one here; on a CPU it depends on the model (0.6× to 4×)."""
    if device != "cpu":
        return True
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        conv = torch.nn.Conv2d(192, 192, 3, padding=1, dtype=dtype).to(memory_format=torch.channels_last)
        x = torch.randn(32, 192, 8, 8, dtype=dtype).to(memory_format=torch.channels_last)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            with torch.enable_grad():
                conv(x).float().sum().backward()
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] < seconds[torch.float32]


def autocast(device: str):
    return torch.autocast(device, dtype=torch.bfloat16, enabled=bf16_pays(device))


class MuonAdamW:
    """Muon on the hidden layers' matrices, AdamW on the rest, at one learning rate.

    Muon orthogonalises the momentum of a matrix (Jordan 2024; the update's RMS matched to AdamW's as in
    Liu et al., arXiv 2502.16982). torch.optim.Muon does so in bf16 whatever the machine, and a CPU without bf16
    takes a minute a step for it; hence our own. A convolution's weights are seen as (out, in·h·w) views of the
    same memory; call after `.to(memory_format=…)`.
    """

    def __init__(self, net: torch.nn.Module, lr: float, first_and_last=("conv_in", "conv_out", "embed", "head", "codes")):
        self.views, rest = [], []
        for name, p in net.named_parameters():
            if not p.requires_grad:
                continue
            hidden = p.ndim in (2, 4) and min(p.shape[:2]) >= 32 and not any(part in name for part in first_and_last)
            view = self._flat(p.data) if hidden else None
            if hidden and view.data_ptr() == p.data_ptr():
                self.views.append((p, view))
            else:
                rest.append(p)
        self.adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=1e-3, fused=True)
        self.lr, self.momenta = lr, [torch.zeros_like(view) for _, view in self.views]
        self.alike: dict[torch.Size, list[int]] = {}  # matrices of a shape are made orthogonal together: on a GPU, launches are what a step costs
        for i, (_, view) in enumerate(self.views):
            self.alike.setdefault(view.shape, []).append(i)

    @staticmethod
    def _flat(w: torch.Tensor) -> torch.Tensor:
        return w.permute(0, 2, 3, 1).flatten(1) if w.ndim == 4 else w

    def rate(self, lr: float) -> None:
        self.lr = lr
        for group in self.adamw.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def step(self, momentum: float = 0.95, weight_decay: float = 1e-2) -> None:
        """Apply the gradients and clear them."""
        for shape, members in self.alike.items():
            views, momenta = [self.views[i][1] for i in members], [self.momenta[i] for i in members]
            gradients = [self._flat(self.views[i][0].grad) for i in members]
            torch._foreach_lerp_(momenta, gradients, 1 - momentum)
            updates = orthogonal(torch.stack(torch._foreach_lerp(gradients, momenta, momentum)))  # Nesterov's
            torch._foreach_mul_(views, 1 - self.lr * weight_decay)
            torch._foreach_add_(views, list(updates), alpha=-self.lr * 0.2 * max(shape) ** 0.5)
            for i in members:
                self.views[i][0].grad = None
        self.adamw.step(), self.adamw.zero_grad()

    def state_dict(self) -> dict:
        return {"adamw": self.adamw.state_dict(), "momenta": self.momenta}

    def load_state_dict(self, state: dict) -> None:
        self.adamw.load_state_dict(state["adamw"])
        for mine, saved in zip(self.momenta, state["momenta"], strict=True):
            mine.copy_(saved)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Matrices (…, m, n) with their singular values brought near 1: Jordan's quintic Newton–Schulz iteration (0.7 to 1.2 is near enough)."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(torch.bfloat16 if bf16_pays(matrix.device.type) else torch.float32)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x if wide else x.mT).to(matrix.dtype)


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


class _Numbered(torch.utils.data.IterableDataset):
    def __init__(self, make):
        self.make = make

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        return map(self.make, itertools.count(worker.id, worker.num_workers) if worker else itertools.count())


def stream(make, workers: int):
    """make(0), make(1), … in order: arrays or tensors, made ahead by `workers` processes beside the training, or when asked for by none."""
    return iter(torch.utils.data.DataLoader(_Numbered(make), batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None))


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


def noise_like(x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Standard normal noise, the same on every device."""
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)


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
