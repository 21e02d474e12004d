"""S³: the form holds at least as much of what is said as free decoding, and with the null token invents half as much or less.

That it parses and what it costs follow from how it is made. Its identity (three fields, sixteen steps) stands in tests/test_text_methods.py.
"""

import json

import numpy as np
import pytest
from measure import interval

from backends import models
from backends.spec import Result
from backends.text.s3 import free_form, s3
from backends.text.tasks import FillForm
from backends.worlds import text

TEXTS, FIELDS = 60, 5


def filled(model, job, method, **knobs) -> tuple[dict | None, int]:
    """(the object that came out, evaluations)."""
    before = model.nfe
    said = next(e.value.text for e in method(job, model, **knobs) if isinstance(e, Result))
    try:
        form = json.loads(said)
    except ValueError:
        form = None
    return form if isinstance(form, dict) else None, model.nfe - before


@pytest.mark.proof
def test_scaffolds_parse_and_invent_less(proof):
    proof.models = ["text-mdm"]
    model, rng = models.load("text-mdm"), np.random.default_rng([text.HELD_OUT_SEED, proof.seed])
    arms = {"free": (free_form, {}), "no null": (s3, {"null": False}), "S³": (s3, {})}
    valid, right, invented, spent = ({name: [] for name in arms} for _ in range(4))
    for _ in range(TEXTS):
        sentences, facts = text.person(rng, said=3)
        fields = [str(f) for f in rng.permutation(text.FIELDS)[:FIELDS]]
        for name, (method, knobs) in arms.items():
            form, nfe = filled(model, FillForm(text=sentences, form=", ".join(fields)), method, **knobs)
            held = {f: "" if form is None or form.get(f) in (None, text.NULL) else str(form[f]) for f in fields}
            valid[name].append(form is not None and list(form) == fields)
            right[name].append(np.mean([held[f] == facts[f] for f in fields if f in facts]))
            unsaid = [f for f in fields if f not in facts]
            invented[name].append(np.mean([bool(held[f]) for f in unsaid]) if unsaid else 0.0)
            spent[name].append(nfe)
    valid, right, invented = ({k: np.array(v, float) for k, v in d.items()} for d in (valid, right, invented))
    proof.state("share of forms that are the asked object", valid["S³"].mean(), "==", 1, baseline=float(valid["free"].mean()), n=TEXTS, kind="identity")
    gap = right["S³"] - right["free"]
    proof.state("facts held, gained over free decoding (share)", gap.mean(), ">=", 0, baseline=float(right["free"].mean()), n=TEXTS, interval=interval(gap))
    ratio = invented["S³"].mean() / max(invented["no null"].mean(), 1e-9)
    proof.state("invented values, as a share of those without the null token", ratio, "<=", 0.5, baseline=float(invented["no null"].mean()), n=TEXTS,
                interval=interval(invented["S³"] - invented["no null"]))  # fmt: skip
    gap = invented["free"] - invented["S³"]
    proof.state(
        "invented values, less than free decoding's (share)", gap.mean(), ">=", 0, baseline=float(invented["free"].mean()), n=TEXTS, interval=interval(gap)
    )
    proof.state("evaluations, as a share of free decoding's", np.mean(spent["S³"]) / np.mean(spent["free"]), "<=", 0.5, n=TEXTS, kind="identity")
    proof.close()
