"""S³: the form holds more of what is said than free decoding does in as many evaluations, and invents no more.

Free decoding has the same prompt, filler included, and ends when its object stands, so that padding costs it nothing. That S³'s object
parses follows from how it is made: an identity, as the three fields and sixteen steps in tests/test_text_methods.py are. Without the null
token a slot must be filled: what it then invents is stated beside what S³ does.
"""

import json

import numpy as np
import pytest
from measure import interval

from backends import models
from backends.evaluate.text_mdm import decoded
from backends.spec import Result
from backends.text.decoding import Reader, Rule
from backends.text.forms import asked, fields_of
from backends.text.s3 import s3
from backends.text.tasks import FillForm
from backends.worlds import text

TEXTS, FIELDS = 60, 5
FREE, SLOTS = (16, 32, 64), (4, 8, 16)  # evaluations of free decoding, of 64 tokens, and of S³


def slots(model, job, steps: int, **knobs) -> str:
    return next(e.value.text for e in s3(job, model, steps=steps, **knobs) if isinstance(e, Result))


def free(model, job, steps: int) -> str:
    canvas = decoded(model, asked(model, job.text, fields_of(job.form), null=True), 64, (Reader, Rule(), 0), steps)
    return model.text(canvas.ids[canvas.start :])


def read(said: str) -> dict | None:
    try:
        form = json.loads(said)
    except ValueError:
        return None
    return form if isinstance(form, dict) else None


@pytest.mark.proof
def test_scaffolds_parse_and_invent_less(proof):
    proof.models = ["text-mdm"]
    model, rng = models.load("text-mdm"), np.random.default_rng([text.HELD_OUT_SEED, proof.seed])
    arms = {f"free in {n}": (free, n, {}) for n in FREE} | {f"S³ in {n}": (slots, n, {}) for n in SLOTS} | {"no null": (slots, 16, {"null": False})}
    valid, right, invented, spent = ({name: [] for name in arms} for _ in range(4))
    for _ in range(TEXTS):
        sentences, facts = text.person(rng, said=3)
        fields = [str(f) for f in rng.permutation(text.FIELDS)[:FIELDS]]
        for name, (fill, steps, knobs) in arms.items():
            before = model.nfe
            form = read(fill(model, FillForm(text=sentences, form=", ".join(fields)), steps, **knobs))
            held = {f: "" if form is None or form.get(f) in (None, text.NULL) else str(form[f]) for f in fields}
            valid[name].append(form is not None and list(form) == fields)
            right[name].append(np.mean([held[f] == facts[f] for f in fields if f in facts]))
            unsaid = [f for f in fields if f not in facts]
            invented[name].append(np.mean([bool(held[f]) for f in unsaid]) if unsaid else 0.0)
            spent[name].append(model.nfe - before)
    valid, right, invented, spent = ({k: np.array(v, float) for k, v in d.items()} for d in (valid, right, invented, spent))
    for name in arms:
        print(f"{name}: {100 * valid[name].mean():.0f} % the object asked for, {100 * right[name].mean():.1f} % of facts, {100 * invented[name].mean():.1f} % invented, "
              f"{spent[name].mean():.1f} evaluations")  # fmt: skip
    worst = min(valid[f"S³ in {n}"].mean() for n in SLOTS)
    proof.state("share of forms that are the asked object", worst, "==", 1, baseline=float(valid["free in 64"].mean()), n=TEXTS, kind="identity")
    for few, many, said in ((16, 16, "both in 16 evaluations"), (8, 64, "S³ in 8 evaluations, free decoding until its object stands")):
        gap, baseline = right[f"S³ in {few}"] - right[f"free in {many}"], float(right[f"free in {many}"].mean())
        proof.state(f"facts held by S³ over free decoding, {said} (share, low end of the 95 % interval)", interval(gap)[0], ">", 0, baseline=baseline, n=TEXTS, interval=interval(gap))  # fmt: skip
    share = spent["S³ in 8"].mean() / spent["free in 64"].mean()
    proof.state(
        "evaluations of S³ in 8, as a share of free decoding's until its object stands", share, "<=", 0.5, baseline=float(spent["free in 64"].mean()), n=TEXTS
    )
    gap = invented["S³ in 16"] - invented["free in 64"]
    proof.state("unsaid fields that S³ fills, more than free decoding does (share, high end of the 95 % interval)", interval(gap)[1], "<=", 0.05,
                baseline=float(invented["free in 64"].mean()), n=TEXTS, interval=interval(gap))  # fmt: skip
    gap = invented["S³ in 16"] - 0.5 * invented["no null"]
    proof.state("unsaid fields that S³ fills, less half of those without the null token (share, high end of the 95 % interval)", interval(gap)[1], "<=", 0,
                baseline=float(invented["no null"].mean()), n=TEXTS, interval=interval(gap))  # fmt: skip
    proof.close()
