"""Transport alone, in real processes: our ring with descriptors against imagezmq, and what more subscribers cost.

The publisher writes a fresh frame each time, the subscriber reads it whole. Both transports deliver every frame:
REQ/REP by its nature, ours because in this benchmark the publisher stays less than a ring ahead of the subscriber (a
shared count of frames read). So the rates are of frames that arrived intact, not of frames sent.
"""

from __future__ import annotations

import socket
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .transport_roles import COUNT_SIZE, start_role


def compare_transport(width: int, height: int, repeats: int = 5, seconds: float = 2.0) -> dict[str, Any]:
    """Frames a second of RGB8 `width` x `height`: ours, imagezmq over ipc and over tcp (its usual address), in turn.

    Returns medians, every single figure, and `ratio`: ours to the better of the two imagezmq ways.
    """
    rates: dict[str, list[float]] = {"ispeed": [], "imagezmq ipc": [], "imagezmq tcp": []}
    for _ in range(repeats):
        rates["ispeed"].append(_ring_rate(width, height, seconds))
        rates["imagezmq ipc"].append(_imagezmq_rate(width, height, seconds, tcp=False))
        rates["imagezmq tcp"].append(_imagezmq_rate(width, height, seconds, tcp=True))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [
        ours / max(ipc, tcp)
        for ours, ipc, tcp in zip(rates["ispeed"], rates["imagezmq ipc"], rates["imagezmq tcp"], strict=True)
    ]
    return {
        "width": width,
        "height": height,
        "format": "RGB8",
        "repeats": repeats,
        "seconds": seconds,
        "fps": {name: [round(value, 1) for value in values] for name, values in rates.items()},
        "median_fps": {name: round(value, 1) for name, value in medians.items()},
        "ratio": round(statistics.median(ratios), 2),
    }


def compare_subscribers(
    width: int, height: int, fps: float = 300.0, repeats: int = 5, seconds: float = 3.0
) -> dict[str, Any]:
    """CPU microseconds per frame of the publishing process with one and with three subscribers, paced at `fps`.

    `with_frame` includes writing the fresh frame, `descriptors_only` is the publishing alone. Growth is in per cent.
    """
    result: dict[str, Any] = {"fps": fps, "repeats": repeats, "seconds": seconds}
    for label, write in (("with_frame", True), ("descriptors_only", False)):
        costs: dict[int, list[float]] = {1: [], 3: []}
        for _ in range(repeats):
            for subscribers, values in costs.items():
                values.append(_publisher_cost(width, height, fps, seconds, subscribers, write))
        one, three = (statistics.median(costs[subscribers]) for subscribers in (1, 3))
        result[label] = {
            "cpu_us_per_frame": {str(n): [round(v, 1) for v in values] for n, values in costs.items()},
            "median_us": {"1": round(one, 1), "3": round(three, 1)},
            "growth_percent": round((three / one - 1) * 100, 1),
        }
    return result


def _ring_rate(width: int, height: int, seconds: float) -> float:
    with tempfile.TemporaryDirectory(prefix="ispeed-") as folder:
        count = Path(folder, "count")
        count.write_bytes(bytes(COUNT_SIZE))
        shared = {"endpoint": f"ipc://{folder}/t", "count": str(count), "width": width, "height": height}
        source = ("ring_source", {**shared, "subscribers": 1})
        return _run(source, ("ring_sink", {**shared, "seconds": seconds}))["fps"]


def _imagezmq_rate(width: int, height: int, seconds: float, *, tcp: bool) -> float:
    with tempfile.TemporaryDirectory(prefix="ispeed-") as folder:
        endpoint = f"tcp://127.0.0.1:{_free_port()}" if tcp else f"ipc://{folder}/t"
        source = ("zmq_source", {"endpoint": endpoint, "width": width, "height": height})
        return _run(source, ("zmq_sink", {"endpoint": endpoint, "seconds": seconds}))["fps"]


def _publisher_cost(width: int, height: int, fps: float, seconds: float, subscribers: int, write: bool) -> float:
    with tempfile.TemporaryDirectory(prefix="ispeed-") as folder:
        shared = {"endpoint": f"ipc://{folder}/t", "width": width, "height": height}
        options = {"fps": fps, "seconds": seconds, "subscribers": subscribers, "write": write}
        return _run(*[("ring_sink", shared)] * subscribers, ("ring_source", {**shared, **options}))["cpu_us"]


def _run(*roles: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Starts all; the last one holds the stop watch: when it has its result, the others are ended."""
    with ExitStack() as stack:
        started = [stack.enter_context(start_role(name, options)) for name, options in roles]
        return started[-1].read()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
