"""Recordings as HDF5: the library lays out the file, the frames go straight to where it wants them.

Chunks are allocated in blocks ahead of the frames, each at a multiple of a page and each as long as a slot of the ring
(the library leaves the bytes up to the next page alone, but for those behind the last chunk of a block). So frames are
written from the ring into the file in one call for many, and none of it passes through the library. The index in the
file is complete whenever a block begins, and a row of the table is written after its frame: a file whose writer is
killed holds every frame that has a row.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from .direct import DirectFile
from .layout import EVENT, FORMAT, PAGE, RAW_FRAME, SRGB_FRAME, TABLE_ROWS, VERSION, pages, put_text
from .library import allocated, create_file, os_errors, write_all

BLOCK_BYTES = 1 << 28  # frames are allocated in blocks of at most so much, and so many: it takes 4 us for each,
BLOCK_FRAMES = 1024
BLOCK_SHARE = 16  # or, where that is more, of the 16th part of those that there are
BLOCK_MOST = 16384
_END_OF_FILE = 40  # where the oldest format says how long the file is, as a u64
_U64 = struct.Struct("<Q")
_META_BYTES = 1 << 16  # what the library writes beside the frames is kept together in front: so much,
_META_PER_FRAME = 64  # and so much for the index of each frame, for at least so many frames,
_META_FRAMES = 1 << 14
_META_ENDLESS = 1 << 17  # or so many, where nobody knows how many there will be


@dataclass
class Contents:
    """What a recording is of: becomes the attributes of the file.

    Attributes:
        raw_format: Format of the raw frames; None records none.
        srgb_size: (width, height) of the sRGB frames; None records none.
        texts: stream_id, serial, model, vendor, created (ISO 8601) and reason.
        parts: settings, geometry, calibration and engine, dicts of JSON values.
        camera: Index of the camera.
    """

    raw_format: RawFormat | None = None
    srgb_size: tuple[int, int] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    camera: int = 0


class HdfWriter:
    """Writes one recording. One thread uses it.

    Attributes:
        path: The file.
        counts: Frames that are whole in the file, by kind: "raw", "srgb".
        nbytes: Bytes of those frames.

    Args:
        path: A file that is not there yet.
        contents: What it is of.
        expected: How many frames are expected, by kind: so many are allocated at once.
        endless: Whether there may be any number of them.

    Raises:
        OSError: The file cannot be made, or the disk has no room for what is expected.
    """

    def __init__(self, path: Path, contents: Contents, expected: dict[str, int], *, endless: bool = False) -> None:
        self.path = path
        part = path.with_name(f".{path.name}.part")  # until it is a file that can be read
        self._indexed = max(_META_ENDLESS if endless else _META_FRAMES, sum(expected.values()))
        self._file = create_file(part, _META_BYTES + _META_PER_FRAME * self._indexed)
        self._direct: DirectFile | None = None
        self._fd = -1  # for the tables, whose rows are no whole pages
        try:
            with os_errors():
                self._fd = os.open(part, os.O_WRONLY | os.O_CLOEXEC)
                self._direct = DirectFile(part)
                _write_attributes(self._file, contents)
                self._events = _Table(self._file, "events", EVENT)
                self._streams = dict(_streams(self._file, contents))
                # Frames smaller than a page are put anywhere, also into the bytes behind larger ones.
                self._loose = any(stream.frame_bytes < PAGE for stream in self._streams.values())
                self._events.extend(1)
                for kind, count in expected.items():
                    if kind in self._streams and count:
                        self._reserve(self._streams[kind], count)
                self._file.flush()
                part.rename(path)
        except BaseException:
            self.abandon()
            with suppress(OSError):
                part.unlink()
            raise

    @property
    def counts(self) -> dict[str, int]:
        return {kind: stream.count for kind, stream in self._streams.items()}

    @property
    def nbytes(self) -> int:
        return sum(stream.count * stream.frame_bytes for stream in self._streams.values())

    def room(self, kind: str) -> int:
        """How many frames fit into what is allocated. Where none does, more is allocated; raises OSError."""
        stream = self._streams[kind]
        if stream.count == stream.capacity:
            self._grow(stream)
        return stream.capacity - stream.count

    def write(self, kind: str, pieces: Sequence[memoryview], rows: npt.NDArray[Any] | None = None) -> None:
        """Writes frames: at most `room`, each page-aligned and whole pages long. They count only once committed.

        Raises OSError.
        """
        stream, direct = self._streams[kind], self._direct
        if direct is None:
            raise ValueError("the recording is closed")
        at = 0
        for offset, count in stream.places(stream.count, len(pieces)):
            some = pieces[at : at + count]
            if self._loose:
                for i, piece in enumerate(some):
                    write_all(self._fd, piece[: stream.frame_bytes], offset + i * stream.stride)
            elif stream.ends_at(last := offset + (count - 1) * stream.stride):
                direct.write(offset, some[:-1])
                self._write_last(direct, some[-1][: stream.frame_bytes], last)
            else:
                direct.write(offset, some)
            at += count

    def commit(self, kind: str, rows: npt.NDArray[Any]) -> None:
        """The first of the frames that were written count: as many as there are rows, whose `offset` is filled in.

        Raises OSError.
        """
        stream, at = self._streams[kind], 0
        for offset, count in stream.places(stream.count, len(rows)):
            rows["offset"][at : at + count] = offset + np.arange(count) * stream.stride
            at += count
        stream.table.put(self._fd, stream.count, rows)
        stream.count += len(rows)

    def event(self, row: npt.NDArray[Any]) -> None:
        """Appends EVENT [1] to the events. Raises OSError."""
        table = self._events
        if table.count == table.capacity:
            with os_errors():
                table.extend(table.capacity + 1)
                self._file.flush()
        table.put(self._fd, table.count, row)
        table.count += 1

    def finish(self) -> None:
        """Cuts the file to what is in it, marks it as complete and closes it. Raises OSError."""
        try:
            self._finish()
        finally:
            self.abandon()

    def _finish(self) -> None:
        with os_errors():
            for stream in self._streams.values():
                for offset, count in stream.places(stream.count, stream.capacity - stream.count):
                    if self._direct and not self._loose:  # what the library cannot cut off is no burden either
                        self._direct.give_back(offset, (count - 1) * stream.stride + stream.frame_bytes)
                stream.trim()
            self._events.trim()
            self._file.attrs.modify("complete", np.int8(1))
            self._announce_end()
            self._file.flush()
            if self._direct:
                self._direct.sync()

    def abandon(self) -> None:
        """Closes the file as it is: readable up to the last frame that was committed. Harmless when repeated."""
        with suppress(OSError, RuntimeError, ValueError):
            self._file.close()
        if self._direct:
            self._direct.close()
            self._direct = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Closes and removes the file. Never raises."""
        self.abandon()
        with suppress(OSError):
            self.path.unlink()

    def _write_last(self, direct: DirectFile, frame: memoryview, offset: int) -> None:
        """Writes a frame without the rest of its last page: the library may have put more of its index there."""
        whole = len(frame) // PAGE * PAGE
        direct.write(offset, [frame[:whole]])
        if whole < len(frame):
            write_all(self._fd, frame[whole:], offset + whole)

    def _announce_end(self) -> None:
        """Says in the file that it ends behind the last frame. The library cuts it first and says so then: a file that
        is shorter than it says cannot be opened, and the writer may be killed in between."""
        if sum(stream.capacity for stream in self._streams.values()) > self._indexed:
            return  # then the library has something of its own among the frames, perhaps behind the last one
        ends = [self._events.end, *(max(stream.end, stream.table.end) for stream in self._streams.values())]
        os.pwrite(self._fd, _U64.pack(max(ends)), _END_OF_FILE)

    def _grow(self, stream: _Stream) -> None:
        # Larger ones as the file grows: the library looks through all of them when it is asked where one lies.
        share = stream.capacity // BLOCK_SHARE
        count = max(1, min(BLOCK_FRAMES, BLOCK_BYTES // stream.stride), min(share, BLOCK_MOST))
        with os_errors():
            while True:
                try:
                    self._reserve(stream, count)
                    break
                except OSError as error:
                    if error.errno != errno.ENOSPC or count == 1:
                        raise
                    count = max(1, count // 4)  # whatever still fits
            self._file.flush()

    def _reserve(self, stream: _Stream, count: int) -> None:
        """Allocates `count` more frames, for which the disk has room. Raises OSError, and leaves all as it was."""
        before = stream.capacity
        end = stream.extend(before + count)
        try:
            if self._direct:
                self._direct.reserve(0, end)
        except OSError:
            stream.cut(before)
            raise


class _Table:
    """A table whose rows are written straight into the file. `count` rows are, `capacity` are allocated."""

    def __init__(self, file: Any, name: str, dtype: np.dtype) -> None:
        self._rows, self._size = TABLE_ROWS[name], dtype.itemsize
        self._dataset = allocated(file, name, dtype, (), (self._rows,))
        self._offsets: list[int] = []  # of each chunk
        self.count = self.capacity = 0

    def extend(self, count: int) -> int:
        """Allocates at least `count` rows in all; returns where the last chunk ends in the file."""
        chunks = -(-count // self._rows)
        self.capacity = chunks * self._rows
        self._dataset.set_extent((self.capacity,))
        for i in range(len(self._offsets), chunks):
            self._offsets.append(self._dataset.get_chunk_info_by_coord((i * self._rows,)).byte_offset)
        return max(self._offsets) + self._rows * self._size

    def put(self, fd: int, first: int, rows: npt.NDArray[Any]) -> None:
        """Writes rows from row `first` on. Raises OSError."""
        at = 0
        while at < len(rows):
            chunk, row = divmod(first + at, self._rows)
            some = rows[at : at + self._rows - row]
            write_all(fd, some.tobytes(), self._offsets[chunk] + row * self._size)
            at += len(some)

    @property
    def end(self) -> int:
        """Where the chunk of the last row ends in the file."""
        return self._offsets[max(0, self.count - 1) // self._rows] + self._rows * self._size if self._offsets else 0

    def cut(self, count: int) -> None:
        """Gives up the chunks beyond the first `count` rows."""
        self.capacity = count
        del self._offsets[-(-count // self._rows) :]
        self._dataset.set_extent((count,))

    def trim(self) -> None:
        """Gives up the rows that were not written."""
        self._dataset.set_extent((self.count,))


class _Stream:
    """Frames of one kind and their table. `count` frames are in the file, `capacity` are allocated.

    `frame_bytes` are in a frame, `stride` between the beginnings of two.
    """

    def __init__(self, file: Any, kind: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.frame_bytes = int(np.prod(shape))
        self.stride = pages(self.frame_bytes)
        self.count = self.capacity = 0
        self._shape = shape
        self._dataset = allocated(file, kind, np.dtype(np.uint8), shape, (1, *shape))
        self.table = _Table(file, f"{kind}_frames", dtype)
        self._runs: list[tuple[int, int, int]] = []  # frames that lie one behind the other: first, count, offset

    def extend(self, capacity: int) -> int:
        """Allocates `capacity` frames in all; returns where the last of them ends in the file."""
        table_end = self.table.extend(capacity)
        before, self.capacity = self.capacity, capacity
        self._dataset.set_extent((capacity, *self._shape))
        if self.frame_bytes < PAGE:
            for index in range(before, capacity):
                self._runs.append((index, 1, self._offset(index)))
        else:
            self._find_runs(before, self._offset(before), capacity - 1, self._offset(capacity - 1))
        return max(table_end, *(offset + count * self.stride for _, count, offset in self._runs))

    def places(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Where frames [first, first + count) lie: (offset, how many one behind the other)."""
        for run_first, run_count, offset in reversed(self._runs) if count else ():
            if run_first <= first:
                skipped = first - run_first
                some = min(count, run_count - skipped)
                yield offset + skipped * self.stride, some
                if some < count:
                    yield from self.places(first + some, count - some)
                return

    def ends_at(self, offset: int) -> bool:
        """Whether the frame at `offset` is the last of those that lie one behind the other."""
        return any(at + (count - 1) * self.stride == offset for _, count, at in reversed(self._runs))

    @property
    def end(self) -> int:
        """Where the last frame ends in the file."""
        last = next(self.places(self.count - 1, 1))[0] if self.count else 0
        return last + self.frame_bytes if self.count else 0

    def cut(self, capacity: int) -> None:
        """Gives up the frames beyond the first `capacity`."""
        self.capacity = capacity
        self._runs = [(f, min(n, capacity - f), at) for f, n, at in self._runs if f < capacity]
        self._dataset.set_extent((capacity, *self._shape))
        self.table.cut(capacity)

    def trim(self) -> None:
        """Gives up what was not written."""
        self._dataset.set_extent((self.count, *self._shape))
        self.table.count = self.count
        self.table.trim()

    def _offset(self, index: int) -> int:
        return self._dataset.get_chunk_info_by_coord((index,) + (0,) * len(self._shape)).byte_offset

    def _find_runs(self, first: int, first_at: int, last: int, last_at: int) -> None:
        """Notes where frames `first` to `last` lie. The library is asked little, for it looks through all each time."""
        if last_at - first_at == (last - first) * self.stride:
            self._add_run(first, last - first + 1, first_at)
            return
        middle = (first + last) // 2  # it has put something of its own in between
        self._find_runs(first, first_at, middle, self._offset(middle))
        self._find_runs(middle + 1, self._offset(middle + 1), last, last_at)

    def _add_run(self, first: int, count: int, offset: int) -> None:
        if self._runs:
            last_first, last_count, last_offset = self._runs[-1]
            if last_first + last_count == first and last_offset + last_count * self.stride == offset:
                self._runs[-1] = (last_first, last_count + count, last_offset)
                return
        self._runs.append((first, count, offset))


def _streams(file: Any, contents: Contents) -> Iterator[tuple[str, _Stream]]:
    if contents.raw_format:
        yield "raw", _Stream(file, "raw", (contents.raw_format.payload_size,), RAW_FRAME)
        told = contents.raw_format.to_json()
        put_text(file["raw"].attrs, "pixel_format", told.pop("pixel_format"))
        file["raw"].attrs.update(told)
    if contents.srgb_size:
        width, height = contents.srgb_size
        yield "srgb", _Stream(file, "srgb", (height, width, 3), SRGB_FRAME)


def _write_attributes(file: Any, contents: Contents) -> None:
    file.attrs.update({"version": VERSION, "camera": contents.camera, "complete": np.int8(0)})
    parts = {name: json.dumps(part) for name, part in contents.parts.items()}
    for name, text in {"format": FORMAT, **contents.texts, **parts}.items():
        put_text(file.attrs, name, text)
