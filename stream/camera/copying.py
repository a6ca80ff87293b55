"""The portable data path: Harvesters' own buffers, one copy into a slot. For producers that misbehave."""

from __future__ import annotations

import contextlib
import math
import queue

import numpy as np

from ..frame import FLAG_DEVICE_CLOCK_IS_HOST, FLAG_EXPOSURE_FROM_CHUNK, FLAG_GAIN_FROM_CHUNK, line_flags
from ..ring import Ring
from .discovery import OpenCamera, plain_text
from .nodes import Features
from .sources import INCOMPLETE, NOTHING, Arrival, SourceFailed

MAX_BUFFERS = 64
_LEAST_WAIT_S = 0.02  # on a busy machine Harvesters finds a shorter one over before it has looked


class CopySource:
    """Fetches buffers through Harvesters, never more than there are slots to copy them into; see sources.Source."""

    patient = False

    def __init__(self, camera: OpenCamera, features: Features) -> None:
        from genicam import genapi, gentl
        from harvesters.core import Callback

        class CountIncomplete(Callback):
            """Harvesters hands an incomplete buffer back at once and only calls this."""

            def emit(self, context: object = None) -> None:
                source._incomplete += 1

        source = self
        self.arrival = Arrival()
        self.least = 0
        self._base_flags = FLAG_DEVICE_CLOCK_IS_HOST if camera.info.simulated else 0
        self._acquirer, self._stream, self._features = camera.acquirer, camera.stream, features
        self._errors = (genapi.GenericException, gentl.GenericException)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._next: int | None = None  # the slot that the next frame goes to
        self._incomplete = 0  # that came and were not told of yet
        self._running = 0
        self._ring: Ring | None = None
        self._rows = 0  # of a picture
        self._layout: tuple[int, int] | None = None  # bytes before the picture and behind each row, once they are known
        self._chunks = False
        self._acquirer.add_callback(self._acquirer.Events.INCOMPLETE_BUFFER, CountIncomplete())

    def attach(self, ring: Ring) -> None:
        self._ring = ring
        self._acquirer.num_buffers = max(self._acquirer.min_num_buffers, min(ring.slots, MAX_BUFFERS))
        self._chunks = bool(self._features.read("ChunkModeActive", False))
        self._rows = int(self._features.read("Height"))

    def queue(self, slot: int) -> None:
        self._free.put(slot)

    def start(self) -> None:
        self._layout = None
        try:
            self._acquirer.start()
        except self._errors as error:
            raise SourceFailed(plain_text(error)) from error

    def wait(self, timeout_ms: int) -> int:
        if self._next is None:
            try:
                self._next = self._free.get(timeout=timeout_ms / 1000)
            except queue.Empty:
                return NOTHING
        try:
            buffer = self._acquirer.try_fetch(timeout=max(timeout_ms / 1000, _LEAST_WAIT_S), is_raw=True)
            if buffer is None:
                return self._none_or_incomplete()
            try:
                self._copy(buffer, self._next)
            finally:
                self._stream.queue_buffer(buffer, False)  # True, the default, would zero all of it
        except self._errors as error:
            raise SourceFailed(plain_text(error)) from error
        slot, self._next = self._next, None
        return slot

    def stop(self, gone: bool) -> None:
        if not gone:
            self._features.set_if_there("AcquisitionStop", True)

    def left_behind(self) -> int:
        return 0 if self._next is not None else self.undelivered() or 0

    def flush(self) -> None:
        with contextlib.suppress(*self._errors):  # of a device that is gone
            self._acquirer.stop()
        while True:
            try:
                self._free.get_nowait()
            except queue.Empty:
                break
        self._next = None

    def release(self) -> None:
        self._ring = None

    def underruns(self) -> int | None:
        try:
            return int(self._stream.num_underrun)
        except self._errors:
            return None

    def undelivered(self) -> int | None:
        try:
            return int(self._stream.num_awaiting_delivery)
        except self._errors:
            return None

    def fault(self) -> str:
        return ""

    def _none_or_incomplete(self) -> int:
        if not self._incomplete:
            return NOTHING
        self._incomplete -= 1
        return INCOMPLETE

    def _copy(self, buffer, slot: int) -> None:
        arrival = self.arrival
        arrival.frame_id = self._tell(buffer, "frame_id", -1)
        if arrival.frame_id < 0:
            self._running += 1
            arrival.frame_id = self._running
        arrival.timestamp = self._tell(buffer, "timestamp", 0)
        target = self._ring.slot(slot)  # type: ignore[union-attr]  # attached before it is waited for
        if self._layout is None:  # it stays while the camera acquires
            self._layout = self._tell(buffer, "image_offset", 0), self._tell(buffer, "padding_x", 0)
        if any(self._layout):
            arrival.size = self._copy_rows(buffer, target, *self._layout)
        else:
            pixels = np.frombuffer(buffer.raw_buffer, np.uint8)
            arrival.size = min(self._tell(buffer, "size_filled", pixels.size), target.size, pixels.size)
            target[: arrival.size] = pixels[: arrival.size]
        arrival.incomplete = arrival.size < self.least
        if self._chunks:
            with self._features.lock:
                self._acquirer._update_chunk_data(buffer=buffer, is_manual=True)
                arrival.exposure_us = float(self._features.read("ChunkExposureTime", math.nan))
                arrival.gain_db = float(self._features.read("ChunkGain", math.nan))
                lines = int(self._features.read("ChunkLineStatusAll", -1))
            arrival.flags = (
                self._base_flags
                | (0 if math.isnan(arrival.exposure_us) else FLAG_EXPOSURE_FROM_CHUNK)
                | (0 if math.isnan(arrival.gain_db) else FLAG_GAIN_FROM_CHUNK)
                | line_flags(lines)
            )
        else:
            arrival.flags = self._base_flags

    def _copy_rows(self, buffer, target: np.ndarray, offset: int, padding: int) -> int:
        """Copies a picture that begins late or has padded rows; how many bytes it has, 0 where it is not whole."""
        raw, rows = buffer.raw_buffer, self._rows
        row = self.least // rows
        pitch = row + padding
        if self._tell(buffer, "size_filled", len(raw)) < offset + rows * pitch - padding:
            return 0
        # NumPy copies from row to row: nothing is allocated but the two views.
        target[: self.least].reshape(rows, row)[:] = np.ndarray((rows, row), np.uint8, raw, offset, (pitch, 1))
        return self.least

    def _tell(self, buffer, name: str, default: int) -> int:
        try:
            return int(getattr(buffer, name))
        except self._errors:
            return default
