"""Distil the residual-shifting teacher into one step: TAD-SR (arXiv 2408.07476), and regression alone beside it.

    python -m backends.train.sr_student --minutes 2.5                     # all three losses
    python -m backends.train.sr_student --arm regression --minutes 1.5    # L_d alone; both need sr/vae and sr/shift

The student begins as the teacher and is only ever asked at the last timestep. All losses act on its estimate x̂_s, so their gradients are
put together there: 2(x̂_s − x̂_t) of L_d against the teacher's deterministic answer from the same x_T; HFSD, the difference of the frozen
teacher's estimates of both, noised alike at a small t; and the hinge loss of a discriminator on the teacher's encoder features that
is told t. The repository has no code, and the weights are ours: λ₁ = 1, w(t) = 1, and as in VQGAN (arXiv 2012.09841) the adversarial gradient
is brought to a share ADVERSARIAL of L_d's size.
"""

import json

import torch
from torch import nn
from torch.nn import functional as F

from backends.nets import eight_bits
from backends.nets.sr_unet import SrUNet
from backends.restore import resshift
from backends.train.common import MODELS, arguments, autocast, noise_like
from backends.train.loop import seed_of, train
from backends.train.sr_teacher import HeldOut, begun, called, decoded, encoded, frozen_vae, sheet
from backends.worlds.photos import Crops
from backends.worlds.photos_harm import lowered, psnr

FOLDERS = {"full": "sr/student", "regression": "sr/student-ld"}
HFSD, ADVERSARIAL = 1.0, 0.5
SMALL = 3  # HFSD's timesteps are the lowest one in so many


class Discriminator(nn.Module):
    """Logits of whether noised latents at timestep t come from originals, from the frozen teacher's encoder features: a small head a level."""

    def __init__(self, teacher: SrUNet, width: int = 48):
        super().__init__()
        self.teacher = [teacher]  # not among its parameters
        channels = (*teacher.config.block_out_channels, teacher.config.block_out_channels[-1])
        self.into = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.time = nn.ModuleList(nn.Linear(4 * teacher.config.block_out_channels[0], 2 * width) for _ in channels)
        self.out = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, padding=1)) for _ in channels)

    def forward(self, x: torch.Tensor, t: torch.Tensor, low: torch.Tensor) -> list[torch.Tensor]:
        features, time = self.teacher[0].encoder_features(x, t, low)
        logits = []
        for feature, into, at, out in zip(features, self.into, self.time, self.out):
            scale, shift = at(F.silu(time))[:, :, None, None].chunk(2, 1)
            logits.append(out(F.leaky_relu(F.normalize(into(feature), dim=1) * feature.shape[1] ** 0.5 * (1 + scale) + shift, 0.2)).flatten(1))
        return logits


def hfsd(teacher, shift: resshift.Shift, student_x0, teacher_x0, y0, low, t, noise) -> torch.Tensor:
    """HFSD's gradient on the student's estimate: how the teacher's estimates differ once both are noised alike. 0 where they are equal."""
    with torch.no_grad():
        both = [resshift.estimate(lambda *a: called(teacher, *a), shift, shift.noised(x0, y0, t, noise), t, y0, low) for x0 in (student_x0, teacher_x0)]
    return both[0] - both[1]


def answer(net, shift: resshift.Shift, y0, low, noise) -> torch.Tensor:
    """A student's x0 in its one step."""
    return resshift.estimate(lambda *a: called(net, *a), shift, shift.start(y0, noise), torch.full((len(y0),), shift.steps - 1, device=y0.device), y0, low)


class Pool:
    """Small pictures with a start and the teacher's deterministic answer from it; each draw replaces some, for the teacher's walk costs 15 calls."""

    def __init__(self, source: Crops, vae, teacher, shift: resshift.Shift, size: int, fresh: int):
        self.source, self.vae, self.teacher, self.shift, self.fresh = source, vae, teacher, shift, fresh
        self.size, self.parts, self.next = size, None, 0
        while self.parts is None or len(self.parts[0]) < size:
            new = self.made(max(fresh, size // 16))
            self.parts = new if self.parts is None else [torch.cat(pair)[:size] for pair in zip(self.parts, new)]

    @torch.no_grad()
    def made(self, n: int) -> list[torch.Tensor]:
        x = self.source.draw(n)
        low = lowered(x, self.source.rng)
        z, y0 = encoded(self.vae, torch.cat([x, low])).chunk(2)
        noise = torch.randn_like(y0)
        walk = self.shift.start(y0, noise)
        for t in reversed(range(self.shift.steps)):
            x0 = resshift.estimate(lambda *a: called(self.teacher, *a), self.shift, walk, torch.full((n,), t, device=y0.device), y0, low)
            walk = self.shift.back(walk, x0, y0, t, None)
        return [((low + 1) * 127.5).round().byte(), z.half(), y0.half(), noise.half(), x0.half()]

    def draw(self, n: int) -> tuple[torch.Tensor, ...]:
        """(low, z, y0, noise, x̂_t) of n pictures."""
        rows = (torch.arange(self.fresh, device=self.parts[0].device) + self.next) % self.size
        self.next += self.fresh
        for part, new in zip(self.parts, self.made(self.fresh)):
            part[rows] = new
        rows = torch.randint(self.size, (n,), device=rows.device)
        low, *rest = (part[rows].float() for part in self.parts)
        return low / 127.5 - 1, *rest


def main() -> None:
    args = arguments("sr/student", arm="full", batch=0, lr=6e-4, ema=0.995)
    arm, device, gpu = args.arm, args.device, args.device != "cpu"
    if args.out == MODELS / "sr/student":
        args.out = MODELS / FOLDERS[arm]
    args.batch = args.batch or (256 if gpu else 4)
    teacher = eight_bits.load(SrUNet, MODELS / "sr/shift").eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    net, log = begun(args.out, {}, MODELS / "sr/shift")
    vae, source, shift = frozen_vae(device), Crops(device, seed_of(args, log), most=0 if gpu else 200), resshift.Shift()
    test = HeldOut(source, vae, 72 if gpu else 4)
    judge = Discriminator(teacher).to(device)
    judging = torch.optim.AdamW(judge.parameters(), 1e-3, betas=(0.0, 0.99))
    pool = Pool(source, vae, teacher, shift, 16_384 if gpu else 16, 64 if gpu else 1)

    def judged(x0, y0, low, t, noise):
        with autocast(device):
            return [logits.float() for logits in judge(shift.scaled(shift.noised(x0, y0, t, noise), t), t, low)]

    def loss_of(net, average):
        low, z, y0, noise, wanted = pool.draw(args.batch)
        made = answer(net, shift, y0, low, noise)
        x0 = made.detach().requires_grad_(True)
        pull = 2 * (x0.detach() - wanted)
        if arm == "full":
            t, again = torch.randint(shift.steps // SMALL, (len(z),), device=device), torch.randn_like(z)
            steer = HFSD * hfsd(teacher, shift, x0.detach(), wanted, y0, low, t, again)
            t, again = torch.randint(shift.steps, (len(z),), device=device), torch.randn_like(z)
            real, fake = judged(z, y0, low, t, again), judged(x0.detach(), y0, low, t, again)
            judging.zero_grad()
            sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake)).backward()
            judging.step()
            push = torch.autograd.grad(-sum(f.mean() for f in judged(x0, y0, low, t, again)), x0)[0]
            pull = pull + steer + ADVERSARIAL * pull.norm() / push.norm().clamp_min(1e-9) * push
        return (made * pull).sum() / made.numel()

    test_noise = noise_like(test.y)

    @torch.no_grad()
    def figures(net) -> dict:
        out = decoded(vae, answer(net, shift, test.y, test.low, test_noise))
        return test.figures(out) | {"to_teacher_db": round(float(psnr(out, taught).mean()), 2)}

    *_, last = shift.walk(
        lambda x, t: resshift.estimate(lambda *a: called(teacher, *a), shift, x, t, test.y, test.low), test.y, torch.Generator().manual_seed(0), True
    )
    taught = decoded(vae, last)
    print(json.dumps({"teacher": test.figures(taught)}), flush=True)
    rows = lambda net: sheet([test.low, taught, decoded(vae, answer(net, shift, test.y, test.low, test_noise)), test.x])  # noqa: E731
    train(args, FOLDERS[arm], net, log, loss_of, figures, rows, eight_bits.save)


if __name__ == "__main__":
    main()
