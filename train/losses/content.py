"""What a picture shows, whatever its colours: losses that hold an ISP to the raw frame where nobody knows its picture.

Source: Arhire, Timofte, "Learned Lightweight Smartphone ISP with Unpaired Data" (CVPR workshops 2025), and the code
released with it. Content is compared in lightness alone, so that colours are left to those that judge them, and in
features of a deep layer, so that a change of tone costs less than a change of shapes. With what the comparison is made
there, a classic development of the same frame, or the picture of the pair, is for the recipe to say.

What differs: features are those of VGG-19 with torchvision's weights behind its last convolution, where the release has
an older file of the same network, or those of our own auto-encoder of clean pictures at its deepest tap.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..curves import LUMA, linear_from_srgb
from .basic import checked
from .perceptual import Perceptual

EDGE = 256
"""Height and width that pictures are brought to, as published."""

_STEEP = 6 / 29
"""Cube root of the Y below which lightness is a straight line."""


def lightness(picture: Tensor) -> Tensor:
    """L* of CIELAB divided by 100, white is 1.

    Args:
        picture: float [B, 3, H, W], sRGB; what lies beyond [0, 1] counts as 0 and 1.

    Returns:
        [B, 1, H, W] in [0, 1]; slopes are finite everywhere.
    """
    linear = linear_from_srgb(picture.clamp(0.0, 1.0))
    y = torch.tensordot(linear.new_tensor(LUMA), linear.movedim(1, 0), 1)[:, None]
    above = y.clamp(min=_STEEP**3)
    root = torch.where(y > _STEEP**3, above ** (1 / 3), y / (3 * _STEEP**2) + 4 / 29)
    return 1.16 * root - 0.16


class Lightness(nn.Module):
    """Mean absolute difference of lightness, pixel by pixel. Ours: it holds tone and fine structure to a picture whose
    colours are not to be learned, which the features of `Content` leave open."""

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of sRGB [B, 3, H, W]; a scalar."""
        a, b = (lightness(picture) for picture in checked(shown, wanted))
        return (a - b).abs().mean()


class Content(nn.Module):
    """Twice the mean squared distance between features of lightness.

    Args:
        encoder: Pictures [B, 3, H, W] in [0, 1] to a list of features; the last are compared.
        edge: Pictures are brought to edge x edge pixels, bilinearly, as published; None leaves them as they are.

    Raises:
        ValueError: `edge` is no whole number above 0.
    """

    def __init__(self, encoder: nn.Module, edge: int | None = EDGE) -> None:
        super().__init__()
        if edge is not None and (isinstance(edge, bool) or not isinstance(edge, int) or edge < 1):
            raise ValueError(f"edge is {edge!r}; give a whole number of pixels")
        self.features, self.edge = Perceptual(_Last(encoder), "mse"), edge

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, 3, H, W]; a scalar. Raises ValueError: other shapes, or too small for the encoder."""
        a, b = (self._seen(picture) for picture in checked(shown, wanted))
        return 2 * self.features(a, b)

    def _seen(self, picture: Tensor) -> Tensor:
        light = lightness(picture)
        if self.edge is not None and tuple(light.shape[2:]) != (self.edge, self.edge):
            light = interpolate(light, (self.edge, self.edge), mode="bilinear", align_corners=False)
        return light.expand(-1, 3, -1, -1)


class _Last(nn.Module):
    """The deepest of the features of an encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, picture: Tensor) -> list[Tensor]:
        return self.encoder(picture)[-1:]


class Variation(nn.Module):
    """Mean squared step from pixel to pixel, across and down, of what is shown: the total variation of the release."""

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W], H and W 2 or more; what is wanted does not count. A scalar."""
        given, _ = checked(shown, wanted, 2)
        across, down = given.diff(dim=3), given.diff(dim=2)
        return across.square().mean() + down.square().mean()
