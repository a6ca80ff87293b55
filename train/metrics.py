"""How close a picture is to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .data import Batches

Floats = npt.NDArray[np.float32]

HELD_OUT_SEED = 1_000_003
"""Of rendered scenes that nothing trains on."""


def psnr(shown: npt.ArrayLike, reference: npt.ArrayLike, full: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB, infinite for equal pictures.

    Args:
        shown, reference: Values of one shape.
        full: The value of white: 255 for codes.
    """
    difference = np.asarray(shown, np.float64) - np.asarray(reference, np.float64)
    error = float(np.mean(difference**2))
    return float(10 * np.log10(full**2 / error)) if error else float("inf")


def mean_psnr(develop: Callable[[Tensor, Tensor], Tensor | Floats], batches: Batches, count: int = 24) -> float:
    """Mean over the pictures of so many batches of 256 x 256 pixels, in dB, against the pictures without noise.

    Args:
        develop: Planes with noise, float32 [B, 4, 128, 128], and gains [B, 3] to sRGB [B, 3, 256, 256] in [0, 1].
        batches: Where the pictures come from.
        count: Batches.
    """
    triples = (batches.draw(256) for _ in range(count))
    scores = [psnr(*pair) for raw, gains, rgb in triples for pair in zip(develop(raw, gains), rgb, strict=True)]
    return float(np.mean(scores))
