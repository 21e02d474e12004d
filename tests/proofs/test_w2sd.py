"""W2SD: pictures of two objects agree better with their prompt; reversed, worse.

Its identities (no strength is DDIM, the inverse undoes a step, a mixture moves towards the ideal one) stand in
tests/test_image_methods.py.
"""

import numpy as np
import pytest
import torch
from measure import draw, interval, two_objects

from backends import models
from backends.image.sampling import Guided
from backends.image.w2sd import Reflection

STEPS, SCALE, PROMPTS, BATCH = 15, 5.5, 32, 8
ARMS = {
    "strong": (STEPS, None),
    "W2SD": (STEPS, Reflection()),
    "S2WD": (STEPS, Reflection(reverse=True)),
    "strong, as many evaluations": (36, None),  # (14·5 + 2) / 2
}


@pytest.mark.proof
def test_reflection_helps_and_its_reverse_hurts(proof):
    from backends.metrics import detector, scorer
    from backends.metrics.image import present, wanted

    model, texts = models.load("emoji-ldm"), two_objects(proof.seed, PROMPTS)
    agree, shown = ({name: [] for name in ARMS} for _ in range(2))
    for start in range(0, PROMPTS, BATCH):
        part = texts[start : start + BATCH]
        seeds = [proof.seed + start + i for i in range(len(part))]
        for name, (steps, walk) in ARMS.items():
            pixels = draw(model, part, seeds, Guided(SCALE), steps, walk)
            with torch.no_grad():
                agree[name] += (100 * scorer.cosines(pixels, part)).tolist()
                shown[name] += [present(found, wanted(text)) for found, text in zip(detector.detect(pixels), part, strict=True)]
    agree, shown = ({k: np.array(v, float) for k, v in d.items()} for d in (agree, shown))
    for other in ("strong", "S2WD", "strong, as many evaluations"):
        gain = agree["W2SD"] - agree[other]
        band = interval(gain)
        proof.state(f"agreement gained over {other}, 100 × cosine (low end of the 95 % interval; mean {gain.mean():.2f})", band[0], ">", 0,
                    baseline=float(agree[other].mean()), n=PROMPTS, interval=band)  # fmt: skip
    gain = shown["W2SD"] - shown["strong"]
    proof.state(
        "share of the two objects present, gained over strong", gain.mean(), ">", 0, baseline=float(shown["strong"].mean()), n=PROMPTS, interval=interval(gain)
    )
    proof.close()
