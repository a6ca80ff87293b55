"""The calibration file: a config of isp-stream that measurement after measurement adds to."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import yaml

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ...engines.files import write_whole
from ...engines.flat_field import FlatField
from ..config import Measured, make_config, read_yaml

_SAME_BLACK = 0.5  # DN
_HEADER = "# Written by isp-calibrate; isp-stream --config reads it.\n"


class CalibrationFile:
    """What stands in a file, or will.

    Keys that no measurement knows are kept; comments are not.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file where there is one.

        Raises:
            UserError: It is no config of isp-stream, or there is no folder that it can be written in.
        """
        self.path = path
        if path.is_dir() or not path.parent.is_dir():
            why = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise UserError(f"the calibration cannot be written to {path}: {why}; name a file by -o")
        self._values: dict[str, Any] = read_yaml(path) if path.exists() else {}
        try:  # nothing is added to what isp-stream would refuse
            config = make_config(self._values)
        except UserError as error:
            raise UserError(f"{path} is no config of isp-stream: {error}") from error
        self._measured = config.measured or Measured()

    def number(self, name: str) -> float | None:
        """A level that stands in it, in DN."""
        value = self._values.get(name)
        return None if value is None else float(value)

    @property
    def defects(self) -> list[tuple[int, int]]:
        """(x, y) of the defect pixels that stand in it."""
        return [(int(x), int(y)) for x, y in self._values.get("defects") or []]

    @property
    def flat_field(self) -> FlatField | None:
        """The flat field that stands in it, None without one."""
        return self._values.get("flat_field")

    def require_like(self, fmt: RawFormat, serial: str | None, offset: tuple[int, int] | None) -> None:
        """Raises UserError where what stands in it was measured on frames of another format or place on the sensor, or
        another camera."""
        try:
            self._measured.require_like(fmt, serial, offset)
        except UserError as error:
            raise UserError(f"{self.path}: {error}; name another file by -o") from error

    def of_other_black(self, black_level: float) -> list[str]:
        """Which of flat, grey and colour were measured with another black level than this, by half a DN or more."""
        records = {kind: getattr(self._measured, kind) or {} for kind in ("flat", "grey", "colour")}
        return [
            kind
            for kind, record in records.items()
            if isinstance(was := record.get("black_level"), (int, float)) and abs(was - black_level) >= _SAME_BLACK
        ]

    def add(
        self,
        kind: str,
        fmt: RawFormat,
        values: dict[str, Any],
        record: dict[str, Any],
        serial: str | None = None,
        offset: tuple[int, int] | None = None,
    ) -> None:
        """Take in a measurement, and write the file, whole or not at all.

        Args:
            kind: colour, dark, flat or grey.
            fmt: Of the frames.
            values: Settings of isp-stream.
            record: What was measured, in JSON values.
            serial: Of the camera, where it is known.
            offset: (x, y) of the frames on the sensor, likewise.

        Raises:
            UserError: It cannot be written.
        """
        measured = self._measured.model_dump(exclude_none=True)
        measured["pixel_format"] = fmt.pixel_format
        if {"defects", "flat_field"} & set(values):
            measured |= {"width": fmt.width, "height": fmt.height}
            measured |= {} if offset is None else {"offset_x": offset[0], "offset_y": offset[1]}
        if serial is not None:
            measured["serial"] = serial
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        measured[kind] = {"date": now, **record}
        self._values |= values
        self._values.pop("measured", None)
        self._values["measured"] = measured  # last
        make_config(self._values)
        text = yaml.safe_dump(self._values, sort_keys=False, default_flow_style=None, width=110)
        write_whole(self.path, (_HEADER + text).encode(), "the calibration")
