"""requirements.lock: every package that requirements*.txt bring, with the hashes that the package index publishes. `make lock` makes it anew.

torch is not in it, nor the CUDA libraries that only its builds for GPUs want: which build is right is the host's to say, and builds for CPUs come from
torch's own index, with hashes of their own. What each build of torch needs besides is in it.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
LEFT_OUT = re.compile(r"(torch|triton|nvidia-\S+|cuda-\S+)==")
HEAD = """# Made by `make lock` from requirements.txt and requirements-nodeps.txt: all packages with their hashes, for Python 3.11 and 3.12.
# Not in it: torch, whose build (CPU or CUDA) is the host's to choose, and the CUDA libraries that its builds for GPUs bring.
#   pip install torch==TORCH
#   pip install --no-deps --require-hashes -r requirements.lock
"""


def compiled(name: str, *more: str) -> list[str]:
    """Each package's lines: the pin, the marker where it has one, and the hashes."""
    asked = [
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--generate-hashes",
        "--universal",
        "--python-version",
        "3.11",
        "--no-header",
        "--no-annotate",
        "--no-config",
        *more,
    ]
    said = subprocess.run([Path(sys.executable).with_name(asked[0]), *asked[1:], ROOT / name], check=True, capture_output=True, text=True).stdout
    entries = re.findall(r"^\S.*(?:\n[ \t]+.*)*", said, re.MULTILINE)
    return [entry for entry in entries if not entry.startswith(("#", "--"))]


def main() -> None:
    found = {*compiled("requirements.txt"), *compiled("requirements-nodeps.txt", "--no-deps")}
    torch = re.search(r"^torch==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
    kept = sorted(entry for entry in found if not LEFT_OUT.match(entry))
    LOCK.write_text(HEAD.replace("TORCH", torch) + "\n".join(kept) + "\n")


if __name__ == "__main__":
    main()
