"""Colours of areas: what is left of a difference when noise, texture and small shifts are blurred away."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .basic import checked, positive
from .ms_ssim import blurred, gaussian


class BlurredColour(nn.Module):
    """Mean absolute difference of the blurred pictures (the colour loss of DPED, Ignatov et al., ICCV 2017, as L1).

    Args:
        sigma: Of the Gaussian, in pixels; its window reaches to three sigmas.

    Raises:
        ValueError: `sigma` is not a positive number.
    """

    def __init__(self, sigma: float = 3.0) -> None:
        super().__init__()
        self.sigma = positive("sigma", sigma)

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W], any size: the border is repeated outwards; a scalar."""
        with torch.autocast(shown.device.type, enabled=False):
            a, b = checked(shown, wanted)
            reach = max(1, round(3 * self.sigma))
            bell = gaussian(2 * reach + 1, self.sigma, a)
            return blurred(pad(a - b, (reach,) * 4, "replicate"), bell).abs().mean()


class ColourAngle(nn.Module):
    """1 minus the mean cosine of the angle between colours: a wrong hue costs the same at any brightness.

    Args:
        floor: Length of a colour below which it counts as black, of no hue, and costs less and less.

    Raises:
        ValueError: `floor` is not a positive number.
    """

    def __init__(self, floor: float = 0.02) -> None:
        super().__init__()
        self.floor = positive("floor", floor)

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, 3, H, W], any size; a scalar."""
        a, b = checked(shown, wanted)
        grown = self.floor**2
        # both lengths carry the floor, and so does the product: two blacks have an angle of 0
        product = (a * b).sum(1) + grown
        lengths = (a.square().sum(1) + grown).sqrt() * (b.square().sum(1) + grown).sqrt()
        return 1 - (product / lengths).mean()
