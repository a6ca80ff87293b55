"""Recordings of isp-stream as footage: their raw frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError
from ...engines.flat_field import checked_mesh, to_json
from ...engines.inputs import iso_of
from ..record.layout import RAW_FRAME
from ..record.reader import open_recording
from .base import About, Calibration, Footage, FootageOptions, blank_frames, levelled_format, with_cfa


class RecordedFootage(Footage):
    """A recording with raw frames. See `Footage`."""

    def __init__(self, path: Path, options: FootageOptions) -> None:
        """Raises UserError: it is none, damaged, without raw frames, or h5py is not installed."""
        self._recording = recording = open_recording(path)
        try:
            fmt = recording.raw_format
            if fmt is None or not recording.raw_count:
                has = "sRGB frames only" if recording.srgb_count else "no frames"
                raise UserError(f"{path} holds {has}: record raw frames to develop them later")
            name = with_cfa(fmt.pixel_format, options)
            raw_format = levelled_format((fmt.width, fmt.height), name, (fmt.black_level, fmt.white_level), options)
            frames = blank_frames(recording.raw_count)
            for field in RAW_FRAME.names or ():
                if field != "offset":  # where it lies in the file
                    frames[field] = recording.raw_frames[field]
            _tell_optics(frames, recording.settings)
            about = About(
                fps=_number(recording.geometry, "fps"),
                serial=recording.texts["serial"],
                model=recording.texts["model"],
                vendor=recording.texts["vendor"],
                offset=_offset(recording.geometry),
                complete=recording.complete,
                created=recording.texts["created"],
                calibration=_calibration(recording.calibration),
            )
        except BaseException:
            recording.close()
            raise
        super().__init__(path, "recording", raw_format, frames, about)

    def close(self) -> None:
        """See `Footage.close`."""
        self._recording.close()

    def _read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        self._recording.read_raw(index, out)


def _tell_optics(frames: npt.NDArray[np.void], settings: dict[str, Any]) -> None:
    """ISO, f-number and focal length as the pipeline told its engine when the frames were taken."""
    base_iso = _number(settings, "base_iso")
    if base_iso is not None:
        frames["iso"] = [iso_of(gain, base_iso) for gain in frames["gain_db"].tolist()]
    for name in ("f_number", "focal_length_mm"):
        frames[name] = _number(settings, name) or math.nan


def _calibration(said: dict[str, Any]) -> Calibration:
    """As far as it is what it should be: its values are checked where they are used."""
    gains, matrix, defects = (said.get(name) for name in ("white_balance", "colour_matrix", "defects"))
    try:
        places = tuple((int(x), int(y)) for x, y in defects or ())
        flat = said.get("flat_field")
        mesh = None if flat is None else to_json(checked_mesh(flat))
        rows = None if matrix is None else [[float(value) for value in row] for row in matrix]
        if gains is None:
            return Calibration(None, rows, places, mesh)
        red, green, blue = (float(gain) for gain in gains)
    except (TypeError, ValueError, OverflowError, UserError) as error:
        raise UserError(f"the recording's calibration is damaged: {' '.join(str(error).split())}") from error
    return Calibration((red, green, blue), rows, places, mesh)


def _offset(geometry: dict[str, Any]) -> tuple[int, int] | None:
    told = [geometry.get(name) for name in ("offset_x", "offset_y")]
    known = [pixels for pixels in told if type(pixels) is int and 0 <= pixels < 1 << 16]
    return (known[0], known[1]) if len(known) == 2 else None


def _number(values: dict[str, Any], name: str) -> float | None:
    value = values.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        return None
    return float(value)
