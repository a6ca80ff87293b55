"""DevelopSide: one camera's develop process, as the main process starts, replaces and watches it.

Nothing here waits for a process to become ready once the camera runs: `step` looks how far it is.
"""

from __future__ import annotations

import time
from typing import Any

from .host import DevelopHost
from .hub import LAST_BREATH_S, Hub, StageDied
from .ring import Word
from .shared import Shared
from .stage import StageProcess

OPEN_TIMEOUT_S = 180.0  # a cold compile of an engine for a GPU is the slowest answer there is
_LEAVE_TIMEOUT_S = 2.0
_FAILURES = 2  # of a new engine before its first frame, after which the one before is tried again


class DevelopProcess:
    """A develop process on its way to readiness: it opens its engine, then makes it ready for the rings.

    Args:
        stage: The process, just started.
        settings: Of StreamConfig, as JSON.
        epoch: Its number.

    Attributes:
        ready: What it says of itself once it is ready: engine, depth, lanes; before that None.
    """

    def __init__(self, hub: Hub, stage: StageProcess, settings: dict[str, Any], epoch: int) -> None:
        self._hub, self.stage, self.settings, self.epoch = hub, stage, settings, epoch
        self.ready: dict[str, Any] | None = None
        self._opened = False
        self._call = self.stage.post("open", config=settings)
        self._deadline = time.monotonic() + OPEN_TIMEOUT_S

    def await_opened(self) -> None:
        """Waits until it has its engine. Raises UserError, StageDied, TimeoutError."""
        self._hub.answer(self.stage, self._call, OPEN_TIMEOUT_S)
        self._opened = True

    def await_ready(self, shared: Shared) -> None:
        """Gives it the rings and waits. Raises UserError, StageDied, TimeoutError."""
        self._prepare(shared)
        self.ready = self._hub.answer(self.stage, self._call, OPEN_TIMEOUT_S)

    def step(self, shared: Shared) -> bool:
        """Goes on as far as its answers have come; whether it is ready. Raises UserError, StageDied, TimeoutError."""
        while self.ready is None:
            answer = self._hub.answer_now(self.stage, self._call)
            if answer is None:
                if time.monotonic() > self._deadline:
                    raise TimeoutError(f"the develop process did not become ready within {OPEN_TIMEOUT_S:g} s")
                return False
            if self._opened:
                if self.stage.dead:  # it became ready, and died
                    raise StageDied(f"the {self.stage.name} process ended")
                self.ready = answer
            else:
                self._opened = True
                self._prepare(shared)
        return True

    def run(self) -> None:
        """It takes frames from now on. No two of one camera may: the queues between processes have one reader."""
        self.stage.post("run")

    def leave(self) -> None:
        """Sees it stop to take frames; one that does not is killed. What it held is finished, or is to be counted."""
        if self.ready is None:  # it was not told to run
            return
        try:
            self._hub.answer(self.stage, self.stage.post("stop"), _LEAVE_TIMEOUT_S, stoppable=False)
        except StageDied:
            self._hub.await_end(self.stage, LAST_BREATH_S)  # until then it may still write
        except TimeoutError:
            self._hub.kill_and_wait(self.stage)

    def _prepare(self, shared: Shared) -> None:
        self._call = self.stage.post(
            "prepare",
            (shared.raw.fd, shared.srgb.fd, *shared.events),
            geometry=shared.geometry,
            format=shared.raw_format.to_json(),
            stream_id=shared.stream_id,
            epoch=self.epoch,
        )
        self._deadline = time.monotonic() + OPEN_TIMEOUT_S


class DevelopSide:
    """The process that develops, and at times a second one that is to take over. With a `host` they are parts of that.

    Attributes:
        current: The process, None before the first.
        another: One with other settings, on its way to take over.
        engine: What the process says of its engine; of one that is not ready, what its predecessor said.
        depth: Most frames that are granted to it at once.
    """

    def __init__(self, hub: Hub, settings: dict[str, Any], host: DevelopHost | None = None) -> None:
        self._hub, self._settings, self._host = hub, settings, host
        self._epochs = 0
        self._before: dict[str, Any] | None = None  # settings to go back to, until the engine has shown that it works
        self._failures = 0  # of the new engine, before its first frame
        self._first = 0  # which that is
        self.current: DevelopProcess | None = None
        self.another: DevelopProcess | None = None
        self.engine: dict[str, Any] = {}
        self.depth = 0

    @property
    def stage(self) -> StageProcess | None:
        """The process, None before the first."""
        return self.current.stage if self.current else None

    @property
    def settings(self) -> dict[str, Any]:
        """Of StreamConfig, as JSON, with what has been changed since the start."""
        return self._settings

    @property
    def epoch(self) -> int:
        """Its number."""
        return self.current.epoch if self.current else 0

    @property
    def alive(self) -> bool:
        """Whether there is a process, as far as is known."""
        return self.stage is not None and not self.stage.dead

    @property
    def ready(self) -> bool:
        """Whether it can take frames."""
        return self.alive and self.current is not None and self.current.ready is not None

    def require(self) -> DevelopProcess:
        """The process. Raises StageDied where there is none."""
        if self.current is None:
            raise StageDied("the develop process is not there")
        return self.current

    def begin(self) -> None:
        """Starts a process and has it open the engine, without waiting."""
        self.current = self._start(self._settings)

    def await_ready(self, shared: Shared) -> None:
        """Waits for a process that has opened its engine. Raises UserError, StageDied, TimeoutError."""
        self.require().await_ready(shared)
        self._adopt(shared)

    def step(self, shared: Shared) -> bool:
        """Whether the process has become ready just now. Raises UserError, StageDied, TimeoutError."""
        current = self.require()
        if current.ready is not None or not current.step(shared):
            return False
        self._adopt(shared)
        return True

    def begin_another(self, changes: dict[str, Any]) -> None:
        """A second process, with other settings, begins to make itself ready. The first goes on meanwhile."""
        self.another = self._start({**self._settings, **changes})

    def take_over(self, shared: Shared) -> StageProcess:
        """The second process, which is ready, becomes the one that develops. Returns the first, which has left."""
        old, new = self.require(), self.another
        if new is None:
            raise RuntimeError("there is no second develop process")
        developed = shared.words[Word.DEVELOPED]
        if self._before is None or developed > self._first:  # else the first has shown nothing itself yet
            self._before = self._settings
        self._failures, self._first = 0, developed
        self.current, self.another, self._settings = new, None, new.settings
        self._adopt(shared)
        return old.stage

    def go_back(self, developed: int) -> bool:
        """Of a process that died: whether `begin` shall go back to the engine before, because a new one never worked.

        Once may be no fault of the engine. `developed` is the number of frames that have been, with any engine.
        """
        if self._before is None or developed > self._first:
            self._before = None
            return False
        self._failures += 1
        if self._failures < _FAILURES:
            return False
        return self.fall_back()

    def fall_back(self) -> bool:
        """`begin` shall go back to the engine before, because a new one cannot be; whether there is one before."""
        if self._before is None:
            return False
        self._settings, self._before = self._before, None
        return True

    def drop_another(self) -> None:
        """Ends a second process that is not wanted. Harmless without one."""
        if self.another:
            self._hub.retire(self.another.stage)
        self.another = None

    def end(self, grace_s: float = 0.0) -> None:
        """Ends the process, if there is one."""
        if self.stage:
            if grace_s and not self.stage.dead:
                self.stage.post("stop")
            self._hub.retire(self.stage, grace_s)

    def _start(self, settings: dict[str, Any]) -> DevelopProcess:
        self._epochs += 1
        stage = self._hub.adopt(self._host.spawn()) if self._host else self._hub.spawn("develop")
        return DevelopProcess(self._hub, stage, settings, self._epochs)

    def _adopt(self, shared: Shared) -> None:
        self.require().run()
        answer = self.require().ready or {}
        self.engine = answer["engine"]
        # What the engine could take in a ring with few slots must leave the camera its own.
        depth = max(1, min(answer["depth"], shared.free_slots))
        # Frames that wait in develop are the newest no more: one for each lane, and none to wait.
        self.depth = depth if self._settings["policy"] != "latest" else min(depth, answer["lanes"])
