"""InterLCM: the picture as the first estimate beats the same model begun at noise, at equal evaluations, and img2img.

On 32 kept faces, degraded as in training; other seeds take the other 32 or the same, degrade and noise them otherwise. Every arm that ends in the consistency
model gets the same wavelet colour fix, and is compared without it once more. What the fix does by itself is measured three ways: on the degraded picture (nothing),
on an empty picture (its low band), and on what the autoencoder keeps of the degraded picture. Identities: tests/test_restore_face.py.
"""

import time

import pytest
from measure import interval

from backends import models
from backends.evaluate import faces as measured
from backends.evaluate.faces import NO_FIX

OURS, ONE, BARE = "InterLCM, 3 evaluations", "InterLCM, 1 evaluation", "InterLCM's encoders, from noise, 3 evaluations"
OTHERS = (BARE, "consistency model from noise, 3 evaluations", "consistency model, img2img, 3 evaluations")
LOW, KEPT = "what the colour fix puts in, alone", "autoencoder alone, colour fix"


@pytest.mark.proof
def test_the_picture_is_a_state(proof):
    proof.models = ["faces-vae", "faces-lcm", "faces-interlcm"]
    model = models.load("faces")
    x, y = (part[32 * (proof.seed % 2) :][:32] for part in measured.pairs(proof.seed, device=model.device))
    arms = (OURS, ONE, *OTHERS, *(name + NO_FIX for name in (OURS, *OTHERS)), LOW, KEPT, "as it is", f"DifFace, N = {measured.N}")
    seconds, found = {}, {}
    for name in arms:
        start = time.perf_counter()
        made = measured.made_by(name, model, y, proof.seed)
        seconds[name] = time.perf_counter() - start
        found[name] = {k: v.numpy() for k, v in measured.scores(made, x).items()}

    def gain(one, other, figure, sign=1):
        a, b = found[one][figure], found[other][figure]
        band = interval(sign * (a - b))
        what = f"{figure} of {one} {'over' if sign > 0 else 'below'} that of {other} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
        proof.state(what, band[0], ">", 0, baseline=float(b.mean()), n=len(x), interval=band)

    for other in OTHERS:
        gain(OURS, other, "PSNR"), gain(OURS, other, "identity")
        gain(OURS + NO_FIX, other + NO_FIX, "PSNR"), gain(OURS + NO_FIX, other + NO_FIX, "identity")
    gain(OURS, OURS + NO_FIX, "PSNR"), gain(OURS, OURS + NO_FIX, "identity")
    gain(OURS, LOW, "PSNR"), gain(OURS, KEPT, "PSNR"), gain(OURS, KEPT, "identity"), gain(OURS, KEPT, "LPIPS-like", -1)
    for one in (OURS, ONE):
        gain(one, "as it is", "PSNR"), gain(one, "as it is", "identity"), gain(one, "as it is", "LPIPS-like", -1)
    many = f"DifFace, N = {measured.N}"
    gain(OURS, many, "PSNR"), gain(OURS, many, "LPIPS-like", -1), gain(OURS, many, "identity")
    proof.state(
        f"seconds of {OURS}, as a share of those of {many}, encoders and all", seconds[OURS] / seconds[many], "<=", 0.2, baseline=seconds[many], n=len(x)
    )
    proof.close()
