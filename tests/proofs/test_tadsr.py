"""TAD-SR: one evaluation as good as the teacher's fifteen, and nearer to the original's detail than regression alone.

On crops of scikit-image's photographs, which no training saw, made four times smaller. Thresholds: the method card's 0.3 dB, else the
paper's claims as inequalities. The student of regression alone was not trained on as many samples as that of all three losses; statements that compare them say
how many. The teacher is measured both as ResShift draws and on the deterministic way that the students were taught. Its identities stand in tests/test_upscale.py.
"""

import json

import pytest
import torch
from measure import interval
from measure_upscale import drawn, figures, jobs, originals, seconds

from backends import models
from backends.restore.tadsr import student
from backends.restore.upscale_baselines import walked
from backends.restore.upscale_task import given
from backends.restore.upscaler import Canvas
from backends.train.sr_student import FOLDERS

N, TAUGHT = 48, "the teacher's deterministic way"


def samples(arm: str) -> int:
    """That the student of an arm was trained on."""
    return json.loads((models.ASSETS / FOLDERS[arm] / "training.json").read_text())["samples"]


@pytest.mark.proof
def test_one_step_does_what_fifteen_do(proof):
    proof.models = ["sr"]
    model, asked = models.load("photos-sr"), jobs(proof.seed, N)
    x = originals(asked)
    arms = {"one step": drawn(model, "tadsr", asked, teacher=False), "regression": drawn(model, "tadsr", asked, losses="regression alone", teacher=False),
            "teacher": drawn(model, "resshift", asked), TAUGHT: drawn(model, "resshift", asked, deterministic=True), "bicubic": drawn(model, "bicubic", asked)}  # fmt: skip
    found = {name: figures(made, x) for name, made in arms.items()}

    trained = {"one step": samples("full"), "regression": samples("regression")}

    def gain(one: str, other: str, figure: str, sign: int = 1, above: float = 0.0) -> None:
        a, b = found[one][figure], found[other][figure]
        band = interval(sign * (a - b))
        unequal = f", trained on {trained[one]} and {trained[other]} samples" if {one, other} == set(trained) else ""
        what = f"{figure} of {one} {'over' if sign > 0 else 'below'} that of {other}{unequal} (low end of the 95 % interval; means {a.mean():.3f} and {b.mean():.3f})"
        proof.state(what, band[0], ">", above, baseline=float(b.mean()), n=N, interval=band)

    gain("one step", "teacher", "PSNR", above=-0.3)
    gain("one step", TAUGHT, "PSNR", above=-0.3)
    gain("one step", "regression", "LPIPS-like", -1)
    gain("one step", "regression", "|ln high band|", -1)
    gain("one step", "bicubic", "LPIPS-like", -1)
    gain("one step", "bicubic", "|ln high band|", -1)
    gain("regression", "bicubic", "PSNR")
    whole = found["bicubic"]["LPIPS-like"].mean()
    for name in ("teacher", TAUGHT):
        band = interval((found["one step"]["LPIPS-like"] - found[name]["LPIPS-like"]) / whole)
        proof.state(f"LPIPS-like of one step less that of {name}, as a share of bicubic's (high end of the 95 % interval)", band[1], "<", 0.05,
                    baseline=float(found[name]["LPIPS-like"].mean()), n=N, interval=band)  # fmt: skip

    source = given(asked[0])
    canvas = Canvas(model, source.small, source.size)
    torch.set_num_threads(1)
    slow, quick = seconds(lambda: list(walked(canvas, True, 0))), seconds(lambda: student(canvas, "student", 0))
    proof.state(f"times as quick as the teacher, decoding aside ({1000 * quick:.0f} ms for {1000 * slow:.0f} ms)", slow / quick, ">", 10, n=3)
    proof.close()
