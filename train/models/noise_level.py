"""The noise level that a network is told at run time: from what comes with a frame to a plane of one number.

Frames come with the camera's gain in decibels and its exposure in microseconds. The level is

    z = (gain_db + 20 log10(t / exposure_us) - g0) / (g1 - g0), limited to 0 and 1

where g0 and g1 are the gains at which it is 0 and 1, and t, if there is one, the exposure that adds nothing: half of t
counts as much as 6 dB of gain. At a given gain the noise of a frame does not depend on its exposure, so t is for
cameras that brighten frames in a way that their gain does not tell, and for networks that brighten them. Exposure 0
stands for one that is not known, and counts as t. Published networks are given z itself, by hand; that it follows from
gain and exposure is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_DB_PER_FACTOR_E = 20 / math.log(10)


@dataclass(frozen=True)
class NoiseLevel:
    """How the noise level follows from gain and exposure.

    Attributes:
        gain_db: Gains in dB at which it is 0 and 1.
        exposure_us: The exposure that adds nothing, in microseconds; None leaves exposure out.

    Raises:
        ValueError: The second gain is not above the first, the exposure is not above 0, or one of them is no number.
    """

    gain_db: tuple[float, float]
    exposure_us: float | None = None

    def __post_init__(self) -> None:
        low, high = self.gain_db
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"noise.gain_db is {low:g} to {high:g}: the gain of much noise must be above that of none")
        if self.exposure_us is not None and not 0 < self.exposure_us < math.inf:
            raise ValueError(f"noise.exposure_us is {self.exposure_us:g}: it is an exposure in microseconds, above 0")

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it is made of: names of `engines.core.INPUTS`, in their order."""
        return ("gain_db",) if self.exposure_us is None else ("exposure_us", "gain_db")


def make_noise_level(options: dict[str, Any]) -> NoiseLevel:
    """From the option `noise` of a network: `gain_db`, two numbers, and `exposure_us`, one or none.

    Raises:
        ValueError: Another option, or a value out of range.
    """
    try:
        low, high = (float(gain) for gain in options["gain_db"])
        exposure = options.get("exposure_us")
        level = NoiseLevel((low, high), None if exposure is None else float(exposure))
    except (KeyError, TypeError) as error:
        raise ValueError(f"noise is {options!r}: it is a mapping with gain_db, two numbers") from error
    if unknown := sorted(options.keys() - {"gain_db", "exposure_us"}):
        raise ValueError(f"noise has no option {unknown[0]!r}: its options are gain_db and exposure_us")
    return level


class NoiseInput(nn.Module):
    """Computes the level of a batch; its constants are buffers, by whose names `level_of` finds them in a core.

    Args:
        level: How.
    """

    low: Tensor
    span: Tensor
    exposure: Tensor | None

    def __init__(self, level: NoiseLevel) -> None:
        super().__init__()
        low, high = level.gain_db
        self.register_buffer("low", torch.tensor([low]))
        self.register_buffer("span", torch.tensor([high - low]))
        self.register_buffer("exposure", None if level.exposure_us is None else torch.tensor([level.exposure_us]))

    def forward(self, columns: Tensor) -> Tensor:
        """float32 [B, K], the columns of `NoiseLevel.inputs`, to float32 [B, 1, 1, 1] in [0, 1]."""
        level = columns[:, -1:]
        if self.exposure is not None:
            known = torch.where(columns[:, :1] > 0, columns[:, :1], self.exposure)
            level = level + _DB_PER_FACTOR_E * torch.log(self.exposure / known)
        return ((level - self.low) / self.span).clamp(0.0, 1.0)[:, :, None, None]


def level_of(constants: dict[str, Tensor]) -> dict[str, Any]:
    """The option `noise` of a network, from the buffers of its `NoiseInput`; to the digits of float32."""
    low, span = float(constants["low"]), float(constants["span"])
    exposure = constants.get("exposure")
    return {"gain_db": [low, low + span]} | ({} if exposure is None else {"exposure_us": float(exposure)})


def with_plane(features: Tensor, noise: Tensor | None) -> Tensor:
    """Features [B, C, H, W] and one channel more that holds a number for each frame, [B, 1, 1, 1].

    Raises:
        ValueError: There is no such number.
    """
    if noise is None:
        raise ValueError("a network with a noise plane is called with planes and the noise level")
    return torch.cat([features, noise.to(features.dtype).expand_as(features[:, :1])], 1)
