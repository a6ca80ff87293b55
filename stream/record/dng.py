"""Recordings as a folder of DNG files, one for each raw frame, with `frames.csv` beside them.

The tags are those of DNG 1.4 (https://helpx.adobe.com/camera-raw/digital-negative.html). They are laid out once; only
exposure and time differ between frames. Samples are 16 bit, packed formats unpacked.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Sequence
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat, unpack
from ...engines.colour import is_invertible
from ...engines.errors import UserError
from ...engines.flat_field import checked_mesh
from .hdf import Contents
from .opcodes import bad_pixels, gain_maps
from .table import CsvTable

_AT_ONCE = 8  # frames that are copied out of the ring before they are written
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _SRATIONAL = 1, 2, 3, 4, 5, 7, 10
_SIZES = {_BYTE: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _UNDEFINED: 1, _SRATIONAL: 8}
_D65 = 21  # CalibrationIlluminant
_XYZ_TO_SRGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


class DngWriter:
    """Writes one recording. Files are named by the camera's frame id, as those of `--save`.

    Args:
        folder: A folder that is not there yet.
        contents: What it is of.

    Raises:
        OSError: The folder cannot be made.
        UserError: The colour matrix cannot be inverted.
    """

    def __init__(self, folder: Path, contents: Contents) -> None:
        if contents.raw_format is None:
            raise ValueError("DNG files hold raw frames")
        self.path = folder
        self._format = contents.raw_format
        self._header = DngHeader(contents.raw_format, contents.parts.get("calibration") or {}, contents.texts)
        folder.mkdir()
        self._table = CsvTable(folder / "frames.csv")
        self._copies: list[npt.NDArray[np.uint8]] = [
            np.empty(self._format.payload_size, np.uint8) for _ in range(_AT_ONCE)
        ]
        self._first_segment: int | None = None
        self._count = self.nbytes = 0

    @property
    def counts(self) -> dict[str, int]:
        return {"raw": self._count}

    def room(self, kind: str) -> int:
        return _AT_ONCE

    def write(self, kind: str, pieces: Sequence[memoryview], rows: npt.NDArray[Any] | None = None) -> None:
        size = self._format.payload_size
        for copy, piece in zip(self._copies, pieces, strict=False):
            copy[:] = np.frombuffer(piece, np.uint8, size)

    def commit(self, kind: str, rows: npt.NDArray[Any]) -> None:
        for copy, row in zip(self._copies, rows, strict=False):
            samples = unpack(copy, self._format)
            self._write_file(self._name(row), self._header.of(row), samples)
            self._table.add(row)
            self._count += 1
            self.nbytes += samples.nbytes
        self._table.flush()

    def event(self, row: npt.NDArray[Any]) -> None:
        self._table.note(row)

    def finish(self) -> None:
        self._table.close()

    def abandon(self) -> None:
        self._table.abandon()

    def discard(self) -> None:
        self.abandon()
        shutil.rmtree(self.path, ignore_errors=True)

    def _name(self, row: Any) -> Path:
        segment = int(row["segment"])
        if self._first_segment is None:
            self._first_segment = segment
        later = "" if segment == self._first_segment else f"-{segment}"
        return self.path / f"{int(row['frame_id']):08d}{later}.dng"

    def _write_file(self, path: Path, header: bytes, samples: npt.NDArray[np.uint16]) -> None:
        part = path.with_suffix(".part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            if os.writev(fd, [header, samples.data]) != len(header) + samples.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        part.rename(path)


class DngHeader:
    """Everything of a DNG file but its samples, which follow: uint16 [height, width].

    Args:
        fmt: Of the raw frames.
        calibration: white_balance or estimated_white_balance (gains of red, green and blue), colour_matrix (camera
            RGB, balanced, to linear sRGB), defects and flat_field, each as far as it is known.
        texts: serial, model and vendor of the camera.
    """

    def __init__(self, fmt: RawFormat, calibration: dict[str, Any], texts: dict[str, str]) -> None:
        self._exposure_at = self._time_at = 0
        entries = _entries(fmt, calibration, texts)
        ifd = 8 + 2 + 12 * len(entries) + 4
        extra, table = b"", b""
        for tag, kind, value in sorted(entries):
            count = len(value) // _SIZES[kind]
            place = value.ljust(4, b"\0")
            if len(value) > 4:
                at = ifd + len(extra)
                place, extra = struct.pack("<I", at), extra + value + b"\0" * (len(value) % 2)
                self._exposure_at = at if tag == _EXPOSURE_TIME else self._exposure_at
                self._time_at = at if tag == _DATE_TIME else self._time_at
            table += struct.pack("<HHI", tag, kind, count) + place
        size = -(-(ifd + len(extra)) // 16) * 16
        table = table.replace(_OFFSET_HERE, struct.pack("<I", size))
        start = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + table + b"\0" * 4
        self._bytes = bytearray((start + extra).ljust(size, b"\0"))

    def of(self, row: Any) -> bytes:
        """The header of the frame that `row` describes (RAW_FRAME)."""
        struct.pack_into("<II", self._bytes, self._exposure_at, *_exposure(float(row["exposure_us"])))
        taken = datetime.fromtimestamp((row["grabbed_ns"] + row["realtime_offset_ns"]) * 1e-9, timezone.utc)
        struct.pack_into("19s", self._bytes, self._time_at, taken.strftime("%Y:%m:%d %H:%M:%S").encode())
        return bytes(self._bytes)


_EXPOSURE_TIME, _DATE_TIME = 33434, 306
_OFFSET_HERE = b"\xff\xfe\xfd\xfc"  # stands for where the samples begin, until that is known


def _exposure(exposure_us: float) -> tuple[int, int]:
    """Seconds as a fraction of 32 bits each; 0 where they are not known."""
    if not 0 < exposure_us < 4e9:  # nor is NaN
        return 0, 1_000_000
    exposure_ns = round(exposure_us * 1e3)
    return (exposure_ns, 1_000_000_000) if exposure_ns < 1 << 32 else (round(exposure_us), 1_000_000)


def _entries(fmt: RawFormat, calibration: dict[str, Any], texts: dict[str, str]) -> list[tuple[int, int, bytes]]:
    neutral, matrix = colours(calibration)
    model = " ".join(filter(None, (texts.get("vendor"), texts.get("model")))) or "GenICam camera"
    entries = [
        (254, _LONG, struct.pack("<I", 0)),  # NewSubfileType: the full picture
        (256, _LONG, struct.pack("<I", fmt.width)),
        (257, _LONG, struct.pack("<I", fmt.height)),
        (258, _SHORT, struct.pack("<H", 16)),  # BitsPerSample
        (259, _SHORT, struct.pack("<H", 1)),  # Compression: none
        (271, _ASCII, _text(texts.get("vendor") or "unknown")),
        (272, _ASCII, _text(texts.get("model") or "unknown")),
        (273, _LONG, _OFFSET_HERE),  # StripOffsets
        (274, _SHORT, struct.pack("<H", 1)),  # Orientation
        (277, _SHORT, struct.pack("<H", 1)),  # SamplesPerPixel
        (278, _LONG, struct.pack("<I", fmt.height)),  # RowsPerStrip
        (279, _LONG, struct.pack("<I", fmt.width * fmt.height * 2)),  # StripByteCounts
        (284, _SHORT, struct.pack("<H", 1)),  # PlanarConfiguration
        (305, _ASCII, _text("ispeed")),  # Software
        (_DATE_TIME, _ASCII, _text("0000:00:00 00:00:00")),
        (_EXPOSURE_TIME, _RATIONAL, struct.pack("<II", 0, 1_000_000)),
        (50706, _BYTE, bytes((1, 4, 0, 0))),  # DNGVersion
        (50707, _BYTE, bytes((1, 1, 0, 0))),  # DNGBackwardVersion
        (50708, _ASCII, _text(model)),  # UniqueCameraModel
        (50714, _RATIONAL, _rationals([fmt.black_level], _RATIONAL)),  # BlackLevel
        (50717, _LONG, struct.pack("<I", round(fmt.white_level))),  # WhiteLevel
        (50735, _ASCII, _text(texts.get("serial") or "unknown")),  # CameraSerialNumber
    ]
    if fmt.cfa == "MONO":
        return [*entries, (262, _SHORT, struct.pack("<H", 34892))]  # PhotometricInterpretation: LinearRaw
    return [
        *entries,
        (262, _SHORT, struct.pack("<H", 32803)),  # CFA
        (33421, _SHORT, struct.pack("<HH", 2, 2)),  # CFARepeatPatternDim
        (33422, _BYTE, bytes("RGB".index(colour) for colour in fmt.cfa)),  # CFAPattern
        (50710, _BYTE, bytes((0, 1, 2))),  # CFAPlaneColor
        (50711, _SHORT, struct.pack("<H", 1)),  # CFALayout
        (50721, _SRATIONAL, _rationals(matrix.ravel().tolist(), _SRATIONAL)),  # ColorMatrix1
        (50728, _RATIONAL, _rationals(neutral.tolist(), _RATIONAL)),  # AsShotNeutral
        (50778, _SHORT, struct.pack("<H", _D65)),  # CalibrationIlluminant1
        *_opcodes(fmt, calibration),
    ]


def _opcodes(fmt: RawFormat, calibration: dict[str, Any]) -> list[tuple[int, int, bytes]]:
    entries = []
    if defects := calibration.get("defects"):
        entries.append((51008, _UNDEFINED, bad_pixels(defects, fmt)))  # OpcodeList1: of the samples as they are
    if flat_field := calibration.get("flat_field"):
        entries.append((51009, _UNDEFINED, gain_maps(checked_mesh(flat_field), fmt)))  # OpcodeList2: of the light
    return entries


def colours(calibration: dict[str, Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """AsShotNeutral [3] and ColorMatrix1 [3, 3] (XYZ to camera RGB) of our white balance and colour matrix.

    Balanced camera RGB times the colour matrix is linear sRGB, whose white is D65. So the camera sees the white as the
    inverse of its gains, and XYZ as sRGB, taken back through the colour matrix and the gains.

    Raises UserError for a colour matrix that cannot be inverted.
    """
    given = calibration.get("white_balance") or calibration.get("estimated_white_balance")
    gains = np.asarray(given or (1, 1, 1), np.float64)
    matrix = calibration.get("colour_matrix")
    forward = np.eye(3) if matrix is None else np.asarray(matrix, np.float64)
    if not is_invertible(forward):
        raise UserError(
            "the colour matrix cannot be inverted, and a DNG holds its inverse: give the camera's own, from camera RGB "
            "to linear sRGB, or record h5"
        )
    inverse = np.linalg.inv(forward)
    neutral = 1 / gains
    return neutral / neutral.max(), (inverse @ _XYZ_TO_SRGB) / gains[:, None] * gains.min()


def _text(text: str) -> bytes:
    return text.encode("ascii", "replace") + b"\0"


def _rationals(values: list[float], kind: int) -> bytes:
    fractions = (Fraction(value).limit_denominator(10_000) for value in values)
    return b"".join(struct.pack("<II" if kind == _RATIONAL else "<ii", f.numerator, f.denominator) for f in fractions)
