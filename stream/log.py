"""Arrival log: what came from the camera, for readers that want every raw frame, also those that are never developed.

It lies in the raw ring: one 64-byte record for each complete frame, in the order of arrival, the oldest overwritten.
Grab alone writes; readers never hold it up. A record names the slot and the generation that the slot has as long as it
holds this frame.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from .frame import RECORD_SIZE
from .ring import Ring, Word

_ARRIVED = int(Word.ARRIVED)
_ENTRY = struct.Struct("<IIQQqIIddQ")

#: A record as NumPy reads it: the fields of FrameRecord, with the generation in the place of the grant.
ARRIVAL = np.dtype(
    [
        ("slot", "<u4"),
        ("flags", "<u4"),
        ("frame_id", "<u8"),
        ("device_timestamp", "<u8"),
        ("grabbed_ns", "<i8"),
        ("segment", "<u4"),
        ("size", "<u4"),
        ("exposure_us", "<f8"),
        ("gain_db", "<f8"),
        ("generation", "<u8"),
    ]
)


class ArrivalLog:
    """The log of one raw ring."""

    def __init__(self, ring: Ring) -> None:
        self._words, self._memory = ring.words, ring.memory
        self._base, self._capacity = ring.layout.log_offset, ring.layout.queue_capacity
        size = self._capacity * RECORD_SIZE
        self._entries = np.frombuffer(ring.memory[self._base : self._base + size], ARRIVAL)

    @property
    def count(self) -> int:
        """Frames that came since the ring was made."""
        return self._words[_ARRIVED]

    @property
    def oldest(self) -> int:
        """Number of the oldest frame whose record can still be read."""
        return max(0, self.count - self._capacity + 1)  # the very oldest may be overwritten at any moment

    def add(self, entry: tuple[Any, ...], generation: int) -> None:
        """Appends a frame: the fields of FrameRecord without the last one, and its slot's generation (grab only)."""
        head = self._words[_ARRIVED]
        _ENTRY.pack_into(self._memory, self._base + head % self._capacity * RECORD_SIZE, *entry, generation)
        self._words[_ARRIVED] = head + 1

    def since(self, number: int, limit: int) -> tuple[int, npt.NDArray[np.void]]:
        """Up to `limit` records from frame `number` on, oldest first, as (number of the first, ARRIVAL [n]), a copy.

        The first is later than `number` where records were overwritten before they were read.
        """
        while True:
            first = max(number, self.oldest)
            index = np.arange(first, min(self.count, first + limit)) % self._capacity
            records = self._entries[index]
            if first >= self.oldest:  # nothing was overwritten while it was copied
                return first, records
