"""What is refused before Gradio answers: other visitors' files, addresses to fetch, bodies that are too large or find no room, pages that the studio has not.

A file that Gradio serves lies in a folder named by 64 digits. Whoever is sent such a name may fetch what is under it, and among visitors with a cookie
nobody else; a program has no cookie, so what was sent to one is served to whoever knows its name. Names can't be guessed: the digits are salted.
"""

import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict

import gradio as gr
from gradio import processing_utils, utils
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse

from backends import inputs, models, recipe
from ui import running, visitor

SENT = re.compile(rb"/([0-9a-f]{64})/")
FILE = "/gradio_api/file="
SERVED = (FILE, "/assets/", "/static/", "/svelte/", "/gradio_api/custom_component/")  # files, in which no names are looked for
# Gradio's own pages and helpers that the studio does not use: its history, its figures of all visitors, video, editing by a model, proxies.
CLOSED = re.compile(
    r"(/gradio_api)?/(runs|run-history|monitoring|process_recording|vibe-\w+|undo-vibe-edit|proxy=.*|deep_link|profiling|token|file/.*)(/.*)?/?"
)
CALL = re.compile(r"/gradio_api/call/\w+/(\w+)")
ESCAPED = re.compile(rb"\\u00([0-7][0-9a-fA-F])")
MOST = 100_000  # names that are remembered; Gradio deletes the files within a day
ROOM = 256 * 2**20  # bytes that an upload must leave free on the disk
BODY = recipe.MAX_INPUTS * inputs.MAX_BYTES * 4 // 3 + 2**20  # bytes of a request that is no upload: a recipe with its inputs in base64
LOCAL = {"127.0.0.1", "localhost", "::1"}
FULL = "The studio's disk is full. Try again later, or ask the host to make room."
LARGE = "That is more than {most:,} MB at once; send less."
NO_ADDRESS = "A file is sent to the studio, not fetched from an address; upload it."


FOREIGN = "This file is another visitor's."


class _Refused(Exception):
    """Ends the reading of a body."""


class Guard:
    """ASGI middleware. `names`: the hosts it answers to, none for any. A studio that listens to this machine alone has few, or a page of any site could
    have its own name lead here and act as the studio's."""

    def __init__(self, app, names: frozenset[str] = frozenset()):
        self.app, self.names = app, names
        self._given: OrderedDict[bytes, set[str]] = OrderedDict()  # a folder's name -> the visitors who were sent it, "" for those without a cookie
        self._lock = threading.Lock()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if self.names and (name := _host(scope)) not in self.names:
            return await PlainTextResponse(f"The studio does not answer to {name[:80]}; its host can name it in UNNOISE_HOSTS.", 403)(scope, receive, send)
        path, who = scope["path"], visitor.known(scope)
        if said := self._refused(path, who):
            return await PlainTextResponse(said, 404 if CLOSED.fullmatch(path) else 403)(scope, receive, send)
        upload = path.startswith("/gradio_api/upload")
        most = inputs.MAX_ZIPS * max(inputs.MAX_BYTES, inputs.max_zip()) + 2**20 if upload else BODY
        length = _length(scope)
        if length > most:
            return await PlainTextResponse(LARGE.format(most=most >> 20), 413)(scope, receive, send)
        if upload and _free() < length + ROOM:
            return await PlainTextResponse(FULL, 507)(scope, receive, send)
        came, tail, begun, refusal = 0, b"", False, None

        async def taken():
            nonlocal came, tail, refusal
            message = await receive()
            body = message.get("body", b"")
            came += len(body)
            if came > most:
                refusal = PlainTextResponse(LARGE.format(most=most >> 20), 413)
            elif not upload and self._foreign(SENT.findall(_plain(tail + body)), who):  # a file as an input, named by its path
                refusal = PlainTextResponse(FOREIGN, 403)
            if refusal and not begun:
                raise _Refused
            tail = (tail + body)[-400:]  # 64 digits and two slashes, each written as six characters
            return message

        async def sent(message) -> None:
            nonlocal begun
            if refusal and not begun:  # what the application makes of a body that it could not read
                return
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)["x-content-type-options"] = "nosniff"  # a picture that is a script as well stays a picture
            elif not path.startswith(SERVED):
                self._note(message.get("body", b""), who)
            await send(message)

        try:
            await self.app(scope, taken, sent)
        except _Refused:
            pass
        except OSError as error:
            if begun or not models.full(error):
                raise
            refusal = PlainTextResponse(FULL, 507)
        finally:
            if asked := CALL.fullmatch(path):  # it was told all, or has gone
                running.leave(asked[1])
                _forget(scope["app"], asked[1])
        if refusal and not begun:
            await refusal(scope, receive, send)

    def _refused(self, path: str, who: str) -> str:
        """Why the path is not answered, "" when it is."""
        if CLOSED.fullmatch(path):
            return "There is no such page."
        if not path.startswith(FILE):
            return ""
        if re.match(r"/*[A-Za-z][\w+.-]*:", asked := path.removeprefix(FILE)):
            return NO_ADDRESS
        return FOREIGN if self._foreign([name.encode() for name in re.findall(r"[0-9a-f]{64}", asked)], who) else ""

    def _foreign(self, names: list[bytes], who: str) -> bool:
        """Whether one of them was sent to others alone."""
        with self._lock:
            return any((known := self._given.get(name)) and not known & {who, ""} for name in names)

    def _note(self, body: bytes, who: str) -> None:
        with self._lock:
            for name in set(SENT.findall(body)):
                self._given.setdefault(name, set()).add(who)
                self._given.move_to_end(name)
            while len(self._given) > MOST:
                self._given.popitem(last=False)


def _forget(app, session: str) -> None:
    """A call that named no session has one of its own, by the event's name, which Gradio would keep: 0.2 MB each."""
    queue = app.get_blocks()._queue
    for held in (app.state_holder.session_data, app.state_holder.time_last_used, queue.pending_messages_per_session, queue.pending_event_ids_session):
        held.pop(session, None)


def names(host: str) -> frozenset[str]:
    """Those to answer to when the studio listens to `host`: of this machine and of UNNOISE_HOSTS, or any where it listens to the network."""
    if host not in LOCAL:
        return frozenset()
    return frozenset({*LOCAL, *filter(None, re.split(r"[,\s]+", os.environ.get("UNNOISE_HOSTS", "").lower()))})


def _host(scope) -> str:
    return re.sub(r":\d+$", "", visitor.header(scope, b"host")).strip("[]").lower()


def _plain(body: bytes) -> bytes:
    """JSON without the escapes by which a path could be written otherwise."""
    if b"\\" not in body:
        return body
    return ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), body.replace(b"\\/", b"/"))


def _length(scope) -> int:
    said = visitor.header(scope, b"content-length")
    return int(said) if said.isdecimal() and said.isascii() else 0


def _free() -> int:
    """Bytes on the smaller of the disks that uploads come to."""
    return min(shutil.disk_usage(place).free for place in (tempfile.gettempdir(), _folder()))


def _folder() -> str:
    folder = utils.get_upload_folder()
    os.makedirs(folder, exist_ok=True)
    return folder


async def _no_address(*_, **__):
    raise gr.Error(NO_ADDRESS, print_exception=False)


def close_addresses() -> None:
    """Gradio fetches what an input names by an address of the web: to any public machine, of any size. Here nothing is fetched."""
    processing_utils.async_ssrf_protected_download = _no_address
