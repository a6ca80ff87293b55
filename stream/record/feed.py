"""Feeds: the frames of a ring for a reader that is never waited for, by their running number."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..frame import FIELD_CODES, HEADER_SIZE, OFFSETS
from ..log import ArrivalLog
from ..ring import Ring, Word
from .layout import RAW_FRAME, SRGB_FRAME, pages

_DEVELOPED, _PUBLISHED = int(Word.DEVELOPED), int(Word.PUBLISHED)
_NAMES = ("frame_id", "device_timestamp", "grabbed_ns", "realtime_offset_ns", "segment", "flags", "exposure_us")
_HEADER_NAMES = (*_NAMES, "gain_db", "sequence", "wb_r", "wb_g", "wb_b", "developed_ns", "published_ns", "slot")

_CODES = {"Q": "<u8", "q": "<i8", "I": "<u4", "d": "<f8", "f": "<f4"}

#: The fields of FrameHeader that are wanted, as NumPy reads them in place.
_HEADER = np.dtype(
    {
        "names": [*_HEADER_NAMES, "generation"],
        "formats": [_CODES[FIELD_CODES[name]] for name in (*_HEADER_NAMES, "generation")],
        "offsets": [OFFSETS[name] for name in (*_HEADER_NAMES, "generation")],
        "itemsize": HEADER_SIZE,
    }
)


class Feed(Protocol):
    """Frames of one kind. Records are structured arrays with, at least, frame_id, grabbed_ns, slot and generation.

    Attributes:
        kind: "raw" or "srgb".
        frame_bytes: Bytes of a frame.
        pieces: For each slot its memory, in whole pages.
        depth: Only frames that so many came after had to make room for others.
    """

    kind: str
    frame_bytes: int
    depth: int
    pieces: list[memoryview]

    @property
    def count(self) -> int:
        """Frames so far: the number of the next one."""
        ...

    def since(self, number: int, limit: int) -> tuple[int, npt.NDArray[Any]]:
        """Up to `limit` records from frame `number` on, oldest first, as (number of the first, records), a copy.

        The first is later than `number` where records are gone already.
        """
        ...

    def intact(self, records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Of which of the records the frame still lies, whole, in its slot."""
        ...

    def rows(self, records: npt.NDArray[Any], realtime_offset_ns: int) -> npt.NDArray[Any]:
        """The rows of the recording's table."""
        ...


class RawFeed:
    """Raw frames in the order of their arrival, also those that are never developed."""

    kind = "raw"

    def __init__(self, ring: Ring, frame_bytes: int, history: int) -> None:
        self.frame_bytes, self.depth = frame_bytes, history
        self.pieces = _pieces(ring, frame_bytes)
        self._log = ArrivalLog(ring)
        self._generations = np.frombuffer(ring.generations, np.uint64)

    @property
    def count(self) -> int:
        return self._log.count

    def since(self, number: int, limit: int) -> tuple[int, npt.NDArray[Any]]:
        return self._log.since(number, limit)

    def intact(self, records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return self._generations[records["slot"]] == records["generation"]

    def rows(self, records: npt.NDArray[Any], realtime_offset_ns: int) -> npt.NDArray[Any]:
        rows = np.zeros(len(records), RAW_FRAME)
        for name in (*_NAMES, "gain_db"):
            rows[name] = realtime_offset_ns if name == "realtime_offset_ns" else records[name]
        return rows


class SrgbFeed:
    """sRGB frames in the order of their publication."""

    kind = "srgb"

    def __init__(self, ring: Ring, words: memoryview, frame_bytes: int) -> None:
        self.frame_bytes, self.depth = frame_bytes, 0
        self.pieces = _pieces(ring, frame_bytes)
        self._words, self._slots = words, ring.slots
        self._generations = np.frombuffer(ring.generations, np.uint64)
        headers = ring.memory[ring.header_offset(0) : ring.header_offset(ring.slots)]
        self._headers = np.frombuffer(headers, _HEADER)

    @property
    def count(self) -> int:
        return self._words[_PUBLISHED]

    def since(self, number: int, limit: int) -> tuple[int, npt.NDArray[Any]]:
        first = max(number, self._words[_DEVELOPED] - self._slots + 1, 0)
        sequences = np.arange(first, min(self.count, first + limit), dtype=np.uint64)
        records = self._headers[sequences % np.uint64(self._slots)]
        records["slot"], records["generation"] = sequences % np.uint64(self._slots), 2 * sequences + 2
        records["grabbed_ns"][~self.intact(records)] = 0  # of a frame that is gone the header may be another's
        return first, records

    def intact(self, records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return self._generations[records["slot"]] == records["generation"]

    def rows(self, records: npt.NDArray[Any], realtime_offset_ns: int) -> npt.NDArray[Any]:
        rows = np.zeros(len(records), SRGB_FRAME)
        for name in _HEADER_NAMES:
            if name != "slot":
                rows[name] = records[name]
        return rows

    def gains(self) -> list[float] | None:
        """Gains of red, green and blue of the newest frame; None before the first."""
        if not self.count:
            return None
        newest = self._headers[(self.count - 1) % self._slots]
        return [round(float(newest[name]), 4) for name in ("wb_r", "wb_g", "wb_b")]


def _pieces(ring: Ring, frame_bytes: int) -> list[memoryview]:
    size = pages(frame_bytes)
    return [ring.memory[at : at + size] for at in map(ring.slot_offset, range(ring.slots))]
