"""A live studio and visitors who mean no good: other visitors' files, addresses to fetch, paths, foreign pages, bodies too large, a full disk."""

import base64
import errno
import http.server
import io
import json
import socket
import threading
import time
import zipfile
from urllib.parse import urlsplit

import httpx
import numpy as np
import PIL.Image
import pytest

from backends import jobs
from ui import guard, visitor

RECIPE = {"task": "text_to_image", "job": {"prompt": "a cat", "seed": 3}, "arms": [{"method": "ddim", "knobs": {"steps": 1}}]}
FOREIGN = ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"})


@pytest.fixture
def visit(address):
    """Gives a browser's client: with a cookie of its own, taken from the page as a browser does."""
    made = []

    def come(cookie=True) -> httpx.Client:
        made.append(client := httpx.Client(base_url=address, timeout=60))
        if cookie:
            client.get("/", headers={"accept": "text/html"})
            assert client.cookies.get("unnoise")
        return client

    yield come
    for client in made:
        client.close()


def called(client: httpx.Client, name: str, *data, **headers):
    """What the named endpoint gives; an error's sentence where it gives one."""
    answer = client.post(f"/gradio_api/call/{name}", json={"data": data}, headers=headers)
    if answer.status_code != 200:
        return answer.text
    said = client.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}", headers=headers).text
    kind, body = said.strip().rpartition("event: ")[2].split("\n", 1)
    return json.loads(body.removeprefix("data: ")) if kind == "complete" else body


def uploaded(client: httpx.Client, data: bytes, name="x.zip", **headers) -> str:
    return client.post("/gradio_api/upload", files={"files": (name, data)}, headers=headers).json()[0]


def fetched(client: httpx.Client, path: str, **headers) -> httpx.Response:
    return client.get(f"/gradio_api/file={path}", headers=headers)


def file(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_a_result_is_served_to_whom_it_was_sent_alone(visit):
    me, you, program = visit(), visit(), visit(cookie=False)
    _, files = called(me, "run", RECIPE, {})
    path = files[0]["path"]
    assert fetched(me, path).content[:4] == b"\x89PNG" and fetched(me, path, **{"sec-fetch-site": "same-origin"}).status_code == 200
    for other in (you, program):
        assert (fetched(other, path).status_code, fetched(other, path).text) == (403, guard.FOREIGN)
        assert fetched(other, path.replace("/", "//")).status_code == fetched(other, f"./{path}").status_code == 403
    for headers in FOREIGN:
        assert fetched(me, path, **headers).status_code == 403, "a page of another site that shows my picture"
    assert called(you, "run", RECIPE | {"job": {"prompt": "a dog"}}, {})[1][0]["path"] != path
    _, files = called(you, "run", RECIPE, {})
    if files[0]["path"] == path:  # the very same bytes, then theirs too
        assert fetched(you, path).status_code == fetched(me, path).status_code == 200


def test_what_a_program_made_is_served_to_who_knows_its_name(visit):
    _, files = called(visit(cookie=False), "run", RECIPE | {"job": {"prompt": "a program"}}, {})
    assert fetched(visit(), files[0]["path"]).status_code == 200


def test_an_upload_is_its_visitors_as_a_file_and_as_an_input(visit):
    me, you = visit(), visit()
    path = uploaded(me, b"mine")
    assert fetched(me, path).content == b"mine" and fetched(you, path).status_code == 403
    assert called(you, "bring", "sing", [file(path)]) == guard.FOREIGN
    assert "no whole zip" in called(me, "bring", "sing", [file(path)])


@pytest.mark.parametrize(
    "name", ["../../../tmp/evil.zip", "..\\..\\evil.zip", "/etc/cron.d/evil.zip", "a/../../evil.zip", "%2e%2e%2fevil.zip", "e\0vil.zip", "é" * 200]
)
def test_a_name_of_an_upload_is_no_path(visit, name):
    from gradio import utils

    answer = visit().post("/gradio_api/upload", files={"files": (name, b"evil " + name.encode("utf-8", "replace"))})
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code == 200:
        (path,) = answer.json()
        folder, _, rest = path.removeprefix(str(utils.get_upload_folder())).lstrip("/").partition("/")
        assert len(folder) == 64 and "/" not in rest and rest != ".."


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../../../etc/passwd", "..%2f..%2fetc/passwd", "app.py", "assets/papers.json", "/proc/self/environ", ".", "", "\\etc\\passwd"]
)
def test_no_other_file_is_served(visit, path):
    answer = fetched(visit(), path)
    assert answer.status_code in (403, 404) and "root:" not in answer.text


def test_nothing_is_fetched_from_an_address(visit):
    asked = []

    class Inside(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        log_message = do_HEAD = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inside)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}/x.zip"
    me = visit()
    try:
        for place in (
            here,
            "http://localhost:1/x",
            "http://169.254.169.254/latest/meta-data",
            "https://example.com/x.zip",
            "file:///etc/passwd",
            "ftp://example.com/x",
        ):
            answer = fetched(me, place)
            assert (answer.status_code, answer.text) == (403, guard.NO_ADDRESS)
            said = called(me, "bring", "sing", [file(place)])
            assert "fetched from an address" in said if place.startswith("http") else "passwd" not in said or "Cannot move" in said, said
            said = called(me, "bring", "sing", [{"path": uploaded(me, b"mine"), "url": place, "meta": {"_type": "gradio.FileData"}}])
            assert "no whole zip" in said, "the address beside a path is not looked at"
        for path in ("/etc/passwd", "/proc/self/environ", "../../etc/passwd"):
            said = called(me, "bring", "sing", [file(path)])
            assert isinstance(said, str) and "Traceback" not in said and "root:" not in said
    finally:
        server.shutdown()
    assert asked == []


def test_what_is_no_picture_is_no_page_of_the_studio(visit):
    me = visit()
    script = b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)"
    out = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(out, "PNG")
    with zipfile.ZipFile(out, "a") as archive:  # a PNG that is a zip as well
        archive.writestr("index.html", "<script>alert(1)</script>")
    for name, data, kind in (
        ("x.html", b"<script>alert(1)</script>", "application/octet-stream"),
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "application/octet-stream"),
        ("x.js", b"alert(1)", "application/octet-stream"),
        ("x.gif", script, "image/gif"),
        ("x.png", out.getvalue(), "image/png"),
    ):
        answer = fetched(me, uploaded(me, data, name))
        assert answer.headers["content-type"] == kind and answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("inline" if kind.startswith("image") else "attachment")


def test_a_polyglot_is_read_as_the_picture_it_is(visit):
    out = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "PNG")
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("cube.npy", b"0")
    said, files = called(visit(), "run", RECIPE, {"x": base64.b64encode(out.getvalue()).decode()})
    assert said["complete"] and len(files) == 1


def test_a_foreign_page_does_not_act_as_the_visitor(visit, monkeypatch):
    me, owners = visit(), []
    submit = jobs.Executor.submit
    monkeypatch.setattr(
        jobs.Executor, "submit", lambda self, given, pictures, owner, **more: owners.append(owner) or submit(self, given, pictures, owner, **more)
    )
    mine = visitor._name(f"visitor {me.cookies['unnoise']}")
    called(me, "run", RECIPE, {})
    called(me, "run", RECIPE, {}, **{"sec-fetch-site": "same-origin"})
    assert owners == [mine, mine]
    for headers in FOREIGN:
        called(me, "run", RECIPE, {}, **headers)
        answer = me.post("/gradio_api/call/run", json={"data": [RECIPE, {}]}, headers=headers)
        assert answer.headers.get("access-control-allow-origin") != "*" and headers["origin"] != answer.headers.get("access-control-allow-origin")
        joined = me.post("/gradio_api/queue/join", content=json.dumps({"data": [RECIPE, {}], "fn_index": 0}), headers=headers | {"content-type": "text/plain"})
        assert joined.status_code == 422, "what a page may send without asking first is not read as JSON"
        path = uploaded(me, b"theirs", **headers)
        assert called(me, "bring", "sing", [file(path)], **{"sec-fetch-site": "same-origin"}).count("no whole zip") == 1
    assert mine not in owners[2:]


@pytest.mark.parametrize("path", ["/monitoring/summary", "/gradio_api/run-history/records", "/gradio_api/runs", "/gradio_api/proxy=https://example.com",
                                  "/gradio_api/deep_link?session_hash=x", "/gradio_api/file/etc/passwd", "/gradio_api/process_recording"])  # fmt: skip
def test_what_the_studio_has_not_is_closed(visit, path):
    client = visit(cookie=False)
    assert client.get(path).status_code == client.post(path).status_code == 404


def test_a_body_that_is_too_large_is_refused_with_a_sentence(visit, monkeypatch):
    me = visit()
    place = urlsplit(str(me.base_url))
    with socket.create_connection((place.hostname, place.port), 20) as line:  # one that says it is large is refused before it comes
        line.sendall(b"POST /gradio_api/call/run HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000000\r\nContent-Type: application/json\r\n\r\n[")
        assert line.recv(200).startswith(b"HTTP/1.1 413")
    monkeypatch.setattr(guard, "BODY", 10_000)
    answer = me.post("/gradio_api/call/run", content=(b"x" * 1000 for _ in range(100)), headers={"content-type": "application/json"})  # no length is said
    assert answer.status_code == 413 and "send less" in answer.text
    assert called(me, "run", RECIPE, {})[0]["complete"]


def test_a_full_disk_refuses_uploads_with_a_sentence(visit, monkeypatch):
    me = visit()
    with monkeypatch.context() as patch:
        patch.setattr(guard, "_free", lambda: guard.ROOM)
        answer = me.post("/gradio_api/upload", files={"files": ("x.png", b"x" * 1000)})
        assert (answer.status_code, answer.text) == (507, guard.FULL)

    async def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gradio.routes.upload_fn", full)
        answer = me.post("/gradio_api/upload", files={"files": ("x.png", b"x" * 1000)})
        assert (answer.status_code, answer.text) == (507, guard.FULL)
    assert uploaded(me, b"now there is room")


def test_a_call_that_has_ended_leaves_nothing_behind(visit, monkeypatch):
    apps = []
    forget = guard._forget
    monkeypatch.setattr(guard, "_forget", lambda app, session: forget(app, session) or apps.append(app))
    me = visit()
    for _ in range(3):
        assert called(me, "run", RECIPE, {})[0]["complete"]
    queue = apps[-1].get_blocks()._queue

    def held() -> tuple:
        return len(apps[-1].state_holder.session_data), len(queue.pending_messages_per_session), len(queue.pending_event_ids_session)

    before = held()
    for _ in range(3):
        called(me, "run", RECIPE, {})
    until = time.monotonic() + 20  # the last one is forgotten once its answer has gone
    while (len(apps) < 6 or held() > before) and time.monotonic() < until:
        time.sleep(0.05)
    assert held() <= before and len(apps) == 6


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost", 200), ("evil.example", 403)])
def test_a_studio_for_this_machine_answers_to_no_other_name(address, host, status):
    """A site may let its own name lead to 127.0.0.1, and its pages would then be the studio's."""
    port = address.rsplit(":", 1)[1].strip("/")
    assert httpx.get(address, headers={"host": f"{host}:{port}"}).status_code == status


def test_hosts_are_any_on_the_network_and_few_here(monkeypatch):
    monkeypatch.setenv("UNNOISE_HOSTS", "studio.example.org, other.example")
    assert guard.names("0.0.0.0") == frozenset()
    assert guard.names("127.0.0.1") == {"127.0.0.1", "localhost", "::1", "studio.example.org", "other.example"}


def test_a_path_is_known_however_json_writes_it():
    name = "ab" * 32
    for written in (f"/tmp/{name}/x.png", f"\\/tmp\\/{name}\\/x.png", f"/tmp/\\u0061{name[1:]}/x.png", f"\\u002ftmp\\u002f{name}\\u002fx.png"):
        assert guard.SENT.findall(guard._plain(written.encode())) == [name.encode()], written
