"""Camera profiles: what is known of a camera and of how it was set, as a YAML file.

`isp-invert --camera` turns photographs into frames of such a camera, and recipes train on cameras whose own pictures
follow from their parameters in a known way (`known_camera`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from ...engines.colour import is_invertible
from ...engines.errors import UserError
from ...engines.settings import Settings, make_settings, read_yaml
from ...engines.white_balance import HIGHEST_GAIN, LOWEST_GAIN

Positive = Annotated[float, Field(gt=0)]
Ordered = tuple[Positive, Positive]
"""Lowest and highest, above 0."""

MOST_TINT = 0.1
"""How far from 1 the rows of a colour matrix may sum: white is to stay white."""

EXPOSURES_US, ISOS, F_NUMBERS, FOCAL_LENGTHS_MM = (1e-3, 3.6e9), (1.0, 1e7), (0.5, 128.0), (0.5, 5000.0)
"""What is possible: outside of it a number is a mistake."""

FULL_WELLS, MOST_READ_NOISE, LIGHTS, LOOKS = (1.0, 1e9), 1e6, (1e-6, 1e3), (0.01, 100.0)
"""The same of electrons at white, electrons of noise, brightness, and the numbers of a `Look`."""

Amount = Annotated[float, Field(ge=LOOKS[0], le=LOOKS[1])]
Gain = Annotated[float, Field(ge=LOWEST_GAIN, le=HIGHEST_GAIN)]
"""Of white balance, as engines apply it."""


class Look(Settings):
    """How a camera's own pictures depend on its parameters. What has two numbers is for the lowest and the highest
    value of the parameter, and between them by its logarithm."""

    brighten: tuple[Amount, Amount] = (1.0, 1.0)
    """by how much dark colours are brightened, at the shortest and at the longest exposure"""
    saturation: tuple[Amount, Amount] = (1.0, 1.0)
    """of colours, at the lowest and at the highest ISO"""
    sharpen: tuple[Annotated[float, Field(ge=0, le=LOOKS[1])], Annotated[float, Field(ge=0, le=LOOKS[1])]] = (0.0, 0.0)
    """amount of sharpening, at the widest and at the smallest aperture"""
    contrast: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.0, 0.0)
    """share of an S curve, at the shortest and at the longest focal length"""


class CameraProfile(Settings):
    """A camera."""

    name: Annotated[str, Field(min_length=1)]
    """what it is called"""
    cfa: Literal["RGGB", "GRBG", "GBRG", "BGGR"] = "RGGB"
    """colours of its top left 2x2 samples"""
    bits: Literal[8, 10, 12, 14, 16] = 12
    """depth of its conversion"""
    black_level: Annotated[float, Field(ge=0, lt=0.5)] = 1 / 64
    """black level of its frames, as a share of the highest number"""
    colour_matrix: list[list[float]] = Field([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    """3x3, its colours after white balance to linear sRGB; rows sum to 1"""
    white_balance: tuple[tuple[Gain, Gain], tuple[Gain, Gain]] = ((1.5, 2.4), (1.4, 2.2))
    """ranges of the gains of red and of blue; green is 1"""
    base_iso: Annotated[float, Field(ge=ISOS[0], le=ISOS[1])] = 100.0
    """ISO at a gain of 0 dB"""
    full_well: Annotated[float, Field(ge=FULL_WELLS[0], le=FULL_WELLS[1])] = 20_000.0
    """electrons at white at that ISO"""
    read_noise: Annotated[float, Field(ge=0, le=MOST_READ_NOISE)] = 5.0
    """electrons rms"""
    measured: Literal["rhid", "camera"] | None = None
    """noise of a camera that was measured, in place of what follows from full_well, read_noise and ISO: rhid (a
    high-speed camera), camera (ordinary ones); null has none"""
    exposure_us: Ordered = (10.0, 10_000.0)
    """range of exposures in microseconds"""
    iso: Ordered = (100.0, 6400.0)
    """range of sensitivities"""
    f_number: Ordered = (1.4, 16.0)
    """range of f-numbers"""
    focal_length_mm: Ordered = (12.0, 85.0)
    """range of focal lengths in millimetres"""
    light: Ordered = (0.4, 1.0)
    """range of how bright its frames are: 1 is as bright as the photograph, of which white is white"""
    vignetting: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of the light that corners lose at the widest aperture; it falls with the square of the f-number"""
    look: Look = Look()
    """how its own pictures depend on these; isp-invert has no use for it, but for its networks that learned it"""

    @field_validator("colour_matrix")
    @classmethod
    def _invertible(cls, matrix: list[list[float]]) -> list[list[float]]:
        values = np.array([row[:3] for row in matrix if len(row) == 3])
        if values.shape != (3, 3) or len(matrix) != 3:
            raise ValueError("colour_matrix is three rows of three numbers")
        if not is_invertible(values):
            raise ValueError("colour_matrix cannot be inverted; give the camera's colours to linear sRGB, row by row")
        if not np.abs(values.sum(1) - 1).max() <= MOST_TINT:
            raise ValueError("the rows of colour_matrix sum to 1, since it is for colours after white balance")
        return matrix

    @model_validator(mode="after")
    def _possible(self) -> CameraProfile:
        limits = {"exposure_us": EXPOSURES_US, "iso": ISOS, "f_number": F_NUMBERS, "focal_length_mm": FOCAL_LENGTHS_MM}
        limits["light"] = LIGHTS
        for name, (least, most) in limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} is {low:g} to {high:g}: it is a range between {least:g} and {most:g}, the lower one first"
                )
        for low, high in self.white_balance:
            if low > high:
                raise ValueError(f"white_balance is {low:g} to {high:g}: the lower one comes first")
        return self

    @property
    def codes(self) -> int:
        """The highest number of its conversion."""
        return 2**self.bits - 1


def read_profile(path: Path) -> CameraProfile:
    """A profile.

    Raises:
        UserError: The file cannot be read, or what is wrong with it, all of it in one line.
    """
    try:
        return make_settings(CameraProfile, read_yaml(path), "isp-invert --settings")
    except UserError as error:
        raise UserError(f"the camera profile {path}: {error}") from error


def between(values: tuple[float, float], at: float, limits: tuple[float, float]) -> float:
    """What lies between two values where a parameter lies within its limits, by its logarithm; the limits hold
    beyond."""
    low, high = limits
    share = 0.0 if low == high else (math.log(at) - math.log(low)) / (math.log(high) - math.log(low))
    share = min(max(share, 0.0), 1.0)
    return values[0] + share * (values[1] - values[0])
