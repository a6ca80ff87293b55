"""Frames of pictures: what inverse networks are measured by.

`raw_psnr` compares the frame that is made of the camera's own picture with the camera's. `cycle_psnr` is of the frame's
way over a picture that the same developer makes, rounded to 8 bits, and back, rounded to 14 bits as in the paper of
ParamISP (CVPR 2024). Both frames have their values limited to 0 and 1; the camera's has its noise, which no inverse
knows.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from ...engines.inputs import CAMERA
from ..checkpoint import Checkpoint
from ..metrics.pictures import psnr
from ..models import BothISPs, ForwardModule, InverseISP, InverseModule
from ..models.canonical import sampled, shown, to_camera, to_linear, unshown
from ..models.param_modules import CYCLE_STEPS, PICTURE_STEPS
from .frames import Frame, Matrix, to_tensor
from .meters import Measures


class Told(NamedTuple):
    """What goes with a frame: gains [1, 3], matrix [1, 3, 3] and camera [1, 5], float32."""

    gains: Tensor
    matrix: Tensor
    camera: Tensor


class Inverter(Protocol):
    """Makes frames of pictures."""

    def planes(self, picture: Tensor, told: Told) -> Tensor:
        """sRGB [1, 3, H, W] in [0, 1] to R, Gr, Gb, B, [1, 4, H/2, W/2] in [0, 1]."""
        ...

    def picture(self, planes: Tensor, told: Told) -> Tensor | None:
        """The way there; None where it has none."""
        ...


class Networks:
    """ParamISP. See `Inverter`.

    Args:
        checkpoint: Of the form "inverse" or "cycle".
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        network = checkpoint.network
        both = network if isinstance(network, BothISPs) else None
        self._back = InverseModule(both.back if both else cast(InverseISP, network)).eval()
        self._forth = ForwardModule(both.forth).eval() if both else None

    def planes(self, picture: Tensor, told: Told) -> Tensor:
        """See `Inverter.planes`."""
        return self._back(picture, *told)

    def picture(self, planes: Tensor, told: Told) -> Tensor | None:
        """See `Inverter.picture`."""
        return None if self._forth is None else self._forth(planes, *told)


class Canonical:
    """The published baseline without learning. See `Inverter`."""

    def planes(self, picture: Tensor, told: Told) -> Tensor:
        """See `Inverter.planes`."""
        return sampled(to_camera(unshown(picture), told.gains, told.matrix)).clamp(0.0, 1.0)

    def picture(self, planes: Tensor, told: Told) -> Tensor:
        """See `Inverter.picture`."""
        return shown(to_linear(planes, told.gains, told.matrix))


@torch.inference_mode()
def measured_back(inverter: Inverter, frame: Frame, matrix: Matrix | None) -> Measures:
    """`raw_psnr` and, where the developer has both ways, `cycle_psnr` of a frame with `samples`, in float32."""
    if frame.samples is None or frame.reference is None:
        raise ValueError(f"{frame.name} has no samples, or no picture")
    own = torch.eye(3) if matrix is None else torch.from_numpy(matrix)
    told = Told(torch.from_numpy(frame.gains)[None], own[None], torch.tensor([frame.camera[: len(CAMERA)]]))
    wanted = frame.samples[None].clamp(0.0, 1.0)
    row: Measures = {"raw_psnr": psnr(inverter.planes(to_tensor(frame.reference), told), wanted)}
    picture = inverter.picture(wanted, told)
    if picture is not None:
        again = inverter.planes((picture * PICTURE_STEPS).round() / PICTURE_STEPS, told)
        row["cycle_psnr"] = psnr((again * CYCLE_STEPS).round() / CYCLE_STEPS, wanted)
    return row
