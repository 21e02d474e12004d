"""StoRM: in ten steps nearer to the speech than SGMSE+ in thirty with corrector, and with more detail than its own predictor alone.

On the twelve test clips, whose reader, noises and rooms no network heard, and as many mixtures of their sentences with other clips' noises (see
evaluate/speech.clips; other seeds: two other mixtures of each sentence). Intervals are drawn by sentence. Its identities stand in tests/test_speech.py.
"""

import numpy as np
import pytest
from measure import interval

from backends import models
from backends.evaluate.speech import clips, enhanced, scores

STORM, SGMSE = (5, 10), (10, 30)  # numbers of steps; SGMSE+ evaluates twice in each, for its corrector
AGAIN = 100  # the seed of a second mixture of each sentence, beyond the proof's own


@pytest.mark.proof
def test_regeneration_beats_both_its_parents(proof):
    pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    proof.models = ["speech"]
    model, (noisy, clean) = models.load("speech"), zip(*clips(proof.seed), *clips(AGAIN + proof.seed), strict=True)
    found = {"noisy": scores([s.samples for s in noisy], clean), "clean": scores([s.samples for s in clean], clean)}
    found["D"] = scores(enhanced(model, noisy, "predictive"), clean)
    for n in STORM:
        found[f"StoRM@{n}"] = scores(enhanced(model, noisy, "storm", n, seed=proof.seed), clean)
    found["StoRM@10 with corrector"] = scores(enhanced(model, noisy, "storm", 10, corrector=True, seed=proof.seed), clean)
    for n in SGMSE:
        found[f"SGMSE+@{n}"] = scores(enhanced(model, noisy, "sgmse", n, corrector=True, seed=proof.seed), clean)

    def band_of(values) -> list[float]:
        return interval(values.reshape(2, -1).T)  # a row for each sentence

    def gain(one: str, other: str, figure: str, sign: int = 1) -> None:
        """The one's figure above the other's, clip by clip (below it where `sign` is −1)."""
        a, b = found[one][figure], found[other][figure]
        band = band_of(sign * (a - b))
        what = f"{figure} of {one} {'over' if sign > 0 else 'below'} that of {other} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
        proof.state(what, band[0], ">", 0, baseline=float(b.mean()), n=len(clean), interval=band)

    for figure in ("SI-SDR", "PESQ", "ESTOI"):
        gain("StoRM@10", "SGMSE+@30", figure)
    for figure in ("PESQ", "ESTOI", "SI-SDR"):
        gain("StoRM@10", "noisy", figure)
    gain("StoRM@10", "D", "PESQ")
    gain("StoRM@10", "D", "log-spectral distance", -1)
    gain("StoRM@10", "D", "detail")
    away = {name: np.abs(found[name]["detail"] - found["clean"]["detail"]) for name in ("StoRM@10", "D")}
    proof.state("dB by which StoRM@10's log-spectral detail differs from the clean sound's (baseline: D's)", away["StoRM@10"].mean(), "<",
                round(float(away["D"].mean()), 4), baseline=float(away["D"].mean()), n=len(clean), interval=band_of(away["StoRM@10"]))  # fmt: skip

    # Quality against the number of steps.
    for figure in ("SI-SDR", "PESQ"):
        gain("StoRM@10", "SGMSE+@10", figure)
        gain("StoRM@10 with corrector", "SGMSE+@10", figure)  # of as many evaluations
    target = {figure: found["SGMSE+@30"][figure].mean() for figure in ("SI-SDR", "PESQ")}
    enough = [n for n in STORM if all(found[f"StoRM@{n}"][figure].mean() >= value for figure, value in target.items())]
    curve = "; ".join(f"{name} {of['SI-SDR'].mean():.2f} dB, PESQ {of['PESQ'].mean():.2f}" for name, of in found.items() if "@" in name)
    proof.state(f"evaluations of SGMSE+@30 for one of StoRM when it has caught up in SI-SDR and PESQ ({curve})", 60 / (min(enough) + 1) if enough else 0,
                ">=", 10, n=len(clean))  # fmt: skip
    proof.close()
