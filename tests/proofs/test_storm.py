"""StoRM: in five steps nearer to the speech than SGMSE+ in thirty with corrector, and with more detail than its own predictor alone.

StoRM as the studio has it, steps drawn from the posterior; SGMSE+ as its paper has it, and in as many steps drawn so too; both with the paper's sampler. The number of steps was chosen on seed 0.

On the twelve test clips, whose reader, noises and rooms no network heard, and as many mixtures of their sentences with other clips' noises (see
evaluate/speech.clips; other seeds: two other mixtures of each sentence). Intervals are over sentences. StoRM's score network has had 145,488 samples,
SGMSE+'s, as which it began, 101,448. Its identities stand in tests/test_speech.py.
"""

import numpy as np
import pytest
from measure import interval

from backends import models
from backends.evaluate.speech import WAYS, clips, enhanced, scores

AGAIN = 100  # the seed of a second mixture of each sentence, beyond the proof's own
ARMS = {  # name -> (how evaluate/speech.enhanced goes it, steps); one evaluation a step, two with the corrector, and one of D
    "StoRM@5": ("StoRM, posterior", 5), "SGMSE+@30": ("SGMSE+, corrector", 30), "SGMSE+@5": ("SGMSE+, posterior", 5),
    "StoRM@10, Euler": ("StoRM", 10), "SGMSE+@10": ("SGMSE+, corrector", 10),
}  # fmt: skip


@pytest.mark.proof
def test_regeneration_beats_both_its_parents(proof):
    pytest.importorskip("pesq"), pytest.importorskip("pystoi")
    proof.models = ["speech"]
    model, (noisy, clean) = models.load("speech"), zip(*clips(proof.seed), *clips(AGAIN + proof.seed), strict=True)
    found = {"noisy": scores([s.samples for s in noisy], clean), "clean": scores([s.samples for s in clean], clean)}
    found["D"] = scores(enhanced(model, noisy, "predictive"), clean)
    spent = {}
    for name, (way, n) in ARMS.items():
        before = model.nfe
        found[name] = scores(enhanced(model, noisy, steps=n, seed=proof.seed, **WAYS[way]), clean)
        spent[name] = (model.nfe - before) // len(noisy)

    def band_of(values) -> list[float]:
        return interval(values.reshape(2, -1).T)  # a row for each sentence

    def gain(one: str, other: str, figure: str, sign: int = 1) -> None:
        """The one's figure above the other's, clip by clip (below it where `sign` is −1)."""
        a, b = found[one][figure], found[other][figure]
        band = band_of(sign * (a - b))
        what = f"{figure} of {one} {'over' if sign > 0 else 'below'} that of {other} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
        proof.state(what, band[0], ">", 0, baseline=float(b.mean()), n=len(clean), interval=band)

    figures = ("SI-SDR", "PESQ", "ESTOI")
    for other in ("SGMSE+@30", "SGMSE+@5", "noisy"):
        for figure in figures:
            gain("StoRM@5", other, figure)
    for name in ("StoRM@5", "D"):
        found[name]["dB of detail too much or too little"] = np.abs(found[name]["detail"] - found["clean"]["detail"])
    for figure in figures:
        gain("StoRM@5", "D", figure)
    for figure in ("log-spectral distance", "dB of detail too much or too little"):
        gain("StoRM@5", "D", figure, -1)
    said = ", ".join(f"{name} {', '.join(f'{found[name][figure].mean():.3g}' for figure in figures)}" for name in ARMS)
    caught_up = all(found["StoRM@5"][figure].mean() >= found["SGMSE+@30"][figure].mean() for figure in figures)
    proof.state(f"evaluations of SGMSE+@30 for one of StoRM@5, 0 where it has not caught up (SI-SDR, PESQ, ESTOI: {said})",
                spent["SGMSE+@30"] / spent["StoRM@5"] * caught_up, ">=", 10, n=len(clean))  # fmt: skip
    # The paper's own sampler.
    for figure in figures:
        gain("StoRM@10, Euler", "SGMSE+@30", figure)
    for figure in figures:
        gain("StoRM@10, Euler", "SGMSE+@10", figure)
    proof.close()
