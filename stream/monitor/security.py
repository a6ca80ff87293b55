"""Guard: who may ask the monitor for anything, and what every answer tells the browser.

- The Host header must name this machine, or a proxy that was named, so that no foreign name can be made to point here
  (DNS rebinding).
- Where the monitor can be reached from elsewhere, a token is asked for: once in the page's address, then in a cookie
  that scripts do not see, or as `Authorization: Bearer`.
- All but the page itself must be asked for by a page of this very origin, of the proxy's, or by no browser at all.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
import sys
import threading
import traceback
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .address import Address

Scope = dict[str, Any]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Refusal(Exception):
    """A request that is not answered: its HTTP status, and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Access:
    """The rules for one address. `token` is empty where none is asked for.

    `proxies` are the hosts, as NAME or NAME:PORT, under which browsers know the page where a proxy hands it on. It may
    keep their Host header or write its own.
    """

    def __init__(self, host: str, port: int, token: str, proxies: Iterable[str] = ()) -> None:
        self.address = Address(host, port)
        self._token = token.encode()
        self._cookie = f"ispeed-{port}"  # cookies know no ports, and one machine may have several monitors
        proxies = [proxy.lower() for proxy in proxies]
        self._origins = {f"{scheme}://{proxy}" for proxy in proxies for scheme in ("http", "https")}
        names = {"localhost", *(urlsplit(f"//{proxy}").hostname or "" for proxy in proxies)}
        if not self.address.loopback:
            names |= {host.lower(), socket.gethostname().lower()}
            # Without a name server the answer takes many seconds: the page does not wait for it.
            threading.Thread(target=lambda: names.add(socket.getfqdn().lower()), daemon=True).start()
        self._names = names

    def check(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Headers to add to the answer. Raises Refusal."""
        headers = _headers(scope)
        host = _only(headers, b"host")
        if not self._is_ours(host):
            raise Refusal(421, "this is not the monitor of that host: use the address that isp-stream printed")
        # A link to the page may be anywhere, also where its token is not asked for.
        if scope["path"] != "/" or scope["type"] == "websocket":
            _require_same_origin(headers, {f"http://{host}", f"https://{host}", *self._origins})
        if not self._token:
            return []
        if self._has_token(headers):
            return []
        if scope["type"] == "http" and scope["path"] == "/" and self._is_token(_token_in_query(scope)):
            cookie = f"{self._cookie}={quote(self._token.decode(), safe='')}; Path=/; HttpOnly; SameSite=Strict"
            return [(b"set-cookie", cookie.encode())]
        raise Refusal(401, "this monitor asks for a token: open the address with ?token= that isp-stream printed")

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname if host else None
        if not name:
            return False
        if name.rstrip(".") in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return not self.address.loopback or address.is_loopback  # a name that was made to point here is no address

    def _has_token(self, headers: dict[bytes, list[bytes]]) -> bool:
        for value in headers.get(b"authorization", []):
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and self._is_token(token.strip()):
                return True
        for value in headers.get(b"cookie", []):
            for part in value.decode("latin-1").split(";"):  # those of other servers of this host may be anything
                name, _, token = part.strip().partition("=")
                if name == self._cookie and self._is_token(unquote(token)):
                    return True
        return False

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token)


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Checks a request before the application sees it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            more = self._access.check(scope)
        except (Refusal, ValueError) as refusal:  # ValueError: a Host or Origin that is no address at all
            await _refuse(scope, receive, send, refusal)
            return
        started = False

        async def guarded(message: dict[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS, *more]}
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception as error:  # a fault of ours: one line, and the other requests go on
            tell_fault(f"at {scope.get('path', '?')}", error)
            if scope["type"] == "http" and not started:
                await _refuse(scope, receive, send, Refusal(500, "the monitor failed at this; it goes on"))


def tell_fault(where: str, error: BaseException) -> None:
    """One line on stderr about a fault of the monitor itself."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
    sys.stderr.write(f"isp-stream: the monitor failed {where}: {type(error).__name__}: {error} ({place})\n")


async def _refuse(scope: Scope, receive: Any, send: Any, refusal: Exception) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})  # before it was accepted: HTTP 403
        return
    status, sentence = (refusal.status, refusal.sentence) if isinstance(refusal, Refusal) else (400, "bad request")
    headers = [*_HEADERS, (b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    body = json.dumps({"ok": False, "error": sentence}).encode() + b"\n"
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _only(headers: dict[bytes, list[bytes]], name: bytes) -> str:
    values = headers.get(name, [])
    if len(values) != 1:
        raise Refusal(400, f"a request needs one {name.decode()} header")
    return values[0].decode("latin-1").lower()


def _require_same_origin(headers: dict[bytes, list[bytes]], ours: set[str]) -> None:
    """Browsers name the origin of the page that asks; other programs need not."""
    origins = [value.decode("latin-1").lower() for value in headers.get(b"origin", [])]
    sites = [value.decode("latin-1").lower() for value in headers.get(b"sec-fetch-site", [])]
    if any(origin not in ours for origin in origins) or any(site not in ("same-origin", "none") for site in sites):
        raise Refusal(403, "another site's page asked for this: only the monitor's own page may")


def _token_in_query(scope: Scope) -> str:
    values = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=8).get("token", [])
    return values[0] if len(values) == 1 else ""
