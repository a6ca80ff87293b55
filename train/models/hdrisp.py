"""The five-level network that makes tone-mapped pictures of high dynamic range out of a single raw frame.

Source: Koray Erbas, Celebi, "RAW to Tone-mapped HDR Camera ISP", and the code released with it. An encoder of three
halvings meets five levels, from 4, an eighth of the packed size, to 0, the full size of the mosaic. Each level has a
head that gives a picture, and is trained with it before the next one is: level 4 first, each from the weights of the
one before. Deep levels attend to channels and places (ECA-Net, CBAM); levels 2 and 1 look through kernels of four
sizes, each with its own illumination estimate (IEM), and through SimAM.

With all heads and the affine part of the instance norms it counts 6,473,474 parameters, as the release does. For
4 x 224 x 224 level 0 takes 31.5 GMACs, and 31.6 with the pictures of all levels, which the count of the release has.

What is inference: that the fully connected layers have biases, which follows from the number of parameters.

What differs from the release:

- The planes are R, Gr, Gb, B, white balanced, 1 is white. There they are B, Gb, R, Gr, and not white balanced.
- It takes a batch of one (there a squeeze drops its axis).
- Instance norm and the variances of SimAM are calculated in float32 whatever the rest is, because maps have too many
  places to be summed in fewer bits.
- Slopes stop at the norm of a channel that is flat. A norm multiplies them by up to 316 there, and for a frame that is
  white all over all norms do so in turn, which makes 1e28 of them and no number of their squares.
- Layers that the level does not need are there, so that weights fit all levels, but they neither run nor learn.
- `width` scales every layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

LEVELS = 5
"""From 0, the size of the mosaic, to 4, a sixteenth of it in width and height."""

WIDTH = 32
"""Published channels at packed resolution."""

MULTIPLE = 16
"""What width and height of the mosaic must be divisible by: packed, they are halved three times."""

KERNELS = (3, 5, 7, 9)
"""Edges of those that look side by side."""

REDUCTIONS = {4: 16, 3: 8}
"""By which the channel attention of CBAM squeezes, by level."""

SLOPE = 0.2
"""Of every leaky rectifier."""

_NORM_EPS = 1e-5
"""Added to variances by instance norm; the published one is torch's default."""

_SIMAM_EPS = 1e-4
"""Added to variances by SimAM."""


class InstanceNorm(nn.Module):
    """Each channel of each picture brought to mean 0 and variance 1, then a factor and a summand that are learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], more than one place, to the same."""
        # `group_norm` would keep the order of channels_last, but on the processor its variances there are differences
        # of large sums; `functional.instance_norm` checks sizes in a way that an exporter takes for a choice
        cudnn = torch.backends.cudnn.enabled
        given = _in_float32(x)
        y = torch.instance_norm(given, self.weight, self.bias, None, None, True, 0.0, _NORM_EPS, cudnn)
        if self.training and given.requires_grad:
            given.register_hook(_damping(given))
        return _as(x, y)


class Conv(nn.Sequential):
    """Reflection pad, convolution, instance norm if asked for, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, norm: bool = False) -> None:
        norms = (InstanceNorm(outputs),) if norm else ()
        super().__init__(*_padded(inputs, outputs, kernel), *norms, nn.LeakyReLU(SLOPE))


class Double(nn.Sequential):
    """Two convolutions."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__(Conv(inputs, outputs, norm=norm), Conv(outputs, outputs, norm=norm))


class Up(nn.Sequential):
    """Twice the size, bilinear with corners on corners, and a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        bilinear = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        super().__init__(bilinear, Conv(inputs, outputs))


class Head(nn.Sequential):
    """Features to a picture."""

    def __init__(self, inputs: int) -> None:
        super().__init__(*_padded(inputs, 3, 3), nn.Sigmoid())


class NeighbourAttention(nn.Module):
    """ECA: a factor for each channel from the means of a few channels beside it. More channels, more neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size += 1 - size % 2
        self.mix = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        factors = torch.sigmoid(self.mix(x.mean((2, 3))[:, None]))
        return x * factors.transpose(1, 2)[..., None]


class ChannelPlaceAttention(nn.Module):
    """CBAM: a factor for each channel from means and maxima, then one for each place, added to what came in."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        # the release learns a pair of layers for each of the two, where the paper of CBAM has one for both
        self.of_means, self.of_maxima = (_mixed(channels, channels // reduction, channels) for _ in range(2))
        self.places = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        by_channel = self.of_means(x.mean((2, 3), keepdim=True)) + self.of_maxima(x.amax((2, 3), keepdim=True))
        y = x * torch.sigmoid(by_channel)
        extremes = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], 1)
        return x + y * torch.sigmoid(self.places(extremes))


class Illumination(nn.Module):
    """IEM: a factor for each place of each channel, and one for each channel from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = nn.Sequential(*_padded(channels, channels, 3, bias=False), nn.Sigmoid())
        self.whole = nn.Sequential(_mixed(channels, channels, channels // 2, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return x * self.local(x) * self.whole(x.mean((2, 3), keepdim=True))


class SimAM(nn.Module):
    """A factor for each place of each channel, larger the more it differs from its channel's mean. Nothing learned."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], more than one place, to the same."""
        wide = _in_float32(x)
        squares = (wide - wide.mean((2, 3), keepdim=True)).square()
        # n / (n - 1) of n places; engines in float16 can hold neither n nor a sum over them
        unbiased = 1 / (1 - (1 / x.shape[2]) * (1 / x.shape[3]))
        variance = squares.mean((2, 3), keepdim=True) * unbiased
        return x * _as(x, torch.sigmoid(squares / (4 * (variance + _SIMAM_EPS)) + 0.5))


class Kernels(nn.Module):
    """Convolutions of four sizes side by side, each with its illumination estimate, and SimAM over all of them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(
            nn.Sequential(Conv(inputs, outputs, kernel), Illumination(outputs)) for kernel in KERNELS
        )
        self.attention = SimAM()

    def forward(self, x: Tensor) -> Tensor:
        """[B, `inputs`, H, W] to [B, 4 `outputs`, H, W]; H and W at least 5."""
        return self.attention(torch.cat([side(x) for side in self.sides], 1))


class HdrISP(nn.Module):
    """The network up to one of its levels.

    Args:
        level: Of which a picture is given, 0 to 4.
        width: Channels at packed resolution, even, 2 or more.

    Attributes:
        scale: By which the picture is smaller than the mosaic, 2**level.

    Raises:
        ValueError: A value out of range.
    """

    form = "raw"

    def __init__(self, level: int = 0, width: int = WIDTH) -> None:
        super().__init__()
        if not isinstance(level, int) or level not in range(LEVELS):
            raise ValueError(f"level is {level}: it is 0, the full size, to {LEVELS - 1}")
        if width < 2 or width % 2:
            raise ValueError(f"width is {width}: it is an even number of channels, 2 or more")
        w = width
        self.level, self.scale = level, 2**level
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList([Double(4, w, norm=False), Double(w, 2 * w), Double(2 * w, 4 * w)])
        bodies = {
            4: nn.Sequential(
                *(Double(4 * w, 8 * w), Double(8 * w, 8 * w), NeighbourAttention(8 * w)),
                *(Double(8 * w, 8 * w), Double(8 * w, 8 * w), NeighbourAttention(8 * w)),
                ChannelPlaceAttention(8 * w, REDUCTIONS[4]),
            ),
            3: nn.Sequential(
                Double(8 * w, 4 * w), NeighbourAttention(4 * w), ChannelPlaceAttention(4 * w, REDUCTIONS[3])
            ),
            2: nn.Sequential(Double(4 * w, 2 * w), Kernels(2 * w, w), Double(4 * w, 2 * w)),
            1: nn.Sequential(Double(2 * w, w), Kernels(w, w), Conv(4 * w, w)),
        }
        self.bodies = nn.ModuleDict({str(k): body for k, body in bodies.items()})
        channels = {4: 8 * w, 3: 4 * w, 2: 2 * w, 1: w, 0: w // 2}
        self.up = nn.ModuleDict({str(k): Up(channels[k + 1], channels[k]) for k in range(LEVELS - 1)})
        self.heads = nn.ModuleDict({str(k): Head(channels[k]) for k in channels})
        for part in self._resting():
            part.requires_grad_(False)

    def forward(self, planes: Tensor) -> Tensor:
        """Develop packed planes.

        Args:
            planes: float [B, 4, H, W], the R, Gr, Gb and B samples of a mosaic of 2 H x 2 W pixels, white balanced, 1
                is white; H and W divisible by 8, 16 or more.

        Returns:
            float [B, 3, 2 H / scale, 2 W / scale], sRGB in [0, 1].
        """
        skips, x = [], planes
        for block in self.encoder:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.bodies["4"](x)
        for level in range(3, self.level - 1, -1):
            x = self.up[str(level)](x)
            if level:  # there is no encoder at the size of the mosaic
                x = self.bodies[str(level)](torch.cat([skips[level - 1], x], 1))
        return self.heads[str(self.level)](x)

    def _resting(self) -> list[nn.Module]:
        """What the level does not need."""
        finer = [str(k) for k in range(self.level)]
        others = [head for k, head in self.heads.items() if k != str(self.level)]
        return [*(self.up[k] for k in finer), *(self.bodies[k] for k in finer if k in self.bodies), *others]


def make_hdrisp(level: int = 0, width: int = WIDTH) -> HdrISP:
    """The network with fresh weights. Arguments and errors as of `HdrISP`."""
    return HdrISP(level, width)


def _damping(x: Tensor) -> Callable[[Tensor], Tensor]:
    """What slopes through an instance norm of `x` are multiplied by: 1, but to 0 for channels that are flat."""
    with torch.no_grad():
        variance = x.var((2, 3), correction=0, keepdim=True)
        share = variance / (variance + _NORM_EPS)
    return lambda slope: slope * share


def _padded(inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    return nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, bias=bias)


def _in_float32(x: Tensor) -> Tensor:
    # a cast of what is float32 already would stay in what is exported, and be there when its weights become float16
    return x if x.dtype == torch.float32 else x.float()


def _as(x: Tensor, given: Tensor) -> Tensor:
    return given if given.dtype == x.dtype else given.to(x.dtype)


def _mixed(*channels: int) -> nn.Sequential:
    """Fully connected layers with rectifiers between, for [B, C, 1, 1]."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
