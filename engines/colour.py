"""Colour matrix and tone: the options that say how an engine ends, checked in one way for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .inputs import takes_matrix

TONES = ("srgb", "linear")
"""The sRGB curve, or none."""

WORST_CONDITION = 1e6
"""A colour matrix whose condition number is above this cannot be inverted with what float32 holds."""


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


LEAST_DETERMINANT = 1e-6
"""Of a colour matrix that a core inverts, which counts smaller ones as this: those of a white of 1 have about 1."""


def is_invertible(matrix: npt.NDArray[Any]) -> bool:
    """Whether a matrix, float [3, 3], can be inverted as cores that are told it do."""
    wide = matrix.astype(np.float64)
    with np.errstate(over="ignore"):  # a determinant that large is no small one
        return bool(
            np.isfinite(wide).all()
            and np.linalg.cond(wide) <= WORST_CONDITION
            and abs(np.linalg.det(wide)) >= LEAST_DETERMINANT
        )


def invertible_matrix(colour_matrix: npt.ArrayLike | None) -> npt.NDArray[np.float32]:
    """A colour matrix for a core that is told it, or the identity for None: float32 [3, 3].

    Raises:
        UserError: Not nine finite numbers, or a matrix that cannot be inverted, as such a core does.
    """
    matrix = checked_matrix(colour_matrix)
    if not is_invertible(matrix):
        raise UserError(
            "the colour matrix cannot be inverted, which this model has to do; "
            "give the camera's own, from camera RGB to linear sRGB"
        )
    return matrix


def core_finish(
    model: str, output: str, colour_matrix: npt.ArrayLike | None, tone: str, inputs: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """Colour matrix (None: none) and tone for what a model core gives.

    Args:
        model: Its name, for messages.
        output: "linear" or "srgb", `CoreInfo.output`.
        colour_matrix, tone: See `open_engine`.
        inputs: Run-time inputs of the core. One that is told the colour matrix (see `CoreInputs`) applies it itself:
            then there is none for what it gives.

    Raises:
        UserError: An option is not usable, or the core has learned its colours or its tone and takes none.
    """
    checked_tone(tone)
    if takes_matrix(inputs):
        invertible_matrix(colour_matrix)
        if output == "srgb" and tone != "srgb":
            raise UserError(f"{model} has learned its tone; leave the tone out")
        return None, tone
    matrix = None if colour_matrix is None else checked_matrix(colour_matrix)
    if output == "srgb" and (matrix is not None or tone != "srgb"):
        raise UserError(f"{model} has learned its colours and tone; leave the colour matrix and tone out")
    return matrix, tone
