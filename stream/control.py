"""Control: what other programs may ask of a running isp-stream, and how they ask it.

    from ispeed.stream import Control

    with Control() as control:
        control.call("set", feature="ExposureTime", value=200)
        control.call("record", action="trigger", reason="the part came loose")

A ZeroMQ ROUTER socket of the main process; one JSON object a message, at most 4096 bytes, answered by one with the same
`id`. `docs/wire.md` describes them for other languages. The socket's file is the user's alone; an endpoint that other
hosts can reach is as closed as that of the frames.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from ..engines.errors import Sentence, UserError
from .curve import Watch, read_client, use_keys
from .endpoint import default_endpoint, parse_endpoint

MESSAGE_MAX = 4096  # bytes of a request
_ANSWER_MAX = 1 << 20


class ControlError(Sentence):
    """The running isp-stream refuses; the message is its sentence."""


def default_control(camera: int) -> str:
    """The control endpoint of a camera (index) when none is given."""
    return default_endpoint(camera) + ".control"


def control_beside(publish: Sequence[str], cameras: Sequence[int]) -> list[str]:
    """Where an isp-stream listens that publishes there: beside the sockets' files, or at the default of each camera."""
    files = [f"{endpoint}.control" for endpoint in publish if endpoint.startswith("ipc://")]
    return files or [default_control(camera) for camera in cameras]


class Control:
    """Asks a running isp-stream. A context manager; used by one thread.

    Args:
        endpoint: Where it listens; None is the default of `camera`.
        camera: Index of the camera that commands are for.
        timeout_ms: Longest wait for an answer, in milliseconds.
        keys: Folder of keys, for a tcp endpoint of an isp-stream that has keys: the one that `isp-stream keys FOLDER
            --client NAME --control` made there.

    Raises:
        UserError: An endpoint or a folder of keys that cannot be.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        camera: int = 0,
        timeout_ms: float = 5000,
        keys: Path | str | None = None,
    ) -> None:
        self.endpoint, self.camera, self.timeout_ms = endpoint or default_control(camera), camera, timeout_ms
        parse_endpoint(self.endpoint)
        self._keys = None if keys is None else read_client(keys)
        self._ids = itertools.count(1)
        self._context = zmq.Context()
        self._connect()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(self, command: str, timeout_ms: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Asks, and returns the answer.

        Raises ControlError with the sentence of a refusal, TimeoutError where no answer comes in time. What could not
        be delivered until then is not done later; what was delivered may be.
        """
        number = next(self._ids)
        request = json.dumps({"id": number, "cmd": command, "camera": self.camera, **arguments}).encode()
        if len(request) > MESSAGE_MAX:
            raise ControlError(f"the request has {len(request)} bytes, at most {MESSAGE_MAX} may be")
        timeout_ms = self.timeout_ms if timeout_ms is None else timeout_ms
        deadline = time.monotonic() + timeout_ms / 1e3
        if self._ready(deadline, zmq.POLLOUT):
            self._socket.send(request, zmq.NOBLOCK)
        while self._ready(deadline, zmq.POLLIN):
            answer = _parse(self._socket.recv())
            if answer.get("id") not in (number, None):
                continue  # of an earlier call that was given up
            if not answer.get("ok"):
                raise ControlError(str(answer.get("error", "it refuses without a reason")))
            return answer
        raise TimeoutError(
            f"no answer from {self.endpoint} within {timeout_ms / 1e3:g} s: is isp-stream running there?"
        )

    def close(self) -> None:
        """Ends the connection. Harmless when called twice."""
        self._watch.close()
        self._socket.close()
        self._context.term()

    def _connect(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.IMMEDIATE, 1)  # or whoever listens there later would get what was given up, and obey
        self._socket.set(zmq.MAXMSGSIZE, _ANSWER_MAX)
        self._socket.set(zmq.IPV6, int("[" in self.endpoint))
        use_keys(self._socket, self._keys, self.endpoint)
        self._watch = Watch(self._socket, self.endpoint, self._keys, control=True)
        self._poller = zmq.Poller()
        for socket in (self._socket, *self._watch.sockets):
            self._poller.register(socket, zmq.POLLIN)
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise UserError(f"cannot connect to {self.endpoint}: {error.strerror.lower()}") from error

    def _ready(self, deadline: float, event: int) -> bool:
        """Waits until it can send or receive, at most until `deadline`. Raises ControlError where we are not let in."""
        self._poller.register(self._socket, event)
        while True:
            came = dict(self._poller.poll(max(0, math.ceil((deadline - time.monotonic()) * 1e3))))
            if self._socket in came:
                return True
            if why := self._watch.turn(()):
                self._watch.close()
                self._socket.close()
                self._connect()  # libzmq does not knock again: the next call does
                raise ControlError(why)
            if time.monotonic() >= deadline:
                return False


def _parse(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ControlError("what answers there is no isp-stream") from error
    if not isinstance(answer, dict):
        raise ControlError("what answers there is no isp-stream")
    return answer
