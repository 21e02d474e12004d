"""Train the singer's networks on the corpus of the singing world.

    python -m backends.train.singing --part acoustic --minutes 4 --corpus runs/singing.npz
    python -m backends.train.singing --part vocoder                # beside the first
    python -m backends.train.singing --part denoiser               # both after the acoustic model, which stays as it is
    python -m backends.train.singing --part readout                # after the denoiser, whose last layer it solves; a minute on a CPU
    python -m backends.train.singing --part boundary

Corpus and conditions lie on the device as whole tensors. Goes on from what is committed and, where runs/ is kept, from the optimiser's state;
`--fresh 1` starts a part anew. The average of the weights is what is saved. Held-out
figures are over random melodies that no part was trained on; the tunes are for the studio and its proof.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from backends.nets.diffsinger import KNOTS, BoundaryPredictor, SingerAcoustic, SingerDenoiser, hats
from backends.nets.hn_vocoder import HarmonicNoiseVocoder, stft_distance
from backends.train.common import RUNS, Clock, Ema, arguments, autocast, load_state, save_pretrained, save_state
from backends.worlds import singing

STEPS, BETAS = 100, (1e-4, 0.06)  # the paper's schedule, linear
CROP = 192  # frames of a training crop of the denoiser and the boundary predictor
VOCODER_CROP = 64


def alpha_bars(device="cpu") -> torch.Tensor:
    """(100,) products of 1 - β up to each step."""
    return (1 - torch.linspace(*BETAS, STEPS, dtype=torch.float64)).cumprod(0).float().to(device)


class Corpus:
    """Songs as padded tensors on the device: mel bytes (S, F, 80), f0 (S, F), phones, notes, frames, note_frames (S, P); split (S,)."""

    def __init__(self, path: Path, device: str):
        data = np.load(path)
        songs, self.device = data["songs"], device

        def padded(name: str, column: int, dtype, empty: int = 0) -> torch.Tensor:
            ends = np.cumsum(songs[:, column])[:-1]
            parts = [torch.as_tensor(part.astype(dtype)) for part in np.split(data[name], ends)]
            return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=empty).to(device)

        self.mel, self.f0 = padded("mel", 0, np.uint8), padded("f0", 0, np.float32)
        self.phones, self.notes = padded("phones", 1, np.int64, -1), padded("note", 1, np.int64)
        self.frames, self.note_frames = padded("frames", 1, np.int64), padded("note_frames", 1, np.int64)
        self.length, self.split = torch.as_tensor(songs[:, 0]).to(device), torch.as_tensor(songs[:, 2])
        self.waves = [torch.as_tensor(w.astype(np.float32) / 32768).to(device) for w in np.split(data["wave"], np.cumsum(songs[:, 3]))[: len(songs)]]

    def rows(self, *splits: int) -> torch.Tensor:
        return torch.cat([(self.split == s).nonzero()[:, 0] for s in splits]).to(self.device)

    def score(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """phones, notes, note_frames, frames, f0 of these songs."""
        return self.phones[rows], self.notes[rows], self.note_frames[rows], self.frames[rows], self.f0[rows]

    def mask(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.arange(self.mel.shape[1], device=self.device) < self.length[rows, None]


def anew(args) -> bool:
    """Whether the part begins as nothing, not as what is committed."""
    return args.fresh or not (args.out / args.part / "config.json").exists()


class Training:
    """The loop that the parts share: `loss()` on a batch, `held_out(net)` -> figures, until the minutes are over."""

    def __init__(self, net, args, lr: float, decay: float = 0.999):
        self.args, self.lr, self.out, done = args, lr, args.out / args.part, 0
        if not anew(args):
            net.load_state_dict(type(net).from_pretrained(self.out, torch_dtype=torch.float32, low_cpu_mem_usage=False).state_dict())
            done = json.loads((self.out / "training.json").read_text())["steps"]
        self.net = net.to(args.device)
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=1e-2)
        self.ema, self.steps, self.state = Ema(net, decay), done, RUNS / f"singing-{args.part}.pt"
        self.ema.updates = done
        if not args.fresh and (state := load_state(self.state)) and state["steps"] >= done:
            net.load_state_dict(state["net"]), self.ema.net.load_state_dict(state["ema"]), self.optimiser.load_state_dict(state["optimiser"])
            self.steps = self.ema.updates = state["steps"]
        print(f"{args.part}: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, {self.steps} steps so far", flush=True)

    def save(self, figures: dict) -> None:
        save_state(self.state, net=self.net, ema=self.ema.net, optimiser=self.optimiser, steps=self.steps)
        save_pretrained(self.ema.net, self.out)
        (self.out / "training.json").write_text(json.dumps({"steps": self.steps, **figures}, indent=1) + "\n")

    def run(self, loss, held_out) -> None:
        clock, done = Clock(self.args.minutes), 0
        while not clock.over:
            # Warm up, hold, and come down to nothing over the last half.
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr * min(1, (done + 1) / 100) * min(1, clock.left / (clock.budget * 0.5)) + 1e-7
            value = loss()
            self.optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            self.ema.update(self.net)
            done, self.steps = done + 1, self.steps + 1
            if clock.every(20, "log"):
                with torch.no_grad():
                    figures = held_out(self.ema.net)
                print(f"{clock.seconds:5.0f} s  {self.steps} steps  loss {value.item():.4f}  held out {figures}", flush=True)
            if clock.every(90, "save"):
                self.save(figures)
        with torch.no_grad():
            figures = held_out(self.ema.net)
        self.save(figures)
        print(f"{self.args.part} done: {self.steps} steps, held out {figures}", flush=True)


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean structural similarity of two (B, F, bins) mels in [-1, 1], over 7×7 windows."""
    pool = lambda x: F.avg_pool2d(x[:, None], 7, 1)  # noqa: E731
    ma, mb = pool(a), pool(b)
    va, vb, cov = pool(a * a) - ma**2, pool(b * b) - mb**2, pool(a * b) - ma * mb
    c1, c2 = 0.02**2, 0.06**2
    return ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


def acoustic(args, corpus: Corpus) -> None:
    net = SingerAcoustic(phones=len(singing.PHONES))
    if anew(args):  # per bin, over the songs trained on
        rows = corpus.rows(singing.TRAIN)
        sung = singing.from_bytes(corpus.mel[rows][corpus.mask(rows)])
        net.low.copy_(sung.amin(0)), net.high.copy_(sung.amax(0))
    training = Training(net, args, args.lr or 1.5e-3)
    train, test = corpus.rows(singing.TRAIN), corpus.rows(singing.VALIDATION)

    def parts(net, rows):
        mel, _, mask, durations = net(*corpus.score(rows))
        true, mel = net.normalise(singing.from_bytes(corpus.mel[rows])) * mask[..., None], mel.float() * mask[..., None]
        there = corpus.phones[rows] >= 0
        slip = (durations.float() - corpus.frames[rows].clamp_min(1).log()).abs()
        return mel, true, (mel - true).abs().sum() / mask.sum() / mel.shape[2], (slip * there).sum() / there.sum()

    def loss():
        with autocast(args.device):
            mel, true, l1, slip = parts(net, train[torch.randint(len(train), (args.batch or 32,), device=args.device)])
        return l1 + 0.25 * (1 - ssim(mel, true)) + 0.1 * slip

    def held_out(net):
        _, _, l1, slip = parts(net, test)
        return {"mel_l1": round(l1.item(), 4), "log_duration_l1": round(slip.item(), 4)}

    training.run(loss, held_out)


@torch.no_grad()
def frozen(args, corpus: Corpus) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Conditions, auxiliary mels and true mels of all songs (S, F, ·), the mels normalised; where nothing is sung, silence."""
    net = SingerAcoustic.from_pretrained(args.out / "acoustic", torch_dtype=torch.float32).to(args.device).eval()
    made = [net(*corpus.score(rows))[:2] for rows in torch.arange(len(corpus.split), device=args.device).split(8)]
    conditions, blurry = torch.cat([c for _, c in made]), torch.cat([m for m, _ in made])
    return conditions, blurry, net.normalise(singing.from_bytes(corpus.mel))


def crops(corpus: Corpus, rows: torch.Tensor, n: int, *columns: torch.Tensor) -> list[torch.Tensor]:
    """n random crops of CROP frames, the same of every (S, F, ·) column."""
    picked = rows[torch.randint(len(rows), (n,), device=rows.device)]
    start = (torch.rand(n, device=rows.device) * (corpus.length[picked] - CROP)).long()
    at = start[:, None] + torch.arange(CROP, device=rows.device)
    return [column[picked[:, None], at] for column in columns]


def noised(x: torch.Tensor, t: torch.Tensor, bars: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    noise, bar = torch.randn_like(x), bars[t][:, None, None]
    return bar.sqrt() * x + (1 - bar).sqrt() * noise, noise


def denoiser(args, corpus: Corpus) -> None:
    conditions, _, mels = frozen(args, corpus)
    net, bars = SingerDenoiser(condition=conditions.shape[2]), alpha_bars(args.device)
    training = Training(net, args, args.lr or 1.5e-3)
    train, test = corpus.rows(singing.TRAIN), corpus.rows(singing.VALIDATION)

    def l1(net, rows, n, t):
        mel, condition = crops(corpus, rows, n, mels, conditions)
        x, noise = noised(mel, t, bars)
        with autocast(args.device):
            return (net(x, t, condition).float() - noise).abs().mean((1, 2))

    def loss():
        n = args.batch or 96
        return l1(net, train, n, torch.randint(STEPS, (n,), device=args.device)).mean()

    def held_out(net):
        kept = torch.get_rng_state()
        torch.manual_seed(1)
        t = torch.arange(STEPS, device=args.device)
        each = torch.stack([torch.cat([l1(net, test, len(part), part) for part in t.split(25)]) for _ in range(4)]).mean(0)
        torch.set_rng_state(kept)
        return {"noise_l1": round(each.mean().item(), 4), "by_quarter": [round(q, 4) for q in each.view(4, -1).mean(1).tolist()]}

    training.run(loss, held_out)


@torch.no_grad()
def readout(args, corpus: Corpus) -> None:
    """The denoiser's read-out by ridge regression of the noise that its output layer leaves over: exact, forwards only."""
    conditions, _, mels = frozen(args, corpus)
    net = SingerDenoiser.from_pretrained(args.out / "denoiser", torch_dtype=torch.float32, low_cpu_mem_usage=False).to(args.device).eval()
    net.read.zero_()
    bars, train, test = alpha_bars(args.device), corpus.rows(singing.TRAIN), corpus.rows(singing.VALIDATION)
    torch.manual_seed(args.seed)

    def rows(songs, n, low, high):
        mel, condition = crops(corpus, songs, n, mels, conditions)
        t = low + ((high - low + 1) * torch.rand(n, device=args.device)).long().clamp_max(high - low)
        x, noise = noised(mel, t, bars)
        own, read = net.features(x, t, condition)
        return own, read, noise, t

    def held_out():
        made = []
        for low in range(0, STEPS, 25):
            own, read, noise, t = rows(test, args.batch or 12, low, low + 24)
            full = own + torch.einsum("bfd,bdm->bfm", read, torch.einsum("bk,kdm->bdm", hats(t), net.read))
            made.append(round((full - noise).abs().mean().item(), 4))
        return {"noise_l1": round(sum(made) / 4, 4), "by_quarter": made}

    print("before", held_out(), flush=True)
    size, knots, clock = net.read.shape[1], len(KNOTS), Clock(args.minutes)
    gram, aim, done = torch.zeros(knots, 2, size, size, device=args.device), torch.zeros(knots, size, net.read.shape[2], device=args.device), 0
    while not clock.over:
        for j, (low, high) in enumerate(zip(KNOTS, KNOTS[1:])):  # of the Gram matrix, only blocks of neighbouring knots hold anything
            own, read, noise, t = rows(train, args.batch or 12, low, high)
            weight, read, left = hats(t)[:, [j, j + 1]].repeat_interleave(read.shape[1], 0), read.flatten(0, 1), (noise - own).flatten(0, 1)
            a, b = (read * w[:, None] for w in weight.T)
            gram[j, 0] += a.T @ a
            gram[j + 1, 0] += b.T @ b
            gram[j, 1] += a.T @ b
            aim[j] += a.T @ left
            aim[j + 1] += b.T @ left
        done += 1
    whole = torch.zeros(knots, size, knots, size, dtype=torch.float64)
    for j in range(knots):
        whole[j, :, j] = gram[j, 0].double().cpu()
        if j + 1 < knots:
            whole[j, :, j + 1], whole[j + 1, :, j] = gram[j, 1].double().cpu(), gram[j, 1].double().cpu().T
    whole = whole.view(knots * size, -1)
    whole.diagonal().add_(1e-4 * whole.diagonal().mean())
    solved = torch.linalg.solve(whole, aim.double().cpu().flatten(0, 1), left=True)
    net.read.copy_(solved.view_as(net.read))
    figures = (
        json.loads((args.out / "denoiser" / "training.json").read_text()) | held_out() | {"readout_frames": done * (knots - 1) * (args.batch or 12) * CROP}
    )
    save_pretrained(net, args.out / "denoiser")
    (args.out / "denoiser" / "training.json").write_text(json.dumps(figures, indent=1) + "\n")
    print("readout done:", figures, flush=True)


def boundary(args, corpus: Corpus) -> None:
    """True mels are 1, the auxiliary decoder's are 0, both noised to the same step."""
    _, blurry, mels = frozen(args, corpus)
    net, bars = BoundaryPredictor(), alpha_bars(args.device)
    training = Training(net, args, args.lr or 1e-3)
    train, test = corpus.rows(singing.TRAIN), corpus.rows(singing.VALIDATION)

    def judged(net, rows, t):
        pairs = torch.cat(crops(corpus, rows, len(t), mels, blurry))
        x, _ = noised(pairs, t.repeat(2), bars)
        with autocast(args.device):
            return net(x, t.repeat(2)).float().view(2, -1)

    def loss():
        true, made = judged(net, train, torch.randint(STEPS, (args.batch or 96,), device=args.device))
        return (F.softplus(-true) + F.softplus(made)).mean() / 2

    def held_out(net):
        true, made = judged(net, test, torch.arange(STEPS, device=args.device).repeat(4))
        right = ((true > 0).float() + (made < 0).float()).view(4, 4, -1).mean((0, 2)) / 2
        return {"accuracy_by_quarter": [round(r, 3) for r in right.tolist()]}

    training.run(loss, held_out)


def vocoder(args, corpus: Corpus) -> None:
    net = HarmonicNoiseVocoder()
    training = Training(net, args, args.lr or 1.5e-3)
    sung = {s: [i for i in corpus.rows(s).tolist() if len(corpus.waves[i])] for s in range(3)}
    wave = torch.cat([corpus.waves[i] for i in sung[singing.TRAIN]])
    f0 = torch.cat([corpus.f0[i, : len(corpus.waves[i]) // singing.HOP] for i in sung[singing.TRAIN]])
    edge = 4  # frames heard on either side by the mel but not compared
    span = torch.arange((VOCODER_CROP + 2 * edge) * singing.HOP, device=args.device)

    def loss():
        n = args.batch or 32
        start = torch.randint(len(f0) - VOCODER_CROP - 2 * edge, (n, 1), device=args.device)
        gain = torch.exp(torch.rand(n, 1, device=args.device) * 1.4 - 1.0)
        true = wave[start * singing.HOP + span] * gain
        mel = singing.log_mel(true)
        mel = mel + torch.randn_like(mel) * torch.rand(n, 1, 1, device=args.device) * 0.15  # what a model makes is not exact
        with autocast(args.device):
            made = net(mel, f0[start + torch.arange(VOCODER_CROP + 2 * edge, device=args.device)])
        cut = slice(edge * singing.HOP, -edge * singing.HOP)
        return stft_distance(made.float()[:, cut], true[:, cut])

    def held_out(net):
        """Over the melodies for validation that keep their sound."""
        made = []
        for i in sung[singing.TUNE] + sung[singing.VALIDATION]:
            w = corpus.waves[i][None]
            made.append(stft_distance(net(singing.log_mel(w), corpus.f0[i, : w.shape[1] // singing.HOP][None]), w).item())
        return {"stft_distance": round(sum(made) / len(made), 4)}

    training.run(loss, held_out)


def main() -> None:
    args = arguments("singing", part="acoustic", corpus="runs/singing.npz", batch=0, lr=0.0, fresh=False)
    if args.device != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = args.part != "vocoder"
    corpus = Corpus(Path(args.corpus), args.device)
    {"acoustic": acoustic, "denoiser": denoiser, "readout": readout, "boundary": boundary, "vocoder": vocoder}[args.part](args, corpus)


if __name__ == "__main__":
    main()
