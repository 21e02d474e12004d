"""Measure the speech networks on the twelve test clips (a reader, noises and rooms that no network heard): every arm, quality against steps.

    python -m backends.evaluate.speech            # half an hour of a core
    python -m backends.evaluate.speech --quick    # four clips, few numbers of steps

Writes figures.json beside the weights. Each row is the mean over clips; `clean` is the speech itself, the most that can be had.
"""

import argparse
import json
import time

import numpy as np
import torch

from backends import BadInput, inputs, models
from backends.audio import enhancers, ouve
from backends.audio.speech_models import PARTS, RATE, Chunks
from backends.audio.tasks import EnhanceSpeech
from backends.metrics import speech as figures
from backends.models import ASSETS
from backends.sound import resample
from backends.spec import Audio, Result
from backends.worlds.speech import HERE

WAYS = {  # name -> how `enhanced` goes it
    "StoRM": dict(part="storm"), "StoRM, posterior": dict(part="storm", posterior=True),
    "SGMSE+, corrector": dict(part="sgmse", corrector=True), "SGMSE+, posterior": dict(part="sgmse", posterior=True),
}  # fmt: skip
CURVE = {"StoRM": (5, 10, 20, 30), "StoRM, posterior": (1, 2, 3, 5, 10, 20), "SGMSE+, corrector": (5, 10, 20, 30), "SGMSE+, posterior": (3, 5, 10, 30)}
QUICK = {"StoRM": (5, 10), "StoRM, posterior": (3, 5), "SGMSE+, corrector": (10, 30), "SGMSE+, posterior": (5,)}
READY = ("deepfilternet", "nsnet2", "rnnoise")
LISTING = json.loads((HERE / "clips.json").read_text())


def clips(seed: int = 0) -> list[tuple[Audio, Audio]]:
    """(noisy, clean) of each test clip. Seed 0: as committed; others: each sentence with the noise of another clip, at 0 to 12 dB, dry."""
    pairs = [tuple(inputs.sound(HERE / f"{i:02d}-{kind}.flac").samples for kind in ("noisy", "clean")) for i in range(len(LISTING))]
    if seed:
        rng = np.random.default_rng(seed)
        noises = {i: noisy - clean for i, ((noisy, clean), about) in enumerate(zip(pairs, LISTING, strict=True)) if not about["room"]}
        for i, (_, clean) in enumerate(pairs):
            noise = np.roll(noises[rng.choice([other for other in noises if other != i])], rng.integers(len(clean)))
            noisy = clean + noise * np.sqrt((clean**2).mean() / (noise**2).mean()) * 10 ** (-rng.uniform(0, 12) / 20)
            peak = np.abs(noisy).max()
            pairs[i] = noisy / peak, clean / peak
    return [(Audio(noisy.astype(np.float32), RATE), Audio(clean.astype(np.float32), RATE)) for noisy, clean in pairs]


@torch.no_grad()
def enhanced(model, noisy: list[Audio], part: str, steps: int = 10, corrector: bool = False, posterior: bool = False, seed: int = 0) -> list[np.ndarray]:
    """(T,) at 16 kHz of each clip (all of one length), as the methods of audio/storm.py make them, in one batch; the paper's steps by default."""
    cut = [Chunks(sound, model) for sound in noisy]
    y = torch.cat([c.y for c in cut])
    x = y if part == "sgmse" else model.denoise(y)
    if part != "predictive":
        centre, beside = x, (y,) if part == "sgmse" else (y, x)
        *_, x = ouve.reverse(lambda x, t: model.score(part, x, t, *beside), centre, steps, torch.Generator().manual_seed(seed), corrector, posterior=posterior)
    return [c.join(x[i : i + 1]).samples for i, c in enumerate(cut)]


def ready(slug: str, noisy: list[Audio]) -> list[np.ndarray]:
    """The same of a ready enhancer; raises BadInput when its package is missing."""
    made = [next(e for e in getattr(enhancers, slug)(EnhanceSpeech(sound=sound), None) if isinstance(e, Result)).value for sound in noisy]
    return [resample(sound.samples, sound.rate, RATE) for sound in made]


def scores(made: list[np.ndarray], clean: list[Audio], opinions: bool = False) -> dict[str, np.ndarray]:
    """figure -> one value a clip; `opinions`: DNSMOS too, which takes seconds each."""
    pairs = [(m, c.samples[: len(m)]) for m, c in zip(made, clean, strict=True)]
    found = {
        "SI-SDR": [figures.si_sdr(*p) for p in pairs], "PESQ": [figures.pesq(*p) for p in pairs], "ESTOI": [figures.estoi(*p) for p in pairs],
        "log-spectral distance": [figures.log_spectral_distance(*p) for p in pairs], "detail": [figures.detail(m) for m in made],
    }  # fmt: skip
    if opinions:
        found["DNSMOS"] = [figures.dnsmos(m)["overall"] for m in made]
    return {name: np.array(values) for name, values in found.items()}


def evaluate(model, quick: bool = False) -> dict:
    noisy, clean = (list(sounds) for sounds in zip(*clips()[:: 3 if quick else 1], strict=True))
    arms = {
        "noisy": lambda: [s.samples for s in noisy],
        "clean": lambda: [s.samples for s in clean],
        "predictive": lambda: enhanced(model, noisy, "predictive"),
        **{f"{name}, {n} steps": lambda n=n, name=name: enhanced(model, noisy, steps=n, **WAYS[name])
           for name, numbers in (QUICK if quick else CURVE).items() for n in numbers},
        "StoRM, 10 steps with corrector": lambda: enhanced(model, noisy, "storm", 10, corrector=True),
        **{slug: lambda slug=slug: ready(slug, noisy) for slug in READY},
    }  # fmt: skip
    rows = []
    for name, make in arms.items():
        before, start = model.nfe, time.perf_counter()
        try:
            made = make()
        except BadInput as missing:
            print(missing)
            continue
        seconds = time.perf_counter() - start
        means = {k: round(float(v.mean()), 3) for k, v in scores(made, clean, opinions=not figures.missing()).items()}
        rows.append(
            {"arm": name, **means, "evaluations": (model.nfe - before) // len(noisy), "seconds_a_second": round(seconds / sum(s.seconds for s in noisy), 3)}
        )
        print(rows[-1], flush=True)
    return {"clips": len(noisy), "arms": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four clips, few numbers of steps")
    found = evaluate(models.load("speech"), parser.parse_args().quick)
    logs = {part: ASSETS / "speech" / part / "training.json" for part in PARTS}
    found["training"] = {part: json.loads(log.read_text()) for part, log in logs.items() if log.exists()}
    (ASSETS / "speech" / "figures.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
