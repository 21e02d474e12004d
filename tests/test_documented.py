"""The examples in README.md, docs/api.md and on the About page, each against a live studio as it is written but for the address."""

import base64
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from gradio_client import Client
from test_mcp import asyncio, visit

from backends import __main__ as command
from backends import recipe
from ui import page

ROOT = Path(__file__).resolve().parents[1]
API = (ROOT / "docs/api.md").read_text()
README = (ROOT / "README.md").read_text()
PROGRAM = README[README.index("## From a program") : README.index("## Host it")]
HERE = "http://127.0.0.1:7860"
BLOCKS = [pytest.param(kind, said, id=f"{name} {i}") for name, text in (("api.md", API), ("README", PROGRAM), ("About", page.ABOUT))
          for i, (kind, said) in enumerate(re.findall(r"```(\w*)\n(.*?)```", text, re.S))]  # fmt: skip
PARTS = sorted(
    {
        said
        for said in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", API + PROGRAM + README[: README.index("## Start")], flags=re.S))
        if re.match(r'[{"].*:', said)
    }
)
GIVEN = {"task": "text_to_image", "job": {"prompt": "a cat", "seed": 1}, "arms": [{"method": "ddim", "knobs": {"steps": 1}}]}


def ran(client, given, inputs=None) -> tuple[dict, list[str]]:
    result, files = client.predict(given, inputs or {}, api_name="/run")
    assert result["complete"], result
    return result, files


def python(said: str, address: str) -> None:
    names = {}
    exec(compile(said.replace(HERE, address), "example", "exec"), names)
    if "result" in names:
        assert names["result"]["complete"] and len(names["files"]) == 2


def shell(line: str, address: str, folder: Path) -> None:
    """pip's lines name packages that are here; the command line's are run in this process, on the small model."""
    words = shlex.split(line.replace(HERE, address))
    if words[:2] == ["pip", "install"]:
        assert [subprocess.run([sys.executable, "-m", "pip", "show", name.partition("==")[0]], capture_output=True).returncode for name in words[2:]] == [0]
    elif words[:3] == ["python", "-m", "backends"]:
        if "recipe.json" in words:  # the page's, where it stands before
            words[words.index("recipe.json")] = str(ROOT / "docs/examples/recipe.json")
        words = [str(folder) if word == "results" else word for word in words[3:]]
        assert command.main(words) == 0
        assert words[0] == "methods" or len(list(folder.glob("*.png"))) >= 2
    else:
        assert words[0] == "python" and words[1].startswith("docs/examples/")
        done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize(("kind", "said"), BLOCKS)
def test_a_block_runs_as_it_is_written(address, tmp_path, monkeypatch, kind, said):
    monkeypatch.chdir(ROOT)
    if kind == "python":
        python(said, address)
    elif kind == "json":
        assert json.loads(said) == json.loads((ROOT / "docs/examples/recipe.json").read_text())
        ran(Client(address, verbose=False), json.loads(said))
    else:
        for line in said.strip().splitlines():
            shell(line, address, tmp_path)


@pytest.mark.parametrize("said", PARTS)
def test_a_part_of_a_recipe_is_taken_as_it_is_written(address, said):
    client = Client(address, verbose=False)
    part = json.loads(said if said[0] == "{" else f"{{{said}}}")
    (name, value), *_ = part.items()
    if name == "mcpServers":

        async def listed():
            async with visit(value["unnoise"]["url"].removesuffix("/gradio_api/mcp").replace(HERE, address)) as session:
                return [tool.name for tool in (await session.list_tools()).tools]

        assert "run_recipe" in asyncio.run(listed())
    elif name in ("photo", "image"):  # which belong to each other
        out = io.BytesIO()
        PIL.Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(out, "PNG")
        job = {"prompt": "a cat", "fill": False, "enlarge": "4", "image": {"sha256": "photo"}}
        assert value in ("<base64 PNG>", job["image"])
        result, _ = client.predict({"task": "edit_image", "job": job, "arms": [{"method": "steered", "knobs": {"steps": 2}}]}, {"photo": base64.b64encode(out.getvalue()).decode()}, api_name="/run")  # fmt: skip
        assert result["complete"] and len(result["job"]["image"]["sha256"]) > 20, result["outcome"]
    elif name == "stack":
        result, _ = ran(client, GIVEN | {"arms": [GIVEN["arms"][0] | part]})
        assert [s["method"] for s in result["arms"][0]["stack"]] == [s["method"] for s in value]
    else:
        result, files = ran(client, GIVEN | part)
        assert result[name] and recipe.parse(result)
        assert name != "grid" or len(files) > 2


def test_the_tables_name_what_the_studio_offers(address):
    client = Client(address, verbose=False)
    assert set(re.findall(r"^\| `(/\w+)`", API, re.M)) == set(client.view_api(return_format="dict")["named_endpoints"])

    async def listed():
        async with visit(address) as session:
            return {t.name: t.inputSchema for t in (await session.list_tools()).tools}

    tools = asyncio.run(listed())
    told = {name: [p.strip(" ?") for p in takes.split(",") if p] for name, takes in re.findall(r"^\| `(\w+)\(([^)]*)\)`", API, re.M)}
    assert told == {name: list(schema.get("properties", {})) for name, schema in tools.items()}
