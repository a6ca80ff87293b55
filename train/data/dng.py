"""DNG files, and what else of cameras' own raw files LibRaw reads, through the package rawpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from .raw_pair import Gains, Samples, one_black

SUFFIXES = (".dng",)


def read_dng(path: Path) -> tuple[Samples, RawFormat, Gains | None]:
    """The visible part of a raw file: samples uint16 [H, W], their format, and the camera's gains if it noted any.

    The format has 16 bits whatever the sensor's depth; its levels are those of the file.

    Raises:
        UserError: rawpy is not installed, the file cannot be read, or the sensor has no Bayer filter.
    """
    try:
        import rawpy
    except ImportError as error:
        raise UserError(f"reading {path.name} needs the package rawpy; run: pip install rawpy") from error
    try:
        with rawpy.imread(str(path)) as raw:
            return _read(path, raw)
    except (rawpy.LibRawError, OSError) as error:
        detail = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise UserError(f"{path} cannot be read as DNG: {detail}") from error


def _read(path: Path, raw: Any) -> tuple[Samples, RawFormat, Gains | None]:
    pattern = raw.raw_pattern  # None for sensors without a mosaic; 6 x 6 for X-Trans
    if pattern is None or pattern.shape != (2, 2):
        raise UserError(f"{path} is of a sensor without a Bayer filter: only Bayer mosaics can be trained on")
    colours = raw.color_desc.decode()  # RGBG: the second green has an index of its own
    sites = raw.raw_colors_visible[:2, :2]
    cfa = "".join(colours[site] for site in sites.ravel())
    samples = raw.raw_image_visible.copy()
    blacks = np.array(raw.black_level_per_channel)[sites]
    samples, black, white = one_black(samples, blacks, raw.white_level)
    height, width = samples.shape
    fmt = RawFormat(width, height, f"Bayer{cfa[:2]}16", black, white)
    return samples, fmt, _gains(raw.camera_whitebalance)


def _gains(multipliers: Any) -> Gains | None:
    """Gains of R, G, B, green 1; None where the file does not tell them, which LibRaw writes as zeros."""
    gains = np.array(multipliers[:3], np.float32)
    return gains / gains[1] if gains.min() > 0 else None
