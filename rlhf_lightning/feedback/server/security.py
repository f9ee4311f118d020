"""What keeps others out: headers, who may send what, how much and how often.

The page runs on one origin and loads nothing from another one. A session is a cookie that no script reads; each change
also needs a token that only a page of the same origin can have read (`csrf_of`), JSON as its content type, and no
sign in ``Origin`` or ``Sec-Fetch-Site`` that it comes from elsewhere. ``Host`` must be a name of ours, or a number:
a foreign name that was made to point here (DNS rebinding) is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import secrets
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

LOG = logging.getLogger("rlhf_lightning.feedback")
MAX_BODY = 1 << 20
"""Bytes of a request."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Refused(Exception):
    """An answer other than what was asked for: HTTP status, a code for the page, and a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    @property
    def body(self) -> dict[str, str]:
        """As it is sent."""
        return {"error": self.code, "message": self.message}


def new_secret() -> str:
    """A secret of 256 bits, harmless in an address."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """What is stored of a secret. It has 256 bits of chance, so that a plain hash does."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_of(cookie: str) -> str:
    """The token of a session that its page sends with each change; it follows from the session's secret."""
    return hmac.new(cookie.encode("utf-8", "surrogatepass"), b"csrf", hashlib.sha256).hexdigest()


def host_allowed(host: str, known: Iterable[str]) -> bool:
    """Whether a ``Host`` header names us: by number, as localhost or by a known name, with any port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        urlsplit(f"//{host}").port  # noqa: B018 - raises where it is none
    except ValueError:
        return False
    if "@" in host or "/" in host:
        return False
    if name in {"localhost", *known}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_same_origin(headers: Mapping[str, str], scheme: str, address: str | None) -> None:
    """Refuse a change that a page of another origin asked for.

    Args:
        headers: of the request, names in lower case.
        scheme: by which it came.
        address: the public one, where a proxy stands in front.

    Raises:
        Refused: 403.
    """
    foreign = Refused(403, "foreign_origin", "This was sent by a page of another address, and is refused.")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise foreign
    origin = headers.get("origin")
    if origin is not None and origin not in {f"{scheme}://{headers.get('host', '')}", origin_of(address)}:
        raise foreign


def origin_of(address: str | None) -> str | None:
    """Scheme, host and port of an address."""
    if address is None:
        return None
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


class Rate:
    """A bucket of tokens for each key: ``burst`` at once, then ``each_second`` a second.

    Keys that have not been seen for longest are forgotten, so that made-up keys fill no memory.
    """

    def __init__(self, burst: int, each_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst, self.each_second, self.clock = burst, each_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> None:
        """Take one token.

        Raises:
            Refused: 429, if there is none.
        """
        with self._lock:
            now = self.clock()
            left, then = self._left.pop(key, (float(self.burst), now))
            left = min(float(self.burst), left + (now - then) * self.each_second)
            self._left[key] = (max(left - 1, 0.0) if left >= 1 else left, now)
            while len(self._left) > 10_000:
                self._left.popitem(last=False)
        if left < 1:
            raise Refused(429, "too_many", "Too many requests at once: wait a moment.")


class Guard:
    """ASGI middleware around all else: names of ours only, bounded bodies, headers, and no details of what failed."""

    def __init__(self, app: Any, hosts: tuple[str, ...] = ()) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        begun = False
        read = 0

        async def sending(message: dict[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                given = {name.lower() for name, _ in message["headers"]}
                more = {**HEADERS, "cache-control": "no-store"}
                added = [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in given]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        async def receiving() -> dict[str, Any]:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY:
                raise _too_large()
            return message

        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
            if len(hosts) != 1 or not host_allowed(hosts[0].decode("latin-1"), self.hosts):
                raise Refused(400, "host", "This server is not called by that name.")
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or int(length[:20]) > MAX_BODY:
                raise _too_large()
            await self.app(scope, receiving, sending)
        except Refused as refused:
            if not begun:
                await _answer(sending, refused)
        except Exception as error:  # anything: a person sees no details, and the log sees no texts
            LOG.error("%s in %s %s\n%s", type(error).__name__, scope["method"], _route(scope), _where(error))
            if not begun:
                await _answer(sending, Refused(500, "internal", "Something went wrong; what you typed is not lost."))


def _too_large() -> Refused:
    return Refused(413, "too_large", f"That is more than {MAX_BODY >> 20} MiB, which is too much at once.")


def _route(scope: dict[str, Any]) -> str:
    return getattr(scope.get("route"), "path", "?")


def _where(error: BaseException) -> str:
    """The calls that led to an error, without its message, which may hold texts."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()


async def _answer(send: Any, refused: Refused) -> None:
    body = json.dumps(refused.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 429:
        headers.append((b"retry-after", b"1"))
    if refused.status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
