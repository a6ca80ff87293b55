"""Colour matrix and tone: the options that say how an engine ends, checked in one way for all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import UserError

TONES = ("srgb", "linear")
"""The sRGB curve, or none."""


def checked_tone(tone: str) -> str:
    """`tone` itself. Raises UserError if it is none of `TONES`."""
    if tone not in TONES:
        raise UserError(f"tone {tone!r} is unknown; use one of {', '.join(TONES)}")
    return tone


def checked_matrix(colour_matrix: npt.ArrayLike | None) -> npt.NDArray[np.float32]:
    """A colour matrix that a user gave, or the identity for None: float32 [3, 3].

    Raises:
        UserError: Not nine finite numbers.
    """
    if colour_matrix is None:
        return np.eye(3, dtype=np.float32)
    try:
        matrix = np.asarray(colour_matrix, np.float32)
    except (TypeError, ValueError):
        matrix = np.empty(0, np.float32)
    if matrix.size != 9 or not np.all(np.isfinite(matrix)):
        raise UserError("the colour matrix is not usable; give nine finite numbers, three rows of three")
    return matrix.reshape(3, 3)


def core_finish(
    model: str, output: str, colour_matrix: npt.ArrayLike | None, tone: str
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """Colour matrix (None: none) and tone for what a model core gives.

    Args:
        model: Its name, for messages.
        output: "linear" or "srgb", `CoreInfo.output`.
        colour_matrix, tone: See `open_engine`.

    Raises:
        UserError: An option is not usable, or the core has learned its colours and tone and takes neither.
    """
    checked_tone(tone)
    matrix = None if colour_matrix is None else checked_matrix(colour_matrix)
    if output == "srgb" and (matrix is not None or tone != "srgb"):
        raise UserError(f"{model} has learned its colours and tone; leave the colour matrix and tone out")
    return matrix, tone
