"""Feed: reads the stream infos and the status messages of every camera, in the server's own loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import zmq
import zmq.asyncio

from ..curve import read_client, use_keys
from ..frame import TOPIC_SIZE, topic
from ..reader import MappedRing, StreamError, StreamInfo
from .security import tell_fault

_MESSAGE_MAX = 1 << 16  # bytes; whoever sends more is disconnected


class Feed:
    """One SUB socket for each camera. `on_ring` gets each ring that could be mapped, `on_message` each message.

    `keys` is the folder of keys for tcp endpoints, where there are any.
    """

    def __init__(
        self,
        cameras: list[dict[str, Any]],
        keys: str | None,
        on_ring: Callable[[int, MappedRing], None],
        on_message: Callable[[int, dict[str, Any]], None],
    ) -> None:
        self._on_ring, self._on_message = on_ring, on_message
        self._keys = read_client(keys) if keys else None
        self._context = zmq.asyncio.Context()
        self._tasks = [asyncio.ensure_future(self._read(c["camera"], c["endpoint"])) for c in cameras]

    async def _read(self, camera: int, endpoint: str) -> None:
        socket = self._context.socket(zmq.SUB)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RECONNECT_IVL, 50)
        socket.set(zmq.RECONNECT_IVL_MAX, 250)
        socket.set(zmq.MAXMSGSIZE, _MESSAGE_MAX)
        socket.set(zmq.IPV6, int("[" in endpoint))
        for kind in "is":
            socket.subscribe(topic(kind, camera))
        use_keys(socket, self._keys, endpoint)
        try:
            socket.connect(endpoint)
            while True:
                data = await socket.recv()
                try:
                    self._take(camera, data[:2], data[TOPIC_SIZE:])
                except Exception as error:  # a message that is not as it should be must not end the others
                    tell_fault("at a status message", error)
        finally:
            socket.close()

    def _take(self, camera: int, kind: bytes, text: bytes) -> None:
        if kind == b"i/":
            try:
                self._on_ring(camera, MappedRing(StreamInfo.parse(text)))
            except StreamError as error:
                warning = {"event": "warning", "camera": camera, "text": f"the monitor has no pictures: {error}"}
                self._on_message(camera, warning)
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(message, dict) and isinstance(message.get("event"), str):
            self._on_message(camera, message)

    async def close(self) -> None:
        """Ends the subscriptions."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.destroy(linger=0)
