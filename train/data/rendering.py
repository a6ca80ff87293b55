"""What the classic engine makes of a raw frame: the picture of frames that have none, or whose own is not to be
learned."""

from __future__ import annotations

from ...engines.bayer import RawFormat, pack
from ...engines.reference import classic_reference
from .raw_pair import Gains, Matrix, Picture, Samples


def classic_picture(samples: Samples, fmt: RawFormat, gains: Gains, matrix: Matrix | None = None) -> Picture:
    """Levels, white balance, demosaic, colour matrix and the sRGB curve.

    Args:
        samples: uint16 [H, W], DN of the format.
        fmt: Of the samples.
        gains: float32 [3], white balance of R, G, B.
        matrix: float32 [3, 3], camera RGB after white balance to linear sRGB; None is the identity.

    Returns:
        uint8 [H, W, 3], sRGB.
    """
    return classic_reference(pack(samples, fmt), fmt, gains.tolist(), matrix)
