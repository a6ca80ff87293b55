"""TMQI, the tone-mapped image quality index: how well a picture of 8 bits shows a scene of more range than it has.

H. Yeganeh, Z. Wang: "Objective Quality Assessment of Tone-Mapped Images", IEEE Transactions on Image Processing 22(2),
2013. It joins structural fidelity, which compares what eyes can see of contrast and structure in the scene's light and
in the picture, on five scales, with statistical naturalness, which says how usual the picture's brightness and contrast
are among photographs. What the paper leaves open (the range that the light is brought to, the brightness of the picture
as a weighted sum of its codes, averages of 2 x 2 between scales) is as in the authors' program. It has no weights that
would have to be had from somewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ...engines.cie import luminance
from ..curves import LUMA
from ..losses.ms_ssim import SCALE_WEIGHTS, SIGMA, WINDOW, blurred, gaussian, least_edge
from .pictures import unit

Floats = npt.NDArray[np.float64]

SHARE, FIDELITY_POWER, NATURALNESS_POWER = 0.8012, 0.3046, 0.7088
"""a, alpha and beta of the paper: Q = a S^alpha + (1 - a) N^beta."""

VISIBLE, STRUCTURE = 0.01, 10.0
"""C1 and C2 of the paper, which keep its two fractions from being 0 / 0."""

FREQUENCIES = (16.0, 8.0, 4.0, 2.0, 1.0)
"""Of the scales, the finest first, in cycles per degree: pictures are looked at with 32 pixels to a degree."""

SENSITIVITY = 100.0
"""What the curve of `_sensitivity`, which is at most about 1, is multiplied by."""

MIDDLE_GREY, SLOPE = 128.0, 3.0
"""The brightness, in codes, at which contrast is just seen; and how many standard deviations of doubt that is."""

LIGHT_RANGE = 2.0**32 - 1
"""What the light of a scene is brought to before its contrast is compared with what can be seen."""

MEAN, MEAN_SPREAD = 115.94, 27.99
"""Of the mean brightness of photographs, in codes: a Gaussian."""

CONTRAST_ALPHA, CONTRAST_BETA, MOST_CONTRAST = 4.4, 10.1, 64.29
"""Of the contrast of photographs: a Beta distribution of it, divided by the most, in codes."""

LEAST_EDGE = least_edge(len(SCALE_WEIGHTS))
"""How wide and high a picture must be, in pixels, for all scales."""

_PRECISION = 1e-12
"""Variances below this share of the mean square are what rounding leaves of equal values."""


@dataclass(frozen=True)
class Tmqi:
    """All in [0, 1], 1 is best.

    Attributes:
        quality: The index, Q.
        fidelity: Structural fidelity, S.
        naturalness: Statistical naturalness, N.
    """

    quality: float
    fidelity: float
    naturalness: float


def tmqi(radiance: npt.ArrayLike, picture: npt.ArrayLike) -> Tmqi:
    """The index of a picture of a scene.

    Args:
        radiance: The scene's light, 0 and more, of any scale: linear sRGB [H, W, 3], or luminance [H, W].
        picture: sRGB [H, W, 3], or grey [H, W], uint8 or in [0, 1].

    Raises:
        ValueError: Not of one size, smaller than `LEAST_EDGE`, or light that is negative or not finite.
    """
    light, codes = _luminance(radiance), _luma(picture)
    if light.shape != codes.shape or min(codes.shape) < LEAST_EDGE:
        raise ValueError(
            f"TMQI compares light and a picture of one size, at least {LEAST_EDGE} x {LEAST_EDGE}, "
            f"not {[*light.shape]} and {[*codes.shape]}"
        )
    fidelity, naturalness = structural_fidelity(light, codes), statistical_naturalness(codes)
    quality = SHARE * fidelity**FIDELITY_POWER + (1 - SHARE) * naturalness**NATURALNESS_POWER
    return Tmqi(quality, fidelity, naturalness)


def structural_fidelity(light: Floats, codes: Floats) -> float:
    """S: how much of the visible structure of luminance [H, W] is in codes [H, W] of 8 bits, in [0, 1].

    It does not depend on the scale of the light. Contrast that is turned round counts as none.
    """
    span = float(light.max() - light.min())
    scaled = (light - light.min()) * (LIGHT_RANGE / span) if span > 0 else np.zeros_like(light)
    scene, shown = (torch.from_numpy(np.ascontiguousarray(x))[None, None] for x in (scaled, codes))
    total = 1.0
    for weight, frequency in zip(SCALE_WEIGHTS, FREQUENCIES, strict=True):
        total *= max(0.0, _local_fidelity(scene, shown, frequency)) ** weight
        scene, shown = (avg_pool2d(x, 2, ceil_mode=True) for x in (scene, shown))
    return min(1.0, total)


def statistical_naturalness(codes: Floats) -> float:
    """N: how usual mean and contrast of codes [H, W] of 8 bits are, as a share of the most usual, in [0, 1].

    Contrast is the mean of the standard deviations of blocks of 11 x 11, whole ones alone.
    """
    return _brightness_term(float(codes.mean())) * _contrast_term(_contrast(codes))


def _brightness_term(mean: float) -> float:
    return math.exp(-(((mean - MEAN) / MEAN_SPREAD) ** 2) / 2)


def _contrast_term(contrast: float) -> float:
    """The density of the Beta distribution over that of its mode."""
    x, a, b = contrast / MOST_CONTRAST, CONTRAST_ALPHA - 1, CONTRAST_BETA - 1
    mode = a / (a + b)
    return (x / mode) ** a * ((1 - x) / (1 - mode)) ** b if 0 < x < 1 else 0.0


def _contrast(codes: Floats) -> float:
    height, width = (size // WINDOW * WINDOW for size in codes.shape)
    blocks = codes[:height, :width].reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW)
    return float(blocks.std(axis=(1, 3), ddof=1).mean())


def _local_fidelity(scene: Tensor, shown: Tensor, frequency: float) -> float:
    """The mean over all places of one scale, float64 [1, 1, H, W] each."""
    kernel = gaussian(WINDOW, SIGMA, scene)
    scene, shown = scene - scene.mean(), shown - shown.mean()  # less is lost to rounding
    deviations = []
    for values in (scene, shown):
        squares = blurred(values * values, kernel)
        variance = squares - blurred(values, kernel) ** 2
        deviations.append(torch.where(variance > _PRECISION * squares, variance, 0.0).sqrt())
    together = blurred(scene * shown, kernel) - blurred(scene, kernel) * blurred(shown, kernel)
    a, b = deviations
    seen_a, seen_b = _seen(a, frequency), _seen(b, frequency)
    contrast = (2 * seen_a * seen_b + VISIBLE) / (seen_a**2 + seen_b**2 + VISIBLE)
    return float((contrast * (together + STRUCTURE) / (a * b + STRUCTURE)).mean())


def _seen(deviation: Tensor, frequency: float) -> Tensor:
    """How likely contrast of that standard deviation, in codes, is to be seen: in [0, 1]."""
    threshold = MIDDLE_GREY / (math.sqrt(2) * SENSITIVITY * _sensitivity(frequency))
    return torch.special.ndtr((deviation - threshold) / (threshold / SLOPE))


def _sensitivity(frequency: float) -> float:
    """Of the eye to contrast (Mannos, Sakrison 1974), at so many cycles per degree."""
    return 2.6 * (0.0192 + 0.114 * frequency) * math.exp(-((0.114 * frequency) ** 1.1))


def _luminance(radiance: npt.ArrayLike) -> Floats:
    values: npt.NDArray[Any] = np.asarray(radiance, np.float64)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError(f"light is [H, W, 3], or [H, W], not {[*values.shape]}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("light is finite, and 0 or more")
    return values if values.ndim == 2 else luminance(values)


def _luma(picture: npt.ArrayLike) -> Floats:
    """Of the picture's codes, weighed as if they were light."""
    values = 255 * unit(picture)
    return values if values.ndim == 2 else values @ np.array(LUMA)
