"""The data path of a replay: from a file into the ring's slots, each frame when it is due."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from ...engines.errors import UserError
from ..footage import Footage
from ..frame import FLAG_DEVICE_CLOCK_IS_HOST
from ..ring import Ring, Word
from .sources import Arrival, SourceEnded
from .timeline import Timeline

_NOT_OF_HOST = 0xFFFFFFFF ^ FLAG_DEVICE_CLOCK_IS_HOST  # stamps were of that clock once, and are not now
_NEVER_NS = 1 << 62


class ReplaySource:
    """Reads each frame into a slot ahead of its time, and delivers it when it is due; see sources.Source.

    A frame that finds no free slot until then is lost, as it would be with a camera. One that cannot be read is
    delivered incomplete; `warn` is told of the first.
    """

    def __init__(self, footage: Footage, timeline: Timeline, loop: bool, warn: Callable[[str], None]) -> None:
        self.arrival = Arrival()
        self.least = footage.raw_format.payload_size
        self.patient = timeline.patient
        self._footage, self._timeline, self._warn = footage, timeline, warn
        self._end = None if loop else timeline.count
        records = footage.frames
        # Columns as memoryviews: an item of a NumPy record costs as much as all else here.
        self._flags = (records["flags"].astype("u4") & _NOT_OF_HOST).data
        self._exposure_us = records["exposure_us"].astype("f8").data
        self._gain_db = records["gain_db"].astype("f8").data
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ring: Ring | None = None
        self._slot = -1  # that the next frame lies in already
        self._whole = True  # whether it could be read
        self._next = 0
        self._lost = 0
        self._running = self._warned = False
        self._describe(0)

    @property
    def next(self) -> int:
        """Number of the next frame to be delivered."""
        return self._next

    def attach(self, ring: Ring) -> None:
        self._ring = ring
        if ring.words[Word.SEEN]:  # another grab process played so far, and died
            self._next = self._timeline.after(ring.words[Word.LAST_FRAME_ID])

    def queue(self, slot: int) -> None:
        self._free.put(slot)

    def start(self) -> None:
        self._timeline.start(self._next)
        self._running = True

    def wait(self, timeout_ms: int) -> int:
        until_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        while self._running:
            if self._end is not None and self._next >= self._end:
                raise SourceEnded(self._timeline.frame_id(self._next - 1))
            due_ns = self._timeline.due_ns(self._next)
            lost_ns = _NEVER_NS if self.patient else due_ns
            if self._slot < 0 and not self._find_slot(min(lost_ns, until_ns)):
                now_ns = time.monotonic_ns()
                if now_ns >= until_ns:
                    return -1
                if now_ns >= lost_ns:
                    self._lost += 1
                    self._next += 1
                continue
            if not _sleep(due_ns, until_ns):
                return -1
            slot, self._slot = self._slot, -1
            self._describe(self._next)
            self._next += 1
            return slot
        return -1

    def stop(self, gone: bool) -> None:
        self._running = False

    def left_behind(self) -> int:
        return 0

    def flush(self) -> None:
        while True:
            try:
                self._free.get_nowait()
            except queue.Empty:
                break
        self._slot = -1

    def release(self) -> None:
        self._ring = None

    def underruns(self) -> int | None:
        return self._lost

    def undelivered(self) -> int | None:
        return 0

    def fault(self) -> str:
        return ""

    def _find_slot(self, until_ns: int) -> bool:
        """Waits for a free slot until then, and reads the next frame into it; whether there was one."""
        wait_s = max(0, until_ns - time.monotonic_ns()) * 1e-9
        try:
            self._slot = self._free.get(timeout=wait_s)
        except queue.Empty:
            return False
        index = self._next % self._timeline.count
        try:
            self._footage.read(index, self._ring.slot(self._slot)[: self.least])  # type: ignore[union-attr]
            self._whole = True
        except UserError as error:
            self._whole = False
            if not self._warned:
                self._warned = True
                self._warn(f"{error}; what cannot be read is played as incomplete frames")
        return True

    def _describe(self, number: int) -> None:
        arrival, timeline = self.arrival, self._timeline
        index = number % timeline.count
        arrival.frame_id, arrival.timestamp = timeline.frame_id(number), timeline.stamp(number)
        arrival.flags = self._flags[index]
        arrival.exposure_us, arrival.gain_db = self._exposure_us[index], self._gain_db[index]
        arrival.incomplete = not self._whole
        arrival.size = self.least if self._whole else 0


def _sleep(due_ns: int, until_ns: int) -> bool:
    """Sleeps until either time; whether the first has come."""
    rest_ns = min(due_ns, until_ns) - time.monotonic_ns()
    if rest_ns > 0:
        time.sleep(rest_ns * 1e-9)
    return time.monotonic_ns() >= due_ns
