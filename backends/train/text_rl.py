"""Reward training of the text model, long enough to keep: each arm's change of the weights as a small adapter.

    python -m backends.train.text_rl --minutes 5                          # on a GPU; one more seed: --seed 1

The updates of the Reward training tab on larger batches, in turn on countdowns and sums. All arms start from the committed weights and
take turns, so that they have had as many updates, problems and answers whenever the time is up. TraceRL and random masks learn
from draws at temperature 1, MDPO and rewards at the end from few-step decoding, a quarter and half as many steps as tokens. Kept are
assets/models/text-rl/ARM-SEED.safetensors, of low rank, and beside it what was measured before and after on held-out problems.
"""

import copy
import json

import torch
from safetensors.torch import save_file

from backends import models
from backends.text import learning, mdpo, random_masks, reinforce, tracerl
from backends.text.adapter import apply, kept
from backends.text.tasks import TrainText
from backends.text.tracerl import RATE
from backends.train.common import Clock, arguments
from backends.worlds import text

TRAINED = ("countdown", "sum")
DRAWN, FEW = dict(temperature=1.0, threshold=0.9), dict(temperature=0.4, threshold=2.0)
ARMS = {  # name -> (how answers are decoded, the loss around a model)
    "tracerl": (DRAWN, lambda model: tracerl.trace_loss()),
    "random": (DRAWN, lambda model: random_masks.random_loss),
    "mdpo": (FEW, mdpo.step_loss),
    "end": (FEW, lambda model: mdpo.step_loss(model, rewarded="the end")),
}


def decoders(length: int) -> dict[str, dict]:
    """What is measured: how `roll_out` decodes."""
    return {
        "drawn": DRAWN, "sure": dict(temperature=0.0, threshold=0.9), "quarter": dict(temperature=0.0, threshold=2.0, per_step=length // 4),
        "half": dict(temperature=0.0, threshold=2.0, per_step=2), "one a step": dict(temperature=0.0, threshold=2.0),
    }  # fmt: skip


@torch.no_grad()
def measured(model, n: int, seed: int = 1) -> dict[str, dict[str, float]]:
    """Held-out problems answered rightly (%), by kind and decoder; sudokus are not trained on."""
    found = {}
    for kind in (*TRAINED, "sudoku"):
        length, some = text.LENGTHS[kind], reinforce.problems(kind, seed, n, held_out=True)
        made = {name: reinforce.roll_out(model, some, 1, length, **how) for name, how in decoders(length).items()}
        found[kind] = {name: round(100 * float(reinforce.rewards(model, some, m).mean()), 1) for name, m in made.items()}
    return found


class Arm:
    """One way of training, its policy and the curve of its draws' rewards."""

    def __init__(self, name: str, model, args):
        self.decoding, loss = ARMS[name]
        self.lose, self.curve, self.seconds = loss(model), {kind: [] for kind in TRAINED}, 0.0
        with reinforce.trained_copy(model, args.rank) as self.policy:
            self.optimiser = learning.adamw(self.policy, args.rate)

    def step(self, i: int, args) -> None:
        kinds, clock = args.kinds.split(","), Clock(0)
        kind = kinds[i % len(kinds)]
        length = text.LENGTHS[kind]
        few = {"per_step": (length // 4, 2)[i // len(kinds) % 2]} if self.decoding is FEW else {}
        job = TrainText(problem=kind, prompts=args.prompts, answers=args.answers, seed=100_000 * args.seed)
        _, reward = learning.update(self.policy, self.optimiser, job, i, self.lose, **self.decoding, **few)
        self.curve[kind].append(round(float(reward.mean()), 3))
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # else the next arm waits for this one's work
        self.seconds += clock.seconds


def main() -> None:
    args = arguments("text-rl", arms=",".join(ARMS), updates=10_000, rate=RATE, rank=learning.RANK, kinds=",".join(TRAINED), prompts=64, answers=16, tested=512)
    torch.backends.cuda.matmul.allow_tf32 = True  # bf16 would round the logits that are drawn from
    model, clock = models.load("text-mdm"), Clock(args.minutes)
    before = measured(model, args.tested)
    print(f"{clock.seconds:.0f} s, before: {before}", flush=True)
    arms, i = {name: Arm(name, model, args) for name in args.arms.split(",")}, 0
    while not clock.over and i < args.updates:
        for arm in arms.values():
            arm.step(i, args)
        i += 1
        if clock.every(5, "log") or i == 1:
            print(
                f"{clock.seconds:.0f} s, {i} updates:",
                *(f"{name} {' '.join(f'{v[-1]:.2f}' for v in arm.curve.values() if v)}" for name, arm in arms.items()),
                flush=True,
            )
    args.out.mkdir(parents=True, exist_ok=True)
    for name, arm in arms.items():
        file = args.out / f"{name}-{args.seed}.safetensors"
        save_file(kept(arm.policy.net), file)
        changed = copy.copy(model)
        changed.net = copy.deepcopy(model.net)
        apply(changed.net, file)
        log = dict(updates=i, problems=args.prompts, answers=args.answers, rate=args.rate, rank=args.rank, seconds=round(arm.seconds, 1), device=str(model.device), before=before,
                   after=measured(changed, args.tested), curve=arm.curve)  # fmt: skip
        file.with_suffix(".json").write_text(json.dumps(log) + "\n")
        print(name, log["after"], f"{arm.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
