"""Pipeline: one camera's stages, started, watched, restarted and stopped, and what they finish, published.

It runs in the main process, in the one thread and the one poll that all cameras share (`hub.py`, `supervisor.py`).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from ..engines.errors import UserError
from .config import StreamConfig
from .developing import DevelopSide
from .grabbing import GrabSide
from .host import DevelopHost
from .hub import Hub, StageDied
from .ledger import FrameLedger, read_account
from .meter import Meter
from .publish import Publisher
from .recording import RecordSide
from .ring import Word
from .shared import Shared
from .stage import StageProcess

DRAIN_TIMEOUT_S = 6.0
_NEVER = float("inf")


class StageFault(Exception):
    """A stage cannot be kept alive; the camera's run ends with exit code 1. The message is one sentence."""


class Pipeline:
    """One camera, from start to the final ledger.

    Attributes:
        camera: Its index, in topics and messages.
        grab: Its grab process.
        develop: Its develop process.
        record: Its record process, where it has one.
        failed: Whether a fault ended it.
    """

    def __init__(
        self,
        camera: int,
        config: StreamConfig,
        hub: Hub,
        publisher: Publisher,
        meter: Meter,
        host: DevelopHost | None = None,
    ) -> None:
        self.camera, self._config, self._hub = camera, config, hub
        self._publisher, self.meter = publisher, meter
        self.failed = False
        settings = config.model_dump(mode="json")
        self.grab, self.develop = GrabSide(hub, config, settings), DevelopSide(hub, settings, host)
        self.record = RecordSide(hub, config, meter)
        self._shared: Shared | None = None
        self._events = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(3)]  # granted, returned, developed
        os.set_blocking(self._events[2], False)
        hub.watch(self._events[2])
        self._consuming = False  # whether develop is ready and grab grants to it
        self._ended = False
        self._at_end = ""  # a sentence, where the camera is a recording and has no more frames

    # -- starting -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts the stages, without waiting for any."""
        self.grab.begin()
        self.develop.begin()
        self.record.begin()

    def make_ready(self) -> None:
        """Waits for them, makes the rings, and publishes where they are. Raises UserError for bad input."""
        self.grab.await_opened(self.camera)
        self.develop.await_opened()
        shared = self._shared = Shared(self._config, self.geometry, self._events, self.record.plan)
        self.develop.prepare(shared)
        self._attach_grab()
        self.record.attach(shared, self.develop.engine)
        self._tell_info()

    def start(self) -> None:
        """The camera begins to deliver."""
        self._start_acquisition()
        shared = self._need(self._shared)
        fps = self.geometry["fps"] or 0
        self.meter.started(
            self.geometry,
            self.develop.engine,
            pids=self.pids,
            endpoint=self._publisher.endpoints,
            slots=shared.srgb.slots,
            slack_ms=shared.srgb.slots / fps * 1e3 if fps else None,
            stream_id=f"{shared.stream_id:016x}",
        )

    def _attach_grab(self) -> None:
        shared, keep = self._need(self._shared), self.record.plan is not None
        self.grab.attach(shared, self.develop.epoch, self.develop.depth, keep_history=keep)
        self._consuming = True
        shared.liveness.develop_starts()

    def _start_acquisition(self) -> None:
        segment = self._need(self._shared).ledger.open_segment(time.monotonic_ns(), self.geometry["fps"] or 0)
        self.grab.start(segment)

    def _tell_info(self) -> None:
        g, shared = self.geometry, self._need(self._shared)
        info = {
            "stream_id": f"{shared.stream_id:016x}",
            "width": g["width"],
            "height": g["height"],
            "stride": g["width"] * 3,
            "engine": self.develop.engine["name"],
            "fps": g["fps"],
            "serial": g["serial"],
            "clock": g["clock"],
        }
        self._publisher.attach(shared.srgb, info, self.camera)

    # -- the run ------------------------------------------------------------------------------------------------

    @property
    def geometry(self) -> dict[str, Any]:
        """What the camera's frames are like; empty before it is open."""
        return self.grab.geometry

    @property
    def words(self) -> memoryview:
        """The shared counters. Raises StageDied before the rings are made."""
        return self._need(self._shared).words

    @property
    def ready(self) -> bool:
        """Whether the rings are made."""
        return self._shared is not None

    @property
    def ledger(self) -> FrameLedger | None:
        """The account, once the rings are made."""
        return self._shared.ledger if self._shared else None

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the main process and the stages that run."""
        stages = {s.name: s.pid for s in (self.grab.stage, self.develop.stage, self.record.stage) if s}
        return {"main": os.getpid(), **stages}

    @property
    def finished(self) -> bool:
        """Whether it has published as many frames as it was to, or as there are, or is over."""
        if self._ended or self._at_end:
            return True
        return bool(self._config.frames) and self.words[Word.PUBLISHED] >= self._config.frames

    @property
    def due_at(self) -> float:
        """When `turn` has something to do by itself, in time.monotonic seconds."""
        return _NEVER if self._ended else self.grab.due_at

    def owns(self, stage: StageProcess) -> bool:
        """Whether a stage is one of its own, as it is now."""
        return stage in (self.grab.stage, self.develop.stage, self.record.stage)

    def publish(self) -> None:
        """Publishes what has been developed since."""
        shared = self._shared
        if shared is None or self._ended:
            return
        try:
            os.eventfd_read(self._events[2])
        except BlockingIOError:
            pass
        words = shared.words
        first, last = words[Word.PUBLISHED], words[Word.DEVELOPED]
        if last > first:
            self._publisher.publish(first, last, self.camera)
            self.meter.frames(shared.srgb, first, last)
            if self._publisher.lapped:
                raise RuntimeError("a frame was overwritten before it was published: develop must wait for PUBLISHED")
            words[Word.PUBLISHED] = last  # only now may develop use these slots again

    def tick(self) -> None:
        """Shows a status."""
        if self._shared and not self._ended:
            self.meter.tick(
                self.words, self._publisher.subscribers(self.camera), state=self.state, **self.record.status
            )

    @property
    def state(self) -> str:
        """What it does: `live`, `waiting` for a camera that is lost, or `over`."""
        if self._ended or self._at_end:
            return "over"
        return "live" if self.grab.stage is not None else "waiting"

    def turn(self) -> None:
        """Does what is due, and kills a stage that neither ends nor goes on; the poll then notices its death."""
        if self._ended or self._shared is None:
            return
        if time.monotonic() >= self.grab.due_at:
            self._reopen_camera()
        liveness = self._shared.liveness
        if self.develop.alive and self._consuming and liveness.develop_hangs():
            self._hung(self.develop.require())
            liveness.develop_starts()
        if self.grab.alive and liveness.grab_hangs():
            self._hung(self.grab.require())
            liveness.grab_ended()

    def _hung(self, stage: StageProcess) -> None:
        self.meter.fault(f"the {stage.name} process hangs: killed", event="stage_hung", stage=stage.name)
        stage.kill()

    # -- commands -----------------------------------------------------------------------------------------------

    def features(self, names: list[str]) -> dict[str, Any]:
        """What features of the camera are set to and can be set to. Raises UserError."""
        return {"features": self.grab.ask("features", names=names)["features"]}

    def set(self, feature: str, value: Any) -> dict[str, Any]:
        """Sets a feature, also of the camera that comes back after it was lost. Raises UserError."""
        before = self.geometry["fps"]
        answer = self.grab.set(feature, value)
        if answer["fps"] != before:
            self._tell_info()
        self.meter.rate_is(answer["fps"])
        shown = f"{answer['value']:g}" if isinstance(answer["value"], float) else answer["value"]
        self.meter.note("changed", f"{feature} {shown}", feature=feature, value=answer["value"])
        return {"value": answer["value"]}

    def trigger(self) -> dict[str, Any]:
        """Fires the camera's software trigger. Raises UserError."""
        self.grab.ask("trigger")
        return {}

    def change_engine(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Goes on with another engine, without stopping the camera: frames wait in the ring meanwhile.

        Raises UserError where the engine cannot be; the old one then goes on.
        """
        shared = self._need(self._shared)
        try:
            another = self.develop.ready_another(changes, shared)
        except (StageDied, TimeoutError) as error:
            raise UserError(f"the engine stays as it is: {error} while it made the new one ready") from error
        if not self.develop.alive:
            self.develop.drop(another)
            raise UserError("the engine stays as it is: its process has ended just now and is started again")
        self._consuming = False
        self.grab.tell("pause")
        self._wait_drained()
        self.develop.take_over(another, shared)
        self._go_on()
        self.meter.engine_is(self.develop.engine)
        self.record.tell_engine(self.develop.engine)
        self._tell_info()
        self.meter.note("engine", f"engine {self.develop.engine['name']}", engine=self.develop.engine, pids=self.pids)
        return {"engine": self.develop.engine}

    # -- faults -------------------------------------------------------------------------------------------------

    def handle(self, stage: StageProcess, message: dict[str, Any]) -> None:
        """Deals with what a stage reports, or with its end. Raises StageFault."""
        event = message["event"]
        with suppress(StageDied):  # the stage that died meanwhile has its own event in the inbox
            if stage is self.record.stage:
                self.record.handle(message, self._need(self._shared), self.develop.engine)
            elif event == "warning":
                self.meter.warning(message["text"])
            elif event == "changed":
                self.meter.note("changed", **{name: message[name] for name in ("text", "feature", "value", "after")})
            elif event == "ended":
                self._at_end = message["text"]
                self.meter.note("ended", message["text"])
            elif event == "camera_lost":
                self.meter.fault(f"camera lost: {message['why']}", event="camera_lost")
                self._close_camera(f"camera lost: {message['why']}", alive=True)
            elif event == "died" and stage is self.grab.stage:
                self._report_death(stage)
                self._close_camera("the grab process died", alive=False)
                self._count_death("grab")
            elif event == "died":
                self._report_death(stage)
                self._restart_develop()

    def _report_death(self, stage: StageProcess) -> None:
        text = f"the {stage.name} process ended {stage.how_it_ended()}; starting it again"
        self.meter.fault(text, event="stage_died", stage=stage.name)

    def _close_camera(self, why: str, *, alive: bool) -> None:
        """Ends the segment with every frame accounted for, ends grab, and plans the next try."""
        if alive:
            self.grab.stop(drain=self._consuming)
            self.grab.close()  # a camera that is silent but there must not stay claimed
        self._end_grab(why, grace_s=2.0 if alive else 0.0)
        self.grab.plan_opening()

    def _end_grab(self, why: str, grace_s: float = 0.0) -> None:
        """Sees grab end, counts what it held, and closes the segment."""
        shared = self._need(self._shared)
        self.grab.end(grace_s)
        shared.liveness.grab_ended()
        self._wait_drained()
        shared.custody.grab_died()
        if shared.ledger.segment_open:
            # It ended with its last frame: the silence until that was noticed belongs to the outage.
            shared.ledger.close_segment(shared.words[Word.LAST_SEEN_NS], why)

    def _wait_drained(self) -> None:
        """Publishes until develop holds nothing more; one that hangs or died loses what it held. Nothing is granted."""
        os.eventfd_write(self._events[0], 1)  # a grab that died between a hand-over and its wake-up
        custody = self._need(self._shared).custody
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while self.develop.alive and custody.busy and time.monotonic() < deadline:
            self._hub.pump(0.02, stoppable=False)
        if self.develop.stage and custody.busy:
            if self.develop.alive:
                self.develop.stage.kill_and_wait()  # the poll will notice, and have it started again
            self.publish()
            custody.develop_died()
        self.publish()

    def _restart_develop(self) -> None:
        shared = self._need(self._shared)
        self._consuming = False
        self.develop.end()
        self.grab.tell("consumer_lost")
        self.publish()
        shared.custody.develop_died()
        self._count_death("develop")
        try:
            self.develop.restart(shared)
        except UserError as error:  # it could before: no bad input, but a GPU or a file that is gone
            raise StageFault(f"the develop process cannot start again: {error}") from error
        self._go_on()

    def _go_on(self) -> None:
        """Frames are granted to a develop process that is new."""
        epoch, depth = self.develop.epoch, self.develop.depth
        self._consuming = self.grab.tell("consumer", epoch=epoch, depth=depth) is not None
        self._need(self._shared).liveness.develop_starts()

    def _reopen_camera(self) -> None:
        if not self.develop.alive:
            return  # its restart, which is in the inbox, comes first
        try:
            geometry = self.grab.open_again()
            if (wanted := _frame_key(self.geometry)) != _frame_key(geometry):
                raise StageFault(f"the camera came back with other frames ({_frame_key(geometry)}, was {wanted})")
            self._attach_grab()
            self._start_acquisition()
        except (UserError, StageDied, TimeoutError) as error:  # not there yet, busy, or gone again
            self._end_grab(f"the camera could not be started: {error}")
            if str(error) != self.grab.told:
                self.grab.told = str(error)
                self.meter.warning(f"still waiting for the camera: {error}", event="waiting")
            self.grab.plan_opening()
            return
        self.grab.is_back()
        self.meter.warning(f"camera {geometry['serial']} is back", event="outage", **_last(self.ledger))

    def _count_death(self, name: str) -> None:
        if self._need(self._shared).liveness.died_too_often(name):
            raise StageFault(f"the {name} process died again and again without a frame: gave up")

    # -- ending -------------------------------------------------------------------------------------------------

    def stop(self, *, drain: bool) -> None:
        """Ends the acquisition; with `drain`, what has come is still published. Harmless when repeated."""
        shared = self._shared
        if self.grab.alive and shared and shared.ledger.segment_open and not self._ended:
            self._stop_acquisition(shared, drain=drain and self._consuming and self.develop.alive)

    def shut_down(self) -> None:
        """Ends the stages and closes the account. Harmless when repeated."""
        shared = self._shared
        if self._ended:
            return
        self.grab.close()
        self.develop.end(grace_s=5)
        self.grab.end(grace_s=5)
        if shared:
            self.publish()
            shared.words[Word.STOPPED_MAIN] += max(0, read_account(shared.words).in_flight)
            if shared.ledger.segment_open:
                shared.ledger.close_segment(time.monotonic_ns(), self._at_end or "stopped")
            else:
                shared.ledger.end_outage(time.monotonic_ns(), self.geometry["fps"] or 0)
        self.record.end()
        self._ended = True

    def _stop_acquisition(self, shared: Shared, *, drain: bool) -> None:
        self.grab.stop(drain=drain, stoppable=False)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        busy, signals = shared.custody, self._hub.signals
        while busy.busy and self.develop.alive and time.monotonic() < deadline and not signals.forced:
            self._hub.pump(0.02, stoppable=False)

    def release(self) -> None:
        """Gives the rings back, after the last look at the ledger."""
        if self._shared:
            self._shared.release()

    @staticmethod
    def _need(part: Any) -> Any:
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
