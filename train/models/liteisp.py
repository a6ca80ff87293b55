"""LiteISPNet: a U-Net of residual channel attention whose scales are levels of a wavelet transform, with a noise plane.

Source: Zhilu Zhang, Haolin Wang, Ming Liu, Ruohao Wang, Jiawei Zhang, Wangmeng Zuo, "Learning RAW-to-sRGB Mappings with
Inaccurately Aligned Supervision", ICCV 2021, arXiv 2108.08119, in the form in which MisISP (Huaian Chen, Tianle Liu,
Yi Jin et al., "Learning Deep ISP for High-Speed Cameras") trains it: without the plane of coordinates, and with a plane
that holds the noise level from 0 to 1 beside the first features.

With three scales, 64, 64 and 128 channels and groups of four blocks it counts 9,014,979 weights that are learned, or
9,023,171 with the 8,192 of the fixed wavelet filters, which published counts include, and 71.9 GMACs for 4 x 224 x 224.
The noise plane takes the place of one of the first 64 features: 37 weights less.

What is inference: that borders are padded with zeros, and that the squeezed channels of attention pass a rectifier and
a sigmoid, as in the papers from which the blocks are; and how the published filters are scaled: here the wavelet
transform is orthonormal, so that all scales hold light in the same unit. What differs: the published network limits its
output only when a picture is written; here it is limited to [0, 1] outside of training.

What is ours: `width`, which scales every layer, and `liteisp-s` of width 16, about as much work as LW-ISP.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from .noise_level import with_plane

BLOCKS = 4
"""Of a group."""

REDUCTION = 16
"""By which channel attention squeezes."""

FEWEST = 4
"""Channels that it squeezes to at least: what 64 come to. For narrow forms, whose rectifiers could all be shut."""

MULTIPLE = 16
"""What width and height of the mosaic must be divisible by: packed, they are halved three times."""


@dataclass(frozen=True)
class LiteVariant:
    """One member of the family. `width`: channels at packed resolution."""

    width: int


LITE_VARIANTS = {"liteisp": LiteVariant(64), "liteisp-s": LiteVariant(16)}
"""The family by name: 9.0 M and 0.57 M parameters."""


class ChannelAttention(nn.Module):
    """A factor for each channel, from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(FEWEST, channels // REDUCTION)
        self.squeeze = nn.Conv2d(channels, reduced, 1)
        self.excite = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))


class Block(nn.Module):
    """Two convolutions with a rectifier between and channel attention behind them, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels), nn.ReLU(), _conv(channels, channels), ChannelAttention(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return x + self.body(x)


class Group(nn.Module):
    """`BLOCKS` blocks and a convolution, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(Block(channels) for _ in range(BLOCKS)), _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return x + self.body(x)


class Haar(nn.Module):
    """One level of the orthonormal Haar transform: [B, C, H, W] to [B, 4 C, H / 2, W / 2], H and W even.

    Of each channel it gives the mean, the differences from left to right and from top to bottom, and that of these.
    """

    filters: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("filters", _haar_filters(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return conv2d(x, self.filters, stride=2, groups=self.channels)


class InverseHaar(Haar):
    """What undoes `Haar`: [B, 4 C, H, W] to [B, C, 2 H, 2 W]."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return conv_transpose2d(x, self.filters, stride=2, groups=self.channels)


class LiteISPNet(nn.Module):
    """The network of the papers.

    Args:
        width: Channels at packed resolution, 64 in the papers.
        noise_plane: See a plane that holds the noise level.
    """

    form = "raw"

    def __init__(self, width: int = 64, *, noise_plane: bool = False) -> None:
        super().__init__()
        w = width
        self.noise_plane = noise_plane
        self.head = _conv(4, w - 1 if noise_plane else w)
        self.down1 = nn.Sequential(_conv(w, w), Group(w), _conv(w, w), Haar(w))
        self.down2 = nn.Sequential(_conv(4 * w, w), Group(w), Haar(w))
        self.down3 = nn.Sequential(_conv(4 * w, 2 * w), Group(2 * w), Haar(2 * w))
        self.middle = nn.Sequential(_conv(8 * w, 2 * w), Group(2 * w), Group(2 * w), _conv(2 * w, 8 * w))
        self.up3 = nn.Sequential(InverseHaar(2 * w), Group(2 * w), _conv(2 * w, 4 * w))
        self.up2 = nn.Sequential(InverseHaar(w), Group(w), _conv(w, 4 * w))
        self.up1 = nn.Sequential(InverseHaar(w), Group(w), _conv(w, w))
        self.tail = nn.Sequential(_conv(w, 4 * w), nn.PixelShuffle(2), _conv(w, 3))

    def forward(self, planes: Tensor, noise: Tensor | None = None) -> Tensor:
        """Develop packed planes.

        Args:
            planes: float [B, 4, H, W], the R, Gr, Gb and B samples of a mosaic of 2 H x 2 W pixels, white balanced, 1
                is white; H and W divisible by 8.
            noise: float [B, 1, 1, 1], the noise level from 0 to 1, with `noise_plane`.

        Returns:
            float [B, 3, 2 H, 2 W], RGB, in [0, 1] but for training.
        """
        seen = with_plane(self.head(planes), noise) if self.noise_plane else self.head(planes)
        d1 = self.down1(seen)
        d2 = self.down2(d1)
        d3 = self.down3(d2)
        u3 = self.up3(self.middle(d3) + d3)
        u2 = self.up2(u3 + d2)
        u1 = self.up1(u2 + d1)
        picture = self.tail(u1 + seen)
        return picture if self.training else picture.clamp(0.0, 1.0)


def make_liteisp(name: str = "liteisp", *, noise_plane: bool = False) -> nn.Module:
    """A member of the family with fresh weights. `name` is of `LITE_VARIANTS`."""
    return LiteISPNet(LITE_VARIANTS[name].width, noise_plane=noise_plane)


def _haar_filters(channels: int) -> Tensor:
    """[4 C, 1, 2, 2], four for each channel, of length 1 and at right angles to each other."""
    mean, step = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]) / 2**0.5  # of two neighbours
    rows = [torch.outer(down, across) for down in (mean, step) for across in (mean, step)]
    return torch.stack(rows)[:, None].repeat(channels, 1, 1, 1)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
