"""The record stage: `python -m ispeed.stream.record CHANNEL_FD`, one process per camera that is recorded.

A reader of the rings like any subscriber: it maps them read-only, and nobody waits for it. Commands: `open` (looks over
what is asked for), `attach` (maps the rings; a recording from the first frame begins), `start`, `stop` and `trigger` (a
recording), `tell` (parts of what later recordings say of themselves), `close` (writes what is left, and ends).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Any

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ..channel import Channel, close_fds
from ..config import StreamConfig
from ..ledger import read_account
from ..ring import Ring
from ..stage import answer_user_error, run_stage
from .dng import colours
from .feed import RawFeed, SrgbFeed
from .hdf import Contents
from .plan import Plan, make_plan
from .recorder import Recorder
from .triggers import BrightnessJump, Condition, LineEdge


class RecordStage:
    """Serves one channel until it is told to close, or the other end is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._config: StreamConfig | None = None
        self._plan: Plan | None = None
        self._recorder: Recorder | None = None
        self._contents = Contents()
        self._closed = False
        self._commands: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "open": self._open,
            "attach": self._attach,
            "start": lambda request, _: self._need_recorder().start(request["reason"]),
            "stop": lambda request, _: self._need_recorder().stop(request["reason"]),
            "trigger": lambda request, _: self._need_recorder().trigger(request["reason"], request.get("time_ns", 0)),
            "tell": self._tell,
            "close": self._close,
        }

    def run(self) -> None:
        """Serves until closed."""
        while not self._closed:
            patience_s = self._recorder.turn() if self._recorder else None
            got = self._channel.receive(patience_s)
            while got is not None:  # all that wait, before frames are looked at that came after them
                self._serve(*got)
                got = None if self._closed else self._channel.receive(0)

    def _serve(self, request: dict[str, Any], fds: list[int]) -> None:
        command = self._commands.get(request.get("cmd", ""))
        try:
            if command is None or (fds and request["cmd"] != "attach"):
                close_fds(fds)
                raise UserError(f"the record stage knows no command {request.get('cmd')!r}")
            if time.monotonic_ns() > request.get("until_ns", math.inf):  # its asker has been told that it is not done
                raise UserError("what was asked of the record process is too long ago to be done")
            answer = command(request, fds)
        except UserError as error:
            answer_user_error(self._channel, request, error)
        else:
            self._channel.answer(request, **answer)

    def _open(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._config = StreamConfig.model_validate(request["config"])
        self._plan = make_plan(self._config)
        return {}

    def _attach(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        config, plan = self._config, self._plan
        if config is None or plan is None:
            raise UserError("the record stage has nothing to record")
        geometry, fmt = request["geometry"], RawFormat.from_json(request["format"])
        raw, srgb = (Ring.attach(fd, writable=False) for fd in fds)
        size = (geometry["width"], geometry["height"])
        raw_feed = RawFeed(raw, fmt.payload_size, request["history"])
        srgb_feed = SrgbFeed(srgb, raw.words, size[0] * size[1] * 3)
        self._contents = _contents(config, plan, request, fmt)
        fps = geometry["fps"] or config.fps or 0.0  # a triggered camera tells none
        plan.require_disk(fmt, fps)
        if plan.format == "dng":
            colours(self._contents.parts["calibration"])  # refused now, rather than at a trigger
        self._recorder = Recorder(
            plan,
            (raw_feed, srgb_feed),
            fmt,
            self._contents,
            _conditions(plan, config, raw, fmt),
            fps=fps,
            record_fps=config.record_fps,
            in_flight=lambda: read_account(raw.words).in_flight > 0,
            gains=srgb_feed.gains,
            tell=self._channel.send,
        )
        gc.freeze()  # nothing of all this is to be looked at again while frames are written
        self._recorder.begin(resumed=request["resumed"])
        return self._recorder.describe()

    def _tell(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._contents.parts |= _told(request["settings"], request["engine"])
        return {}

    def _close(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._closed = True
        if self._recorder is None:
            return {"recordings": 0}
        self._recorder.close()
        return {"recordings": self._recorder.recorded}

    def _need_recorder(self) -> Recorder:
        if self._recorder is None:
            raise UserError("the record stage is attached to no stream")
        return self._recorder


def _conditions(plan: Plan, config: StreamConfig, ring: Ring, fmt: RawFormat) -> list[Condition]:
    conditions: list[Condition] = []
    if "line" in plan.on:
        conditions.append(LineEdge(config.record_line))
    if "brightness" in plan.on:
        conditions.append(BrightnessJump(ring, fmt, config.brightness_jump))
    return conditions


_CALIBRATION = ("white_balance", "colour_matrix", "defects", "flat_field", "measured")


def _contents(config: StreamConfig, plan: Plan, request: dict[str, Any], fmt: RawFormat) -> Contents:
    geometry, settings = request["geometry"], config.model_dump(mode="json")
    return Contents(
        raw_format=fmt if "raw" in plan.kinds else None,
        srgb_size=(geometry["width"], geometry["height"]) if "srgb" in plan.kinds else None,
        texts={
            "stream_id": f"{request['stream_id']:016x}",
            **{name: geometry[name] for name in ("serial", "vendor", "model")},
        },
        parts={"geometry": geometry, **_told(settings, request["engine"])},
        camera=geometry["camera"],
    )


def _told(settings: dict[str, Any], engine: dict[str, Any]) -> dict[str, Any]:
    """What recordings tell that may change in a run."""
    calibration = {name: settings[name] for name in _CALIBRATION}
    return {"settings": settings, "calibration": calibration, "engine": engine}


def main(channel: Channel) -> None:
    """Runs the stage."""
    try:
        RecordStage(channel).run()
    finally:
        channel.close()


if __name__ == "__main__":
    raise SystemExit(run_stage("record", main))
