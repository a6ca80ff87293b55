"""Temporal flicker: what changes from frame to frame though the scene stands still.

Where the scene stands still and its light changes smoothly, pictures have to follow the light: that is no flicker.
What is measured there needs no model of how they follow it, because the light comes back (`changing_light`): frames of
equal light should have equal pictures, and what differs among them is flicker; and from each light to the next the mean
colour should change as it does beside, so that what a smooth curve through its neighbours misses is a jump. A network
that pumps, whose brightness depends on noise or on what came before, shows in the first; one that changes its mind at
some brightness, in the second.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .pictures import unit

Floats = npt.NDArray[np.float64]

EDGE_SHARE, LEAST_STEP = 0.05, 4.0
"""Of all steps between neighbours in the mean picture, the steepest count as edges if they have so many codes."""


LUMA = np.array([0.299, 0.587, 0.114])
"""What the steps across edges are seen in."""

LEAST_PERIOD = 8
"""Frames of a cycle of `changing_light`, at least; below, hardly a light has another on either side."""


@dataclass(frozen=True)
class Flicker:
    """Standard deviations over time, in codes of 8 bits; their squares are the variances. Where the light changes,
    among frames of equal light.

    Attributes:
        colour: Of the mean colour of the frame, root of the mean over its channels.
        edges: Of the steps across edges, root of the mean over them: how much contours boil. 0 without edges.
        pixels: Of the values, root of the mean over all.
        frames: How many were seen.
        jump: Where the light changes: the largest jump of a channel's mean between two neighbouring lights, beyond a
            smooth course; 0 where fewer than five lights are seen. None of steady light.
    """

    colour: float
    edges: float
    pixels: float
    frames: int
    jump: float | None = None


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
    """Takes the developed frames of a still scene one by one; it keeps some pictures of float64, not the frames."""

    def __init__(self) -> None:
        self._colour, self._pixels, self._steps = _Spread(), _Spread(), _Spread()

    def add(self, frame: npt.ArrayLike) -> None:
        """The next frame, sRGB [H, W, 3], uint8 or in [0, 1], 2 x 2 and up.

        Raises:
            ValueError: No picture, or of another size than the frames before.
        """
        values = _codes(frame, self._pixels.mean.shape if self._pixels.count else None)
        self._colour.add(values.mean((0, 1)))
        self._pixels.add(values)
        self._steps.add(_steps(values))

    def result(self) -> Flicker:
        """Of all frames so far.

        Raises:
            ValueError: Fewer than two.
        """
        if self._pixels.count < 2:
            raise ValueError("flicker shows in two frames and more; give more")
        boiling = self._steps.variance()[_edges(np.abs(self._steps.mean))]
        colour, pixels = _deviation(self._colour.variance()), _deviation(self._pixels.variance())
        return Flicker(colour, _deviation(boiling), pixels, self._pixels.count)


class ChangingLightMeter:
    """Takes the developed frames of a still scene one by one whose light changes and comes back.

    A variance is half the mean square of the difference between a frame and the last one of the same light: it is that
    about the mean for what is independent from frame to frame. Of each light it keeps the last frame, in 8 bits if it
    came so.
    """

    def __init__(self) -> None:
        self._frames, self._pairs = 0, 0
        self._last: dict[float, npt.NDArray[Any]] = {}
        self._colours: dict[float, list[Floats]] = {}
        self._shape: tuple[int, ...] | None = None
        self._steps, self._changes = np.zeros(0), np.zeros(0)
        self._colour, self._pixels = np.zeros(3), 0.0

    def add(self, frame: npt.ArrayLike, light: float) -> None:
        """The next frame, as of `FlickerMeter.add`, and its light: a number that is the same for equal light and
        larger for more, such as stops.

        Raises:
            ValueError: As there, or a light that is not finite.
        """
        values = _codes(frame, self._shape)
        if not math.isfinite(light):
            raise ValueError(f"the light of a frame is a finite number, not {light}")
        self._shape = values.shape
        self._frames += 1
        steps = _steps(values)
        self._steps = self._steps + steps if self._steps.size else steps
        self._colours.setdefault(light, []).append(values.mean((0, 1)))
        if light in self._last:
            last = 255 * unit(self._last[light])
            squares = (steps - _steps(last)) ** 2 / 2
            self._changes = self._changes + squares if self._changes.size else squares
            self._colour = self._colour + (values - last).mean((0, 1)) ** 2 / 2
            self._pixels += float(((values - last) ** 2).mean()) / 2
            self._pairs += 1
        self._last[light] = np.array(frame)

    def result(self) -> Flicker:
        """Of all frames so far.

        Raises:
            ValueError: No light came twice.
        """
        if not self._pairs:
            raise ValueError("flicker under changing light shows in frames of equal light; give light that comes back")
        edges = self._changes[_edges(np.abs(self._steps) / self._frames)]
        colour, boiling = _deviation(self._colour / self._pairs), _deviation(edges / self._pairs)
        return Flicker(colour, boiling, math.sqrt(self._pixels / self._pairs), self._frames, self._jump())

    def _jump(self) -> float:
        """Twice the farthest that a mean colour is from the cubic through those of two neighbours on either side: half
        of a jump lies on each of its sides, whatever their distances."""
        lights = sorted(self._colours)
        means = np.array([np.mean(self._colours[light], 0) for light in lights])
        farthest = 0.0
        for place in range(2, len(lights) - 2):
            around = [place - 2, place - 1, place + 1, place + 2]
            weights = _cubic([lights[k] for k in around], lights[place])
            farthest = max(farthest, float(np.abs(means[place] - weights @ means[around]).max()))
        return 2 * farthest


def _cubic(places: list[float], at: float) -> Floats:
    """What the values at four places weigh in that of the cubic through them (Lagrange)."""
    others = ([one for one in places if one != place] for place in places)
    return np.array(
        [math.prod((at - one) / (place - one) for one in rest) for place, rest in zip(places, others, strict=True)]
    )


def changing_light(frames: int, period: int, stops: float) -> list[float]:
    """How bright each frame is, in stops from the middle: a slow sine. Each light comes twice in a cycle, as it rises
    and as it falls, exactly the same number.

    Args:
        frames: How many.
        period: Frames of a cycle, a multiple of 4, `LEAST_PERIOD` or more.
        stops: From the darkest to the brightest.

    Raises:
        ValueError: A period that is none of these.
    """
    if period < LEAST_PERIOD or period % 4:
        raise ValueError(f"a cycle of {period} frames does not come back evenly; give a multiple of 4 from 8 up")
    quarter = [stops / 2 * math.sin(2 * math.pi * (k + 0.5) / period) for k in range(period // 4)]
    half = quarter + quarter[::-1]
    return list(itertools.islice(itertools.cycle(half + [-light for light in half]), frames))


def _codes(frame: npt.ArrayLike, shape: tuple[int, ...] | None) -> Floats:
    """Of 8 bits, in float64. Raises ValueError: no picture, or not of the shape that frames before had."""
    values = 255 * unit(frame)
    if values.ndim != 3 or min(values.shape[:2]) < 2:
        raise ValueError(f"flicker is measured in colour frames [H, W, 3] of 2 x 2 and up, not {[*values.shape]}")
    if shape is not None and values.shape != shape:
        raise ValueError(f"a frame of {[*values.shape]} follows one of {[*shape]}; give one size")
    return values


def _steps(values: Floats) -> Floats:
    """Between neighbours in luma, those to the right and then those down, in one row."""
    luma = values @ LUMA
    return np.concatenate([np.diff(luma, axis=axis).ravel() for axis in (1, 0)])


def _edges(steep: Floats) -> npt.NDArray[np.bool_]:
    """Which of the steps of the mean picture are edges."""
    return steep >= max(LEAST_STEP, np.quantile(steep, 1 - EDGE_SHARE))


def _deviation(variances: Floats) -> float:
    return float(np.sqrt(variances.mean())) if variances.size else 0.0
