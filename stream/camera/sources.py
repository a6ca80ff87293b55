"""Two ways from the producer into the ring's slots, under one contract: zero-copy and copy."""

from __future__ import annotations

import contextlib
import math
from typing import Protocol

from ...engines.errors import UserError
from ..frame import FLAG_DEVICE_CLOCK_IS_HOST, FLAG_EXPOSURE_FROM_CHUNK, FLAG_GAIN_FROM_CHUNK, line_flags
from ..ring import Ring
from .chunks import ChunkReader, find_fields
from .discovery import OpenCamera
from .gentl import (
    BUFFER_INFO_IMAGEOFFSET,
    BUFFER_INFO_XPADDING,
    STREAM_INFO_NUM_AWAIT_DELIVERY,
    STREAM_INFO_NUM_UNDERRUN,
    DataStream,
    GenTLError,
)
from .nodes import Features

#: What `Source.wait` returns instead of a slot: nothing came, or an incomplete buffer that went back by itself.
NOTHING, INCOMPLETE = -1, -2


class SourceFailed(Exception):
    """The data path broke: the producer refused a call that must not fail while the camera is there."""


class SourceEnded(Exception):
    """No frame comes any more. `last_id`: the id of the last one that there was, delivered or not, as in Arrival."""

    def __init__(self, last_id: int) -> None:
        super().__init__(last_id)
        self.last_id = last_id


class Arrival:
    """What is known about the newest delivered buffer; overwritten by the next.

    `frame_id` is the camera's raw id, or a running number where it has none; `size` bytes were filled; `exposure_us`
    and `gain_db` are NaN where they are not told with the frame.
    """

    __slots__ = ("exposure_us", "flags", "frame_id", "gain_db", "incomplete", "size", "timestamp")

    def __init__(self) -> None:
        self.frame_id = self.timestamp = self.size = self.flags = 0
        self.incomplete = False
        self.exposure_us = self.gain_db = math.nan


class Source(Protocol):
    """Fills slots of a ring. `wait` belongs to one thread, `queue` to any; the rest to the thread that controls.

    A buffer with fewer than `least` bytes is incomplete, whatever the producer says. One that is `patient` waits for a
    slot to be offered; others lose frames meanwhile.
    """

    arrival: Arrival
    least: int
    patient: bool

    def attach(self, ring: Ring) -> None:
        """Makes every slot of the ring known. Raises SourceFailed."""
        ...

    def queue(self, slot: int) -> None:
        """Offers a slot to be filled. Raises SourceFailed."""
        ...

    def start(self) -> None:
        """Starts delivering. Raises SourceFailed."""
        ...

    def wait(self, timeout_ms: int) -> int:
        """The slot of the next delivered frame, described in `arrival`; else NOTHING or INCOMPLETE.

        Raises SourceFailed, and SourceEnded where no frame will ever come again.
        """
        ...

    def stop(self, gone: bool) -> None:
        """Stops delivering; what was delivered before can still be waited for. `gone`: the camera does not answer."""
        ...

    def left_behind(self) -> int:
        """Buffers that are filled and were not waited for, because there was no slot for them. For who waits."""
        ...

    def flush(self) -> None:
        """Takes every slot back. The thread that waits must have ended."""
        ...

    def release(self) -> None:
        """Makes the ring's slots unknown again."""
        ...

    def underruns(self) -> int | None:
        """Frames that found no buffer since the stream was opened; None where that is not counted."""
        ...

    def undelivered(self) -> int | None:
        """Buffers that are filled and wait to be fetched; None where that is not counted."""
        ...

    def fault(self) -> str:
        """Why the picture of the newest frame, a complete one, does not lie in its slot as it should, and what to do.

        What follows the camera's name in a sentence; empty where it lies there. For who waits.
        """
        ...


class ZeroCopySource:
    """The producer writes into the ring's slots; see `gentl`."""

    patient = False

    def __init__(self, camera: OpenCamera, features: Features) -> None:
        self.arrival = Arrival()
        self.least = 0
        self._base_flags = FLAG_DEVICE_CLOCK_IS_HOST if camera.info.simulated else 0
        self.arrival.flags = self._base_flags
        self._stream = DataStream(camera)
        self._features = features
        self._chunks: ChunkReader | None = None
        self._offsets: list[int] = []
        self._payload = 0
        self._running = 0  # stands in for a frame id
        self._newest = -1

    def accepts(self, payload: int) -> bool:
        """Whether the producer takes memory of ours."""
        return self._stream.accepts_foreign_memory(payload)

    def attach(self, ring: Ring) -> None:
        base = ring.array.ctypes.data
        self._offsets = [ring.slot_offset(index) for index in range(ring.slots)]
        self._payload = ring.layout.payload
        try:
            for offset in self._offsets:
                self._stream.announce(base + offset, self._payload)
        except GenTLError as error:
            raise SourceFailed(f"the producer refuses the ring's memory: {error}") from error
        fields = find_fields(self._features)
        if any(fields):
            self._chunks = ChunkReader(
                self._stream.library.DSGetBufferChunkData, self._stream.handle, ring.memory, fields
            )

    def queue(self, slot: int) -> None:
        try:
            self._stream.queue(slot)
        except GenTLError as error:
            raise SourceFailed(str(error)) from error

    def start(self) -> None:
        self._features.set_if_there("TLParamsLocked", 1)
        try:
            self._stream.start()
            self._features.set("AcquisitionStart", True)
        except (GenTLError, UserError) as error:
            raise SourceFailed(str(error)) from error

    def wait(self, timeout_ms: int) -> int:
        stream = self._stream
        try:
            slot = stream.wait(timeout_ms)
        except GenTLError as error:
            raise SourceFailed(str(error)) from error
        if slot < 0:
            return slot
        arrival, frame, told = self.arrival, stream.infos.values, stream.infos.told
        arrival.frame_id, arrival.timestamp = frame[0], frame[1]
        arrival.size = frame[3]
        if told is not None and not (told[0] and told[3]):
            self._make_up_for(told)
        arrival.incomplete = bool(frame[2] or frame[4]) or arrival.size < self.least
        if self._chunks is not None and not arrival.incomplete:
            self._read_chunks(slot)
        self._newest = slot
        return slot

    def stop(self, gone: bool) -> None:
        if not gone:
            self._features.set_if_there("AcquisitionStop", True)
        with contextlib.suppress(GenTLError):  # a stream that is stopped already, or a device that is gone
            self._stream.stop()
        if not gone:
            self._features.set_if_there("TLParamsLocked", 0)

    def left_behind(self) -> int:
        return 0

    def flush(self) -> None:
        self._stream.flush()

    def release(self) -> None:
        self._stream.revoke_all()

    def underruns(self) -> int | None:
        return self._stream.statistic(STREAM_INFO_NUM_UNDERRUN)

    def undelivered(self) -> int | None:
        return self._stream.statistic(STREAM_INFO_NUM_AWAIT_DELIVERY)

    def fault(self) -> str:
        slot = self._newest
        offset = self._stream.buffer_info(slot, BUFFER_INFO_IMAGEOFFSET)
        if offset:
            return f"its pictures begin {offset} bytes into the buffer: choose --acquisition copy, which moves them"
        padding = self._stream.buffer_info(slot, BUFFER_INFO_XPADDING)
        return (
            f"its pictures have {padding} bytes behind each row: choose --acquisition copy, which takes them out"
            if padding
            else ""
        )

    def _make_up_for(self, told: tuple[bool, ...]) -> None:
        if not told[0]:
            self._running += 1
            self.arrival.frame_id = self._running
        if not told[3]:
            self.arrival.size = self._payload

    def _read_chunks(self, slot: int) -> None:
        arrival = self.arrival
        place = self._stream.buffers[slot], self._offsets[slot]
        exposure, gain, lines = self._chunks.read(*place)  # type: ignore[union-attr]
        arrival.exposure_us, arrival.gain_db = exposure, gain
        # NaN is the only value that is unequal to itself
        arrival.flags = (
            self._base_flags
            | (FLAG_EXPOSURE_FROM_CHUNK if exposure == exposure else 0)
            | (FLAG_GAIN_FROM_CHUNK if gain == gain else 0)
            | line_flags(lines)
        )
