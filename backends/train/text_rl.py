"""Reward training of the text model, long enough to keep: TraceRL's or MDPO's change of the weights as a small adapter.

    python -m backends.train.text_rl --minutes 15 --loss tracerl      # or mdpo

The same updates as the Reward training tab makes, in turn on sums, countdown and sudoku. Kept is the change's best approximation
of low rank (`backends/text/adapter.py`); what is said of it, before and after, is measured with that approximation. Starts from the
committed weights each time: an adapter belongs to the weights it was made from.
"""

import json

import torch
from safetensors.torch import save_file

from backends import models
from backends.embedded import TEXT
from backends.text import learning, mdpo, reinforce, tracerl
from backends.text.adapter import apply, difference
from backends.text.tasks import TrainText
from backends.train.common import Clock, arguments

PROBLEMS = ("sum", "countdown", "sudoku")
TESTED = 200
SETTINGS = {"tracerl": (1.0, 0.9), "mdpo": (0.4, 1.01)}  # temperature, threshold: the methods' own defaults


def measured(model) -> dict[str, float]:
    """Held-out problems answered rightly (%), by kind."""
    with torch.no_grad():
        return {p: round(100 * reinforce.accuracy(model, reinforce.problems(p, 1, TESTED, held_out=True), learning.LENGTHS[p]), 1) for p in PROBLEMS}


def main() -> None:
    args = arguments("text-rl", loss="tracerl", rate=3e-5, rank=16)
    model, out = models.load("text-mdm"), TEXT / f"{args.loss}.safetensors"
    temperature, threshold = SETTINGS[args.loss]
    lose = tracerl.trace_loss() if args.loss == "tracerl" else mdpo.step_loss(model)
    log, clock, i = {"before": measured(model)}, Clock(args.minutes), 0
    print(log, flush=True)
    with reinforce.trained_copy(model) as policy:
        optimiser = learning.adamw(policy, args.rate)
        while not clock.over:
            job = TrainText(PROBLEMS[i % 3], prompts=8, answers=8, seed=args.seed)
            with torch.no_grad():
                _, reward = learning.update(policy, optimiser, job, i, temperature, threshold, lose)
            i += 1
            if clock.every(60, "log"):
                print(f"{clock.seconds / 60:5.1f} min  {i} updates  {job.problem}: {float(reward.mean()):.2f} of the drawn answers right", flush=True)
        log |= {"updates": i, "after, in full": measured(policy)}
        save_file(difference(model.net, policy.net, args.rank), out)
    apply(model.net, out)
    log["after"] = measured(model)
    (TEXT / f"{args.loss}.json").write_text(json.dumps(log, indent=1) + "\n")
    print(json.dumps(log))


if __name__ == "__main__":
    main()
