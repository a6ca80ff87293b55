"""Colour differences as people see them: CIELAB and CIEDE2000."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

XYZ_D50_FROM_SRGB = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
"""Linear sRGB to XYZ, adapted from D65 to D50 after Bradford, for which charts are measured."""

D50 = XYZ_D50_FROM_SRGB.sum(1)


def light(srgb: npt.ArrayLike) -> Floats:
    """Linear light of display values in [0, 1], any shape, in float64."""
    shown = np.asarray(srgb, np.float64)
    return np.where(shown <= 0.04045, shown / 12.92, ((np.maximum(shown, 0) + 0.055) / 1.055) ** 2.4)


def luminance(linear: npt.ArrayLike) -> Floats:
    """Relative luminance Y of linear sRGB [..., 3]."""
    return np.asarray(linear, np.float64) @ XYZ_D50_FROM_SRGB[1]


def lab_from_linear(linear: npt.ArrayLike) -> Floats:
    """Linear sRGB [..., 3], white at 1, to CIELAB under D50 [..., 3]."""
    xyz = np.asarray(linear, np.float64) @ XYZ_D50_FROM_SRGB.T / D50
    edge = 6 / 29
    f = np.where(xyz > edge**3, np.cbrt(xyz), xyz / (3 * edge**2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def linear_from_lab(lab: npt.ArrayLike) -> Floats:
    """The inverse of `lab_from_linear`; below 0 or above 1 where sRGB cannot show the colour."""
    lightness, a, b = np.moveaxis(np.asarray(lab, np.float64), -1, 0)
    middle = (lightness + 16) / 116
    f = np.stack([middle + a / 500, middle, middle - b / 200], -1)
    edge = 6 / 29
    xyz = np.where(f > edge, f**3, 3 * edge**2 * (f - 4 / 29)) * D50
    return np.linalg.solve(XYZ_D50_FROM_SRGB, xyz.reshape(-1, 3).T).T.reshape(xyz.shape)


def ciede2000(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """CIEDE2000 of colours in CIELAB, [..., 3] each, as Sharma, Wu, Dalal (2005) write it; all factors 1.

    Raises:
        ValueError: The last axis is not of three.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape[-1:] != (3,) or b.shape[-1:] != (3,):
        raise ValueError(f"colours are [..., 3], not {[*a.shape]} and {[*b.shape]}")
    mean_chroma = (np.hypot(a[..., 1], a[..., 2]) + np.hypot(b[..., 1], b[..., 2])) / 2
    stretch = 1 + 0.5 * (1 - _towards_one(mean_chroma))
    (chroma_1, hue_1), (chroma_2, hue_2) = (_polar(lab, stretch) for lab in (a, b))
    coloured = chroma_1 * chroma_2 > 0
    turn = np.where(coloured, hue_2 - hue_1, 0)
    turn = np.where(np.abs(turn) > 180, turn - 360 * np.sign(turn), turn)  # half a turn stays on its side
    hue = np.where(coloured, (hue_1 + turn / 2) % 360, hue_1 + hue_2)
    chroma, lightness = (chroma_1 + chroma_2) / 2, (a[..., 0] + b[..., 0]) / 2
    by_lightness = (b[..., 0] - a[..., 0]) / _lightness_scale(lightness)
    by_chroma = (chroma_2 - chroma_1) / (1 + 0.045 * chroma)
    by_hue = 2 * np.sqrt(chroma_1 * chroma_2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * _hue_weight(hue))
    swing = -2 * _towards_one(chroma) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    return np.sqrt(by_lightness**2 + by_chroma**2 + by_hue**2 + swing * by_chroma * by_hue)


def _towards_one(chroma: Floats) -> Floats:
    return np.sqrt(chroma**7 / (chroma**7 + 25.0**7))


def _polar(lab: Floats, stretch: Floats) -> tuple[Floats, Floats]:
    """Chroma, and hue in degrees from 0 to 360, with the stretched a*."""
    a, b = lab[..., 1] * stretch, lab[..., 2]
    return np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360


def _lightness_scale(lightness: Floats) -> Floats:
    off = (lightness - 50) ** 2
    return 1 + 0.015 * off / np.sqrt(20 + off)


def _hue_weight(hue: Floats) -> Floats:
    terms = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    weight = np.ones_like(hue)
    for size, times, shift in terms:
        weight += size * np.cos(np.radians(times * hue + shift))
    return weight
