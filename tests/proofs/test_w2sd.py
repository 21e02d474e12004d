"""W2SD: pictures of two objects agree better with their prompt; reversed, worse; by a weaker model as by less guidance.

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

# Fifty steps, as in the paper: few leave a residual that has no direction. The method supposes that the strong side falls short of the
# ideal: on this model guidance 2.5 does, and the paper's 5.5 does not.
STEPS, SCALE, PROMPTS, BATCH = 50, 2.5, 40, 8
ARMS = {  # name -> (steps, guidance, walk)
    "strong": (STEPS, SCALE, None),
    "W2SD": (STEPS, SCALE, Reflection()),
    "S2WD": (STEPS, SCALE, Reflection(reverse=True)),
    "strong, as many evaluations": (124, SCALE, None),  # (49·5 + 2) / 2
    "more guidance": (STEPS, 2 * SCALE - 1, None),  # what the reflection amounts to, to first order; it must be more than that
    "equal sides": (STEPS, SCALE, Reflection(weak_scale=SCALE)),
    "W2SD by a weaker model": (STEPS, SCALE, Reflection(pair="model")),
    "strong at 5.5": (STEPS, 5.5, None),
    "W2SD at 5.5": (STEPS, 5.5, Reflection()),
}


@pytest.mark.proof
def test_reflection_helps_and_its_reverse_hurts(proof):
    from backends.metrics import detector, scorer
    from backends.metrics.image import present, wanted

    proof.models.append("emoji-ldm-weak")
    model, texts = models.load("emoji-ldm"), two_objects(proof.seed, PROMPTS)
    agree, shown = ({name: [] for name in ARMS} for _ in range(2))
    for start in range(0, PROMPTS, BATCH):
        part = texts[start : start + BATCH]
        seeds = [proof.seed + start + i for i in range(len(part))]
        for name, (steps, scale, walk) in ARMS.items():
            pixels = draw(model, part, seeds, Guided(scale), steps, walk)
            with torch.no_grad():
                agree[name] += (100 * scorer.cosines(pixels, part)).tolist()
                shown[name] += [present(found, wanted(text)) for found, text in zip(detector.detect(pixels), part, strict=True)]
    agree, shown = ({k: np.array(v, float) for k, v in d.items()} for d in (agree, shown))
    for one, other in (
        ("W2SD", "strong"), ("W2SD", "S2WD"), ("strong", "S2WD"), ("W2SD", "strong, as many evaluations"), ("W2SD", "more guidance"),
        ("W2SD by a weaker model", "strong"), ("W2SD at 5.5", "strong at 5.5"),
    ):  # fmt: skip
        band = interval(agree[one] - agree[other])
        proof.state(f"agreement of {one} over {other}, 100 × cosine (low end of the 95 % interval; mean {(agree[one] - agree[other]).mean():.2f})",
                    band[0], ">", 0, baseline=float(agree[other].mean()), n=PROMPTS, interval=band)  # fmt: skip
    gap = agree["equal sides"] - agree["strong"]
    proof.state(
        "agreement changed by equal sides, 100 × cosine", abs(gap.mean()), "<=", 1.5, baseline=float(agree["strong"].mean()), n=PROMPTS, interval=interval(gap)
    )
    gain = shown["W2SD"] - shown["strong"]
    proof.state("share of the two objects present, gained over strong", gain.mean(), ">", 0, baseline=float(shown["strong"].mean()), n=PROMPTS,
                interval=interval(gain))  # fmt: skip
    proof.close()
