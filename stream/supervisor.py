"""Supervisor: starts, watches, restarts and stops the stages, publishes what they finish, and keeps the ledger.

It runs in the main process, in one thread and one poll (`hub.py`): publishing comes first whenever anything wakes it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ..engines import RawFormat
from ..engines.errors import UserError
from .config import StreamConfig
from .hub import Hub, StageDied, Stopping
from .ledger import FrameLedger, read_account
from .publish import Publisher
from .ring import Ring, Word
from .saver import Saver
from .stage import StageProcess
from .telemetry import Telemetry

RESERVE = 4  # slots that the queue policy keeps queued at the producer
SLACK_S = 0.1  # default length of a ring
OPEN_TIMEOUT_S = 60.0  # a cold compile of the engine is the slowest answer there is
DRAIN_TIMEOUT_S = 6.0
_BACK_OFF_S = (0.0, 0.25, 0.5, 1.0, 2.0)
_MOST_RESTARTS = 5  # of a stage, without a published frame in between


class StageFault(Exception):
    """A stage cannot be kept alive; the run ends with exit code 1. The message is one sentence."""


class Supervisor:
    """One camera, from start to the final ledger."""

    def __init__(
        self, config: StreamConfig, publisher: Publisher, telemetry: Telemetry, saver: Saver | None = None
    ) -> None:
        self._config, self._publisher, self._telemetry, self._saver = config, publisher, telemetry, saver
        self.stream_id = int.from_bytes(os.urandom(8), "little")
        self.geometry: dict[str, Any] = {}
        self.engine: dict[str, Any] = {}
        self.ledger: FrameLedger | None = None
        self._grab: StageProcess | None = None
        self._develop: StageProcess | None = None
        self._raw: Ring | None = None
        self._srgb: Ring | None = None
        self._events = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(3)]  # granted, returned, developed
        os.set_blocking(self._events[2], False)
        self.hub = Hub((self._events[2], publisher.fileno()), self._publish)
        self._settings = config.model_dump(mode="json")
        self._epoch = self._depth = 0
        self._consuming = False  # whether develop is ready and grab grants to it
        self._died_waiting = self._died_granted = 0
        self._reopen_at: float | None = None
        self._failures = 0
        self._published_at_failure = -1
        self._ends_at = float("inf")

    # -- the run ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Runs to the end and returns the exit code: 0 done, 1 ended by a fault. Raises UserError for bad input."""
        code = 0
        try:
            self._start()
            while not self._finished():
                self._turn()
        except Stopping:
            pass
        except (StageFault, StageDied, TimeoutError) as fault:
            self._telemetry.fault(str(fault))
            code = 1
        finally:
            self._shut_down(drain=code == 0)
        return code

    def _start(self) -> None:
        self._grab, self._develop = self.hub.spawn("grab"), self.hub.spawn("develop")
        opened = self._develop.post("open", config=self._settings)  # both start up side by side
        self.geometry = self.hub.call(self._grab, "open", OPEN_TIMEOUT_S, config=self._settings)["geometry"]
        self.hub.answer(self._develop, opened, OPEN_TIMEOUT_S)
        self._make_rings()
        self._prepare_develop()
        self._attach_grab()
        self._publisher.attach(self._require(self._srgb), self._info())
        if self._saver:
            self._await_saver()
        self._start_acquisition()
        self._telemetry.started(self)
        if self._config.seconds:
            self._ends_at = time.monotonic() + self._config.seconds

    def _await_saver(self) -> None:
        """Lets the saver subscribe before the first frame, so that it has every one."""
        deadline = time.monotonic() + 10
        while not self._publisher.subscribers["descriptors"]:
            self._require(self._saver).check()
            if time.monotonic() > deadline:
                raise StageFault("the process that saves frames did not subscribe within 10 s")
            self.hub.pump(0.02)

    def _turn(self) -> None:
        due_at = min(self._ends_at, self._reopen_at or float("inf")) - time.monotonic()
        self.hub.pump(max(0.0, min(self._telemetry.due_in_s(), due_at, 1.0)))
        while self.hub.inbox:
            self._handle(*self.hub.inbox.popleft())
        if self._reopen_at is not None and time.monotonic() >= self._reopen_at:
            self._reopen_camera()
        if self._telemetry.due_in_s() <= 0:
            self._telemetry.tick(self.words, self._publisher.subscribers)

    def _finished(self) -> bool:
        done = bool(self._config.frames) and self.words[Word.PUBLISHED] >= self._config.frames
        return done or bool(self.hub.signals) or time.monotonic() >= self._ends_at

    @property
    def words(self) -> memoryview:
        """The shared counters."""
        return self._require(self._raw).words

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the main process and the stages that run."""
        stages = {stage.name: stage.pid for stage in (self._grab, self._develop) if stage}
        return {"main": os.getpid(), **stages}

    @property
    def slots(self) -> int:
        """Slots in each ring."""
        return self._require(self._srgb).slots

    @property
    def slack_ms(self) -> float | None:
        """Milliseconds of frames that the raw ring holds at the camera's rate; None where the rate is unknown."""
        fps = self.geometry.get("fps") or 0
        return self.slots / fps * 1e3 if fps else None

    @property
    def endpoints(self) -> list[str]:
        """Where the stream is published."""
        return self._publisher.endpoints

    # -- starting the parts -------------------------------------------------------------------------------------

    def _make_rings(self) -> None:
        geometry, config = self.geometry, self._config
        slots = config.slots or min(512, max(16, round(SLACK_S * (geometry["fps"] or 0))))
        raw_slots = max(slots, geometry["min_buffers"]) + config.history
        raw_format = self._raw_format()
        self._raw = Ring.create("raw", raw_slots, geometry["payload"], self.stream_id)
        self._srgb = Ring.create(
            "srgb", slots, raw_format.width * raw_format.height * 3, self.stream_id, config.shm_name
        )
        self.ledger = FrameLedger(self._raw.words)

    def _raw_format(self) -> RawFormat:
        g = self.geometry
        return RawFormat(g["width"], g["height"], g["pixel_format"], g["black_level"], g["white_level"])

    def _prepare_develop(self) -> None:
        self._epoch += 1
        raw, srgb = self._require(self._raw), self._require(self._srgb)
        answer = self.hub.call(
            self._require(self._develop),
            "prepare",
            OPEN_TIMEOUT_S,
            fds=(raw.fd, srgb.fd, *self._events),
            geometry=self.geometry,
            format=self._raw_format().to_json(),
            stream_id=self.stream_id,
            epoch=self._epoch,
        )
        self.engine, self._depth = answer["engine"], answer["depth"]

    def _attach_grab(self) -> None:
        config = self._config
        self.hub.call(
            self._require(self._grab),
            "attach",
            10,
            fds=(self._require(self._raw).fd, self._events[0], self._events[1]),
            policy=config.policy,
            reserve=RESERVE,
            history=config.history,
            depth=self._depth if config.policy != "latest" else 1,
            limit=config.frames,
            timeout_ms=config.timeout_ms,
        )
        # Develop holds nothing now, so whatever the table still says is granted was held by a dead process.
        self.hub.call(self._require(self._grab), "consumer_lost", 5)
        self.hub.call(self._require(self._grab), "consumer", 5, epoch=self._epoch)
        self._consuming = True

    def _start_acquisition(self) -> None:
        segment = self._require(self.ledger).open_segment(time.monotonic_ns(), self.geometry["fps"] or 0)
        self.hub.call(self._require(self._grab), "start", 10, segment=segment)

    def _info(self) -> dict[str, Any]:
        g = self.geometry
        return {
            "stream_id": f"{self.stream_id:016x}",
            "width": g["width"],
            "height": g["height"],
            "stride": g["width"] * 3,
            "engine": self.engine["name"],
            "fps": g["fps"],
            "serial": g["serial"],
        }

    # -- faults -------------------------------------------------------------------------------------------------

    def _handle(self, stage: StageProcess, message: dict[str, Any]) -> None:
        if not self.hub.current(stage) and message["event"] != "died":
            return  # an event of a process that has been replaced since
        try:
            if message["event"] == "warning":
                self._telemetry.warning(message["text"])
            elif message["event"] == "camera_lost":
                self._telemetry.fault(f"camera lost: {message['why']}", event="camera_lost")
                self._close_camera(f"camera lost: {message['why']}", alive=True)
            elif message["event"] == "died" and stage is self._grab:
                self._report_death("grab")
                self._close_camera("the grab process died", alive=False)
            elif message["event"] == "died" and stage is self._develop:
                self._report_death("develop")
                self._restart_develop()
        except StageDied:
            pass  # the stage that died meanwhile has its own event in the inbox

    def _report_death(self, name: str) -> None:
        self._telemetry.fault(f"the {name} process died; starting it again", event="stage_died", stage=name)

    def _close_camera(self, why: str, *, alive: bool) -> None:
        """Ends the segment with every frame accounted for, ends grab, and plans the next try."""
        grab = self._require(self._grab)
        if alive:
            try:
                self.hub.call(grab, "stop", DRAIN_TIMEOUT_S, drain=True)
            except (TimeoutError, StageDied):
                pass
        self.hub.retire(grab)
        self._grab = None
        self._settle()
        if self._require(self.ledger).segment_open:
            self._require(self.ledger).close_segment(time.monotonic_ns(), why)
        self._count_failure(give_up=not alive)
        self._reopen_at = time.monotonic() + _BACK_OFF_S[min(self._failures, len(_BACK_OFF_S)) - 1]

    def _settle(self) -> None:
        """Waits for what develop still holds, then counts what a dead grab held. Only when no grab is running."""
        self._wait_drained()
        waiting = self._waiting() - self._died_waiting
        self._died_waiting += waiting
        self.words[Word.STAGE_DIED] += waiting

    def _waiting(self) -> int:
        w = self.words
        gone = (Word.INCOMPLETE, Word.SUPERSEDED, Word.STOPPED_GRAB, Word.GRANT_HEAD)
        return w[Word.SEEN] - sum(w[word] for word in gone)

    def _held(self) -> int:
        """Frames granted and not yet developed, failed, or counted as lost with a dead develop process."""
        w = self.words
        return w[Word.GRANT_HEAD] - w[Word.DEVELOPED] - w[Word.ENGINE_ERROR] - self._died_granted

    def _busy(self) -> bool:
        """Whether a living develop process has frames, or has not yet given back the last slot."""
        w = self.words
        return bool(self._develop and not self._develop.dead) and w[Word.GRANT_TAIL] != w[Word.GRANT_HEAD]

    def _wait_drained(self) -> None:
        """Publishes until develop holds nothing more; a develop process that hangs or died loses what it held."""
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while self._busy() and time.monotonic() < deadline:
            self.hub.pump(0.02, stoppable=False)
        if self._held() and self._develop:
            if not self._develop.dead:
                self.hub.inbox.append((self._develop, {"event": "died"}))
            self.hub.retire(self._develop)
            self._count_held()
        self._publish()

    def _count_held(self) -> None:
        self._publish()
        lost = self._held()
        self._died_granted += lost
        self.words[Word.STAGE_DIED] += lost

    def _restart_develop(self) -> None:
        self._consuming = False
        self.hub.retire(self._require(self._develop))
        self._tell_grab("consumer_lost")
        self._count_held()
        self._count_failure(give_up=True)
        self._develop = self.hub.spawn("develop")
        self.hub.call(self._develop, "open", OPEN_TIMEOUT_S, config=self._settings)
        self._prepare_develop()
        self._consuming = self._tell_grab("consumer", epoch=self._epoch)

    def _tell_grab(self, command: str, **arguments: Any) -> bool:
        """A command to grab, if there is one; one that died meanwhile is told when it is attached again."""
        try:
            if self._grab:
                self.hub.call(self._grab, command, 5, **arguments)
                return True
        except StageDied:
            pass
        return False

    def _reopen_camera(self) -> None:
        if self._require(self._develop).dead:
            return  # its restart, which is in the inbox, comes first
        self._reopen_at = None
        self._grab = self.hub.spawn("grab")
        try:
            geometry = self.hub.call(self._grab, "open", OPEN_TIMEOUT_S, config=self._settings)["geometry"]
            if (wanted := _frame_key(self.geometry)) != _frame_key(geometry):
                raise StageFault(f"the camera came back with other frames ({_frame_key(geometry)}, was {wanted})")
            self._attach_grab()
            self._start_acquisition()
        except (UserError, StageDied, TimeoutError):
            # Not there yet, or busy: the last line of the account says that it is awaited.
            self.hub.retire(self._require(self._grab))
            self._grab = None
            self._failures = min(self._failures + 1, len(_BACK_OFF_S))
            self._reopen_at = time.monotonic() + _BACK_OFF_S[self._failures - 1]
            return
        self._telemetry.warning(f"camera {geometry['serial']} is back", event="outage", **_last(self.ledger))

    def _count_failure(self, *, give_up: bool) -> None:
        published = self.words[Word.PUBLISHED]
        self._failures = 1 if published > self._published_at_failure else self._failures + 1
        self._published_at_failure = published
        if give_up and self._failures > _MOST_RESTARTS:
            raise StageFault(f"gave up after {_MOST_RESTARTS} restarts without a frame")

    # -- ending -------------------------------------------------------------------------------------------------

    def _shut_down(self, *, drain: bool) -> None:
        ledger = self.ledger
        if self._grab and ledger and ledger.segment_open:
            try:
                drain = drain and self._consuming
                self.hub.call(self._grab, "stop", DRAIN_TIMEOUT_S, stoppable=False, drain=drain)
            except (TimeoutError, StageDied, UserError):
                pass
            deadline = time.monotonic() + DRAIN_TIMEOUT_S
            while self._busy() and time.monotonic() < deadline:
                self.hub.pump(0.02, stoppable=False)
        for stage, command in ((self._grab, "close"), (self._develop, "stop")):
            if stage:
                stage.post(command)
        for stage in (self._develop, self._grab):
            if stage:
                self.hub.retire(stage, grace_s=0 if self.hub.signals > 1 else 5)
        if ledger:
            self._publish()
            self.words[Word.STOPPED_MAIN] += read_account(self.words).in_flight
            if ledger.segment_open:
                ledger.close_segment(time.monotonic_ns(), "stopped")
        if self._saver:
            self._saver.finish(self.hub.signals > 1)
        self._publisher.close()

    def release(self) -> None:
        """Gives the rings back, after the last look at the ledger."""
        for ring in (self._raw, self._srgb):
            if ring:
                ring.unlink()

    def _publish(self) -> None:
        if self._raw is None:
            self._publisher.poll_subscriptions()
            return
        try:
            os.eventfd_read(self._events[2])
        except BlockingIOError:
            pass
        first, last = self.words[Word.PUBLISHED], self.words[Word.DEVELOPED]
        if last > first:  # first of all, whatever else woke the poll
            self._publisher.publish(first, last)
            self.words[Word.PUBLISHED] = last
            self._telemetry.frames(self._require(self._srgb), first, last)
        self._publisher.poll_subscriptions()

    @staticmethod
    def _require(part: Any) -> Any:
        if part is None:
            raise StageDied("a part of the pipeline is not there")
        return part


def _frame_key(geometry: dict[str, Any]) -> str:
    return f"{geometry['width']}x{geometry['height']} {geometry['pixel_format']}, {geometry['payload']} bytes"


def _last(ledger: FrameLedger | None) -> dict[str, Any]:
    if ledger is None or not ledger.outages:
        return {}
    outage = ledger.outages[-1]
    return {
        "duration_s": round((outage.end_ns - outage.start_ns) * 1e-9, 3),
        "estimated_frames": outage.estimated_frames,
    }


def install_signal_handlers(handler: Callable[[int, Any], None]) -> None:
    """Routes SIGINT and SIGTERM to `handler`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
