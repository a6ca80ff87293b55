"""The smallest ISPs: some thousand parameters, for cameras at tens of thousands of frames a second, and machines
without a GPU.

Source: Andrei Arhire, Radu Timofte, "Learned Lightweight Smartphone ISP with Unpaired Data" (CVPR workshops 2025, arXiv
2505.10420), and the code released with it. Three generators:

- **EfficientISP**, 3,060 parameters, 0.152 GMACs for 4 x 224 x 224: three convolutions of 12 channels at packed
  resolution and a pixel shuffle, as in the winner of the Mobile AI challenge of 2022.
- **RobustISP**, 1,616 parameters, 0.079 GMACs: the same with 16, 4 and 12 channels.
- **RMFA-tiny**, 29,223 parameters, 3.4 GMACs: at the mosaic's resolution, where each colour's samples stand in a plane
  of their own. Two blocks take the picture apart into texture and, after Retinex, illumination and reflectance.

What is inference: convolutions pad with zeros; means are taken over 2 x 2 and illumination is brought back to size by
bilinear interpolation.

What differs from the release: planes are R, Gr, Gb, B, white balanced, 1 is white, and what is missing in a plane of
RMFA-tiny is 1, as there. What lies beyond [0, 1] is cut off by the network itself, but not in training: behind the last
ReLU of the release a channel that is 0 everywhere never learns again, and pictures with a dead channel are a grid of
holes. `width` scales the layers between the first and the last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle

_MISSING = 1.0
"""What stands in a plane of RMFA-tiny where the mosaic has no sample of its colour."""

_REDUCTION = 16
"""By which the channel attention of RMFA-tiny squeezes."""


class PackedISP(nn.Module):
    """Three convolutions at packed resolution and a pixel shuffle.

    Args:
        first, second: Channels behind the first two convolutions.
    """

    form = "raw"

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(4, first, 3, padding=1), nn.Tanh()),
            *(nn.Conv2d(first, second, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(second, 12, 3, padding=1), nn.PixelShuffle(2)),
        )

    def forward(self, planes: Tensor) -> Tensor:
        """Develop packed planes.

        Args:
            planes: float [B, 4, H, W], the R, Gr, Gb and B samples of a mosaic of 2 H x 2 W pixels, white balanced, 1
                is white.

        Returns:
            float [B, 3, 2 H, 2 W], sRGB in [0, 1]; in training what lies beyond as well.
        """
        picture = self.layers(planes)
        return picture if self.training else picture.clamp(0.0, 1.0)


class RmfaTiny(nn.Module):
    """The network at the mosaic's resolution.

    Args:
        width: Channels, a multiple of 2.
    """

    form = "raw"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(_conv(3, width), _conv(width, width), nn.Tanh())
        self.blocks = nn.Sequential(RetinexBlock(width), RetinexBlock(width))
        self.tail = nn.Sequential(_conv(width, 3), nn.Sigmoid())

    def forward(self, planes: Tensor) -> Tensor:
        """As of `PackedISP`, H and W divisible by 2; sRGB in [0, 1]."""
        return self.tail(self.blocks(self.head(by_colour(planes))))


class RetinexBlock(nn.Module):
    """Texture beside reflectance, which is what is left without the illumination, fused and attended to.

    Args:
        width: Channels, a multiple of 2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.points, self.edges = _conv(width, width // 2, 1), _conv(width, width // 2)
        self.tones = nn.ModuleList(_conv(width, width) for _ in range(3))
        self.fuse = _conv(2 * width, width)
        squeezed = max(1, width // _REDUCTION)
        # no biases, and one pair of layers for means and maxima
        self.channels = nn.Sequential(
            nn.Conv2d(width, squeezed, 1, bias=False), nn.ReLU(), nn.Conv2d(squeezed, width, 1, bias=False)
        )
        self.places = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same, H and W divisible by 4."""
        texture = torch.cat([self.points(x).relu(), self.edges(x).relu()], 1)
        reflectance = x - self._illumination(x)
        y = self.fuse(torch.cat([texture, reflectance], 1)).relu()
        means, maxima = y.mean((2, 3), keepdim=True), y.amax((2, 3), keepdim=True)
        y = y * torch.sigmoid(self.channels(means) + self.channels(maxima))
        extremes = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], 1)
        return x + y * torch.sigmoid(self.places(extremes))

    def _illumination(self, x: Tensor) -> Tensor:
        half, quarter, last = self.tones
        first = half(_halved(x)).relu()
        second = quarter(_halved(first)).relu()
        return _doubled(first + _doubled(last(second).relu()))


def by_colour(planes: Tensor) -> Tensor:
    """Packed planes [B, 4, H, W] (R, Gr, Gb, B) at the mosaic's resolution, [B, 3, 2 H, 2 W]: each sample in the plane
    of its colour, and `_MISSING` where there is none."""
    red, green_r, green_b, blue = planes.split(1, 1)
    none = torch.full_like(red, _MISSING)
    places = [red, none, none, none, none, green_r, green_b, none, none, none, none, blue]
    return pixel_shuffle(torch.cat(places, 1), 2)


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def _halved(x: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(x, 2)


def _doubled(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


_MADE: dict[str, Callable[[int], nn.Module]] = {
    "efficientisp": lambda width: PackedISP(width, width),
    "robustisp": lambda width: PackedISP(width, width // 4),
    "rmfa-tiny": RmfaTiny,
}

WIDTHS = {"efficientisp": 12, "robustisp": 16, "rmfa-tiny": 16}
"""The family by name, with published channels."""

MULTIPLES = {"efficientisp": 2, "robustisp": 2, "rmfa-tiny": 4}
"""What width and height of the mosaic must be divisible by, in pixels."""


def make_light(name: str, width: int | None = None) -> nn.Module:
    """A network with fresh weights.

    Args:
        name: Of `WIDTHS`.
        width: Channels, a multiple of 4; None is the published number.

    Raises:
        ValueError: A width out of range.
    """
    channels = WIDTHS[name] if width is None else width
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 4 or channels % 4:
        raise ValueError(f"width is {width!r}: {name} has a multiple of 4 channels")
    return _MADE[name](channels)
