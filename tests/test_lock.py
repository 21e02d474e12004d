"""requirements.lock agrees with what requirements*.txt pin."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
ENTRIES = re.findall(r"^[a-z0-9].*(?:\n[ \t]+.*)*", LOCK, re.MULTILINE)
LOCKED = {re.split("==", entry)[0]: entry for entry in ENTRIES}


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([\w.+!-]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def test_what_is_pinned_is_locked_at_the_same_version():
    asked = pins("requirements.txt") | pins("requirements-nodeps.txt")
    torch = asked.pop("torch")
    assert f"torch=={torch}\n" in LOCK.partition("\nacc")[0], "left out, and the lock's head says which to install"
    wrong = {name: version for name, version in asked.items() if not re.match(rf"{re.escape(name)}=={re.escape(version)}[ \\]", LOCKED.get(name, ""))}
    assert len(asked) > 30 and not wrong, "make lock"


def test_each_package_has_its_hashes_and_no_place_to_fetch_it_from():
    assert all(re.fullmatch(r"\S+==\S+(?: ; [^\\\n]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\\n)?)+", entry) for entry in ENTRIES)
    assert "://" not in LOCK and "index" not in LOCK and " @ " not in LOCK
    assert not [name for name in LOCKED if name == "torch" or name.startswith(("nvidia", "cuda", "triton"))]
