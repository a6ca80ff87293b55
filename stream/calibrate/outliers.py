"""Pixels that differ from those around them, in the mean of several frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.cie import Floats
from ...engines.errors import UserError

BLOCK = 16
"""Places of one colour, in each direction, whose median is what a pixel should be like."""

SIGMAS = 8.0
"""Robust standard deviations beyond which a pixel is a defect: none of a million good ones is."""

MOST = 0.01
"""Part of the pixels that may be defect, before the frames are taken for something else than what was asked for."""

_MAD_TO_SIGMA = 1.4826


def sites(values: npt.NDArray[Any]) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """(row, column, places) of each of the four sites of the filter array, views of [H, W]."""
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        yield row, column, values[row::2, column::2]


def local_level(site: Floats) -> Floats:
    """What each place of a site [h, w] should be like: the median of its block, joined linearly from block to block."""
    edges = [np.linspace(0, size, max(1, round(size / BLOCK)) + 1).astype(int) for size in site.shape]
    medians = np.array(
        [
            [np.median(site[top:bottom, left:right]) for left, right in itertools.pairwise(edges[1])]
            for top, bottom in itertools.pairwise(edges[0])
        ]
    )
    return _joined(_joined(medians, edges[0]).T, edges[1]).T


def _joined(medians: Floats, edges: npt.NDArray[np.int_]) -> Floats:
    """Rows for all places [size, w], of those of the blocks [n, w] between `edges`; lines go on to the border."""
    middles = (edges[:-1] + edges[1:] - 1) / 2
    if len(middles) > 1:
        before, after = (2 * values[0] - values[1] for values in (medians, medians[::-1]))
        medians = np.concatenate([before[None], medians, after[None]])
        middles = np.concatenate([[2 * middles[0] - middles[1]], middles, [2 * middles[-1] - middles[-2]]])
    places = np.arange(edges[-1])
    return np.stack([np.interp(places, middles, column) for column in medians.T], 1)


def spread(values: Floats) -> float:
    """Standard deviation of most of the values: what few of them do does not count."""
    return float(_MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def outliers(deviation: Floats, least: float, what: str) -> list[tuple[int, int]]:
    """(x, y) of the pixels whose deviation [H, W] is beyond `SIGMAS` of its site's spread, and beyond `least`.

    Raises:
        UserError: There are more than any sensor has; `what` the frames should have been.
    """
    found: list[tuple[int, int]] = []
    for row, column, site in sites(deviation):
        limit = max(least, SIGMAS * spread(site))
        y, x = np.nonzero(np.abs(site) > limit)
        found += zip((2 * x + column).tolist(), (2 * y + row).tolist(), strict=True)
    if len(found) > MOST * deviation.size:
        raise UserError(
            f"{len(found)} of {deviation.size} pixels differ from those around them, which is more than defects are: "
            f"{what}"
        )
    return sorted(found, key=lambda place: (place[1], place[0]))
