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
from .curve import Guard
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

_KINDS = "idps"  # of topics: stream info, descriptors, pixels, status
_TOLD_ANEW = ("started", "status")  # events of `s` that each new subscriber is told
SAVER_TOPIC = b"saver"  # nothing is sent on it: a saver subscribes to it behind the descriptors, to say it is there
INFO_MAX = 4096  # bytes of stream info
_QUEUE_BYTES = 128 << 20  # what may wait for one subscriber to pixels before it loses some: so much a stopped one holds
_QUEUE_LEAST, _QUEUE_MOST = 16, 1024  # the same in messages; a descriptor has 264 bytes
_SUBSCRIPTIONS_AT_ONCE = 256  # read in one turn, so that a hostile flood of them cannot hold up a frame
_SUBSCRIPTION_MAX = 1024  # bytes; whoever sends more is disconnected
_BREATH_S = 1e-3  # only for frames that are late by half a queue already
_LINGER_MS = 100  # at the end, for the last frames to leave


class _Outlet:
    """One camera's part of a publisher: its topics, its ring, and what is sent anew to whoever subscribes."""

    def __init__(self, camera: int) -> None:
        if not 0 <= camera < 1_000_000:
            raise ValueError(f"camera index {camera} does not fit a topic")
        self.camera = camera
        self.topics = {kind: topic(kind, camera) for kind in _KINDS}
        self.counts = dict.fromkeys(_KINDS, 0)
        self.ring: Ring | None = None
        self.frame_bytes = 0
        self.info = b""
        self.told: dict[str, bytes] = {}  # the last message of each event that is told anew
        self.descriptor = bytearray(self.topics["d"].ljust(TOPIC_SIZE + HEADER_SIZE, b"\0"))
        self.header = memoryview(self.descriptor)[TOPIC_SIZE:]
        self.pixel_head = bytearray(self.topics["p"].ljust(TOPIC_SIZE + HEADER_SIZE, b"\0"))

    def attach(self, ring: Ring, info: dict[str, Any]) -> None:
        """Takes a ring, and makes the stream info of it."""
        where = {"ring_path": str(ring.path)} if ring.path else {"ring_fd": ring.fd}
        layout = ring.layout
        text = json.dumps(
            {
                "version": VERSION,
                "camera": self.camera,
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
        self.info = self.topics["i"] + text
        self.ring = ring
        self.frame_bytes = info["stride"] * info["height"]

    def note(self, prefix: bytes, step: int) -> list[str]:
        """Counts a subscription (`step` 1) or its end (-1). Returns the kinds of topic that it is to."""
        matched = [kind for kind, name in self.topics.items() if name.startswith(prefix) or prefix.startswith(name)]
        for kind in matched:
            self.counts[kind] = max(0, self.counts[kind] + step)
        return matched


class Publisher:
    """The streams of one or several cameras on one XPUB socket.

    The endpoints are taken at once, and listened on when every camera has its ring.

    Args:
        endpoints: Where to publish, ipc:// or tcp://; empty is `default_endpoint` of each camera.
        cameras: The camera's index, or one for each; part of every topic.
        insecure: Allow a tcp endpoint that other hosts can reach.
        guard: Encrypts tcp endpoints and decides who may connect. Poll it too, and close it after the publisher.

    Attributes:
        endpoints: Where it publishes.
        savers: How many savers have subscribed.
        lapped: Frames that were overwritten before they could be published; each is a gap in `sequence`.

    Raises:
        UserError: An endpoint is taken, unusable, or public with neither `insecure` nor `guard`.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        cameras: int | Sequence[int],
        *,
        insecure: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self._outlets = {camera: _Outlet(camera) for camera in ([cameras] if isinstance(cameras, int) else cameras)}
        self._first = next(iter(self._outlets))
        self._burst = _QUEUE_LEAST // 2
        self._locks: list[EndpointLock] = []
        self.endpoints: list[str] = []
        self.savers = 0
        self.lapped = 0
        self._unbound = True
        self._guard = guard
        self._context = guard.context if guard else zmq.Context()
        self._socket = self._make_socket()
        try:
            for endpoint in endpoints or [default_endpoint(camera) for camera in self._outlets]:
                self._reserve(endpoint, insecure or guard is not None)
        except UserError:
            self.close()
            raise

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def subscribers(self, camera: int | None = None) -> dict[str, int]:
        """Subscriptions now: to `descriptors` and to `pixels`. One to everything counts in both."""
        counts = self._outlet(camera).counts
        return {"descriptors": counts["d"], "pixels": counts["p"]}

    def fileno(self) -> int:
        """The descriptor, for poll. It signals edges: call `poll_subscriptions` at each wake and after `publish`."""
        return self._socket.fileno()

    def attach(self, ring: Ring, info: dict[str, Any], camera: int | None = None) -> None:
        """Publishes from `ring` (sRGB) from now on, and tells every subscriber.

        `info` holds what only the caller knows: stream_id (16 hex digits), width, height, stride, engine, fps, serial,
        clock.
        `camera` may be left out where there is one.
        """
        outlet = self._outlet(camera)
        outlet.attach(ring, info)
        if not self._unbound:
            self._send(outlet.info)
        elif all(other.ring for other in self._outlets.values()):
            self._bind_all()
            for other in self._outlets.values():
                self._send(other.info)

    def publish(self, first: int, last: int, camera: int | None = None) -> None:
        """Publishes the frames of sequence `first` up to, not including, `last`, and stamps each in the ring.

        Never waits for a subscriber: one whose queue is full loses messages, and sees that by their sequence.
        """
        outlet = self._outlet(camera)
        ring = outlet.ring
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
            outlet.header[:] = memory[at : at + HEADER_SIZE]
            if generations[slot] != generation:  # overwritten between the check and the copy
                self.lapped += 1
                continue
            self._send(outlet.descriptor)
            if outlet.counts["p"]:
                self._send_pixels(outlet, ring, slot, generation)
            if (sequence - first) % self._burst == self._burst - 1:
                # After a stall more may have piled up than a queue holds: libzmq's own thread must keep up with us,
                # and only such a look makes this side know that it did.
                time.sleep(_BREATH_S)
                self._socket.get(zmq.EVENTS)

    def announce(self, message: dict[str, Any], camera: int | None = None) -> None:
        """Sends what the user is told, as JSON, to whoever subscribes to it (`s`)."""
        outlet = self._outlet(camera)
        event = message["event"]
        if not outlet.counts["s"] and event not in _TOLD_ANEW:
            return
        data = outlet.topics["s"] + json.dumps(message).encode()
        if event in _TOLD_ANEW:
            outlet.told[event] = data
        self._send(data)

    def poll_subscriptions(self) -> None:
        """Takes in what subscribers asked for, and answers those new to the stream info or the status."""
        wanted: set[tuple[int, str]] = set()
        for _ in range(_SUBSCRIPTIONS_AT_ONCE):
            if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                break
            wanted |= self._note(self._socket.recv(zmq.NOBLOCK))
        for camera, kind in sorted(wanted):
            outlet = self._outlets[camera]
            if kind == "i" and outlet.info:
                self._send(outlet.info)
            elif kind == "s":
                for message in outlet.told.values():
                    self._send(message)

    def close(self) -> None:
        """Ends the stream and removes sockets and locks. Harmless when called twice."""
        self._socket.close(linger=_LINGER_MS)
        if not self._guard:
            self._context.term()
        for lock in self._locks:
            lock.release()
        for outlet in self._outlets.values():
            outlet.ring = None

    def _outlet(self, camera: int | None) -> _Outlet:
        return self._outlets[self._first if camera is None else camera]

    def _make_socket(self) -> zmq.Socket:
        made = self._context.socket(zmq.XPUB)
        made.set(zmq.XPUB_VERBOSER, 1)
        made.set(zmq.MAXMSGSIZE, _SUBSCRIPTION_MAX)
        made.set(zmq.LINGER, 0)
        return made

    def _reserve(self, endpoint: str, public: bool) -> None:
        """Takes an endpoint, as far as that goes without listening on it."""
        transport, _ = parse_endpoint(endpoint)
        if not public:
            require_local(endpoint)
        if transport == "ipc":
            self._locks.append(EndpointLock(endpoint))
            self.endpoints.append(endpoint)
        else:
            self.endpoints.append(find_port(endpoint))

    def _bind_all(self) -> None:
        # Only now, because the longest queue depends on the size of the frames and must be set before: libzmq may crash
        # when it is changed while a subscriber leaves.
        largest = max(outlet.frame_bytes for outlet in self._outlets.values())
        queue = max(_QUEUE_LEAST, min(_QUEUE_MOST, _QUEUE_BYTES // largest))
        self._socket.set(zmq.SNDHWM, queue)
        self._burst = queue // 2
        in_turn = sorted(self.endpoints, key=lambda endpoint: endpoint.startswith("tcp:"))  # as the guard wants it
        bound = {endpoint: self._bind(endpoint) for endpoint in in_turn}
        self.endpoints = [bound[endpoint] for endpoint in self.endpoints]
        self._unbound = False

    def _bind(self, endpoint: str) -> str:
        if self._guard:
            self._guard.protect(self._socket, endpoint)
        return bind(self._socket, endpoint)

    def _send(self, message: bytes | bytearray) -> None:
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            pass

    def _send_pixels(self, outlet: _Outlet, ring: Ring, slot: int, generation: int) -> None:
        # The copy is made first and sent after the check, so that a torn frame never leaves.
        pixels = zmq.Frame(ring.slot(slot)[: outlet.frame_bytes], copy=True)
        if ring.generations[slot] != generation:
            return
        outlet.pixel_head[TOPIC_SIZE:] = outlet.header
        try:
            self._socket.send(outlet.pixel_head, zmq.NOBLOCK | zmq.SNDMORE)
            self._socket.send(pixels, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            pass

    def _note(self, message: bytes) -> set[tuple[int, str]]:
        """Counts a subscription or its end. Returns the (camera, kind) that want something said to them."""
        if not message or message[0] > 1:
            return set()
        if message[1:] == SAVER_TOPIC:
            self.savers += message[0]
            return set()
        step = 1 if message[0] else -1
        matched = {(camera, kind) for camera, o in self._outlets.items() for kind in o.note(message[1:], step)}
        return {(camera, kind) for camera, kind in matched if kind in "is"} if step > 0 else set()


def bind(socket: zmq.Socket, endpoint: str) -> str:
    """Binds a socket, its file the user's alone, and returns the endpoint with its port. Raises UserError."""
    socket.set(zmq.IPV6, int("[" in endpoint))
    before = os.umask(0o177)  # a socket's file is the user's alone from its first moment on
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise UserError(why_not_bound(endpoint, error.errno)) from error
    finally:
        os.umask(before)
    return bytes(socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
