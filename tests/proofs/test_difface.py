"""DifFace: degraded more than anything the restorer was trained on, its faces are nearer to good faces' detail and look than the restorer's.

On the 64 kept faces at severities from the edge of the training (1) to 1.8 times its blur and loss of pixels; other seeds degrade and noise them
otherwise. N = 40: noise hides more of 64 px than of the paper's 512 (see the method's card). Identities: tests/test_restore_face.py.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.evaluate import faces as measured
from backends.metrics import frechet

BEYOND = (1.2, 1.5, 1.8)


@pytest.mark.proof
def test_errors_contract_beyond_the_training(proof):
    proof.models = ["faces-restorer", "faces-pixels"]
    model, names = models.load("faces"), ("as it is", "restorer", f"DifFace, N = {measured.N}")
    found, looks = {}, {}
    for severity in (1.0, *BEYOND):
        x, y = measured.severe(proof.seed, severity, device=model.device)
        good = frechet.features(x)
        for name in (*names, f"DifFace without its restorer, N = {measured.N}"):
            made = measured.made_by(name, model, y, proof.seed)
            found[severity, name] = {k: v.numpy() for k, v in measured.scores(made, x).items()}
            looks[severity, name] = frechet.distance(frechet.features(made), good)
        found[severity, "good"] = {k: v.numpy() for k, v in measured.scores(x, x).items()}
    f, ours = names[1:]
    bare = f"DifFace without its restorer, N = {measured.N}"

    def short(severity, name):
        """How many times less sharp than the good face, as a logarithm, whichever way."""
        return np.abs(np.log(found[severity, name]["sharpness"] / found[severity, "good"]["sharpness"]))

    for severity in BEYOND:
        band = interval(short(severity, f) - short(severity, ours))
        proof.state(f"severity {severity}: by how much nearer its sharpness comes to the good face's than the restorer's does, in natural logarithms (low end of the 95 % interval; "
                    f"means {short(severity, ours).mean():.2f} and {short(severity, f).mean():.2f})", band[0], ">", 0, baseline=0, n=64, interval=band)  # fmt: skip
        proof.state(f"severity {severity}: Fréchet distance to the good faces (baseline: the restorer's)", looks[severity, ours], "<", round(looks[severity, f], 4),
                    baseline=round(looks[severity, f], 4), n=64)  # fmt: skip
        lost = found[severity, f]["PSNR"] - found[severity, ours]["PSNR"]
        proof.state(
            f"severity {severity}: dB of PSNR below the restorer, which was trained for it", lost.mean(), "<", 2.0, baseline=0, n=64, interval=interval(lost)
        )
        gain = found[severity, bare]["LPIPS-like"] - found[severity, ours]["LPIPS-like"]
        band = interval(gain)
        proof.state(f"severity {severity}: LPIPS-like nearer to the good face than the same prior begun at the picture itself (low end of the 95 % interval)", band[0], ">", 0,
                    baseline=float(found[severity, bare]["LPIPS-like"].mean()), n=64, interval=band)  # fmt: skip
    share = {severity: looks[severity, ours] / looks[severity, f] for severity in (1.0, *BEYOND)}
    curve = "; ".join(f"{s}: {looks[s, 'as it is']:.1f} as it is, {looks[s, f]:.1f} restorer, {looks[s, ours]:.1f} DifFace" for s in share)
    proof.state(
        f"Fréchet distance as a share of the restorer's, the mean beyond the training ({curve})",
        float(np.mean([share[s] for s in BEYOND])),
        "<",
        0.9,
        baseline=1,
        n=64,
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    proof.close()
