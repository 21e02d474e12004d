"""Train the layer that ED-NeRF's captures begin with: latents as a field renders them become the autoencoder's.

    python -m backends.train.objects_refine --minutes 20      # of four minutes three capture things, until there are `--things`

Each thing of the object world is captured without a layer, for 80 or 160 steps; its 24 views are pairs of what the field renders and what the
autoencoder says. Things of pairs that are kept from training (worlds/objects.held_out) are not among them.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from backends import models
from backends.scene.capturing import posed
from backends.scene.latent_field import encoded, fit, refinement
from backends.train.common import RUNS, Clock, arguments, autocast
from backends.train.loop import seed_of, train
from backends.worlds import objects
from backends.worlds.faces_build import sheet

PAIRS, TESTED = RUNS / "objects" / "captures.safetensors", 8
STEPS = (80, 160)


@torch.no_grad()
def captured(model, thing: objects.Thing, steps: int, seed: int) -> torch.Tensor:
    """(2, views, C, h, w): latents as rendered and as encoded."""
    views, cameras = posed(objects.mesh(thing), size=model.side)
    z, _ = known = encoded(model, views)
    *_, (field, _) = fit(model, views, cameras, 40, steps, seed, False, known=known)
    return torch.stack([torch.cat([field.latents([camera])[0] for camera in cameras]), z])


def pairs(model, minutes: float, things: int, seed: int) -> torch.Tensor:
    """(things, 2, views, C, h, w), those of earlier sittings and what minutes allow of new ones."""
    found = list(load_file(PAIRS)["pairs"].float()) if PAIRS.exists() else []
    clock, rng = Clock(minutes), np.random.default_rng([seed, len(found)])
    while len(found) < things and not clock.over:
        found.append(captured(model, objects.sample(rng), int(rng.choice(STEPS)), int(rng.integers(2**31))))
    PAIRS.parent.mkdir(parents=True, exist_ok=True)
    save_file({"pairs": torch.stack(found).half()}, PAIRS)
    return torch.stack(found)


def write(net, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: w.detach().half().cpu().contiguous() for name, w in net.state_dict().items()}, out / "layer.safetensors")


def main() -> None:
    args = arguments("objects-refine", card="objects-ldm", batch=32, lr=1e-3, ema=0.995, things=400)
    model = models.load(args.card)
    held = pairs(model, 0.75 * args.minutes, args.things, args.seed)
    args.minutes *= 0.25
    log = json.loads((args.out / "training.json").read_text()) if (args.out / "training.json").exists() else {"samples": 0, "minutes": 0}
    net = refinement(held.shape[3], begun=args.out if log["samples"] else None)
    # The first things are held out, so that they stay so however many follow.
    (test, goal), (rendered, wanted) = (part.transpose(0, 1).flatten(1, 2).to(args.device) for part in (held[:TESTED], held[TESTED:]))
    rng = torch.Generator().manual_seed(seed_of(args, log))

    def loss_of(net, average):
        rows = torch.randint(len(rendered), (args.batch,), generator=rng)
        with autocast(args.device):
            added = net(rendered[rows]).float()
        return (rendered[rows] + added - wanted[rows]).square().mean()

    @torch.no_grad()
    def figures(net) -> dict:
        added = torch.cat([net(part) for part in test.split(24)])
        error = lambda z: round(float((z - goal).square().mean()), 5)  # noqa: E731
        return {"things": len(held), "held_out": {"rendered": error(test), "repaired": error(test + added)}}

    @torch.no_grad()
    def rows(net):
        some = test[::24]
        return sheet(torch.cat([model.to_pixels(z) for z in (some, some + net(some), goal[::24])]), TESTED)

    train(args, "objects/refine", net, log, loss_of, figures, rows, write)


if __name__ == "__main__":
    main()
