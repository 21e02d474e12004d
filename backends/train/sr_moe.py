"""Train the sampling-space mixture of experts (arXiv 2310.12004): an expert of the time a process, or the single UNet beside them.

    python -m backends.train.sr_moe --part 0 --minutes 2         # timesteps [0, 250); 1, 2 and 3: the other quarters
    python -m backends.train.sr_moe --part single --minutes 2    # all timesteps, four times the batch

All begin as sr_teacher's latent diffusion model. An expert of the time holds 16 experts of the space behind every attention block. They draw near
each other after every step, β rising from 0 to 0.3 over the first RAMP steps (the paper's 10,000 were of 32 pictures); saved is their
average, of the single one's size. `samples` in training.json say that the single one saw at least what the four saw between them.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler

from backends.nets import eight_bits
from backends.nets.space_moe import SpaceMoe
from backends.nets.sr_unet import SrUNet
from backends.nets.sr_vae import SrAutoencoder
from backends.restore.latent_sr import SCHEDULE
from backends.train.common import MODELS, RUNS, arguments
from backends.train.faces_loop import seed_of, train
from backends.train.sr_teacher import OUT, QUICK, SIDE, HeldOut, begun, errors, frozen, noise_like, sheet, walked, weights
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import lowered

STAGES, EXPERTS, BETA, RAMP = 4, 16, 0.3, 300
SPAN = 1000 // STAGES  # timesteps a stage


def multiplied(net: SrUNet, experts: int) -> SrUNet:
    """The same network with `experts` copies of each feed-forward network; from many to one by averaging."""
    new = SrUNet(**{k: v for k, v in net.config.items() if not k.startswith("_")} | {"experts": experts})
    state = net.state_dict()
    for name, module in net.named_modules():
        if isinstance(module, SpaceMoe):
            one = module.averaged() if module.experts > 1 else module
            state |= {f"{name}.{k}": v.expand(experts, *v.shape[1:]).clone() if v.ndim == 3 else v for k, v in one.state_dict().items()}
    new.load_state_dict(state)
    return new.to(net.device)


def write(net: SrUNet, out: Path) -> None:
    eight_bits.save(multiplied(net, 1), out)


def main() -> None:
    args = arguments("sr/part", part="single", batch=0, lr=1e-3, ema=0.995)
    device, gpu, single = args.device, args.device != "cpu", args.part == "single"
    if args.out == MODELS / "sr/part":
        args.out = OUT / "moe" / (args.part if single else f"stage{args.part}")
    args.batch = args.batch or (128 if gpu else 8) * (STAGES if single else 1)
    low_t, high_t = (0, 1000) if single else (SPAN * int(args.part), SPAN * (int(args.part) + 1))
    net, log = begun(args.out, {}, OUT / "ldm")
    net = multiplied(net, 1 if single else EXPERTS)
    vae, source = frozen(SrAutoencoder, "vae", device), Crops(device, seed_of(args, log))
    bar, test, taken = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device), HeldOut(source, vae, 48 if gpu else 4), 0

    def loss_of(net, average):
        nonlocal taken
        for moe in net.moes():
            moe.ewa(BETA * min(1.0, taken / RAMP))  # after the optimiser's last step
        taken += 1
        x = source.draw(args.batch, SIDE[gpu])
        low = lowered(x, source.rng)
        x0, y0 = vae.latents(torch.cat([x, low])).chunk(2)
        t = torch.randint(low_t, high_t, (len(x),), device=device)
        return (errors(net, "ldm", bar, None, x0, y0, low, t, torch.randn_like(x0)) * weights(bar, t)).mean()

    @torch.no_grad()
    def figures(net) -> dict:
        """Held-out squared errors of ε by quarter of the timesteps, of the averaged network; for the single one what it draws."""
        of, found = multiplied(net, 1).eval(), {}
        for begin in range(low_t, high_t, SPAN):
            ts = range(begin + 25, begin + SPAN, 50)
            each = [
                errors(of, "ldm", bar, None, test.z, test.y, test.low, torch.full((len(test.z),), t, device=device), noise_like(test.z, t)).mean() for t in ts
            ]
            found[str(begin)] = round(float(sum(each) / len(each)), 5)
        drawn = test.figures(test.decoded(walked(of, "ldm", test.y, test.low))) if single else {}
        return {"held_out_loss": found} | drawn

    def rows(net):
        return sheet([test.low, test.decoded(walked(multiplied(net, 1).eval(), "ldm", test.y, test.low)), test.x])

    train(args, f"sr/moe-{args.part}", net, log, loss_of, figures, rows, write, **QUICK)


if __name__ == "__main__":
    (RUNS / "sr").mkdir(parents=True, exist_ok=True)
    main()
