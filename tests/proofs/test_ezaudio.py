"""EzAudio: guidance swells the latents, rescaled guidance doesn't, and loses neither agreement nor quality by it.

Its identities (φ = 1 keeps the deviation, zero terminal SNR, SOLA's start, φ = 0 is the baseline) stand in tests/test_text_to_audio.py.
"""

import pytest
from measure import interval

from backends import models
from backends.evaluate.sounds_dit import RESCALE, captions, distance, generate, heard
from backends.metrics import sounds as metric

CAPTIONS, LARGE, OWN = 48, 7.0, 5.0  # the card's large scale; the paper's own
ARMS = {  # name -> (scale, φ)
    "plain at 3": (3.0, 0.0), "plain at 5": (OWN, 0.0), "plain at 7": (LARGE, 0.0), "plain at 12": (12.0, 0.0),
    "rescaled at 3": (3.0, RESCALE), "rescaled at 5": (OWN, RESCALE), "rescaled at 7": (LARGE, RESCALE), "rescaled at 12": (12.0, RESCALE),
}  # fmt: skip


@pytest.mark.proof
def test_rescaling_keeps_large_scales_clean(proof):
    proof.models = ["ezaudio", "sounds-scorer"]
    model, texts = models.load("sounds-dit"), captions(proof.seed, CAPTIONS)
    data = model.card.figures["reference"]["clips_latent_deviation"]  # of held-out clips, measured by evaluate/sounds_dit.py
    wide, agree, far = {}, {}, {}
    for name, (scale, rescale) in ARMS.items():
        z = generate(model, texts, proof.seed, scale, rescale)
        waves = heard(model, z)
        features = metric.embed_waves(waves.clamp(-1, 1))
        wide[name], far[name] = float(z.std()) / data, distance(features)
        agree[name] = 100 * (features * metric.embed_texts(texts)).sum(1).cpu().numpy()
        beyond = 100 * float((waves.abs() > 1).float().mean())
        print(f"{name:15} deviation {wide[name]:.3f} of the data's, agreement {agree[name].mean():.1f}, Fréchet {far[name]:.2f}, overdriven {beyond:.2f} %")
    proof.state(
        "deviation of latents at scale 7 rescaled, off the data's", abs(wide["rescaled at 7"] - 1), "<=", 0.10, baseline=abs(wide["plain at 7"] - 1), n=CAPTIONS
    )
    proof.state(
        "deviation of latents at scale 7 without rescaling, over the data's", wide["plain at 7"] - 1, ">", 0.10, baseline=wide["rescaled at 7"] - 1, n=CAPTIONS
    )
    proof.state("deviation of latents at scale 12 rescaled, off the data's", abs(wide["rescaled at 12"] - 1), "<", abs(wide["plain at 12"] - 1),
                baseline=abs(wide["plain at 12"] - 1), n=CAPTIONS)  # fmt: skip
    gap = agree["rescaled at 7"] - agree["plain at 7"]
    band = interval(gap)
    proof.state(f"agreement at scale 7 rescaled over plain, 100 × cosine (low end of the 95 % interval; mean {gap.mean():.2f})", band[0], ">=", -2.0,
                baseline=float(agree["plain at 7"].mean()), n=CAPTIONS, interval=band)  # fmt: skip
    gap = agree["rescaled at 12"] - agree["rescaled at 5"]
    band = interval(gap)
    proof.state(f"agreement rescaled at scale 12 over 5, 100 × cosine (low end of the 95 % interval; mean {gap.mean():.2f})", band[0], ">=", -2.0,
                baseline=float(agree["rescaled at 5"].mean()), n=CAPTIONS, interval=band)  # fmt: skip
    for scale in ("7", "12"):
        proof.state(f"Fréchet distance from held-out clips at scale {scale} rescaled", far[f"rescaled at {scale}"], "<=", round(far[f"plain at {scale}"], 4),
                    baseline=far[f"plain at {scale}"], n=CAPTIONS)  # fmt: skip
    proof.state("Fréchet distance added from scale 3 to 12, rescaled", far["rescaled at 12"] - far["rescaled at 3"], "<", round(far["plain at 12"] - far["plain at 3"], 4),
                baseline=far["plain at 12"] - far["plain at 3"], n=CAPTIONS)  # fmt: skip
    proof.close()
