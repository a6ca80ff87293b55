"""ParamISP's networks: an ISP and its inverse, both steered by exposure time, sensitivity, aperture and focal length.

Source: Kim, Kim, Kim, Lee, Baek and Cho, "ParamISP: Learned Forward and Inverse ISPs using Camera Parameters" (CVPR
2024), and the code released with it. What is known of the camera is computed (`canonical`); what is learned on top are
LocalNet, which adds to each pixel, and GlobalNet, which maps all colours by quadratic polynomials and gamma curves.
ParamNet makes a vector of the camera's parameters that both are given. Forwards: canonical steps, LocalNet, GlobalNet;
back: GlobalNet, LocalNet, canonical steps. About 0.7 million parameters in each direction. `param_modules` has what
training, export and isp-invert call.

What differs from the release:

- Dropout of parameters happens (there the mask is drawn and not used). A parameter that is not known, 0, adds nothing
  to the vector, in training as in use. Since four parameters are hardly ever dropped together at the published rate,
  frames that know none of them are drawn besides (`all_dropped`).
- `ranges`: the constants of the equalisation are the published ones, or fitted to high-speed cameras.
- The power of the gamma curve has no infinite slope at 0 (`_SOFT`; the release adds 1e-12).
- GlobalNet's six halvings have margins, so that pictures smaller than 88 pixels leave something.
- `width`, and `optics: false`, the same networks told white balance and matrix alone, to compare with. The published
  width is 64.
- White balance and matrix are given to ParamNet as in the code, not the figure.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, conv2d, elu, max_pool2d, pad

from ..data.demosaic import demosaic
from .canonical import inverse, to_camera, to_linear
from .param_net import ParamNet, small_start

FEATURES = 96
"""Channels of what both networks see."""

BINS = (4, 8, 16)
"""Of the soft histograms."""

OVEREXPOSED = 0.95
"""From where on the mask of over-exposure rises."""

STAGES = 4
"""Of GlobalNet."""

_SOFT = 1e-3
"""Added before a power is taken, so that dark colours have slopes that can be followed."""


class Features(nn.Module):
    """What both networks see: the colours, their slopes across and down, soft histograms of `BINS`, and a mask."""

    kernels: Tensor
    centres: Tensor
    per_bin: Tensor

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        centres = [k / (bins - 1) for bins in BINS for k in range(bins)]
        per_bin = [float(bins - 1) for bins in BINS for _ in range(bins)]  # one divided by their distance
        # buffers, so that they are where the network is
        self.register_buffer("kernels", torch.stack([sobel, sobel.T])[:, None].repeat(3, 1, 1, 1), persistent=False)
        self.register_buffer("centres", _each_colour(centres), persistent=False)
        self.register_buffer("per_bin", _each_colour(per_bin), persistent=False)

    def forward(self, picture: Tensor, overexposed: Tensor) -> Tensor:
        """float [B, 3, H, W] and a mask of its shape to [B, 96, H, W]."""
        padded = pad(picture, (1, 1, 1, 1), mode="replicate")
        slopes = conv2d(padded, self.kernels.to(picture.dtype), groups=3)
        # one chain of operations for all bins: runtimes fuse it, and choke on one for each
        many = picture.repeat(1, sum(BINS), 1, 1)
        centres, per_bin = self.centres.to(picture.dtype), self.per_bin.to(picture.dtype)
        bins = torch.relu(1 - (many - centres).abs() * per_bin)
        return torch.cat([picture, slopes, bins, overexposed], 1)


def _each_colour(values: list[float]) -> Tensor:
    """[1, 3 N, 1, 1] of N values, each for three colours."""
    return torch.tensor(values).repeat_interleave(3)[None, :, None, None]


def overexposure(picture: Tensor) -> Tensor:
    """From 0 at `OVEREXPOSED` to 1 at 1: float, of the shape of the picture."""
    return (picture - OVEREXPOSED).clamp(min=0.0) / (1 - OVEREXPOSED)


class _Block(nn.Module):
    """Two convolutions through half of the channels, attention over channels and places (CBAM), added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow, self.widen = nn.Conv2d(width, width // 2, 3, padding=1), nn.Conv2d(width // 2, width, 3, padding=1)
        self.channels = nn.Sequential(nn.Linear(width, width // 2), nn.ELU(), nn.Linear(width // 2, width))
        self.places = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen(elu(self.narrow(x)))
        # the slope of a pooled maximum costs a tenth of that of amax
        weight = self.channels(y.mean((2, 3))) + self.channels(adaptive_max_pool2d(y, 1).flatten(1))
        y = y * torch.sigmoid(weight)[:, :, None, None]
        highest = y.max(1, keepdim=True).values if self.training else y.amax(1, keepdim=True)
        seen = torch.cat([y.mean(1, keepdim=True), highest], 1)
        return x + y * torch.sigmoid(self.places(seen))


class LocalNet(nn.Module):
    """What is added to each pixel: a U-Net of two scales with ten blocks of attention.

    Args:
        width: Channels.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features = Features()
        self.head, self.told = nn.Conv2d(FEATURES, width, 3), nn.Linear(width, width)
        self.blocks = nn.ModuleList(nn.Sequential(_Block(width), _Block(width)) for _ in range(5))
        self.down = nn.ModuleList(nn.Conv2d(width, width, 2, stride=2) for _ in range(2))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(2))
        self.tail = nn.Conv2d(width, 3, 3, padding=1)
        small_start(self.tail, 1e-2)

    def forward(self, picture: Tensor, overexposed: Tensor, vector: Tensor) -> Tensor:
        """float [B, 3, H, W], H and W multiples of 4, and ParamNet's vector, to a picture of the same shape."""
        seen = pad(self.features(picture, overexposed), (1, 1, 1, 1), mode="replicate")
        x = self.head(seen) + self.told(vector)[:, :, None, None]
        first = self.blocks[0](x)
        second = self.blocks[1](self.down[0](first))
        x = self.blocks[2](self.down[1](second))
        x = self.blocks[3](self.up[0](x) + second)
        x = self.blocks[4](self.up[1](x) + first)
        return picture + self.tail(x)


class GlobalNet(nn.Module):
    """A map of colours that is the same for all pixels: four times a quadratic polynomial, then gamma curves.

    Args:
        width: Channels.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        channels = (FEATURES, width, width)
        self.features, self.mapped = Features(), Mapped()
        self.see = nn.ModuleList(nn.Conv2d(seen, width, 3, stride=2, padding=1) for seen in channels)
        self.told, self.stage = nn.Linear(width, width), nn.Linear(STAGES, width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, width), nn.ELU())
        self.set = nn.ModuleList(nn.Linear(width, 39) for _ in range(STAGES))
        small_start(self.told, 0.1)
        for layer in self.set:
            small_start(layer, 0.01)

    def forward(self, picture: Tensor, overexposed: Tensor, vector: Tensor) -> Tensor:
        """float [B, 3, H, W] and ParamNet's vector, to a picture of the same shape."""
        x = self.features(picture, overexposed)
        for k, layer in enumerate(self.see):
            x = elu(layer(x))
            if k:  # sizes may be odd: a margin that is never the largest. Of one pixel ceil_mode leaves OpenVINO none.
                x = pad(x, (0, 1, 0, 1), value=-1.0)
            x = max_pool2d(x, 2)
        with torch.autocast(picture.device.type, enabled=False):  # colours want more than eight bits
            return self._mapped(picture, x.float().mean((2, 3)), vector.float())

    def _mapped(self, picture: Tensor, seen: Tensor, vector: Tensor) -> Tensor:
        seen = seen + elu(self.told(vector))
        for k, layer in enumerate(self.set):
            stage = self.stage.weight[:, k] + self.stage.bias  # what it makes of the number of the stage, one-hot
            values = elu(layer(self.mix(seen + elu(stage))))
            picture = self.mapped(picture, values)
        return picture


class Mapped(nn.Module):
    """One stage of GlobalNet: what a polynomial gives is added, and a curve follows for each colour (`extended_gamma`).

    Width and start of the curve are worked into the polynomial, so that few numbers meet each pixel: OpenVINO makes one
    loop of all of it.
    """

    colours: Tensor
    one: Tensor

    def __init__(self) -> None:
        super().__init__()
        places = torch.zeros(1, 3, 10)  # of the products: where the colours themselves are, and the 1
        places[0, [0, 1, 2], [3, 6, 8]] = 1.0
        self.register_buffer("colours", places, persistent=False)
        self.register_buffer("one", torch.eye(10)[9].reshape(1, 1, 10), persistent=False)

    def forward(self, picture: Tensor, values: Tensor) -> Tensor:
        """A picture [B, 3, H, W] to another.

        Args:
            picture: Any values.
            values: [B, 39]: three times the weights of the products of two of R, G, B and 1, and for each colour the
                logarithm of gamma, the start, and the logarithm of the width.
        """
        log_gamma, start, log_width = values[:, 30:].reshape(-1, 3, 3).unbind(2)
        gamma, start, width = log_gamma.exp(), start.abs(), log_width.exp()
        weights = values[:, :30].reshape(-1, 3, 10) + self.colours.to(values.dtype)
        weights = weights * width[:, :, None] + self.one.to(values.dtype) * start[:, :, None]
        r, g, b = picture.unbind(1)
        products = torch.stack([r * r, r * g, r * b, r, g * g, g * b, g, b * b, b, torch.ones_like(r)], 1)
        return _stretched((weights @ products.flatten(2)).view_as(picture), gamma, start, width)


def extended_gamma(x: Tensor, gamma: Tensor, start: Tensor, width: Tensor) -> Tensor:
    """A piece of a power curve, stretched so that 0 stays 0 and 1 stays 1.

    Args:
        x: float [B, 3, H, W], any values; the power of a negative number is the mirror image.
        gamma: float [B, 3], the power, above 0.
        start: float [B, 3], where on the power's axis 0 lies, 0 or more.
        width: float [B, 3], how far 1 lies from there, above 0.
    """
    return _stretched(width[:, :, None, None] * x + start[:, :, None, None], gamma, start, width)


def _stretched(t: Tensor, gamma: Tensor, start: Tensor, width: Tensor) -> Tensor:
    soft, low = _soft(gamma), _power(start, gamma, _soft(gamma))
    scale = 1 / (_power(start + width, gamma, soft) - low)
    gamma, soft, low, scale = (each[:, :, None, None] for each in (gamma, soft, low, scale))
    return (_power(t, gamma, soft) - low) * scale


def _soft(gamma: Tensor) -> Tensor:
    return (gamma * math.log(_SOFT)).exp()


def _power(x: Tensor, gamma: Tensor, soft: Tensor) -> Tensor:
    return torch.sign(x) * (((x.abs() + _SOFT).log() * gamma).exp() - soft)


class Direction(nn.Module):
    """The networks of one direction; see `ForwardISP` and `InverseISP`.

    Args:
        width: Channels, even, 2 or more.
        told: Options of `ParamNet`.

    Raises:
        ValueError: A value out of range.
    """

    form: Literal["raw", "inverse"]

    def __init__(self, width: int = 64, **told: Any) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width is {width}: it is an even number of channels, 2 or more")
        self.told = ParamNet(width, **told)
        self.local, self.whole = LocalNet(width), GlobalNet(width)

    def vector(self, optics: Tensor, gains: Tensor, matrix: Tensor) -> Tensor:
        """Of ParamNet. Arguments as of `ForwardISP.forward`."""
        with torch.autocast(gains.device.type, enabled=False):
            return self.told(optics, gains, matrix, inverse(matrix))


class ForwardISP(Direction):
    """Raw to sRGB. Arguments as of `Direction`."""

    form = "raw"

    def __init__(self, width: int = 64, **told: Any) -> None:
        super().__init__(width, **told)
        demosaic(torch.zeros(1, 4, 2, 2))  # whose numbers are made once, but not while a graph is traced

    def forward(self, planes: Tensor, gains: Tensor, matrix: Tensor, optics: Tensor) -> Tensor:
        """Develop planes.

        Args:
            planes: float32 [B, 4, H/2, W/2], R, Gr, Gb, B, black 0, white 1, not white balanced; H and W multiples
                of 4.
            gains: float32 [B, 3], white balance of red, green and blue, green 1.
            matrix: float32 [B, 3, 3], the camera's colours after white balance to linear sRGB.
            optics: float32 [B, 4], columns `OPTICS`; 0 is not known.

        Returns:
            float32 [B, 3, H, W], sRGB, not limited.
        """
        linear, vector = to_linear(planes, gains, matrix), self.vector(optics, gains, matrix)
        overexposed = overexposure(linear)
        return self.whole(self.local(linear, overexposed, vector), overexposed, vector)


class InverseISP(Direction):
    """sRGB to raw. Arguments as of `Direction`."""

    form = "inverse"

    def forward(self, picture: Tensor, gains: Tensor, matrix: Tensor, optics: Tensor) -> Tensor:
        """What a camera with three samples for each pixel gave when it made a picture.

        Args:
            picture: float32 [B, 3, H, W], sRGB in [0, 1]; H and W multiples of 4.
            gains, matrix, optics: As of `ForwardISP.forward`.

        Returns:
            float32 [B, 3, H, W], before white balance, black 0, white 1, not limited.
        """
        vector, overexposed = self.vector(optics, gains, matrix), overexposure(picture)
        linear = self.local(self.whole(picture, overexposed, vector), overexposed, vector)
        return to_camera(linear, gains, matrix)


class BothISPs(nn.Module):
    """Both directions, to be trained together. Arguments as of `Direction`."""

    form = "cycle"

    def __init__(self, width: int = 64, **told: Any) -> None:
        super().__init__()
        self.back, self.forth = InverseISP(width, **told), ForwardISP(width, **told)


def make_paramisp(form: str = "raw", **options: Any) -> nn.Module:
    """One direction, or both, with fresh weights.

    Args:
        form: "raw", from raw to sRGB; "inverse", back; "cycle", both.
        options: As of `Direction`.

    Raises:
        ValueError: There is no such form, or a value is out of range.
        TypeError: There is no such option.
    """
    kinds = {kind.form: kind for kind in (ForwardISP, InverseISP, BothISPs)}
    if form not in kinds:
        raise ValueError(f"paramisp has no form {form!r}; it has {', '.join(kinds)}")
    return kinds[form](**options)
