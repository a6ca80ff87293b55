"""How cameras see colours: matrices from linear sRGB to what the sensor gives after white balance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .sensor import CAMERA_FROM_SRGB

_XYZ_FROM_SRGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)

# Adobe's colour matrices for daylight, XYZ to camera, as raw converters list them: a phone, the Sony ILCE-7R, Olympus
# of 2012 to 2014 (E-P5, E-PL5, E-M10) and the Sony DSC-RX100. Brooks et al. (2019) mix these four.
_CAMERA_FROM_XYZ = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    ((0.4913, -0.0541, -0.0202), (-0.6130, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),
    ((0.8380, -0.2630, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.0970, 0.1581, 0.5181)),
)


def _balanced(matrices: Tensor) -> Tensor:
    """Rows to a sum of 1, so that grey stays grey: that is what white balance brings about."""
    return matrices / matrices.sum(-1, keepdim=True)


_SIMULATED = _balanced(torch.from_numpy(CAMERA_FROM_SRGB).double())
_CAMERAS = torch.cat(
    [
        _balanced(torch.tensor(_CAMERA_FROM_XYZ, dtype=torch.float64) @ torch.tensor(_XYZ_FROM_SRGB).double()),
        _SIMULATED[None],
    ]
)

COLOURS: dict[str, Tensor] = {"cameras": _CAMERAS, "simulated": _SIMULATED[None], "srgb": torch.eye(3).double()[None]}
"""What a camera of each kind lies between: float64 [N, 3, 3], linear sRGB to camera, rows that sum to 1. "cameras" are
four sold ones and the simulated one; "simulated" is that alone; "srgb" is a camera that sees as sRGB does."""


def draw_matrices(colours: str, count: int, generator: torch.Generator) -> Tensor:
    """Cameras between those of a kind: mixtures with shares that are uniform among all possible ones.

    Args:
        colours: A key of `COLOURS`.
        count: How many.
        generator: Where chance comes from, on the CPU.

    Returns:
        float32 [count, 3, 3], linear sRGB to camera, rows that sum to 1.
    """
    cameras = COLOURS[colours]
    waits = torch.empty(count, len(cameras), dtype=torch.float64).exponential_(generator=generator)
    shares = waits / waits.sum(1, keepdim=True)
    return (shares @ cameras.flatten(1)).reshape(count, 3, 3).float()


def srgb_from_camera(camera_from_xyz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A camera's colours after white balance to linear sRGB.

    Args:
        camera_from_xyz: float64 [3, 3], as raw converters list them.

    Returns:
        float64 [3, 3], rows that sum to 1; NaN where it cannot be inverted.
    """
    camera = camera_from_xyz @ np.array(_XYZ_FROM_SRGB)
    with np.errstate(divide="ignore", invalid="ignore"):
        balanced = camera / camera.sum(1, keepdims=True)
    try:
        return np.linalg.inv(balanced)
    except np.linalg.LinAlgError:
        return np.full((3, 3), np.nan)
