"""Train the sampling-space mixture of experts (arXiv 2310.12004) beside a single UNet on the same batches.

    python -m backends.train.sr_moe --minutes 3    # needs sr/vae and sr/ldm, which all five networks begin as

Four UNets, for timesteps [0, 250), [250, 500), [500, 750), [750, 1000), each with 16 experts behind every attention block that draw
near each other after every step, β rising from 0 to 0.3 over the first RAMP steps (the paper's 10,000 were of 32 pictures). What
is saved are the averages: four UNets of the single one's size. The single one sees every sample, an expert of the time a quarter of them.
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import nn

from backends.nets import eight_bits
from backends.nets.space_moe import SpaceMoe
from backends.nets.sr_unet import SrUNet
from backends.restore.moe_sr import SPAN
from backends.restore.upscaler import STAGES
from backends.train.common import MODELS, arguments, noise_like
from backends.train.loop import seed_of, train
from backends.train.sr_teacher import SCHEDULE, HeldOut, begun, called, decoded, encoded, frozen_vae, sheet, walked
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import lowered

EXPERTS, BETA, RAMP = 16, 0.3, 500


def multiplied(net: SrUNet, experts: int) -> SrUNet:
    """The same network with `experts` copies of each feed-forward network; from many to one by averaging."""
    new = SrUNet(**{k: v for k, v in net.config.items() if not k.startswith("_")} | {"experts": experts})
    state = net.state_dict()
    for name, module in net.named_modules():
        if isinstance(module, SpaceMoe):
            one = module.averaged() if module.experts > 1 else module
            state |= {f"{name}.{k}": v.expand(experts, *v.shape[1:]).clone() if v.ndim == 3 else v for k, v in one.state_dict().items()}
    new.load_state_dict(state)
    return new


class Staged(nn.Module):
    """The single UNet and the experts of the stages, ascending; called as one denoiser, each row goes to its stage."""

    def __init__(self, single: SrUNet, stages: list[SrUNet]):
        super().__init__()
        self.single, self.stages = single, nn.ModuleList(stages)

    def forward(self, x, t, low):
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        stage = t // SPAN
        if len(seen := stage.unique()) == 1:
            return self.stages[int(seen)](x, t, low)
        out = torch.empty_like(x)
        for i in seen.tolist():
            out[stage == i] = self.stages[i](x[stage == i], t[stage == i], low[stage == i]).to(out.dtype)
        return out

    def averaged(self) -> "Staged":
        device = next(self.parameters()).device
        return Staged(self.single, [multiplied(net, 1) for net in self.stages]).to(device).eval()


def write(net: Staged, out: Path) -> None:
    for i, stage in enumerate(net.averaged().stages):
        eight_bits.save(stage, out / f"stage{i}")
    eight_bits.save(net.single, out / "single")


def main() -> None:
    args = arguments("sr/moe", batch=0, lr=8e-4, ema=0.995)
    device, gpu = args.device, args.device != "cpu"
    args.batch = args.batch or (768 if gpu else 8)
    if (args.out / "stage0").exists():
        single, log = eight_bits.load(SrUNet, args.out / "single"), json.loads((args.out / "training.json").read_text())
        stages = [eight_bits.load(SrUNet, args.out / f"stage{i}") for i in range(STAGES)]
    else:
        single, log = begun(MODELS / "sr/ldm", {})[0], {"samples": 0, "minutes": 0}
        stages = [single] * STAGES
    net = Staged(single, [multiplied(stage, EXPERTS) for stage in stages])
    vae, source = frozen_vae(device), Crops(device, seed_of(args, log), most=0 if gpu else 200)
    bar, test, taken = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device), HeldOut(source, vae, 72 if gpu else 4), 0

    def noised(x0, t, noise):
        a = bar[t].view(-1, 1, 1, 1)
        return a.sqrt() * x0 + (1 - a).sqrt() * noise

    def loss_of(net, average):
        nonlocal taken
        for moe in (m for m in net.stages.modules() if isinstance(m, SpaceMoe)):
            moe.ewa(BETA * min(1.0, taken / RAMP))  # after the optimiser's last step
        taken += 1
        x = source.draw(args.batch)
        low = lowered(x, source.rng, parts=8)
        z = encoded(vae, x)
        t = torch.arange(len(x), device=device) % STAGES * SPAN + torch.randint(SPAN, (len(x),), device=device)
        noise = torch.randn_like(z)
        x, loss = noised(z, t, noise), 0
        for i, stage in enumerate(net.stages):
            rows = slice(i, None, STAGES)
            loss = loss + (called(stage, x[rows], t[rows], low[rows]) - noise[rows]).square().mean() / STAGES
        return loss + (called(net.single, x, t, low) - noise).square().mean()

    @torch.no_grad()
    def figures(net) -> dict:
        """Held-out squared errors of ε by stage, of the single UNet and of the averaged experts; what both draw."""
        found = {}
        for name, of in (("single", net.single), ("moe", net.averaged())):
            losses = []
            for stage in range(STAGES):
                ts = torch.linspace(stage * SPAN + 20, stage * SPAN + SPAN - 20, 4).long().tolist()
                each = [
                    (called(of, noised(test.z, torch.full((len(test.z),), t, device=device), n := noise_like(test.z, t)), t, test.low) - n).square().mean()
                    for t in ts
                ]
                losses.append(round(float(sum(each) / len(each)), 5))
            found[name] = {"loss": losses} | test.figures(decoded(vae, walked(of, "ldm", test.y, test.low)))
        return found

    def rows(net):
        return sheet([test.low, *(decoded(vae, walked(of, "ldm", test.y, test.low)) for of in (net.single, net.averaged())), test.x])

    train(args, "sr/moe", net, log, loss_of, figures, rows, write)


if __name__ == "__main__":
    main()
