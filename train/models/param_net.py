"""ParamISP's ParamNet: what is known of the camera as a vector, which its networks are given (see `paramisp`)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, elu

OPTICS = ("focal_length_mm", "f_number", "exposure_us", "iso")
"""Columns of what ParamNet is told; 0 is not known."""

Ranges = Literal["published", "high_speed"]

_US = 1e-6


class Scale(NamedTuple):
    """How one parameter is equalised: see `equalised`.

    `largest` and `smallest` value; `offset` and `span` of its logarithm to base 2; `waves`, what it is divided by
    before sine and cosine are taken.
    """

    largest: float
    smallest: float
    offset: float
    span: float
    waves: tuple[float, float, float]


def _fitted(smallest: float, largest: float) -> Scale:
    """Constants for a range: the logarithm to 0 and 1, and waves spread evenly over the logarithm, since high-speed
    cameras cover six decades of exposure."""
    first, second, third = (smallest * (largest / smallest) ** part for part in (0.75, 0.5, 0.25))
    low, high = math.log2(smallest), math.log2(largest)
    return Scale(largest, smallest, low, high - low, (first, second, third))


SCALES: dict[str, tuple[Scale, ...]] = {
    "published": (
        Scale(200, 4.2, 1.9, 5.8, (50, 30, 20)),
        Scale(32, 1.7, 0.7, 4.3, (11, 5, 2)),
        Scale(30, 1 / 28800, -15, 20, (11, 5, 2)),
        Scale(8000, 64, 6, 7, (3100, 1300, 500)),
    ),
    "high_speed": (_fitted(4, 400), _fitted(0.95, 32), _fitted(1e-6, 1), _fitted(50, 102400)),
}
"""For each of `OPTICS`, exposure in seconds; by the option `ranges`. Published: 1/28800 s to 30 s. For high-speed
cameras: 1 microsecond to 1 second, ISO 50 to 102,400."""

EQUALISED = 15
"""Numbers that `equalised` makes of one."""


def equalised(value: Tensor, scale: Scale) -> Tensor:
    """A parameter as numbers of about 1 that tell its small and its large values apart.

    Args:
        value: float [B], above 0.
        scale: Its constants.

    Returns:
        float [B, 15]: three powers of it and of its inverse, its logarithm, and sines and cosines.
    """
    up, down, log = value / scale.largest, scale.smallest / value, torch.log2(value)
    parts = [up, up.sqrt(), up.sqrt().sqrt(), down, down.sqrt(), down.sqrt().sqrt()]
    parts += [(log - scale.offset) / scale.span, log.sin(), log.cos()]
    for wave in scale.waves:
        parts += [(value / wave).sin(), (value / wave).cos()]
    return torch.stack(parts, 1)


class ParamNet(nn.Module):
    """Camera parameters to a vector.

    Args:
        width: Its length.
        ranges: A key of `SCALES`.
        optics: Tell it exposure and the others, not white balance and matrix alone.
        dropped: Rate at which each parameter is taken for unknown in training; published: 0.2.
        all_dropped: Rate at which all of them are, besides.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        width: int = 64,
        ranges: Ranges = "published",
        *,
        optics: bool = True,
        dropped: float = 0.2,
        all_dropped: float = 0.1,
    ) -> None:
        super().__init__()
        if ranges not in SCALES:
            raise ValueError(f"ranges is {ranges!r}: it is one of {', '.join(SCALES)}")
        if not (0 <= dropped < 1 and 0 <= all_dropped < 1):
            raise ValueError(f"dropped {dropped:g} and all_dropped {all_dropped:g} are rates, 0 or more and below 1")
        self.optics, self.scales, self.dropped, self.all_dropped = optics, SCALES[ranges], dropped, all_dropped
        self.embed = nn.ModuleList(nn.Linear(EQUALISED, width) for _ in OPTICS) if optics else nn.ModuleList()
        self.canonical = nn.Linear(24, width)
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        small_start(self.mix[-1], 0.1)

    def forward(self, optics: Tensor, gains: Tensor, matrix: Tensor, back: Tensor) -> Tensor:
        """The vector.

        Args:
            optics: float [B, 4], columns `OPTICS`; 0 or less is not known.
            gains: float [B, 3]; matrix, back: float [B, 3, 3], the colour matrix and its inverse.

        Returns:
            float [B, width].
        """
        told = self.canonical(torch.cat([gains, 1 / gains, matrix.flatten(1), back.flatten(1)], 1))
        if self.optics:
            known = self._known(optics)
            for k, (embed, scale) in enumerate(zip(self.embed, self.scales, strict=True)):
                value = torch.where(known[:, k], optics[:, k], 1.0) * (_US if OPTICS[k] == "exposure_us" else 1.0)
                told = told + embed(equalised(value, scale)) * known[:, k, None].to(told)
        for layer in self.mix:
            told = _as_convolution(layer, elu(told))
        return told

    def _known(self, optics: Tensor) -> Tensor:
        known = optics > 0
        if not self.training:
            return known
        drawn = torch.rand(len(optics), len(OPTICS) + 1, device=optics.device)
        return known & (drawn[:, :-1] >= self.dropped) & (drawn[:, -1:] >= self.all_dropped)


def _as_convolution(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer. OpenVINO 2026.4 makes one loop of four of them in bfloat16, and then lacks registers for it."""
    weight, bias = layer.weight, layer.bias
    return conv2d(x[:, :, None, None], weight[:, :, None, None], bias)[:, :, 0, 0]  # pyright: ignore


def small_start(layer: nn.Module, gain: float) -> None:
    """Begin with small weights, of Glorot's kind, and no bias."""
    nn.init.xavier_uniform_(layer.weight, gain)  # pyright: ignore[reportArgumentType]
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
