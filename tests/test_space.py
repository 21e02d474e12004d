"""What a Hugging Face Space reads of the repository: the README's header, what it installs, how large the files are (test_assets.py)."""

import http.server
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import ClassVar

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


def test_what_is_sent_holds_no_pointers_to_lfs():
    names = subprocess.run(["git", "grep", "-lI", "^version https://git-lfs"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert names in ([], ["tests/test_space.py"]) and not (ROOT / ".gitattributes").exists()


class Hub(http.server.BaseHTTPRequestHandler):
    """The hub's first answers to an upload; then it says that it is full."""

    asked: ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.asked.append((self.path, json.loads(body or b"null")))
        if "preupload" in self.path:
            return self.say(400, {"error": "no room"})
        return self.say(200, {"url": "http://127.0.0.1/spaces/me/studio", "id": "me/studio"} if "create" in self.path else {"warnings": [], "errors": []})

    def do_GET(self):
        self.say(*((200, []) if "/tree/" in self.path else (404, {})))  # an empty repository

    def say(self, status: int, what) -> None:
        data = json.dumps(what).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_a_space_is_made_and_sent_what_is_committed():
    made = subprocess.run(["make", "--dry-run", "space", "SPACE=me/studio"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = next(line for line in made.splitlines() if "hf upload" in line)
    names = subprocess.run(["git", "ls-files", "README.md", "app.py", "assets/models/emoji-ldm"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    Hub.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            target = Path(folder, "runs/space", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(ROOT / name)
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_x", "HF_HOME": folder, "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = command.replace(".venv/bin/hf", str(Path(sys.executable).parent / "hf"))
        ended = subprocess.run(["sh", "-c", command], cwd=folder, env=os.environ | hub, capture_output=True, text=True, timeout=120)
    server.shutdown()
    (_, space), *_, (path, sent) = Hub.asked
    assert space == {"name": "studio", "organization": "me", "type": "space", "sdk": "gradio"} and ended.returncode
    assert path.startswith("/api/spaces/me/studio/preupload/main") and {f["path"] for f in sent["files"]} == set(names)
