"""A subscriber process that reads every frame whole and measures when it could.

`python -m ispeed.bench.subscriber ENDPOINT --warm-up 2 --seconds 30` prints one JSON object when its first frame has
come (`window`: the span that will be measured, CLOCK_MONOTONIC) and one at the end (`result`). It ends early when its
standard input closes, so it never outlives the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from ..stream.frame import FLAG_DEVICE_CLOCK_IS_HOST, FrameHeader
from ..stream.histogram import LatencyHistogram
from ..stream.reader import FrameOverwritten
from ..stream.subscribe import Subscriber
from .witness import LossEvent

FIRST_FRAME_S = 30.0
MOST_LOSS_EVENTS = 10_000


def checksum(array: np.ndarray) -> int:
    """The sum of all 64-bit words (and the bytes that are left) of a contiguous uint8 array: reads all of it."""
    flat = array.reshape(-1)
    whole = flat.size // 8 * 8
    return int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())


class Measurement:
    """What one subscriber saw between two stamps."""

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self.start_ns, self.end_ns = start_ns, end_ns
        self.frames = self.torn = 0
        self.first: FrameHeader | None = None
        self.last: FrameHeader | None = None
        self.before: FrameHeader | None = None  # the last one ahead of the window
        self.loss_events: list[LossEvent] = []
        self.latency = {name: LatencyHistogram() for name in ("device", "grabbed", "read")}

    def frame(self, header: FrameHeader, usable_ns: int, read_ns: int, whole: bool) -> None:
        """Counts a frame that could be used at `usable_ns` and had been read by `read_ns`."""
        if header.grabbed_ns < self.start_ns:
            self.before = header
            return
        previous = self.last or self.before
        if self.first is None:
            self.first = header
        self.last = header
        self.frames += 1
        if not whole:
            self.torn += 1
        if header.flags & FLAG_DEVICE_CLOCK_IS_HOST:
            self.latency["device"].add(usable_ns - header.device_timestamp)
        self.latency["grabbed"].add(usable_ns - header.grabbed_ns)
        self.latency["read"].add(read_ns - header.grabbed_ns)
        if previous is not None:
            self._compare(previous, header)

    def _compare(self, before: FrameHeader, header: FrameHeader) -> None:
        # The counts in a header are those of the moment when it was written, right after developing.
        lost = {reason: n - before.losses[reason] for reason, n in header.losses.items() if n > before.losses[reason]}
        if lost and len(self.loss_events) < MOST_LOSS_EVENTS:
            self.loss_events.append(LossEvent(before.developed_ns, header.developed_ns, lost))

    def result(self) -> dict[str, Any]:
        """A JSON-able account."""
        first, last = self.first, self.last
        span_ns = last.published_ns - first.published_ns if first and last else 0
        return {
            "frames": self.frames,
            "torn": self.torn,
            "published_fps": (last.sequence - first.sequence) / span_ns * 1e9 if first and last and span_ns else 0.0,
            "received_fps": self.frames / ((self.end_ns - self.start_ns) * 1e-9),
            "sequences": last.sequence - first.sequence + 1 if first and last else 0,
            "lost_before": sum((self.before or first).losses.values()) if first else 0,
            "loss_events": [asdict(event) for event in self.loss_events],
            "latency": {name: histogram.to_json() for name, histogram in self.latency.items() if histogram.count},
        }


def measure(endpoint: str, warm_up_s: float, seconds: float, stop: threading.Event) -> dict[str, Any]:
    """Subscribes, reads every frame whole, and returns the result object. Raises TimeoutError without a first frame."""
    with Subscriber(endpoint, mode="every") as subscriber:
        subscriber.receive(timeout_ms=int(FIRST_FRAME_S * 1e3))
        start_ns = time.monotonic_ns() + int(warm_up_s * 1e9)
        measurement = Measurement(start_ns, start_ns + int(seconds * 1e9))
        _say({"event": "window", "start_ns": start_ns, "end_ns": measurement.end_ns, "pid": os.getpid()})
        counts = None
        while not stop.is_set():
            try:
                frame = subscriber.receive(timeout_ms=100)
            except TimeoutError:
                if time.monotonic_ns() >= measurement.end_ns:
                    break
                continue
            usable_ns = time.monotonic_ns()
            if usable_ns >= measurement.end_ns:
                break
            checksum(frame.array)
            read_ns = time.monotonic_ns()
            measurement.frame(frame.header, usable_ns, read_ns, _whole(frame))
            if counts is None and read_ns >= start_ns:
                counts = (subscriber.missed, subscriber.lapped)
        missed, lapped = counts or (0, 0)
        own = {"missed": subscriber.missed - missed, "lapped": subscriber.lapped - lapped}
        return {"event": "result", **own, "restarts": subscriber.restarts, **measurement.result()}


def _whole(frame: Any) -> bool:
    try:
        frame.check()
    except FrameOverwritten:
        return False
    return True


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> int:
    """The process. Exit code 1 when no frame came."""
    parser = argparse.ArgumentParser(prog="python -m ispeed.bench.subscriber", description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds after the first frame, not measured")
    parser.add_argument("--seconds", type=float, default=30.0, help="seconds to measure")
    options = parser.parse_args()
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    try:
        _say(measure(options.endpoint, options.warm_up, options.seconds, stop))
    except TimeoutError:
        _say({"why": f"no frame came from {options.endpoint} within {FIRST_FRAME_S:g} s"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
