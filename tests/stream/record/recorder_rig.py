"""A recorder on rings that a test fills, with a clock that the test turns."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from recorded_rings import FORMAT, GEOMETRY, PERIOD_NS, Clock, Rings, raw_frame

from ispeed.stream.config import make_config
from ispeed.stream.record import Recording
from ispeed.stream.record.feed import RawFeed, SrgbFeed
from ispeed.stream.record.hdf import Contents
from ispeed.stream.record.plan import make_plan
from ispeed.stream.record.recorder import Recorder
from ispeed.stream.record.triggers import BrightnessJump, LineEdge

RATE = 1e9 / PERIOD_NS


class Rig:
    """A recorder on rings that the test fills."""

    def __init__(self, clock: Clock, folder: Path, slots: int, **settings: Any) -> None:
        self.clock, self.folder = clock, folder
        self.rings = Rings(clock, slots)
        config = make_config({"record": folder, **settings})
        plan = make_plan(config)
        assert plan is not None
        self.told: list[dict[str, Any]] = []
        srgb = SrgbFeed(self.rings.srgb, self.rings.raw.words, FORMAT.width * FORMAT.height * 3)
        conditions: list[Any] = [LineEdge(config.record_line)] if "line" in plan.on else []
        if "brightness" in plan.on:
            conditions.append(BrightnessJump(self.rings.raw, FORMAT, config.brightness_jump))
        self.recorder = Recorder(
            plan,
            [RawFeed(self.rings.raw, FORMAT.payload_size, slots - 4), srgb],
            FORMAT,
            Contents(
                FORMAT if "raw" in plan.kinds else None,
                (FORMAT.width, FORMAT.height) if "srgb" in plan.kinds else None,
                {"serial": "TEST1"},
                {"geometry": GEOMETRY, "calibration": {"white_balance": None}},
            ),
            conditions,
            fps=RATE,
            record_fps=config.record_fps,
            in_flight=lambda: self.rings.in_flight,
            gains=srgb.gains,
            tell=self.told.append,
        )
        self.recorder.begin()

    def come(self, count: int, **how: Any) -> None:
        """Frames come one by one, and the recorder keeps up."""
        for _ in range(count):
            self.rings.come(**how)
            self.rings.develop()
            self.turn()

    def turn(self) -> None:
        """The recorder does what is to be done."""
        while self.recorder.turn() == 0.0:
            pass

    def wait(self, seconds: float = 0.2) -> None:
        """No frame comes for a while."""
        self.clock.sleep(seconds)
        self.turn()

    def ended(self) -> dict[str, Any]:
        """What was told of the recording that has ended last."""
        return [message for message in self.told if message["change"] == "ended"][-1]

    def close(self) -> None:
        del self.recorder
        gc.collect()
        self.rings.close()


def require_raw(recording: Recording, first: int, count: int, levels: Callable[[int], float] = lambda n: 0.3) -> None:
    """The recording has raw frames [first, first + count), and every byte of them is right."""
    assert recording.raw_frames["device_timestamp"].tolist() == [5 * (n + 1) for n in range(first, first + count)]
    for i in range(count):
        assert np.array_equal(recording.read_raw(i), raw_frame(first + i, levels(first + i)))


def recordings(rig: Rig) -> list[Path]:
    """The files, oldest first."""
    return sorted(rig.folder.glob("*.h5"), key=lambda path: path.stat().st_mtime_ns)
