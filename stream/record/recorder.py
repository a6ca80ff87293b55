"""Recorder: armed, recording, armed again. It reads the rings, is told of triggers, and writes one file after another.

Nobody waits for it: what it cannot write in time is overwritten, ends the recording at its last whole frame, and is
told.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...engines.bayer import RawFormat
from ...engines.errors import UserError, reason
from .feed import Feed
from .hdf import BLOCK_FRAMES, Contents
from .plan import Plan
from .sinks import Sink, open_sink
from .take import Lapped, Take
from .triggers import Condition

IDLE_S = 0.05  # how often it looks around when nothing is to be done but to wait for a command
BUSY_S = 0.004  # how often it looks for new frames
_REPORT_S = 1.0
_LOOK_FRAMES = 512  # at most, for a condition, at once
_CLOSE_S = 60.0  # for writing what is left at the end
_AT_LEAST = 16  # frames that are allocated in any case

Tell = Callable[[dict[str, Any]], None]


class Recorder:
    """Records one camera.

    Args:
        plan: What is recorded, and when.
        feeds: The frames, raw first.
        fmt: Of the raw frames.
        contents: What every recording says of itself; its `reason` and `created` are set for each.
        conditions: What triggers by itself.
        fps: The camera's frame rate, 0 where it is not known.
        record_fps: Of an MP4.
        in_flight: Whether frames are being developed.
        gains: Gains of red, green and blue that the engine has found last.
        tell: Takes the messages for the user.
    """

    def __init__(
        self,
        plan: Plan,
        feeds: Sequence[Feed],
        fmt: RawFormat,
        contents: Contents,
        conditions: Sequence[Condition],
        *,
        fps: float,
        record_fps: float,
        in_flight: Callable[[], bool],
        gains: Callable[[], list[float] | None],
        tell: Tell,
    ) -> None:
        self._plan, self._contents, self._conditions = plan, contents, conditions
        self._feeds = [feed for feed in feeds if feed.kind in plan.kinds]
        self._raw = next(feed for feed in feeds if feed.kind == "raw")
        self._format, self._fps, self._record_fps = fmt, fps, record_fps
        self._in_flight, self._gains, self._tell = in_flight, gains, tell
        self._take: Take | None = None
        self._why = ""  # the recording will have ended
        self._pending: list[tuple[str, int, float]] = []  # triggers that are for the next one: why, when, until
        self._short_s = 0.0  # that the recording says it is short of
        self._looked = self._raw.count  # frames that the conditions have seen
        self._report_at = 0.0
        self.recorded = 0  # recordings so far

    @property
    def state(self) -> str:
        """recording, armed (waits for a trigger) or idle."""
        if self._take:
            return "recording"
        return "idle" if self._plan.from_start else "armed"

    def begin(self, *, resumed: bool = False) -> None:
        """Begins with the first frame, or with the next where it is `resumed`, if that is wanted. Raises UserError."""
        if self._plan.from_start:
            self._open(time.monotonic_ns() if resumed else 0, math.inf, "start")

    def trigger(self, why: str, time_ns: int = 0) -> dict[str, Any]:
        """A trigger, at CLOCK_MONOTONIC `time_ns` (0: now): begins a recording, or prolongs the one that is on.

        Raises UserError where none can begin.
        """
        at_ns = time_ns or time.monotonic_ns()
        return self._trigger(why, at_ns, at_ns + self._plan.post_s * 1e9)

    def start(self, why: str) -> dict[str, Any]:
        """Begins a recording, with what is before it, that goes on until `stop`. Raises UserError."""
        return self._trigger(why, time.monotonic_ns(), math.inf)

    def stop(self, why: str) -> dict[str, Any]:
        """Ends the recording with the frames that have come. What it became is told when they are written."""
        if self._take is None:
            raise UserError("nothing is being recorded")
        self._why = why
        self._end_now()
        return self.describe()

    def turn(self) -> float:
        """Does what is to be done; returns after how many seconds it wants to be called again."""
        self._look()
        return self._write()

    def _write(self) -> float:
        if self._pending and self._take is None:
            self._open_pending()
        take = self._take
        if take is None:
            return BUSY_S if self._conditions else IDLE_S
        try:
            more = take.pump()
            self._note_short(take)
            if take.done:
                self._close(self._why or ("record_seconds are over" if take.limited else "its end has come"))
        except Lapped as lapped:
            self._close(f"the disk is too slow: {lapped}", failed=True)
        except OSError as error:
            self._close(_disk_sentence(take.sink.path.parent, error), failed=True)
        else:
            if self._take and time.monotonic() >= self._report_at:
                self._report_at = time.monotonic() + _REPORT_S
                self._tell_state("progress", **self.describe())
            if more:
                return 0.0
        if self._pending and self._take is None:
            return 0.0
        return BUSY_S  # what comes meanwhile is written in one call

    def close(self) -> None:
        """The stream has ended: writes what belongs to the recording and has come."""
        deadline = time.monotonic() + _CLOSE_S
        self._why = "the stream ended"
        self._end_now()
        while (self._take or self._pending) and time.monotonic() < deadline:
            time.sleep(self._write())  # what would trigger now has no time after it
        if self._take:
            self._close(f"what was left could not be written within {_CLOSE_S:g} s", failed=True)

    def describe(self) -> dict[str, Any]:
        """The recording that is on: file, frames, bytes."""
        if self._take is None:
            return {"state": self.state}
        account = self._take.account()
        return {"state": self.state, "file": str(self._take.sink.path), "frames": account["frames"], **_behind(account)}

    # -- inside -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Shows the conditions the frames that came since."""
        if not self._conditions:
            return
        first, records = self._raw.since(self._looked, _LOOK_FRAMES)
        self._looked = first + len(records)
        if not len(records):
            return
        for condition in self._conditions:
            for record in condition.look(records):
                try:
                    self.trigger(condition.reason, int(record["grabbed_ns"]))
                except UserError as error:
                    self._tell_state("refused", text=str(error), reason=condition.reason)

    def _trigger(self, why: str, at_ns: int, end_ns: float) -> dict[str, Any]:
        take, start_ns = self._take, at_ns - self._plan.pre_s * 1e9
        if take is None:
            self._open(start_ns, end_ns, why, at_ns)
        elif not take.includes(at_ns, start_ns):  # which is still open only because not all of it is written
            self._pending.append((why, at_ns, end_ns))
        else:
            self._why = ""
            take.prolong(end_ns)
            self._tell_state("trigger", reason=why, file=str(take.sink.path))
            self._note("trigger", why, at_ns)
        return self.describe()

    def _open_pending(self) -> None:
        """Begins the recording of the triggers that were too late for the one before."""
        pending, self._pending = self._pending, []
        for why, at_ns, end_ns in pending:
            try:
                self._trigger(why, at_ns, end_ns)
            except UserError as error:
                self._tell_state("refused", text=str(error), reason=why)

    def _end_now(self) -> None:
        """What comes from now on is not recorded any more."""
        now_ns = time.monotonic_ns()
        if self._take:
            self._take.end_ns = min(self._take.end_ns, now_ns)
        self._pending = [(why, at_ns, min(end_ns, now_ns)) for why, at_ns, end_ns in self._pending]

    def _open(self, start_ns: float, end_ns: float, why: str, at_ns: int = 0) -> None:
        longest_ns = self._plan.limit_s * 1e9
        sink = self._make_sink(min(end_ns - start_ns, longest_ns), why)
        self._take = Take(sink, self._feeds, start_ns, end_ns, longest_ns, self._in_flight)
        self._why, self._report_at = "", time.monotonic() + _REPORT_S
        self._short_s = 0.0
        self._take.includes(at_ns, start_ns)
        short_s = round(self._take.short_s, 3)
        self._tell_state("recording", reason=why, file=str(sink.path), **({"short_s": short_s} if short_s else {}))
        self._note("trigger" if at_ns else "start", why, at_ns)

    def _make_sink(self, duration_ns: float, why: str) -> Sink:
        plan = self._plan
        endless = math.isinf(duration_ns)
        count = round(self._fps) if endless else math.ceil(duration_ns * 1e-9 * self._fps * 1.02) + _AT_LEAST
        plan.require_disk(self._format, self._fps)
        contents, now = self._contents, datetime.now(timezone.utc)
        contents.texts |= {"reason": why, "created": now.isoformat(timespec="milliseconds")}
        contents.parts["calibration"]["estimated_white_balance"] = self._gains()
        expected = {feed.kind: max(_AT_LEAST, min(count, 8 * BLOCK_FRAMES)) for feed in self._feeds}
        try:
            rates = {"fps": self._fps, "record_fps": self._record_fps}
            return open_sink(plan.format, self._name(), contents, expected, endless=endless, **rates)
        except OSError as error:
            raise UserError(_disk_sentence(plan.folder, error)) from error

    def _name(self) -> Path:
        now = datetime.now(timezone.utc)
        name = f"camera{self._contents.camera}-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}"
        names, number = set(os.listdir(self._plan.folder)), 1
        path = self._plan.folder / name
        while any(f"{path.name}{ending}" in names for ending in ("", ".h5", ".mp4", ".csv")):
            number += 1
            path = path.with_name(f"{name}-{number}")
        return path

    def _note_short(self, take: Take) -> None:
        """Notes by how much it began later than it should have, once that is known."""
        short_s = round(take.short_s, 3)
        if take.begun and short_s > self._short_s:
            self._short_s = short_s
            self._note("lapped", f"its first {short_s:g} s were not in the ring any more: it begins later", 0)

    def _note(self, kind: str, text: str, at_ns: int) -> None:
        take = self._take
        if take is None:
            return
        try:
            take.note(kind, text, at_ns)
        except OSError as error:
            self._close(_disk_sentence(take.sink.path.parent, error), failed=True)

    def _close(self, why: str, *, failed: bool = False) -> None:
        take, self._take = self._take, None
        if take is None:
            return
        account = take.account()
        if not any(account["frames"].values()) and not account["thinned"]:
            take.sink.discard()
            self._tell_state("ended", reason=f"{why}; without a frame there is no file", failed=failed, **account)
            return
        try:
            lapped = sum(account["lapped"].values())
            take.note("lapped" if lapped else "end", f"{why}; {lapped} frames lapped" if lapped else why)
            take.sink.finish()
        except OSError as error:
            take.sink.abandon()
            if not failed:
                why, failed = _disk_sentence(take.sink.path.parent, error), True
        self.recorded += 1
        self._tell_state("ended", reason=why, file=str(take.sink.path), failed=failed, **account)

    def _tell_state(self, change: str, **details: Any) -> None:
        self._tell({"event": "recording", "change": change, **details, "state": self.state})


def _behind(account: dict[str, Any]) -> dict[str, Any]:
    return {"bytes": account["bytes"], "behind": sum(account["lapped"].values())}


def _disk_sentence(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be written ({reason(error).lower()})"
