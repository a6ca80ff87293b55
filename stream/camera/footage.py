"""Footage: raw frames in a file, with what is known of each. What a replay plays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.raw_files import RawFrames, load_raw

#: What is known of each frame: the fields of a recording's table.
FRAME = np.dtype(
    [
        ("frame_id", "<u8"),
        ("device_timestamp", "<u8"),
        ("grabbed_ns", "<i8"),
        ("realtime_offset_ns", "<i8"),
        ("segment", "<u4"),
        ("flags", "<u4"),
        ("exposure_us", "<f8"),
        ("gain_db", "<f8"),
    ]
)


class Footage(Protocol):
    """Raw frames in a file.

    Attributes:
        path: The file.
        raw_format: Of the frames, with their levels.
        records: FRAME [frames], what is known of each: stamps are 0 and exposures NaN where that is not told.
        fps: Rate in Hz that they were taken at; 0 where that is not known.
        about: What is known of the camera: serial, vendor, model, offset_x, offset_y.
        calibration: Settings of StreamConfig that were measured of the camera, by their names there.
        warnings: What the user should know of the file.
    """

    path: Path
    raw_format: RawFormat
    records: npt.NDArray[np.void]
    fps: float
    about: dict[str, Any]
    calibration: dict[str, Any]
    warnings: list[str]

    def read_into(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        """Writes the bytes of frame `index`, as the camera sent them, to uint8 [raw_format.payload_size].

        Raises OSError or ValueError where the file does not give them.
        """
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


def open_footage(path: Path) -> Footage:
    """The raw frames in a file. Raises UserError where there are none, or they cannot be read."""
    return RawFootage(load_raw(str(path)))


class RawFootage:
    """Frames of engines.raw_files: samples without stamps, in memory."""

    def __init__(self, frames: RawFrames) -> None:
        self.path, self.raw_format = frames.path, frames.raw_format
        self.fps = 0.0
        self.about: dict[str, Any] = {}
        self.calibration: dict[str, Any] = {}
        self.warnings: list[str] = []
        count = len(frames.samples)
        self.records = np.zeros(count, FRAME)
        self.records["frame_id"] = np.arange(1, count + 1)
        self.records["exposure_us"], self.records["gain_db"] = frames.camera.T
        dtype = np.dtype("u1" if self.raw_format.depth == 8 else "<u2")
        self._bytes = np.ascontiguousarray(frames.samples, dtype).view(np.uint8).reshape(count, -1)

    def read_into(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        out[:] = self._bytes[index]

    def close(self) -> None:
        del self._bytes
