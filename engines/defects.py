"""Defect pixels: which neighbours stand in for them, and the tables a kernel reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat
from .errors import UserError

NEAREST = 8


def neighbours(defects: Sequence[tuple[int, int]], fmt: RawFormat) -> list[list[tuple[int, int]]]:
    """The good pixels that replace each defect: up to eight of the same colour, from the nearest ring that has any.

    Args:
        defects: (x, y) of each defect.
        fmt: Size and CFA of the frames.

    Returns:
        For each defect the (x, y) of its stand-ins; empty if the frame has no good pixel of that colour around it.

    Raises:
        UserError: A defect lies outside the frame.
    """
    step = 1 if fmt.cfa == "MONO" else 2
    bad = set(defects)
    found: list[list[tuple[int, int]]] = []
    for x, y in defects:
        if not (0 <= x < fmt.width and 0 <= y < fmt.height):
            raise UserError(f"defect pixel ({x}, {y}) lies outside the {fmt.width}x{fmt.height} frame; remove it")
        good: list[tuple[int, int]] = []
        for radius in range(step, max(fmt.width, fmt.height), step):
            ring = [
                (x + dx, y + dy) for dy in (-radius, 0, radius) for dx in (-radius, 0, radius) if (dx, dy) != (0, 0)
            ]
            good = [p for p in ring if 0 <= p[0] < fmt.width and 0 <= p[1] < fmt.height and p not in bad]
            if good:
                break
        found.append(good)
    return found


def tables(defects: Sequence[tuple[int, int]], fmt: RawFormat) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Defects as a kernel reads them.

    Returns:
        rows: int64 [H + 1]; the defects of row y are rows[y] to rows[y + 1] - 1 of the second table.
        table: int64 [D, 9]; column of the defect, then sample numbers (y * W + x) of its stand-ins, -1 where there are
            fewer than eight. Defects without stand-ins are left out: their own sample is the best there is.

    Raises:
        UserError: A defect lies outside the frame.
    """
    unique = sorted({(int(x), int(y)) for x, y in defects}, key=lambda defect: (defect[1], defect[0]))
    mendable = [(at, near) for at, near in zip(unique, neighbours(unique, fmt), strict=True) if near]
    table = np.full((len(mendable), 1 + NEAREST), -1, np.int64)
    for entry, ((x, _), near) in zip(table, mendable, strict=True):
        entry[0] = x
        entry[1 : 1 + len(near)] = [v * fmt.width + u for u, v in near]
    rows = np.searchsorted([y for (_, y), _ in mendable], np.arange(fmt.height + 1)).astype(np.int64)
    return rows, table
