"""Train our contrastive scorer of sounds against captions, on combinations that no generator is trained on (see worlds/sounds.py).

    python -m backends.train.sounds_scorer --corpus FOLDER --minutes 10

Clips of a batch that are the same in everything but wording count as right answers of one another.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from backends.nets.sounds_scorer import SoundsScorer
from backends.train.common import RUNS, Clock, Ema, arguments, autocast, load_state, save_pretrained, save_state, stream
from backends.train.sounds_text import World

SIDES = ("scorer", "shared")


def contrast(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways of (B, D) unit vectors against each other (Radford et al., arXiv 2103.00020)."""
    logits, right = a @ b.T * scale.exp().clamp_max(100), (keys[:, None] == keys).float()
    right = right / right.sum(1, keepdim=True)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def coarsen(x: torch.Tensor) -> torch.Tensor:
    """Noise of −75 to −35 dB and, on half the clips, a softened treble: what an autoencoder does to a sound must not matter."""
    x = x + torch.randn_like(x) * 10 ** (-(35 + 40 * torch.rand(len(x), 1, device=x.device)) / 20)
    soft = F.avg_pool1d(x[:, None], 3, 1, 1)[:, 0]
    return torch.lerp(x, soft, torch.rand(len(x), 1, device=x.device) * (torch.rand(len(x), 1, device=x.device) < 0.5))


@torch.no_grad()
def right_of(net, world, test, group: int = 32) -> tuple[float, float]:
    """Share of held-out clips whose caption is the likeliest of `group`, and of captions whose clip is."""
    layouts, ids, there, _ = test
    audio = torch.cat([net.audio(world.render(part)[:, 0]) for part in layouts.split(64)])
    text = net.text(world.text.states(ids, there).float(), there.to(audio.device))
    logits = torch.stack([a @ b.T for a, b in zip(audio.split(group), text.split(group))])
    truth = torch.arange(group, device=logits.device)
    return float((logits.argmax(2) == truth).float().mean()), float((logits.argmax(1) == truth).float().mean())


def main() -> None:
    args = arguments("sounds-scorer", corpus="corpus", batch=256, lr=1e-3)
    device, chunk = args.device, max(512, args.batch)
    world = World(Path(args.corpus), device)
    net = (SoundsScorer.from_pretrained(args.out, torch_dtype=torch.float32) if (args.out / "config.json").exists() else SoundsScorer()).to(device).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    ema, step, taken, path = Ema(net, 0.998), 0, 0, RUNS / "sounds-scorer.pt"
    if (state := load_state(path)) and (args.out / "config.json").exists():
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        step = ema.updates = state["step"]
    test = world.make(np.random.default_rng(2), 32 if device == "cpu" else 512, ("test",))
    coming = stream(lambda i: world.make(np.random.default_rng([args.seed, step, i]), chunk, SIDES), args.workers)
    clock, drawn, at = Clock(args.minutes), None, chunk
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f} M parameters, step {step}", flush=True)

    def save() -> dict:
        to_text, to_audio = right_of(ema.net, world, test)
        save_state(path, net=net, ema=ema.net, optimiser=optimiser, step=step)
        save_pretrained(ema.net, args.out)
        return {"right_caption_of_32": round(to_text, 3), "right_clip_of_32": round(to_audio, 3), "clips": step * args.batch}

    while not clock.over:
        if at + args.batch > chunk:
            drawn, at = next(coming), 0
        layouts, ids, there, keys = (part[at : at + args.batch] for part in drawn)
        at += args.batch
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (taken + 1) / 100) * max(0.0, 1 - clock.seconds / clock.budget)
        x, states = coarsen(world.render(layouts)[:, 0]), world.text.states(ids, there).float()
        with autocast(device):
            loss = contrast(net.audio(x), net.text(states, there.to(device)), net.scale, keys.to(device))
        optimiser.zero_grad(), loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step, taken = step + 1, taken + 1
        if clock.every(20, "log"):
            print(f"{clock.seconds / 60:6.1f} min  step {step}  loss {loss.item():.3f}  held-out right of 32: {right_of(ema.net, world, test)}", flush=True)
        if clock.every(60 if device != "cpu" else 300, "save"):
            save()
    print(json.dumps(save()))


if __name__ == "__main__":
    main()
