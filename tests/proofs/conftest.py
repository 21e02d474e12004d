"""Proofs record what they measured in assets/proofs.json before they assert it, and with it their identities (identities.py).

PROOF_SEED=<int> shifts every seed, prompt draw and held-out split; seed 0 is what the catalogue shows, other
seeds are kept beside it.
"""

import datetime
import fcntl
import json
import operator
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch
from identities import checks

from backends import headless

FILE = Path(__file__).resolve().parents[2] / "assets" / "proofs.json"
SEED = int(os.environ.get("PROOF_SEED", "0"))
OPS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}


class Proof:
    """One method's proof. `seed`: add it to every seed; `state(...)` records a statement, `close()` asserts."""

    def __init__(self, slug: str):
        self.slug, self.seed, self.start, self.statements = slug, SEED, time.monotonic(), []
        self.models = ["emoji-ldm", "emoji-judges"]  # folders of the weights that the proof stands on; a proof adds its own

    def state(self, what: str, value: float, op: str, threshold: float, *, baseline=None, n: int = 1, interval=None, kind="effect"):
        """`kind`: identity (exact, quick) or effect (the paper's claim on our model). Returns whether it holds."""
        held = bool(OPS[op](value, threshold))
        self.statements.append(
            dict(kind=kind, statement=what, value=round(float(value), 6), op=op, threshold=threshold, baseline=baseline, n=n, interval=interval, held=held)
        )
        return held

    @staticmethod
    def commit() -> str:
        """The commit measured, with a + where the code differs from it."""

        def git(*words):
            return subprocess.run(["git", *words], capture_output=True, text=True, cwd=FILE.parents[1]).stdout.strip()

        changed = git("status", "--porcelain", "--", "backends", "tests/proofs", "assets/models", "assets/worlds")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")

    def close(self):
        for what, passed in checks(self.slug).items():  # value: the share of the exact checks that pass
            self.state(what, sum(passed) / len(passed), "==", 1, n=len(passed), kind="identity")
        entry = dict(passed=all(s["held"] for s in self.statements), date=datetime.date.today().isoformat(), commit=self.commit(), device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
                     weights={name: headless.weights(name) for name in self.models}, seed=self.seed, seconds=round(time.monotonic() - self.start, 1), statements=self.statements)  # fmt: skip
        with FILE.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # proofs may be measured side by side
            self._write(entry)
        failed = [f"{s['statement']}: {s['value']} is not {s['op']} {s['threshold']}" for s in self.statements if not s["held"]]
        assert not failed, "; ".join(failed)

    def _write(self, entry: dict) -> None:
        book = json.loads(FILE.read_text() or "{}")
        others = book.get(self.slug, {}).get("other_seeds", {})
        if self.seed == 0:
            book[self.slug] = entry | {"other_seeds": others}
        else:
            brief = {key: entry[key] for key in ("passed", "date", "device", "weights")} | {
                "held": headless.held(entry),
                "values": [s["value"] for s in self.statements],
            }
            book.setdefault(self.slug, {})["other_seeds"] = others | {str(self.seed): brief}
        FILE.write_text(json.dumps(dict(sorted(book.items())), indent=1) + "\n")


@pytest.fixture
def proof(request):
    """The Proof of the method that the test file's name gives; closed (written, then asserted) by the test."""
    return Proof(Path(request.fspath).stem.removeprefix("test_"))
