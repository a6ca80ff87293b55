"""What footage is: raw frames of one format, what is known of each, and of the camera."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.errors import UserError

Cfa = Literal["RG", "GR", "GB", "BG"]
"""The first two colours of a Bayer mosaic, as PFNC names them."""

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
        ("iso", "<f8"),
        ("f_number", "<f8"),
        ("focal_length_mm", "<f8"),
    ]
)
"""What is known of a frame. Whole numbers that are not known are 0, others NaN. `frame_id` counts as the camera did, or
from 0; `device_timestamp` is in the camera's units, in .cine files nanoseconds since 1970."""


@dataclass(frozen=True)
class FootageOptions:
    """What a user knows better than the file.

    Attributes:
        cfa: Order of the colour filters; None is as the file says.
        black_level: In DN of the pixel format; None is as the file says, else 0.
        white_level: Likewise; None is as the file says, else the format's highest value.
    """

    cfa: Cfa | None = None
    black_level: float | None = None
    white_level: float | None = None


@dataclass(frozen=True)
class Calibration:
    """What the file says of the camera's colours. None, or no defects, where it says nothing.

    Attributes:
        white_balance: Gains of red, green and blue.
        colour_matrix: 3x3, row by row, camera RGB to linear sRGB.
        defects: (x, y) of pixels to replace.
        flat_field: Gains against shading: R, Gr, Gb and B, each as rows.
    """

    white_balance: tuple[float, float, float] | None = None
    colour_matrix: list[list[float]] | None = None
    defects: tuple[tuple[int, int], ...] = ()
    flat_field: dict[str, list[list[float]]] | None = None


@dataclass(frozen=True)
class About:
    """What a file says besides its frames.

    Attributes:
        fps: Frames a second that were taken; None is not known.
        serial, model, vendor: Of the camera; empty where they are not known.
        offset: (x, y) of the frames on the sensor, in pixels; None is not known.
        complete: False where the frames were not written to their end: those that are whole are there.
        created: When the frames were taken, ISO 8601; empty where it is not known.
        cut_off: Frames that the file names but does not hold whole: it was cut off.
        calibration: See there.
    """

    fps: float | None = None
    serial: str = ""
    model: str = ""
    vendor: str = ""
    offset: tuple[int, int] | None = None
    complete: bool = True
    created: str = ""
    cut_off: int = 0
    calibration: Calibration = Calibration()


class Footage(ABC):
    """Raw frames in a file. One thread reads; other processes open it anew.

    Attributes:
        path: The file.
        kind: What it is, for messages and records: "recording", "cine", "mraw" or "raw".
        raw_format: Of every frame that `read` gives, which may be packed otherwise in the file.
        frames: What is known of each: `FRAME` [count].
        about: What else the file says.
    """

    def __init__(
        self, path: Path, kind: str, raw_format: RawFormat, frames: npt.NDArray[np.void], about: About
    ) -> None:
        self.path, self.kind, self.raw_format, self.frames, self.about = path, kind, raw_format, frames, about

    @property
    def count(self) -> int:
        """Frames that the file holds whole; never 0."""
        return len(self.frames)

    @property
    def fps(self) -> float | None:
        """Frames a second that were taken; None is not known."""
        return self.about.fps

    @property
    def calibration(self) -> Calibration:
        """What the file says of the camera's colours."""
        return self.about.calibration

    def read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        """Reads a frame.

        Args:
            index: From 0 to `count` - 1.
            out: uint8 [at least raw_format.payload_size], contiguous and writable; bytes past the payload stay.

        Raises:
            IndexError: There is no such frame.
            UserError: It cannot be read, or is cut off.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"frame {index} of {self.count}")
        try:
            self._read(index, out[: self.raw_format.payload_size])
        except OSError as error:
            raise UserError(f"frame {index} of {self.path} cannot be read: {error.strerror or error}") from error

    @abstractmethod
    def _read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        """Reads a frame that there is into uint8 [payload_size]. Raises OSError or UserError."""

    @abstractmethod
    def close(self) -> None:
        """Closes the file. Harmless when called twice."""

    def __enter__(self) -> Footage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def blank_frames(count: int) -> npt.NDArray[np.void]:
    """`FRAME` [count] of frames that nothing is known of but their number."""
    frames = np.zeros(count, FRAME)
    frames["frame_id"] = np.arange(count)
    for name in ("exposure_us", "gain_db", "iso", "f_number", "focal_length_mm"):
        frames[name] = math.nan
    return frames


class ByteFile:
    """A file that is read at places. Everything that it is asked for is checked against its size first."""

    def __init__(self, path: Path) -> None:
        """Raises UserError: there is no such file, or it cannot be opened."""
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make it wait
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
        if not os.path.isfile(path):
            self.close()
            raise UserError(f"{path} is no file: give the path of a file with raw frames")
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer at the end of the file."""
        return os.pread(self._fd, max(0, min(size, self.size - offset)), offset) if 0 <= offset < self.size else b""

    def read_into(self, offset: int, out: npt.NDArray[np.uint8], what: str) -> None:
        """Fills `out` from `offset` on. Raises UserError where the file, since it was opened, has become shorter."""
        done, view = 0, out.data
        while done < len(view):
            got = os.preadv(self._fd, [view[done:]], offset + done)
            if not got:
                raise UserError(f"{what} of {self.path} is cut off: copy the file again")
            done += got

    def close(self) -> None:
        """Closes it. Harmless when called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def mosaic_format(path: Path, depth: int, cfa: str | None, options: FootageOptions, packed: str = "") -> str:
    """The PFNC name for samples of so many bits behind these filters.

    Args:
        path: For messages.
        depth: 8, 10, 12 or 16.
        cfa: Order that the file says: RG, GR, GB, BG; empty is grey, None is not known.
        options: What the user says.
        packed: "p", or empty.

    Raises:
        UserError: The order is not known, or the frames are grey and deeper than 8 bits.
    """
    order = options.cfa or cfa
    if order is None:
        raise UserError(f"{path} does not say in which order its colour filters lie: say it by --cfa RG, GR, GB or BG")
    if order:
        return f"Bayer{order}{depth}{packed}"
    if depth != 8:
        raise UserError(
            f"{path} holds grey frames of {depth} bits, and grey ones are developed from 8 bits only; if they are a "
            "Bayer mosaic after all, say so by --cfa RG, GR, GB or BG"
        )
    return "Mono8"


def with_cfa(pixel_format: str, options: FootageOptions) -> str:
    """A pixel format, its colour filters in the order that the user says."""
    if options.cfa is None:
        return pixel_format
    return f"Bayer{options.cfa}{pixel_format.removeprefix('Mono') if pixel_format[:4] == 'Mono' else pixel_format[7:]}"


def levelled_format(
    size: tuple[int, int], pixel_format: str, levels: tuple[float, float | None], options: FootageOptions
) -> RawFormat:
    """The format of frames of (width, height), with the user's levels before those of the file (black, white). Raises
    UserError."""
    black, white = levels
    return RawFormat(
        *size,
        pixel_format,
        black if options.black_level is None else options.black_level,
        white if options.white_level is None else options.white_level,
    )
