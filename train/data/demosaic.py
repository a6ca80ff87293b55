"""Colours from the planes of a mosaic, as tensors: the linear demosaic of Malvar, He and Cutler (ICASSP 2004).

It is that of the classic engine: its coefficients are read off the answers of `engines.reference.demosaic` to single
samples, and all twelve values of a cell come from one convolution.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, pixel_shuffle

from ...engines.reference import demosaic as reference

_REACH = 2
"""Samples that a value looks at in each direction."""


def demosaic(planes: Tensor) -> Tensor:
    """Colours at every sample, reflected at the borders; nothing is limited, and edges may overshoot.

    Args:
        planes: float [B, 4, h, w], R, Gr, Gb, B of an RGGB mosaic, h and w at least 2.

    Returns:
        float32 [B, 3, 2 h, 2 w], or float64 of float64.

    Raises:
        ValueError: Another shape, or smaller.
    """
    if planes.ndim != 4 or planes.shape[1] != 4 or min(planes.shape[2:]) < 2:
        raise ValueError(f"planes are [B, 4, h, w], h and w at least 2, not {[*planes.shape]}")
    samples = planes.to(torch.float64 if planes.dtype == torch.float64 else torch.float32)
    with torch.autocast(planes.device.type, enabled=False):
        mosaic = pad(pixel_shuffle(samples, 2), (_REACH,) * 4, "reflect")
        return pixel_shuffle(conv2d(mosaic, _answers().to(mosaic), stride=2), 2)


@cache
def _answers() -> Tensor:
    """What each sample near a cell adds to its twelve values: float64 [12, 1, 6, 6], colours first, then places."""
    edge = 2 + 2 * _REACH
    added = np.empty((3, 2, 2, edge, edge))
    for y, x in np.ndindex(edge, edge):
        single = np.zeros((edge + 4, edge + 4))  # so large that no border is near
        single[2 + y, 2 + x] = 1.0
        cell = slice(2 + _REACH, 4 + _REACH)
        added[..., y, x] = reference(single, "RGGB")[cell, cell].transpose(2, 0, 1)
    return torch.from_numpy(added.reshape(12, 1, edge, edge))
