"""ParamISP behind what calls it: as a model core that engines run, as its inverse, and as both in a circle."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ...engines.inputs import CAMERA, CCM
from .canonical import sampled
from .core import INPUTS, Output
from .param_net import OPTICS
from .paramisp import BothISPs, ForwardISP, InverseISP

DITHER = 0.4
"""Standard deviation of the noise that training adds to what it sees, in steps of its values, so that networks see no
steps; published."""

PICTURE_STEPS, RAW_STEPS = 255, 4095
"""Steps of pictures and of frames from black to white; the release takes those of each camera for the latter."""

CYCLE_STEPS = 2**14 - 1
"""What frames of the inverse are rounded to before they are developed again, in use: 14 bits, as published."""

_OPTICS = [CAMERA.index(name) for name in OPTICS]


class ForwardModule(nn.Module):
    """ParamISP's forward network as a model core: exposure, ISO, f-number, focal length and matrix come with the frame.

    Args:
        network: A `ForwardISP`.
        output: "srgb".
    """

    takes = ("planes", "gains", "matrix", "camera")
    wants = "target"

    def __init__(self, network: nn.Module, output: Output = "srgb") -> None:
        super().__init__()
        if output != "srgb":
            raise ValueError(f"ParamISP makes pictures: output must be srgb, not {output}")
        self.network, self.output = network, output
        told = sorted(OPTICS, key=CAMERA.index) if cast(ForwardISP, network).told.optics else ()
        self.inputs: tuple[str, ...] = (*INPUTS, *told, *CCM)
        self._columns = [self.inputs.index(name) for name in OPTICS if name in told]

    def forward(
        self, raw: Tensor, params: Tensor, matrix: Tensor | None = None, camera: Tensor | None = None
    ) -> Tensor:
        """Develop planes that are not white balanced.

        Args:
            raw: float32 [B, 4, H/2, W/2], R, Gr, Gb, B, black 0, white 1.
            params: float32 [B, K], the columns `inputs`.
            matrix: In training, float32 [B, 3, 3], the camera's colours after white balance to linear sRGB: `params`
                then are the gains alone.
            camera: In training, float32 [B, 5], the columns of `engines.inputs.CAMERA`.

        Returns:
            float32 [B, 3, H, W], sRGB; in [0, 1] but in training.
        """
        gains = params[:, :3]
        if matrix is None or camera is None:
            matrix, optics = params[:, -len(CCM) :].view(-1, 3, 3), params[:, self._columns]
        else:
            optics = camera[:, _OPTICS]
        if not self.training:
            return self.network(raw, gains, matrix, optics).clamp(0.0, 1.0)
        return self.network(_dithered(raw, RAW_STEPS), gains, matrix, optics)


class InverseModule(nn.Module):
    """ParamISP's inverse network as training calls it. Arguments as of `ForwardModule`, of an `InverseISP`."""

    takes = ("target", "gains", "matrix", "camera")
    wants = "planes"

    def __init__(self, network: nn.Module, output: Output = "srgb") -> None:
        super().__init__()
        if output != "srgb":
            raise ValueError(f"ParamISP's inverse takes pictures: output must be srgb, not {output}")
        self.network, self.output = network, output

    def forward(self, picture: Tensor, gains: Tensor, matrix: Tensor, camera: Tensor) -> Tensor:
        """The planes of the frame that a picture was made of.

        Args:
            picture: float32 [B, 3, H, W], sRGB in [0, 1].
            gains: float32 [B, 3]; matrix: float32 [B, 3, 3].
            camera: float32 [B, 5], the columns of `engines.inputs.CAMERA`.

        Returns:
            float32 [B, 4, H/2, W/2]; in [0, 1] but in training.
        """
        network = cast(InverseISP, self.network)
        if not self.training:
            return sampled(network(picture, gains, matrix, camera[:, _OPTICS])).clamp(0.0, 1.0)
        return sampled(network(_dithered(picture, PICTURE_STEPS), gains, matrix, camera[:, _OPTICS]))


class CycleModule(nn.Module):
    """Both directions in a circle, from pictures over frames back to pictures. Arguments as of `ForwardModule`, of
    `BothISPs`."""

    takes = ("target", "gains", "matrix", "camera")
    wants = "target"
    network: nn.Module

    def __init__(self, network: nn.Module, output: Output = "srgb") -> None:
        super().__init__()
        both, self.output = cast(BothISPs, network), output
        object.__setattr__(self, "network", network)  # not registered: its weights are those of the two below
        self.back, self.forth = InverseModule(both.back, output), ForwardModule(both.forth, output)

    def forward(self, picture: Tensor, gains: Tensor, matrix: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
        """The frame, and the picture that is made of it: float32 [B, 4, H/2, W/2] and [B, 3, H, W]. Arguments as of
        `InverseModule.forward`. In use frames are rounded to 14 bits between."""
        planes = self.back(picture, gains, matrix, camera)
        seen = planes if self.training else (planes * CYCLE_STEPS).round() / CYCLE_STEPS
        return planes, self.forth(seen, gains, matrix, camera)


def _dithered(values: Tensor, steps: int) -> Tensor:
    return values + torch.randn_like(values) * (DITHER / steps)
