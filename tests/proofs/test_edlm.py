"""EDLM: in few steps, choosing among candidates by the energy gives more right answers than the plain sampler; a turned sign fewer.

Its identity (two tied tokens) stands in tests/test_text_methods.py. Right answers judge, not the energy; the plain sampler also gets as
many layers' passes as EDLM spends, the energies' included.
"""

import numpy as np
import pytest
import torch
from measure import interval

from backends import embedded, models
from backends.text import edlm
from backends.text.canvas import Canvas
from backends.worlds import text

STEPS, K, PROBLEMS = 4, 8, 240


def written(model, prompt: str, length: int, k: int, kind: str, steps: int, seed: int) -> str:
    torch.manual_seed(seed)
    canvas = Canvas.after(model, model.encode(prompt, length), length)
    sign = -1 if kind == "sign turned" else 1

    def energy(ids, under):
        if kind == "autoregressive":
            return edlm.twin_energy(canvas, ids) + under
        return sign * edlm.learnt_energy(canvas, ids)

    with torch.no_grad():
        list(edlm.denoise(canvas, steps, k, (0.0, 1.0), 1.0, energy))
    return model.text(canvas.ids[canvas.start :])


@pytest.mark.proof
def test_whole_answers_fit_together(proof):
    proof.models = ["text-mdm", "text-energy", "text-twin"]
    model, rng = models.load("text-mdm"), np.random.default_rng([text.HELD_OUT_SEED, proof.seed])
    some = [text.draw(rng, kind, for_test=True) for kind in ("sum", "countdown", "sudoku") for _ in range(PROBLEMS // 3)]
    depth = model.net.config.num_hidden_layers
    layers = {"trained": edlm.energy_network().config.layers, "autoregressive": embedded.load_twin()[0].config.num_hidden_layers}
    arms = {"plain": (1, "trained", STEPS), "trained": (K, "trained", STEPS), "sign turned": (K, "sign turned", STEPS), "autoregressive": (K, "autoregressive", STEPS),
            **{f"plain in as many layers' passes as {name}": (1, "trained", round(STEPS * (1 + K * n / depth))) for name, n in layers.items()}}  # fmt: skip
    right = {name: np.array([text.check(e.prompt, written(model, e.prompt, text.LENGTHS[e.kind], *arm, proof.seed + i)) for i, e in enumerate(some)]) for name, arm in arms.items()}  # fmt: skip
    for one, other in (
        ("trained", "plain"),
        ("trained", "sign turned"),
        ("autoregressive", "plain"),
        *((name, f"plain in as many layers' passes as {name}") for name in layers),
    ):
        gap = right[one] - right[other]
        proof.state(f"right answers in {STEPS} steps, {one} over {other} (low end of the 95 % interval)", interval(gap)[0], ">", 0, baseline=float(right[other].mean()),
                    n=PROBLEMS, interval=interval(gap))  # fmt: skip
    proof.close()
