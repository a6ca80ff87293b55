"""The piece of a frame that says most, or all of it, from what the sensor saw to every picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...engines.reference import levelled, srgb_curve
from .frames import Frame, Picture

EDGE = 160
"""Of a crop, in pixels."""

_STEP = 8
"""How far apart the places lie that are looked at, in pixels; even, so that mosaics keep their phase."""


@dataclass(frozen=True, eq=False)
class Strip:
    """Crops of one frame, or all of it, side by side.

    Attributes:
        name: Of the frame.
        crops: By caption: grey [h, w] or colour [h, w, 3], uint8.
    """

    name: str
    crops: dict[str, npt.NDArray[np.uint8]]


def strip_of(frame: Frame, pictures: Mapping[str, Picture]) -> Strip:
    """The mosaic in grey, the pictures, and the reference where there is one.

    Args:
        frame: The frame.
        pictures: By what made them, at least one.
    """
    looked_at = frame.reference if frame.reference is not None else next(iter(pictures.values()))
    top, left = most_detailed(looked_at)
    piece, whole = np.s_[top : top + EDGE, left : left + EDGE], whole_strip(frame, pictures).crops
    return Strip(frame.name, {caption: np.ascontiguousarray(picture[piece]) for caption, picture in whole.items()})


def whole_strip(frame: Frame, pictures: Mapping[str, Picture]) -> Strip:
    """`strip_of`, but all of the frame."""
    grey = np.rint(srgb_curve(levelled(frame.raw, frame.raw_format)) * 255).astype(np.uint8)
    reference = {} if frame.reference is None else {"reference": frame.reference}
    return Strip(frame.name, {"input": grey, **pictures, **reference})


def most_detailed(picture: Picture, edge: int = EDGE) -> tuple[int, int]:
    """Where the square of a picture [H, W, 3] begins whose neighbours differ most: (top, left), both even."""
    luma = picture.astype(np.float64) @ [0.299, 0.587, 0.114]
    steps = np.zeros_like(luma)
    steps[:, 1:] += np.abs(np.diff(luma, axis=1))
    steps[1:] += np.abs(np.diff(luma, axis=0))
    sums = np.pad(steps.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = luma.shape
    tops, lefts = (np.arange(0, max(1, size - edge + 1), _STEP) for size in (height, width))
    bottoms, rights = np.minimum(tops + edge, height), np.minimum(lefts + edge, width)
    inside = sums[np.ix_(bottoms, rights)] - sums[np.ix_(tops, rights)]
    inside += sums[np.ix_(tops, lefts)] - sums[np.ix_(bottoms, lefts)]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(tops[row]), int(lefts[column])
