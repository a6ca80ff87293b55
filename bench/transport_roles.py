"""The processes of the transport comparison: `python -m ispeed.bench.transport_roles ROLE OPTIONS`, options as JSON.

A role with `seconds` holds the stop watch: it prints one JSON object after that time and ends. The others go on until
their standard input closes or they are killed.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..stream.frame import FrameHeader
from ..stream.publish import Publisher
from ..stream.reader import FrameOverwritten
from ..stream.ring import Ring
from ..stream.subscribe import Subscriber
from .helper import HelperProcess
from .subscriber import checksum

WARM_UP_S = 0.5
_SLOTS = 16
_AHEAD = _SLOTS - 2  # frames that the source may be ahead of a sink that counts
_SOURCES = 4  # different frames, written in turn
_COUNT = struct.Struct("<Q")
COUNT_SIZE = _COUNT.size


def start_role(name: str, options: dict[str, Any]) -> HelperProcess:
    """One such process, as the comparison sees it."""
    return HelperProcess("transport_roles", name, json.dumps(options))


class StopWatch:
    """Frames a second and CPU of this process per frame, from `WARM_UP_S` after the first frame for `seconds`."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds if seconds else float("inf")
        self._warm_s: float | None = None
        self._start: tuple[float, float] | None = None
        self._frames = 0

    def over(self) -> bool:
        """Call once after each frame; whether the time is up."""
        now = time.monotonic()
        if self._warm_s is None:
            self._warm_s = now + WARM_UP_S
        elif self._start is None and now >= self._warm_s:
            self._start = (now, time.process_time())
        elif self._start is not None:
            self._frames += 1
            return now >= self._start[0] + self._seconds
        return False

    def result(self) -> dict[str, float]:
        """`fps`, and `cpu_us` per frame."""
        if self._start is None or not self._frames:
            return {"fps": 0.0, "cpu_us": 0.0}
        cpu_s, span_s = time.process_time() - self._start[1], time.monotonic() - self._start[0]
        return {"fps": self._frames / span_s, "cpu_us": cpu_s / self._frames * 1e6}


def ring_source(options: dict[str, Any]) -> dict[str, float]:
    """Publishes from a ring: at `fps`, or as fast as the sink counts. Without `write` the frames in the ring stay."""
    width, height, period_s = options["width"], options["height"], 1 / options.get("fps", float("inf"))
    frames = _frames(width, height)
    ring = Ring.create("srgb", _SLOTS, frames[0].size, stream_id=1)
    count = _open_count(options)
    watch = StopWatch(options.get("seconds"))
    with Publisher([options["endpoint"]], 0) as publisher:
        publisher.attach(ring, _info(width, height))
        while publisher.subscribers()["descriptors"] < options["subscribers"]:
            publisher.poll_subscriptions()
            time.sleep(0.005)
        number, due_s = 0, time.monotonic()
        while not watch.over():
            while count is not None and number - _COUNT.unpack_from(count)[0] >= _AHEAD:
                time.sleep(20e-6)
            ring.begin_write(number % _SLOTS, number)
            if options.get("write", True):
                np.copyto(ring.slot(number % _SLOTS), frames[number % _SOURCES])
            _describe(ring, number, width, height)
            publisher.publish(number, number + 1)
            publisher.poll_subscriptions()
            number += 1
            due_s += period_s
            time.sleep(max(0.0, due_s - time.monotonic()))
        return watch.result()


def ring_sink(options: dict[str, Any]) -> dict[str, float]:
    """Subscribes to every frame, reads each whole, and counts it if it was whole."""
    count = _open_count(options)
    with Subscriber(options["endpoint"], mode="every") as subscriber:

        def receive() -> bool:
            frame = subscriber.receive(timeout_ms=30_000)
            checksum(frame.array)
            try:
                frame.check()
            except FrameOverwritten:
                return False
            if count is not None:
                _COUNT.pack_into(count, 0, frame.header.sequence + 1)
            return True

        return _receive_all(receive, options)


def zmq_source(options: dict[str, Any]) -> dict[str, float]:
    """imagezmq's ImageSender as it comes: REQ/REP."""
    import imagezmq

    width, height = options["width"], options["height"]
    frames, image = _frames(width, height), np.empty((height, width, 3), np.uint8)
    sender, watch, number = imagezmq.ImageSender(connect_to=options["endpoint"]), StopWatch(None), 0
    while not watch.over():
        np.copyto(image.reshape(-1), frames[number % _SOURCES])
        sender.send_image("bench", image)
        number += 1
    return watch.result()


def zmq_sink(options: dict[str, Any]) -> dict[str, float]:
    """imagezmq's ImageHub as it comes: REQ/REP."""
    import imagezmq

    hub = imagezmq.ImageHub(open_port=options["endpoint"])

    def receive() -> bool:
        _, image = hub.recv_image()
        checksum(image)
        hub.send_reply(b"OK")
        return True

    return _receive_all(receive, options)


def _receive_all(receive: Callable[[], bool], options: dict[str, Any]) -> dict[str, float]:
    watch = StopWatch(options.get("seconds"))
    while True:
        if receive() and watch.over():
            return watch.result()


def _open_count(options: dict[str, Any]) -> mmap.mmap | None:
    if "count" not in options:
        return None
    with Path(options["count"]).open("r+b") as file:
        return mmap.mmap(file.fileno(), COUNT_SIZE)


def _frames(width: int, height: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, width * height * 3, np.uint8) for _ in range(_SOURCES)]


def _describe(ring: Ring, number: int, width: int, height: int) -> None:
    slot, now_ns = number % _SLOTS, time.monotonic_ns()
    FrameHeader(
        stream_id=1,
        slot=slot,
        generation=2 * number + 2,
        sequence=number,
        frame_id=number,
        grabbed_ns=now_ns,
        developed_ns=now_ns,
        width=width,
        height=height,
        stride=width * 3,
    ).pack_into(ring.memory, ring.header_offset(slot))
    ring.end_write(slot, number)


def _info(width: int, height: int) -> dict[str, Any]:
    size = {"width": width, "height": height, "stride": width * 3}
    return {"stream_id": f"{1:016x}", **size, "engine": "none", "fps": 0, "serial": "bench"}


def _leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


ROLES = {role.__name__: role for role in (ring_source, ring_sink, zmq_source, zmq_sink)}


def main() -> int:
    """One role, as named on the command line."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    result = ROLES[sys.argv[1]](json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)  # sockets with unsent messages would hold up a clean exit


if __name__ == "__main__":
    sys.exit(main())
