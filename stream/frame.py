"""FrameHeader: the one place that knows the bytes that describe a frame on the wire and in the sRGB ring.

256 bytes, little-endian, fixed. `docs/wire.md` describes the same layout for readers in other languages. Fields may be
added in the reserved bytes without a new version; any other change bumps `VERSION`. Imports nothing outside the
standard library, because every subscriber loads it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"ISPF"
VERSION = 1
HEADER_SIZE = 256
TOPIC_SIZE = 8

#: Why a frame was not published, in the order of the header's counters.
LOSS_REASONS = (
    "camera_gap",  # an id that the camera or the transport never delivered
    "incomplete",  # delivered, but with bytes missing
    "no_free_buffer",  # the producer had no queued buffer to put it in
    "superseded",  # dropped by the queue policy: the ring was full, or a newer frame came
    "engine_error",  # the engine refused or failed on it
    "stage_died",  # held by a stage process that ended before it was done
    "stopped",  # still waiting when the run was ended
)

FLAG_EXPOSURE_FROM_CHUNK = 1 << 0
FLAG_GAIN_FROM_CHUNK = 1 << 1
FLAG_WHITE_BALANCE_GIVEN = 1 << 2  # the gains were given, not estimated from the frames
FLAG_DEVICE_CLOCK_IS_HOST = 1 << 3  # device_timestamp is CLOCK_MONOTONIC of this host, in ns
FLAG_LINE_STATUS = 1 << 4  # bits 16 to 31 are the camera's lines 0 to 15 as they were for the frame (LineStatusAll)
LINE_STATUS_SHIFT = 16

DTYPE_UINT8 = 1
COLOUR_SRGB = 1

_FIELDS = (
    ("magic", "4s"),
    ("version", "H"),
    ("size", "H"),
    ("stream_id", "Q"),
    ("camera", "I"),
    ("flags", "I"),
    ("slot", "I"),
    ("segment", "I"),
    ("generation", "Q"),
    ("sequence", "Q"),
    ("frame_id", "Q"),
    ("device_timestamp", "Q"),
    ("grabbed_ns", "q"),
    ("develop_start_ns", "q"),
    ("developed_ns", "q"),
    ("published_ns", "q"),
    ("realtime_offset_ns", "q"),
    ("width", "I"),
    ("height", "I"),
    ("stride", "I"),
    ("offset_x", "I"),
    ("offset_y", "I"),
    ("pixel_format", "I"),
    ("channels", "B"),
    ("dtype", "B"),
    ("colour", "B"),
    ("bits", "B"),
    ("engine_id", "I"),
    ("exposure_us", "d"),
    ("gain_db", "d"),
    ("wb_r", "f"),
    ("wb_g", "f"),
    ("wb_b", "f"),
    ("black_level", "f"),
    ("white_level", "f"),
    ("_pad", "4s"),
    ("lost_camera_gap", "Q"),
    ("lost_incomplete", "Q"),
    ("lost_no_free_buffer", "Q"),
    ("lost_superseded", "Q"),
    ("lost_engine_error", "Q"),
    ("lost_stage_died", "Q"),
    ("lost_stopped", "Q"),
    ("_reserved", "24s"),
)
_STRUCT = struct.Struct("<" + "".join(code for _, code in _FIELDS))
_PUBLISHED = struct.Struct("<q")


def _offsets() -> dict[str, int]:
    offsets, at = {}, 0
    for name, code in _FIELDS:
        offsets[name] = at
        at += struct.calcsize("<" + code)
    return offsets


#: Byte offset of every field, for `docs/wire.md`, its test, and writers that patch one field.
OFFSETS = _offsets()
FIELD_CODES = dict(_FIELDS)


class HeaderError(ValueError):
    """Bytes that are not a frame header of a version that this library reads."""


class FrameHeader(NamedTuple):
    """One frame's description. Times are ns; `*_ns` are CLOCK_MONOTONIC of the capturing host.

    `generation` is the even number that the frame's slot must still hold for its pixels to be this frame's. `sequence`
    counts published frames from 0 without gaps; `frame_id` is the camera's own, unwrapped to 64 bits.
    `device_timestamp` is the camera's clock, raw; it is CLOCK_MONOTONIC only with FLAG_DEVICE_CLOCK_IS_HOST.
    `exposure_us` (microseconds) and `gain_db` (decibels) are NaN where the camera tells neither by chunk nor by node.
    `black_level` and `white_level` are digital numbers of `pixel_format` (a PFNC code). `lost_*` are totals since the
    stream began.
    """

    magic: bytes = MAGIC
    version: int = VERSION
    size: int = HEADER_SIZE
    stream_id: int = 0
    camera: int = 0
    flags: int = 0
    slot: int = 0
    segment: int = 0
    generation: int = 0
    sequence: int = 0
    frame_id: int = 0
    device_timestamp: int = 0
    grabbed_ns: int = 0
    develop_start_ns: int = 0
    developed_ns: int = 0
    published_ns: int = 0
    realtime_offset_ns: int = 0
    width: int = 0
    height: int = 0
    stride: int = 0
    offset_x: int = 0
    offset_y: int = 0
    pixel_format: int = 0
    channels: int = 3
    dtype: int = DTYPE_UINT8
    colour: int = COLOUR_SRGB
    bits: int = 8
    engine_id: int = 0
    exposure_us: float = float("nan")
    gain_db: float = float("nan")
    wb_r: float = 1.0
    wb_g: float = 1.0
    wb_b: float = 1.0
    black_level: float = 0.0
    white_level: float = 0.0
    pad_: bytes = b""
    lost_camera_gap: int = 0
    lost_incomplete: int = 0
    lost_no_free_buffer: int = 0
    lost_superseded: int = 0
    lost_engine_error: int = 0
    lost_stage_died: int = 0
    lost_stopped: int = 0
    reserved_: bytes = b""

    def pack(self) -> bytes:
        """The 256 bytes of this header."""
        return _STRUCT.pack(*self)

    def pack_into(self, buffer, offset: int = 0) -> None:
        """Writes the 256 bytes into a writable buffer at `offset`."""
        _STRUCT.pack_into(buffer, offset, *self)

    @classmethod
    def unpack(cls, buffer, offset: int = 0) -> FrameHeader:
        """Reads a header from `buffer` at `offset`.

        Raises HeaderError when the bytes are too few, carry another magic or version, or describe a frame that cannot
        be (a stride shorter than a row, no pixels), so that a hostile message never reaches an array.
        """
        if len(buffer) - offset < HEADER_SIZE:
            raise HeaderError(f"a frame header has {HEADER_SIZE} bytes, this message has {len(buffer) - offset}")
        header = cls._make(_STRUCT.unpack_from(buffer, offset))
        if header.magic != MAGIC or header.size != HEADER_SIZE:
            raise HeaderError("the message is no ispeed frame header (wrong magic)")
        if header.version != VERSION:
            raise HeaderError(f"the stream has header version {header.version}, this library reads {VERSION}")
        if header.dtype != DTYPE_UINT8 or header.colour != COLOUR_SRGB or header.channels != 3:
            raise HeaderError("the stream's pixels are not 8-bit sRGB with three channels")
        if not 0 < header.width <= 65535 or not 0 < header.height <= 65535 or header.stride < header.width * 3:
            raise HeaderError(f"impossible frame size {header.width}x{header.height}, stride {header.stride}")
        return header

    @property
    def losses(self) -> dict[str, int]:
        """Frames lost since the stream began, by reason."""
        return {reason: getattr(self, "lost_" + reason) for reason in LOSS_REASONS}

    @property
    def nbytes(self) -> int:
        """Bytes of the frame's pixels, rows of `stride` bytes."""
        return self.stride * self.height


def line_flags(lines: int) -> int:
    """The bits of `flags` for the levels of a camera's lines, one bit each; -1 is not known."""
    return 0 if lines < 0 else FLAG_LINE_STATUS | (lines & 0xFFFF) << LINE_STATUS_SHIFT


def patch_published(buffer, offset: int, published_ns: int) -> None:
    """Sets only `published_ns` in a packed header (the publisher stamps it, all else is the developer's)."""
    _PUBLISHED.pack_into(buffer, offset + OFFSETS["published_ns"], published_ns)


def topic(kind: str, camera: int) -> bytes:
    """The 8-byte, NUL-padded topic of `kind` ("i" stream info, "d" descriptors, "p" pixels, "s" status) of a camera.

    Fixed width, so that a subscription to camera 1 does not match camera 10.
    """
    return f"{kind}/{camera}".encode().ljust(TOPIC_SIZE, b"\0")


class FrameRecord(NamedTuple):
    """What grab hands to develop with a raw slot: 64 bytes in the ring's grant queue.

    `size` is the number of payload bytes filled; `exposure_us` and `gain_db` are NaN where unknown; `grant` numbers the
    hand-overs from 0.
    """

    slot: int
    flags: int
    frame_id: int
    device_timestamp: int
    grabbed_ns: int
    segment: int
    size: int
    exposure_us: float
    gain_db: float
    grant: int


RECORD_SIZE = 64
_RECORD = struct.Struct("<IIQQqIIddQ")


def pack_record(buffer, offset: int, record: FrameRecord) -> None:
    """Writes `record` (64 bytes) into `buffer` at `offset`."""
    _RECORD.pack_into(buffer, offset, *record)


def unpack_record(buffer, offset: int) -> FrameRecord:
    """Reads a record from `buffer` at `offset`."""
    return FrameRecord._make(_RECORD.unpack_from(buffer, offset))


if _STRUCT.size != HEADER_SIZE or _RECORD.size != RECORD_SIZE:  # a slip of the layout must not reach a wire
    raise RuntimeError(f"frame header {_STRUCT.size}, record {_RECORD.size}: the layout no longer fits its size")
