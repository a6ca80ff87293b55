"""DNG files, and what else of cameras' own raw files LibRaw reads, through the package rawpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from .cameras import srgb_from_camera
from .cfa import PHASES
from .raw_pair import Gains, Samples, one_black

SUFFIXES = (".dng",)

CAMERA_SUFFIXES = (
    *SUFFIXES,
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
"""Endings of cameras' raw files."""


class CameraRaw(NamedTuple):
    """What a raw file holds.

    Attributes:
        samples: uint16 [H, W], the visible part.
        raw_format: Of the samples; 16 bits whatever the sensor's depth, with the levels of the file.
        gains: float32 [3], the white balance that the camera noted, green 1; None where it noted none.
        srgb_from_camera: float64 [3, 3], the camera's colours after white balance to linear sRGB, with rows
            that sum to 1; not checked for anything else. None where neither the file nor LibRaw tells them.
    """

    samples: Samples
    raw_format: RawFormat
    gains: Gains | None
    srgb_from_camera: npt.NDArray[np.float64] | None


def read_camera_raw(path: Path) -> CameraRaw:
    """A raw file of a camera.

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
        raise UserError(f"{path} cannot be read as {path.suffix[1:].upper()}: {detail}") from error


def read_dng(path: Path) -> tuple[Samples, RawFormat, Gains | None]:
    """Samples, format and gains of a raw file. Errors are those of `read_camera_raw`."""
    return read_camera_raw(path)[:3]


def _read(path: Path, raw: Any) -> CameraRaw:
    cfa = _filters(path, raw)
    sites = raw.raw_colors_visible[:2, :2]
    samples = raw.raw_image_visible.copy()
    blacks = np.array(raw.black_level_per_channel)[sites]
    samples, black, white = one_black(samples, blacks, raw.white_level)
    height, width = samples.shape
    fmt = RawFormat(width, height, f"Bayer{cfa[:2]}16", black, white)
    return CameraRaw(samples, fmt, _gains(raw.camera_whitebalance), _colours(raw, path.suffix.lower() in SUFFIXES))


def _filters(path: Path, raw: Any) -> str:
    """The Bayer filter of the first four samples. Raises UserError: the sensor has none."""
    pattern = raw.raw_pattern
    if pattern is None:
        kind = "three colours at every place, as of Foveon" if raw.num_colors > 1 else "no colours"
    elif pattern.shape != (2, 2):
        kind = "X-Trans filters" if pattern.shape == (6, 6) else f"filters that repeat after {pattern.shape[0]} samples"
    else:
        colours = raw.color_desc.decode()  # RGBG: the second green has an index of its own
        cfa = "".join(colours[site] for site in raw.raw_colors_visible[:2, :2].ravel())
        if cfa in PHASES:
            return cfa
        kind = f"{cfa} filters"
    raise UserError(
        f"{path} is of a sensor without a Bayer filter, with {kind}: only Bayer mosaics can be trained on, leave it out"
    )


def _gains(multipliers: Any) -> Gains | None:
    """Gains of R, G, B, green 1; None where the file does not tell them, which LibRaw writes as zeros."""
    gains = np.array(multipliers[:3], np.float32)
    return gains / gains[1] if gains.min() > 0 and np.isfinite(gains).all() else None


def _colours(raw: Any, own: bool) -> npt.NDArray[np.float64] | None:
    """See `CameraRaw.srgb_from_camera`. A DNG tells its `own` colours; for other files LibRaw's table comes first."""
    told, table = np.array(raw.color_matrix, np.float64)[:, :3], np.array(raw.rgb_xyz_matrix, np.float64)[:3]
    if table.any() and not (own and told.any()):
        return srgb_from_camera(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        return told / told.sum(1, keepdims=True) if told.any() else None
