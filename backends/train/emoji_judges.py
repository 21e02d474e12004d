"""Train the judges of the emoji world on rendered scenes: two detectors and the scorer.

    python -m backends.train.emoji_judges --minutes 10                  # the detector on ImageNet features
    python -m backends.train.emoji_judges --minutes 10 --part second    # the independent detector
    python -m backends.train.emoji_judges --minutes 8 --part scorer     # text and picture (needs the first)
    python -m backends.train.emoji_judges --part figures                # held-out accuracies -> figures.json

Scenes are drawn on the fly; part of them is blurred, noised, recoloured or sent through the autoencoder, since the
judges look at generated pictures. Frozen features are kept in a rolling buffer and used several times.
"""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from backends.metrics import detector, frechet, perceptual, scorer
from backends.metrics.detector import GRID, SIDE
from backends.metrics.scorer import Scorer
from backends.train.common import MODELS, RUNS, Clock, Ema, arguments, autocast, load_state, save_state
from backends.train.emoji_ldm import Scenes
from backends.worlds import emoji

CHUNK, KEPT, REUSE, MOST = 512, 24, 10, 4
CROWDS = (0.55, 0.25, 0.1, 0.1)  # more objects a picture than the denoiser sees


def pixels_of(scenes) -> torch.Tensor:
    """(n, 3, 128, 128) in [-1, 1]."""
    x = torch.from_numpy(np.stack([emoji.render(s) for s in scenes])).permute(0, 3, 1, 2)
    return x.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def visible(scene) -> list[int]:
    """Indices of the objects of which at least a quarter can be seen."""
    if len(scene.objects) == 1:
        return [0]
    whole, seen = emoji.masks(scene, 64, visible=False).sum((1, 2)), emoji.masks(scene, 64).sum((1, 2))
    return [i for i in range(len(whole)) if seen[i] >= 0.25 * whole[i]]


def truth(scenes) -> dict[str, torch.Tensor]:
    """Concept (−1: no object), cell and box of up to four objects a scene."""
    concept, cell, box = (np.full((len(scenes), MOST), -1), np.zeros((len(scenes), MOST), int), np.zeros((len(scenes), MOST, 4), np.float32))
    for i, scene in enumerate(scenes):
        for j, (k, b) in enumerate((k, emoji.boxes(scene)[k] / SIDE * GRID) for k in visible(scene)):
            x, y = (b[0] + b[2]) / 2, (b[1] + b[3]) / 2
            cx, cy = min(int(x), GRID - 1), min(int(y), GRID - 1)
            concept[i, j], cell[i, j] = scene.objects[k].concept, cy * GRID + cx
            box[i, j] = x - cx, y - cy, np.log(max(b[2] - b[0], 0.5)), np.log(max(b[3] - b[1], 0.5))
    return {"concept": torch.from_numpy(concept), "cell": torch.from_numpy(cell), "box": torch.from_numpy(box)}


@torch.no_grad()
def degrade(x: torch.Tensor, generator: torch.Generator, vae=None) -> torch.Tensor:
    """Half of the pictures: recoloured, blurred, noised, passed through the autoencoder, each at its own odds."""

    def odds(p):
        return torch.rand(len(x), generator=generator) < p

    def uniform(low, high, *shape):
        return torch.rand(len(x), *shape, generator=generator) * (high - low) + low

    spoilt, x = odds(0.6), x.clone()
    if vae is not None and (rows := spoilt & odds(0.4)).any():
        with autocast(x.device.type):
            z = vae.encode(x[rows]).latent_dist.mean.float()
            z = z + torch.randn(z.shape, generator=generator) * uniform(0, 0.35, 1, 1, 1)[rows] * z.std()
            x[rows] = vae.decode(z).sample.float()
    for side in (48, 64, 88):  # made small and large again: blur
        rows = spoilt & odds(0.1)
        if rows.any():
            x[rows] = F.interpolate(F.interpolate(x[rows], size=(side, side), mode="area"), size=x.shape[-2:], mode="bilinear")
    rows = spoilt & odds(0.6)
    gain = uniform(0.75, 1.2, 1, 1, 1) * uniform(0.92, 1.08, 3, 1, 1)
    shift = uniform(-0.15, 0.15, 1, 1, 1) + uniform(-0.05, 0.05, 3, 1, 1)
    x[rows] = x[rows] * gain[rows] + shift[rows]
    rows = spoilt & odds(0.4)
    x[rows] += torch.randn((int(rows.sum()), *x.shape[1:]), generator=generator) * uniform(0, 0.15, 1, 1, 1)[rows]
    return x.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def load_vae():
    if not (MODELS / "emoji-ldm/vae/config.json").exists():
        return None
    from backends.nets.patch_vae import PatchAutoencoderKL

    vae = PatchAutoencoderKL.from_pretrained(MODELS / "emoji-ldm/vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    return vae.to(memory_format=torch.channels_last)


class Feed:
    """A rolling buffer of chunks, the newest KEPT of them; a thread makes the next one while the trainer draws."""

    def __init__(self, seed: int):
        self.seed, self.made, self.parts, self.drawn, self.vae = seed, 0, [], 0, load_vae()
        self.pool, self.coming = ThreadPoolExecutor(1), None

    def draw(self, n: int) -> list[torch.Tensor]:
        """`n` random rows of one chunk; waits for a new chunk only when the old ones have been used REUSE times."""
        self.coming = self.coming or self.pool.submit(self.make, self.made)
        if not self.parts or self.drawn >= CHUNK * REUSE or self.coming.done():
            self.parts, self.made, self.drawn = [*self.parts, self.coming.result()][-KEPT:], self.made + 1, 0
            self.coming = self.pool.submit(self.make, self.made)
        self.drawn += n
        rows = torch.randint(CHUNK, (n,))
        return [f[rows] for f in self.parts[int(torch.randint(len(self.parts), ()))]]


class Pictures(Feed):
    """Frozen inputs of a detector in bf16, then the truth's concept, cell and box."""

    def __init__(self, net, seed: int):
        super().__init__(seed)
        self.net = net

    def make(self, number: int) -> list[torch.Tensor]:
        rng = np.random.default_rng([self.seed, number])
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        scenes = [emoji.sample(rng, counts=CROWDS, common_share=0.45) for _ in range(CHUNK)]
        rows = []
        for i in range(0, CHUNK, 64):
            x = degrade(pixels_of(scenes[i : i + 64]), generator, self.vae)
            with torch.no_grad(), autocast("cpu"):
                rows.append([f.bfloat16() for f in self.net.inputs(x)])
        return [*(torch.cat(f).contiguous(memory_format=torch.channels_last) for f in zip(*rows)), *truth(scenes).values()]


def detection_loss(net, inputs, concept, cell, box) -> torch.Tensor:
    """Penalty-reduced focal loss on the centres, L1 on the boxes, cross-entropy on the concepts (arXiv 1904.07850)."""
    found = net(inputs)
    real = concept >= 0
    row, slot = real.nonzero(as_tuple=True)
    cell, box, concept = cell[row, slot], box[row, slot], concept[row, slot]
    x, y = cell % GRID, cell // GRID
    # A Gaussian about each centre, as wide as the object is large, within which a near miss costs little.
    axis = torch.arange(GRID)
    spread = (box[:, 2:].exp().mean(1) / 7).clamp_min(0.6)
    bell = torch.exp(-((axis - x[:, None]) ** 2 / (2 * spread[:, None] ** 2))[:, None, :] - ((axis - y[:, None]) ** 2 / (2 * spread[:, None] ** 2))[:, :, None])
    heat = torch.zeros(len(real), GRID, GRID)
    heat = heat.scatter_reduce(0, row[:, None, None].expand_as(bell), bell, "amax")
    logit = found.objectness
    p = logit.sigmoid()
    centre = torch.zeros(len(real), GRID, GRID, dtype=torch.bool)
    centre[row, y, x] = True
    hit = -((1 - p) ** 2 * F.logsigmoid(logit))[centre].sum()
    miss = -((1 - heat) ** 4 * p**2 * F.logsigmoid(-logit))[~centre].sum()
    boxes = F.l1_loss(found.box.flatten(2)[row, :, cell], box)
    # The concept is asked at the centre and, more lightly, one cell off it.
    shift = torch.randint(-1, 2, (2, len(x)))
    near = (y + shift[0]).clamp(0, GRID - 1) * GRID + (x + shift[1]).clamp(0, GRID - 1)
    inner = found.inner.flatten(2)
    at = torch.cat([inner[row, :, cell], inner[row, :, near]])
    each = F.cross_entropy(net.head.concept(at).float(), concept.repeat(2), reduction="none", label_smoothing=0.02)
    return (hit + miss) / len(x) + 0.5 * boxes + (each[: len(x)].mean() + 0.4 * each[len(x) :].mean())


def train_detector(args, name: str) -> None:
    net = detector.KINDS[name]().to(memory_format=torch.channels_last)
    path, step = RUNS / f"judge-{name}.pt", 0
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.02)
    ema = Ema(net, 0.998)
    buffer = Pictures(net, args.seed)
    if state := load_state(path):
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        step, buffer.made, ema.updates = state["step"], state["made"], 10_000
    test = held_out_scenes(128, crowd=None, seed=5)
    clock = Clock(args.minutes)

    def save():
        save_state(path, net=net, ema=ema.net, optimiser=optimiser, step=step, made=buffer.made)
        write(ema.net, name)

    while not clock.over:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 50) * max(0.02, min(1.0, clock.left / (0.6 * clock.budget)))
        *inputs, concept, cell, box = buffer.draw(args.batch)
        with autocast("cpu"):
            loss = detection_loss(net, inputs, concept, cell, box)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimiser.step()
        optimiser.zero_grad()
        ema.update(net)
        step += 1
        if clock.every(120, "log"):
            save()
            print(
                f"{clock.seconds / 60:5.1f} min  step {step}  scenes {buffer.made * CHUNK}  loss {loss.item():.3f}  {detection_figures(name, test)}", flush=True
            )
    save()


def write(net, name: str) -> None:
    detector.FOLDER.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in net.state_dict().items()}, detector.FOLDER / f"{name}.safetensors")
    detector.judge.cache_clear()


# --- the scorer: captions true and false -----------------------------------------------------------------

KINDS = ("object", "count", "side", "colour")


def spoil(scene, kind: str, rng: np.random.Generator):
    """The scene with one point changed, or None where it has no such point."""
    objects, ground = list(scene.objects), scene.background
    i = int(rng.integers(len(objects)))
    if kind == "object":
        pool = emoji.common() if rng.random() < 0.7 else range(len(emoji.concepts()))
        new = int(rng.choice([c for c in rng.choice(pool, 8) if c not in {o.concept for o in objects}]))
        old = objects[i].concept
        objects = [replace(o, concept=new) if o.concept == old else o for o in objects]
    elif kind == "count":
        if len(objects) == 4 or (len(objects) > 1 and rng.random() < 0.5):
            objects.pop(i)
        else:
            objects.append(objects[i])
    elif kind == "side":
        x = rng.random() < 0.6
        objects = [replace(o, x=1 - o.x) if x else replace(o, y=1 - o.y) for o in objects]
    elif ground.colours:
        colours = list(ground.colours)
        k = int(rng.integers(len(colours)))
        colours[k] = str(rng.choice([c for c in emoji.COLOURS if c not in colours]))
        ground = replace(ground, colours=tuple(colours))
    else:
        return None
    return emoji.Scene(tuple(objects), ground)


def pair(scene, kind: str, rng: np.random.Generator) -> tuple[str, str] | None:
    """(true caption, caption false in one point), worded alike; None where no wording tells them apart."""
    for _ in range(6):
        other, seed = spoil(scene, kind, rng), int(rng.integers(2**31))
        if other is None:
            return None
        a, b = (emoji.caption(s, np.random.default_rng(seed)) for s in (scene, other))
        if a != b:
            return a, b
    return None


def captions(scene, rng) -> list[str]:
    """A true caption and one false in a single point."""
    return list(next(p for k in rng.choice(KINDS, 4, replace=False, p=(0.2, 0.35, 0.3, 0.15)) if (p := pair(scene, str(k), rng))))


class Pairs(Feed):
    """Cells as the detector words them, and the token states of a true and a false caption, in bf16."""

    def __init__(self, net, seed: int):
        super().__init__(seed)
        self.net, self.judge, self.texts = net, detector.judge(), Scenes(None, "cpu", 0)
        self.texts.tokenizer = copy.deepcopy(self.texts.tokenizer)  # a tokenizer keeps its padding: none to share with another thread

    def make(self, number: int) -> list[torch.Tensor]:
        rng = np.random.default_rng([self.seed, 3, number])
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number + 50_000)
        scenes = [emoji.sample(rng, counts=(0.4, 0.35, 0.15, 0.1), common_share=0.65) for _ in range(CHUNK)]
        cells = []
        for i in range(0, CHUNK, 64):
            x = degrade(pixels_of(scenes[i : i + 64]), generator, self.vae)
            with torch.no_grad(), autocast("cpu"):
                cells.append(self.net.cells(self.judge, self.judge.inputs(x)).bfloat16())
        states = self.texts.states([t for s in scenes for t in captions(s, rng)], -1).unflatten(0, (CHUNK, 2))
        return [torch.cat(cells), states]


def train_scorer(args) -> None:
    net, path, step = Scorer(), RUNS / "judge-scorer.pt", 0
    buffer = Pairs(net, args.seed)
    states = buffer.texts.states([c.name for c in emoji.concepts()], -1).float()
    net.names.copy_(states.sum(1) / (states.abs().amax(2) > 0).sum(1, keepdim=True))
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.lr / 2, betas=(0.9, 0.98), weight_decay=0.05)
    ema = Ema(net, 0.995)
    if state := load_state(path):
        net.load_state_dict(state["net"]), ema.net.load_state_dict(state["ema"]), optimiser.load_state_dict(state["optimiser"])
        step, buffer.made, ema.updates = state["step"], state["made"], 10_000
    clock, n = Clock(args.minutes), args.batch
    test = held_out_scenes(64, crowd=None, seed=6)

    def save():
        save_state(path, net=net, ema=ema.net, optimiser=optimiser, step=step, made=buffer.made)
        write(ema.net, "scorer")
        scorer.scorer.cache_clear(), scorer._read.cache_clear()

    while not clock.over:
        for group in optimiser.param_groups:
            group["lr"] = args.lr / 2 * min(1, (step + 1) / 100) * max(0.02, min(1.0, clock.left / (0.6 * clock.budget)))
        cells, states = (part.float() for part in buffer.draw(n))
        with autocast("cpu"):
            seen, said = net.see(cells), net.read(states.transpose(0, 1).flatten(0, 1))
        logits = seen @ said.T * net.scale.exp().clamp(max=60)  # (n, 2n): the true captions first
        # Beside the plain contrast, each picture chooses among its own two captions: the hard part gets its own weight.
        own = torch.stack([logits.diagonal(k * n) for k in range(2)], 1)
        index = torch.arange(n)
        loss = F.cross_entropy(logits, index) + F.cross_entropy(logits[:, :n].T, index) + F.cross_entropy(own, torch.zeros_like(index))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        ema.update(net)
        step += 1
        if clock.every(100, "log"):
            save()
            print(f"{clock.seconds / 60:5.1f} min  step {step}  scenes {buffer.made * CHUNK}  loss {loss.item():.3f}  {scorer_figures(test)}", flush=True)
    save()


# --- held-out accuracy -----------------------------------------------------------------------------------


def held_out_scenes(n: int, crowd: int | None, seed: int = 0, **kw) -> list:
    """Scenes of seeds no training has seen, several objects as held-out pairs only; `crowd`: how many objects each shows."""
    rng = np.random.default_rng(emoji.HELD_OUT_SEED + 77 + seed)
    counts = (0.4, 0.3, 0.15, 0.15) if crowd is None else np.eye(4)[crowd - 1]
    return [emoji.sample(rng, held_out=True, counts=counts, **kw) for _ in range(n)]


def matched(found, scene) -> tuple[int, int, int]:
    """(objects found with the right concept, objects found, objects there), by concept and overlap ≥ 0.3."""
    there = [(scene.objects[k].concept, emoji.boxes(scene)[k] / SIDE) for k in visible(scene)]
    rest, right = list(there), 0
    for f in found:
        best = next((r for r in rest if r[0] == f.concept and detector.overlap(f.box, r[1]) >= 0.3), None)
        if best is not None:
            right, rest = right + 1, [r for r in rest if r is not best]
    return right, len(found), len(there)


def detection_figures(name: str, scenes, spoilt: bool = False) -> dict:
    """Recall and precision of objects, share of right counts, top-1 of the surest object in single-object scenes."""
    x = pixels_of(scenes)
    if spoilt:
        x = degrade(x, torch.Generator().manual_seed(1), load_vae())
    found = [f for part in x.split(64) for f in detector.detect(part, name)]
    rows = np.array([matched(f, s) for f, s in zip(found, scenes)])
    single = [f[0].concept == s.objects[0].concept if f else False for f, s in zip(found, scenes) if len(s.objects) == 1]
    out = {"recall": rows[:, 0].sum() / rows[:, 2].sum(), "precision": rows[:, 0].sum() / max(rows[:, 1].sum(), 1), "count": (rows[:, 1] == rows[:, 2]).mean()}
    return {k: round(float(v), 4) for k, v in (out | ({"top1": np.mean(single)} if single else {})).items()}


@torch.no_grad()
def scorer_figures(scenes, seed: int = 0) -> dict:
    """Retrieval of the right caption among 64, and how often the true caption beats one false in a single point."""
    rng = np.random.default_rng(emoji.HELD_OUT_SEED + seed)
    seen = torch.cat([scorer.embed_images(p) for p in pixels_of(scenes).split(32)])
    said = scorer.embed_texts([emoji.caption(s, rng) for s in scenes])
    right = [(a @ b.T).argmax(1) == torch.arange(len(a)) for a, b in zip(seen.split(64), said.split(64)) if len(a) == 64]
    out, every = {"retrieval_64": float(torch.cat(right).float().mean())}, []
    for kind in KINDS:
        rows = [(i, p) for i, s in enumerate(scenes) if (p := pair(s, kind, rng))]
        said = scorer.embed_texts([t for _, p in rows for t in p]).unflatten(0, (-1, 2))
        cosine = (seen[[i for i, _ in rows]][:, None] * said).sum(2)
        won = (cosine[:, 0] > cosine[:, 1]).float()
        out[f"hard_{kind}"], every = float(won.mean()), [*every, won]
    return {k: round(v, 4) for k, v in (out | {"hard": float(torch.cat(every).mean())}).items()}


@torch.no_grad()
def perceptual_figures(scenes) -> dict:
    """How often the LPIPS-like distance orders distortions rightly.

    `strength`: the weaker of two blurs, noises or autoencoder mishaps is nearer. `shift_or_blur`: a picture moved by
    two pixels is nearer than one blurred to the same error, where the mean squared error can't tell.
    """
    x, generator = pixels_of(scenes), torch.Generator().manual_seed(2)
    noise, vae = torch.randn(x.shape, generator=generator), load_vae()

    def blur(side):
        return F.interpolate(F.interpolate(x, size=(side, side), mode="area"), size=x.shape[-2:], mode="bicubic")

    kinds = [(blur(80), blur(56)), (x + 0.06 * noise, x + 0.1 * noise), (x * 0.95 + 0.03, x * 0.88 + 0.08)]
    if vae is not None:
        z = vae.encode(x).latent_dist.mean
        e = torch.randn(z.shape, generator=generator) * z.std()
        kinds.append(tuple(vae.decode(z + k * e).sample for k in (0.15, 0.3)))
    right = [perceptual.distance(x, a) < perceptual.distance(x, b) for a, b in kinds]
    moved = F.pad(x, (2, 0, 0, 0), mode="replicate")[..., :-2]
    error = (moved - x).square().mean((1, 2, 3))
    blurred = torch.stack([blur(side) for side in (24, 32, 40, 48, 56, 64, 80, 96, 112)])
    nearest = ((blurred - x).square().mean((2, 3, 4)) - error).abs().argmin(0)
    matched_blur = blurred[nearest, torch.arange(len(x))]
    shift = perceptual.distance(x, moved) < perceptual.distance(x, matched_blur)
    return {"strength": round(float(torch.stack(right).float().mean()), 4), "shift_or_blur": round(float(shift.float().mean()), 4)}


def figures(share: int = 1) -> dict:
    """Everything measured on held-out scenes; `share` divides their number."""
    n, out = 400 // share, {}
    crowds = {name: held_out_scenes(n, crowd, seed=10) for name, crowd in (("single", 1), ("two", 2), ("mixed", None))}
    for name in detector.KINDS:
        if detector.available(name):
            out[name] = {k: detection_figures(name, s) for k, s in crowds.items()} | {"mixed, degraded": detection_figures(name, crowds["mixed"], spoilt=True)}
    if scorer.available():
        out["scorer"] = scorer_figures(held_out_scenes(768 // share, crowd=None, seed=11), seed=11)
    out["perceptual"] = perceptual_figures(held_out_scenes(128 // share, crowd=None, seed=12))
    sets = [frechet.features(pixels_of(held_out_scenes(n, None, seed))) for seed in (13, 14)]
    out["fd_effnet_floor"] = {str(k): round(frechet.distance(sets[0][:k], sets[1][:k]), 3) for k in (n // 4, n // 2, n)}
    return out | {"scenes": n}


def main() -> None:
    args = arguments("emoji-judges", part="main", batch=64, lr=2e-3, threads=1, share=1)
    torch.set_num_threads(args.threads)
    if args.part in detector.KINDS:
        train_detector(args, args.part)
    elif args.part == "scorer":
        train_scorer(args)
    elif args.part == "figures":
        found = figures(args.share)
        (detector.FOLDER / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
