"""What the face world's training scripts share: endless faces, drawn where they are needed, and the loop.

    python -m backends.worlds.faces_build SITE package/models    # the generator in runs/, beforehand: see there
    python -m backends.train.faces_restorer --minutes 1
    python -m backends.train.faces_prior --minutes 5
    python -m backends.train.faces_vae --minutes 1.5
    python -m backends.train.faces_prior --space latents --minutes 3    # needs the autoencoder
    python -m backends.train.faces_lcm --minutes 2                      # needs the latent prior
    python -m backends.train.faces_lafr --stage adapter --minutes 1     # needs the autoencoder
    python -m backends.train.faces_lafr --stage prior --minutes 2       # needs the latent prior and the adapter
    python -m backends.train.faces_interlcm --minutes 3                 # needs both latent priors

The minutes are those of one data-centre GPU shared by two. Each goes on from what is committed and, where runs/ is kept, from the
optimiser's state. Held-out figures are of faces of seeds that training never draws.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from backends.train.common import RUNS, Clock, Ema, MuonAdamW, autocast, load_state, save_pretrained, save_state
from backends.worlds import faces_build


class Faces:
    """The last `kept` good faces drawn; every draw replaces some, on a GPU about half of a batch, or none where they are to stay (`few`)."""

    def __init__(self, device: str, seed: int = 0, kept: int = 0, few: bool = False):
        self.net = faces_build.Generator.load(device)
        self.device, gpu = device, device != "cpu"
        self.kept, self.few, self.share = kept or (32_768 if gpu else 256), few, 1.0 if gpu else 0.25
        self.rng = torch.Generator(device).manual_seed(seed)
        self.pictures = torch.zeros(self.kept, 3, 64, 64, dtype=torch.uint8, device=device)
        self.added = 0
        while self.added < self.kept:
            self.add(2048 if gpu else 128)

    @torch.no_grad()
    def add(self, n: int) -> None:
        """Draw n candidates and keep the good ones."""
        z = faces_build.SPREAD * torch.randn(n, faces_build.WIDTHS[0], device=self.device, generator=self.rng)
        with autocast(self.device):
            x = self.net(z).float()
        good = faces_build.good(x)
        rows = (torch.arange(int(good.sum()), device=self.device) + self.added) % self.kept
        self.pictures[rows] = ((x[good] + 1) * 127.5).round().byte()
        self.added += len(rows)

    def draw(self, n: int) -> torch.Tensor:
        """(n, 3, 64, 64) in [-1, 1]."""
        if not self.few:
            self.add(max(32, int(n * self.share)))
        rows = torch.randint(self.kept, (n,), device=self.device, generator=self.rng)
        return self.pictures[rows].float() / 127.5 - 1


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


def train(args, name: str, net, log: dict, loss_of, figures, sheet, write=save_pretrained) -> None:
    """For `args.minutes`: `loss_of(net, average)` a step, average being the EMA of the weights, which is what is saved.

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
    while not clock.over:
        optimiser.rate(args.lr * min(1, (step + 1) / 100) * min(1, clock.left / (clock.budget * 0.5)) + 1e-6)
        loss = loss_of(net, ema.net)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step, log["samples"] = step + 1, log["samples"] + args.batch
        if clock.every(20, "log"):
            print(f"{clock.seconds:5.0f} s  {log['samples']} samples  loss {loss.item():.4f}  {json.dumps(figures(ema.net))}", flush=True)
        if clock.every(90 if gpu else 600, "save"):
            save()
    save()
    print((args.out / "training.json").read_text(), flush=True)
