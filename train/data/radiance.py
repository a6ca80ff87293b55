"""Light of scenes with a range that no single exposure holds, made of photographs and rendered scenes.

Photographs end at white. Here highlights go on above it, parts of the scene lie in shadow, and there are sources of
light: sparks, thin and bright, and lamps or arcs, discs with a halo. How scenes of a high-speed camera really are lit
is not known in numbers; the ranges are ours, and give 8 to 14 stops from the darkest hundredth to the brightest place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...engines.errors import UserError
from ..curves import LUMA, light_of_codes
from .noise import Range

_SPARK_WIDTH = (0.35, 0.8)
"""Standard deviation across a spark, in pixels."""

_SPARK_LENGTH = (4.0, 60.0)
"""Of a spark, in pixels."""

_LAMP_RADIUS = (0.01, 0.06)
"""Of a lamp, as a share of the shorter edge."""

_HALO = (0.002, 0.02)
"""How bright a lamp's halo is at its rim, as a share of the lamp."""

_REACH = 4.0
"""Standard deviations after which a spark ends."""

_CELLS = (2, 5)
"""Of the coarse grid that uneven light follows, along each edge, the limits included."""

_SOURCE_COLOURS = ((1.0, 0.62, 0.28), (1.0, 1.0, 1.0), (0.72, 0.85, 1.0))
"""What the light of sources lies between: glowing metal, white, an arc. Linear sRGB."""


@dataclass(frozen=True)
class Extension:
    """How scenes get their range. What is a range is drawn for each scene, evenly; shares are of the scenes.

    Attributes:
        knee: Luminance from which highlights are brightened, between 0 and 1.
        highlight_stops: By how much those are that were white, 0 to 12.
        uneven_rate: Share with uneven light.
        uneven_stops: From its darkest to its brightest place, 0 to 12; half of it is taken, half given.
        spark_rate: Share with sparks.
        sparks: How many, whole numbers from 0 to 500.
        spark_stops: How bright they are above white, -2 to 14; they are broken by being thin.
        lamp_rate: Share with lamps.
        lamps: How many, whole numbers from 0 to 20.
        lamp_stops: How bright they are above white, -2 to 14.
    """

    knee: Range = (0.4, 0.8)
    highlight_stops: Range = (1.0, 4.0)
    uneven_rate: float = 0.7
    uneven_stops: Range = (2.0, 6.0)
    spark_rate: float = 0.3
    sparks: Range = (3, 40)
    spark_stops: Range = (2.0, 7.0)
    lamp_rate: float = 0.4
    lamps: Range = (1, 3)
    lamp_stops: Range = (3.0, 7.0)

    def __post_init__(self) -> None:
        problems = [problem for field in fields(self) if (problem := _problem(field.name, getattr(self, field.name)))]
        if problems:
            raise UserError("; ".join(problems))


_LIMITS: dict[str, Range] = {
    "knee": (0.0, 1.0),
    "highlight_stops": (0.0, 12.0),
    "uneven_stops": (0.0, 12.0),
    "sparks": (0, 500),
    "spark_stops": (-2.0, 14.0),
    "lamps": (0, 20),
    "lamp_stops": (-2.0, 14.0),
}
"""What the ranges of `Extension` lie between."""


def _problem(name: str, value: object) -> str:
    """What is wrong with an attribute, "" if nothing."""
    if name in _LIMITS:
        return range_problem(name, value, *_LIMITS[name])
    right = _is_number(value) and 0 <= value <= 1  # pyright: ignore[reportOperatorIssue]
    return "" if right else f"{name} is {value!r}: it is a share of the scenes, from 0 to 1"


def range_problem(name: str, value: object, low: float, high: float) -> str:
    """What is wrong with a range between two limits, "" if nothing; limits of int are for whole numbers."""
    pair = value if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)) else None
    whole = isinstance(low, int)
    if pair and low <= pair[0] <= pair[1] <= high and not (whole and any(one != int(one) for one in pair)):
        return ""
    numbers = "two whole numbers" if whole else "two numbers"
    return f"{name} is {value!r}: it is {numbers} from {low:g} to {high:g}, the lower one first"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def light_of(photo: Tensor) -> Tensor:
    """Linear light of a photograph.

    Args:
        photo: [3, H, W], uint8 sRGB, or what is linear light already: float32, 0 or more, not limited to 1.

    Returns:
        float32 [3, H, W].
    """
    return light_of_codes(photo) if photo.dtype == torch.uint8 else photo


def extended(photo: Tensor, settings: Extension, generator: torch.Generator) -> Tensor:
    """Light of a scene whose range no exposure holds.

    Args:
        photo: [3, H, W], uint8 sRGB or float32 linear light, see `light_of`.
        settings: What is drawn.
        generator: Where chance comes from, on the CPU; as much is drawn whatever comes of it, but for sources.

    Returns:
        float32 [3, H, W], linear sRGB, 0 or more; 1 was white in the photograph.
    """
    chance = _Chance(generator)
    light = _brightened(light_of(photo), chance.between(settings.knee), chance.between(settings.highlight_stops))
    field, stops = _field(light.shape[1], light.shape[2], chance), chance.between(settings.uneven_stops)
    if chance.happens(settings.uneven_rate):
        light = light * torch.exp2(field * stops)
    sparks, lamps = (chance.happens(rate) for rate in (settings.spark_rate, settings.lamp_rate))
    for _ in range(chance.whole(settings.sparks) if sparks else 0):
        _add_spark(light, chance, settings.spark_stops)
    for _ in range(chance.whole(settings.lamps) if lamps else 0):
        _add_lamp(light, chance, settings.lamp_stops)
    return light


def stops_of(radiance: Tensor) -> float:
    """The range of a scene: from the darkest hundredth to the brightest thousandth of its places, in stops; 0 where
    there is no light.

    Args:
        radiance: float32 [3, H, W], linear sRGB, 0 or more.
    """
    luminance = _luminance(radiance).flatten().sort().values
    low, high = (float(luminance[int(share * (len(luminance) - 1))]) for share in (0.01, 0.999))
    return math.log2(high / max(low, high * 2.0**-24)) if high > 0 else 0.0


class _Chance(NamedTuple):
    """Numbers from a generator."""

    generator: torch.Generator

    def share(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def happens(self, rate: float) -> bool:
        return self.share() < rate

    def between(self, limits: Range) -> float:
        return limits[0] + self.share() * (limits[1] - limits[0])

    def whole(self, limits: Range) -> int:
        """The limits included."""
        return int(torch.randint(int(limits[0]), int(limits[1]) + 1, (), generator=self.generator))


def _luminance(light: Tensor) -> Tensor:
    return torch.tensordot(light.new_tensor(LUMA), light, 1)


def _brightened(light: Tensor, knee: float, stops: float) -> Tensor:
    """Highlights above the knee, smoothly, white and what is above by so many stops; colours stay as they are."""
    width = max(1 - knee, 1e-3)
    above = ((_luminance(light) - knee) / width).clamp_(0.0, 1.0)
    return light * torch.exp2(stops * above * above)


def _field(height: int, width: int, chance: _Chance) -> Tensor:
    """A smooth field, [H, W], from -0.5 to 0.5 by the limits of a coarse grid of chance."""
    cells = [chance.whole(_CELLS) for _ in range(2)]
    coarse = torch.rand(1, 1, *cells, generator=chance.generator)
    coarse = (coarse - coarse.min()) / (coarse.max() - coarse.min()).clamp(min=1e-6) - 0.5
    return interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0, 0].clamp_(-0.5, 0.5)


def _source(chance: _Chance, stops: Range) -> Tensor:
    """Light of a source, [3, 1, 1]: a colour between two of `_SOURCE_COLOURS`, so bright."""
    first, second = (torch.tensor(_SOURCE_COLOURS[chance.whole((0, 2))]) for _ in range(2))
    return torch.lerp(first, second, chance.share())[:, None, None] * 2 ** chance.between(stops)


def _add_spark(light: Tensor, chance: _Chance, stops: Range) -> None:
    """A straight streak, bright at one end and fading to the other, in place."""
    height, width = light.shape[1:]
    y, x = chance.share() * height, chance.share() * width
    angle, half = chance.share() * 2 * math.pi, chance.between(_SPARK_LENGTH) / 2
    sigma, colour = chance.between(_SPARK_WIDTH), _source(chance, stops)
    window, down, across = _window(light, y, x, half + _REACH * sigma)
    along = down * math.sin(angle) + across * math.cos(angle)
    aside = (across * math.sin(angle) - down * math.cos(angle)) / sigma
    glow = (0.5 + 0.5 * along / half).clamp_(min=0.0).pow_(3) * (along < half)
    window += colour * glow * torch.exp(-0.5 * aside.square()) * (aside.abs() < _REACH)


def _add_lamp(light: Tensor, chance: _Chance, stops: Range) -> None:
    """A disc with a soft rim, and around it a halo that falls with the square of the distance, in place."""
    height, width = light.shape[1:]
    y, x = chance.share() * height, chance.share() * width
    radius = max(1.0, chance.between(_LAMP_RADIUS) * min(height, width))
    halo, colour = chance.between(_HALO), _source(chance, stops)
    _, down, across = _window(light, y, x, math.inf)
    distance = torch.hypot(down, across)
    disc = (radius + 0.5 - distance).clamp_(0.0, 1.0)
    light += colour * (disc + (1 - disc) * halo * (radius / distance.clamp(min=radius)).square())


def _window(light: Tensor, y: float, x: float, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """The part of the light around a place, as a view, and how far it is down [h, 1] and across [1, w] from there."""
    (top, bottom), (left, right) = (
        (max(0, math.floor(max(at - reach, 0))), min(size, math.ceil(min(at + reach, size)) + 1))
        for at, size in zip((y, x), light.shape[1:], strict=True)
    )
    down = torch.arange(top, bottom, dtype=light.dtype)[:, None] - y
    return light[:, top:bottom, left:right], down, torch.arange(left, right, dtype=light.dtype)[None] - x
