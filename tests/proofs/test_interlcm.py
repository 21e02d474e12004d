"""InterLCM: the picture as the first estimate beats the same model begun at noise, at equal evaluations, and img2img.

On the 64 kept faces, degraded as in training; other seeds degrade and noise them otherwise. Identities: tests/test_restore_face.py.
"""

import pytest
from measure import interval

from backends import models
from backends.evaluate import faces as measured

OURS, ONE, BARE = "InterLCM, 3 evaluations", "InterLCM, 1 evaluation", "InterLCM's encoders, from noise, 3 evaluations"
OTHERS = (BARE, "consistency model from noise, 3 evaluations", "consistency model, img2img, 3 evaluations")


@pytest.mark.proof
def test_the_picture_is_a_state(proof):
    proof.models = ["faces-vae", "faces-lcm", "faces-interlcm"]
    model = models.load("faces")
    x, y = measured.pairs(proof.seed, device=model.device)
    arms = (OURS, ONE, *OTHERS, "as it is", "autoencoder alone", f"DifFace, N = {measured.N}", "restorer")
    before, spent, found = 0, {}, {}
    for name in arms:
        model.nfe = before
        found[name] = {k: v.numpy() for k, v in measured.scores(measured.made_by(name, model, y, proof.seed), x).items()}
        spent[name] = model.nfe // len(x)

    def gain(one, other, figure, sign=1):
        a, b = found[one][figure], found[other][figure]
        band = interval(sign * (a - b))
        what = f"{figure} of {one} {'over' if sign > 0 else 'below'} that of {other} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
        proof.state(what, band[0], ">", 0, baseline=float(b.mean()), n=len(x), interval=band)

    for other in OTHERS:
        gain(OURS, other, "PSNR"), gain(OURS, other, "identity")
    for one in (OURS, ONE):
        gain(one, "as it is", "PSNR"), gain(one, "as it is", "identity"), gain(one, "as it is", "LPIPS-like", -1)
    many = f"DifFace, N = {measured.N}"
    gain(OURS, many, "PSNR"), gain(OURS, many, "LPIPS-like", -1)
    proof.state(f"evaluations of {many} for one of InterLCM", spent[many] / spent[OURS], ">=", 10, baseline=1, n=1)
    proof.close()
