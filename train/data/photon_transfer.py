"""How noisy a camera is, measured on single frames of anything: variance against signal in their flattest parts.

A photon-transfer curve is usually taken from flat fields or pairs of frames. Where there are only pictures, this does:

1. *Digital gains.* A camera that multiplies after conversion leaves gaps between the codes of a colour, as wide as the
   gain (`digital_gains`). Samples divided by it are what the converter gave; there all colours have the same noise.
2. *Flat parts.* Each of the four planes is put in bins by its mean over 7 x 7 samples. In each bin the fifth of the
   samples counts where a strongly smoothed plane is the least steep (`flat_noise`).
3. *Noise.* There, the median of |second difference along both axes| gives the standard deviation. It sees nothing of
   slopes and little of what selected the samples, and is not moved by the few on texture.
4. *Line.* variance = shot * signal + read, fitted to the bins by their relative errors (`fit_line`).

Texture adds to it, so the result is an upper bound, tight where pictures have flat parts.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 12
FLAT = 0.2
"""Share of the samples of a bin that count."""

OUTLIER = 5.0

_FEWEST = 40
"""Samples of a row, below which its mean says too little."""

_NORMAL = 0.6745
"""Median of |x| of a normal distribution."""

_LAPLACE = np.array([1.0, -2.0, 1.0])
_GAUSS = np.exp(-(np.arange(-7, 8) ** 2) / (2 * 2.5**2))
_SMOOTH = _GAUSS / _GAUSS.sum()
_SITES = {"RGGB": (0, 1, 1, 2), "GRBG": (1, 0, 2, 1), "GBRG": (1, 2, 0, 1), "BGGR": (2, 1, 1, 0)}


class Curve(NamedTuple):
    """Noise of one frame, in the white of the frame.

    Attributes:
        signal, variance: float64 [N], of samples divided by the digital gain of their colour.
        colour: int [N], 0 red, 1 green, 2 blue.
    """

    signal: Floats
    variance: Floats
    colour: npt.NDArray[np.int64]


class Rest(NamedTuple):
    """What a frame has besides noise that is independent from sample to sample.

    Attributes:
        rows, columns: Variance that whole rows or columns share, as a share of the variance of a sample. Texture along
            an axis adds to it.
        outliers: Share of the samples that exceed all eight neighbours of their colour by `OUTLIER` standard
            deviations. Points of light add to it.
    """

    rows: float
    columns: float
    outliers: float


class Line(NamedTuple):
    """variance = shot * signal + read; `scatter` is the standard deviation of the bins about it, as a share of it."""

    shot: float
    read: float
    scatter: float


def planes_by_colour(mosaic: npt.NDArray[np.generic], cfa: str) -> list[tuple[int, npt.NDArray[np.generic]]]:
    """Colour (0, 1, 2) and plane of each of the four sites of a mosaic."""
    return [(colour, mosaic[place // 2 :: 2, place % 2 :: 2]) for place, colour in enumerate(_SITES[cfa])]


def digital_gains(codes: npt.NDArray[np.integer], cfa: str = "RGGB") -> Floats:
    """Gains that a camera applied to red, green and blue after conversion.

    Args:
        codes: Samples as they came, [H, W], with some hundreds of different values in each colour.
        cfa: Their filter array.

    Returns:
        float64 [3], 1 where all codes occur.
    """
    groups: list[list[npt.NDArray[np.generic]]] = [[], [], []]
    for colour, plane in planes_by_colour(codes, cfa):
        groups[colour].append(plane)
    return np.array([np.mean([_spacing(np.asarray(plane)) for plane in group]) for group in groups])


def _spacing(codes: npt.NDArray[np.generic]) -> float:
    """Mean distance of the codes that occur: roughly by counting, then where they are most in step."""
    counts = np.bincount(codes.ravel())
    counts[:4] = 0  # where black is cut off
    used = np.flatnonzero(counts >= max(2, counts[counts > 0].mean() / 10))
    gaps = np.diff(used)
    usual = np.median(gaps)
    rough = float(gaps[np.abs(gaps - usual) <= 1].mean())
    if rough < 1.2:
        return 1.0
    tried = rough * np.linspace(0.97, 1.03, 301)
    turns = np.exp(2j * np.pi * np.arange(len(counts)) / tried[:, None])
    return float(tried[np.argmax(np.abs(turns @ counts))])


def flat_noise(mosaic: npt.NDArray[np.floating], gains: npt.ArrayLike = (1, 1, 1), cfa: str = "RGGB") -> Curve:
    """Signal and variance of the flattest parts of a frame, in `BINS` bins for each plane.

    Args:
        mosaic: [H, W], black 0, white 1.
        gains: Of red, green and blue, applied after conversion.
        cfa: Its filter array.
    """
    points = []
    for colour, plane in planes_by_colour(mosaic, cfa):
        signal = np.asarray(plane, np.float64) / np.asarray(gains, np.float64)[colour]
        points += [(*point, colour) for point in _bins(signal)]
    signals, variances, colours = np.array(points).T
    return Curve(signals, variances, colours.astype(np.int64))


def _bins(signal: Floats) -> list[tuple[float, float]]:
    differences = _filtered(signal, _LAPLACE) / 6  # standard deviation of independent samples is kept
    mean = _filtered(signal, np.full(7, 1 / 7))
    smooth = _filtered(signal, _SMOOTH)
    steep = _steepness(smooth)
    points = []
    edges = np.quantile(mean, np.linspace(0, 1, BINS + 1))
    for low, high in itertools.pairwise(edges):
        within = (mean >= low) & (mean <= high)
        flat = within & (steep <= np.quantile(steep[within], FLAT))
        points.append((float(mean[flat].mean()), float((np.median(np.abs(differences[flat])) / _NORMAL) ** 2)))
    return points


def _steepness(plane: Floats) -> Floats:
    down, across = np.gradient(plane)
    return np.hypot(down, across)


def smoothed(mosaic: npt.NDArray[np.floating], cfa: str) -> Floats:
    """Each of the four planes of a mosaic [H, W] without noise and texture, put together again."""
    smooth = np.empty(mosaic.shape)
    for (_, source), (_, place) in zip(planes_by_colour(mosaic, cfa), planes_by_colour(smooth, cfa), strict=True):
        place[:] = _filtered(np.asarray(source, np.float64), _SMOOTH)
    return smooth


def _filtered(plane: Floats, kernel: Floats) -> Floats:
    """Along both axes, reflected at the borders."""
    edge = len(kernel) // 2
    for axis in (0, 1):
        padded = np.pad(plane, [(edge, edge) if axis == a else (0, 0) for a in (0, 1)], mode="reflect")
        length = plane.shape[axis]
        pieces = [w * np.take(padded, range(k, k + length), axis) for k, w in enumerate(kernel)]
        plane = np.sum(pieces, axis=0)
    return plane


def fit_line(curve: Curve, darkest: float = 0.0035) -> Line:
    """The line through a curve, each bin weighted by its own variance, as their errors are proportional to it.

    Args:
        curve: From `flat_noise`.
        darkest: Signals below count for nothing: there, noise is cut off at black.
    """
    used = (curve.signal > darkest) & (curve.variance > 0)
    signal, variance = curve.signal[used], curve.variance[used]
    system = np.stack([signal, np.ones_like(signal)], 1)
    solution, *_ = np.linalg.lstsq(system / variance[:, None], np.ones_like(signal), rcond=None)
    scatter = float(np.std(variance / (system @ solution)))
    return Line(float(solution[0]), float(solution[1]), scatter)


def rest(mosaic: npt.NDArray[np.floating], line: Line, gains: npt.ArrayLike = (1, 1, 1), cfa: str = "RGGB") -> Rest:
    """What is left beside the noise of a line.

    Args:
        mosaic: [H, W], black 0, white 1.
        line: Of the frame.
        gains, cfa: As in `flat_noise`.
    """
    rows, columns, outliers = [], [], 0
    for colour, plane in planes_by_colour(mosaic, cfa):
        signal = np.asarray(plane, np.float64) / np.asarray(gains, np.float64)[colour]
        smooth = _filtered(signal, _SMOOTH)
        deviation = np.sqrt(np.maximum(line.shot * smooth + line.read, 1e-12))
        steep = _steepness(smooth) / deviation
        flat = steep <= np.quantile(steep, 0.3)
        rows += _shared(signal / deviation, flat)
        columns += _shared((signal / deviation).T, flat.T)
        outliers += int((signal > _highest_neighbour(signal) + OUTLIER * deviation).sum())
    return Rest(float(np.mean(rows)), float(np.mean(columns)), outliers / mosaic.size)


def _shared(signal: Floats, flat: npt.NDArray[np.bool_]) -> list[float]:
    """What the squared means of rows, compared with the rows above and below, exceed that of independent samples by."""
    steps = (signal[:-2] - 2 * signal[1:-1] + signal[2:]) / np.sqrt(6)
    used = flat[1:-1]
    variance, counts = steps[used].var(), used.sum(1)
    return [
        float(row[flats].mean() ** 2 - variance / count)
        for row, flats, count in zip(steps, used, counts, strict=True)
        if count >= _FEWEST
    ]


def _highest_neighbour(signal: Floats) -> Floats:
    padded = np.pad(signal, 1, mode="reflect")
    height, width = signal.shape
    around = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return np.max([padded[y : y + height, x : x + width] for y, x in around], axis=0)
