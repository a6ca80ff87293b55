"""DevelopSide: one camera's develop process, as the main process starts, replaces and watches it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from .host import DevelopHost
from .hub import Hub, StageDied
from .shared import Shared
from .stage import StageProcess

OPEN_TIMEOUT_S = 180.0  # a cold compile of an engine for a GPU is the slowest answer there is


class DevelopSide:
    """The process, and what it was started with. With a `host` it is a part of that process.

    Attributes:
        stage: The process, None before the first.
        engine: What it says of its engine.
        depth: Most frames that are granted to it at once.
        epoch: Its number.
    """

    def __init__(self, hub: Hub, settings: dict[str, Any], host: DevelopHost | None = None) -> None:
        self._hub, self._settings, self._host = hub, settings, host
        self._opened = 0
        self.stage: StageProcess | None = None
        self.engine: dict[str, Any] = {}
        self.depth = 0
        self.epoch = 0

    @property
    def alive(self) -> bool:
        """Whether there is a process, as far as is known."""
        return self.stage is not None and not self.stage.dead

    def begin(self) -> None:
        """Starts a process and has it open the engine, without waiting."""
        self.stage = self._spawn()
        self._opened = self.stage.post("open", config=self._settings)

    def await_opened(self) -> None:
        """Waits for what `begin` began. Raises UserError, StageDied, TimeoutError."""
        self._hub.answer(self.require(), self._opened, OPEN_TIMEOUT_S)

    def prepare(self, shared: Shared) -> None:
        """Gives the process the rings. Raises UserError, StageDied, TimeoutError."""
        self._adopt(self._prepared(self.require(), self._settings, shared), shared)

    def restart(self, shared: Shared) -> None:
        """A new process in the place of one that died. Raises UserError, StageDied, TimeoutError."""
        self.stage = self._spawn()
        self._hub.call(self.stage, "open", OPEN_TIMEOUT_S, config=self._settings)
        self.prepare(shared)

    def ready_another(self, changes: dict[str, Any], shared: Shared) -> Another:
        """A second process with other settings, ready to take over. The first goes on meanwhile.

        Raises UserError, StageDied or TimeoutError, and leaves nothing.
        """
        settings = {**self._settings, **changes}
        stage = self._spawn()
        try:
            self._hub.call(stage, "open", OPEN_TIMEOUT_S, config=settings)
            answer = self._prepared(stage, settings, shared, wait=True)
        except BaseException:
            self._hub.retire(stage)
            raise
        return Another(stage, settings, answer)

    def take_over(self, another: Another, shared: Shared) -> None:
        """Ends the process, which holds no frame any more, and goes on with the other one."""
        self.end(grace_s=2.0)
        self.stage, self._settings = another.stage, another.settings
        self._adopt(another.answer, shared)
        with suppress(StageDied, TimeoutError):  # the inbox will tell of its end, or its silence be noticed
            self._hub.call(self.stage, "run", 10)

    def drop(self, another: Another) -> None:
        """Ends a second process that is not wanted."""
        self._hub.retire(another.stage)

    def end(self, grace_s: float = 0.0) -> None:
        """Ends the process, if there is one."""
        if self.stage:
            if grace_s and not self.stage.dead:
                self.stage.post("stop")
            self._hub.retire(self.stage, grace_s)

    def require(self) -> StageProcess:
        """The process. Raises StageDied where there is none."""
        if self.stage is None:
            raise StageDied("the develop process is not there")
        return self.stage

    def _spawn(self) -> StageProcess:
        return self._hub.adopt(self._host.spawn()) if self._host else self._hub.spawn("develop")

    def _prepared(
        self, stage: StageProcess, settings: dict[str, Any], shared: Shared, *, wait: bool = False
    ) -> dict[str, Any]:
        self.epoch += 1
        return self._hub.call(
            stage,
            "prepare",
            OPEN_TIMEOUT_S,
            fds=(shared.raw.fd, shared.srgb.fd, *shared.events),
            geometry=shared.geometry,
            format=shared.raw_format.to_json(),
            stream_id=shared.stream_id,
            epoch=self.epoch,
            wait=wait,
        )

    def _adopt(self, answer: dict[str, Any], shared: Shared) -> None:
        self.engine = answer["engine"]
        # What the engine could take in a ring with few slots must leave the camera its own.
        depth = max(1, min(answer["depth"], shared.free_slots))
        # Frames that wait in develop are the newest no more: one for each lane, and none to wait.
        self.depth = depth if self._settings["policy"] != "latest" else min(depth, answer["lanes"])


class Another:
    """A second develop process, ready and waiting for its turn."""

    def __init__(self, stage: StageProcess, settings: dict[str, Any], answer: dict[str, Any]) -> None:
        self.stage, self.settings, self.answer = stage, settings, answer
