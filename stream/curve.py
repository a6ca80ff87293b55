"""CURVE: encryption of tcp endpoints, and the decision who may connect. Loads zmq only, because subscribers load it.

The publisher's side is a `Guard`: it keeps the server's key and answers libzmq, which asks over ZAP (RFC 27) whether a
client may come in. It is served from the main process's own poll, because a thread of pyzmq's would wait for the same
interpreter lock that publishing needs. The client's side are `read_client`, `use_keys`, and a `Watch`, which notices
why no connection comes about: libzmq itself says nothing, and after a refusal does not try again.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from ..engines.errors import UserError
from .key_files import (
    CLIENT,
    CLIENTS,
    CONTROL,
    PUBLIC,
    SECRET,
    SERVER,
    read_pair,
    read_public,
    require_curve,
    require_own,
)

STREAM_DOMAIN, CONTROL_DOMAIN = b"stream", b"control"

_ZAP = "inproc://zeromq.zap.01"
_AT_ONCE = 32  # handshakes answered in one turn, so that a flood of them cannot hold up a frame
_MOST_CLIENTS = 1024
_HANDSHAKE_MS = 5000
_WARN_S = 5.0
_LOCAL, _REMOTE = 1, 2  # I/O threads of the context, as bits: a flood of handshakes must not hold up those on ipc


class _Client(NamedTuple):
    name: str
    may: str


class Guard:
    """Lets in the clients whose keys lie in a folder, on every socket that it protects. One for a process.

    Args:
        folder: As `isp-stream keys` makes it. Its `clients` are looked at again when somebody connects.
        on_warning: Is told, in a sentence, of clients that were refused and of key files that are not usable.

    Attributes:
        context: Sockets to protect must be made in it.
        refused: Connections refused so far.

    Raises:
        UserError: The keys are missing or damaged, or others can read or change them.
    """

    def __init__(self, folder: Path, on_warning: Callable[[str], None] = lambda sentence: None) -> None:
        require_curve()
        self._pair = read_pair(folder / f"{SERVER}{SECRET}")
        require_own(folder, os.stat(folder))
        self._folder, self.on_warning = folder / CLIENTS, on_warning
        self._allowed: dict[bytes, _Client] = {}
        self._seen: object = None  # what the folder looked like
        self._own = {z85.decode(self._pair.public): _Client(SERVER, CONTROL)}  # who can read its secret may all
        for problem in self._look(strict=True):
            raise UserError(problem)
        self.refused = self._untold = 0
        self._tell_at = 0.0
        self.context = zmq.Context(io_threads=2)
        self._zap = self.context.socket(zmq.REP)
        self._zap.set(zmq.LINGER, 0)
        self._zap.bind(_ZAP)

    @property
    def clients(self) -> list[str]:
        """Names of those that may connect, as of the last look."""
        return sorted(client.name for client in self._allowed.values())

    def fileno(self) -> int:
        """The descriptor, for poll. It signals edges: call `poll` at each wake."""
        return self._zap.fileno()

    def protect(self, socket: zmq.Socket, endpoint: str, domain: bytes = STREAM_DOMAIN) -> None:
        """Sets what the bind to `endpoint` needs that comes next: CURVE for tcp; ipc is kept by its file's permission.

        Of one socket bind those on ipc first: libzmq takes no ZAP domain back.
        """
        remote = endpoint.startswith("tcp:")
        if not remote and socket.get(zmq.CURVE_SERVER):
            raise RuntimeError("bind ipc endpoints before those of tcp")
        socket.set(zmq.AFFINITY, _REMOTE if remote else _LOCAL)
        if remote:
            socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
            socket.set(zmq.CURVE_SERVER, 1)
            socket.set(zmq.CURVE_SECRETKEY, self._pair.secret)
            socket.set(zmq.ZAP_DOMAIN, domain)
            socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # nobody comes in when nobody answers for them

    def poll(self) -> None:
        """Answers handshakes that wait, a bounded number of them."""
        looked = False
        for _ in range(_AT_ONCE):
            if not int(self._zap.get(zmq.EVENTS)) & zmq.POLLIN:
                break
            request = self._zap.recv_multipart(zmq.NOBLOCK)
            if not looked:
                looked = True
                for problem in self._look():
                    self.on_warning(problem)
            self._zap.send_multipart(self._answer(request), zmq.NOBLOCK)
        if self._untold and time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + _WARN_S
            self.on_warning(self._refusal)
            self._untold = 0

    def close(self) -> None:
        """Ends the context. Close the sockets first. Harmless when called twice."""
        self._zap.close()
        self.context.term()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        version, number, domain, address, _, mechanism, *credentials = [*request, *[b""] * 7][: max(7, len(request))]
        client = self._allowed.get(credentials[0]) if mechanism == b"CURVE" and credentials else None
        if client and (domain == STREAM_DOMAIN or (domain == CONTROL_DOMAIN and client.may == CONTROL)):
            return [version, number, b"200", b"OK", client.name.encode(), b""]
        self.refused += 1
        self._untold += 1
        what = f"client {client.name} may read, but not control" if client else f"its key is not in {self._folder}"
        count = f"{self._untold} connections, the last" if self._untold > 1 else "a connection"
        self._refusal = f"refused {count} from {address.decode('ascii', 'replace')}: {what}"
        return [version, number, b"400", b"refused", b"", b""]

    def _look(self, *, strict: bool = False) -> list[str]:
        """Reads the clients' keys anew where the folder has changed. Returns what is wrong with them.

        A file that is not usable lets nobody in, and with `strict` is the only thing that counts.
        """
        problems: list[str] = []
        try:
            require_own(self._folder, os.stat(self._folder))
            with os.scandir(self._folder) as entries:
                seen = sorted(
                    (entry.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
                    for entry in entries
                    if entry.name.endswith(PUBLIC) and (status := _status(entry))
                )
        except UserError as error:
            seen, problems = [], [str(error)]
        except OSError as error:
            seen = []
            problems = [f"cannot read the clients' keys in {self._folder}: {(error.strerror or str(error)).lower()}"]
        if len(seen) > _MOST_CLIENTS:
            seen, problems = [], [f"{self._folder} holds more than {_MOST_CLIENTS} keys: take those away that are old"]
        if (seen, problems) == self._seen:
            return []
        self._seen = (seen, list(problems))
        allowed: dict[bytes, _Client] = {}
        for name, *_ in seen:
            try:
                key = read_public(self._folder / name)
            except UserError as error:
                problems.append(str(error))
                continue
            public, client = z85.decode(key.public), _Client(name.removesuffix(PUBLIC), key.may)
            if (same := allowed.get(public)) is not None:
                both = f"{same.name} and {client.name}"
                problems.append(f"{self._folder} lists one key for {both}: take one of the files away")
                client = same if client.may == CONTROL else client  # of two rights the smaller one
            allowed[public] = client
        if not (strict and problems):
            self._allowed = {**allowed, **self._own}
        return problems


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of a file, or of what a link leads to, which is what is read; None where there is nothing."""
    try:
        return entry.stat()
    except OSError:
        return None


class ClientKeys(NamedTuple):
    """What a client needs: its own key and the server's public one, as 40 characters of Z85."""

    folder: Path
    public: bytes
    secret: bytes
    server: bytes


def read_client(folder: Path | str) -> ClientKeys:
    """The keys in a folder that `isp-stream keys FOLDER --client NAME` made, or the publisher's own folder.

    Raises UserError where they are missing or damaged, or others can read them or change the folder.
    """
    require_curve()
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"there is no folder of keys {folder}: copy the one that isp-stream keys FOLDER --client NAME made"
        )
    name = CLIENT if (folder / f"{CLIENT}{SECRET}").exists() else SERVER
    if name == SERVER and not (folder / f"{SERVER}{SECRET}").exists():
        raise UserError(
            f"{folder} holds no {CLIENT}{SECRET}: give the folder that isp-stream keys FOLDER --client NAME made"
        )
    pair, server = read_pair(folder / f"{name}{SECRET}"), read_public(folder / f"{SERVER}{PUBLIC}")
    require_own(folder, os.stat(folder))
    return ClientKeys(folder, pair.public, pair.secret, server.public)


def use_keys(socket: zmq.Socket, keys: ClientKeys | None, endpoint: str) -> None:
    """Sets what a connection to `endpoint` comes next needs; nothing for ipc, which is kept by its permission."""
    if keys and endpoint.startswith("tcp:"):
        socket.set(zmq.CURVE_SERVERKEY, keys.server)
        socket.set(zmq.CURVE_PUBLICKEY, keys.public)
        socket.set(zmq.CURVE_SECRETKEY, keys.secret)


_REFUSED, _BROKEN = zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_MISMATCH, _DONE = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_SUCCEEDED
_BROKEN_AT_MOST = 3  # handshakes cut off in a row: fewer may come of a publisher that begins or ends
_RETRY_S = 0.25
_EVENT = struct.Struct("=HI")  # which, and a value; zmq.utils.monitor, which reads it too, loads all of asyncio


class Watch:
    """Notices why no connection of a client's socket to a tcp endpoint comes about, and connects again.

    Attributes:
        sockets: To wait for beside the socket itself; empty where there is nothing to watch.
        retry_at: CLOCK_MONOTONIC seconds when `turn` has something to do; infinite where it has not.
    """

    def __init__(self, socket: zmq.Socket, endpoint: str, keys: ClientKeys | None, *, control: bool = False) -> None:
        self._endpoint, self._keys = endpoint, keys
        self._command = "isp-stream keys FOLDER --client NAME" + " --control" * control
        self.retry_at = float("inf")
        self._broken = 0
        self._socket = socket
        self.sockets: list[zmq.Socket] = []
        if endpoint.startswith("tcp:"):
            self.sockets = [socket.get_monitor_socket(_REFUSED | _BROKEN | _MISMATCH | _DONE)]

    def turn(self, sockets: Sequence[zmq.Socket]) -> str:
        """Looks whether a handshake failed. Returns why, in a sentence, and has `sockets` connect again later."""
        if time.monotonic() >= self.retry_at:
            self.retry_at = float("inf")
            for socket in sockets:
                socket.connect(self._endpoint)
        why = ""
        while self.sockets and self.sockets[0].poll(0):
            event = _EVENT.unpack_from(self.sockets[0].recv_multipart()[0])[0]
            self._broken = self._broken + 1 if event == _BROKEN else 0
            if event in (_REFUSED, _MISMATCH) or self._broken >= _BROKEN_AT_MOST:
                why = self._sentence(event)
        if why:
            self._broken, self.retry_at = 0, time.monotonic() + _RETRY_S
            for socket in sockets:
                with suppress(zmq.ZMQError):  # libzmq has given up this connection by itself
                    socket.disconnect(self._endpoint)
        return why

    def close(self) -> None:
        """Ends the watch. Harmless when called twice."""
        while self.sockets:
            self._socket.disable_monitor()
            self.sockets.pop().close()

    def _sentence(self, event: int) -> str:
        where = f"isp-stream at {self._endpoint}"
        if event == _REFUSED:
            return (
                f"{where} refused our key: its public half must lie there in the folder of keys as "
                f"{CLIENTS}/NAME{PUBLIC}, as {self._command} makes it"
            )
        if not self._keys:
            return f"{where} wants keys: give the folder that {self._command} made there"
        if event == _MISMATCH:
            return f"{where} has no keys, and we do: start it with --keys, or connect without"
        server = self._keys.folder / f"{SERVER}{PUBLIC}"
        return f"{where} ends every handshake: it has another key than {server}, or none; copy its {SERVER}{PUBLIC}"
