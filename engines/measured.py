"""What a calibration was measured on, and whether it holds for other frames."""

from __future__ import annotations

from typing import Any

from .bayer import RawFormat
from .errors import UserError
from .settings import Settings


class Measured(Settings):
    """What isp-calibrate measured of a camera, and on which frames."""

    serial: str | None = None
    """serial number of the camera; null is not known"""
    pixel_format: str | None = None
    """pixel format of the frames; levels hold for its depth"""
    width: int | None = None
    """width in pixels that defects and flat field were measured at; null where they were not"""
    height: int | None = None
    """height in pixels, likewise"""
    offset_x: int | None = None
    """OffsetX in pixels of these frames on the sensor; null is not known"""
    offset_y: int | None = None
    """OffsetY, likewise"""
    colour: dict[str, Any] | None = None
    """by isp-calibrate colour"""
    dark: dict[str, Any] | None = None
    """by isp-calibrate dark"""
    flat: dict[str, Any] | None = None
    """by isp-calibrate flat"""
    grey: dict[str, Any] | None = None
    """by isp-calibrate grey"""

    def require_like(self, fmt: RawFormat, serial: str | None = None, offset: tuple[int, int] | None = None) -> None:
        """Sees that it holds for frames of this format.

        Args:
            fmt: Of the frames.
            serial: Of the camera that they are of; None is not known.
            offset: (x, y) of the frames on the sensor in pixels, likewise.

        Raises:
            UserError: It does not.
        """
        if serial and self.serial and serial != self.serial:
            raise UserError(f"the calibration is of camera {self.serial}, and this is {serial}")
        if self.pixel_format and _depth(self.pixel_format) != fmt.depth:
            raise UserError(f"the calibration is of {self.pixel_format}, whose levels {fmt.pixel_format} has not")
        if self.width and (self.width, self.height) != (fmt.width, fmt.height):
            raise UserError(
                f"the calibration is of {self.width}x{self.height} pixels, whose defects and flat field are "
                f"elsewhere in {fmt.width}x{fmt.height}"
            )
        there = (self.offset_x, self.offset_y)
        if self.width and offset is not None and None not in there and there != offset:
            raise UserError(
                f"the calibration is of frames at {there[0]}, {there[1]} on the sensor, whose defects and flat field "
                f"are elsewhere in those at {offset[0]}, {offset[1]}"
            )


def _depth(pixel_format: str) -> int:
    return RawFormat(4 * 2, 2, pixel_format).depth
