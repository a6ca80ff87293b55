"""Distances of pictures value by value, and of their steps from pixel to pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def checked(shown: Tensor, wanted: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both pictures in float32, or float64 where both are: half precision would round away what is measured.

    Args:
        shown, wanted: Floating point [B, C, H, W].
        least: What H and W must reach.

    Raises:
        ValueError: Not two batches of pictures of one shape, not of floating point, or smaller than `least`.
    """
    if shown.shape != wanted.shape or shown.ndim != 4:
        raise ValueError(
            f"two batches [B, C, H, W] of one shape are compared, not {[*shown.shape]} and {[*wanted.shape]}"
        )
    if not (shown.is_floating_point() and wanted.is_floating_point()):
        raise ValueError(f"pictures are floating point in [0, 1], not {shown.dtype} and {wanted.dtype}")
    if min(shown.shape) < 1 or min(shown.shape[2:]) < least:
        raise ValueError(f"pictures of at least {least} x {least} are compared, not {[*shown.shape]}")
    kind = torch.float64 if shown.dtype == wanted.dtype == torch.float64 else torch.float32
    return shown.to(kind), wanted.to(kind)


def checked_mask(mask: Tensor, shown: Tensor) -> Tensor:
    """A mask for pictures, of their kind.

    Args:
        mask: [B, 1, H, W], 1 where the pictures may be compared and 0 where not.
        shown: Of `checked`.

    Raises:
        ValueError: Another shape.
    """
    expected = (shown.shape[0], 1, *shown.shape[2:])
    if mask.shape != expected:
        raise ValueError(f"the mask of pictures {[*shown.shape]} is {[*expected]}, not {[*mask.shape]}")
    return mask.to(shown)


def equal_outside(shown: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """`shown` where the mask is 1, and what is wanted where it is 0: what lies there costs nothing and has no slope.

    Args:
        shown, wanted: As of `checked`.
        mask: As of `checked_mask`.

    Raises:
        ValueError: Other shapes.
    """
    a, b = checked(shown, wanted)
    m = checked_mask(mask, a)
    return b + m * (a - b)


class L1(nn.Module):
    """Mean absolute difference.

    Args:
        border: Pixels on each side that do not count.

    Raises:
        ValueError: `border` is no whole number, 0 or more.
    """

    def __init__(self, border: int = 0) -> None:
        super().__init__()
        if isinstance(border, bool) or not isinstance(border, int) or border < 0:
            raise ValueError(f"border is {border!r}: it is a whole number of pixels, 0 or more")
        self.border = border

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W], larger than both borders; a scalar."""
        a, b = checked(shown, wanted, least=2 * self.border + 1)
        inside = slice(self.border, -self.border or None)
        return (a - b)[..., inside, inside].abs().mean()


class MSE(nn.Module):
    """Mean squared difference."""

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W], any size; a scalar."""
        a, b = checked(shown, wanted)
        return (a - b).square().mean()


class Charbonnier(nn.Module):
    """Mean of sqrt(d**2 + epsilon**2): an L1 that is smooth at 0 (Charbonnier et al., ICIP 1994). It ends at epsilon.

    Args:
        epsilon: Differences below it count by their square.

    Raises:
        ValueError: `epsilon` is not a positive number.
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.epsilon = positive("epsilon", epsilon)

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W], any size; a scalar."""
        a, b = checked(shown, wanted)
        return ((a - b).square() + self.epsilon**2).sqrt().mean()


class Gradient(nn.Module):
    """Mean absolute difference of the steps to the right, plus that of the steps down: for edges."""

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W], 2 x 2 and up; a scalar."""
        a, b = checked(shown, wanted, least=2)
        difference = a - b
        return difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()


def positive(name: str, value: float) -> float:
    """A setting that must be a positive number. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; give a positive number")
    return float(value)
