"""Sharpness: the modulation transfer function of a slanted edge, after ISO 12233 (e-SFR)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ...engines.cie import light, luminance
from .pictures import unit

Floats = npt.NDArray[np.float64]

OVERSAMPLING = 4
LEAST_EDGE = 16
LEAST_CONTRAST = 0.02
"""Of the two sides, in linear light."""

LEAST_ANGLE, LARGEST_ANGLE = 1.0, 30.0
"""Between the edge and the columns, in degrees: without a slant the pixels sample it at the same place in every row."""


def mtf(picture: npt.ArrayLike) -> tuple[Floats, Floats]:
    """How much of the contrast of each frequency across an edge is left.

    Args:
        picture: One straight edge, close to vertical or horizontal: sRGB [H, W, 3], whose luminance is measured, or
            linear light [H, W]; uint8 or in [0, 1]; 16 x 16 and up. A third of the width or more on each side is best.

    Returns:
        Frequencies in cycles per pixel, from 0 to 1, and the modulation there, 1 at 0.

    Raises:
        ValueError: No picture, too small, no edge, or one that is too straight or too slanted.
    """
    values = unit(picture)
    values = luminance(light(values)) if values.ndim == 3 else values
    if min(values.shape) < LEAST_EDGE:
        raise ValueError(f"an edge is measured in {LEAST_EDGE} x {LEAST_EDGE} pixels and up, not {[*values.shape]}")
    values = _upright(values)
    offset, slope = _line(values)
    return _transfer(_profile(values, offset, slope))


def mtf50(picture: npt.ArrayLike) -> float:
    """The frequency at which half of the contrast is left, in cycles per pixel; arguments as of `mtf`.

    Raises:
        ValueError: As `mtf`, or more than half is left at every frequency up to 1 cycle per pixel.
    """
    frequencies, modulation = mtf(picture)
    below = np.flatnonzero(modulation < 0.5)
    if not len(below):
        raise ValueError(
            "the edge keeps more than half of its contrast at every frequency; it is no picture of an edge"
        )
    k = int(below[0])
    part = (modulation[k - 1] - 0.5) / (modulation[k - 1] - modulation[k])
    return float(frequencies[k - 1] + part * (frequencies[k] - frequencies[k - 1]))


def slanted_edge(
    height: int, width: int, *, degrees: float = 5.0, sigma: float = 0.5, dark: float = 0.1, bright: float = 0.6
) -> Floats:
    """Linear light of an edge through the middle, blurred by a Gaussian: [H, W].

    Its modulation is exp(-2 (pi sigma f)**2), so its MTF50 is 0.1874 / sigma.

    Args:
        height, width: In pixels.
        degrees: From the columns.
        sigma: In pixels.
        dark, bright: Of the two sides.

    Raises:
        ValueError: `sigma` is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; give a positive number of pixels")
    y, x = np.mgrid[:height, :width].astype(np.float64)
    angle = math.radians(degrees)
    across = (x - (width - 1) / 2) * math.cos(angle) - (y - (height - 1) / 2) * math.sin(angle)
    step = np.array([math.erf(d / (sigma * math.sqrt(2))) for d in across.ravel()]).reshape(height, width)
    return dark + (bright - dark) * (1 + step) / 2


def _upright(values: Floats) -> Floats:
    """The edge from top to bottom, dark on the left."""
    edge = max(2, min(values.shape) // 8)
    to_right = values[:, -edge:].mean() - values[:, :edge].mean()
    down = values[-edge:].mean() - values[:edge].mean()
    if abs(down) > abs(to_right):
        values, to_right = values.T, down
    if not abs(to_right) >= LEAST_CONTRAST:
        raise ValueError(f"there is no edge: the sides differ by {abs(to_right):.3f} of white")
    return values if to_right > 0 else values[:, ::-1]


def _line(values: Floats) -> tuple[float, float]:
    """Where the edge crosses row 0, and by how much it moves from row to row.

    Its place in a row is the centroid of the steps there, behind a Hamming window that follows the edge.
    """
    height, width = values.shape
    steps = (values[:, 2:] - values[:, :-2]) / 2
    x, rows = np.arange(1.0, width - 1), np.arange(height)
    centres = np.full(height, float(x @ steps.sum(0) / steps.sum()))
    offset = slope = 0.0
    for reach in (width / 2, width / 4, width / 4):
        away = np.clip((x - centres[:, None]) / reach, -1, 1)
        weighted = steps * (0.54 + 0.46 * np.cos(np.pi * away)) * (np.abs(away) < 1)
        sums = weighted.sum(1)
        if (sums <= 0).any():
            raise ValueError("there is no edge in some rows; cut the picture so that one edge goes all through it")
        slope, offset = np.polyfit(rows, weighted @ x / sums, 1)
        centres = offset + slope * rows
    degrees = math.degrees(math.atan(abs(slope)))
    if not LEAST_ANGLE <= degrees <= LARGEST_ANGLE or abs(slope) * height < 1:
        raise ValueError(
            f"the edge is slanted by {degrees:.1f} degrees over {height} rows; "
            f"give {LEAST_ANGLE:g} to {LARGEST_ANGLE:g} degrees, and rows enough for it to move by a pixel"
        )
    if centres.min() < width / 8 or centres.max() > width * 7 / 8:
        raise ValueError(
            "the edge leaves the picture, or comes too close to its side; cut it with the edge in the middle"
        )
    return float(offset), float(slope)


def _profile(values: Floats, offset: float, slope: float) -> Floats:
    """Means over bins of a quarter pixel across the edge, as many on both sides."""
    height, width = values.shape
    cycles = max(1, math.floor(abs(slope) * height))  # whole ones, so that every bin is filled alike
    height = min(height, round(cycles / abs(slope)))
    y, x = np.mgrid[:height, :width]
    centre = offset + slope * y
    reach = min(float(centre.min()), float(width - 1 - centre.max())) * math.cos(math.atan(slope))
    half = math.floor(reach * OVERSAMPLING)
    across = (x - centre) * math.cos(math.atan(slope))
    bins = np.rint(across * OVERSAMPLING).astype(int) + half
    inside = (bins >= 0) & (bins <= 2 * half)
    counts, places, sums = (
        np.bincount(bins[inside], weights, 2 * half + 1)
        for weights in (None, across[inside] * OVERSAMPLING + half, values[:height][inside])
    )
    filled = counts > 0
    # a bin's samples need not lie about its middle: at some slants they lie to one side in all bins
    return np.interp(np.arange(len(counts)), places[filled] / counts[filled], sums[filled] / counts[filled])


def _transfer(profile: Floats) -> tuple[Floats, Floats]:
    steps = (profile[2:] - profile[:-2]) / 2
    places = np.arange(len(steps))
    peak = float(places @ np.abs(steps) / np.abs(steps).sum())
    away = np.clip((places - peak) / (len(steps) / 2), -1, 1)
    steps = steps * (0.54 + 0.46 * np.cos(np.pi * away))
    length = max(len(steps), 32 * OVERSAMPLING)  # zeros behind: the curve is read between its points
    spectrum = np.abs(np.fft.rfft(steps, length))
    frequencies = np.arange(len(spectrum)) * OVERSAMPLING / length
    keep = frequencies <= 1
    taken = np.sinc(2 * frequencies[keep] / OVERSAMPLING)  # by the difference over two bins, as the standard says
    return frequencies[keep], spectrum[keep] / spectrum[0] / taken
