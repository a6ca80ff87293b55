"""GrabSide: one camera's grab process, as the main process starts, asks, ends and replaces it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from ..engines.errors import UserError
from .config import StreamConfig
from .developing import OPEN_TIMEOUT_S
from .hub import Hub, StageDied
from .shared import Shared
from .stage import StageProcess

STOP_TIMEOUT_S = 6.0  # grab itself gives up after five
_BACK_OFF_S = (0.0, 0.25, 0.5, 1.0, 2.0)
_NEVER = float("inf")
_FIELDS = {"ExposureTime": "exposure_us", "Gain": "gain_db", "AcquisitionFrameRate": "fps"}


class GrabSide:
    """The process, and what it was started with.

    Attributes:
        stage: The process; None while the camera is away.
        geometry: What it says of the camera's frames.
        due_at: When to open a camera again that is away, in time.monotonic seconds; infinite while it is not.
        told: Why that failed the last time, as far as the user knows it.
    """

    def __init__(self, hub: Hub, config: StreamConfig, settings: dict[str, Any]) -> None:
        self._hub, self._config, self._settings = hub, config, settings
        self._opened = 0
        self._tries = 0  # to open the camera again, since it was lost
        self.stage: StageProcess | None = None
        self.geometry: dict[str, Any] = {}
        self.due_at = _NEVER
        self.told = ""

    @property
    def alive(self) -> bool:
        """Whether there is a process, as far as is known."""
        return self.stage is not None and not self.stage.dead

    def require(self) -> StageProcess:
        """The process. Raises StageDied where there is none."""
        if self.stage is None:
            raise StageDied("the grab process is not there")
        return self.stage

    # -- starting -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts a process and has it open the camera, without waiting."""
        self.stage = self._hub.spawn("grab")
        self._opened = self.stage.post("open", config=self._settings)

    def await_opened(self, camera: int) -> None:
        """Waits for what `begin` began. Raises UserError, StageDied, TimeoutError."""
        self.geometry = self._hub.answer(self.require(), self._opened, OPEN_TIMEOUT_S)["geometry"]
        self.geometry["camera"] = camera

    def open_again(self) -> dict[str, Any]:
        """A new process opens the camera that was lost. Returns its geometry now.

        Raises UserError, StageDied, TimeoutError.
        """
        self.due_at = _NEVER
        self.stage = self._hub.spawn("grab")
        # By its serial number: while it is away, its index may be another camera's.
        serial = "" if self._config.recording else self.geometry["serial"]
        settings = {**self._settings, "camera": serial or self._config.camera}
        return self._hub.call(self.stage, "open", OPEN_TIMEOUT_S, config=settings)["geometry"]

    def attach(self, shared: Shared, epoch: int, depth: int, *, keep_history: bool) -> None:
        """Gives the process the rings; grants go to the develop process `epoch`.

        `keep_history`: the history is recorded, and not given up for frames that wait. Raises StageDied, TimeoutError.
        """
        config, grab = self._config, self.require()
        self._hub.call(
            grab,
            "attach",
            10,
            fds=(shared.raw.fd, shared.events[0], shared.events[1]),
            policy=config.policy,
            reserve=shared.reserve,
            history=shared.history,
            keep_history=keep_history,
            depth=depth,
            limit=config.frames,
            timeout_ms=config.timeout_ms,
        )
        # Nobody is granted anything now, so whatever the table still says so was held by a dead process.
        self._hub.call(grab, "consumer_lost", 5)
        self._hub.call(grab, "consumer", 5, epoch=epoch)

    def start(self, segment: int) -> None:
        """The acquisition begins. Raises UserError, StageDied, TimeoutError."""
        self._hub.call(self.require(), "start", 10, segment=segment)

    def plan_opening(self) -> None:
        """The camera is away: when to try again, later with each try."""
        self.due_at = time.monotonic() + _BACK_OFF_S[min(self._tries, len(_BACK_OFF_S) - 1)]
        self._tries += 1

    def is_back(self) -> None:
        """The camera delivers again."""
        self._tries, self.told = 0, ""

    # -- asking -------------------------------------------------------------------------------------------------

    def tell(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """A command; None without a process, or where it died meanwhile, of which the inbox will tell.

        Raises UserError, TimeoutError.
        """
        with suppress(StageDied):
            if self.stage:
                return self._hub.call(self.stage, command, 5, **arguments)
        return None

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The same for a user, who is told why there is no answer. Raises UserError."""
        try:
            answer = self.tell(command, **arguments)
        except TimeoutError as error:
            raise UserError(str(error)) from error
        if answer is None:
            raise UserError(f"camera {self.geometry['serial']} is not there at the moment")
        return answer

    def set(self, feature: str, value: Any) -> dict[str, Any]:
        """Sets a feature, also of the camera that comes back after it was lost: {"value", "fps"}. Raises UserError."""
        answer = self.ask("set", feature=feature, value=value)
        if feature in _FIELDS:
            self._settings[_FIELDS[feature]] = answer["value"]
        else:
            self._settings["features"] = {**self._settings["features"], feature: answer["value"]}
        self.geometry["fps"] = answer["fps"]
        return answer

    # -- ending -------------------------------------------------------------------------------------------------

    def stop(self, *, drain: bool, stoppable: bool = True) -> None:
        """Ends the acquisition, as far as the process still does what it is told."""
        with suppress(TimeoutError, StageDied, UserError):
            self._hub.call(self.require(), "stop", STOP_TIMEOUT_S, stoppable=stoppable, drain=drain)

    def close(self) -> None:
        """Has it give the camera back, without waiting. Harmless without a process."""
        if self.stage and not self.stage.dead:
            self.stage.post("close")

    def end(self, grace_s: float = 0.0) -> None:
        """Sees the process end; then there is none. Harmless when repeated."""
        if self.stage:
            self._hub.retire(self.stage, grace_s)
        self.stage = None
