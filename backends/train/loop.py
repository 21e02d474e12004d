"""The loop of a training script: a network's weights and log taken up again, steps for so many minutes, held-out figures and a sheet at every save."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from backends.train.common import RUNS, Clock, Ema, MuonAdamW, load_state, save_pretrained, save_state


def begun(kind, out: Path, config: dict, fresh: bool = False):
    """(a network of this configuration with the weights in `out` that fit it; what their log says)."""
    net, log = kind(**config), {"samples": 0, "minutes": 0}
    if (out / "config.json").exists() and not fresh:
        held, mine = {}, net.state_dict()
        for file in sorted(out.glob("*.safetensors")):
            held |= load_file(file)
        fits = {k: v.float() for k, v in held.items() if k in mine and v.shape == mine[k].shape}
        if missing := mine.keys() - fits.keys():
            print(f"{out.name}: not from the file: {', '.join(sorted(missing))}", flush=True)
        net.load_state_dict(fits, strict=False)
        log = json.loads((out / "training.json").read_text())
    return net, log


def seed_of(args, log: dict) -> int:
    """Another one each sitting, below those that are held out."""
    return (args.seed * 1_000_003 + log["samples"]) % 2**31


def train(args, name: str, net, log: dict, loss_of, figures, sheet, write=save_pretrained, most: int = 0) -> None:
    """For `args.minutes`, or `most` samples of this sitting if they are reached before: `loss_of(net, average)` a step, average being the EMA of
    the weights, which is what is saved.

    `figures(average)`: held-out figures as a dict; `sheet(average)`: a picture for runs/<name>.png; `write(average, out)` saves the weights.
    """
    gpu, state_path = args.device != "cpu", RUNS / f"{name}.pt"
    net.to(args.device, memory_format=torch.channels_last).train()
    torch.backends.cudnn.benchmark = True  # shapes never change
    optimiser, ema = MuonAdamW(net, args.lr), Ema(net, args.ema)
    if (state := load_state(state_path)) and state["samples"] >= log["samples"]:
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        log["samples"], log["minutes"] = state["samples"], state["minutes"]
    ema.updates = log["samples"] // args.batch
    print(f"{name}: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, {log['samples']} samples so far", flush=True)

    def save() -> None:
        log["minutes"] = round(began + clock.seconds / 60, 1)
        save_state(state_path, net=net, ema=ema.net, optimiser=optimiser, samples=log["samples"], minutes=log["minutes"])
        write(ema.net, args.out)
        (args.out / "training.json").write_text(json.dumps(log | figures(ema.net), indent=1) + "\n")
        with torch.no_grad():
            sheet(ema.net).save(RUNS / f"{name}.png")

    step, began, clock = 0, log["minutes"], Clock(args.minutes)
    while not clock.over and (left := min(clock.left / clock.budget, 1 - step * args.batch / most if most else 1)) > 0:  # left: a share of the sitting
        optimiser.rate(args.lr * min(1, (step + 1) / 100) * min(1, left / 0.5) + 1e-6)
        loss = loss_of(net, ema.net)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step, log["samples"] = step + 1, log["samples"] + args.batch
        if clock.every(20 if gpu else 120, "log"):
            print(f"{clock.seconds:5.0f} s  {log['samples']} samples  loss {loss.item():.4f}  {json.dumps(figures(ema.net))}", flush=True)
        if clock.every(90 if gpu else 600, "save"):
            save()
    save()
    print((args.out / "training.json").read_text(), flush=True)
