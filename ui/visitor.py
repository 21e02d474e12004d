"""Who asks: a random token in a cookie that scripts can't read. A run's owner is the token's digest; docs/design.md says why a cookie.

Without a cookie the owner is a session, which a program may make anew for each call; its runs wait in the name of its address.
"""

import hashlib
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

import gradio as gr
from starlette.datastructures import Address, MutableHeaders

from backends import jobs

PLAIN, SECURE = "unnoise", "__Host-unnoise"  # the second is taken by browsers from this very host and over TLS alone
TOKEN = re.compile(r"[0-9a-f]{32}")
YEAR = 365 * 86400


class Cookie:
    """ASGI middleware: a page that is asked for without the cookie brings one. Over TLS it may stand in another site's frame, as a Space does."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or "text/html" not in (header(scope, b"accept") or ""):
            return await self.app(scope, receive, send)
        secure = "https" in (scope["scheme"], header(scope, b"x-forwarded-proto").split(",")[0].strip())
        name, kind = (SECURE, "SameSite=None; Secure; Partitioned") if secure else (PLAIN, "SameSite=Lax")
        token = _sent(scope)

        async def sent(message) -> None:
            if message["type"] == "http.response.start":  # also when it was there: a year from the last visit
                kept = f"{name}={token or secrets.token_hex(16)}; Path=/; Max-Age={YEAR}; HttpOnly; {kind}"
                MutableHeaders(scope=message).append("set-cookie", kept)
            await send(message)

        await self.app(scope, receive, sent)


def header(scope: dict, name: bytes) -> str:
    """A header of an ASGI request, "" where there is none; `name` in small letters."""
    return b"; ".join(value for key, value in scope["headers"] if key == name).decode("latin-1")


def _sent(scope: dict) -> str:
    """The token of an ASGI request's cookie, "" where none came."""
    try:
        return _token({k: v.value for k, v in SimpleCookie(header(scope, b"cookie")).items()})
    except CookieError:
        return ""


def _token(cookies) -> str:
    found = str(cookies.get(SECURE) or cookies.get(PLAIN) or "")
    return found if TOKEN.fullmatch(found) else ""


def owner(request: gr.Request) -> str:
    """The visitor's name in the store. Without a cookie, as for a program or where a browser keeps none, it is the session's, and ends with it."""
    token = _shown(request)
    return _name(f"visitor {token}") if token else session(f"session {request.session_hash}")


def session(said: str) -> str:
    """A session's name in the store, where what it leaves is not kept for long."""
    return jobs.SESSION + _name(said)


def line(request: gr.Request) -> str:
    """In whose name a run waits and takes its turn: the visitor's, or without a cookie that of all who ask from the address."""
    return owner(request) if _shown(request) else at(request.client)


def at(client: Address | None) -> str:
    """The line of an address: behind a proxy the visitor's, where uvicorn was told to believe the proxy (FORWARDED_ALLOW_IPS)."""
    return _name(f"address {client.host if client else ''}")


def _shown(request: gr.Request) -> str:
    return _token(dict(request.cookies)) if own(dict(request.headers)) else ""


def known(scope: dict) -> str:
    """The visitor whose cookie came with a request of this page, as `owner` names it; "" where none came."""
    token = _sent(scope)
    return _name(f"visitor {token}") if token and own(headers(scope)) else ""


def headers(scope: dict) -> dict[str, str]:
    """Those of an ASGI request, as `own` takes them."""
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}


def _name(said: str) -> str:
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def own(headers: dict) -> bool:
    """Whether the request comes from this page: Gradio answers scripts of every site, and an old browser would send them the cookie."""
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return not origin or urlsplit(origin).netloc in (headers.get("host"), headers.get("x-forwarded-host"))
