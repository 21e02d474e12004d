"""The exact checks of `make test` that a proof records as well: those marked with the method's name, wherever they stand.

    @pytest.mark.identity("w2sd", "no strength is DDIM, bit by bit")

They run in a process of their own, so that the models they put into the cache stay theirs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


class Counter:
    """A pytest plugin that runs the checks of one method alone; `passed`: statement -> whether each of its checks does."""

    def __init__(self, slug: str):
        self.slug, self.says, self.passed = slug, {}, {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            self.says[item.nodeid] = [mark.args[1] for mark in item.iter_markers("identity") if mark.args[0] == self.slug]
        items[:] = [item for item in items if self.says[item.nodeid]]

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or not report.passed:  # a fixture that fails or skips leaves the statement unproved
            for statement in self.says[report.nodeid]:
                self.passed.setdefault(statement, []).append(report.passed)


def checks(slug: str, tests: Path = TESTS) -> dict[str, list[bool]]:
    """statement -> whether each of its checks passes, of the method `slug`; raises RuntimeError when they can't be run."""
    exact = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # exact sums are a CPU's, and the tiny models stand there
    done = subprocess.run([sys.executable, "-m", "tests.proofs.identities", slug, tests], capture_output=True, text=True, cwd=TESTS.parent, env=exact)
    if done.returncode:
        raise RuntimeError(f"the identities of {slug} did not run: {(done.stdout + done.stderr)[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(slug: str, tests: str) -> None:
    counter = Counter(slug)
    files = [str(p) for p in sorted(Path(tests).rglob("test_*.py")) if "mark.identity(" in p.read_text()]  # the others need no import
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "identity", *files], plugins=[counter]) if files else 0
    print("\n" + json.dumps(counter.passed))
    sys.exit(0 if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED) else code)


if __name__ == "__main__":
    main(*sys.argv[1:])
