"""The simulated camera's sensor, and the classic engine as a teacher: from a scene to a mosaic and its picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat, pack
from ...engines.classic import ClassicEngine
from ...engines.slots import Slots

Floats = npt.NDArray[np.float32]

CAMERA_FROM_SRGB: Floats = np.array([[0.42, 0.12, 0.02], [0.12, 0.75, 0.13], [0.02, 0.16, 0.46]], np.float32)
"""What red, green and blue pixels see of linear sRGB light: the simulated camera's numbers."""

COLOUR_MATRIX: Floats = np.linalg.inv(CAMERA_FROM_SRGB / CAMERA_FROM_SRGB.sum(1, keepdims=True)).astype(np.float32)
"""Camera RGB after white balance to linear sRGB: [3, 3], rows sum to 1."""

FULL_WELL = 10_000
"""Electrons at full scale, at a gain of 0 dB."""

READ_NOISE = 4
"""Electrons rms."""

_PEDESTAL = 1 << 12
"""Black level of the mosaics for the classic engine, in DN of 16 bits: noise goes below it."""


class Exposure(NamedTuple):
    """One frame of a scene.

    Attributes:
        planes: float32 [4, H/2, W/2], R, Gr, Gb, B with noise and quantisation, black 0 and white 1.
        gains: float32 [3], white balance of R, G and B, green 1.
        clean: float32 [4, H/2, W/2], the planes without noise.
        gain_db: The gain with which the noise grew.
    """

    planes: Floats
    gains: Floats
    clean: Floats
    gain_db: float


def expose(rng: np.random.Generator, scene: Floats) -> Exposure:
    """Take a frame with random light, exposure, gain, depth of conversion and white balance.

    Args:
        rng: Where chance comes from.
        scene: float32 [H, W, 3], linear sRGB; H and W even.
    """
    light = np.exp(rng.normal(0, 0.2, 3) * (1, 0, 1))  # its colour, as the sensor's pixels see it
    level = np.exp(rng.uniform(np.log(0.12), np.log(1.8)))
    camera = scene @ (CAMERA_FROM_SRGB * (level * light)[:, None]).T.astype(np.float32)
    planes = np.stack([camera[0::2, 0::2, 0], camera[0::2, 1::2, 1], camera[1::2, 0::2, 1], camera[1::2, 1::2, 2]])
    np.minimum(planes, 1, out=planes)
    gain_db = rng.choice([0, rng.uniform(0, 18)])
    return Exposure(_converted(rng, planes, gain_db), _gains(rng, light), planes, float(gain_db))


def _gains(rng: np.random.Generator, light: npt.NDArray[np.float64]) -> Floats:
    """The right ones for the light, as a rule only about right: an estimate from a coloured scene is no better."""
    if rng.random() < 0.1:
        return np.ones(3, np.float32)
    gains = 1 / (CAMERA_FROM_SRGB.sum(1) * light) * np.exp(rng.normal(0, 0.2, 3))
    return np.clip(gains / gains[1], 0.25, 8).astype(np.float32)


def _converted(rng: np.random.Generator, signal: Floats, gain_db: np.float64) -> Floats:
    """Shot noise, read noise, conversion to 8, 10 or 12 bits above a pedestal."""
    electron = 10 ** (gain_db / 20) / FULL_WELL
    variance = signal * electron + (READ_NOISE * electron) ** 2
    noisy = signal + rng.standard_normal(signal.shape, np.float32) * np.sqrt(variance)
    depth = int(rng.choice([8, 10, 12]))
    full, black = (1 << depth) - 1, 64 * 2.0 ** (depth - 12)
    codes = np.clip(np.rint(black + noisy * (full - black)), 0, full)
    return ((codes - black) / (full - black)).astype(np.float32)


class ClassicTarget:
    """What the classic engine makes of mosaics of one size, with the simulated camera's colour matrix."""

    def __init__(self, height: int, width: int) -> None:
        self._format = RawFormat(width, height, "BayerRG16", _PEDESTAL)
        self._raw, self._srgb = Slots(1, self._format.payload_size), Slots(1, height * width * 3)
        self._engine = ClassicEngine(threads=1, colour_matrix=COLOUR_MATRIX)
        self._engine.prepare(self._format, 1, self._raw, self._srgb)

    def develop(self, planes: Floats, gains: Floats) -> npt.NDArray[np.uint8]:
        """Planes [4, H/2, W/2] and gains [3] to sRGB, uint8 [H, W, 3], a fresh array."""
        fmt = self._format
        mosaic = np.empty((fmt.height, fmt.width), np.uint16)
        codes = planes * np.float32(fmt.white_level - _PEDESTAL) + np.float32(_PEDESTAL + 0.5)
        for plane, (y, x) in zip(codes, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            mosaic[y::2, x::2] = plane
        self._raw.slot(0)[:] = pack(mosaic, fmt)
        self._engine.develop([0], [0], gains[None]).wait()
        return self._srgb.slot(0).reshape(fmt.height, fmt.width, 3).copy()
