"""Supervisor: the main process's loop over the pipelines of all cameras, and over what is asked of them meanwhile.

One thread and one poll (`hub.py`): publishing comes first whenever anything wakes it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..engines.errors import UserError
from .commands import Commands
from .config import StreamConfig
from .control_server import ControlServer
from .curve import Guard
from .host import DevelopHost
from .hub import Hub, Signals, StageDied, Stopping
from .keys import Keys
from .monitor_process import MonitorProcess
from .notify import Notifier
from .pipeline import Pipeline
from .publish import Publisher
from .recovery import StageFault
from .ring import Word
from .saver import Saver
from .telemetry import Telemetry

_SAVER_PATIENCE_S = 10.0


class Supervisor:
    """One camera or several, from start to the final ledgers.

    Args:
        cameras: Index and settings of each.
        publisher: Publishes all of them.
        telemetry: Tells the user.
        signals: The user's wish to end.
        control: What other programs ask.
        savers: By index of the camera, those that --save starts.
        notifier: Tells the service manager, if there is one.
        monitor: What --monitor starts.
        guard: Decides who may connect, where there are keys.
    """

    def __init__(
        self,
        cameras: Sequence[tuple[int, StreamConfig]],
        publisher: Publisher,
        telemetry: Telemetry,
        signals: Signals,
        control: ControlServer,
        savers: dict[int, Saver],
        notifier: Notifier,
        monitor: MonitorProcess | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._notifier, self._guard = notifier, guard
        self._publisher, self._telemetry, self._control, self._savers = publisher, telemetry, control, savers
        self._monitor = monitor
        self._told: set[int] = set()  # cameras whose saver's end the user knows of
        self._ends_at = float("inf")
        self._seconds = cameras[0][1].seconds
        self._control_pending = False
        self.hub = Hub(self._on_wake, signals)
        self.hub.watch(publisher.fileno())
        self.hub.watch(control.fileno())
        if guard:
            guard.on_warning = telemetry.warning
            self.hub.watch(guard.fileno())
        host = DevelopHost() if cameras[0][1].share_engine and len(cameras) > 1 else None
        self.pipelines: list[Pipeline] = []
        for index, config in cameras:
            trace = _of_camera(config, index, len(cameras))
            meter = telemetry.meter(index, config.policy, trace)
            self.pipelines.append(Pipeline(index, config, self.hub, publisher, meter, host))
        self._commands = Commands(control, self.pipelines, signals)
        self._keys = Keys(self.hub, wanted=any(p.record.listens_to_keys for p in self.pipelines))

    def run(self) -> int:
        """Runs to the end and returns the exit code: 0 done, 1 ended by a fault. Raises UserError for bad input."""
        drain = True
        try:
            self._start()
            while not self._finished():
                self._turn()
        except Stopping:
            pass
        except (StageFault, StageDied, TimeoutError) as fault:
            self._telemetry.fault(str(fault))
            drain = False
        except BaseException:
            drain = False
            raise
        finally:
            self._shut_down(drain=drain)
        for camera, saver in self._savers.items():
            if saver.failure:
                self._tell_saver_failed(camera)
        failed = any(p.failed or p.record.failed for p in self.pipelines)
        return int(not drain or failed or any(s.failure for s in self._savers.values()))

    def _start(self) -> None:
        for pipeline in self.pipelines:  # they start up side by side
            pipeline.begin()
        if self._monitor:
            self._monitor.begin(self.hub)
        for pipeline in self.pipelines:
            pipeline.make_ready()
        if self._monitor:
            cameras = [pipeline.camera for pipeline in self.pipelines]
            self._monitor.open(cameras, self._publisher.endpoints, self._control.endpoints)
        if self._savers:
            self._await_savers()
        for pipeline in self.pipelines:
            pipeline.start()
        if self._monitor:
            self._telemetry.show("monitor", f"monitor: {self._monitor.url}", url=self._monitor.url)
        self._telemetry.begin()
        self._notifier.ready()
        if self._seconds:
            self._ends_at = time.monotonic() + self._seconds

    def _await_savers(self) -> None:
        """Lets the savers subscribe before the first frame, so that they have every one."""
        deadline = time.monotonic() + _SAVER_PATIENCE_S
        while self._publisher.savers < len(self._savers):
            for saver in self._savers.values():
                if failure := saver.poll():
                    raise UserError(failure)
            if time.monotonic() > deadline:
                raise StageFault(f"the process that saves frames did not subscribe within {_SAVER_PATIENCE_S:g} s")
            self.hub.pump(0.02)

    def _tell_saver_failed(self, camera: int) -> None:
        if camera not in self._told:
            self._told.add(camera)
            meter = next(p.meter for p in self.pipelines if p.camera == camera)
            meter.fault(f"saving ended: {self._savers[camera].failure}", event="saver_failed")

    def _turn(self) -> None:
        due_at = min(self._ends_at, self._notifier.due_at, *(pipeline.due_at for pipeline in self.pipelines))
        if self._monitor:
            due_at = min(due_at, self._monitor.due_at)
        pending = self._control_pending or bool(self._control.waiting)
        due_in_s = min(self._telemetry.due_in_s(), due_at - time.monotonic(), 1.0)
        self.hub.pump(0.0 if pending else max(0.0, due_in_s))
        while self.hub.inbox:
            stage, message = self.hub.inbox.popleft()
            if self.hub.current(stage):  # else of a process that has been replaced since
                for pipeline in self.pipelines:
                    if pipeline.owns(stage):
                        self._guarded(pipeline, lambda p=pipeline, s=stage, m=message: p.handle(s, m))
                if self._monitor and self._monitor.owns(stage) and (sentence := self._monitor.handle(message)):
                    self._telemetry.fault(sentence, event="monitor_died")
        self._commands.serve_one()
        if self._keys.pressed():
            pressed_ns = time.monotonic_ns()  # the same for all, however long one takes to answer
            for pipeline in self.pipelines:
                pipeline.record.on_key(pressed_ns)
        for pipeline in self.pipelines:
            self._guarded(pipeline, pipeline.turn)
        if self._monitor and (sentence := self._monitor.turn()):
            self._telemetry.warning(sentence)
        for pipeline in self.pipelines:
            if saver := self._savers.get(pipeline.camera):
                saver.look(pipeline.words[Word.PUBLISHED])
                if saver.poll():
                    self._tell_saver_failed(pipeline.camera)

    def _guarded(self, pipeline: Pipeline, step: Any) -> None:
        """A step of one camera's pipeline; a fault that ends it leaves the other cameras alone."""
        try:
            step()
        except (StageFault, StageDied, TimeoutError) as fault:
            if len(self.pipelines) == 1:
                raise
            pipeline.give_up(str(fault))

    def _finished(self) -> bool:
        over = all(pipeline.finished for pipeline in self.pipelines)
        return over or bool(self.hub.signals.count) or time.monotonic() >= self._ends_at

    def _shut_down(self, *, drain: bool) -> None:
        self._notifier.stopping()
        for pipeline in self.pipelines:  # first all of them: ending processes takes its time
            pipeline.stop(drain=drain)
        for pipeline in self.pipelines:
            pipeline.shut_down()
        self._commands.end()
        for saver in self._savers.values():
            saver.finish(self.hub.signals)
        if self._monitor:
            self._monitor.end()
        self._control.close()  # the publisher stays open for the last word

    def _other_stages(self, camera: int) -> dict[str, dict[str, Any]]:
        """States of the stages that are no part of the camera's pipeline."""
        states = {}
        if saver := self._savers.get(camera):
            states["saver"] = saver.state()
        if self._monitor:
            states["monitor"] = self._monitor.state()
        return states

    def release(self) -> None:
        """Gives the rings back, after the last look at the ledgers."""
        for pipeline in self.pipelines:
            pipeline.release()

    def _on_wake(self) -> None:
        for pipeline in self.pipelines:  # first of all, whatever else woke the poll
            pipeline.publish()
        if self._guard:
            self._guard.poll()
        self._publisher.poll_subscriptions()
        self._control_pending = self._control.poll()
        self._keys.poll()
        self._notifier.alive()
        if self._telemetry.due_in_s() <= 0:
            self._telemetry.next_interval()
            for pipeline in self.pipelines:
                pipeline.tick(**self._other_stages(pipeline.camera))
            self._notifier.status("; ".join(_in_short(pipeline) for pipeline in self.pipelines))


def _in_short(pipeline: Pipeline) -> str:
    """How a camera's pipeline stands, for the service manager's one line."""
    status = pipeline.meter.last.get("status")
    if pipeline.state != "live" or status is None:
        return f"camera {pipeline.camera} {pipeline.state}"
    account, rate = status["account"], status["rates"]["publish"]
    lost = sum(account["lost"].values())
    return f"camera {pipeline.camera} {rate:.0f} Hz, published {account['published']}, lost {lost}"


def _of_camera(config: StreamConfig, index: int, cameras: int) -> Any:
    """The trace of one camera; of several, each has a file of its own."""
    if config.trace is None or cameras == 1:
        return config.trace
    return config.trace.with_name(f"{config.trace.stem}-{index}{config.trace.suffix}")
