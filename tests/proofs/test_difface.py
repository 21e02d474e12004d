"""DifFace: degraded more than anything the restorer was trained on, its faces are nearer to good faces' detail and look than the restorer's.

On the 64 kept faces at 1.2 and 1.8 times the largest blur and loss of pixels of the training; other seeds degrade and noise them otherwise. N = 40: noise
hides more of 64 px than of the paper's 512 (see the method's card). What its halves do is told apart. The prior: against the restorer alone, against
the restorer with white noise of the size of what the prior changes, and by how its gain grows from a severity that the restorer was trained for. The
restorer: against the same walk begun at the picture itself.
The paper's FID wants thousands of faces. With 64 in 1280 dimensions a Fréchet distance is mostly error, and of faces against their own originals it
says how near each is to its own; so the look is compared by a kernel distance, which is unbiased at any number and leaves a face's pair with itself out.
Its floor: the good faces' halves against each other. Identities: tests/test_restore_face.py.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import models
from backends.evaluate import faces as measured
from backends.metrics import frechet, kernel

WITHIN, BEYOND = 0.8, (1.2, 1.8)  # severities: 1 is the edge of the training
FACES, FEW = 64, 32  # FEW: of these the severity within, and the prior begun at the picture itself
SPLITS = 200


def floor(good, seed: int) -> float:
    """What the kernel distance between halves of the good faces stays below in 97.5 % of random splits, whichever its sign."""
    rng, half = np.random.default_rng(seed), len(good) // 2
    halves = (rng.permutation(len(good))[: 2 * half].reshape(2, half) for _ in range(SPLITS))
    return float(np.percentile([abs(kernel.distance(kernel.pairs(good[a], good[b]))) for a, b in halves], 97.5))


def noised(x, other, seed: int):
    """Pictures with white noise, each with as much as `other` differs from it."""
    size = (other - x).square().mean((1, 2, 3), keepdim=True).sqrt()
    return (x + size * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)).clamp(-1, 1)


@pytest.mark.proof
def test_errors_contract_beyond_the_training(proof):
    proof.models = ["faces-restorer", "faces-pixels"]
    model, f, ours, noisy, bare = models.load("faces"), "restorer", f"DifFace, N = {measured.N}", "noisy", f"DifFace without its restorer, N = {measured.N}"

    def arms(y, names=("as it is", f, ours)):
        return {name: measured.made_by(name, model, y, proof.seed) for name in names}

    def scored(made, x):
        return {name: {k: v.numpy() for k, v in measured.scores(m, x).items()} for name, m in made.items()}

    def gain(what, rows, baseline=0.0):
        band = interval(rows)
        proof.state(f"{what} (low end of the 95 % interval; mean {rows.mean():.3f})", band[0], ">", 0, baseline=float(baseline), n=len(rows), interval=band)

    x, y = measured.severe(proof.seed, WITHIN, FEW, model.device)
    found = scored(arms(y, (f, ours)), x)
    within = found[f]["LPIPS-like"] - found[ours]["LPIPS-like"]
    for severity in BEYOND:
        at = f"severity {severity}: "
        x, y = measured.severe(proof.seed, severity, FACES, model.device)
        made = arms(y)
        made[noisy] = noised(made[f], made[ours], 2**31 + proof.seed)
        found, good = scored(made | {"good": x}, x), frechet.features(x)
        # How many times less sharp than the good face, as a logarithm, whichever way.
        short = {name: np.abs(np.log(found[name]["sharpness"] / found["good"]["sharpness"])) for name in (f, ours)}
        gain(f"{at}by how much nearer its sharpness comes to the good face's than the restorer's does, in natural logarithms; {short[ours].mean():.2f} and {short[f].mean():.2f}",
             short[f] - short[ours])  # fmt: skip
        beyond = found[f]["LPIPS-like"] - found[ours]["LPIPS-like"]
        gain(f"{at}LPIPS-like nearer to the good face than the restorer's", beyond, found[f]["LPIPS-like"].mean())
        looks = {name: kernel.pairs(frechet.features(m), good) for name, m in made.items()}
        far, least = {name: round(kernel.distance(table), 4) for name, table in looks.items()}, round(floor(good, proof.seed), 4)
        for other, whose in ((f, "the restorer's"), (noisy, "the restorer's with white noise of the size of what the prior changes")):
            band = kernel.interval(looks[other] - looks[ours])
            proof.state(f"{at}by how much less its kernel distance to good faces is than {whose} (low end of the 95 % interval; {far[ours]:.4g} and {far[other]:.4g}, "
                        f"as it is {far['as it is']:.4g}, floor {least:.2g})", band[0], ">", 0, baseline=far[other], n=FACES, interval=band)  # fmt: skip
        lost = found[f]["PSNR"] - found[ours]["PSNR"]
        band = interval(lost)
        proof.state(f"{at}dB of PSNR below the restorer, which was trained for it (high end of the 95 % interval; mean {lost.mean():.2f})", band[1], "<", 2.0,
                    baseline=0, n=FACES, interval=band)  # fmt: skip
        alone = scored(arms(y[:FEW], (bare,)), x[:FEW])[bare]
        for figure, sign in (("LPIPS-like", -1), ("PSNR", 1), ("identity", 1)):
            gain(f"{at}{figure} {'over' if sign > 0 else 'below'} that of the same prior begun at the picture itself", sign * (found[ours][figure][:FEW] - alone[figure]),
                 alone[figure].mean())  # fmt: skip
    gain(
        f"LPIPS-like: what the prior adds to the restorer at severity {severity}, over what it adds at {WITHIN}, within the training",
        beyond[:FEW] - within,
        within.mean(),
    )
    proof.close()
