"""Telemetry: rates, latencies, losses and time stamps of the running pipeline, gathered in fixed memory.

The publisher calls `frames` for what it sent; once a second `tick` turns the counters into a status. Showing it is the
work of another process (`stream/status.py`), which is fed one JSON object a line through a pipe that is never waited
for, so a slow terminal cannot hold up a frame.
"""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .frame import OFFSETS
from .histogram import LatencyHistogram
from .ledger import read_account
from .pace import Pace
from .ring import Ring, Word
from .trace import Trace

if TYPE_CHECKING:
    from .supervisor import Supervisor

Style = Literal["live", "plain", "json", "quiet"]
_INTERVAL_S = 1.0
_STAMPS = struct.Struct("<5q")  # device, grabbed, develop start, developed, published: neighbours in the header


class Telemetry:
    """What the main process tells its user."""

    def __init__(self, style: Style, trace: Path | None = None, policy: str = "every") -> None:
        self._style = style
        self._pace, self._engine = Pace(policy), ""
        self._trace = Trace(trace) if trace else None
        self._viewer: subprocess.Popen[bytes] | None = None
        self._total, self._interval = LatencyHistogram(), LatencyHistogram()
        self._device_clock = False
        self._camera_fps = 0.0
        self._start_s = time.monotonic()
        self._next_s = float("inf")
        self._before: tuple[float, list[int]] | None = None
        if style != "quiet":
            command = [sys.executable, "-m", "ispeed.stream.status", style]
            self._viewer = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            if self._viewer.stdin:
                os.set_blocking(self._viewer.stdin.fileno(), False)

    # -- what the supervisor reports ----------------------------------------------------------------------------

    def started(self, supervisor: Supervisor) -> None:
        """The rings exist and every stage is ready."""
        geometry = supervisor.geometry
        self._device_clock = geometry["device_clock_is_host"]
        self._camera_fps = geometry["fps"] or 0.0
        self._engine = supervisor.engine["name"]
        self._start_s = time.monotonic()
        self._next_s = self._start_s + _INTERVAL_S
        self._before = None
        self._show(
            {
                "event": "started",
                "pids": supervisor.pids,
                "geometry": geometry,
                "engine": supervisor.engine,
                "endpoint": supervisor.endpoints,
                "slots": supervisor.slots,
                "slack_ms": supervisor.slack_ms,
                "stream_id": f"{supervisor.stream_id:016x}",
            }
        )

    def frames(self, ring: Ring, first: int, last: int) -> None:
        """Frames [first, last) have been published: their latency from the device stamp, or else from grab."""
        memory, slots, origin = ring.memory, ring.slots, 0 if self._device_clock else 1
        for sequence in range(first, last):
            at = ring.header_offset(sequence % slots) + OFFSETS["device_timestamp"]
            stamps = _STAMPS.unpack_from(memory, at)
            self._interval.add(stamps[4] - stamps[origin])
            if self._trace:
                self._trace.add(sequence, stamps)

    def due_in_s(self) -> float:
        """Seconds until the next `tick`; not positive when it is due."""
        return self._next_s - time.monotonic()

    def tick(self, words: memoryview, subscribers: dict[str, int]) -> None:
        """Shows a status of the interval since the last one."""
        now, counts = time.monotonic(), list(words)
        self._next_s = max(self._next_s, now - _INTERVAL_S) + _INTERVAL_S  # a late one is not made up for
        before_s, before = self._before or (self._start_s, [0] * len(counts))
        self._before = (now, counts)
        delta, elapsed = [b - a for a, b in zip(before, counts, strict=True)], now - before_s
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
                "rates": {name: round(count / elapsed, 1) for name, count in rates.items()},
                "account": {
                    "seen": account.seen,
                    "missing": account.missing,
                    "published": account.published,
                    "lost": account.lost,
                    "in_flight": account.in_flight,
                },
                "latency_ms": self._latency(self._interval),
                "bottleneck": _bottleneck(delta, counts, elapsed, self._camera_fps),
                "subscribers": subscribers,
            }
        )
        self._interval.clear()
        if sentence := self._pace.look(delta, elapsed, self._engine):
            self.warning(sentence, event="engine_behind")

    def fault(self, text: str, event: str = "fault", **details: Any) -> None:
        """Something failed; the user must see it even where the status is not shown."""
        self._tell(text, event, details)

    def warning(self, text: str, event: str = "warning", **details: Any) -> None:
        """Something worth knowing."""
        self._tell(text, event, details)

    def changed(self, change: dict[str, Any]) -> None:
        """A feature of the camera was set during the run: a message of the grab stage."""
        self._show({name: change[name] for name in ("event", "text", "feature", "value", "after")})

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

    def close(self) -> None:
        """Lets the viewer show what it has, and end."""
        viewer, self._viewer = self._viewer, None
        if viewer is None:
            return
        if viewer.stdin:
            with suppress(OSError):  # what was still buffered for a viewer that is gone
                viewer.stdin.close()
        try:
            viewer.wait(3)
        except subprocess.TimeoutExpired:
            viewer.kill()
            viewer.wait()

    # -- inside -------------------------------------------------------------------------------------------------

    def _latency(self, histogram: LatencyHistogram) -> dict[str, Any]:
        return {"from": "device" if self._device_clock else "grabbed", **histogram.summary_ms()}

    def _tell(self, text: str, event: str, details: dict[str, Any]) -> None:
        if self._style in ("quiet", "json"):
            sys.stderr.write(f"isp-stream: {text}\n")
        self._show({"event": event, "text": text, **details})

    def _show(self, message: dict[str, Any], *, wait: bool = False) -> None:
        """Hands a line to the viewer. What it cannot take at once is dropped; with `wait`, after three seconds."""
        if self._viewer is None or self._viewer.stdin is None:
            return
        fd, data = self._viewer.stdin.fileno(), json.dumps(message).encode() + b"\n"
        deadline = time.monotonic() + (3.0 if wait else 0.0)
        try:
            while data:
                if not select.select([], [fd], [], max(0.0, deadline - time.monotonic()))[1]:
                    return
                data = data[os.write(fd, data) :]  # a line shorter than PIPE_BUF is written whole
        except (BlockingIOError, BrokenPipeError):
            pass


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
