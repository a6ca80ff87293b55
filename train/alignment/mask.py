"""A reference moved onto a frame, and where that can be relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..protocols import opencv
from .refine import places
from .structure import grey, structure, surround

if TYPE_CHECKING:
    from ..losses.phase import PhaseMask

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

Rule = Literal["relative", "absolute"]
"""How far the way there and back may miss its start."""

RELATIVE, ALWAYS = 0.01, 0.5
"""Of "relative": the squared miss may be this part of the squared ways, and this many squared pixels besides (Sundaram,
Brox, Keutzer 2010)."""

MISS = 3.0
"""Of "absolute": pixels. What the folder "OFCmask/3.0_512" of MisISP's data is named after, as we read it."""

OFF_COLOUR = 0.12
"""Difference of smoothed colours, in sRGB of [0, 1], from which a place shows something else."""

UNLIKE = 0.1
"""Correlation of local structure below which a place shows something else, if the reference has structure there."""

STRUCTURED = 0.25
"""Variance of local structure, of 1 at most, that is looked at."""

AROUND = 6.0
"""Standard deviation, in pixels, of the surroundings in which colour and structure are compared."""

_BLUR = 1.0
"""Of structure, in pixels, against noise."""


def warp(picture: Picture, to_x: Floats, to_y: Floats) -> Picture:
    """What lies at these places of a picture: uint8, bicubic; beyond its border, its border.

    Args:
        picture: uint8 [h, w, 3].
        to_x, to_y: float32 [H, W], columns and rows.
    """
    cv2 = opencv("alignment")
    return cv2.remap(picture, to_x, to_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def inside(to_x: Floats, to_y: Floats, height: int, width: int) -> Bools:
    """Which of these places lie within a picture of that size."""
    return (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)


def consistent(there: Floats, back: Floats, rule: Rule = "relative", miss: float = MISS) -> Bools:
    """Where the way there and back ends near its start: what only one camera sees does not.

    Args:
        there, back: float32 [H, W, 2], flow from the frame to the reference, and the other way.
        rule: "relative" to the length of the ways, or "absolute".
        miss: Of "absolute", in pixels.

    Returns:
        bool [H, W].
    """
    cv2 = opencv("alignment")
    returned = cv2.remap(back, *places(there), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    missed = _squared(there + returned)
    if rule == "absolute":
        return missed < miss * miss
    return missed < RELATIVE * (_squared(there) + _squared(returned)) + ALWAYS


def alike(shown: Floats, reference: Picture) -> Bools:
    """Where the two show the same: bool [H, W].

    Args:
        shown: float32 [H, W, 3] in [0, 1], the frame in the look of the reference.
        reference: uint8 [H, W, 3], moved onto it.
    """
    off = shown - reference.astype(np.float32) * np.float32(1 / 255)
    colour = np.abs(surround(off, AROUND)).max(-1) < OFF_COLOUR
    first, second = (structure(grey(picture), _BLUR) for picture in (shown, reference))
    product, one, other = (surround(a * b, AROUND) for a, b in ((first, second), (first, first), (second, second)))
    agrees = (product > UNLIKE * np.sqrt(one * other)) | (other < STRUCTURED)
    return colour & agrees


def agreement(shown: Floats, reference: Picture, counts: Bools) -> float:
    """Correlation of the local structure of two pictures over the places that count; 0 where there are none."""
    first, second = (structure(grey(picture), _BLUR)[counts] for picture in (shown, reference))
    norm = float(np.sqrt(np.vdot(first, first) * np.vdot(second, second)))
    return float(np.vdot(first, second)) / norm if norm else 0.0


def in_phase(phases: PhaseMask, shown: Floats, reference: Picture) -> Bools:
    """Blocks in which structure lies in the same place, as a network sees it: bool [H, W]; all where no block fits in.

    Args:
        phases: Compares blocks.
        shown: float32 [H, W, 3] in [0, 1], the frame in the look of the reference.
        reference: uint8 [H, W, 3], moved onto it.
    """
    import torch

    height, width = reference.shape[:2]
    if min(height, width) < phases.block:
        return np.ones((height, width), np.bool_)
    pictures = (
        torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
        for picture in (shown, reference.astype(np.float32) * np.float32(1 / 255))
    )
    kept = phases(*pictures)[0, 0].numpy() > 0
    # what is left over right and below of whole blocks is as good as the block beside it
    rows, columns = (np.minimum(np.arange(n), n // phases.block * phases.block - 1) for n in (height, width))
    return kept[rows[:, None], columns]


def _squared(flow: Floats) -> Floats:
    return flow[..., 0] ** 2 + flow[..., 1] ** 2
