"""A colour matrix from what a camera sees of a chart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...engines.chart import NEUTRAL, REFERENCE_LAB, light_score
from ...engines.cie import Floats, lab_from_linear, linear_from_lab, luminance

_STEPS = 60
_SMALL = 1e-4  # step of the numerical derivative; entries of a matrix are about 1


def fit_matrix(means: Floats, usable: npt.NDArray[np.bool_]) -> Floats:
    """The matrix from balanced camera RGB to linear sRGB under which the patches differ least from their references.

    Its rows sum to 1, so that what is grey stays grey. Brightness is free. Least squares in linear light, each patch
    divided by its luminance, is where Levenberg's and Marquardt's method starts from; that goes on in CIELAB, with
    differences weighted as CIE94 weights them, which is smooth where CIEDE2000 is not. The better of the two by the
    mean CIEDE2000 is taken.

    Args:
        means: Light of the 24 patches after white balance, [24, 3], black at 0.
        usable: Which patches to look at, [24].
    """
    wanted = linear_from_lab(REFERENCE_LAB)
    start = _least_squares(means, wanted, usable)
    refined = _refined(start, means, usable)
    return min((start, refined), key=lambda matrix: differences(means, matrix, usable)[usable].mean())


def differences(means: Floats, matrix: Floats, usable: npt.NDArray[np.bool_]) -> Floats:
    """CIEDE2000 of the patches after a matrix, [24], as a picture in sRGB shows them, with the brightness of the usable
    neutral ones."""
    return light_score(np.maximum(means @ matrix.T, 0), usable).each


def _matrix(free: Floats) -> Floats:
    """Rows that sum to 1, from the six entries off the diagonal."""
    matrix = np.zeros((3, 3))
    matrix[~np.eye(3, dtype=bool)] = free
    return matrix + np.diag(1 - matrix.sum(1))


def _least_squares(means: Floats, wanted: Floats, usable: npt.NDArray[np.bool_]) -> Floats:
    greys = usable.copy()
    greys[: NEUTRAL.start] = False
    bright, target = luminance(means[greys]), luminance(wanted[greys])
    seen = means * float(bright @ target / (bright @ bright))  # with a brightness near the right one
    weights = 1 / (0.05 + luminance(wanted[usable]))
    free = np.empty((3, 2))
    for row in range(3):
        others = [k for k in range(3) if k != row]
        columns = (seen[usable][:, others] - seen[usable][:, [row]]) * weights[:, None]
        free[row] = np.linalg.lstsq(columns, (wanted - seen)[usable, row] * weights, rcond=None)[0]
    return _matrix(free.reshape(-1))


def _refined(start: Floats, means: Floats, usable: npt.NDArray[np.bool_]) -> Floats:
    gain = light_score(np.maximum(means @ start.T, 0), usable).gain
    point = np.append(start[~np.eye(3, dtype=bool)], np.log(gain))
    residuals, damping = _residuals(point, means, usable), 1e-2
    for _ in range(_STEPS):
        shifted = [_residuals(point + step, means, usable) for step in _SMALL * np.eye(point.size)]
        slope = (np.stack(shifted, 1) - residuals[:, None]) / _SMALL
        curvature = slope.T @ slope
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature) + 1e-9), -slope.T @ residuals)
        tried = _residuals(point + step, means, usable)
        if tried @ tried < residuals @ residuals:
            point, residuals, damping = point + step, tried, damping / 3
        else:
            damping *= 4
    return _matrix(point[:6])


def _residuals(point: Floats, means: Floats, usable: npt.NDArray[np.bool_]) -> Floats:
    """Differences in lightness, chroma and hue of the usable patches, flat."""
    linear = np.exp(point[6]) * means[usable] @ _matrix(point[:6]).T
    shown, wanted = lab_from_linear(linear), REFERENCE_LAB[usable]
    chroma = np.hypot(wanted[:, 1], wanted[:, 2])
    unit = wanted[:, 1:] / np.maximum(chroma, 1e-9)[:, None]
    apart = shown - wanted
    along = (apart[:, 1:] * unit).sum(1)
    across = apart[:, 2] * unit[:, 0] - apart[:, 1] * unit[:, 1]
    weighted = apart[:, 0], along / (1 + 0.045 * chroma), across / (1 + 0.015 * chroma)
    return np.concatenate(weighted)
