"""What a Hugging Face Space reads of the repository: the README's header, what it installs, how large the files are (test_assets.py)."""

import importlib.metadata
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEADER = yaml.safe_load((ROOT / "README.md").read_text().split("---")[1])
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def pins(name: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("-r"))


def test_the_header_starts_this_studio_with_the_gradio_that_is_pinned():
    assert (ROOT / "README.md").read_text().startswith("---\n")
    assert (HEADER["sdk"], HEADER["sdk_version"], HEADER["app_file"]) == ("gradio", pins("requirements.txt")["gradio"], "app.py")
    assert (ROOT / HEADER["app_file"]).is_file()
    assert HEADER["python_version"] == "3.12" and isinstance(HEADER["python_version"], str), "YAML reads an unquoted 3.10 as 3.1"
    assert {HEADER["colorFrom"], HEADER["colorTo"]} <= COLOURS and HEADER["title"] and HEADER["emoji"] and HEADER["license"] == "apache-2.0"


def test_all_that_a_space_installs_is_pinned_and_goes_together_with_what_it_adds():
    """A Space installs gradio with its extra `mcp`, and `spaces`, in one go with requirements.txt."""
    pinned = pins("requirements.txt")
    assert all(re.fullmatch(r"[\w.]+", version) for version in pinned.values())
    extra = [r for r in importlib.metadata.requires("gradio") if 'extra == "mcp"' in r or "extra == 'mcp'" in r]
    assert any(r.startswith("mcp<2") for r in extra) and int(pinned["mcp"].split(".")[0]) < 2
    assert "pydantic" not in pinned, "the extra bounds it more closely than we would"
    assert "spaces" not in pinned and "spaces" in pins("requirements-dev.txt")


def test_its_debian_packages_are_named_one_a_line():
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", line) for line in (ROOT / "packages.txt").read_text().splitlines())


def test_what_is_pushed_holds_no_pointers_to_lfs():
    names = subprocess.run(["git", "grep", "-lI", "^version https://git-lfs"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert names in ([], ["tests/test_space.py"]) and not (ROOT / ".gitattributes").exists()
