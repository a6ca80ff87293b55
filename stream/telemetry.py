"""Telemetry: what the main process tells its user, on the terminal and to whoever subscribes to it.

Showing it is the work of another process (`stream/status.py`), which is fed one JSON object a line through a pipe that
is never waited for, so a slow terminal cannot hold up a frame.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from .meter import Meter

Style = Literal["live", "plain", "json", "quiet"]
_INTERVAL_S = 1.0


class Telemetry:
    """Shows what the meters of all cameras say.

    Args:
        style: How the terminal shows it.
        announce: Takes every message too, with the camera's index.
    """

    def __init__(self, style: Style, announce: Callable[[dict[str, Any], int], None] = lambda message, camera: None):
        self._style, self._announce = style, announce
        self.meters: list[Meter] = []
        self._viewer: subprocess.Popen[bytes] | None = None
        self._next_s = float("inf")
        self._cut = False  # whether the viewer has half a line, which it is to pass over
        if style != "quiet":
            command = [sys.executable, "-m", "ispeed.stream.status", style]
            self._viewer = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
            if self._viewer.stdin:
                os.set_blocking(self._viewer.stdin.fileno(), False)

    def meter(self, camera: int, policy: str, trace: Path | None = None) -> Meter:
        """A new meter, for a camera that has none yet. Raises UserError where the trace cannot be made."""
        self.meters.append(Meter(camera, policy, self._show, trace))
        return self.meters[-1]

    def begin(self) -> None:
        """From now on a status is due once a second."""
        self._next_s = time.monotonic() + _INTERVAL_S

    def due_in_s(self) -> float:
        """Seconds until a status is due; not positive when it is."""
        return self._next_s - time.monotonic()

    def next_interval(self) -> None:
        """The status that was due has been given; a late one is not made up for."""
        self._next_s = max(self._next_s, time.monotonic() - _INTERVAL_S) + _INTERVAL_S

    def fault(self, text: str, event: str = "fault") -> None:
        """Something failed that is no single camera's."""
        self._show({"event": event, "camera": self.meters[0].camera, "text": text, "loud": True, "whole": True})

    def show(self, event: str, text: str, **details: Any) -> None:
        """Tells the terminal alone: what subscribers must not know, such as a token."""
        self._feed({"event": event, "camera": self.meters[0].camera, "text": text, **details}, wait=False)

    def warning(self, text: str) -> None:
        """Something that is no single camera's, and no fault."""
        self._show({"event": "warning", "camera": self.meters[0].camera, "text": text, "loud": True, "whole": True})

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

    def _show(self, message: dict[str, Any], wait: bool = False) -> None:
        loud, whole = message.pop("loud", False), message.pop("whole", False)
        if len(self.meters) > 1 and not whole:
            message["several"] = True
        if loud and self._style in ("quiet", "json"):
            which = f"camera {message['camera']}: " if message.get("several") else ""
            _complain(f"isp-stream: {which}{message['text']}")
        self._announce(message, message["camera"])
        self._feed(message, wait)

    def _feed(self, message: dict[str, Any], wait: bool) -> None:
        """Hands a line to the viewer. What it cannot take at once is dropped; with `wait`, after three seconds."""
        if self._viewer is None or self._viewer.stdin is None:
            return
        fd, data = self._viewer.stdin.fileno(), json.dumps(message).encode() + b"\n"
        if self._cut:
            data = b"\n" + data
        deadline = time.monotonic() + (3.0 if wait else 0.0)
        try:
            while data:
                if not select.select([], [fd], [], max(0.0, deadline - time.monotonic()))[1]:
                    return
                data = data[os.write(fd, data) :]  # a line shorter than PIPE_BUF is written whole
                self._cut = bool(data)
        except (BlockingIOError, BrokenPipeError):
            pass


def _complain(line: str) -> None:
    """A line on stderr, as far as that takes it at once: a frame must not wait for who reads it, or be lost with it."""
    data = line.encode("utf-8", "replace")[: select.PIPE_BUF - 1] + b"\n"
    with suppress(OSError, ValueError):  # nobody reads it, or there is none
        fd = sys.stderr.fileno()
        if select.select([], [fd], [], 0)[1]:  # a pipe then takes a line whole
            os.write(fd, data)
