"""Pipeline: one camera's stages, started, watched, restarted and stopped, and what they finish, published.

It runs in the main process, in the one thread and the one poll that all cameras share (`hub.py`, `supervisor.py`).
Nothing but the end of a stage, which takes seconds at most, is waited for once the camera runs.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from ..engines.errors import UserError
from .changing import EngineChange, EngineChanger
from .config import StreamConfig
from .developing import DevelopSide
from .grabbing import GrabSide
from .handover import DRAIN_TIMEOUT_S, Handover
from .host import DevelopHost
from .hub import LAST_BREATH_S, Hub, StageDied
from .ledger import FrameLedger, read_account
from .meter import Meter
from .publish import Publisher
from .recording import RecordSide
from .recovery import Recovery, StageFault
from .ring import Word
from .shared import Shared
from .stage import StageProcess

_NEVER = float("inf")


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
        self._events = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(3)]  # granted, returned, developed
        os.set_blocking(self._events[2], False)
        hub.watch(self._events[2])
        self.grab = GrabSide(hub, config, settings, self._hung)
        self.develop = DevelopSide(hub, settings, host)
        self.record = RecordSide(hub, config, meter)
        self._handover = Handover(hub, self.grab, self.develop, self.publish, self._events[0])
        self._changer = EngineChanger(self.develop, self._handover, self._engine_changed)
        self._recovery = Recovery(
            self.grab, self.develop, self._handover, meter, self._start_acquisition, self._engine_changed
        )
        self._looked_at = 0.0
        self._told_fps: float | None = None  # in the stream info
        self._ending = self._ended = False
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
        self.develop.require().await_opened()
        self._handover.shared = shared = Shared(self._config, self.geometry, self._events, self.record.plan)
        self.develop.await_ready(shared)
        self._handover.keep_history = self.record.plan is not None
        self._handover.attach()
        self.record.attach(shared, self.develop.engine)
        self._tell_info()

    def start(self) -> None:
        """The camera begins to deliver."""
        self._start_acquisition()
        shared = self._handover.require_shared()
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

    def _start_acquisition(self) -> None:
        self._rate_is(self.geometry["fps"])  # of a camera that is back it may be another one
        segment = self._handover.require_shared().ledger.open_segment(time.monotonic_ns(), self.geometry["fps"] or 0)
        self.grab.start(segment)

    def _tell_info(self) -> None:
        g, shared = self.geometry, self._handover.require_shared()
        self._told_fps = g["fps"]
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
        return self._handover.require_shared().words

    @property
    def ready(self) -> bool:
        """Whether the rings are made."""
        return self._handover.shared is not None

    @property
    def ledger(self) -> FrameLedger | None:
        """The account, once the rings are made."""
        return self._handover.shared.ledger if self._handover.shared else None

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
        if self._ended or self._handover.shared is None:
            return _NEVER
        return min(self.grab.due_at, self._looked_at + self._handover.shared.liveness.look_s)

    def owns(self, stage: StageProcess) -> bool:
        """Whether a stage is one of its own, as it is now."""
        return stage in (self.grab.stage, self.develop.stage, self.record.stage)

    def publish(self) -> None:
        """Publishes what has been developed since."""
        shared = self._handover.shared
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

    def tick(self, **others: dict[str, Any]) -> None:
        """Shows a status. `others` are the states of further stages, by name."""
        if self._handover.shared and not self._ended:
            self._tell_status(others)

    def _tell_status(self, others: dict[str, dict[str, Any]]) -> None:
        over = self.state == "over"
        self.meter.tick(
            self.words,
            self._publisher.subscribers(self.camera),
            over=over,
            state=self.state,
            stages={} if over else {**self.stages(), **others},  # that they end is no news then
            **self.record.status,
        )

    def stages(self) -> dict[str, dict[str, Any]]:
        """How the stages get on, see Liveness.states; a stage that is not there is `gone`."""
        grab = "gone" if not self.grab.alive else "starting" if self.grab.opening else ""
        develop = "gone" if not self.develop.alive else "" if self.develop.ready else "starting"
        states = self._handover.require_shared().liveness.states(grab=grab, develop=develop)
        return states | ({"record": self.record.activity()} if self.record.plan else {})

    @property
    def state(self) -> str:
        """What it does: `live`, `waiting` for a camera that is lost, or `over` once it ends or has ended."""
        if self._ending or self._at_end:
            return "over"
        return "live" if self.grab.stage is not None and not self.grab.opening else "waiting"

    def turn(self) -> None:
        """Does what is due, and kills a stage that neither ends nor goes on; the poll then notices its death."""
        shared = self._handover.shared
        if self._ended or shared is None:
            return
        self._recovery.step(shared)
        self._changer.step(shared)
        self.record.step(shared, self.develop.engine)
        self._watch(shared)

    def _watch(self, shared: Shared) -> None:
        liveness = shared.liveness
        liveness.look()
        self.record.look()
        self._looked_at = time.monotonic()
        if self.develop.alive and self._handover.open and liveness.develop_hangs():
            self._hung(self.develop.require().stage)
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
        answer = self.grab.set(feature, value)
        self._rate_is(answer["fps"])
        shown = f"{answer['value']:g}" if isinstance(answer["value"], float) else answer["value"]
        self.meter.note("changed", f"{feature} {shown}", feature=feature, value=answer["value"])
        return {"value": answer["value"]}

    def trigger(self) -> dict[str, Any]:
        """Fires the camera's software trigger. Raises UserError."""
        self.grab.ask("trigger")
        return {}

    def change_engine(self, changes: dict[str, Any]) -> EngineChange:
        """Begins to go on with another engine, without stopping the camera: see EngineChange. Raises UserError."""
        if self._ended:
            raise UserError(f"camera {self.camera} has ended")
        return self._changer.begin(changes)

    def _engine_changed(self) -> None:
        engine = self.develop.engine
        self.meter.engine_is(engine)
        self.record.tell_engine(engine, self.develop.settings)
        self._tell_info()
        self.meter.note("engine", f"engine {engine['name']}", engine=engine, pids=self.pids)

    # -- faults -------------------------------------------------------------------------------------------------

    def handle(self, stage: StageProcess, message: dict[str, Any]) -> None:
        """Deals with what a stage reports, or with its end. Raises StageFault."""
        event = message["event"]
        with suppress(StageDied):  # the stage that died meanwhile has its own event in the inbox
            if stage is self.record.stage:
                self.record.handle(message)
            elif event == "warning":
                self.meter.warning(message["text"])
            elif event == "changed":
                self._tell_change(message)
            elif event == "ended":
                self._at_end = message["text"]
                self.meter.note("ended", message["text"])
            elif event == "camera_lost":
                self._recovery.camera_lost(message["why"])
            elif event == "unusable":
                raise StageFault(message["text"])
            elif event == "died":
                self._hub.await_end(stage, LAST_BREATH_S)
                if stage is self.grab.stage:
                    self._recovery.grab_died(stage)
                else:
                    self._recovery.develop_died(stage)

    def _rate_is(self, fps: float | None) -> None:
        """The camera's rate from now on, Hz: for outages, the status, and the stream info."""
        self.geometry["fps"] = fps
        self.meter.rate_is(fps)
        if fps != self._told_fps:
            self._tell_info()

    def _tell_change(self, message: dict[str, Any]) -> None:
        self.grab.change_was_due(message)
        if message.get("refused"):
            self.meter.warning(message["text"])
        else:
            self._rate_is(message["fps"])
            self.meter.note("changed", **{name: message[name] for name in ("text", "feature", "value", "after")})

    # -- ending -------------------------------------------------------------------------------------------------

    def give_up(self, why: str) -> None:
        """Ends it because of a fault, while other cameras go on."""
        self.meter.fault(f"{why}: this camera's run has ended")
        self.failed = True
        self.stop(drain=False)
        self.shut_down()
        if self._handover.shared:
            self._tell_status({})  # the last one, or an old one would stand for ever

    def stop(self, *, drain: bool) -> None:
        """Ends the acquisition; with `drain`, what has come is still published. Harmless when repeated."""
        self._ending = True
        shared = self._handover.shared
        if self.grab.alive and shared and shared.ledger.segment_open and not self._ended:
            self._stop_acquisition(shared, drain=drain and self._handover.open and self.develop.alive)

    def shut_down(self) -> None:
        """Ends the stages and closes the account. Harmless when repeated."""
        shared = self._handover.shared
        if self._ended:
            return
        self._ending = True
        self._changer.end("the run has ended")
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
        self._hub.unwatch(self._events[2])  # which nobody reads any more, but a thread may yet write

    def _stop_acquisition(self, shared: Shared, *, drain: bool) -> None:
        self.grab.stop(drain=drain, stoppable=False)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        busy, signals = shared.custody, self._hub.signals
        while busy.busy and self.develop.alive and time.monotonic() < deadline and not signals.forced:
            self._hub.pump(0.02, stoppable=False)

    def release(self) -> None:
        """Gives the rings back, after the last look at the ledger."""
        if self._handover.shared:
            self._handover.shared.release()
