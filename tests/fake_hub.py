"""A small server that speaks the model hub's protocol."""

import hashlib
import http.server
import json
from collections.abc import Callable

SHA = "0" * 40  # the revision that it has


def handler(files: dict[str, bytes], write: Callable | None = None) -> type[http.server.BaseHTTPRequestHandler]:
    """Serves the files of one repository. `asked`: the paths that were asked for; `write(request, name, begin)`: sends a file's bytes from `begin` on
    in the place of the handler."""

    class Hub(http.server.BaseHTTPRequestHandler):
        asked: list[str] = []

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, body=True):
            self.asked.append(self.path)
            path, headers = self.path.partition("?")[0], {"X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
            name = "" if path.startswith("/api/") else path.split(f"/resolve/{SHA}/")[1]
            if name:
                data = files[name]
                headers["ETag"] = f'"{hashlib.sha1(name.encode() + data).hexdigest()}"'
            else:
                rows = [{"rfilename": n, "size": len(d)} for n, d in files.items()]
                tree = [{"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(n.encode()).hexdigest()} for n, d in files.items()]
                data = json.dumps(tree if "/tree/" in path else {"id": "a/b", "sha": SHA, "siblings": rows}).encode()
            begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(206 if begin else 200)
            if begin:
                headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            for key, value in (headers | {"Content-Length": str(len(data) - begin), "Content-Type": "application/json"}).items():
                self.send_header(key, value)
            self.end_headers()
            if body and name and write:
                write(self, name, begin)
            elif body:
                self.wfile.write(data[begin:])

    return Hub
