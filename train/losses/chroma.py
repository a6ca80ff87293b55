"""Colours that may be stretched, but not invented: a loss that holds an ISP to the raw frame where nobody knows its
colours.

What a camera without a colour matrix lacks is one linear map of its colours. So what a picture's chroma has beyond a
linear map of a reference's is what the loss sees. It is ours. Without it, an ISP that is to give the colours of
photographs colours things by how bright they are: lines on a road turn orange, and all shadows blue.

Of the maps only symmetric ones without negative stretch are free, along whichever axes: they are the ones that bring
one spread of colours to another with the least change (the optimal transport between Gaussians), and turn no hue into
its opposite.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ..curves import LUMA_601
from .basic import checked

OVER = 8
"""Edge in pixels of the squares whose mean chroma counts: noise is no colour."""

_TO_CHROMA = (0.564, 0.713)
"""Cb from B - Y, and Cr from R - Y (ITU-R BT.601)."""

_LEAST = 1e-6
"""Mean squared chroma below which a picture counts as grey."""


def chroma(picture: Tensor) -> Tensor:
    """Cb and Cr.

    Args:
        picture: float [B, 3, H, W], sRGB.

    Returns:
        [B, 2, H, W], in [-0.5, 0.5] for pictures in [0, 1]; 0 is grey.
    """
    red, green, blue = picture.unbind(1)
    y = LUMA_601[0] * red + LUMA_601[1] * green + LUMA_601[2] * blue
    return torch.stack([_TO_CHROMA[0] * (blue - y), _TO_CHROMA[1] * (red - y)], 1)


class Chroma(nn.Module):
    """Share of the squared chroma of all pictures of a batch that is no stretch of what is wanted: 0 where one stretch
    explains it all, 1 where none explains anything. How strong colours are costs nothing.

    Args:
        over: Chroma is averaged over squares of so many pixels.

    Raises:
        ValueError: `over` is no whole number above 0.
    """

    def __init__(self, over: int = OVER) -> None:
        super().__init__()
        if isinstance(over, bool) or not isinstance(over, int) or over < 1:
            raise ValueError(f"over is {over!r}; give a whole number of pixels")
        self.over = over

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of sRGB [B, 3, H, W], where what lies beyond [0, 1] counts as 0 and 1; a scalar in [0, 1].

        Raises:
            ValueError: Other shapes, or smaller than a square.
        """
        a, b = (self._spread(picture) for picture in checked(shown, wanted, self.over))
        with torch.no_grad():  # the slope is 0 in the best stretch, and nearly so where one is cut off at 0
            best = stretch(a, b)
        return (a - best @ b).square().sum() / a.square().sum().clamp(min=_LEAST * a[0].numel())

    def _spread(self, picture: Tensor) -> Tensor:
        return chroma(avg_pool2d(picture.clamp(0.0, 1.0), self.over)).movedim(1, 0).flatten(1)


def stretch(shown: Tensor, wanted: Tensor) -> Tensor:
    """The map of chroma nearest to one that makes `shown` of `wanted`.

    Args:
        shown, wanted: [2, N], of the same places.

    Returns:
        [2, 2], symmetric and without negative eigenvalues: the best symmetric map by least squares, of whose stretches
        the negative ones are 0.
    """
    nothing = _LEAST * wanted.shape[1] * torch.eye(2, dtype=wanted.dtype, device=wanted.device)
    # the best symmetric M solves M S + S M = T + T', S = wanted wanted', T = shown wanted'; S is diagonal in its axes
    spread, axes = torch.linalg.eigh(wanted @ wanted.T + nothing)
    common = shown @ wanted.T
    turned = axes.T @ (common + common.T) @ axes
    stretches, own = torch.linalg.eigh(turned / (spread[:, None] + spread[None]))
    along = axes @ own
    return along @ torch.diag(stretches.clamp(min=0.0)) @ along.T
