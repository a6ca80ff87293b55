"""Networks behind what calls them: as a model core that is exported, as a teacher, as a filter of pictures."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ...engines.inputs import CAMERA
from ..curves import linear_from_srgb, srgb_from_linear
from .noise_level import NoiseInput, NoiseLevel

INPUTS = ("wb_r", "wb_g", "wb_b")
"""Columns of `params` that every core has; those of the noise level follow."""

Output = Literal["srgb", "linear"]
"""What a core gives: display values, or light in the camera's colours, of which the engine's tail makes them."""

OUTPUTS: tuple[Output, ...] = get_args(Output)

_LEAK = 0.1
"""Slope outside of [0, 1] in training, so that a colour which came out too bright is still led back."""


class CoreModule(nn.Module):
    """A network that white-balances what it sees, as `engines.core` asks of a core.

    Args:
        network: Planes [B, 4, H/2, W/2] to [B, 3, H, W] in [0, 1]; with an attribute `noise` (a `NoiseLevel`) it is
            told the noise level, [B, 1, 1, 1], as well.
        output: "linear" squares what the network gives, which therefore is about as even to the eye as display values,
            and as well served by numbers of few bits.
    """

    takes: tuple[str, ...] = ("planes", "gains")
    """What of a sample its arguments are."""

    wants = "target"
    """What of a sample it gives, or what that is shown as."""

    inputs: tuple[str, ...] = INPUTS
    """Columns of `params`."""

    def __init__(self, network: nn.Module, output: Output = "srgb") -> None:
        super().__init__()
        self.network, self.output = network, output
        level: NoiseLevel | None = getattr(network, "noise", None)
        self.noise = None if level is None else NoiseInput(level)
        if level is not None:
            self.takes, self.inputs = (*self.takes, "camera"), (*INPUTS, *level.inputs)
            self._columns = [CAMERA.index(name) for name in level.inputs]

    def forward(self, raw: Tensor, params: Tensor, camera: Tensor | None = None) -> Tensor:
        """Develop planes that are not white balanced.

        A sample is limited to 1 after its gain, as in the classic engine, so that burnt-out highlights stay white.

        Args:
            raw: float32 [B, 4, H/2, W/2], R, Gr, Gb, B, black 0, white 1.
            params: float32 [B, K], the columns `inputs`: gains of red, green and blue, and what the noise level is
                made of.
            camera: In training, float32 [B, 5], the columns of `engines.inputs.CAMERA`: `params` then are the gains
                alone.

        Returns:
            float32 [B, 3, H, W] in [0, 1]: sRGB, or light in the camera's colours after white balance.
        """
        gains = torch.cat([params[:, :2], params[:, 1:3]], 1)[:, :, None, None]  # of R, Gr and of Gb, B
        planes = torch.clamp(raw * gains, max=1.0)
        if self.noise is None:
            given = self.network(planes)
        else:
            told = params[:, len(INPUTS) :] if camera is None else camera[:, self._columns]
            given = self.network(planes, self.noise(told))
        if self.output == "srgb":
            return given
        # a network that nothing limits in training is led back from below black
        return given * (given.abs() if self.training else given)


class CleanModule(nn.Module):
    """A network of the form "clean" as an auto-encoder of what a core should give. Arguments as of `CoreModule`."""

    takes = ("target", "matrix")
    wants = "target"

    def __init__(self, network: nn.Module, output: Output = "srgb") -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, target: Tensor, matrix: Tensor) -> Tensor:
        """sRGB [B, 3, H, W] in [0, 1] and the camera's matrix [B, 3, 3] to the same as `CoreModule` gives."""
        if self.output == "srgb":
            return self.network(target)
        light = _mixed(torch.linalg.inv(matrix.float()), linear_from_srgb(target.float()))
        given = self.network(light.clamp(0.0, 1.0).sqrt())
        return given * given


class PictureModule(nn.Module):
    """A network of the form "rgb": pictures to better ones. `output` must be "srgb"."""

    takes = ("input",)
    wants = "target"

    def __init__(self, network: nn.Module, output: Output = "srgb") -> None:
        super().__init__()
        if output != "srgb":
            raise ValueError(f"pictures are given for pictures: output must be srgb, not {output}")
        self.network, self.output = network, output

    def forward(self, picture: Tensor) -> Tensor:
        """sRGB [B, 3, H, W] in [0, 1] to the same."""
        given = self.network(picture)
        return given if self.training else given.clamp(0.0, 1.0)


def shown(given: Tensor, matrices: Tensor, output: str, *, leak: bool = False) -> Tensor:
    """What an engine shows of what a core gives.

    Args:
        given: float32 [B, 3, H, W].
        matrices: float32 [B, 3, 3], the camera's colours after white balance to linear sRGB; of no use for "srgb".
        output: Of the core.
        leak: Go on beyond [0, 1], at a small slope, for training.

    Returns:
        float32 [B, 3, H, W], sRGB.
    """
    if output == "srgb":
        return given
    light = _mixed(matrices, given.float())
    inside = light.clamp(0.0, 1.0)
    picture = srgb_from_linear(inside)
    return picture + _LEAK * (light - inside) if leak else picture


def _mixed(matrices: Tensor, light: Tensor) -> Tensor:
    with torch.autocast(light.device.type, enabled=False):  # colours want more than eight bits
        return torch.einsum("bij,bjhw->bihw", matrices, light)
