"""Supervisor: starts, watches, restarts and stops the stages, publishes what they finish, and keeps the ledger.

It runs in the main process, in one thread and one poll (`hub.py`): publishing comes first whenever anything wakes it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from ..engines import RawFormat
from ..engines.errors import UserError
from .config import StreamConfig
from .custody import Custody
from .hub import Hub, Signals, StageDied, Stopping
from .ledger import FrameLedger, read_account
from .liveness import Liveness
from .publish import Publisher
from .ring import Ring, Word
from .saver import Saver
from .stage import StageProcess
from .telemetry import Telemetry

RESERVE = 4  # slots that the queue policy keeps queued at the producer
SLACK_S = 0.1  # default length of a ring
OPEN_TIMEOUT_S = 180.0  # a cold compile of an engine for a GPU is the slowest answer there is
DRAIN_TIMEOUT_S = 6.0
_BACK_OFF_S = (0.0, 0.25, 0.5, 1.0, 2.0)


class StageFault(Exception):
    """A stage cannot be kept alive; the run ends with exit code 1. The message is one sentence."""


class Supervisor:
    """One camera, from start to the final ledger."""

    def __init__(
        self,
        config: StreamConfig,
        publisher: Publisher,
        telemetry: Telemetry,
        signals: Signals,
        saver: Saver | None = None,
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
        self.hub = Hub((self._events[2], publisher.fileno()), self._on_wake, signals)
        self._settings = config.model_dump(mode="json")
        self._epoch = self._depth = self._lanes = 0
        self._consuming = False  # whether develop is ready and grab grants to it
        self._custody: Custody | None = None
        self._reopen_at: float | None = None
        self._tries = 0  # to open the camera again, since it was lost
        self._told = ""
        self._liveness: Liveness | None = None
        self._saver_told = False
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
        if self._saver and self._saver.failure:
            self._tell_saver_failed()
            code = 1
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
        while not self._publisher.saver_ready:
            if failure := self._require(self._saver).poll():
                raise UserError(failure)
            if time.monotonic() > deadline:
                raise StageFault("the process that saves frames did not subscribe within 10 s")
            self.hub.pump(0.02)

    def _tell_saver_failed(self) -> None:
        saver = self._require(self._saver)
        if not self._saver_told:
            self._saver_told = True
            self._telemetry.fault(f"saving ended: {saver.failure}", event="saver_failed")

    def _turn(self) -> None:
        due_at = min(self._ends_at, self._reopen_at or float("inf")) - time.monotonic()
        self.hub.pump(max(0.0, min(self._telemetry.due_in_s(), due_at, 1.0)))
        while self.hub.inbox:
            self._handle(*self.hub.inbox.popleft())
        if self._reopen_at is not None and time.monotonic() >= self._reopen_at:
            self._reopen_camera()
        self._watch()
        if self._saver and self._saver.poll():
            self._tell_saver_failed()

    def _finished(self) -> bool:
        done = bool(self._config.frames) and self.words[Word.PUBLISHED] >= self._config.frames
        return done or bool(self.hub.signals.count) or time.monotonic() >= self._ends_at

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
        self.ledger, self._custody = FrameLedger(self._raw.words), Custody(self._raw)
        self._liveness = Liveness(self._raw, self._custody, config.stage_timeout_ms)

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
        self.engine, self._lanes = answer["engine"], answer["lanes"]
        # What the engine could take in a ring with few slots must leave the camera its own.
        self._depth = max(1, min(answer["depth"], raw.slots - self._config.history - RESERVE))

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
            keep_history=False,
            # Frames that wait in develop are the newest no more: one for each lane, and none to wait.
            depth=self._depth if config.policy != "latest" else min(self._depth, self._lanes),
            limit=config.frames,
            timeout_ms=config.timeout_ms,
        )
        # Nobody is granted anything now, so whatever the table still says so was held by a dead process.
        self.hub.call(self._require(self._grab), "consumer_lost", 5)
        self.hub.call(self._require(self._grab), "consumer", 5, epoch=self._epoch)
        self._consuming = True
        self._require(self._liveness).develop_starts()

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
        event = message["event"]
        if not self.hub.current(stage):
            return  # of a process that has been replaced since
        try:
            if event == "warning":
                self._telemetry.warning(message["text"])
            elif event == "changed":
                self._telemetry.changed(message)
            elif event == "camera_lost":
                self._telemetry.fault(f"camera lost: {message['why']}", event="camera_lost")
                self._close_camera(f"camera lost: {message['why']}", alive=True)
            elif event == "died" and stage is self._grab:
                self._report_death(stage)
                self._close_camera("the grab process died", alive=False)
                self._count_death("grab")
            elif event == "died" and stage is self._develop:
                self._report_death(stage)
                self._restart_develop()
        except StageDied:
            pass  # the stage that died meanwhile has its own event in the inbox

    def _report_death(self, stage: StageProcess) -> None:
        text = f"the {stage.name} process ended {stage.how_it_ended()}; starting it again"
        self._telemetry.fault(text, event="stage_died", stage=stage.name)

    def _close_camera(self, why: str, *, alive: bool) -> None:
        """Ends the segment with every frame accounted for, ends grab, and plans the next try."""
        grab = self._require(self._grab)
        if alive:
            with suppress(TimeoutError, StageDied):
                self.hub.call(grab, "stop", DRAIN_TIMEOUT_S, drain=self._consuming)
            grab.post("close")  # a camera that is silent but there must not stay claimed
        self._end_grab(why, grace_s=2.0 if alive else 0.0)
        self._plan_reopening()

    def _end_grab(self, why: str, grace_s: float = 0.0) -> None:
        """Sees grab end, counts what it held, and closes the segment."""
        self.hub.retire(self._require(self._grab), grace_s)
        self._grab = None
        self._require(self._liveness).grab_ended()
        self._wait_drained()
        self._require(self._custody).grab_died()
        if self._require(self.ledger).segment_open:
            # It ended with its last frame: the silence until that was noticed belongs to the outage.
            self._require(self.ledger).close_segment(self.words[Word.LAST_SEEN_NS], why)

    def _wait_drained(self) -> None:
        """Publishes until develop holds nothing more; one that hangs or died loses what it held. No grab is running."""
        os.eventfd_write(self._events[0], 1)  # a grab that died between a hand-over and its wake-up
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while self._develop_alive and self._require(self._custody).busy and time.monotonic() < deadline:
            self.hub.pump(0.02, stoppable=False)
        if self._develop and self._require(self._custody).busy:
            if not self._develop.dead:
                self._develop.kill_and_wait()  # the poll will notice, and have it started again
            self._publish()
            self._require(self._custody).develop_died()
        self._publish()

    @property
    def _develop_alive(self) -> bool:
        return self._develop is not None and not self._develop.dead

    def _restart_develop(self) -> None:
        self._consuming = False
        self.hub.retire(self._require(self._develop))
        self._tell_grab("consumer_lost")
        self._publish()
        self._require(self._custody).develop_died()
        self._count_death("develop")
        self._develop = self.hub.spawn("develop")
        try:
            self.hub.call(self._develop, "open", OPEN_TIMEOUT_S, config=self._settings)
            self._prepare_develop()
        except UserError as error:  # it could before: no bad input, but a GPU or a file that is gone
            raise StageFault(f"the develop process cannot start again: {error}") from error
        self._consuming = self._tell_grab("consumer", epoch=self._epoch)
        self._require(self._liveness).develop_starts()

    def _tell_grab(self, command: str, **arguments: Any) -> bool:
        """A command to grab, if there is one; one that died meanwhile is told when it is attached again."""
        with suppress(StageDied):
            if self._grab:
                self.hub.call(self._grab, command, 5, **arguments)
                return True
        return False

    def _reopen_camera(self) -> None:
        if not self._develop_alive:
            return  # its restart, which is in the inbox, comes first
        self._reopen_at = None
        self._grab = self.hub.spawn("grab")
        try:
            # By its serial number: while it is away, its index may be another camera's.
            settings = {**self._settings, "camera": self.geometry["serial"] or self._config.camera}
            geometry = self.hub.call(self._grab, "open", OPEN_TIMEOUT_S, config=settings)["geometry"]
            if (wanted := _frame_key(self.geometry)) != _frame_key(geometry):
                raise StageFault(f"the camera came back with other frames ({_frame_key(geometry)}, was {wanted})")
            self._attach_grab()
            self._start_acquisition()
        except (UserError, StageDied, TimeoutError) as error:  # not there yet, busy, or gone again
            self._end_grab(f"the camera could not be started: {error}")
            if str(error) != self._told:
                self._told = str(error)
                self._telemetry.warning(f"still waiting for the camera: {error}", event="waiting")
            self._plan_reopening()
            return
        self._tries, self._told = 0, ""
        self._telemetry.warning(f"camera {geometry['serial']} is back", event="outage", **_last(self.ledger))

    def _plan_reopening(self) -> None:
        self._reopen_at = time.monotonic() + _BACK_OFF_S[min(self._tries, len(_BACK_OFF_S) - 1)]
        self._tries += 1

    def _count_death(self, name: str) -> None:
        if self._require(self._liveness).died_too_often(name):
            raise StageFault(f"the {name} process died again and again without a frame: gave up")

    def _watch(self) -> None:
        """Kills a stage that neither ends nor goes on; the poll then notices its death."""
        liveness = self._require(self._liveness)
        if self._develop_alive and self._consuming and liveness.develop_hangs():
            self._hung(self._require(self._develop))
            liveness.develop_starts()
        if self._grab and not self._grab.dead and liveness.grab_hangs():
            self._hung(self._grab)
            liveness.grab_ended()

    def _hung(self, stage: StageProcess) -> None:
        self._telemetry.fault(f"the {stage.name} process hangs: killed", event="stage_hung", stage=stage.name)
        stage.kill()

    # -- ending -------------------------------------------------------------------------------------------------

    def _shut_down(self, *, drain: bool) -> None:
        ledger, custody = self.ledger, self._custody
        if self._grab and not self._grab.dead and ledger and custody and ledger.segment_open:
            drain = drain and self._consuming and self._develop_alive
            with suppress(TimeoutError, StageDied, UserError):
                self.hub.call(self._grab, "stop", DRAIN_TIMEOUT_S, stoppable=False, drain=drain)
            deadline = time.monotonic() + DRAIN_TIMEOUT_S
            while custody.busy and self._develop_alive and time.monotonic() < deadline and not self.hub.signals.forced:
                self.hub.pump(0.02, stoppable=False)
        for stage, command in ((self._grab, "close"), (self._develop, "stop")):
            if stage and not stage.dead:
                stage.post(command)
        for stage in (self._develop, self._grab):
            if stage:
                self.hub.retire(stage, grace_s=5)
        if ledger:
            self._publish()
            self.words[Word.STOPPED_MAIN] += max(0, read_account(self.words).in_flight)
            if ledger.segment_open:
                ledger.close_segment(time.monotonic_ns(), "stopped")
            else:
                ledger.end_outage(time.monotonic_ns(), self.geometry["fps"] or 0)
        if self._saver:
            self._saver.finish(self.hub.signals)
        self._publisher.close()

    def release(self) -> None:
        """Gives the rings back, after the last look at the ledger."""
        for ring in (self._raw, self._srgb):
            if ring:
                ring.unlink()

    def _on_wake(self) -> None:
        self._publish()
        self._publisher.poll_subscriptions()
        if self._telemetry.due_in_s() <= 0:
            self._telemetry.tick(self.words, self._publisher.subscribers)

    def _publish(self) -> None:
        if self._raw is None:
            return
        try:
            os.eventfd_read(self._events[2])
        except BlockingIOError:
            pass
        first, last = self.words[Word.PUBLISHED], self.words[Word.DEVELOPED]
        if last > first:  # first of all, whatever else woke the poll
            self._publisher.publish(first, last)
            self._telemetry.frames(self._require(self._srgb), first, last)
            if self._publisher.lapped:
                raise RuntimeError("a frame was overwritten before it was published: develop must wait for PUBLISHED")
            self.words[Word.PUBLISHED] = last  # only now may develop use these slots again

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
