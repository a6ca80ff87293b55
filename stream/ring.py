"""Ring: frame slots in shared memory, their generations, and the words and queues that the stages share.

A ring is a memfd, reserved and touched before the camera starts, sealed against resizing; it vanishes with its last
user, also after `kill -9`. Layout, all little-endian u64 unless said (offsets are in `RingLayout`):

    page 0        header: magic "ISPRING1", version, kind, slots, slot stride, payload, offsets, stream id
    control page  64 single-writer words (see `Word`), then the slot table and one generation per slot
    queues        raw ring only: grant queue (64-byte records), return queue (u64), arrival log (64-byte records)
    headers       sRGB ring only: one 256-byte FrameHeader per slot
    data          slots of `payload` bytes, 4 KiB apart

Generations: 2*n+1 while a slot is being written, 2*n+2 when it is done, n being the frame's number. Writers never wait
for readers; a reader checks the number before and after. This relies on x86-64 store order, so other machines are
refused.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import platform
import struct
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from ..engines.errors import UserError
from .frame import HEADER_SIZE, RECORD_SIZE

PAGE = 4096
RING_MAGIC = b"ISPRING1"
RING_VERSION = 1
_HEADER = struct.Struct("<8sIIQQQQQQQQQ")
KINDS = {"raw": 1, "srgb": 2}


class Word(IntEnum):
    """Index of a shared counter. Each has one writer, named here; groups lie on cache lines of their own."""

    # grab
    SEEN = 0  # buffers that came, complete or not, each with a new frame id
    CAMERA_GAP = 1  # ids that never came
    NO_FREE_BUFFER = 2  # ids that never came because the producer had no buffer
    INCOMPLETE = 3
    SUPERSEDED = 4
    STOPPED_GRAB = 5
    LATE = 6  # buffers whose id was counted as missing before, and stays so: dropped
    QUEUED = 7  # gauge: slots that lie queued at the producer
    # grab, queues
    GRANT_HEAD = 8
    RETURN_TAIL = 9
    WAITING = 10  # gauge: frames that wait in grab
    LAST_FRAME_ID = 11
    GRAB_ALIVE_NS = 12  # CLOCK_MONOTONIC of grab's last look around, while an acquisition runs; 0 otherwise
    LAST_SEEN_NS = 13  # CLOCK_MONOTONIC when the last of the seen came
    ARRIVED = 14  # complete frames in the arrival log, also those that were superseded later
    # develop
    GRANT_TAIL = 16
    RETURN_HEAD = 17
    DEVELOPED = 18  # frames whose sRGB is complete; the sequence number of the next one
    ENGINE_ERROR = 19
    DEVELOP_BUSY_NS = 20  # time spent inside the engine
    # main
    PUBLISHED = 24
    STAGE_DIED = 25
    STOPPED_MAIN = 26
    DIED_GRANTED = 27  # the part of STAGE_DIED that had been granted


class Owner(IntEnum):
    """Who has a raw slot; written in the ring's table by grab alone."""

    FREE = 0  # announced to nobody
    QUEUED = 1  # the producer's
    WAITING = 2  # grab's: filled, not yet handed on
    GRANTED = 3  # develop's
    HISTORY = 4  # developed, kept readable until it is needed


@dataclass(frozen=True)
class RingLayout:
    """Where everything lies in a ring. All offsets and sizes in bytes."""

    kind: str
    slots: int
    payload: int
    slot_stride: int
    words_offset: int
    table_offset: int
    generations_offset: int
    queue_offset: int
    queue_capacity: int
    log_offset: int
    headers_offset: int
    data_offset: int
    total: int

    @classmethod
    def plan(cls, kind: str, slots: int, payload: int) -> RingLayout:
        """Lays out a ring of `slots` slots with `payload` bytes each."""
        if kind not in KINDS or slots < 2 or payload < 1:
            raise ValueError(f"no ring of kind {kind!r} with {slots} slots of {payload} bytes")
        stride = _pages(payload)
        table = PAGE + 64 * 8
        generations = table + slots * 8
        at = _pages(generations + slots * 8)
        capacity, queue, headers, log = 0, at, at, at
        if kind == "raw":
            capacity = 1 << (slots - 1).bit_length()  # never more entries than slots
            log = _pages(queue + capacity * (RECORD_SIZE + 8))
            at = _pages(log + capacity * RECORD_SIZE)
        else:
            at = _pages(at + slots * HEADER_SIZE)
        words, total = PAGE, at + slots * stride
        return cls(kind, slots, payload, stride, words, table, generations, queue, capacity, log, headers, at, total)

    def to_json(self) -> dict:
        """A JSON-able dict; `RingLayout(**d)` restores it."""
        return asdict(self)


class Ring:
    """A mapped ring. `slot(i)` is a stable uint8 view of slot i's payload; `words` and `generations` index as ints.

    Make one with `Ring.create`, map another process's with `Ring.attach`. `fd` stays open as long as the ring does.
    """

    def __init__(self, fd: int, layout: RingLayout, *, writable: bool, path: Path | None = None) -> None:
        self.fd, self.layout, self.path = fd, layout, path
        self.slots = layout.slots
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        # Populated now, so that no frame pays for a page fault and memory runs out here or never.
        populate = getattr(mmap, "MAP_POPULATE", 0)
        self._map = mmap.mmap(fd, layout.total, mmap.MAP_SHARED | populate, prot)
        self.memory = memoryview(self._map)
        self.array = np.frombuffer(self._map, np.uint8)
        self.words = self._u64(layout.words_offset, 64)
        self.table = self._u64(layout.table_offset, layout.slots)
        self.generations = self._u64(layout.generations_offset, layout.slots)
        self._views = [
            self.array[layout.data_offset + i * layout.slot_stride :][: layout.payload] for i in range(layout.slots)
        ]

    @classmethod
    def create(cls, kind: str, slots: int, payload: int, stream_id: int, name: str | None = None) -> Ring:
        """Reserves a new ring. With `name` it is the file /dev/shm/NAME (mode 0600), else a sealed memfd.

        Raises UserError when the memory is not there, or the name is in use.
        """
        require_x86()
        layout = RingLayout.plan(kind, slots, payload)
        require_memory(layout.total)
        path = Path("/dev/shm") / name if name else None  # noqa: S108 (the place for named shared memory)
        fd = _open_named(path) if path else os.memfd_create(f"ispeed-{kind}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, layout.total)
            if path is None:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            ring = cls(fd, layout, writable=True, path=path)
        except OSError as error:
            os.close(fd)
            if path:
                path.unlink(missing_ok=True)
            raise UserError(
                f"the {kind} ring needs {layout.total >> 20} MiB of shared memory and could not have it "
                f"({error.strerror}): ask for fewer slots (--slots) or a smaller frame"
            ) from error
        ring._write_header(stream_id)
        return ring

    @classmethod
    def attach(cls, fd: int, *, writable: bool) -> Ring:
        """Maps the ring behind a file descriptor; takes the descriptor over. Raises ValueError if it is no ring."""
        head = os.pread(fd, _HEADER.size, 0)
        if len(head) < _HEADER.size:
            raise ValueError("not a ring: too short")
        magic, version, kind, slots, payload, *_, total, _ = _HEADER.unpack(head)
        names = {number: name for name, number in KINDS.items()}
        if magic != RING_MAGIC or version != RING_VERSION or kind not in names:
            raise ValueError("not a ring that this version reads")
        layout = RingLayout.plan(names[kind], slots, payload)
        if layout.total != total or os.fstat(fd).st_size < total:
            raise ValueError("the ring's size does not fit its header")
        return cls(fd, layout, writable=writable)

    def slot(self, index: int) -> np.ndarray:
        """Slot `index` as uint8 [payload], a live view."""
        return self._views[index]

    def slot_offset(self, index: int) -> int:
        """Byte offset of slot `index` in the file."""
        return self.layout.data_offset + index * self.layout.slot_stride

    def header_offset(self, index: int) -> int:
        """Byte offset of the FrameHeader of slot `index` (sRGB ring)."""
        return self.layout.headers_offset + index * HEADER_SIZE

    def begin_write(self, index: int, number: int) -> None:
        """Marks slot `index` as being written with frame `number`: readers of the old frame will notice."""
        self.generations[index] = 2 * number + 1

    def end_write(self, index: int, number: int) -> None:
        """Marks slot `index` as holding frame `number`, whole."""
        self.generations[index] = 2 * number + 2

    def holds(self, index: int, generation: int) -> bool:
        """Whether slot `index` still holds the frame that was stamped with `generation`."""
        return self.generations[index] == generation

    def close(self) -> None:
        """Gives up this process's mapping (as far as no view of it is alive) and the descriptor."""
        self._views = []
        del self.array
        for view in (self.words, self.table, self.generations, self.memory):
            view.release()
        try:
            self._map.close()
        except BufferError:  # somebody still holds an array of it; the mapping goes with the last one
            pass
        os.close(self.fd)

    def unlink(self) -> None:
        """Removes a named ring's file; the memory stays with those who map it."""
        if self.path:
            self.path.unlink(missing_ok=True)

    def _u64(self, offset: int, count: int) -> memoryview:
        return self.memory[offset : offset + 8 * count].cast("Q")

    def _write_header(self, stream_id: int) -> None:
        la = self.layout
        _HEADER.pack_into(
            self._map,
            0,
            RING_MAGIC,
            RING_VERSION,
            KINDS[la.kind],
            la.slots,
            la.payload,
            la.slot_stride,
            la.generations_offset,
            la.headers_offset,
            la.data_offset,
            la.queue_offset,
            la.total,
            stream_id,
        )


def require_memory(total: int) -> None:
    """Raises UserError when `total` bytes would not fit into the free memory.

    Reserving pages of a memfd beyond that does not fail: the kernel kills a process instead.
    """
    if total > (available := available_memory()):
        raise UserError(
            f"a ring needs {total >> 20} MiB of memory and {available >> 20} MiB are free: "
            "ask for fewer slots (--slots) or a smaller frame"
        )


def available_memory() -> int:
    """Bytes that rings may take: nine tenths of what is free."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 * 9 // 10
    return 1 << 62


def require_x86() -> None:
    """Raises UserError on a processor whose store order the rings do not support."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise UserError(f"ispeed's rings need an x86-64 processor, this one is {platform.machine()}")


def _pages(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE


def _open_named(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"shared memory {path} is in use: choose another --shm-name") from error
    if not os.fstat(fd).st_size:
        return fd
    # A ring that nobody locks was left by a killed run: its readers keep the old memory, we start a new one.
    is_ring = os.pread(fd, len(RING_MAGIC), 0) == RING_MAGIC
    os.close(fd)
    if not is_ring:
        raise UserError(f"shared memory {path} belongs to another program: choose another --shm-name")
    path.unlink(missing_ok=True)
    return _open_named(path)
