"""Footage: raw frames in a file, with what is known of each. What a replay plays."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ...engines.raw_files import load_raw
from ..record import open_recording
from ..record.layout import RAW_FRAME


@dataclass(frozen=True)
class Calibration:
    white_balance: tuple[float, float, float] | None = None
    colour_matrix: list[list[float]] | None = None
    defects: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class About:
    fps: float | None = None
    serial: str = ""
    model: str = ""
    cut_off: int = 0
    calibration: Calibration = field(default_factory=Calibration)


class Footage(Protocol):
    """Raw frames in a file.

    Attributes:
        path: The file.
        raw_format: Of the frames, with their levels.
        frames: What is known of each: the columns of record.layout.RAW_FRAME.
        about: What is known of the camera.
    """

    path: Path
    raw_format: RawFormat
    frames: npt.NDArray[np.void]
    about: About

    def read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        """Writes the bytes of frame `index`, as the camera sent them, to uint8 [raw_format.payload_size].

        Raises UserError where the file does not give them.
        """
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


def open_footage(path: Path | str) -> Footage:
    """The raw frames in a file. Raises UserError where there are none, or they cannot be read."""
    return RecordedFootage(Path(path)) if str(path).endswith(".h5") else RawFootage(str(path))


class RecordedFootage:
    def __init__(self, path: Path) -> None:
        self.recording = recording = open_recording(path)
        if recording.raw_format is None or not recording.raw_count:
            raise UserError(f"{path} holds no raw frames")
        self.path, self.raw_format = path, recording.raw_format
        self.frames = recording.raw_frames
        c = recording.calibration
        wb = c.get("white_balance")
        self.about = About(
            recording.geometry.get("fps") or None,
            recording.texts["serial"],
            recording.texts["model"],
            0,
            Calibration(tuple(wb) if wb else None, c.get("colour_matrix"), tuple(map(tuple, c.get("defects") or ()))),
        )

    def read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        self.recording.read_raw(index, out)

    def close(self) -> None:
        self.recording.close()


class RawFootage:
    """Frames of engines.raw_files: samples without stamps, in memory."""

    def __init__(self, spec: str) -> None:
        loaded = load_raw(spec)
        self.path, self.raw_format, self.about = loaded.path, loaded.raw_format, About()
        count = len(loaded.samples)
        self.frames: Any = np.zeros(count, RAW_FRAME)
        self.frames["frame_id"] = np.arange(count)
        self.frames["exposure_us"], self.frames["gain_db"] = loaded.camera.T
        dtype = np.dtype("u1" if self.raw_format.depth == 8 else "<u2")
        self._bytes = np.ascontiguousarray(loaded.samples, dtype).view(np.uint8).reshape(count, -1)

    def read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        out[:] = self._bytes[index]

    def close(self) -> None:
        del self._bytes
