"""Temporal flicker: what changes from frame to frame though the scene stands still."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .pictures import unit

Floats = npt.NDArray[np.float64]

EDGE_SHARE, LEAST_STEP = 0.05, 4.0
"""Of all steps between neighbours in the mean picture, the steepest count as edges if they have so many codes."""


@dataclass(frozen=True)
class Flicker:
    """Standard deviations over time, in codes of 8 bits; their squares are the variances.

    Attributes:
        colour: Of the mean colour of the frame, root of the mean over its channels.
        edges: Of the steps across edges, root of the mean over them: how much contours boil. 0 without edges.
        pixels: Of the values, root of the mean over all.
        frames: How many were seen.
    """

    colour: float
    edges: float
    pixels: float
    frames: int


class _Spread:
    """Mean and sum of squared deviations of arrays that come one by one (Welford)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, value: Floats) -> None:
        self.count += 1
        away = value - self.mean
        self.mean = self.mean + away / self.count
        self.squares = self.squares + away * (value - self.mean)

    def variance(self) -> Floats:
        """About the mean of the frames seen, not biased by their number."""
        return self.squares / (self.count - 1)


class FlickerMeter:
    """Takes the developed frames of a still scene one by one; it keeps six pictures of float64, not the frames."""

    def __init__(self) -> None:
        self._colour, self._pixels, self._right, self._down = _Spread(), _Spread(), _Spread(), _Spread()

    def add(self, frame: npt.ArrayLike) -> None:
        """The next frame, sRGB [H, W, 3], uint8 or in [0, 1], 2 x 2 and up.

        Raises:
            ValueError: No picture, or of another size than the frames before.
        """
        values = 255 * unit(frame)
        if values.ndim != 3 or min(values.shape[:2]) < 2:
            raise ValueError(f"flicker is measured in colour frames [H, W, 3] of 2 x 2 and up, not {[*values.shape]}")
        if self._pixels.count and values.shape != self._pixels.mean.shape:
            raise ValueError(f"a frame of {[*values.shape]} follows one of {[*self._pixels.mean.shape]}; give one size")
        self._colour.add(values.mean((0, 1)))
        self._pixels.add(values)
        luma = values @ np.array([0.299, 0.587, 0.114])
        self._right.add(np.diff(luma, axis=1))
        self._down.add(np.diff(luma, axis=0))

    def result(self) -> Flicker:
        """Of all frames so far.

        Raises:
            ValueError: Fewer than two.
        """
        if self._pixels.count < 2:
            raise ValueError("flicker shows in two frames and more; give more")
        steep = np.concatenate([np.abs(spread.mean).ravel() for spread in (self._right, self._down)])
        changes = np.concatenate([spread.variance().ravel() for spread in (self._right, self._down)])
        edges = changes[steep >= max(LEAST_STEP, np.quantile(steep, 1 - EDGE_SHARE))]
        variances = (self._colour.variance(), edges if edges.size else np.zeros(1), self._pixels.variance())
        colour, boiling, pixels = (float(np.sqrt(v.mean())) for v in variances)
        return Flicker(colour, boiling, pixels, self._pixels.count)
