"""LAFR: a codebook on a frozen autoencoder's latents, and a change of low rank behind it, from 600 faces.

On the 64 kept faces, degraded as in training; other seeds degrade and noise them otherwise. The first two thresholds are those of the method's card,
which had not been measured. What each stage adds is told apart: no adapter, the codebook alone, and the prior behind it without its change of low rank.
Identities: tests/test_restore_face.py.
"""

import copy

import pytest
from measure import interval

from backends import models
from backends.evaluate import faces as measured
from backends.models import ASSETS
from backends.train.faces_lafr import perplexity

CODEBOOK, UNTUNED = "LAFR's codebook, decoded", "the prior without LAFR's change behind its codebook"


@pytest.mark.proof
def test_a_codebook_aligns_latents(proof):
    import diffusers
    import torch

    proof.models = ["faces-vae", "faces-ldm", "faces-lafr"]
    model = models.load("faces")
    x, y = measured.pairs(proof.seed, device=model.device)
    with torch.no_grad():
        low, high = model.encode(y), model.encode(x)
        off = {name: (z - high).abs().mean((1, 2, 3)).cpu().numpy() for name, z in
               (("z_L", low), ("z_A", measured.aligned(model, y)), ("encoder", measured.aligned(model, y, "encoder")))}  # fmt: skip
        codes = model.net["adapter"].config.size
        used = perplexity(model.net["adapter"](low)[1], codes)
    proof.state("mean |z_A − z_H| as a share of mean |z_L − z_H|", off["z_A"].mean() / off["z_L"].mean(), "<=", 0.6, baseline=1, n=64)
    proof.state("codes in use, the exponential of their entropy, as a share of a group's", used / codes, ">=", 0.3, baseline=1 / codes, n=64)
    band = interval(off["z_L"] - off["z_A"])
    proof.state("|z − z_H| that the adapter takes off (low end of the 95 % interval)", band[0], ">", 0, baseline=0, n=64, interval=band)
    parameters = {name: sum(p.numel() for p in model.net[name].parameters()) for name in ("adapter", "encoder")}
    tuned = 1 - off["encoder"].mean() / off["z_L"].mean()
    proof.state(f"share of what the tuned encoder takes off |z − z_H| that the adapter takes off with {parameters['adapter'] / parameters['encoder']:.0%} of its parameters",
                (1 - off["z_A"].mean() / off["z_L"].mean()) / tuned, ">=", 0.8, baseline=1, n=64)  # fmt: skip

    arms = ("LAFR", "LAFR's prior behind no adapter", "LAFR's prior behind the tuned encoder", CODEBOOK, "autoencoder alone", "as it is")
    bare = copy.copy(model)  # its prior as it was before the second stage
    prior = diffusers.UNet2DConditionModel.from_pretrained(ASSETS / "faces-ldm", torch_dtype=torch.float32).to(model.device)
    bare.net = torch.nn.ModuleDict(dict(model.net.items()) | {"finisher": prior})
    made = {name: measured.made_by(name, model, y, proof.seed) for name in arms} | {UNTUNED: measured.made_by("LAFR", bare, y, proof.seed)}
    found = {name: {k: v.numpy() for k, v in measured.scores(pictures, x).items()} for name, pictures in made.items()}

    def gain(one, other, figure, sign=1, least=0.0):
        a, b = found[one][figure], found[other][figure]
        band = interval(sign * (a - b))
        what = f"{figure} of {one} {'over' if sign > 0 else 'below'} that of {other} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
        proof.state(what, band[0], ">", least, baseline=float(b.mean()), n=64, interval=band)

    gain(CODEBOOK, "autoencoder alone", "PSNR")
    for figure, sign in (("PSNR", 1), ("LPIPS-like", -1), ("identity", 1)):
        gain("LAFR", "LAFR's prior behind no adapter", figure, sign)
        gain("LAFR", CODEBOOK, figure, sign)
        gain("LAFR", UNTUNED, figure, sign)
        gain("LAFR", "as it is", figure, sign)
    gain("LAFR", "LAFR's prior behind the tuned encoder", "PSNR", least=-0.3)  # as good as, within 0.3 dB
    proof.close()
