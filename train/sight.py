"""What discriminators see of a picture: features of its texture, and of its colours.

Source: Arhire, Timofte, "Learned Lightweight Smartphone ISP with Unpaired Data" (CVPR workshops 2025), and the code
released with it. Texture is judged in grey, at a shallow and at a deeper layer of AlexNet; colour in the picture after
a blur that takes its texture away, by ViT-B/16.

What differs: pictures are normalised as the networks were trained (as for ImageNet, and to [-1, 1]), and the border is
repeated outwards where the blur needs more.

What is ours: where their weights are not given, both look through the encoder of our auto-encoder of clean pictures
(form "clean"), at a quarter and at an eighth of the picture's size, which are the depths that come nearest to those of
AlexNet. Colour can also be judged by the chroma of the blurred picture, for which nothing needs to be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from ..engines.errors import UserError
from .curves import LUMA_601
from .features import is_checkpoint, load_encoder, read_seeing
from .losses.chroma import chroma
from .losses.ms_ssim import blurred, gaussian
from .metrics.lpips import AlexNet
from .vgg import checked_state, load_layers
from .vit import is_vit, vit_of

WHERE_FROM = (
    "give a checkpoint of the form clean, which `isp-train configs/train/lwisp-teacher.yaml` makes, or a file with the "
    "weights of torchvision's alexnet (texture) or of google/vit-base-patch16-224 (colour)"
)

ALEXNET_TAPS = (0, 3)
"""Of the five convolutions of AlexNet, behind which texture is judged: 64 and 256 channels."""

CLEAN_DEPTHS = ("conv3_1", "conv4_2")
"""Of `features.DEPTHS`, in their place."""

BLUR, SIGMA = 21, 3.0 * 2**0.5
"""Window and standard deviation of the blur, in pixels. It is the kernel of DPED, of a window that reaches to three
standard deviations, 3 pixels each; its root is taken once more, which widens it."""

PLACE = 16
"""Edge in pixels of a place of `ChromaSight`, about what the blur leaves."""

_CHROMA_SCALE = 4.0
"""Brings the chroma of photographs to the range that a discriminator's first layer is made for."""


class TextureSight(nn.Module):
    """Features of the grey picture, from the shallowest on.

    Args:
        encoder: sRGB [B, 3, H, W] in [0, 1] to a list of features.
        taps: Places in that list; None takes all.
    """

    def __init__(self, encoder: nn.Module, taps: Sequence[int] | None = None) -> None:
        super().__init__()
        self.encoder, self.taps = encoder.requires_grad_(False).eval(), taps

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Of sRGB [B, 3, H, W] in [0, 1]. Raises ValueError: too small for the encoder."""
        grey = torch.tensordot(picture.new_tensor(LUMA_601), picture.movedim(1, 0), 1)[:, None]
        seen = self.encoder(grey.expand(-1, 3, -1, -1))
        return seen if self.taps is None else [seen[tap] for tap in self.taps]


class ColourSight(nn.Module):
    """Features of the blurred picture. Arguments as of `TextureSight`; the deepest is taken."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Of sRGB [B, 3, H, W] in [0, 1]: one [B, tokens, C], or [B, C, h, w]. Raises ValueError: too small."""
        return self.encoder(_blurred(picture))[-1:]


class ChromaSight(nn.Module):
    """The chroma of the blurred picture itself, a place for each whole 16 x 16 pixels. How bright frames are is not
    seen: it would tell them from photographs at once, and nothing of their colours could be learned."""

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Of sRGB [B, 3, H, W] in [0, 1]: one [B, 2, h, w]. Raises ValueError: smaller than a place."""
        if min(picture.shape[2:]) < PLACE:
            raise ValueError(f"colours are seen in pictures of {PLACE} pixels and up")
        return [_CHROMA_SCALE * chroma(avg_pool2d(_blurred(picture), PLACE))]


def _blurred(picture: Tensor) -> Tensor:
    return blurred(pad(picture, (BLUR // 2,) * 4, "replicate"), gaussian(BLUR, SIGMA, picture))


def load_texture(path: Path) -> TextureSight:
    """What texture is judged by: AlexNet, or our encoder. Raises UserError: the file cannot be read, or is another."""
    values = _read(path)
    if values is None:
        return TextureSight(load_encoder(path, CLEAN_DEPTHS))
    state, network = checked_state(values, path, WHERE_FROM), AlexNet()
    load_layers(network, state, path, WHERE_FROM)
    return TextureSight(network, ALEXNET_TAPS)


def load_colour(path: Path | None) -> ColourSight | ChromaSight:
    """What colour is judged by: ViT-B/16, or our encoder; its chroma where there is no file. Raises UserError: as
    `load_texture`."""
    if path is None:
        return ChromaSight()
    values = _read(path)
    if values is None:
        return ColourSight(load_encoder(path, CLEAN_DEPTHS[-1:]))
    state = checked_state(values, path, WHERE_FROM)
    if not is_vit(state):
        raise UserError(f"{path} holds neither a ViT nor a checkpoint of the form clean; {WHERE_FROM}")
    return ColourSight(vit_of(state, path))


def _read(path: Path) -> Any:
    """What the file holds; None for a checkpoint of ours of the form clean. Raises UserError."""
    values = read_seeing(path, WHERE_FROM)
    if not is_checkpoint(values):
        return values
    options = values.get("options")
    form = options.get("form", "raw") if isinstance(options, dict) else "raw"
    if form != "clean":
        raise UserError(f"{path} holds {values['model']} of the form {form}, which sees no pictures; {WHERE_FROM}")
    return None
