"""Phantom's .cine: Bayer mosaics of 8 to 16 bits, unpacked, or packed as P10 and P12L.

After the file's header lie a Windows bitmap header and SETUP, the camera's settings, which grew with every version of
the vendor's software; then tagged blocks with what is known of each frame, a table of where the frames are, and the
frames. Unpacked frames begin with the lowest row, as bitmaps do. The filter array is that of the upright picture. Flips
that the vendor's viewer was asked for are not applied.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError
from ...engines.white_balance import HIGHEST_GAIN, LOWEST_GAIN
from .base import (
    About,
    ByteFile,
    Calibration,
    Footage,
    FootageOptions,
    blank_frames,
    levelled_format,
    mosaic_format,
)
from .repack import light_of_p10, repack_12, samples_10

_FILE = struct.Struct("<2sHHHiIiIIIIII")
_BITMAP = struct.Struct("<IiiHHIIiiII")
_BLOCK = struct.Struct("<IHH")
_MOST_FRAMES = 1 << 26
_MOST_BLOCKS = 64
_UNPACKED, _P10, _P12L = 0, 0x100, 0x400  # biCompression
_MOSAIC = 2  # Compression of the file: frames as the sensor has them
_CFA = {0: "", 3: "GB", 4: "RG", 5: "GR", 6: "BG"}  # 1 and 2, of old cameras, have two meanings each
_TIMES, _EXPOSURES = 1002, 1003

# Where fields of SETUP lie, in bytes. A shorter SETUP, of an older version, ends before some of them.
_MARK, _FRAME_RATE_16, _SERIAL, _FRAME_RATE, _CAMERA_VERSION = 140, 0, 743, 768, 792
_FILTERS, _WHITE_BALANCE, _REAL_BPP, _SHUTTER_NS = 808, 852, 896, 1568
_UNBALANCED, _BLACK, _WHITE, _APERTURE, _FOCAL_LENGTH = 5724, 5732, 5736, 5996, 6004


class _Setup:
    """The camera's settings, as far as this version of them goes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def get(self, code: str, offset: int) -> float:
        """A number of that struct code; 0 where SETUP ends before it."""
        if offset + struct.calcsize(code) > len(self._data):
            return 0
        return struct.unpack_from("<" + code, self._data, offset)[0]


@dataclass(frozen=True)
class _Header:
    """What the fixed headers say, checked: sizes in pixels, offsets in bytes."""

    width: int
    height: int
    bits: int
    packing: int
    compression: int
    first: int
    count: int
    blocks_at: int
    offsets_at: int
    setup: _Setup


class CineFootage(Footage):
    """A .cine file. See `Footage`."""

    def __init__(self, path: Path, options: FootageOptions) -> None:
        """Raises UserError: it is none, damaged, or of a kind that is not developed."""
        self._file = ByteFile(path)
        try:
            head = _read_header(self._file)
            setup = head.setup
            self._packing, size = head.packing, (head.width, head.height)
            name, levels = _layout(path, head, options)
            raw_format = levelled_format(size, name, levels, options)
            self._in_file = head.width * head.height * {_P10: 10, _P12L: 12}.get(head.packing, head.bits) // 8
            self._rows = head.height
            self._offsets, cut_off = self._table(head)
            frames = blank_frames(len(self._offsets))
            frames["frame_id"] += max(0, head.first)
            exposure_ns = setup.get("I", _SHUTTER_NS)
            if exposure_ns:
                frames["exposure_us"] = exposure_ns / 1e3
            for field, offset in (("f_number", _APERTURE), ("focal_length_mm", _FOCAL_LENGTH)):
                number = setup.get("f", offset)
                if 0.5 <= number <= 5000:
                    frames[field] = number
            self._read_blocks(head, frames)
        except BaseException:
            self._file.close()
            raise
        self._light = light_of_p10() if head.packing == _P10 else None
        self._bytes = np.empty(self._in_file, np.uint8)
        super().__init__(path, "cine", raw_format, frames, _about(setup, cut_off))

    def close(self) -> None:
        """See `Footage.close`."""
        self._file.close()

    def _read(self, index: int, out: npt.NDArray[np.uint8]) -> None:
        what, place = f"frame {index}", self._place(index)
        self._file.read_into(place, self._bytes, what)
        if self._light is not None:
            np.take(self._light, samples_10(self._bytes), out=out.view("<u2"))
        elif self._packing == _P12L:
            repack_12(self._bytes, out)
        else:
            out.reshape(self._rows, -1)[:] = self._bytes.reshape(self._rows, -1)[::-1]

    def _place(self, index: int) -> int:
        """Where a frame's pixels begin: behind an annotation, whose size counts itself and the pixels' size."""
        at = int(self._offsets[index])
        annotation = int.from_bytes(self._file.read(at, 4), "little")
        size = int.from_bytes(self._file.read(at + annotation - 4, 4), "little")
        if annotation < 8 or size != self._in_file:
            raise UserError(
                f"frame {index} of {self._file.path} is damaged: to develop the others, leave it out by --first and "
                "--last of isp-develop"
            )
        return at + annotation

    def _table(self, head: _Header) -> tuple[npt.NDArray[np.int64], int]:
        """Where the frames are, as far as all before are whole too, and how many are not."""
        path, size = self._file.path, self._file.size
        most = size // self._in_file  # more do not fit, whatever the header says
        table = self._file.read(head.offsets_at, 8 * min(head.count, most))
        offsets = np.frombuffer(table[: len(table) // 8 * 8], "<i8")
        whole = (offsets >= _FILE.size) & (offsets <= size - self._in_file - 8)
        count = len(whole) if whole.all() else int(np.argmin(whole))
        if not count:
            raise UserError(f"{path} holds no whole frame: it is cut off or damaged; copy it again")
        return offsets[:count], head.count - count

    def _read_blocks(self, head: _Header, frames: npt.NDArray[np.void]) -> None:
        """Times and exposures of the frames, where the file has them."""
        at, count = head.blocks_at, len(frames)
        for _ in range(_MOST_BLOCKS):
            block = self._file.read(at, _BLOCK.size)
            if at + _BLOCK.size > head.offsets_at or len(block) < _BLOCK.size:
                return
            size, tag, _ = _BLOCK.unpack(block)
            if size < _BLOCK.size or at + size > head.offsets_at:
                return
            if tag == _TIMES and size >= _BLOCK.size + 8 * count:
                times = np.frombuffer(self._file.read(at + _BLOCK.size, 8 * count), "<u4").reshape(-1, 2)
                # seconds since 1970 and fractions of 2^-32 s, whose last two bits say other things
                fractions = (times[:, 0] & ~np.uint32(3)).astype(np.uint64)
                frames["device_timestamp"] = times[:, 1].astype(np.uint64) * 10**9 + (fractions * 10**9 >> 32)
            elif tag == _EXPOSURES and size >= _BLOCK.size + 4 * count:
                exposures = np.frombuffer(self._file.read(at + _BLOCK.size, 4 * count), "<u4")
                frames["exposure_us"] = np.where(exposures > 0, exposures * (1e6 / 2**32), np.nan)
            at += size


def _read_header(file: ByteFile) -> _Header:
    path = file.path
    data = file.read(0, _FILE.size)
    if len(data) < _FILE.size or data[:2] != b"CI":
        raise UserError(f"{path} is no .cine file, or is cut off: it does not begin like one")
    _, size, compression, _, _, _, first, count, bitmap_at, setup_at, offsets_at, _, _ = _FILE.unpack(data)
    bitmap = file.read(bitmap_at, _BITMAP.size)
    setup = file.read(setup_at, 1 << 16)
    length = int.from_bytes(setup[_MARK + 2 : _MARK + 4], "little")
    if size < _FILE.size or len(bitmap) < _BITMAP.size or setup[_MARK : _MARK + 2] != b"ST" or len(setup) < length:
        raise UserError(f"{path} is damaged or cut off: the settings of its camera are not where its header says")
    if length < _REAL_BPP + 4:
        raise UserError(f"{path} is of before 2003, and says too little of its frames: convert it with a newer viewer")
    _, width, height, planes, bits, packing, _, _, _, _, _ = _BITMAP.unpack(bitmap)
    if planes != 1 or not 2 <= width <= 65535 or not 2 <= height <= 65535 or not 1 <= count <= _MOST_FRAMES:
        raise UserError(f"{path} is damaged: it says {count} frames of {width}x{height} pixels in {planes} planes")
    return _Header(
        *(width, height, bits, packing, compression, first, count),
        blocks_at=setup_at + length,
        offsets_at=offsets_at,
        setup=_Setup(setup[:length]),
    )


def _layout(path: Path, head: _Header, options: FootageOptions) -> tuple[str, tuple[float, float | None]]:
    """Pixel format and levels of frames as they are read."""
    setup, bits = head.setup, head.bits
    if bits not in (8, 16) or head.compression not in (0, _MOSAIC) or head.packing not in (_UNPACKED, _P10, _P12L):
        raise UserError(
            f"{path} holds pictures of {bits} bits with compression {head.compression} and {head.packing:#x}, and what "
            "is developed are mosaics: save it as a raw .cine, unpacked, or packed as 10 or 12 bits"
        )
    filters = int(setup.get("I", _FILTERS)) & 0xFF
    cfa = "" if head.compression == 0 else _CFA.get(filters)
    if head.packing == _P10:
        if head.width * head.height % 4:
            raise UserError(f"{path} is damaged: {head.width}x{head.height} pixels are not packed in 10 bits")
        return mosaic_format(path, 12, cfa, options), (64, 4064)
    real = int(setup.get("I", _REAL_BPP)) or bits
    if not 8 <= real <= (16 if head.packing else bits):
        raise UserError(f"{path} is damaged: it says {real} significant bits in {bits}")
    white = setup.get("i", _WHITE)
    black = setup.get("i", _BLACK)
    if not 0 <= black < white < 1 << real:  # older versions do not tell them, which reads as 0
        black, white = 0, (1 << real) - 1
    if head.packing == _P12L:
        if head.width % 2:
            raise UserError(f"{path} is damaged: rows of {head.width} pixels are not packed in 12 bits")
        return mosaic_format(path, 12, cfa, options, "p"), (black, min(white, 4095))
    depth = 8 if bits == 8 else next(depth for depth in (10, 12, 16) if real <= depth)
    return mosaic_format(path, depth, cfa, options), (black, white)


def _about(setup: _Setup, cut_off: int) -> About:
    rate = setup.get("I", _FRAME_RATE) or setup.get("H", _FRAME_RATE_16)
    version, serial = int(setup.get("I", _CAMERA_VERSION)), int(setup.get("I", _SERIAL))
    red, blue = setup.get("f", _WHITE_BALANCE), setup.get("f", _WHITE_BALANCE + 4)
    gains = None
    # The camera's gains are of use only where the pixels are without them; where both are 1 nobody set them.
    usable = all(LOWEST_GAIN <= gain <= HIGHEST_GAIN for gain in (red, blue))
    if setup.get("i", _UNBALANCED) and (red, blue) != (1, 1) and usable:
        gains = (float(red), 1.0, float(blue))
    return About(
        fps=float(rate) or None,
        serial=str(serial) if serial else "",
        model=f"Phantom (version {version})" if version else "Phantom",
        cut_off=cut_off,
        calibration=Calibration(white_balance=gains),
    )
