"""Train EzAudio's transformer on the latents of the sounds world's autoencoder and MiniLM's token states.

    python -m backends.train.sounds_dit --corpus FOLDER --minutes 60
    python -m backends.train.sounds_dit --corpus FOLDER --minutes 300 --dim 128 --batch 16 --kept 6000 --fresh 1 --chunk 60 --lr 1e-3   # on a core of a CPU
    python -m backends.train.sounds_dit --corpus FOLDER --minutes 60 --modulation full --out DIR     # for comparison: plain AdaLN

v-prediction on a scaled-linear schedule with zero terminal SNR, text dropout 0.1; a quarter of the clips are partly known (spans of
10 frames, a share of 0.25 to 1 is to be made) and learn from what is hidden alone, as EzAudio's fine-tuning does.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch.nn import functional as F

from backends.nets.ez_dit import EzDiT
from backends.train.common import MODELS, RUNS, Clock, Ema, MuonAdamW, arguments, autocast, load_state, save_pretrained, save_state, stream
from backends.train.sounds_text import TOKENS, World
from backends.train.sounds_vae import load as load_vae
from backends.worlds import sounds

SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
                rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)  # fmt: skip
FRAMES, SPAN = sounds.SAMPLES // sounds.HOP, 10
SIDES = ("model", "shared")


class Latents:
    """The last `kept` clips made: latents (fp16), token states (bf16), which of them are the text's."""

    def __init__(self, world: World, vae, kept: int):
        self.world, self.vae, self.kept, self.added, self.shift, self.scale = world, vae, kept, 0, 0.0, 1.0
        device = world.device
        self.z = torch.zeros(kept, vae.config.decoder_input_channels, FRAMES, dtype=torch.float16, device=device)
        self.states, self.there = (
            torch.zeros(kept, TOKENS, 384, dtype=torch.bfloat16, device=device),
            torch.zeros(kept, TOKENS, dtype=torch.bool, device=device),
        )

    @torch.no_grad()
    def encode(self, layouts: torch.Tensor) -> torch.Tensor:
        with autocast(self.world.device):
            return torch.cat([self.vae.encode(self.world.render(part)).latent_dist.mean.float() for part in layouts.split(64)])

    def add(self, layouts, ids, there) -> None:
        rows = (torch.arange(len(layouts)) + self.added).to(self.z.device) % self.kept
        self.z[rows] = ((self.encode(layouts) - self.shift) * self.scale).half()
        self.states[rows], self.there[rows] = self.world.text.states(ids, there), there.to(self.z.device)
        self.added += len(layouts)

    def draw(self, n: int):
        rows = torch.randint(min(self.added, self.kept), (n,), device=self.z.device)
        return self.z[rows].float(), self.states[rows].float(), self.there[rows]


def spans(n: int, share: torch.Tensor, device) -> torch.Tensor:
    """(n, 1, FRAMES) 0/1: spans of SPAN frames that cover about `share` (n,) of the clip, overlaps allowed."""
    score = torch.rand(n, FRAMES + SPAN - 1, device=device)
    # Each frame is hidden if one of the SPAN starts before it is: 1 − (1 − p)^SPAN = share.
    p = 1 - (1 - share.clamp(max=0.999)) ** (1 / SPAN)
    begun = (score < p[:, None]).float()
    begun[torch.arange(n), torch.randint(0, FRAMES, (n,), device=device)] = 1.0
    return F.max_pool1d(begun[:, None], SPAN, 1)


def velocity_loss(net, bars, z, states, there, t, noise, device, mask=None):
    """(B,) mean squared error of v = α·ε − σ·z at integer timesteps t, over the frames to be made."""
    alpha, sigma = (b[t].view(-1, 1, 1) for b in bars)
    with autocast(device):
        out = net(alpha * z + sigma * noise, t, states, there, known=None if mask is None else z, mask=mask)
    each = (out.float() - (alpha * noise - sigma * z)).square()
    return each.mean((1, 2)) if mask is None else (each * mask).sum((1, 2)) / (mask.sum((1, 2)) * z.shape[1])


def main() -> None:
    args = arguments(
        "ezaudio/dit",
        corpus="corpus",
        vae=str(MODELS / "ezaudio/vae"),
        batch=384,
        lr=1.5e-3,
        ema=0.9995,
        kept=24_000,
        fresh=24,
        chunk=480,
        modulation="sola",
        dim=256,
        depth=8,
    )
    device, out = args.device, args.out
    torch.backends.cudnn.benchmark = True
    world = World(Path(args.corpus), device)
    vae = load_vae(Path(args.vae)).to(device).eval().requires_grad_(False)
    tested = 64 if device == "cpu" else 512
    latents, test = Latents(world, vae, args.kept), Latents(world, vae, tested)
    if (out / "config.json").exists():
        net = EzDiT.from_pretrained(out, torch_dtype=torch.float32)
    else:
        z = latents.encode(world.make(np.random.default_rng(0), tested, SIDES)[0])
        net = EzDiT(
            vae.config.decoder_input_channels, args.dim, args.depth, modulation=args.modulation, latent_shift=float(z.mean()), latent_scale=float(1 / z.std())
        )
    net.to(device).train()
    for part in (latents, test):
        part.shift, part.scale = net.config.latent_shift, net.config.latent_scale
    optimiser, ema, step = MuonAdamW(net, args.lr, ("embed", "head", "ada", "lora")), Ema(net, args.ema), 0
    log = json.loads((out / "training.json").read_text()) if (out / "training.json").exists() else {"samples": 0, "minutes": 0}
    path = RUNS / f"sounds-{out.parent.name}-{args.modulation}.pt"
    if (state := load_state(path)) and state["samples"] >= log["samples"] > 0:
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        log["samples"], log["minutes"] = state["samples"], state["minutes"]
    ema.updates = log["samples"] // args.batch
    bar = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    bars = (bar.sqrt(), (1 - bar).sqrt())
    test.add(*test.world.make(np.random.default_rng(3), tested, ("test",))[:3])
    fixed = torch.Generator().manual_seed(1)
    test_t, test_noise = torch.randint(0, 1000, (tested,), generator=fixed).to(device), torch.randn(tested, *test.z.shape[1:], generator=fixed).to(device)
    blank_ids, blank_there = world.text.ids([""])
    blank, blank_there = world.text.states(blank_ids, blank_there).float(), blank_there.to(device)
    start = log["samples"]
    coming = stream(lambda i: world.make(np.random.default_rng([args.seed, start, i]), args.chunk, SIDES)[:3], args.workers)
    clock, began = Clock(args.minutes), log["minutes"]
    print(
        f"{sum(p.numel() for p in net.parameters()) / 1e6:.1f} M parameters, {log['samples']} samples so far, latents of mean {net.config.latent_shift:.3f} and scale {net.config.latent_scale:.3f}",
        flush=True,
    )

    @torch.no_grad()
    def held_out() -> float:
        rows = [
            (test.z[i : i + 64].float(), test.states[i : i + 64].float(), test.there[i : i + 64], test_t[i : i + 64], test_noise[i : i + 64])
            for i in range(0, tested, 64)
        ]
        return float(torch.cat([velocity_loss(ema.net, bars, *row, device) for row in rows]).mean())

    def save() -> None:
        log["minutes"] = round(began + clock.seconds / 60, 1)
        save_state(path, net=net, ema=ema.net, optimiser=optimiser, samples=log["samples"], minutes=log["minutes"])
        save_pretrained(ema.net, out)
        DDIMScheduler(**SCHEDULE).save_pretrained(out)
        (out / "training.json").write_text(json.dumps(log | {"held_out_loss": round(held_out(), 4)}, indent=1) + "\n")

    taken = 0
    while not clock.over:
        # A third of the store to begin with, then `fresh` new clips a step: none is seen often enough to be learnt by heart.
        while latents.added < args.kept // 3 + taken * args.fresh:
            latents.add(*next(coming))
        rate = args.lr * min(1, (taken + 1) / 200) * min(1, clock.left / (clock.budget * 0.5)) + 1e-6
        optimiser.rate(rate)
        z, states, there = latents.draw(args.batch)
        dropped = torch.rand(len(z), device=device) < 0.1
        states, there = torch.where(dropped[:, None, None], blank, states), torch.where(dropped[:, None], blank_there, there)
        masked = torch.rand(len(z), 1, 1, device=device) < 0.25
        mask = torch.where(masked, spans(len(z), 0.25 + 0.75 * torch.rand(len(z), device=device), device), 1.0)
        t = torch.randint(0, 1000, (len(z),), device=device)
        loss = velocity_loss(net, bars, z, states, there, t, torch.randn_like(z), device, mask).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        ema.update(net)
        step, taken, log["samples"] = step + 1, taken + 1, log["samples"] + args.batch
        if clock.every(20, "log"):
            print(
                f"{clock.seconds / 60:6.1f} min  {log['samples']} samples  loss {loss.item():.4f}  held-out {held_out():.4f}  ({latents.added} clips)",
                flush=True,
            )
        if clock.every(60 if device != "cpu" else 300, "save"):
            save()
    save()
    print(json.dumps(log))


if __name__ == "__main__":
    main()
