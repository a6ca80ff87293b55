"""Publisher: sends what the develop stage has finished to any number of subscribers, and never waits for one.

Every message begins with an 8-byte topic; `docs/wire.md` describes them. Subscribers on the same host get descriptors
and look into the ring themselves; pixels travel only while somebody subscribes to them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

import zmq

from ..engines.errors import UserError
from .endpoint import (
    EndpointLock,
    boot_id,
    default_endpoint,
    find_port,
    parse_endpoint,
    require_local,
    why_not_bound,
)
from .frame import HEADER_SIZE, TOPIC_SIZE, VERSION, patch_published, topic
from .ring import Ring

__all__ = ["Publisher", "default_endpoint"]

SAVER_TOPIC = b"saver"  # nothing is sent on it: a saver subscribes to it behind the descriptors, to say it is there
INFO_MAX = 4096  # bytes of stream info
_QUEUE_BYTES = 128 << 20  # what may wait for one subscriber to pixels before it loses some: so much a stopped one holds
_QUEUE_LEAST, _QUEUE_MOST = 16, 1024  # the same in messages; a descriptor has 264 bytes
_SUBSCRIPTIONS_AT_ONCE = 256  # read in one turn, so that a hostile flood of them cannot hold up a frame
_SUBSCRIPTION_MAX = 1024  # bytes; whoever sends more is disconnected
_BREATH_S = 1e-3  # only for frames that are late by half a queue already
_LINGER_MS = 100  # at the end, for the last frames to leave


class Publisher:
    """One camera's stream on one XPUB socket.

    The endpoints are taken at once, and listened on from the first `attach`.

    Args:
        endpoints: Where to publish, ipc:// or tcp://; empty is `default_endpoint(camera)`.
        camera: The camera's index, part of every topic.
        insecure: Allow a tcp endpoint that other hosts can reach.

    Raises:
        UserError: An endpoint is taken, unusable, or public without `insecure`.
    """

    def __init__(self, endpoints: Sequence[str], camera: int, *, insecure: bool = False) -> None:
        if not 0 <= camera < 1_000_000:
            raise ValueError(f"camera index {camera} does not fit a topic")
        self._topics = {kind: topic(kind, camera) for kind in "idp"}
        self._counts = dict.fromkeys("idp", 0)
        self._camera = camera
        self._info = b""
        self._ring: Ring | None = None
        self._frame_bytes = 0
        self._burst = _QUEUE_LEAST // 2
        self._descriptor = bytearray(self._topics["d"].ljust(TOPIC_SIZE + HEADER_SIZE, b"\0"))
        self._header = memoryview(self._descriptor)[TOPIC_SIZE:]
        self._pixel_head = bytearray(self._topics["p"].ljust(TOPIC_SIZE + HEADER_SIZE, b"\0"))
        self._locks: list[EndpointLock] = []
        self.endpoints: list[str] = []
        self.saver_ready = False
        self.lapped = 0  # frames that were overwritten before they could be published; each is a gap in `sequence`
        self._unbound = True
        self._context = zmq.Context()
        self._socket = self._make_socket()
        try:
            for endpoint in endpoints or [default_endpoint(camera)]:
                self._reserve(endpoint, insecure)
        except UserError:
            self.close()
            raise

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def subscribers(self) -> dict[str, int]:
        """Subscriptions now: to `descriptors` and to `pixels`. One to everything counts in both."""
        return {"descriptors": self._counts["d"], "pixels": self._counts["p"]}

    def fileno(self) -> int:
        """The descriptor, for poll. It signals edges: call `poll_subscriptions` at each wake and after `publish`."""
        return self._socket.fileno()

    def attach(self, ring: Ring, info: dict[str, Any]) -> None:
        """Publishes from `ring` (sRGB) from now on, and tells every subscriber.

        `info` holds what only the caller knows: stream_id (16 hex digits), width, height, stride, engine, fps, serial.
        """
        where = {"ring_path": str(ring.path)} if ring.path else {"ring_fd": ring.fd}
        layout = ring.layout
        text = json.dumps(
            {
                "version": VERSION,
                "camera": self._camera,
                "boot_id": boot_id(),
                "pid": os.getpid(),
                **where,
                "slots": layout.slots,
                "slot_stride": layout.slot_stride,
                "payload": layout.payload,
                "data_offset": layout.data_offset,
                "headers_offset": layout.headers_offset,
                "generations_offset": layout.generations_offset,
                "total": layout.total,
                **info,
            }
        ).encode()
        if len(text) > INFO_MAX:
            raise ValueError(f"the stream info has {len(text)} bytes, at most {INFO_MAX} may be")
        self._info = self._topics["i"] + text
        self._ring = ring
        self._frame_bytes = info["stride"] * info["height"]
        if self._unbound:
            self._bind_all()
        self._send(self._info)

    def publish(self, first: int, last: int) -> None:
        """Publishes the frames of sequence `first` up to, not including, `last`, and stamps each in the ring.

        Never waits for a subscriber: one whose queue is full loses messages, and sees that by their sequence.
        """
        ring = self._ring
        if ring is None:
            raise RuntimeError("attach a ring before publishing")
        memory, generations, slots = ring.memory, ring.generations, ring.slots
        for sequence in range(first, last):
            slot, generation = sequence % slots, 2 * sequence + 2
            if generations[slot] != generation:
                self.lapped += 1
                continue
            at = ring.header_offset(slot)
            patch_published(memory, at, time.monotonic_ns())
            self._header[:] = memory[at : at + HEADER_SIZE]
            if generations[slot] != generation:  # overwritten between the check and the copy
                self.lapped += 1
                continue
            self._send(self._descriptor)
            if self._counts["p"]:
                self._send_pixels(ring, slot, generation)
            if (sequence - first) % self._burst == self._burst - 1:
                # After a stall more may have piled up than a queue holds: libzmq's own thread must keep up with us,
                # and only such a look makes this side know that it did.
                time.sleep(_BREATH_S)
                self._socket.get(zmq.EVENTS)

    def poll_subscriptions(self) -> None:
        """Takes in what subscribers asked for, and answers those new to the stream info."""
        answer = False
        for _ in range(_SUBSCRIPTIONS_AT_ONCE):
            if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                break
            answer |= self._note(self._socket.recv(zmq.NOBLOCK))
        if answer and self._info:
            self._send(self._info)

    def close(self) -> None:
        """Ends the stream and removes sockets and locks. Harmless when called twice."""
        self._socket.close(linger=_LINGER_MS)
        self._context.term()
        for lock in self._locks:
            lock.release()
        self._ring = None

    def _make_socket(self) -> zmq.Socket:
        made = self._context.socket(zmq.XPUB)
        made.set(zmq.XPUB_VERBOSER, 1)
        made.set(zmq.MAXMSGSIZE, _SUBSCRIPTION_MAX)
        made.set(zmq.LINGER, 0)
        return made

    def _reserve(self, endpoint: str, insecure: bool) -> None:
        """Takes an endpoint, as far as that goes without listening on it."""
        transport, _ = parse_endpoint(endpoint)
        if not insecure:
            require_local(endpoint)
        if transport == "ipc":
            self._locks.append(EndpointLock(endpoint))
            self.endpoints.append(endpoint)
        else:
            self.endpoints.append(find_port(endpoint))

    def _bind_all(self) -> None:
        # Only now, because the longest queue depends on the size of the frames and must be set before: libzmq may crash
        # when it is changed while a subscriber leaves.
        queue = max(_QUEUE_LEAST, min(_QUEUE_MOST, _QUEUE_BYTES // self._frame_bytes))
        self._socket.set(zmq.SNDHWM, queue)
        self._burst = queue // 2
        self.endpoints = [_bind(self._socket, endpoint) for endpoint in self.endpoints]
        self._unbound = False

    def _send(self, message: bytes | bytearray) -> None:
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            pass

    def _send_pixels(self, ring: Ring, slot: int, generation: int) -> None:
        # The copy is made first and sent after the check, so that a torn frame never leaves.
        pixels = zmq.Frame(ring.slot(slot)[: self._frame_bytes], copy=True)
        if ring.generations[slot] != generation:
            return
        self._pixel_head[TOPIC_SIZE:] = self._header
        try:
            self._socket.send(self._pixel_head, zmq.NOBLOCK | zmq.SNDMORE)
            self._socket.send(pixels, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            pass

    def _note(self, message: bytes) -> bool:
        """Counts a subscription or its end. Returns whether it is a new one to the stream info."""
        if not message or message[0] > 1:
            return False
        if message[1:] == SAVER_TOPIC:
            self.saver_ready = True
            return False
        prefix, step = message[1:], 1 if message[0] else -1
        matched = [kind for kind, name in self._topics.items() if name.startswith(prefix) or prefix.startswith(name)]
        for kind in matched:
            self._counts[kind] = max(0, self._counts[kind] + step)
        return step > 0 and "i" in matched


def _bind(socket: zmq.Socket, endpoint: str) -> str:
    """Binds a socket and returns the endpoint with its port. Raises UserError."""
    socket.set(zmq.IPV6, int("[" in endpoint))
    before = os.umask(0o177)  # a socket's file is the user's alone from its first moment on
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise UserError(why_not_bound(endpoint, error.errno)) from error
    finally:
        os.umask(before)
    return bytes(socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
