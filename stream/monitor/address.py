"""Where the monitor listens, and the token that it asks for: checked before any process starts.

Imports nothing outside the standard library and the errors, because the main process uses it.
"""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import secrets
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from ...engines.errors import UserError

_EXAMPLE = "write [HOST]:PORT, such as :8080"
_BACKLOG = 64
_LEAST, _MOST = 16, 256  # characters of a token


@dataclass(frozen=True)
class Address:
    """Where to listen. `host` is an address or a name, "" was replaced by 127.0.0.1; `port` 0 takes a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def wildcard(self) -> bool:
        """Whether it is every address of this machine."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)


def read_address(text: str) -> Address:
    """What `--monitor` says. Raises UserError."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise UserError(f"monitor address {text!r} has no port: {_EXAMPLE}")
    host = host[1:-1] if bracketed else host
    if (":" in host) != bracketed or not all(c.isalnum() or c in ".:-_%" for c in host):
        raise UserError(f"monitor address {text!r} is none: {_EXAMPLE}, or [::1]:8080 for IPv6")
    return Address(host or "127.0.0.1", int(port))


def listen(address: Address) -> socket.socket:
    """A socket that listens there. Raises UserError."""
    place = _shown(address.host, address.port)
    try:
        family, kind, number, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"monitor address {place}: this machine knows no host {address.host!r}") from error
    made = socket.socket(family, kind, number)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise UserError(_why_not(place, error)) from error
    return made


def _why_not(place: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"monitor address {place} is in use: choose another port, or --monitor :0 for a free one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"monitor address {place} is no address of this machine: --monitor :PORT is this machine alone"
    if error.errno == errno.EACCES:
        return f"monitor address {place} is the system's: choose a port of 1024 or above"
    return f"monitor address {place} cannot be used: {(error.strerror or str(error)).lower()}"


def read_token(path: Path) -> str:
    """The token in a file that is its owner's alone. Raises UserError."""
    try:
        # Without waiting: a pipe has no end that anybody promised.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"token file {path} is no file")
            if status.st_mode & 0o077:
                raise UserError(f"token file {path} can be read or written by others: chmod 600 {path}")
            if status.st_uid != os.geteuid():
                raise UserError(f"token file {path} belongs to somebody else: make one of your own")
            data = file.read(4096)
    except OSError as error:
        raise UserError(f"token file {path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    token = data.decode("ascii", "replace").strip()
    if not _LEAST <= len(token) <= _MOST or not all("!" <= c <= "~" for c in token):
        raise UserError(
            f"token file {path} must hold {_LEAST} to {_MOST} characters without spaces: "
            f"(umask 77; openssl rand -hex 24 > {path})"
        )
    return token


def make_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


def page_url(host: str, port: int, token: str) -> str:
    """The page's address, with the token where there is one."""
    if Address(host, port).wildcard:
        host = _own_address(host)
    return f"http://{_shown(host, port)}/" + (f"?token={token}" if token else "")


def require_packages() -> None:
    """Raises UserError where what the monitor needs is not installed."""
    missing = [name for name in ("starlette", "uvicorn", "websockets") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--monitor needs {', '.join(missing)}: pip install 'ispeed[monitor]'")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _own_address(wildcard: str) -> str:
    """The address that other hosts see first; nothing is sent to find it."""
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in wildcard else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
