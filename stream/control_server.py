"""ControlServer: takes in what is asked over the control socket, and answers. Part of the main process's poll.

Nothing here waits: requests are read a few at a time, and one whose answer its asker does not fetch is dropped.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import zmq

from ..engines.errors import UserError
from .control import MESSAGE_MAX
from .curve import CONTROL_DOMAIN, Guard
from .endpoint import EndpointLock, find_port, parse_endpoint, require_local
from .publish import bind
from .requests import Request, parse_request

_AT_ONCE = 16  # messages read in one turn, so that a flood of them cannot hold up a frame
_PARTS_AT_ONCE = 64  # and parts: one message may have as many as its sender likes
_MOST_WAITING = 32
_ANSWERS = 64  # that may wait for one asker


class Asked(NamedTuple):
    """A request, and whom to answer."""

    who: bytes
    request: Request


class ControlServer:
    """Listens on `endpoints`, none of which may be reached from other hosts unless `insecure` or with a `guard`.

    Attributes:
        endpoints: Where it listens.
        waiting: Requests that are still to be answered, oldest first.
        refused: Messages that were no request, or too many.

    Raises:
        UserError: An endpoint is taken or cannot be.
    """

    def __init__(self, endpoints: Sequence[str], *, insecure: bool = False, guard: Guard | None = None) -> None:
        self.waiting: deque[Asked] = deque()
        self.refused = 0
        self._parts: list[bytes] = []  # of a message that is being read: who sent it, and what
        self._spare = 0  # further parts of it
        self.endpoints: list[str] = []
        self._locks: list[EndpointLock] = []
        self._guard = guard
        self._context = guard.context if guard else zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, MESSAGE_MAX),
            (zmq.SNDHWM, _ANSWERS),
            (zmq.RCVHWM, _MOST_WAITING),
        ):
            self._socket.set(option, value)
        try:
            in_turn = sorted(endpoints, key=lambda endpoint: endpoint.startswith("tcp:"))  # as the guard wants it
            taken = {endpoint: self._take(endpoint, insecure or guard is not None) for endpoint in in_turn}
            self.endpoints = [taken[endpoint] for endpoint in endpoints]
        except UserError:
            self.close()
            raise

    def __enter__(self) -> ControlServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, for poll. It signals edges: call `poll` at each wake."""
        return self._socket.fileno()

    def poll(self) -> bool:
        """Reads what has come. Returns whether there may be more."""
        messages = 0
        for _ in range(_PARTS_AT_ONCE):
            if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                return False
            messages += self._read_part(self._socket.recv(zmq.NOBLOCK, copy=False))
            if messages == _AT_ONCE:
                break
        return True

    def answer(self, asked: Asked, **result: Any) -> None:
        """Answers a request with what it asked for. Others may wait then."""
        self._send(asked.who, {"id": asked.request.id, "ok": True, **result})
        self.poll()  # what came meanwhile: sending has taken the edge, and its wake-up with it

    def refuse(self, asked: Asked, why: str) -> None:
        """Answers a request with a sentence. Others may wait then."""
        self._send(asked.who, {"id": asked.request.id, "ok": False, "error": why})
        self.poll()

    def close(self) -> None:
        """Ends it and removes sockets and locks. Harmless when called twice."""
        self._socket.close(linger=100)
        if not self._guard:
            self._context.term()
        for lock in self._locks:
            lock.release()

    def _take(self, endpoint: str, public: bool) -> str:
        transport, _ = parse_endpoint(endpoint)
        if not public:
            require_local(endpoint)
        if self._guard:
            self._guard.protect(self._socket, endpoint, CONTROL_DOMAIN)
        try:
            if transport == "ipc":
                self._locks.append(EndpointLock(endpoint))
                return bind(self._socket, endpoint)
            return bind(self._socket, find_port(endpoint))
        except UserError as error:
            raise UserError(str(error).replace("--publish", "--control")) from error

    def _read_part(self, part: zmq.Frame) -> int:
        """Takes in one part. Returns 1 at the end of a message, else 0."""
        if len(self._parts) < 2:
            self._parts.append(part.bytes)
        else:
            self._spare += 1
        if part.more:
            return 0
        (who, *content), spare, self._parts, self._spare = self._parts, self._spare, [], 0
        self._take_in(who, content[0] if content and not spare else None)
        return 1

    def _take_in(self, who: bytes, content: bytes | None) -> None:
        try:
            if content is None:
                raise UserError("no command of isp-stream: a request has one part")
            request = parse_request(content)
            if len(self.waiting) >= _MOST_WAITING:
                raise UserError(f"too many commands at once: {_MOST_WAITING} wait already; ask again later")
        except UserError as error:
            self.refused += 1
            self._send(who, {"id": None, "ok": False, "error": str(error)})
            return
        self.waiting.append(Asked(who, request))

    def _send(self, who: bytes, answer: dict[str, Any]) -> None:
        try:
            self._socket.send_multipart([who, json.dumps(answer).encode()], zmq.NOBLOCK)
        except zmq.ZMQError:
            pass  # its asker is gone, or does not read
