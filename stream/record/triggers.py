"""What begins a recording by itself: a line of the camera, or a jump of brightness. Looked for in batches of frames."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ..frame import FLAG_LINE_STATUS, LINE_STATUS_SHIFT
from ..ring import Ring

_CELLS = 256  # 2x2 pixels each, of a frame, whose mean is looked at
_A_SIDE = 16  # of these, where the frame is large enough
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
        self._places, self._shifts = _sample_places(fmt)
        self._bits = fmt.bits_per_pixel
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
        read = self._array[self._bases[records["slot"]][:, None] + self._places[None, :]]
        if self._bits == 8:
            return read.mean(axis=1) - self._black
        samples = read.view("<u2")
        if self._bits < 16:
            samples = samples >> self._shifts & np.uint16((1 << self._bits) - 1)
        return samples.mean(axis=1) - self._black

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


def _sample_places(fmt: RawFormat) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Offsets of the bytes that samples lie in, two for each where it has more than 8 bits, and by how many bits each
    sample is then to be shifted down."""
    y, x = _spread_cells(fmt.height // 2, fmt.width // 2)
    pixels = ((2 * y + [[0], [0], [1], [1]]) * fmt.width + 2 * x + [[0], [1], [0], [1]]).reshape(-1)
    first, shifts = np.divmod(np.sort(pixels) * fmt.bits_per_pixel, 8)  # in the order of memory
    if fmt.bits_per_pixel > 8:
        first = (first[:, None] + [0, 1]).reshape(-1)
    return first.astype(np.int64), shifts.astype(np.uint16)


def _spread_cells(height: int, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(y, x) of cells all over a frame of so many: of each field of a grid one, anywhere in it. On the grid itself they
    would miss whatever repeats as it does, and what lies between its lines."""
    rows = min(height, _A_SIDE)
    columns = min(width, _CELLS // rows)
    rows = min(height, _CELLS // columns)
    chance = np.random.default_rng(0).random((2, rows, columns))  # the same in every run
    top, left = np.arange(rows + 1) * height // rows, np.arange(columns + 1) * width // columns
    y = top[:-1, None] + (chance[0] * np.diff(top)[:, None]).astype(np.int64)
    x = left[:-1] + (chance[1] * np.diff(left)).astype(np.int64)
    return y.reshape(-1), x.reshape(-1)
