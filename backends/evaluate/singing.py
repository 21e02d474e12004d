"""Measure the singer: where its boundaries lie, and each arm against recordings of the held-out tunes.

    python -m backends.evaluate.singing --corpus runs/singing.npz    # the boundaries too, over the corpus' validation melodies
    python -m backends.evaluate.singing                              # the arms only

Writes boundary/validation.json and figures.json beside the weights. Of the mels: `sharpness` in time and in frequency (variation against the
recording's, 1 as much) and `mcd` in dB, with the recording's own durations, so that frames stand beside frames. Of the sounds: MCD, F0 RMSE in
cents and their ratio to real time. Copy synthesis, the vocoder on the recording's mel, bounds them; the recording's own pitch error stands beside it.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from backends import models
from backends.audio.diffsinger import boundary_a, boundary_b
from backends.audio.shallow import begin, chain
from backends.audio.singer import STEPS, Singer, Song
from backends.metrics import singing as metric
from backends.spec import Audio
from backends.worlds import singing

CROP = 192  # frames: what the classifier was trained on


def arms(model: Singer) -> dict[str, tuple[int, str, int]]:
    """name -> k, sampler, speedup."""
    seen = model.validation
    a, b = boundary_a(seen["error"], seen["square"], model.bars), boundary_b(np.array(seen["gap"]))
    return {"auxiliary": (0, "ddpm", 1), "shallow (A)": (a, "ddpm", 1), "shallow (B)": (b, "ddpm", 1), "full": (STEPS, "ddpm", 1),
            "shallow (A), PLMS ×5": (a, "plms", 5), "full, PLMS ×5": (STEPS, "plms", 5)}  # fmt: skip


@torch.no_grad()
def made(model: Singer, song: Song, k: int, sampler: str = "ddpm", speedup: int = 1, seed: int = 0) -> torch.Tensor:
    """The scaled mel (1, F, 80) of a song, as the studio makes it."""
    x, condition = model.start(song)
    if k:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        for _, x in chain(model, begin(x, k, model.bars, noise), condition, k, sampler, speedup, generator):  # noqa: B007, B020
            pass
    return x


@torch.no_grad()
def validation(model: Singer, corpus: Path, draws: int = 4) -> dict:
    """What the boundaries are computed from (see Singer), over crops of the validation melodies."""
    from backends.nets.diffsinger import BoundaryPredictor
    from backends.train.singing import Corpus

    data = Corpus(corpus, "cpu")
    judge = BoundaryPredictor.from_pretrained(models.ASSETS / model.card.source / "boundary", torch_dtype=torch.float32).eval()
    true, blurry = [], []
    for row in data.rows(singing.VALIDATION)[:, None]:
        mel, _ = model.acoustic(*data.score(row))[:2]
        whole = int(data.length[row]) // CROP * CROP
        true += model.normalise(singing.from_bytes(data.mel[row, :whole]))[0].split(CROP)
        blurry += mel[0, :whole].split(CROP)
    true, blurry = torch.stack(true), torch.stack(blurry)
    generator, gaps = torch.Generator().manual_seed(0), torch.zeros(len(true), STEPS)
    for t, bar in enumerate(model.bars):
        steps = torch.full((len(true),), t)
        for _ in range(draws):
            said = [judge(bar.sqrt() * m + (1 - bar).sqrt() * torch.randn(m.shape, generator=generator), steps).sigmoid() for m in (true, blurry)]
            gaps[:, t] += (said[0] - said[1]).abs() / draws
    return {"error": float((true - blurry).square().mean()), "square": float(true.square().mean()), "items": len(true),
            "gap": [[round(v, 3) for v in row] for row in gaps.tolist()]}  # fmt: skip


def of_mels(model: Singer, seeds: int = 1) -> dict[str, dict]:
    found = {}
    for name, (k, sampler, speedup) in arms(model).items():
        rows = []
        for tune, own in singing.recordings().items():
            true = singing.from_bytes(torch.as_tensor(own["mel"])).numpy()
            for seed in range(seeds if k else 1):
                mel = model.log_mel(made(model, Song.recorded(tune), k, sampler, speedup, seed))[0].numpy()
                rows.append([*(metric.variation(mel) / metric.variation(true)), metric.mcd(mel, true)])
        over_time, over_frequency, mcd = np.mean(rows, 0)
        found[name] = {"k": k, "sharpness_time": round(over_time, 3), "sharpness_frequency": round(over_frequency, 3), "mcd": round(mcd, 2)}
    return found


def of_sounds(model: Singer) -> dict[str, dict]:
    """Over the held-out tunes, with the recording's durations and pitch; seconds are of decoder, chain and vocoder."""

    def judged(sound: Audio, tune: str) -> list[float]:
        own = singing.recordings()[tune]
        true = singing.from_bytes(torch.as_tensor(own["mel"])).numpy()
        heard = metric.f0_errors(sound, own["f0"].astype(float), np.repeat(own["note"] > 0, own["frames"]))
        return [metric.mcd(metric.heard(sound), true), *((heard[0], 100 * heard[1]) if heard else (np.nan, np.nan))]

    found, tunes = {}, singing.recordings()
    kept = [t for t in tunes if len(tunes[t]["wave"])]
    found["recording"] = [[*judged(Audio((tunes[t]["wave"] / 32768).astype(np.float32), singing.RATE), t), np.nan] for t in kept]
    for name, vocoder in (("copy synthesis", "neural"), ("copy synthesis, Griffin-Lim", "griffin-lim")):
        mels = {t: model.normalise(singing.from_bytes(torch.as_tensor(tunes[t]["mel"])))[None] for t in tunes}
        found[name] = [[*judged(model.voice(mels[t], Song.recorded(t), vocoder, 0), t), np.nan] for t in tunes]
    for name, (k, sampler, speedup) in arms(model).items():
        found[name] = []
        for tune in tunes:
            start = time.perf_counter()
            song = Song.recorded(tune)
            sound = model.voice(made(model, song, k, sampler, speedup), song, "neural", 0)
            spent = time.perf_counter() - start
            found[name].append([*judged(sound, tune), spent / song.seconds])
    return {name: {key: round(float(np.mean(column)), 3) for key, column in zip(("mcd", "f0_rmse_cents", "semitone_off_percent", "real_time_factor"), zip(*rows)) if np.isfinite(column).all()}
            for name, rows in found.items()}  # fmt: skip


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path)
    args = parser.parse_args()
    model = models.load("singer")
    folder = models.ASSETS / model.card.source
    if args.corpus:
        model.validation = validation(model, args.corpus)
        (folder / "boundary" / "validation.json").write_text(json.dumps(model.validation) + "\n")
    seen = model.validation
    figures = {
        "boundary": {"error": round(seen["error"], 5), "square": round(seen["square"], 4), "A": arms(model)["shallow (A)"][0], "B": arms(model)["shallow (B)"][0]},
        "mels": of_mels(model), "sounds": of_sounds(model), "threads": torch.get_num_threads(),
    }  # fmt: skip
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
