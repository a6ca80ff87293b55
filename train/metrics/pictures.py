"""How close a picture is to another: value by value, and by structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..losses.ms_ssim import ms_ssim as ms_ssim_of_tensors

Floats = npt.NDArray[np.float64]
Picture = npt.NDArray[Any]
"""[H, W, 3], sRGB: uint8, or floating point in [0, 1]."""

SSIM_WINDOW = 7
K1, K2 = 0.01, 0.03


def unit(picture: npt.ArrayLike) -> Floats:
    """A picture as float64 in [0, 1]: [H, W, 3], or [H, W] for one channel.

    Raises:
        ValueError: Of another shape, or neither uint8 nor floating point.
    """
    values = np.asarray(picture)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError(f"a picture is [H, W, 3], or [H, W], not {[*values.shape]}")
    if values.dtype == np.uint8:
        return values / 255.0
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"a picture is uint8, or floating point in [0, 1], not {values.dtype}")
    return values.astype(np.float64)


def unit_pair(shown: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Two pictures of one size, as `unit`. Raises ValueError."""
    a, b = unit(shown), unit(reference)
    if a.shape != b.shape:
        raise ValueError(f"pictures of one size are compared, not {[*a.shape]} and {[*b.shape]}")
    return a, b


def psnr(shown: npt.ArrayLike, reference: npt.ArrayLike, full: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB, infinite for equal pictures.

    Args:
        shown, reference: Values of one shape.
        full: The value of white: 255 for codes.

    Raises:
        ValueError: Other shapes, or nothing in them.
    """
    a, b = np.asarray(shown, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"values of one shape are compared, not {[*a.shape]} and {[*b.shape]}")
    error = float(np.mean((a - b) ** 2))
    return float(10 * np.log10(full**2 / error)) if error else float("inf")


def ssim_map(shown: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Structural similarity at every place that is three pixels from the border: [H - 6, W - 6, 3], or [H - 6, W - 6].

    Square windows of 7 x 7 and sample covariances, as scikit-image has them by default and `score_pairs` uses them.

    Raises:
        ValueError: Not two pictures of one size, or smaller than 7 x 7.
    """
    a, b = unit_pair(shown, reference)
    if min(a.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"pictures of at least {SSIM_WINDOW} x {SSIM_WINDOW} are compared, not {[*a.shape]}")
    mean_a, mean_b = _window_means(a), _window_means(b)
    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    variances = unbiased * (_window_means(a * a) + _window_means(b * b) - mean_a**2 - mean_b**2)
    covariance = unbiased * (_window_means(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    return luminance * (2 * covariance + K2**2) / (variances + K2**2)


def ssim(shown: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Mean of `ssim_map`: 1 for equal pictures. Raises ValueError."""
    return float(ssim_map(shown, reference).mean())


def ms_ssim(shown: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Multi-scale structural similarity over five scales: 1 for equal pictures.

    Raises:
        ValueError: Not two pictures of one size, or smaller than 161 x 161.
    """
    a, b = (torch.from_numpy(np.atleast_3d(x)).permute(2, 0, 1)[None] for x in unit_pair(shown, reference))
    return float(ms_ssim_of_tensors(a, b)[0])


def _window_means(values: Floats) -> Floats:
    rows, columns = (n - SSIM_WINDOW + 1 for n in values.shape[:2])
    down = sum(values[k : k + rows] for k in range(SSIM_WINDOW))
    return sum(down[:, k : k + columns] for k in range(SSIM_WINDOW)) / SSIM_WINDOW**2  # pyright: ignore
