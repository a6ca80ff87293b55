"""GrabSide: one camera's grab process, as the main process starts, asks, ends and replaces it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..engines.errors import UserError
from .camera import name_alone
from .changes import read_change, require_changeable
from .config import StreamConfig
from .hub import Hub, StageDied
from .remembered import Remembered
from .shared import Shared
from .stage import StageProcess

OPEN_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 6.0  # grab itself gives up after five
_TELL_TIMEOUT_S = 5.0
_BACK_OFF_S = (0.0, 0.25, 0.5, 1.0, 2.0)
_NEVER = float("inf")


class GrabSide:
    """The process, and what it was started with.

    Args:
        hung: Is called with a process that does not answer, to kill it.

    Attributes:
        stage: The process; None while the camera is away.
        geometry: What it says of the camera's frames.
        due_at: When to open a camera again that is away, in time.monotonic seconds; infinite while it is not.
        told: Why that failed the last time, as far as the user knows it.
    """

    def __init__(
        self, hub: Hub, config: StreamConfig, settings: dict[str, Any], hung: Callable[[StageProcess], None]
    ) -> None:
        self._hub, self._config, self._settings, self._hung = hub, config, settings, hung
        self._again = Remembered()
        self._opening = 0  # the call that opens the camera, while it is under way
        self._deadline = _NEVER
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

    @property
    def opening(self) -> bool:
        """Whether a process is on its way to open a camera that was lost."""
        return bool(self._opening)

    # -- starting -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts a process and has it open the camera, without waiting."""
        self._begin(self._settings)

    def _begin(self, settings: dict[str, Any]) -> None:
        self.due_at = _NEVER
        self.stage = self._hub.spawn("grab")
        self._opening = self.stage.post("open", config=settings, again=self._again.steps())
        self._deadline = time.monotonic() + OPEN_TIMEOUT_S

    def await_opened(self, camera: int) -> None:
        """Waits for what `begin` began. Raises UserError, StageDied, TimeoutError."""
        self.geometry = self._hub.answer(self.require(), self._opening, OPEN_TIMEOUT_S)["geometry"]
        self.geometry["camera"] = camera
        self._opening = 0

    def begin_again(self) -> None:
        """Starts a process and has it open the camera that was lost, without waiting."""
        # By its serial number and producer: while it is away, its index may be another camera's.
        g, recording = self.geometry, self._config.recording
        camera = self._config.camera if recording else name_alone(g["serial"], g["producer"])
        self._begin({**self._settings, "camera": camera})

    def opened(self) -> dict[str, Any] | None:
        """The geometry of the camera that `begin_again` opens, once it is open; None before.

        Raises UserError, StageDied, TimeoutError.
        """
        answer = self._hub.answer_now(self.require(), self._opening)
        if answer is None and time.monotonic() > self._deadline:
            raise TimeoutError(f"the grab process did not open it within {OPEN_TIMEOUT_S:g} s")
        if answer is not None:
            self._opening = 0
        return None if answer is None else answer["geometry"]

    def attach(self, shared: Shared, depth: int, *, keep_history: bool) -> None:
        """Gives the process the rings, to grant up to `depth` frames at once.

        `keep_history`: the history is recorded, and not given up for frames that wait. Raises UserError, StageDied,
        TimeoutError.
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
        self._hub.call(grab, "consumer_lost", _TELL_TIMEOUT_S)

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
        """A command of ours, which no wish to end interrupts; one that is not answered is a process that hangs.

        None without a process that has the rings, or where it ends meanwhile, of which the inbox will tell.
        """
        if self.stage is None or self._opening:
            return None
        try:
            return self._hub.call(self.stage, command, _TELL_TIMEOUT_S, stoppable=False, **arguments)
        except TimeoutError:
            self._hung(self.stage)
        except StageDied:
            pass
        return None

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A command of a user, who is told why there is no answer. Raises UserError."""
        try:
            if self.stage is None or self._opening:
                raise StageDied
            return self._hub.call(self.stage, command, _TELL_TIMEOUT_S, **arguments)
        except StageDied:
            raise UserError(f"camera {self.geometry['serial']} is not there at the moment") from None
        except TimeoutError as error:
            raise UserError(str(error)) from error

    def set(self, feature: str, value: Any) -> dict[str, Any]:
        """Sets a feature, also of the camera that comes back after it was lost: {"value", "fps"}. Raises UserError."""
        require_changeable(feature)
        answer = self.ask("set", feature=feature, value=value)
        if answer["lasts"]:
            self._again.add(feature, answer["value"])
        return answer

    def change_was_due(self, message: dict[str, Any]) -> None:
        """Grab has made the next change of the config, or the camera has refused it: it will not be due again."""
        left = sorted(self._settings["at"], key=lambda text: read_change(text).after)
        self._settings["at"] = left[1:]
        if message.get("lasts"):
            self._again.add(message["feature"], message["value"])

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
        self.stage, self._opening = None, 0
