"""LinearAG's weights: each unconditional prediction as a linear combination of predictions made before it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import OrderedDict
from dataclasses import asdict, dataclass

import numpy as np

from backends.denoiser import together
from backends.image.sampling import Guided, denoise
from backends.lazy import torch
from backends.models import ASSETS
from backends.spec import Plot, Step
from backends.worlds import emoji

LIVE_PROMPTS = 8  # 16,000 equations on the embedded model for at most 25 unknowns
FILE = "linear_ag.json"  # beside the weights of an embedded model
_fitted: OrderedDict[tuple, Linear] = OrderedDict()


@dataclass(frozen=True)
class Linear:
    """`weights[i]`: of x0_c(0…i), then of x0_u at the guided steps before i; `residual[i]`: share unexplained."""

    weights: dict[int, list[float]]
    residual: dict[int, float]
    prompts: int


def guided(i: int, n: int) -> bool:
    """In the first half every other step is truly guided, the others by estimate; the second half not at all."""
    return 2 * i < n and i % 2 == 0


class LinearGuide(Guided):
    """Alternates guidance by two evaluations and by one and an estimate; later evaluates the condition alone."""

    def __init__(self, scale: float, linear: Linear):
        super().__init__(scale)
        self.linear, self.conditional, self.unconditional, self.half = linear, [], [], 0

    def __call__(self, evaluate, cond, uncond, i, n):
        if 2 * i >= n:
            return evaluate(cond)[0]
        self.half = i + 1
        if guided(i, n):
            u, c = evaluate(uncond, cond)
            self.unconditional.append(u)
        else:
            c = evaluate(cond)[0]
        self.conditional.append(c)
        if not guided(i, n):
            u = sum(w * x0 for w, x0 in zip(self.linear.weights[i], [*self.conditional, *self.unconditional], strict=True))
        return self.mix(u, c)

    def aside(self):
        xs = [i for i in self.linear.residual if i < self.half]
        return (
            Plot(
                {"unexplained share of x0 without prompt": ([x + 1.0 for x in xs], [self.linear.residual[x] for x in xs])},
                y="fit residual",
                marks={"condition alone": float(self.half)},
            ),
        )


class Recorder(Guided):
    """Plain guidance that keeps what it sees."""

    def __init__(self, scale: float):
        super().__init__(scale)
        self.seen = []  # (x0_c, x0_u) of each step, (B, ·)

    def __call__(self, evaluate, cond, uncond, i, n):
        u, c = evaluate(uncond, cond)
        self.seen.append((c.flatten(1), u.flatten(1)))
        return self.mix(u, c)


def fit(model, make_walk, steps: int, scale: float, negative: str, prompts: int, chunk: int = 8):
    """Fit on guided runs over captions of the emoji world; yields Steps of what it and a run take, and returns a Linear."""
    rng = np.random.default_rng(12487)
    texts = [emoji.caption(emoji.sample(rng), rng) for _ in range(prompts)]
    half = sum(2 * i < steps for i in range(steps))
    runs, done, total = [], 0, half * -(-prompts // chunk)
    for start in range(0, prompts, chunk):
        part, recorder = texts[start : start + chunk], Recorder(scale)
        walk = make_walk(model, steps)
        cond, uncond = together(model.encode(*part)), model.encode(negative)[0]
        states = denoise(model, cond, uncond, model.noise(start, len(part)), walk, recorder)
        for _ in range(half):
            next(states)
            done += 1
            yield Step(done, total + steps)  # no picture: these are other prompts
        states.close()
        runs.append(recorder.seen)
    columns = [[torch.cat([run[i][k] for run in runs]).flatten().double() for i in range(half)] for k in (0, 1)]
    return solve(*columns, prompts)


def solve(conditional: list, unconditional: list, prompts: int = 0) -> Linear:
    """Least squares for each estimated step of the first half; a small ridge, as neighbours are nearly collinear."""
    weights, residual, n = {}, {}, 2 * len(conditional)
    for i, target in enumerate(unconditional):
        if guided(i, n):
            continue
        columns = torch.stack([*conditional[: i + 1], *(unconditional[j] for j in range(i) if guided(j, n))], 1)
        gram = columns.T @ columns
        ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        found = torch.linalg.solve(gram + ridge, columns.T @ target)
        weights[i] = found.tolist()
        residual[i] = float((target - columns @ found).square().sum() / (target - target.mean()).square().sum())
    return Linear(weights, residual, prompts)


def fingerprint(model) -> str:
    """Changes when the network is trained on: weights fitted for another state of it are not used."""
    ends = [p for name, p in model.net.named_parameters() if name.startswith(("conv_in", "conv_out", "x_embedder", "proj_out", "pos_embed"))]
    ends = ends or list(model.net.parameters())[:2]
    return hashlib.sha256(b"".join(p.detach().float().cpu().numpy().tobytes() for p in ends)).hexdigest()[:16]


def key(model, steps, scale, walk: str, negative: str) -> tuple:
    return fingerprint(model), steps, round(scale, 3), walk, negative


def known(wanted: tuple, model) -> Linear | None:
    """Weights fitted before: in this process, or by the script for the embedded model's default settings."""
    if wanted in _fitted:
        _fitted.move_to_end(wanted)
        return _fitted[wanted]
    return _stored(ASSETS / model.card.source / FILE).get(wanted) if model.card.embedded else None


def remember(wanted: tuple, linear: Linear) -> None:
    _fitted[wanted] = linear
    while len(_fitted) > 32:
        _fitted.popitem(last=False)


@functools.cache
def _stored(path) -> dict[tuple, Linear]:
    if not path.exists():
        return {}
    entry = json.loads(path.read_text())
    linear = {name: {int(i): v for i, v in entry["linear"][name].items()} for name in ("weights", "residual")}
    return {tuple(entry["key"]): Linear(**linear, prompts=entry["linear"]["prompts"])}


def store(wanted: tuple, linear: Linear, model) -> None:
    path = ASSETS / model.card.source / FILE
    path.write_text(json.dumps({"key": wanted, "linear": asdict(linear)}, indent=1) + "\n")
    _stored.cache_clear()
