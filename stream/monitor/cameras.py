"""What the monitor knows of each camera, from the status messages of the main process."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

_HISTORY = 120  # status messages, one a second
_MESSAGES = 100  # faults, warnings and changes that are kept to show
_GONE_AFTER = 3  # status messages in a row without a frame of a camera that should send some

_STREAM = ("grab", "develop", "publish")  # the stages that every frame goes through

_ERRORS = ("fault", "stage_died", "stage_hung", "camera_lost", "saver_failed", "recording_failed")
_WARNINGS = ("warning", "waiting", "engine_behind")
_SHOWN = ("started", "final")  # elsewhere than in the list of messages


class Camera:
    """One camera: its last messages, and what they add up to.

    After `silent_s` seconds without a status the main process counts as stuck.
    """

    def __init__(self, index: int, silent_s: float) -> None:
        self.index, self._silent_s = index, silent_s
        self.started: dict[str, Any] | None = None
        self.status: dict[str, Any] | None = None
        self.status_at = time.monotonic()  # of the last status, at first of our own start
        self.recording: dict[str, Any] = {}
        self.history: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self.messages: deque[dict[str, Any]] = deque(maxlen=_MESSAGES)
        self.counts: dict[str, int] = {}  # messages by event, for metrics
        self.gone_since_ms = 0  # wall clock; 0 while the camera is there
        self.gone_text = ""
        self.ended = False
        self.fps = 0.0  # of the camera; 0 where it has no rate of its own
        self._silent = 0  # status messages in a row without a frame of a camera that is not triggered

    def take(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Takes in one message of the status topic. Returns what pages are to be told.

        `started` and the last `status` come again whenever anybody subscribes to the topic.
        """
        event = message["event"]
        now_ms = int(time.time() * 1e3)
        if event == "status":
            return self._take_status(message, now_ms)
        told: list[dict[str, Any]] = []
        if event == "started":
            if self.started and self.started.get("stream_id") == message.get("stream_id"):
                return []
            self._begin(message)
            told.append({"type": "started", "camera": self.index, "started": message})
        elif event == "changed" and message.get("feature") == "AcquisitionFrameRate":
            self.fps = float(message.get("value", self.fps))
        elif event == "recording":
            self._take_recording(message)
        elif event == "final":
            self.ended = True
        self._note_absence(event, str(message.get("text", "")), now_ms)
        self.counts[event] = self.counts.get(event, 0) + 1
        if event not in _SHOWN and message.get("text"):
            entry = {"time_ms": now_ms, "event": event, "level": _level(message), "text": str(message["text"])[:500]}
            self.messages.append(entry)
            told.append({"type": "messages", "camera": self.index, "entries": [entry]})
        return [self.to_json(), *told]

    def _begin(self, started: dict[str, Any]) -> None:
        self.started, self.ended = started, False
        self.fps = float(started.get("geometry", {}).get("fps") or 0)

    def _note_absence(self, event: str, text: str, now_ms: int) -> None:
        if event == "camera_lost":
            self.gone_since_ms, self.gone_text = now_ms, text.removeprefix("camera lost: ")
        elif event in ("outage", "started"):
            self.gone_since_ms, self.gone_text = 0, ""
        elif event == "waiting":
            self.gone_since_ms = self.gone_since_ms or now_ms
            self.gone_text = self.gone_text or text  # why it went says more than that it is not there

    def _take_status(self, message: dict[str, Any], now_ms: int) -> list[dict[str, Any]]:
        if self.status and self.status.get("t_s") == message.get("t_s"):
            return []
        self.status, self.status_at = message, time.monotonic()
        if isinstance(message.get("record"), dict):
            self._take_recording(message["record"])
        self.ended |= message.get("state") == "over"
        if message.get("state") == "waiting":  # and we were not there when it went
            self.gone_since_ms = self.gone_since_ms or now_ms
        rates = message.get("rates", {})
        self.fps = float(message.get("fps", self.fps))
        self._silent = 0 if rates.get("camera", 0) > 0 or self.triggered else self._silent + 1
        latency = message.get("latency_ms", {})
        entry = {"time_ms": now_ms, **{name: latency.get(name) for name in ("p50", "p99")}}
        self.history.append(entry)
        return [self.to_json(), {"type": "history", "camera": self.index, "entries": [entry]}]

    def _take_recording(self, message: dict[str, Any]) -> None:
        """What the recorder does (recording, armed, idle, over), and of a recording what began it and its size."""
        names = ("state", "reason", "file", "frames", "bytes") if message.get("state") == "recording" else ("state",)
        kept = self.recording if self.recording.get("state") == message.get("state") else {}
        self.recording = {**kept, **{name: message[name] for name in names if name in message}}

    @property
    def triggered(self) -> bool:
        """Whether the camera waits for triggers, so that silence is idle."""
        return self.started is not None and not self.fps

    @property
    def stuck(self) -> str:
        """The stage that has frames and does not get on with them, "main" where no status comes; "" for none."""
        if self.status_age_s > self._silent_s and not self.ended:
            return "main"
        return next((name for name in self._stuck_stages() if name in _STREAM), "")

    @property
    def stuck_beside(self) -> list[str]:
        """Stages that are stuck and hold up no frame, such as the recorder at a slow disk."""
        return [name for name in self._stuck_stages() if name not in _STREAM]

    def _stuck_stages(self) -> list[str]:
        stages = (self.status or {}).get("stages", {})
        return [name for name, told in stages.items() if told.get("state") == "stuck"]

    @property
    def status_age_s(self) -> float:
        """Seconds since the last status."""
        return time.monotonic() - self.status_at

    @property
    def state(self) -> str:
        """starting, live, idle (waits for a trigger), gone, stuck, ended."""
        if self.ended:
            return "ended"
        if self.stuck == "main":
            return "stuck" if self.status else "starting"
        if self.gone_since_ms:
            return "gone"
        if self.stuck:  # no frame comes from a camera that nobody asks
            return "stuck"
        if self._silent >= max(1.0, 1 / self.fps if self.fps else 1.0) * _GONE_AFTER:
            return "gone"
        if self.status is None:
            return "starting"
        moving = bool(self.status) and (self.status or {}).get("rates", {}).get("camera", 0) > 0
        return "idle" if self.triggered and not moving else "live"

    def to_json(self) -> dict[str, Any]:
        """What pages show, beside the history and the messages."""
        return {
            "type": "camera",
            "camera": self.index,
            "state": self.state,
            "since_ms": self.gone_since_ms,
            "text": self.gone_text,
            "stuck": self.stuck,
            "stuck_beside": self.stuck_beside,
            "triggered": self.triggered,
            "status": self.status,
            "recording": self.recording,
        }

    def health(self) -> dict[str, Any]:
        """Whether it delivers, for /health."""
        return {
            "camera": self.index,
            "ok": self.state in ("live", "idle"),
            "state": self.state,
            "stuck": self.stuck or None,
            "stuck_beside": self.stuck_beside,
            "last_status_age_s": round(self.status_age_s, 3),
            "gone_since_ms": self.gone_since_ms or None,
        }


def _level(message: dict[str, Any]) -> str:
    event, change = message["event"], message.get("change")
    if event in _ERRORS or change == "lost":
        return "error"
    return "warning" if event in _WARNINGS or message.get("failed") or change == "refused" else "note"
