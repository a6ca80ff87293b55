"""MisISP's prior-informed mapper: from a frame, and a picture of the same scene that need not lie over it, to the frame
in the colours of that picture.

Source: Chen, Liu, Jin et al., "Learning Deep ISP for High-Speed Cameras", the code released with it (MisISP, class
PMIA) and the figure of its framework. A small encoder sees both and sets the nineteen values of a plain pipeline, which
works on every pixel by itself: so the result looks like the reference and stays in the place of the frame, which is
what dense flow between two cameras needs. It takes the reference to run, so it is for making training data, and no
model core.

The repeats of both dashed groups in the figure are 3 by its caption and 2 in the released code. The default is 2, which
the 414,931 parameters are counted by. For more, channels go on doubling and the linear layers on halving: our reading,
since the code has no such option. The encoder's first convolution has no activation, as released. Denoising and
sharpening steps are commented out there and not made here.

What is ours: `seen`, since 512 of the code is not needed for nineteen values and takes time; raw frames after white
balance (`balanced`), though the mapper has gains of its own; and powers by one logarithm.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..data.demosaic import demosaic
from .core import Output

SEEN = 512
"""Edge that the encoder sees both pictures at, in pixels: that of the released code."""

GAIN_RANGE, BALANCE_RANGE, POWER_RANGE, SCALE_RANGE = (0.5, 10.0), (0.1, 5.0), (0.1, 5.0), (1.0, 10.0)
"""Limits of the gain, of the gains of red and blue, of the three powers and of the tone map's scale, as published."""

DARKEST = 1e-8
"""What values are raised to before a power is taken, as published."""

FIRST_CHANNELS, LAST_WIDTH = 64, 64
"""Of the first convolution, and of the last layer before the nineteen values."""


class Prior(NamedTuple):
    """The nineteen values by which a frame is developed, for each sample.

    `gain` [B], times all; `red` and `blue` [B], times these; `matrix` [B, 3, 3] and `offset` [B, 3], of colours;
    `gamma` [B]; and the tone map's `scale`, `power` and `counter` [B]: scale x ** power - (scale - 1) x ** counter.
    """

    gain: Tensor
    red: Tensor
    blue: Tensor
    matrix: Tensor
    offset: Tensor
    gamma: Tensor
    scale: Tensor
    power: Tensor
    counter: Tensor


START = (0.8, 1.0, 1.0, *(1.0, 0.0, 0.0), *(0.0, 1.0, 0.0), *(0.0, 0.0, 1.0), 0.0, 0.0, 0.0, 0.25, 3.0, 1.0, 1.0)
"""What the encoder's values are added to, in the order of `Prior`."""


def make_prior(values: Tensor) -> Prior:
    """Nineteen values of each sample by name and within their limits; matrix and offset have none. [B, 19]."""
    gain, red, blue, matrix, offset, gamma, scale, power, counter = values.split((1, 1, 1, 9, 3, 1, 1, 1, 1), dim=1)
    return Prior(
        gain=gain[:, 0].clamp(*GAIN_RANGE),
        red=red[:, 0].clamp(*BALANCE_RANGE),
        blue=blue[:, 0].clamp(*BALANCE_RANGE),
        matrix=matrix.reshape(-1, 3, 3),
        offset=offset,
        gamma=gamma[:, 0].clamp(*POWER_RANGE),
        scale=scale[:, 0].clamp(*SCALE_RANGE),
        power=power[:, 0].clamp(*POWER_RANGE),
        counter=counter[:, 0].clamp(*POWER_RANGE),
    )


def develop(light: Tensor, prior: Prior) -> Tensor:
    """The pipeline: gain, white balance, colour matrix with offset, gamma, tone map, limited to [0, 1] after each.

    Slopes are finite everywhere, and 0 where a step is at its limits.

    Args:
        light: float [B, 3, H, W], raw light of three colours in [0, 1].
        prior: Of B samples.

    Returns:
        float [B, 3, H, W] in [0, 1], sRGB.
    """
    with torch.autocast(light.device.type, enabled=False):
        each = (slice(None), None, None, None)
        x = (light * prior.gain[each]).clamp(0.0, 1.0)
        balance = torch.stack([prior.red, torch.ones_like(prior.red), prior.blue], 1)
        x = (x * balance[:, :, None, None]).clamp(0.0, 1.0)
        mixed = (prior.matrix @ x.flatten(2)).view(x.shape)
        x = (mixed + prior.offset[:, :, None, None]).clamp(0.0, 1.0)
        # the logarithm behind the gamma, no deeper than that of the darkest value for the powers that follow
        log = (x.clamp(min=DARKEST).log() * prior.gamma[each]).clamp(min=math.log(DARKEST))
        rise, fall = (log * prior.power[each]).exp(), (log * prior.counter[each]).exp()
        return (prior.scale[each] * rise - (prior.scale[each] - 1) * fall).clamp(0.0, 1.0)


class Mapper(nn.Module):
    """The encoder and what it sets.

    After each call `prior` holds the values it developed with, without a graph, for reports.

    Args:
        repeats: Of halving with a convolution, and of linear layers: 2 in the released code, 3 by the caption.
        seen: Edge that the encoder sees both pictures at, in pixels.
        balanced: It is for raw light after white balance; what `MapperModule` goes by.

    Raises:
        ValueError: A value out of range.
    """

    start: Tensor

    def __init__(self, repeats: int = 2, seen: int = SEEN, balanced: bool = False) -> None:
        super().__init__()
        if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= 4:
            raise ValueError(f"repeats is {repeats!r}; give 2 (as released), 3 (by the caption), 1 or 4")
        if isinstance(seen, bool) or not isinstance(seen, int) or seen < 2**repeats:
            raise ValueError(f"seen is {seen!r}; give a whole number of pixels, {2**repeats} at least")
        self.form, self.repeats, self.seen, self.balanced = "mapper", repeats, seen, balanced
        width, layers, heads = FIRST_CHANNELS, [nn.Conv2d(6, FIRST_CHANNELS, 3, padding=1)], []
        for _ in range(repeats):
            layers += [nn.AvgPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU()]
            width *= 2
        for _ in range(repeats):
            heads += [nn.Linear(width, width // 2), nn.ReLU()]
            width //= 2
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Sequential(*heads, nn.Linear(LAST_WIDTH, len(START)))
        self.register_buffer("start", torch.tensor(START), persistent=False)
        self.prior: Prior | None = None

    def forward(self, light: Tensor, reference: Tensor) -> Tensor:
        """Develop raw light so that it looks like a picture.

        Args:
            light: float [B, 3, H, W], raw light of three colours in [0, 1], demosaicked.
            reference: float [B, 3, h, w], sRGB in [0, 1], of any size: it only tells colours and tones.

        Returns:
            float32 [B, 3, H, W] in [0, 1], sRGB, or float64 of float64 weights.

        Raises:
            ValueError: Other shapes.
        """
        for name, picture in ("light", light), ("reference", reference):
            if picture.ndim != 4 or picture.shape[1] != 3 or len(picture) != len(light):
                raise ValueError(f"{name} is [B, 3, H, W] and B is the same for both, not {[*picture.shape]}")
        prior = self.set_by(light, reference)
        self.prior = Prior(*(values.detach() for values in prior))
        return develop(light.to(self.start), prior)

    def set_by(self, light: Tensor, reference: Tensor) -> Prior:
        """The values for a frame and a picture, with their graph. Arguments as of `forward`."""
        seen = torch.cat([self._small(light.to(self.start)), self._small(reference.to(self.start))], 1)
        given = self.head(self.encoder(seen).mean((2, 3)))
        return make_prior(self.start + given.to(self.start))

    def _small(self, picture: Tensor) -> Tensor:
        if picture.shape[2:] == (self.seen, self.seen):
            return picture
        return interpolate(picture, (self.seen, self.seen), mode="bilinear", align_corners=False)


class MapperModule(nn.Module):
    """The mapper as training calls it.

    The published mapper sees raw frames as they come and learns white balance with the rest; so does this one, unless
    the network says `balanced`: then a frame is white balanced before, and limited to 1, as `CoreModule` does it.

    Args:
        network: A `Mapper`.
        output: "srgb".
    """

    takes = ("planes", "gains", "target")
    wants = "target"

    def __init__(self, network: nn.Module, output: Output = "srgb") -> None:
        super().__init__()
        if output != "srgb":
            raise ValueError(f"the mapper gives pictures like its reference: output must be srgb, not {output}")
        self.network, self.output = network, output

    def forward(self, planes: Tensor, gains: Tensor, target: Tensor) -> Tensor:
        """Develop planes so that they look like a picture.

        Args:
            planes: float32 [B, 4, H/2, W/2], R, Gr, Gb, B, black 0, white 1, not white balanced.
            gains: float32 [B, 3], of red, green and blue; of no use unless `balanced`.
            target: float32 [B, 3, H, W], sRGB in [0, 1], aligned or not.

        Returns:
            float32 [B, 3, H, W] in [0, 1], sRGB.
        """
        if cast(Mapper, self.network).balanced:
            planes = (planes * gains[:, [0, 1, 1, 2], None, None]).clamp(max=1.0)
        return self.network(demosaic(planes).clamp(0.0, 1.0), target)
