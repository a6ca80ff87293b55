"""The steps of a camera that are known without learning, forwards and back: CanoNet of ParamISP, and its baseline.

Source: Kim, Kim, Kim, Lee, Baek and Cho, "ParamISP: Learned Forward and Inverse ISPs using Camera Parameters" (CVPR
2024), and the code released with it. Forwards: demosaic (Malvar, He and Cutler), white balance with green at 1, limits
of 0 and 1, colour matrix. Back: the inverse matrix, white balance divided out, the samples of the filter array.

Nothing else is limited: a frame that white balance does not clip comes back as it was, to the precision of its floats,
because demosaicing leaves every sample where it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...engines.colour import LEAST_DETERMINANT
from ..curves import inverse_smoothstep, smoothstep
from ..data.demosaic import demosaic

DISPLAY_POWER = 2.2
"""Of the baseline's curve."""


def to_linear(planes: Tensor, gains: Tensor, matrix: Tensor) -> Tensor:
    """Develop planes as far as nothing has to be learned for.

    Args:
        planes: float [B, 4, h, w], R, Gr, Gb, B, black 0, white 1, not white balanced.
        gains: float [B, 3], of red, green and blue, green 1.
        matrix: float [B, 3, 3], the camera's colours after white balance to linear sRGB.

    Returns:
        float [B, 3, 2h, 2w], linear sRGB, not limited: colours that sRGB does not have lie outside of [0, 1].
    """
    balanced = (demosaic(planes) * gains[:, :, None, None]).clamp(0.0, 1.0)
    return mixed(matrix, balanced)


def to_camera(linear: Tensor, gains: Tensor, matrix: Tensor) -> Tensor:
    """What a camera with three samples for each pixel would have given, not limited.

    Args:
        linear: float [B, 3, H, W], linear sRGB.
        gains, matrix: As of `to_linear`; the matrix can be inverted.

    Returns:
        float [B, 3, H, W], before white balance, black 0, white 1.
    """
    return mixed(inverse(matrix), linear) / gains[:, :, None, None]


def sampled(colours: Tensor) -> Tensor:
    """R, Gr, Gb, B of an RGGB mosaic: [B, 3, 2h, 2w] to [B, 4, h, w]."""
    return torch.stack(
        [colours[:, 0, 0::2, 0::2], colours[:, 1, 0::2, 1::2], colours[:, 1, 1::2, 0::2], colours[:, 2, 1::2, 1::2]], 1
    )


def mixed(matrices: Tensor, colours: Tensor) -> Tensor:
    """Colours [B, 3, H, W] times matrices [B, 3, 3], in no fewer bits than they have."""
    with torch.autocast(colours.device.type, enabled=False):
        return (matrices.to(colours) @ colours.flatten(2)).view_as(colours)


def inverse(matrix: Tensor) -> Tensor:
    """Of matrices [B, 3, 3], by cofactors: ONNX has no inverse.

    A determinant nearer to 0 than `LEAST_DETERMINANT` counts as that, so that what a bad matrix gives is finite; who
    reads matrices refuses those that cannot be inverted.
    """
    a, b, c = matrix.unbind(1)
    cofactors = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 2)
    determinant = (a * cofactors[:, :, 0]).sum(1)
    side = torch.where(determinant < 0, -1.0, 1.0)
    return cofactors / (side * determinant.abs().clamp(min=LEAST_DETERMINANT))[:, None, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Of vectors [B, 3]. Torch's own is not exported."""
    parts = [a[:, (k + 1) % 3] * b[:, (k + 2) % 3] - a[:, (k + 2) % 3] * b[:, (k + 1) % 3] for k in range(3)]
    return torch.stack(parts, 1)


def shown(linear: Tensor) -> Tensor:
    """The published baseline without learning: an S of contrast and a power, as Brooks et al. (2019) have them.

    Args:
        linear: float [B, 3, H, W].

    Returns:
        Of the same shape, display values in [0, 1].
    """
    return smoothstep(linear.clamp(0.0, 1.0)).clamp(min=0.0).pow(1 / DISPLAY_POWER)


def unshown(picture: Tensor) -> Tensor:
    """The inverse of `shown`, for display values in [0, 1]."""
    return inverse_smoothstep(picture.clamp(0.0, 1.0).pow(DISPLAY_POWER))
