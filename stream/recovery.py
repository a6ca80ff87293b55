"""Recovery: has one camera's stages come back, whatever ended them: the camera away, a process dead, an engine gone.

Nothing is waited for: `step` looks how far what was started again is, once a turn of the main process's loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..engines.errors import UserError
from .developing import DevelopSide
from .grabbing import GrabSide
from .handover import Handover
from .hub import StageDied
from .ledger import FrameLedger
from .meter import Meter
from .ring import Word
from .shared import Shared
from .stage import StageProcess

_FRAMES = ("width", "height", "pixel_format", "payload", "offset_x", "offset_y", "white_level")
_TRIM = 0.5  # digital numbers


class StageFault(Exception):
    """A stage cannot be kept alive; the camera's run ends with exit code 1. The message is one sentence."""


class Recovery:
    """Used by the pipeline of one camera.

    Args:
        start: Begins an acquisition, in a segment of its own.
        engine_changed: Is called when another engine develops than before.
    """

    def __init__(
        self,
        grab: GrabSide,
        develop: DevelopSide,
        handover: Handover,
        meter: Meter,
        start: Callable[[], None],
        engine_changed: Callable[[], None],
    ) -> None:
        self._grab, self._develop, self._handover, self._meter = grab, develop, handover, meter
        self._start, self._engine_changed = start, engine_changed

    def camera_lost(self, why: str) -> None:
        """The camera is gone, or silent. Ends the segment with every frame accounted for, and plans the next try."""
        self._meter.fault(f"camera lost: {why}", event="camera_lost")
        self._grab.stop(drain=self._handover.open)
        self._grab.close()  # a camera that is silent but there must not stay claimed
        self._handover.end_grab(f"camera lost: {why}", grace_s=2.0)
        self._grab.plan_opening()

    def grab_died(self, stage: StageProcess) -> None:
        """The grab process is no more. Raises StageFault where that happens again and again."""
        if self._grab.opening:  # a producer may crash as long as its camera is away
            self._wait_for_camera(f"the grab process ended {stage.how_it_ended()}")
            return
        self._report(stage)
        self._handover.end_grab("the grab process died")
        self._grab.plan_opening()
        self._count_death("grab")

    def develop_died(self, stage: StageProcess) -> None:
        """The develop process is no more. Raises StageFault where that happens again and again."""
        self._report(stage)
        self._handover.end_develop()
        if self._develop.go_back(self._handover.require_shared().words[Word.DEVELOPED]):
            self._meter.fault("the new engine ends before its first frame: back to the one before", event="engine_back")
        self._count_death("develop")
        self._begin_develop()

    def step(self, shared: Shared) -> None:
        """Goes on with whatever is on its way back. Raises StageFault where it cannot come back."""
        if time.monotonic() >= self._grab.due_at:
            try:
                self._grab.begin_again()
            except OSError as error:  # no descriptor, process or memory left: there may be later
                self._wait_for_camera(f"its process cannot be started: {error.strerror}")
        if self._grab.opening:
            self._go_on_opening()
        if self._develop.alive and not self._develop.ready:
            self._go_on_starting(shared)

    # -- inside -------------------------------------------------------------------------------------------------

    def _go_on_opening(self) -> None:
        """Takes up a camera that was lost, once grab has it open."""
        was = self._grab.geometry
        try:
            geometry = self._grab.opened()
            if geometry is None:
                return
            if not _same_frames(was, geometry):
                raise StageFault(f"the camera came back with other frames ({_told(geometry)}, was {_told(was)})")
            was["fps"] = geometry["fps"]
            self._handover.attach()
            self._start()
        except (UserError, StageDied, TimeoutError) as error:  # not there yet, busy, or gone again
            self._wait_for_camera(str(error))
            return
        self._grab.is_back()
        outage = _last(self._handover.require_shared().ledger)
        self._meter.warning(f"camera {geometry['serial']} is back", event="outage", **outage)

    def _wait_for_camera(self, why: str) -> None:
        self._handover.end_grab(f"the camera could not be started: {why}")
        if why != self._grab.told:
            self._grab.told = why
            self._meter.warning(f"still waiting for the camera: {why}", event="waiting")
        self._grab.plan_opening()

    def _go_on_starting(self, shared: Shared) -> None:
        """Grants frames to a new develop process, once it is ready."""
        try:
            if not self._develop.step(shared):
                return
        except UserError as error:  # it could before: no bad input, but a GPU or a file that is gone
            if not self._develop.fall_back():
                raise StageFault(f"the develop process cannot start again: {error}") from error
            self._handover.end_develop()
            self._meter.fault(
                f"the new engine cannot start again: {error}; back to the one before", event="engine_back"
            )
            self._begin_develop()
            return
        except TimeoutError as error:
            self._meter.fault(f"{error}: killed", event="stage_hung", stage="develop")
            self._develop.require().stage.kill()
            return
        except StageDied:  # it has its own event in the inbox
            return
        self._handover.go_on()
        if self._meter.engine != self._develop.engine["name"]:  # it went back to the one before
            self._engine_changed()

    def _begin_develop(self) -> None:
        try:
            self._develop.begin()
        except OSError as error:
            raise StageFault(f"the develop process cannot be started again: {error.strerror}") from error

    def _report(self, stage: StageProcess) -> None:
        text = f"the {stage.name} process ended {stage.how_it_ended()}; starting it again"
        self._meter.fault(text, event="stage_died", stage=stage.name)

    def _count_death(self, name: str) -> None:
        if self._handover.require_shared().liveness.died_too_often(name):
            raise StageFault(f"the {name} process died again and again without a frame: gave up")


def _same_frames(was: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether rings, subscribers and calibration are right for what comes now. Some cameras trim their black level."""
    same = all(was[name] == now[name] for name in _FRAMES)
    return same and abs(was["black_level"] - now["black_level"]) <= _TRIM


def _told(geometry: dict[str, Any]) -> str:
    size = "{width}x{height} {pixel_format}, {payload} bytes, at {offset_x},{offset_y}"
    return f"{size}, black {{black_level:g}}, white {{white_level:g}}".format(**geometry)


def _last(ledger: FrameLedger) -> dict[str, Any]:
    if not ledger.outages:
        return {}
    outage = ledger.outages[-1]
    return {
        "duration_s": round((outage.end_ns - outage.start_ns) * 1e-9, 3),
        "estimated_frames": outage.estimated_frames,
    }
