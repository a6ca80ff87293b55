"""What is measured of a frame: cells of four samples, and the light of patches in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.chart import patch_pixels
from ...engines.cie import Floats
from ...engines.white_balance import CLIPPED

MOST_CLIPPED = 0.02
"""Part of an area that may be clipped before it counts as clipped: a few hot pixels are no highlight."""


@dataclass(frozen=True, eq=False)
class Cells:
    """A frame with a cell for each 2x2 samples; an odd last row or column is left out.

    Attributes:
        light: float64 [h, w, 3], R, the mean of both G, and B, black at 0 and white at 1; noise may be below 0.
        clipped: bool [h, w], where a sample is too close to the white level to say anything.
    """

    light: Floats
    clipped: npt.NDArray[np.bool_]


def cells_of(samples: npt.NDArray[Any], fmt: RawFormat) -> Cells:
    """The cells of a Bayer frame, samples [H, W] in DN; of several, [N, H, W], those of their mean.

    A cell is clipped where it is in any of the frames.
    """
    stack = samples.reshape(-1, *samples.shape[-2:])
    height, width = (size // 2 * 2 for size in stack.shape[-2:])
    light = np.zeros((height // 2, width // 2, 3))
    clipped = np.zeros(light.shape[:2], bool)
    span = fmt.white_level - fmt.black_level
    for place, colour in enumerate(fmt.cfa):
        site = stack[:, place // 2 : height : 2, place % 2 : width : 2]
        light[..., "RGB".index(colour)] += (site.mean(0) - fmt.black_level) / span / fmt.cfa.count(colour)
        clipped |= site.max(0) >= fmt.black_level + CLIPPED * span
    return Cells(light, clipped)


def in_cells(corners: Floats) -> Floats:
    """Places in pixels of the mosaic, to places in cells, which lie at the middle of four pixels."""
    return (corners - 0.5) / 2


def in_pixels(places: Floats) -> Floats:
    """The inverse of `in_cells`."""
    return places * 2 + 0.5


def patch_means(cells: Cells, corners: Floats) -> tuple[Floats, Floats]:
    """Mean light of patches, [N, 3], and which part of each is clipped, [N]; corners [N, 4, 2] in pixels.

    Raises:
        ValueError: A patch is not all in the frame, or holds no cell.
    """
    means, clipped = [], []
    for at, inside in patch_pixels(cells.clipped.shape, in_cells(corners)):
        means.append(cells.light[at][inside].mean(0))
        clipped.append(cells.clipped[at][inside].mean())
    return np.stack(means), np.array(clipped)
