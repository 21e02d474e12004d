"""Measure the sounds world's model: its autoencoder, its sounds against their captions, and what guidance does to them at each scale.

    python -m backends.evaluate.sounds_dit --corpus FOLDER          # 128 captions: about half an hour of one core
    python -m backends.evaluate.sounds_dit --corpus FOLDER --quick  # 32

Writes figures.json beside the weights. Captions are of combinations that neither the model nor the scorer was trained on. FOLDER (what
worlds/sounds_build.py wrote) gives the clips themselves, which are not committed: through the same scorer they show what could be reached
at most, through the autoencoder what is lost there. `clip_features` of 512 other clips are left beside the scorer, as they are and through the
autoencoder: the measure of the Fréchet distances, the second that of what the denoiser adds, for no latents could sound better.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from backends import models
from backends.audio.latent_audio import LatentAudio, denoise
from backends.denoiser import together
from backends.image.sampling import Guided
from backends.metrics import frechet
from backends.metrics import sounds as metric
from backends.spec import Audio
from backends.train.common import autocast
from backends.worlds import sounds

STEPS, ETA, SCALE, RESCALE, BATCH = 25, 1.0, 5.0, 0.75, 16
SCALES = (1.0, 3.0, 5.0, 7.0, 10.0, 15.0)
HELD_OUT_SEED = 7_000_000
FEATURES = metric.FOLDER / "clip_features.safetensors"
GROUP = 32  # captions among which the right one is to be found


def captions(seed: int, n: int) -> list[str]:
    """Of held-out clips; no two alike."""
    return [sounds.caption(plan, rng) for plan, rng in plans(seed, n)]


def plans(seed: int, n: int) -> list[tuple[sounds.Plan, np.random.Generator]]:
    """Held-out plans, no two alike, each with the generator that words and lays it out."""
    rng, found = np.random.default_rng(HELD_OUT_SEED + seed), {}
    while len(found) < n:
        plan = sounds.sample(rng, ("test",))
        found.setdefault(plan, np.random.default_rng([HELD_OUT_SEED + seed, len(found)]))
    return list(found.items())


@torch.no_grad()
def generate(model: LatentAudio, texts: list[str], seed: int, scale: float, rescale: float = 0.0, steps: int = STEPS, eta: float = ETA) -> torch.Tensor:
    """(n, C, L) latents of clips as long as the world's, BATCH captions at a time, in bf16 where that is faster; clip i starts from noise `seed` + i."""
    (uncond,), out = model.encode(""), []
    for at in range(0, len(texts), BATCH):
        part = texts[at : at + BATCH]
        seeds = [HELD_OUT_SEED + seed + at + i for i in range(len(part))]
        with autocast(str(model.device)):
            *_, (x, _) = denoise(model, together(model.encode(*part)), uncond, seeds, sounds.SAMPLES // model.hop, steps, Guided(scale, rescale), eta)
        out.append(x.float())
    return torch.cat(out)


@torch.no_grad()
def heard(model: LatentAudio, latents: torch.Tensor) -> torch.Tensor:
    """(n, T) waves, not clipped."""
    return torch.cat([model.waves(part).cpu() for part in latents.split(BATCH)])


def judged(waves: torch.Tensor, texts: list[str]) -> dict[str, float]:
    """Agreement with the captions; share of clips whose own caption is the likeliest of GROUP; distance from held-out clips' features."""
    audio, text = metric.embed_waves(waves.clamp(-1, 1)), metric.embed_texts(texts)
    groups = [(a @ t.T).argmax(1).cpu() == torch.arange(len(a)) for a, t in zip(audio.split(GROUP), text.split(GROUP))]
    out = {"agreement": 100 * float((audio * text).sum(1).mean()), "right_of_32": float(torch.cat(groups).float().mean())}
    if FEATURES.exists():
        out |= {"frechet": distance(audio), "frechet_autoencoded": distance(audio, "autoencoded")}
    return out


def distance(features: torch.Tensor, of: str = "features") -> float:
    """Fréchet distance, times 100, of the scorer's features from those of held-out clips; `of` "autoencoded": through the autoencoder."""
    return 100 * frechet.distance(features.double().cpu(), load_file(FEATURES)[of].double())


def curve(model: LatentAudio, texts: list[str], seed: int = 0) -> list[dict]:
    """What each scale does, without and with rescaling."""
    rows = []
    for rescale in (0.0, RESCALE):
        for scale in SCALES[1:] if rescale else SCALES:
            z = generate(model, texts, seed, scale, rescale)
            waves = heard(model, z)
            rows.append({"scale": scale, "rescale": rescale, "latent_deviation": float(z.std()), "overdriven_percent": 100 * float((waves.abs() > 1).float().mean())}
                        | judged(waves, texts))  # fmt: skip
            print({k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    return rows


@torch.no_grad()
def reference(model: LatentAudio, corpus: Path, n: int) -> dict:
    """The held-out clips themselves and what the autoencoder makes of them; leaves the features of 512 others in FEATURES."""
    from backends.train.sounds_vae import held_out, spectral_distance

    bank = sounds.Bank(corpus / "bank.npz")

    def clips(seed, many):
        return [sounds.render(bank, torch.from_numpy(sounds.events(plan, bank, rng))[None])[0] for plan, rng in plans(seed, many)]

    def encoded(waves):
        return torch.cat([model.latents(w.numpy()) for w in waves])

    others = torch.stack(clips(9_999, 512))
    measured = {"features": others, "autoencoded": heard(model, encoded(others)).clamp(-1, 1)}
    save_file({name: metric.embed_waves(waves).half().cpu() for name, waves in measured.items()}, FEATURES)
    texts, waves = captions(0, n), torch.stack(clips(0, n))
    latents = encoded(waves)
    made = heard(model, latents)
    return {
        "clips": judged(waves, texts), "autoencoder": judged(made, texts),
        "autoencoder_spectral_distance": float(spectral_distance(made, waves)), "autoencoder_snr_db": held_out(model.vae, waves[:, None].to(model.device))[1],
        "autoencoder_mel_db": float(np.mean([metric.mel_distance(Audio(a.numpy(), model.rate), Audio(b.numpy(), model.rate)) for a, b in zip(made[:32], waves)])),
        "clips_latent_deviation": float(latents.std()),
    }  # fmt: skip


def evaluate(n: int, corpus: Path | None) -> dict:
    model = models.load("sounds-dit")
    path = models.ASSETS / model.card.source / "figures.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    out = {"reference": reference(model, corpus, n) if corpus else before.get("reference", {}), "captions": n, "sampler": f"DDIM, {STEPS} steps, η {ETA:g}"}
    start = time.perf_counter()
    generate(model, captions(0, 1), 0, SCALE, RESCALE)
    out["seconds_25_steps"] = time.perf_counter() - start
    out["scales"] = curve(model, captions(0, n))
    training = models.ASSETS / model.card.source / "dit" / "training.json"
    if training.exists():
        out["training"] = json.loads(training.read_text())
    out = rounded(out)
    path.write_text(json.dumps(out, indent=1) + "\n")
    return out


def rounded(value):
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="folder with bank.npz; without it the figures of the clips themselves stay as they were")
    parser.add_argument("--quick", action="store_true", help="a quarter of the captions")
    args = parser.parse_args()
    print(json.dumps(evaluate(32 if args.quick else 128, args.corpus), indent=1))


if __name__ == "__main__":
    main()
