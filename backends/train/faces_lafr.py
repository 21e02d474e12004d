"""Train LAFR (arXiv 2505.23462) on few faces: the codebook adapter, the change of low rank of the latent prior, and an encoder to compare with.

    python -m backends.train.faces_lafr --stage adapter --minutes 1    # on a CPU with --latents 4096: that many pairs are encoded once
    python -m backends.train.faces_lafr --stage encoder --minutes 1    # what the adapter is measured against
    python -m backends.train.faces_lafr --stage prior --minutes 2      # needs the adapter and faces-ldm

See faces_data.py for the order. All three see the same FEW faces, degraded anew each time. Stage 1: L1 to the clean face's latent, the codebook's
loss and a quarter of the commitment's; codes begin as k-means of clean faces' features, after the first part of the time without them. Stage 2 stands in
faces_lora.py.

What is committed: the adapter's convolutions learned on a GPU with one group of codes (241,664 samples), to which the prior was then trained; four groups,
as k-means of their features, learned on with them on a CPU (8,416 samples: --latents 5952 --batch 16 --lr 1e-3).
"""

import torch
from torch.nn import functional as F

from backends.nets.latent_adapter import CodebookAdapter, LatentEncoder
from backends.train.common import MODELS, RUNS, Clock, arguments, autocast, save_pretrained
from backends.train.faces_data import Faces
from backends.train.faces_prior import decoded, encoded, frozen_vae, held_out, likeness
from backends.train.faces_restorer import degraded, psnr
from backends.train.loop import begun, train
from backends.worlds.faces_build import sheet

FEW = 600  # faces, as many as the paper takes
COMMITMENT = 0.25
BARE = 0.3  # of the time, without codes
RESTART = 100  # updates after which codes that nobody takes begin again at some feature


@torch.no_grad()
def k_means(x: torch.Tensor, k: int, rounds: int = 20) -> torch.Tensor:
    """(k, d) centres of (n, d), n ≥ k."""
    centres = x[torch.randperm(len(x), device=x.device)[:k]].clone()
    for _ in range(rounds):
        at = (centres.square().sum(1) - 2 * x @ centres.T).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, at, x)
        n = torch.bincount(at, minlength=k)
        empty = n == 0
        centres = sums / n.clamp_min(1)[:, None]
        centres[empty] = x[torch.randint(len(x), (int(empty.sum()),), device=x.device)]
    return centres


def usage(at: torch.Tensor, codes: int) -> torch.Tensor:
    """(groups, codes): how often each code is taken in (…, groups); a group's sum to 1."""
    at = at.flatten(0, -2).T
    return torch.stack([torch.bincount(row, minlength=codes) for row in at]) / at.shape[1]


def perplexity(at: torch.Tensor, codes: int) -> float:
    """How many of a group's codes are in use, the mean over groups: the exponential of their entropy."""
    share = usage(at, codes)
    return float((-(share * share.clamp_min(1e-12).log()).sum(1)).exp().mean())


class Stage:
    """What the first stage's two trainings share: few faces, held-out ones, what they measure."""

    def __init__(self, args, name: str):
        self.args, self.name, self.device = args, name, args.device
        self.vae, self.source = frozen_vae(args.device), Faces(args.device, args.seed, FEW if args.device != "cpu" or args.latents else 128, few=True)
        self.x = held_out(args.device, 64 if args.device != "cpu" else 16)
        self.y = degraded(self.x, seed=0)
        self.z_low, self.z_high, self.pool = encoded(self.vae, self.y), encoded(self.vae, self.x), None

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(degraded, clean) pictures, mirrored or not."""
        x = self.source.draw(self.args.batch)
        x = x.flip(3) if torch.rand(()) < 0.5 else x
        return degraded(x), x

    def latents(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(z_L, z_H) of a batch of pairs; with `--latents n`, of n pairs that were encoded once and are kept in runs/."""
        if not self.args.latents:
            return tuple(encoded(self.vae, p) for p in self.pair())
        if self.pool is None:
            self.pool = self.encoded_once(RUNS / "faces-lafr-latents.pt", self.args.latents)
        rows = torch.randint(len(self.pool[0]), (self.args.batch,), device=self.device)
        return tuple(z[rows] for z in self.pool)

    def encoded_once(self, path, n: int) -> list[torch.Tensor]:
        """The n pairs; what is in the file already is gone on from, for a minute and a half a sitting."""
        parts, clock = torch.load(path, weights_only=True) if path.exists() else [], Clock(1.5)
        torch.manual_seed(len(parts))
        while sum(len(z) for z, _ in parts) < n and not clock.over:
            parts.append([encoded(self.vae, p).cpu() for p in self.pair()])
        path.parent.mkdir(exist_ok=True)
        torch.save(parts, path)
        return [torch.cat(z).to(self.device) for z in zip(*parts)]

    def measured(self, z: torch.Tensor) -> dict:
        """Of held-out faces: mean |z − z_H| as a share of mean |z_L − z_H|; PSNR in dB and likeness once decoded, z_L's beside it."""
        made, plain = decoded(self.vae, z), decoded(self.vae, self.z_low)
        off = float((z - self.z_high).abs().mean() / (self.z_low - self.z_high).abs().mean())
        return {"latent_distance": round(off, 4), "db": round(psnr(made, self.x), 2), "db_of_z_L": round(psnr(plain, self.x), 2)} | likeness(made, self.x)

    def rows(self, z: torch.Tensor):
        """Degraded faces; z_L, z and z_H decoded; the faces."""
        return sheet(torch.cat([p[:16] for p in (self.y, *(decoded(self.vae, one) for one in (self.z_low, z, self.z_high)), self.x)]), min(16, len(self.x)))


def adapter(args) -> None:
    stage = Stage(args, "faces-lafr-adapter")
    net, log = begun(CodebookAdapter, args.out, {}, args.fresh)
    codes, clock, state = net.config.size, Clock(args.minutes), {"coded": bool(log["samples"]), "used": None, "n": 0}

    def begin(net, average) -> None:
        """The codes as k-means of clean faces' features."""
        clean = [encoded(stage.vae, p.float() / 127.5 - 1) for p in stage.source.pictures.split(256)]
        pool = torch.cat([net.features(z).float().flatten(0, 2) for z in clean])
        pool = pool[torch.randperm(len(pool), device=pool.device)[: 40 * codes]]
        for group in range(len(net.codes)):
            centres = k_means(pool[:, group], codes)
            net.codes[group], average.codes[group] = centres, centres
        state["coded"] = True

    def restart(net, average, f) -> None:
        """Codes that nobody takes begin again at some feature."""
        dead = (state["used"] < 0.05 / codes).nonzero()
        pool = f.flatten(0, 2)
        fresh = pool[torch.randint(len(pool), (len(dead),), device=f.device), dead[:, 0]]
        at = dead.unbind(1)
        net.codes[at], average.codes[at], state["used"][at] = fresh, fresh, 1 / codes

    def loss_of(net, average):
        z_low, z_high = stage.latents()
        if not state["coded"]:
            # Without codes, and clean faces as well: their features are what the codes begin as.
            if clock.seconds > BARE * clock.budget:
                with torch.no_grad():
                    begin(net, average)
            with autocast(args.device):
                z = net.mapped(net.features(torch.cat([z_low, z_high])))
            return F.l1_loss(z.float(), torch.cat([z_high, z_high])) + 0 * net.codes.sum()
        with autocast(args.device):
            f = net.features(z_low)
        f = f.float()
        at = net.nearest(f.detach())
        q, used = net.taken(at), usage(at, codes)
        state["used"] = used if state["used"] is None else torch.lerp(state["used"], used, 0.02)
        state["n"] += 1
        if state["n"] % RESTART == 0 and clock.left > 0.3 * clock.budget:  # the last third settles
            with torch.no_grad():
                restart(net, average, f.detach())
        with autocast(args.device):
            z = net.mapped(f + (q - f).detach()).float()
        return F.l1_loss(z, z_high) + F.mse_loss(q, f.detach()) + COMMITMENT * F.mse_loss(f, q.detach())

    @torch.no_grad()
    def figures(net) -> dict:
        z, at = net(stage.z_low)
        return stage.measured(z) | {"perplexity": round(perplexity(at, codes), 1), "parameters": sum(p.numel() for p in net.parameters())}

    train(args, stage.name, net, log, loss_of, figures, lambda net: stage.rows(net(stage.z_low)[0]))
    in_order(args.out, stage)


@torch.no_grad()
def in_order(out, stage: Stage) -> None:
    """The codes that are taken most come first, so that a part of them is a smaller codebook."""
    net = CodebookAdapter.from_pretrained(out, torch_dtype=torch.float32).to(stage.device)
    seen = torch.cat([net(encoded(stage.vae, degraded(p.float() / 127.5 - 1)))[1].flatten(0, 2) for p in stage.source.pictures.split(256)])
    for group, used in enumerate(usage(seen, net.config.size)):
        net.codes[group] = net.codes[group][used.argsort(descending=True, stable=True)]
    save_pretrained(net.cpu(), out)


def encoder(args) -> None:
    stage = Stage(args, "faces-lafr-encoder")
    net, log = begun(LatentEncoder, args.out, {"scaling_factor": stage.vae.config.scaling_factor}, args.fresh)
    if not log["samples"]:
        net = LatentEncoder.of(stage.vae).requires_grad_(True)

    def loss_of(net, average):
        y, x = stage.pair()
        with autocast(args.device):
            z = net(y.contiguous(memory_format=torch.channels_last)).float()
        return F.l1_loss(z, encoded(stage.vae, x))

    @torch.no_grad()
    def figures(net) -> dict:
        return stage.measured(net(stage.y)) | {"parameters": sum(p.numel() for p in net.parameters())}

    train(args, stage.name, net, log, loss_of, figures, lambda net: stage.rows(net(stage.y)))


def main() -> None:
    args = arguments("faces-lafr", stage="adapter", batch=0, lr=0.0, ema=0.998, fresh=False, latents=0)
    stages = {"adapter": (adapter, 2e-3), "encoder": (encoder, 5e-4)}
    if args.stage == "prior":
        from backends.train.faces_lora import prior

        stages["prior"] = (prior, 1e-3)
    make, rate = stages[args.stage]
    if args.out == MODELS / "faces-lafr":
        args.out = args.out / args.stage
    args.batch, args.lr = args.batch or (256 if args.device != "cpu" else 16), args.lr or rate
    args.out.mkdir(parents=True, exist_ok=True)
    make(args)


if __name__ == "__main__":
    main()
