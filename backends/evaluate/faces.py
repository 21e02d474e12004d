"""Measure every arm of “Restore a face” on the 64 kept faces, degraded as in training and harder, and DifFace against the severity.

    python -m backends.evaluate.faces            # a quarter of an hour on two cores, a minute on a GPU
    python -m backends.evaluate.faces --quick    # 16 faces, less of DifFace

Writes figures.json beside the restorer's weights. Each row is the mean over faces; `FD` is the Fréchet distance to the good faces themselves, 64 of them
in 1280 dimensions: it ranks arms on these faces and is no distance between all faces (DifFace's proof takes metrics/kernel.py).
Every arm that ends in the consistency model gets InterLCM's wavelet colour fix, its baselines too; “, no colour fix” names the same arm without.
"""

import argparse
import functools
import json
import time

import torch

from backends import models
from backends.metrics import faces as judges
from backends.metrics import frechet, perceptual
from backends.metrics.restored_faces import alike, apart, sharpness
from backends.models import ASSETS
from backends.restore.aligned import finish
from backends.restore.aligned import timesteps as low_times
from backends.restore.consistency import timesteps, walk
from backends.restore.difface import backwards
from backends.restore.interlcm import low_band, recoloured
from backends.worlds import faces

KINDS = {"trained": faces.TRAINED, "harder": faces.HARDER}
SEVERITY = (0.5, 0.8, 1.0, 1.2, 1.5, 1.8)  # 1: the edge of what is trained on
N = 40  # DifFace's


def pairs(seed: int, ranges=faces.TRAINED, n: int = 64, device: str = "cpu"):
    """(good, degraded) faces, (n, 3, 64, 64) in [-1, 1]; another seed degrades the same faces otherwise."""
    x = faces.as_tensor(faces.kept()[:n])
    how = faces.harm(n, ranges, torch.Generator().manual_seed(seed))
    return _both(x, faces.degrade(x, how, torch.Generator().manual_seed(seed + 1)), device)


def severe(seed: int, severity: float, n: int = 64, device: str = "cpu"):
    """The same at one severity: blur and factor as many times the largest that are trained on, some noise and JPEG within what is."""
    x = faces.as_tensor(faces.kept()[:n])
    how = faces.chosen(blur=1.875 * severity, factor=4 * severity, noise=10, quality=40)
    return _both(x, faces.degrade(x, how, torch.Generator().manual_seed(seed)), device)


def _both(x, y, device: str):
    return tuple((p * 2 - 1).to(device, memory_format=torch.channels_last) for p in (x, y))


def difface(model, y, seed: int = 0, N: int = N, eta: float = 0.5, restored: bool = True):
    rough = model.restore(y) if restored else y
    *_, (_, made) = backwards(rough, N, eta, model.bars["pixels"], model.noise_in, model.noise(y, seed))
    return made


def interlcm(model, y, seed: int = 0, steps: int = 4, fix: bool = True):
    context, z = model.mended(model.prompt(y)), model.encode(y)
    *_, (_, z) = walk(z, timesteps(steps)[1:], model.bars["latents"], model.noise(z, seed), lambda x, t: model.consistency(x, t, context, y))
    return decoded(model, z, y, fix)


def decoded(model, z, y, fix: bool):
    """A picture of latents, its low band that of y where `fix` says so."""
    return recoloured(model.decode(z), y) if fix else model.decode(z)


def from_noise(model, y, seed: int = 0, steps: int = 3, encoders: bool = False, fix: bool = True):
    """The consistency model from noise; with `encoders`, InterLCM's beside it."""
    context, z = model.prompt(y), model.encode(y)
    context, picture = (model.mended(context), y) if encoders else (context, None)
    draw, (first, *rest) = model.noise(z, seed), timesteps(steps)
    z = model.consistency(draw(), first, context, picture)
    *_, (_, z) = ((first, z), *walk(z, rest, model.bars["latents"], draw, lambda x, t: model.consistency(x, t, context, picture)))
    return decoded(model, z, y, fix)


def img2img(model, y, seed: int = 0, steps: int = 3, strength: float = 0.5, fix: bool = True):
    context, z = model.prompt(y), model.encode(y)
    *_, (_, z) = walk(z, timesteps(steps, end=strength), model.bars["latents"], model.noise(z, seed), lambda x, t: model.consistency(x, t, context))
    return decoded(model, z, y, fix)


def aligned(model, y, align: str = "codebook"):
    """z_A, or what stands for it."""
    if align == "encoder":
        return model.net["encoder"](y)
    return model.net["adapter"](model.encode(y))[0] if align == "codebook" else model.encode(y)


def lafr(model, y, seed: int = 0, align: str = "codebook", steps: int = 1):
    z = aligned(model, y, align)
    *_, (_, z) = ((0, z), *finish(z, low_times(steps), model.bars["latents"], model.noise(z, seed)(), model.finisher))
    return model.decode(z)


NO_FIX = ", no colour fix"
FIXED = {
    "InterLCM, 3 evaluations": ("interlcm", interlcm),
    "InterLCM, 1 evaluation": ("interlcm", functools.partial(interlcm, steps=2)),
    "InterLCM's encoders, from noise, 3 evaluations": ("interlcm", functools.partial(from_noise, encoders=True)),
    "consistency model from noise, 3 evaluations": ("lcm", from_noise),
    "consistency model, img2img, 3 evaluations": ("lcm", img2img),
}
ARMS = {
    "as it is": ("face", lambda m, y, s: y),
    "restorer": ("difface", lambda m, y, s: m.restore(y)),
    f"DifFace, N = {N}": ("difface", difface),
    "DifFace, N = 100": ("difface", lambda m, y, s: difface(m, y, s, 100)),
    f"DifFace without its restorer, N = {N}": ("difface", lambda m, y, s: difface(m, y, s, restored=False)),
    **FIXED,
    **{name + NO_FIX: (needs, functools.partial(make, fix=False)) for name, (needs, make) in FIXED.items()},
    "what the colour fix puts in, alone": ("face", lambda m, y, s: low_band(y)),
    "LAFR": ("lafr", lafr),
    "LAFR, 2 evaluations": ("lafr", lambda m, y, s: lafr(m, y, s, steps=2)),
    "LAFR's codebook, decoded": ("lafr", lambda m, y, s: lafr(m, y, s, steps=0)),
    "LAFR's prior behind no adapter": ("lafr", lambda m, y, s: lafr(m, y, s, "none")),
    "LAFR's prior behind the tuned encoder": ("lafr", lambda m, y, s: lafr(m, y, s, "encoder")),
    "autoencoder alone": ("lcm", lambda m, y, s: m.decode(m.encode(y))),
    "autoencoder alone, colour fix": ("lcm", lambda m, y, s: decoded(m, m.encode(y), y, True)),
}


def scores(made, x) -> dict[str, torch.Tensor]:
    """figure -> one value a face, on the CPU."""
    found = {
        "PSNR": -10 * ((made - x) / 2).square().mean((1, 2, 3)).clamp_min(1e-10).log10(), "LPIPS-like": perceptual.distance(made, x), "identity": alike(made, x),
        "points off, %": apart(made, x), "sharpness": sharpness(made), "face": judges.points(made)[0],
    }  # fmt: skip
    return {k: v.cpu() for k, v in found.items()}


@torch.no_grad()
def made_by(arm, model, y, seed: int = 0, batch: int = 64):
    """What an arm of ARMS, or a function of (model, y, seed), makes of degraded faces."""
    make = ARMS[arm][1] if isinstance(arm, str) else arm
    return torch.cat([make(model, part, seed + i) for i, part in enumerate(y.split(batch))])


@torch.no_grad()
def evaluate(model, quick: bool = False) -> dict:
    n = 16 if quick else 64
    found = {"faces": n}
    for kind, ranges in KINDS.items():
        x, y = pairs(0, ranges, n, model.device)
        features, rows = frechet.features(x), []
        for name, (needs, _) in {"good faces": ("face", None), **ARMS}.items():
            if needs not in model.card.capabilities or (quick and ("N = 100" in name or "without" in name)):
                continue
            before, start = model.nfe, time.perf_counter()
            made = x if name == "good faces" else made_by(name, model, y)
            seconds = time.perf_counter() - start
            means = {k: round(float(v.mean()), 3) for k, v in scores(made, x).items()}
            fd = frechet.distance(frechet.features(made), features)
            rows.append({"arm": name, **means, "FD": round(fd, 2), "evaluations": (model.nfe - before) // n, "seconds_a_face": round(seconds / n, 4)})
            print(kind, rows[-1], flush=True)
        found[kind] = rows
    found["severity"] = []
    for severity in SEVERITY[2::3] if quick else SEVERITY:
        x, y = severe(0, severity, n, model.device)
        features, row = frechet.features(x), {"severity": severity}
        for name in ("as it is", "restorer", f"DifFace, N = {N}"):
            made = made_by(name, model, y)
            row[name] = {k: round(float(v.mean()), 3) for k, v in scores(made, x).items()} | {
                "FD": round(frechet.distance(frechet.features(made), features), 2)
            }
        found["severity"].append(row)
        print(row, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="16 faces")
    found = evaluate(models.load("faces"), parser.parse_args().quick)
    folders = ("restorer", "pixels", "vae", "ldm", "lcm", "interlcm", "lafr/adapter", "lafr/encoder", "lafr/prior")
    logs = {name: ASSETS / f"faces-{name}" / "training.json" for name in folders}
    found["training"] = {name: json.loads(log.read_text()) for name, log in logs.items() if log.exists()}
    (ASSETS / "faces-restorer" / "figures.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
