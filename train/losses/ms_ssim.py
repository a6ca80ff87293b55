"""Structural similarity, at one scale (Wang et al. 2004) and at several (Wang, Simoncelli, Bovik 2003).

An 11 x 11 Gaussian window of sigma 1.5, without padding; K1 = 0.01, K2 = 0.03; every channel by itself, then the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from .basic import checked

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, the finest first."""

LEAST_CONTRAST = 1e-6
"""A similarity is limited to this before it is raised to a weight below 1, whose slope at 0 is infinite."""


def gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    """`size` values of a bell whose sum is 1, of the kind and on the device of `like`."""
    places = torch.arange(size, dtype=torch.float64, device=like.device) - (size - 1) / 2
    bell = torch.exp(-(places**2) / (2 * sigma**2))
    return (bell / bell.sum()).to(like)


def blurred(picture: Tensor, kernel: Tensor) -> Tensor:
    """[B, C, H, W] convolved with the kernel [N] in both directions, without padding."""
    channels = picture.shape[1]
    across = conv2d(picture, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return conv2d(across, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def least_edge(scales: int) -> int:
    """How wide and high a picture must be for so many scales, in pixels: 161 for all five."""
    return (WINDOW - 1) * 2 ** (scales - 1) + 1


def _similarities(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the places of luminance times contrast times structure, and of the last two: [B, C] each."""
    kernel = gaussian(WINDOW, SIGMA, a)
    mean_a, mean_b = blurred(a, kernel), blurred(b, kernel)
    # variances about means that are near the values themselves: less is lost to rounding than in E[x**2] - E[x]**2
    shift = torch.cat([a, b], 3).mean((2, 3), keepdim=True).detach()
    a, b, low_a, low_b = a - shift, b - shift, mean_a - shift, mean_b - shift
    variances = blurred(a * a + b * b, kernel) - low_a**2 - low_b**2
    covariance = blurred(a * b, kernel) - low_a * low_b
    contrast = (2 * covariance + C2) / (variances + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * contrast).mean((2, 3)), contrast.mean((2, 3))


def ms_ssim(shown: Tensor, wanted: Tensor, scales: int = len(SCALE_WEIGHTS)) -> Tensor:
    """Multi-scale structural similarity per picture: 1 for equal ones.

    Between the scales the picture is averaged two by two; the last line of an odd edge by itself.

    Args:
        shown, wanted: float [B, C, H, W] in [0, 1], at least `least_edge(scales)` wide and high.
        scales: 1 to 5; their weights are brought to a sum of 1.

    Returns:
        [B], float32, or float64 of float64.

    Raises:
        ValueError: Other shapes, too small, or no such number of scales.
    """
    if scales not in range(1, len(SCALE_WEIGHTS) + 1):
        raise ValueError(f"scales is {scales!r}; give 1 to {len(SCALE_WEIGHTS)}")
    with torch.autocast(shown.device.type, enabled=False):
        a, b = checked(shown, wanted, least_edge(scales))
        weights = SCALE_WEIGHTS[:scales]
        result = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
        for scale, weight in enumerate(weights, 1):
            whole, contrast = _similarities(a, b)
            similarity = whole if scale == scales else contrast
            result = result * similarity.clamp(min=LEAST_CONTRAST) ** (weight / sum(weights))
            if scale < scales:
                a, b = (avg_pool2d(x, 2, ceil_mode=True) for x in (a, b))
        return result.mean(1)


class MsSsim(nn.Module):
    """1 minus the multi-scale structural similarity.

    Args:
        scales: How many; None takes as many of the five as fit the pictures.

    Raises:
        ValueError: No such number of scales.
    """

    def __init__(self, scales: int | None = None) -> None:
        super().__init__()
        if scales is not None and scales not in range(1, len(SCALE_WEIGHTS) + 1):
            raise ValueError(f"scales is {scales!r}; give 1 to {len(SCALE_WEIGHTS)}, or none for as many as fit")
        self.scales = scales

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W], 11 x 11 and up, or `least_edge(scales)` where the scales are given; a scalar.

        Raises:
            ValueError: Smaller than that, or of other shapes.
        """
        edge = min(shown.shape[-2:]) if shown.ndim > 1 else 0
        fitting = [n for n in range(1, len(SCALE_WEIGHTS) + 1) if least_edge(n) <= edge]
        return 1 - ms_ssim(shown, wanted, self.scales or max(fitting, default=1)).mean()
