"""Pictures through a network of the form "rgb": denoised, or shown in full light."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..engines.errors import UserError
from .checkpoint import Checkpoint
from .models import NETWORKS, PictureModule, form_of

Picture = npt.NDArray[np.uint8]
"""[H, W, 3], sRGB."""


def picture_multiple(model: str) -> int:
    """What width and height of a picture must be divisible by for a network of `models.NETWORKS`, and twice as large as
    at least: networks of the form "rgb" see pictures where others see planes of half the mosaic's size."""
    return NETWORKS[model].multiple // 2


def padded(picture: Picture, multiple: int) -> Picture:
    """A picture [H, W, 3] with more of itself, mirrored, below and to the right: up to multiples, two or more."""
    height, width = (max(2, -(-size // multiple)) * multiple for size in picture.shape[:2])
    return np.pad(picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)), mode="reflect")


@torch.inference_mode()
def filter_picture(checkpoint: Checkpoint, picture: Picture) -> Picture:
    """A better picture, in float32, on the device that the network is on.

    Args:
        checkpoint: Of a network of the form "rgb".
        picture: uint8 [H, W, 3], sRGB, of any size.

    Returns:
        uint8 [H, W, 3], sRGB.

    Raises:
        UserError: The network is of another form.
        ValueError: The picture is of another shape or kind, or has no pixels.
    """
    if (form := form_of(checkpoint.network)) != "rgb":
        raise UserError(f"a network of the form {form} takes no pictures to make better; give one of the form rgb")
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"a picture is uint8 [H, W, 3], not {picture.dtype} {[*picture.shape]}")
    whole = padded(picture, picture_multiple(checkpoint.model))
    device = next(checkpoint.network.parameters()).device
    seen = torch.from_numpy(whole).permute(2, 0, 1)[None].to(device, torch.float32) / 255
    shown = PictureModule(checkpoint.network).eval()(seen)[0].permute(1, 2, 0)
    return (shown[: picture.shape[0], : picture.shape[1]] * 255).round().to(torch.uint8).cpu().numpy()
