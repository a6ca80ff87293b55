"""What a subscriber knows of a stream: its info, its ring mapped read-only, and one frame of it.

Nothing that comes from a publisher is trusted: every number is checked against what the mapped file really holds.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import struct
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt

from ..engines.errors import Sentence
from .endpoint import boot_id
from .frame import HEADER_SIZE, TOPIC_SIZE, VERSION, FrameHeader, HeaderError
from .ring import KINDS, RING_MAGIC, RING_VERSION

INFO_MAX = 4096
_RING_HEADER = struct.Struct("<8sII9Q")
_F_GET_SEALS, _F_SEAL_SHRINK = 1034, 0x0002  # the fcntl module has them since Python 3.12 only
_MOST_SLOTS = 1 << 16


class StreamError(Sentence):
    """What came is no ispeed stream that this library reads, or the stream cannot be read the way that was asked."""


class StreamTimeout(TimeoutError):
    """No frame came in time."""


class FrameOverwritten(Exception):
    """The slot of the frame holds a newer one: what was read from it may be torn."""


@dataclass(frozen=True)
class StreamInfo:
    """What a publisher says about its stream. Offsets and sizes are bytes in the ring's file.

    `ring_fd` is a descriptor of process `pid`, or `ring_path` a file; `fps` is 0 where the camera has no rate of its
    own. `clock` says what device time stamps are of: "host" (CLOCK_MONOTONIC of the capturing machine), "ptp" (PTP, in
    ns), or empty (the camera's own clock). `width`, `height` (pixels) and `stride` (bytes per row) are those of the
    sRGB frames.
    """

    version: int
    camera: int
    stream_id: str
    boot_id: str
    pid: int
    slots: int
    slot_stride: int
    payload: int
    data_offset: int
    generations_offset: int
    total: int
    width: int
    height: int
    stride: int
    ring_fd: int = -1
    ring_path: str = ""
    headers_offset: int = 0
    engine: str = ""
    fps: float = 0.0
    serial: str = ""
    clock: str = ""

    @classmethod
    def parse(cls, data: bytes) -> StreamInfo:
        """Reads the JSON of an info message. Raises StreamError."""
        if len(data) > INFO_MAX:
            raise StreamError(f"the stream info has {len(data)} bytes, at most {INFO_MAX} are allowed")
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise StreamError("the stream info is no JSON") from error
        if not isinstance(values, dict):
            raise StreamError("the stream info is no JSON object")
        if values.get("version") != VERSION:
            raise StreamError(f"the stream has version {values.get('version')!r}, this library reads {VERSION}")
        return cls(**{field.name: _value(values, field.name) for field in fields(cls) if _wanted(values, field)})

    @property
    def stream_number(self) -> int:
        """The stream id as in frame headers."""
        return int(self.stream_id, 16)


_TYPES = get_type_hints(StreamInfo)
_OPTIONAL = ("ring_fd", "ring_path", "headers_offset", "engine", "fps", "serial", "clock")


def _wanted(values: dict[str, Any], field: Any) -> bool:
    return field.name in values or field.name not in _OPTIONAL


def _value(values: dict[str, Any], name: str) -> Any:
    kind = _TYPES[name]
    value: Any = values.get(name)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 1 << 53 else value
    if type(value) is not kind or (kind is int and not -1 <= value < 1 << 62):
        raise StreamError(f"the stream info has no valid {name!r}")
    if name == "stream_id" and not (len(value) == 16 and set(value) <= set("0123456789abcdef")):
        raise StreamError("the stream info's stream_id is not 16 hex digits")
    return value


class Frame:
    """One frame. Made by a Subscriber.

    Attributes:
        array: uint8 [height, width, 3], sRGB, read-only: a live view of shared memory where the publisher is on the
            same machine. It is this frame only as long as `check()` does not raise.
        header: Everything known about it, see FrameHeader.
    """

    __slots__ = ("_generations", "array", "header")

    def __init__(
        self, header: FrameHeader, array: npt.NDArray[np.uint8], generations: memoryview | None = None
    ) -> None:
        self.header, self.array, self._generations = header, array, generations

    @property
    def overwritten(self) -> bool:
        """Whether a newer frame took the place of this one in shared memory."""
        return self._generations is not None and self._generations[self.header.slot] != self.header.generation

    def check(self) -> None:
        """Raises FrameOverwritten when what was read from `array` so far may not be this frame."""
        if self.overwritten:
            raise FrameOverwritten(
                f"frame {self.header.frame_id} was overwritten while it was read: read faster, copy it first, or give "
                "isp-stream more --slots"
            )

    def copy(self, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """A private, writable copy, uint8 [height, width, 3], into `out` where given. Raises FrameOverwritten."""
        self.check()
        if out is None:
            out = np.empty(self.array.shape, np.uint8)
        np.copyto(out, self.array)
        self.check()
        return out

    def __enter__(self) -> npt.NDArray[np.uint8]:
        return self.array

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:  # an error of the user's own says more than that its frame is gone by now
            self.check()

    def __repr__(self) -> str:
        h = self.header
        return f"<Frame {h.frame_id} of camera {h.camera}, sequence {h.sequence}, {h.width}x{h.height}>"

    @property
    def camera(self) -> int:
        """Index of the camera."""
        return self.header.camera

    @property
    def frame_id(self) -> int:
        """The camera's number of this frame, unwrapped to 64 bits."""
        return self.header.frame_id

    @property
    def sequence(self) -> int:
        """Our number of this frame: published frames from 0, without gaps."""
        return self.header.sequence

    @property
    def segment(self) -> int:
        """Which acquisition it belongs to; a new one begins when the camera was lost and came back."""
        return self.header.segment

    @property
    def exposure_us(self) -> float:
        """Exposure time in microseconds, NaN where unknown."""
        return self.header.exposure_us

    @property
    def gain_db(self) -> float:
        """Gain in decibels, NaN where unknown."""
        return self.header.gain_db

    @property
    def white_balance(self) -> tuple[float, float, float]:
        """Gains of red, green and blue that were applied."""
        return self.header.wb_r, self.header.wb_g, self.header.wb_b

    @property
    def device_timestamp(self) -> int:
        """The camera's clock, raw."""
        return self.header.device_timestamp

    @property
    def grabbed_ns(self) -> int:
        """When the frame reached the capturing host, its CLOCK_MONOTONIC in ns (`time.monotonic_ns()` there)."""
        return self.header.grabbed_ns

    @property
    def published_ns(self) -> int:
        """When it was published, on the same clock."""
        return self.header.published_ns

    @property
    def time_ns(self) -> int:
        """When the frame reached the capturing host, in ns since 1970 (`time.time_ns()` there)."""
        return self.header.grabbed_ns + self.header.realtime_offset_ns

    @property
    def losses(self) -> dict[str, int]:
        """Frames that the capturing host lost since the stream began, by reason."""
        return self.header.losses


class MappedRing:
    """A publisher's sRGB ring, mapped read-only. Raises StreamError when that cannot be.

    There is no `close`: the memory goes with the last array that looks into it.
    """

    def __init__(self, info: StreamInfo) -> None:
        if info.boot_id != boot_id():
            raise StreamError("the stream comes from another machine")
        fd = _open_path(info.ring_path) if info.ring_path else _open_fd(info.pid, info.ring_fd)
        try:
            _require_layout(fd, info)
            # Populated, so that no frame pays for a page fault. The map keeps a descriptor of its own.
            populate = getattr(mmap, "MAP_POPULATE", 0)
            self._map = mmap.mmap(fd, info.total, mmap.MAP_SHARED | populate, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise StreamError(f"the stream's shared memory cannot be mapped: {error}") from error
        finally:
            os.close(fd)
        self._info = info
        self._generations = memoryview(self._map)[info.generations_offset :][: 8 * info.slots].cast("Q")

    def newest(self) -> Frame | None:
        """The newest published frame, found in the memory alone; None before the first.

        For those who look now and then, and need no message for each frame. Raises StreamError.
        """
        info = self._info
        if not info.headers_offset:
            raise StreamError("the stream info does not say where the headers of its frames are")
        done = np.frombuffer(self._generations, np.uint64)
        newest = int(np.where(done & 1, 0, done).max())
        for generation in range(newest, max(0, newest - 2 * info.slots), -2):
            slot = (generation // 2 - 1) % info.slots
            try:
                header = FrameHeader.unpack(self._map, info.headers_offset + slot * HEADER_SIZE)
            except HeaderError:  # caught while it is written
                continue
            # Published in this order, so the first with a stamp is it; one that is being replaced is an older one.
            if header.published_ns and header.generation == generation and self._generations[slot] == generation:
                return self.frame(header)
        return None

    def frame(self, header: FrameHeader) -> Frame:
        """The frame that a descriptor describes. Raises StreamError for one that this ring cannot hold."""
        info, h = self._info, header
        if h.slot >= info.slots or h.slot != h.sequence % info.slots or h.generation != 2 * h.sequence + 2:
            raise StreamError(f"the descriptor of frame {h.frame_id} names a slot that the ring does not have")
        if h.nbytes > info.payload:
            raise StreamError(f"the descriptor of frame {h.frame_id} describes more bytes than a slot has")
        array = np.ndarray(
            (h.height, h.width, 3),
            np.uint8,
            self._map,
            info.data_offset + h.slot * info.slot_stride,
            (h.stride, 3, 1),
        )
        return Frame(header, array, self._generations)


def header_from_message(message: bytes) -> FrameHeader:
    """The frame header behind a topic. Raises StreamError for what is none, or of another version."""
    try:
        return FrameHeader.unpack(message, TOPIC_SIZE)
    except HeaderError as error:
        raise StreamError(str(error)) from error


def frame_from_message(header: FrameHeader, pixels: memoryview) -> Frame:
    """The frame of a header + pixels message. Raises StreamError when the pixels are not as many as described."""
    if pixels.nbytes != header.nbytes:
        raise StreamError(f"frame {header.frame_id} came with {pixels.nbytes} bytes of pixels, not {header.nbytes}")
    array = np.ndarray((header.height, header.width, 3), np.uint8, pixels, 0, (header.stride, 3, 1))
    array.flags.writeable = False
    return Frame(header, array)


def _open_fd(pid: int, fd: int) -> int:
    """Opens another process's ring. Looks before it opens: opening a device or a pipe may already do harm."""
    path = f"/proc/{pid}/fd/{fd}"
    try:
        if pid <= 0 or fd < 0 or not os.readlink(path).startswith("/memfd:ispeed-srgb"):
            raise StreamError("the stream info does not name a ring")
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StreamError(f"the stream's shared memory cannot be opened: {error.strerror}") from error
    import fcntl

    if not fcntl.fcntl(opened, _F_GET_SEALS) & _F_SEAL_SHRINK:  # shrunk under our feet it would end this process
        os.close(opened)
        raise StreamError("the stream's shared memory is not sealed")
    return opened


def _open_path(path: str) -> int:
    try:
        if os.path.dirname(path) != "/dev/shm" or not stat.S_ISREG(os.lstat(path).st_mode):  # noqa: S108
            raise StreamError("the stream info does not name a ring in /dev/shm")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise StreamError(f"the stream's shared memory {path!r} cannot be opened: {error}") from error


def _require_layout(fd: int, info: StreamInfo) -> None:
    """Raises StreamError unless the file is the ring that `info` describes, with all its memory reserved."""
    head = os.pread(fd, _RING_HEADER.size, 0)
    if len(head) < _RING_HEADER.size:
        raise StreamError("the stream's shared memory is too short for a ring")
    magic, version, kind, slots, payload, stride, generations, headers, data, _, total, stream_id = _RING_HEADER.unpack(
        head
    )
    if magic != RING_MAGIC or version != RING_VERSION or kind != KINDS["srgb"] or stream_id != info.stream_number:
        raise StreamError("the stream's shared memory holds no ring of this stream")
    told = (info.slots, info.payload, info.slot_stride, info.generations_offset, info.data_offset, info.total)
    if told != (slots, payload, stride, generations, data, total):
        raise StreamError("the stream info does not fit its ring")
    status = os.fstat(fd)
    fits = (
        0 < slots <= _MOST_SLOTS
        and 0 < payload <= stride
        and generations % 8 == 0
        and generations + 8 * slots <= data
        and info.headers_offset in (0, headers)
        and headers + HEADER_SIZE * slots <= data
        and data + slots * stride <= total <= status.st_size
        and total <= status.st_blocks * 512  # else reading would reserve memory, as much as the publisher likes
    )
    if not fits:
        raise StreamError("the ring's numbers do not fit its memory")
