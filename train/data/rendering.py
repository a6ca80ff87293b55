"""What the classic engine makes of a raw frame: the picture of frames that have none, or whose own is not to be
learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...engines.bayer import RawFormat, pack
from ...engines.reference import classic_reference
from ..curves import srgb_from_linear
from .demosaic import demosaic
from .raw_pair import Gains, Matrix, Picture, Samples
from .sampling import MadeSamples


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


def classic_target(planes: Tensor, gains: Tensor, matrix: Tensor) -> Tensor:
    """`classic_picture` of planes, as a target of training, in a few milliseconds.

    Args:
        planes: float32 [4, h, w], R, Gr, Gb, B, black 0, white 1, not white balanced; h and w at least 2.
        gains: float32 [3].
        matrix: float32 [3, 3], camera RGB after white balance to linear sRGB.

    Returns:
        float32 [3, 2h, 2w], sRGB in [0, 1], in steps of 8 bits; now and then a step off, for the curve is in float32.
    """
    balanced = (planes * gains[[0, 1, 1, 2], None, None]).clamp(max=1.0)
    colours = demosaic(balanced[None])[0]
    shown = srgb_from_linear((matrix.to(colours) @ colours.flatten(1)).view_as(colours))
    return (shown * 255 + 0.5).floor() / 255


class LessKnown(MadeSamples):
    """Samples of frames as one has them who knows less of them.

    Args:
        frames: With pictures to reach, and the colours of the camera.
        classic: Targets are what the classic engine makes of the frames, with their gains and matrix.
        calibrated: False for a camera whose colours nobody has measured: the matrix is the identity. Targets that are
            not classic stay as they are.
    """

    def __init__(self, frames: Any, *, classic: bool, calibrated: bool) -> None:
        super().__init__(frames, 0)
        self._classic, self._calibrated = classic, calibrated

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample. Raises IndexError: there is none. UserError: as those of the frames."""
        sample = dict(self._photos[self._checked(index)])
        if not self._calibrated:
            sample["matrix"] = torch.eye(3)
        if self._classic:
            sample["target"] = classic_target(sample["planes"], sample["gains"], sample["matrix"])
        return sample
