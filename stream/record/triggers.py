"""What begins a recording by itself: a line of the camera, or a jump of brightness. Looked for in batches of frames."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ..frame import FLAG_LINE_STATUS, LINE_STATUS_SHIFT
from ..ring import Ring

_SAMPLES = 1024  # pixels of a frame whose mean is looked at
_MEAN_NS = 1_000_000_000  # the running mean forgets in this time
_FLOOR = 0.01  # of the range from black to white: jumps are fractions of at least so much


class Condition(Protocol):
    """Finds, in the records of frames (ARRIVAL [n]), those that trigger."""

    reason: str

    def look(self, records: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Those of `records` at which it becomes true."""
        ...


class LineEdge:
    """A rising edge on a line of the camera, as the frames' chunk data tells it."""

    reason = "line"

    def __init__(self, line: int) -> None:
        self._mask = np.uint32(1 << (line + LINE_STATUS_SHIFT))
        self._high = True  # a line that is high from the beginning has no edge

    def look(self, records: npt.NDArray[Any]) -> npt.NDArray[Any]:
        told = records[(records["flags"] & np.uint32(FLAG_LINE_STATUS)) != 0]
        high = (told["flags"] & self._mask) != 0
        before = np.concatenate(([self._high], high[:-1]))
        if len(high):
            self._high = bool(high[-1])
        return told[high & ~before]


class BrightnessJump:
    """The mean above black differs from its running mean by more than a fraction of that; true once for each jump.

    Args:
        ring: The raw ring.
        fmt: Of its frames.
        jump: The fraction.
    """

    reason = "brightness"

    def __init__(self, ring: Ring, fmt: RawFormat, jump: float) -> None:
        self._array, self._generations = ring.array, np.frombuffer(ring.generations, np.uint64)
        self._bases = np.array([ring.slot_offset(slot) for slot in range(ring.slots)], np.int64)
        self._places, self._scale, self._high_byte = _sample_places(fmt)
        self._black, self._range = fmt.black_level, fmt.white_level - fmt.black_level
        self._jump = jump
        self._mean: float | None = None
        self._mean_ns = 0
        self._was = False

    def look(self, records: npt.NDArray[Any]) -> npt.NDArray[Any]:
        means = self._means(records)
        whole = self._generations[records["slot"]] == records["generation"]  # else another frame was looked at
        records, means = records[whole], means[whole]
        found = [self._is_jump(mean, int(ns)) for mean, ns in zip(means.tolist(), records["grabbed_ns"], strict=True)]
        return records[np.array(found, bool)]

    def _means(self, records: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        places = self._bases[records["slot"]][:, None] + self._places[None, :]
        values = self._array[places].astype(np.float32)
        if self._high_byte:
            values += self._array[places + 1].astype(np.float32) * 256
        return values.mean(axis=1) * self._scale - self._black

    def _is_jump(self, mean: float, ns: int) -> bool:
        if self._mean is None:
            self._mean, self._mean_ns = mean, ns
            return False
        reference = max(self._mean, _FLOOR * self._range)
        is_off = abs(mean - self._mean) > self._jump * reference
        share = min(1.0, (ns - self._mean_ns) / _MEAN_NS)
        self._mean, self._mean_ns = self._mean + share * (mean - self._mean), ns
        was, self._was = self._was, is_off
        return is_off and not was


def _sample_places(fmt: RawFormat) -> tuple[npt.NDArray[np.int64], float, bool]:
    """Byte offsets of evenly spread samples, what a DN is of their values, and whether a second byte follows.

    Of packed samples the byte with the highest bits of one is looked at: it is a sample, but for its lowest bits.
    """
    pixels = fmt.width * fmt.height
    if fmt.packed:
        group, per_group = (3, 2) if fmt.depth == 12 else (5, 4)  # bytes and samples; the last byte has high bits alone
        groups = pixels // per_group
        picked = np.unique(np.linspace(0, groups - 1, min(_SAMPLES, groups)).astype(np.int64))
        return picked * group + group - 1, float(1 << (fmt.depth - 8)), False
    picked = np.unique(np.linspace(0, pixels - 1, min(_SAMPLES, pixels)).astype(np.int64))
    return picked * (fmt.bits_per_pixel // 8), 1.0, fmt.bits_per_pixel == 16
