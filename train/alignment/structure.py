"""What two cameras agree on: structure, with brightness, colour and contrast taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..protocols import opencv

Floats = npt.NDArray[np.float32]

SURROUND = 8.0
"""Standard deviation, in pixels, of the surroundings that brightness and contrast are taken from."""

WEAKEST = 0.03
"""Contrast in grey of [0, 1] that counts as much as none: noise of flat areas is not blown up."""

MOST = 3.0
"""Standard deviations that structure is limited to."""

_SMALLER = 4
"""How much smaller surroundings are calculated, which are smooth."""


def grey(picture: npt.NDArray[Any]) -> Floats:
    """Luma of a picture [H, W, 3], uint8 or float in [0, 1]: float32 [H, W] in [0, 1]."""
    cv2 = opencv("alignment")
    values = picture.astype(np.float32)
    if picture.dtype == np.uint8:
        values *= np.float32(1 / 255)
    return cv2.cvtColor(np.ascontiguousarray(values), cv2.COLOR_RGB2GRAY)


def structure(values: Floats, blur: float = 0.0) -> Floats:
    """Local structure: what differs from the surroundings, in their standard deviations.

    Args:
        values: float32 [H, W].
        blur: Standard deviation of a blur that comes first, in pixels, against noise.

    Returns:
        float32 [H, W], within `MOST` about 0.
    """
    cv2 = opencv("alignment")
    if blur:
        values = cv2.GaussianBlur(values, (0, 0), blur)
    mean = surround(values)
    spread = surround(cv2.multiply(values, values))
    spread -= mean * mean
    np.sqrt(np.maximum(spread, 0, out=spread), out=spread)
    spread += np.float32(WEAKEST)
    found = cv2.divide(values - mean, spread)
    return np.clip(found, -MOST, MOST, out=found)


def surround(values: Floats, reach: float = SURROUND) -> Floats:
    """The mean about each place, weighted by a Gaussian of standard deviation `reach` pixels: float32, as `values`."""
    cv2 = opencv("alignment")
    height, width = values.shape[:2]
    small = (max(1, width // _SMALLER), max(1, height // _SMALLER))
    coarse = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(coarse, (0, 0), reach / _SMALLER)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
