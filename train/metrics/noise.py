"""Noise that is left where a scene is flat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .pictures import unit

Floats = npt.NDArray[np.float64]

CODES_FROM_SRGB = 255 * np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Y', Cb, Cr of BT.601 over the full range, in codes of 8 bits."""

DARKEST, BRIGHTEST = 0.04, 0.96
"""Mean luma of blocks that count: clipping hides noise."""


@dataclass(frozen=True)
class FlatNoise:
    """Standard deviations in codes of 8 bits.

    Attributes:
        luma: Of Y'.
        chroma: Of Cb and Cr, root of the mean of both variances.
    """

    luma: float
    chroma: float


def flat_blocks(reference: npt.ArrayLike, size: int = 16, share: float = 0.05) -> npt.NDArray[np.int_]:
    """The flattest blocks of a picture, to be looked at in others of the same scene.

    Args:
        reference: sRGB [H, W, 3] with as little noise as there is, uint8 or in [0, 1].
        size: Edge of a block in pixels.
        share: Of all blocks that are neither black nor white; at least one is taken.

    Returns:
        Their upper left corners, [N, 2] (y, x), the flattest first.

    Raises:
        ValueError: No picture, a size below 4, a share outside (0, 1], or no block between black and white.
    """
    picture = _coloured(reference)
    if size < 4 or not 0 < share <= 1:
        raise ValueError(f"blocks of {size} pixels and a share of {share} cannot be used; give 4 and up, and (0, 1]")
    rows, columns = (n // size for n in picture.shape[:2])
    corners = size * np.indices((rows, columns)).reshape(2, -1).T
    if not len(corners):
        raise ValueError(f"a picture of {[*picture.shape]} holds no block of {size} pixels")
    blocks = _cut(picture, corners, size)
    luma = blocks[..., 0].mean((1, 2)) / 255
    usable = (luma > DARKEST) & (luma < BRIGHTEST)
    if not usable.any():
        raise ValueError("every block of the picture is black or white; noise cannot be measured there")
    deviation = _variances(blocks).sum(1)
    order = np.flatnonzero(usable)[np.argsort(deviation[usable], kind="stable")]
    return corners[order[: max(1, round(share * len(order)))]]


def flat_noise(picture: npt.ArrayLike, corners: npt.ArrayLike, size: int = 16) -> FlatNoise:
    """Noise in some blocks of a picture, what is left after a plane has been taken out of each.

    Args:
        picture: sRGB [H, W, 3], uint8 or in [0, 1].
        corners: Of the blocks, as `flat_blocks` gives them.
        size: Of the blocks.

    Raises:
        ValueError: No picture, or no blocks that lie in it.
    """
    values, places = _coloured(picture), np.asarray(corners)
    if not len(places) or places.min() < 0 or (places.max(0) + size > values.shape[:2]).any():
        raise ValueError(
            f"the blocks do not lie in a picture of {[*values.shape]}; take those of a picture of its size"
        )
    luma, *chroma = _variances(_cut(values, places, size)).mean(0)
    return FlatNoise(float(np.sqrt(luma)), float(np.sqrt(np.mean(chroma))))


def _coloured(picture: npt.ArrayLike) -> Floats:
    values = unit(picture)
    if values.ndim != 3:
        raise ValueError(f"noise is measured in colour pictures [H, W, 3], not {[*values.shape]}")
    return values @ CODES_FROM_SRGB.T


def _cut(values: Floats, corners: npt.NDArray[np.int_], size: int) -> Floats:
    return np.stack([values[y : y + size, x : x + size] for y, x in corners])


def _variances(blocks: Floats) -> Floats:
    """Of blocks [N, size, size, 3] about their planes: [N, 3]."""
    size = blocks.shape[1]
    y, x = np.mgrid[:size, :size].reshape(2, -1)
    plane, _ = np.linalg.qr(np.stack([np.ones(size**2), x, y], 1))
    flat = blocks.reshape(len(blocks), size**2, 3)
    rest = flat - plane @ (plane.T @ flat)
    return (rest**2).sum(1) / (size**2 - 3)
