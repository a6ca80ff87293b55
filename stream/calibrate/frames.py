"""The frames that are measured: files as `engines.raw_files` reads them, with what the command line says of them."""

from __future__ import annotations

import argparse
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.defects import neighbours
from ...engines.errors import UserError
from ...engines.flat_field import FlatField, checked_mesh, gain_map
from ...engines.raw_files import load_raw
from .file import CalibrationFile


@dataclass(frozen=True, eq=False)
class Taken:
    """What was taken for one measurement.

    Attributes:
        samples: Whole numbers [frames, height, width], DN.
        raw_format: Their format; levels from the command line, else from the calibration file, else from the frames'
            own.
        paths: Of the files.
        offset: (x, y) of the frames on the sensor in pixels; None where they do not tell.
        unknown_black: The black level is 0 only because nothing says what it is.
    """

    samples: npt.NDArray[Any]
    raw_format: RawFormat
    paths: list[Path]
    offset: tuple[int, int] | None = None
    unknown_black: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the record: which files, and how many frames."""
        return {"files": [path.name for path in self.paths], "frames": len(self.samples)}


def add_format(parser: argparse.ArgumentParser) -> None:
    """What may be said of frames that do not say it themselves."""
    group = parser.add_argument_group("what the samples are (default: what FRAME.yaml says, as isp-stream --snap does)")
    group.add_argument("--format", metavar="NAME", help="pixel format by its PFNC name, such as BayerGR8 or BayerRG12")
    group.add_argument("--width", type=int, metavar="PIXELS", help="width, for files without a header")
    group.add_argument("--height", type=int, metavar="PIXELS", help="height, for files without a header")
    group.add_argument(
        "--black",
        type=float,
        metavar="DN",
        help="black level in digital numbers, kept in the calibration file (default: that of the calibration file, "
        "else of FRAME.yaml, else 0)",
    )
    group.add_argument(
        "--white", type=float, metavar="DN", help="white level in digital numbers, likewise (default: the largest one)"
    )


def take(specs: Sequence[str], args: argparse.Namespace, file: CalibrationFile, *, mend: bool) -> Taken:
    """The frames of all files together.

    Args:
        specs: As `load_raw` takes them.
        args: With what `add_format` adds.
        file: Where levels, defects and flat field may be known from.
        mend: Whether the defects are replaced and the flat field applied, as engines do.

    Raises:
        UserError: A file cannot be read, files differ in format, levels fit no format, the frames are not Bayer frames,
            or the calibration file is of another format.
    """
    loaded = [load_raw(_with_flags(spec, args)) for spec in specs]
    first = loaded[0].raw_format
    for frames in loaded[1:]:
        if (frames.raw_format, frames.offset) != (first, loaded[0].offset):
            raise UserError(
                f"{frames.path} is not of the format of {loaded[0].path}: give frames of one format, one size and one "
                "place on the sensor"
            )
    black, white = (
        next(level for level in (flag, known, own) if level is not None)
        for flag, known, own in (
            (args.black, file.number("black_level"), first.black_level),
            (args.white, file.number("white_level"), first.white_level),
        )
    )
    fmt = RawFormat(first.width, first.height, first.pixel_format, black, white)
    if fmt.cfa == "MONO":
        raise UserError(f"{loaded[0].path} holds {fmt.pixel_format}, which has no colour filters: give Bayer frames")
    file.require_like(fmt, args.serial, loaded[0].offset)
    if fmt.width == 3:
        raise UserError(f"{loaded[0].path} holds pictures of three colours: give the mosaic, before a demosaic")
    samples = np.concatenate([frames.samples for frames in loaded])
    if mend:
        samples = flattened(mended(samples, fmt, file.defects), fmt, file.flat_field)
    unknown_black = not black and args.black is None and file.number("black_level") is None
    return Taken(samples, fmt, [frames.path for frames in loaded], loaded[0].offset, unknown_black)


def mended(samples: npt.NDArray[Any], fmt: RawFormat, defects: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
    """Samples [N, H, W] with each defect replaced by the rounded mean of its good neighbours of the same colour."""
    good = samples.copy()
    for (x, y), near in zip(defects, neighbours(defects, fmt), strict=True):
        if near:
            good[:, y, x] = np.rint(np.mean([samples[:, v, u] for u, v in near], axis=0))
    return good


def flattened(samples: npt.NDArray[Any], fmt: RawFormat, flat_field: FlatField | None) -> npt.NDArray[Any]:
    """Samples [N, H, W] times the gains of a flat field, in whole DN; those above the white level become it."""
    if flat_field is None:
        return samples
    gains = gain_map(checked_mesh(flat_field), fmt)
    even = np.empty_like(samples)
    for frame, to in zip(samples, even, strict=True):
        to[:] = np.rint((frame - fmt.black_level) * gains + fmt.black_level).clip(0, fmt.white_level)
    return even


def said_levels(args: argparse.Namespace) -> dict[str, Any]:
    """The levels that the command line says, by their names in a calibration file."""
    levels: dict[str, Any] = {"black_level": args.black, "white_level": args.white}
    return {name: level for name, level in levels.items() if level is not None}


def _with_flags(spec: str, args: argparse.Namespace) -> str:
    given = {name: getattr(args, name) for name in ("format", "width", "height")}
    query = urllib.parse.urlencode({name: value for name, value in given.items() if value is not None})
    if not query:
        return spec
    return f"{spec}{'&' if '?' in spec and not Path(spec).exists() else '?'}{query}"
