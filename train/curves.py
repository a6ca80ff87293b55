"""Tone curves and their inverses, on tensors of any shape and device, and what colours weigh in brightness.

`engines.reference.srgb_curve` is the same sRGB curve in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)
"""What R, G and B of linear sRGB weigh in luminance, the Y of CIE XYZ (BT.709)."""

LUMA_601 = (0.299, 0.587, 0.114)
"""What R, G and B of pictures weigh in Y' (BT.601)."""

_STRAIGHT = 0.0031308
"""Linear light up to which the sRGB curve is straight."""


def linear_from_srgb(shown: Tensor) -> Tensor:
    """Display values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    curved = _power((shown.clamp(min=0.0) + 0.055) / 1.055, 2.4)
    return torch.where(shown <= 12.92 * _STRAIGHT, shown / 12.92, curved)


def srgb_from_linear(light: Tensor) -> Tensor:
    """Linear light, limited to [0, 1], to display values in [0, 1]: the inverse of `linear_from_srgb`."""
    light = light.clamp(0.0, 1.0)
    return torch.where(light <= _STRAIGHT, 12.92 * light, 1.055 * _power(light.clamp(min=_STRAIGHT), 1 / 2.4) - 0.055)


def _power(values: Tensor, exponent: float) -> Tensor:
    """Of values above 0. Torch's own takes four times as long on the processor, for the last bit."""
    return (values.log() * exponent).exp()


def smoothstep(values: Tensor) -> Tensor:
    """The S of a camera's contrast curve, [0, 1] to [0, 1], as Brooks et al. take it: 3 x^2 - 2 x^3."""
    values = values.clamp(0.0, 1.0)
    return values * values * (3 - 2 * values)


def inverse_smoothstep(values: Tensor) -> Tensor:
    """The inverse of `smoothstep`, in closed form."""
    return 0.5 - torch.sin(torch.asin(1 - 2 * values.clamp(0.0, 1.0)) / 3)


class Tone(NamedTuple):
    """How a picture is shown, from linear light to display values, and back."""

    show: Callable[[Tensor], Tensor]
    invert: Callable[[Tensor], Tensor]


TONES: dict[str, Tone] = {
    "srgb": Tone(srgb_from_linear, linear_from_srgb),
    "contrast": Tone(
        lambda light: smoothstep(srgb_from_linear(light)), lambda shown: linear_from_srgb(inverse_smoothstep(shown))
    ),
}
"""The sRGB curve alone, as the engines have it, or with a camera's contrast on top."""


def light_of_codes(codes: Tensor, tone: str = "srgb") -> Tensor:
    """What `TONES[tone].invert` gives for display values in 8 bits, from a table.

    Args:
        codes: uint8, of any shape.
        tone: A key of `TONES`.

    Returns:
        float32, of that shape: linear light in [0, 1].
    """
    return _light_by_code(tone).to(codes.device).index_select(0, codes.reshape(-1).int()).view(codes.shape)


@cache
def _light_by_code(tone: str) -> Tensor:
    return TONES[tone].invert(torch.arange(256) / 255)
