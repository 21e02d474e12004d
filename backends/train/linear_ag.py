"""Fit LinearAG's weights for the embedded model's default settings and store them beside it.

    python -m backends.train.linear_ag --prompts 200

To be run again whenever the model was trained on: weights of another state are not used.
"""

import argparse

import torch

from backends import models
from backends.image import linear_ag
from backends.image.sampling import SchedulerWalk


def main() -> None:
    parser = argparse.ArgumentParser(description="fit LinearAG's weights")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--scale", type=float, default=5.0)
    args = parser.parse_args()
    model = models.load("emoji-ldm")
    fitting = linear_ag.fit(model, lambda m, n: SchedulerWalk(m, n, "ddim"), args.steps, args.scale, "", args.prompts, chunk=20)
    with torch.no_grad():
        while True:
            try:
                step = next(fitting)
            except StopIteration as end:
                linear = end.value
                break
            print(f"\r{step.i}/{step.n - args.steps}", end="", flush=True)
    linear_ag.store(linear_ag.key(model, args.steps, args.scale, "ddim", ""), linear, model)
    print("\nunexplained share per step:", {i + 1: round(r, 4) for i, r in linear.residual.items()})


if __name__ == "__main__":
    main()
