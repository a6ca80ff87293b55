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
from .developing import OPEN_TIMEOUT_S, DevelopSide, tell
from .host import DevelopHost
from .hub import Hub, StageDied
from .ledger import FrameLedger, read_account
from .meter import Meter
from .publish import Publisher
from .recording import RecordSide
from .ring import Word
from .shared import RESERVE, Shared
from .stage import StageProcess

DRAIN_TIMEOUT_S = 6.0
_BACK_OFF_S = (0.0, 0.25, 0.5, 1.0, 2.0)
_NEVER = float("inf")
_FIELDS = {"ExposureTime": "exposure_us", "Gain": "gain_db", "AcquisitionFrameRate": "fps"}


class StageFault(Exception):
    """A stage cannot be kept alive; the camera's run ends with exit code 1. The message is one sentence."""


class Pipeline:
    """One camera, from start to the final ledger.

    Attributes:
        camera: Its index, in topics and messages.
        geometry: What grab says of it.
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
        self.geometry: dict[str, Any] = {}
        self.failed = False
        self._settings = config.model_dump(mode="json")
        self.develop = DevelopSide(hub, self._settings, host)
        self.record = RecordSide(hub, config, meter)
        self._grab: StageProcess | None = None
        self._shared: Shared | None = None
        self._events = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(3)]  # granted, returned, developed
        os.set_blocking(self._events[2], False)
        hub.watch(self._events[2])
        self._consuming = False  # whether develop is ready and grab grants to it
        self._reopen_at = _NEVER
        self._tries = 0  # to open the camera again, since it was lost
        self._told = ""
        self._opened = 0
        self._ended = False

    # -- starting -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts the stages, without waiting for any."""
        self._grab = self._hub.spawn("grab")
        self._opened = self._grab.post("open", config=self._settings)
        self.develop.begin()
        self.record.begin()

    def make_ready(self) -> None:
        """Waits for them, makes the rings, and publishes where they are. Raises UserError for bad input."""
        self.geometry = self._hub.answer(self._need(self._grab), self._opened, OPEN_TIMEOUT_S)["geometry"]
        self.geometry["camera"] = self.camera
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
        config, grab, shared = self._config, self._need(self._grab), self._need(self._shared)
        self._hub.call(
            grab,
            "attach",
            10,
            fds=(shared.raw.fd, self._events[0], self._events[1]),
            policy=config.policy,
            reserve=RESERVE,
            history=shared.history,
            keep_history=self.record.plan is not None,
            depth=self.develop.depth,
            limit=config.frames,
            timeout_ms=config.timeout_ms,
        )
        # Nobody is granted anything now, so whatever the table still says so was held by a dead process.
        self._hub.call(grab, "consumer_lost", 5)
        self._hub.call(grab, "consumer", 5, epoch=self.develop.epoch)
        self._consuming = True
        shared.liveness.develop_starts()

    def _start_acquisition(self) -> None:
        shared = self._need(self._shared)
        segment = shared.ledger.open_segment(time.monotonic_ns(), self.geometry["fps"] or 0)
        self._hub.call(self._need(self._grab), "start", 10, segment=segment)

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
        }
        self._publisher.attach(shared.srgb, info, self.camera)

    # -- the run ------------------------------------------------------------------------------------------------

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
        stages = {stage.name: stage.pid for stage in (self._grab, self.develop.stage, self.record.stage) if stage}
        return {"main": os.getpid(), **stages}

    @property
    def finished(self) -> bool:
        """Whether it has published as many frames as it was to, or is over."""
        return self._ended or (bool(self._config.frames) and self.words[Word.PUBLISHED] >= self._config.frames)

    @property
    def due_at(self) -> float:
        """When `turn` has something to do by itself, in time.monotonic seconds."""
        return self._reopen_at

    def owns(self, stage: StageProcess) -> bool:
        """Whether a stage is one of its own, as it is now."""
        return stage in (self._grab, self.develop.stage, self.record.stage)

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
        if self._ended:
            return "over"
        return "live" if self._grab is not None else "waiting"

    def turn(self) -> None:
        """Does what is due, and kills a stage that neither ends nor goes on; the poll then notices its death."""
        if self._ended or self._shared is None:
            return
        if time.monotonic() >= self._reopen_at:
            self._reopen_camera()
        liveness = self._shared.liveness
        if self.develop.alive and self._consuming and liveness.develop_hangs():
            self._hung(self.develop.require())
            liveness.develop_starts()
        if self._grab and not self._grab.dead and liveness.grab_hangs():
            self._hung(self._grab)
            liveness.grab_ended()

    def _hung(self, stage: StageProcess) -> None:
        self.meter.fault(f"the {stage.name} process hangs: killed", event="stage_hung", stage=stage.name)
        stage.kill()

    # -- commands -----------------------------------------------------------------------------------------------

    def features(self, names: list[str]) -> dict[str, Any]:
        """What features of the camera are set to and can be set to. Raises UserError."""
        return {"features": self._ask_grab("features", names=names)["features"]}

    def set(self, feature: str, value: Any) -> dict[str, Any]:
        """Sets a feature, also of the camera that comes back after it was lost. Raises UserError."""
        answer = self._ask_grab("set", feature=feature, value=value)
        if feature in _FIELDS:
            self._settings[_FIELDS[feature]] = answer["value"]
        else:
            self._settings["features"] = {**self._settings["features"], feature: answer["value"]}
        self.geometry["fps"] = answer["fps"]
        self.meter.rate_is(answer["fps"])
        shown = f"{answer['value']:g}" if isinstance(answer["value"], float) else answer["value"]
        self.meter.note("changed", f"{feature} {shown}", feature=feature, value=answer["value"])
        return {"value": answer["value"]}

    def trigger(self) -> dict[str, Any]:
        """Fires the camera's software trigger. Raises UserError."""
        self._ask_grab("trigger")
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
        tell(self._hub, self._grab, "pause")
        self._wait_drained()
        self.develop.take_over(another, shared)
        self._settings |= changes
        self._go_on()
        self.meter.engine_is(self.develop.engine)
        self.record.tell_engine(self.develop.engine)
        self._tell_info()
        self.meter.note("engine", f"engine {self.develop.engine['name']}", engine=self.develop.engine, pids=self.pids)
        return {"engine": self.develop.engine}

    def _ask_grab(self, command: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = tell(self._hub, self._grab, command, **arguments)
        except TimeoutError as error:
            raise UserError(str(error)) from error
        if answer is None:
            raise UserError(f"camera {self.geometry['serial']} is not there at the moment")
        return answer

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
            elif event == "camera_lost":
                self.meter.fault(f"camera lost: {message['why']}", event="camera_lost")
                self._close_camera(f"camera lost: {message['why']}", alive=True)
            elif event == "died" and stage is self._grab:
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
        grab = self._need(self._grab)
        if alive:
            with suppress(TimeoutError, StageDied):
                self._hub.call(grab, "stop", DRAIN_TIMEOUT_S, drain=self._consuming)
            grab.post("close")  # a camera that is silent but there must not stay claimed
        self._end_grab(why, grace_s=2.0 if alive else 0.0)
        self._plan_reopening()

    def _end_grab(self, why: str, grace_s: float = 0.0) -> None:
        """Sees grab end, counts what it held, and closes the segment."""
        shared = self._need(self._shared)
        self._hub.retire(self._need(self._grab), grace_s)
        self._grab = None
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
        tell(self._hub, self._grab, "consumer_lost")
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
        self._consuming = tell(self._hub, self._grab, "consumer", epoch=epoch, depth=depth) is not None
        self._need(self._shared).liveness.develop_starts()

    def _reopen_camera(self) -> None:
        if not self.develop.alive:
            return  # its restart, which is in the inbox, comes first
        self._reopen_at = _NEVER
        self._grab = self._hub.spawn("grab")
        try:
            # By its serial number: while it is away, its index may be another camera's.
            settings = {**self._settings, "camera": self.geometry["serial"] or self._config.camera}
            geometry = self._hub.call(self._grab, "open", OPEN_TIMEOUT_S, config=settings)["geometry"]
            if (wanted := _frame_key(self.geometry)) != _frame_key(geometry):
                raise StageFault(f"the camera came back with other frames ({_frame_key(geometry)}, was {wanted})")
            self._attach_grab()
            self._start_acquisition()
        except (UserError, StageDied, TimeoutError) as error:  # not there yet, busy, or gone again
            self._end_grab(f"the camera could not be started: {error}")
            if str(error) != self._told:
                self._told = str(error)
                self.meter.warning(f"still waiting for the camera: {error}", event="waiting")
            self._plan_reopening()
            return
        self._tries, self._told = 0, ""
        self.meter.warning(f"camera {geometry['serial']} is back", event="outage", **_last(self.ledger))

    def _plan_reopening(self) -> None:
        self._reopen_at = time.monotonic() + _BACK_OFF_S[min(self._tries, len(_BACK_OFF_S) - 1)]
        self._tries += 1

    def _count_death(self, name: str) -> None:
        if self._need(self._shared).liveness.died_too_often(name):
            raise StageFault(f"the {name} process died again and again without a frame: gave up")

    # -- ending -------------------------------------------------------------------------------------------------

    def stop(self, *, drain: bool) -> None:
        """Ends the acquisition; with `drain`, what has come is still published. Harmless when repeated."""
        shared = self._shared
        if self._grab and not self._grab.dead and shared and shared.ledger.segment_open and not self._ended:
            self._stop_acquisition(shared, drain=drain and self._consuming and self.develop.alive)

    def shut_down(self) -> None:
        """Ends the stages and closes the account. Harmless when repeated."""
        shared = self._shared
        if self._ended:
            return
        if self._grab and not self._grab.dead:
            self._grab.post("close")
        self.develop.end(grace_s=5)
        if self._grab:
            self._hub.retire(self._grab, grace_s=5)
        if shared:
            self.publish()
            shared.words[Word.STOPPED_MAIN] += max(0, read_account(shared.words).in_flight)
            if shared.ledger.segment_open:
                shared.ledger.close_segment(time.monotonic_ns(), "stopped")
            else:
                shared.ledger.end_outage(time.monotonic_ns(), self.geometry["fps"] or 0)
        self.record.end()
        self._ended = True

    def _stop_acquisition(self, shared: Shared, *, drain: bool) -> None:
        with suppress(TimeoutError, StageDied, UserError):
            self._hub.call(self._need(self._grab), "stop", DRAIN_TIMEOUT_S, stoppable=False, drain=drain)
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
