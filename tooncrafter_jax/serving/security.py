"""Who may use the server, and what of it: keys, tokens, and the checks that every request passes.

- A client has a key, which the server makes; its checksum is the client's id. Jobs and pictures belong to a client, and
  to nobody else does the server say that they are there.
- Outside of this machine a token opens the door: without it no client gets a key.
- Browsers: the name in `Host` must be one of this server's, against pages whose name was made to lead here; requests of
  other sites are refused; the cookie goes to this site alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tooncrafter_jax.serving.database import Database
from tooncrafter_jax.serving.limits import Limits

COOKIE = "tooncrafter"
"""How names of cookies begin. Browsers send the cookies of all servers of a machine to each: a folder has its own."""
COOKIE_SECONDS = 365 * 86400
TOKEN_CLIENT = hashlib.sha256(b"the token").hexdigest()
"""The client that sends the server's token instead of a key of its own. No key opens what it has."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""Of every answer."""
MOST_DRAINED, DRAINING_SECONDS = 2**26, 1.0
"""Bytes of a refused request that are read, and for how long."""
_LOCAL = ("localhost", "127.0.0.1", "::1")


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_is_needed(host: str, names: Sequence[str]) -> bool:
    """Whether others than this machine's users may reach the server, perhaps by way of a proxy on this machine.

    Args:
      host: that the server listens on.
      names: other names that it is reached by.
    """
    return not all(map(is_local, (host, *names)))


class Access:
    """Keys and the token.

    Args:
      database: knows the clients.
      needs_token: whether a token opens the door.

    Attributes:
      cookie: name of the cookie that has a client's key.
    """

    def __init__(self, database: Database, *, needs_token: bool) -> None:
        self._database, self.needs_token = database, needs_token
        if (name := database.setting("cookie")) is None:
            name = f"{COOKIE}-{secrets.token_hex(4)}"
            database.set_setting("cookie", name)
        self.cookie = name

    def new_token(self) -> str:
        """Makes a token, which is kept as a checksum alone; keys that the one before has opened are forgotten."""
        token = secrets.token_urlsafe(32)
        self._database.set_setting("token", _digest(token))
        self._database.forget_clients()
        return token

    @property
    def has_token(self) -> bool:
        """Whether a token was made before."""
        return self._database.setting("token") is not None

    def is_token(self, given: str) -> bool:
        """Whether this is the token; takes as long for any other."""
        known = self._database.setting("token")
        return hmac.compare_digest(_digest(given), known or secrets.token_hex(32)) and known is not None

    def new_client(self) -> str:
        """Makes a client known; gives its key."""
        return self._known(secrets.token_urlsafe(32))

    def same_client(self, headers: Headers) -> str | None:
        """The key of a browser that has jobs or pictures here, known again if it was forgotten; None if it has none.

        Its cookie may have the name that a database before this one gave it.
        """
        cookies = _cookies(headers)
        names = sorted((name for name in cookies if name.startswith(COOKIE)), key=lambda name: name != self.cookie)
        for key in (cookies[name] for name in names):
            client = self.id_of(key)
            if client != TOKEN_CLIENT and self._has_something(client):
                return self._known(key)
        return None

    def _has_something(self, client: str) -> bool:
        return bool(self._database.jobs(client=client, most=1)) or self._database.picture_bytes(client) > 0

    def _known(self, key: str) -> str:
        self._database.add_client(self.id_of(key))
        return key

    def id_of(self, key: str) -> str:
        """The id of the client that has this key."""
        return _digest(key)

    def client(self, headers: Headers) -> str | None:
        """Whose request this is; None if nobody's."""
        key = bearer(headers) or self.cookie_key(headers)
        if key is None:
            return None
        if self.needs_token and self.is_token(key):
            return TOKEN_CLIENT
        client = _digest(key)
        return client if client != TOKEN_CLIENT and self._database.has_client(client) else None

    def cookie_key(self, headers: Headers) -> str | None:
        """The key in the cookie of a request; None without."""
        return _cookies(headers).get(self.cookie)


def bearer(headers: Headers) -> str | None:
    """The key or token of `Authorization: Bearer`; None without."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    return (value.strip() or None) if kind.lower() == "bearer" else None


def is_encrypted(headers: Headers) -> bool:
    """Whether a browser sent a request by https, as far as it says so.

    `Origin` is missing where a page reads; where a request comes from, browsers say to this machine and by https alone
    (https://www.w3.org/TR/fetch-metadata/).
    """
    origin = headers.get("origin")
    if origin is not None:
        return origin.startswith("https:")
    return "sec-fetch-site" in headers and not is_local(_host_name(headers.get("host", "")))


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _host_name(host: str) -> str:
    """The name in `Host`, without its port.

    Raises:
      ValueError: it is none.
    """
    return (urlsplit(f"//{host}").hostname or "").rstrip(".")


class Guard:
    """What every request passes first, and what every answer gets.

    Args:
      app: what is guarded.
      host: that the server listens on.
      names: other names that it is reached by.
      limits: of uploads.
      answered: is told the status of every answer.
    """

    def __init__(
        self, app: ASGIApp, host: str, names: Sequence[str], limits: Limits, answered: Callable[[int], None]
    ) -> None:
        self._app, self._limits, self._answered = app, limits, answered
        self._any_address = not is_local(host)
        own = (socket.gethostname(), socket.getfqdn()) if self._any_address else ()
        self._names = {name.lower().rstrip(".") for name in (*_LOCAL, host, *own, *names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        body = _Body(receive, self._limits, self._too_large)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400 and not body.has_ended and not body.is_slow:
                    await _drained(receive)
                self._answered(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        problem = self._problem(headers, scope["path"])
        if problem is not None:
            status, sentence = problem
            await JSONResponse({"detail": sentence}, status)(scope, receive, send_guarded)
            return
        await self._app(scope, body, send_guarded)

    def _problem(self, headers: Headers, path: str) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 421, "the server does not know the name in this address: start it with --host-name=NAME"
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            return 403, "the request comes from another site"
        if path.startswith("/v1") and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "the request comes from another site"
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400, "the header Content-Length must be a number"
        if int(length) > self._limits.upload_megabytes * 10**6:
            return 413, self._too_large
        return None

    @property
    def _too_large(self) -> str:
        return f"the request has more than {self._limits.upload_megabytes} MB: send its pictures one by one"

    def _is_ours(self, host: str) -> bool:
        """Whether the server may be called so. An address is no name that leads elsewhere."""
        try:
            name = _host_name(host)
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address


class _Body:
    """What a client sends, which must not be too large, nor take too long to come once it is read: what waits for a
    place is not to blame.

    Attributes:
      has_ended: whether all of it was read.
      is_slow: whether it took too long.
    """

    def __init__(self, receive: Receive, limits: Limits, too_large: str) -> None:
        self._receive, self._too_large, self._size = receive, too_large, 0
        self._most, self._seconds = limits.upload_megabytes * 10**6, limits.upload_seconds
        self._until: float | None = None
        self.has_ended = self.is_slow = False

    async def __call__(self) -> Message:
        """The next part, as ASGI has it.

        Raises:
          HTTPException: 408 or 413.
        """
        if self.has_ended:
            return await self._receive()
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            self.is_slow = True
            raise HTTPException(408, "the request took too long to arrive: send it again") from error
        self.has_ended = message["type"] != "http.request" or not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise HTTPException(413, self._too_large)
        return message


async def _drained(receive: Receive) -> None:
    """Reads what comes for a moment: a client that is still sending would not see the answer."""
    left = MOST_DRAINED
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAINING_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _netloc(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _digest(key: str) -> str:
    """What is kept of a key or a token; they are random, so that one round is enough."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
