"""The classic ISP written plainly in float64 NumPy: slow, short, and what the fused kernel is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .bayer import RawFormat, unpack
from .defects import neighbours
from .flat_field import FlatField, checked_mesh, gain_map

Floats = npt.NDArray[np.float64]

# Malvar, He, Cutler (ICASSP 2004), in sixteenths.
_GREEN_AT_CHROMA = np.array(
    [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]], np.float64
)
_CHROMA_IN_ROW = np.array(
    [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]], np.float64
)
_CHROMA_AT_CHROMA = np.array(
    [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]], np.float64
)


def srgb_curve(linear: npt.ArrayLike) -> Floats:
    """The sRGB transfer curve of IEC 61966-2-1: linear light in [0, 1] to display values in [0, 1]."""
    x = np.clip(np.asarray(linear, np.float64), 0.0, 1.0)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def levelled(
    raw: npt.NDArray[np.uint8],
    fmt: RawFormat,
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
) -> Floats:
    """The samples of a frame, uint8 [N], with black at 0 and white at 1, its defects replaced, and its shading made up
    for: float64 [H, W]."""
    samples = unpack(raw, fmt).astype(np.float64)
    mended = samples.copy()
    for (x, y), near in zip(defects, neighbours(defects, fmt), strict=True):
        if near:
            mended[y, x] = np.mean([samples[v, u] for u, v in near])
    light = (mended - fmt.black_level) / (fmt.white_level - fmt.black_level)
    return light if flat_field is None else light * gain_map(checked_mesh(flat_field), fmt)


def demosaic(mosaic: Floats, cfa: str) -> Floats:
    """Gradient-corrected linear demosaic of [H, W] samples to [H, W, 3], reflected at the borders."""
    height, width = mosaic.shape
    padded = np.pad(mosaic, 2, mode="reflect")

    def filtered(kernel: Floats) -> Floats:
        total = np.zeros_like(mosaic)
        for dy, dx in np.argwhere(kernel != 0):
            total += kernel[dy, dx] / 16 * padded[dy : dy + height, dx : dx + width]
        return total

    in_row, across = filtered(_CHROMA_IN_ROW), filtered(np.ascontiguousarray(_CHROMA_IN_ROW.T))
    opposite, green = filtered(_CHROMA_AT_CHROMA), filtered(_GREEN_AT_CHROMA)
    rgb = np.empty((height, width, 3))
    for place, colour in enumerate(cfa):
        at = np.s_[place // 2 :: 2, place % 2 :: 2]
        if colour == "G":
            beside_red = cfa[place ^ 1] == "R"
            rgb[at] = np.stack(
                [(in_row if beside_red else across)[at], mosaic[at], (across if beside_red else in_row)[at]], axis=-1
            )
        else:
            own, other = (0, 2) if colour == "R" else (2, 0)
            rgb[(*at, own)] = mosaic[at]
            rgb[(*at, 1)] = green[at]
            rgb[(*at, other)] = opposite[at]
    return rgb


def classic_reference(
    raw: npt.NDArray[np.uint8],
    fmt: RawFormat,
    white_balance: Sequence[float] = (1.0, 1.0, 1.0),
    colour_matrix: npt.ArrayLike | None = None,
    *,
    tone: str = "srgb",
    defects: Sequence[tuple[int, int]] = (),
    flat_field: FlatField | None = None,
    clamp_outliers: bool = False,
) -> npt.NDArray[np.uint8]:
    """Develop one frame.

    Args:
        raw: uint8 [N], the payload of a frame.
        fmt: What it means.
        white_balance: Gains of R, G, B; unused for Mono8.
        colour_matrix: 3x3, camera RGB to linear sRGB; None is the identity; unused for Mono8.
        tone: "srgb" or "linear".
        defects: (x, y) of pixels to replace by the mean of their neighbours of the same colour.
        flat_field: Gains against shading, see `flat_field.checked_mesh`; not for Mono8.
        clamp_outliers: Limit every sample to the range of its four nearest neighbours of the same colour.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    mono = fmt.cfa == "MONO"
    light = levelled(raw, fmt, defects, flat_field)
    if mono:
        rgb = np.repeat(light[..., None], 3, axis=2)
    else:
        for place, colour in enumerate(fmt.cfa):
            light[place // 2 :: 2, place % 2 :: 2] *= white_balance["RGB".index(colour)]
        light = np.minimum(light, 1.0)
        if clamp_outliers:
            light = _clamped(light)
        rgb = demosaic(light, fmt.cfa)
        if colour_matrix is not None:
            rgb = rgb @ np.asarray(colour_matrix, np.float64).T
    rgb = np.clip(rgb, 0.0, 1.0)
    return np.floor((srgb_curve(rgb) if tone == "srgb" else rgb) * 255 + 0.5).astype(np.uint8)


def _clamped(light: Floats) -> Floats:
    padded = np.pad(light, 2, mode="reflect")
    near = [padded[:-4, 2:-2], padded[4:, 2:-2], padded[2:-2, :-4], padded[2:-2, 4:]]
    return np.clip(light, np.min(near, axis=0), np.max(near, axis=0))
