"""Meter: rates, latencies, losses and time stamps of one camera's pipeline, gathered in fixed memory.

The pipeline calls `frames` for what was published; once a second `tick` turns the counters into a status.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .frame import OFFSETS
from .histogram import LatencyHistogram
from .ledger import read_account
from .pace import Pace
from .ring import Ring, Word
from .trace import Trace

_STAMPS = struct.Struct("<5q")  # device, grabbed, develop start, developed, published: neighbours in the header


class Meter:
    """What is measured of one camera, and what its pipeline tells the user.

    Args:
        camera: Index of the camera; every message carries it.
        policy: The queue policy.
        show: Takes messages: dicts with "event" and "camera"; its second argument asks to wait for the viewer.
        trace: File of each frame's time stamps, if one is wanted.

    Attributes:
        camera: See above.
        engine: Name of the engine that develops.
        last: The last message of the events that say how things stand: "started" and "status".
    """

    def __init__(
        self, camera: int, policy: str, show: Callable[[dict[str, Any], bool], None], trace: Path | None = None
    ) -> None:
        self.camera = camera
        self.last: dict[str, dict[str, Any]] = {}
        self._show_message = show
        self._pace, self.engine = Pace(policy), ""
        self._trace = Trace(trace) if trace else None
        self._total, self._interval = LatencyHistogram(), LatencyHistogram()
        self._device_clock = False
        self._camera_fps = 0.0
        self._start_s = time.monotonic()
        self._before: tuple[float, list[int]] | None = None

    def started(self, geometry: dict[str, Any], engine: dict[str, Any], **more: Any) -> None:
        """The rings exist and every stage is ready."""
        self._device_clock = geometry["device_clock_is_host"]
        self._camera_fps = geometry["fps"] or 0.0
        self._start_s = time.monotonic()
        self._before = None
        self.engine_is(engine)
        self._show({"event": "started", "geometry": geometry, "engine": engine, **more})

    def engine_is(self, engine: dict[str, Any]) -> None:
        """Which engine develops from now on."""
        self.engine = engine["name"]

    def rate_is(self, fps: float | None) -> None:
        """The camera's rate from now on, Hz."""
        self._camera_fps = fps or 0.0

    def frames(self, ring: Ring, first: int, last: int) -> None:
        """Frames [first, last) have been published: their latency from the device stamp, or else from grab."""
        memory, slots, origin = ring.memory, ring.slots, 0 if self._device_clock else 1
        for sequence in range(first, last):
            at = ring.header_offset(sequence % slots) + OFFSETS["device_timestamp"]
            stamps = _STAMPS.unpack_from(memory, at)
            self._interval.add(stamps[4] - stamps[origin])
            if self._trace:
                self._trace.add(sequence, stamps)

    def tick(self, words: memoryview, subscribers: dict[str, int], *, over: bool = False, **more: Any) -> None:
        """Shows a status of the interval since the last one. Of a run that ends nothing is a limit: `over`."""
        now, counts = time.monotonic(), list(words)
        before_s, before = self._before or (self._start_s, [0] * len(counts))
        self._before = (now, counts)
        delta, elapsed = [b - a for a, b in zip(before, counts, strict=True)], max(1e-9, now - before_s)
        account = read_account(words)
        self._total.merge(self._interval)
        rates = {
            "camera": delta[Word.SEEN] + delta[Word.CAMERA_GAP] + delta[Word.NO_FREE_BUFFER],
            "grab": delta[Word.SEEN],
            "develop": delta[Word.DEVELOPED],
            "publish": delta[Word.PUBLISHED],
        }
        self._show(
            {
                "event": "status",
                "t_s": round(now - self._start_s, 3),
                "fps": self._camera_fps,
                "rates": {name: round(count / elapsed, 1) for name, count in rates.items()},
                "account": {
                    "seen": account.seen,
                    "missing": account.missing,
                    "published": account.published,
                    "lost": account.lost,
                    "late": account.late,
                    "in_flight": account.in_flight,
                },
                "latency_ms": self._latency(self._interval),
                "bottleneck": "" if over else _bottleneck(delta, counts, elapsed, self._camera_fps),
                "ring": {"waiting": counts[Word.WAITING], "queued": counts[Word.QUEUED]},
                "engine": self.engine,
                "subscribers": subscribers,
                **more,
            }
        )
        self._interval.clear()
        if (sentence := self._pace.look(delta, elapsed, self.engine)) and not over:
            self.warning(sentence, event="engine_behind")

    def fault(self, text: str, event: str = "fault", **details: Any) -> None:
        """Something failed; the user must see it even where the status is not shown."""
        self._show({"event": event, "text": text, "loud": True, **details})

    def warning(self, text: str, event: str = "warning", **details: Any) -> None:
        """Something worth knowing."""
        self._show({"event": event, "text": text, "loud": True, **details})

    def note(self, event: str, text: str, **details: Any) -> None:
        """Something that happened as it was asked for."""
        self._show({"event": event, "text": text, **details})

    def saved(self, report: dict[str, int], folder: Path | None) -> None:
        """What --save has written."""
        text = f"saved {report.get('saved', 0)} frames to {folder}, missed {report.get('missed', 0)}"
        self._show({"event": "saved", "text": text, **report}, wait=True)

    def final(self, ledger: dict[str, Any], code: int) -> None:
        """The last word: the ledger, the latency of the whole run, and the exit code."""
        self._total.merge(self._interval)
        latency = self._latency(self._total)
        self._show({"event": "final", "ledger": ledger, "latency_ms": latency, "exit": code}, wait=True)

    def write_trace(self) -> None:
        """Writes the trace, if one is kept. Raises UserError where that fails."""
        if self._trace:
            self._trace.write(self._device_clock)

    def _latency(self, histogram: LatencyHistogram) -> dict[str, Any]:
        return {"from": "device" if self._device_clock else "grabbed", **histogram.summary_ms()}

    def _show(self, message: dict[str, Any], *, wait: bool = False) -> None:
        event = message.pop("event")
        told = {"event": event, "camera": self.camera, **message}
        if event in ("started", "status"):
            self.last[event] = told
        self._show_message(told, wait)


def _bottleneck(delta: list[int], counts: list[int], elapsed: float, camera_fps: float) -> str:
    """Which stage limits the rate, in a word, with the figure that says so."""
    busy = min(1.0, delta[Word.DEVELOP_BUSY_NS] * 1e-9 / elapsed)  # counted when a batch ends, so it may run over
    lost = delta[Word.SUPERSEDED] + delta[Word.NO_FREE_BUFFER]
    if lost and busy > 0.85:
        return f"engine ({busy:.0%} busy)"
    if lost:
        return f"ring (engine {busy:.0%} busy, {counts[Word.WAITING]} waiting)"
    if counts[Word.DEVELOPED] - counts[Word.PUBLISHED] > 8:
        return "publish"
    camera = (delta[Word.SEEN] + delta[Word.CAMERA_GAP]) / elapsed
    if camera_fps and camera < 0.97 * camera_fps:
        return f"camera ({camera:.0f} of {camera_fps:.0f} Hz)"
    return f"none (engine {busy:.0%} busy)"
