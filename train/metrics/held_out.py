"""How close a network comes to the classic engine on rendered scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..data import Batches
from .pictures import psnr

HELD_OUT_SEED = 1_000_003
"""Of rendered scenes that nothing trains on."""


def mean_psnr(
    develop: Callable[[Tensor, Tensor], Tensor | npt.NDArray[np.float32]], batches: Batches, count: int = 24
) -> float:
    """Mean over the pictures of so many batches of 256 x 256 pixels, in dB, against the pictures without noise.

    Args:
        develop: Planes with noise, float32 [B, 4, 128, 128], and gains [B, 3] to sRGB [B, 3, 256, 256] in [0, 1].
        batches: Where the pictures come from.
        count: Batches.
    """
    triples = (batches.draw(256) for _ in range(count))
    scores = [psnr(*pair) for raw, gains, rgb in triples for pair in zip(develop(raw, gains), rgb, strict=True)]
    return float(np.mean(scores))
