"""LPIPS, learned perceptual image patch similarity (Zhang et al., CVPR 2018), where its weights are given.

Two files are needed: the network that looks (torchvision's `alexnet` or `vgg16`), and the linear layers that the
authors fitted to what people see (`alex.pth`, `vgg.pth` of version 0.1). The normalisation that the authors write
for [-1, 1] is that of ImageNet for [0, 1].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...engines.errors import UserError
from ..vgg import VGG, Tapped, load_layers, read_weights
from .pictures import unit_pair

VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
VGG16_TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")

NETWORK_FROM = "give the state dict of torchvision's alexnet or vgg16"
LINEAR_FROM = "give weights/v0.1/alex.pth or vgg.pth of the package lpips, whichever fits the network"


class AlexNet(Tapped):
    """The convolutions of AlexNet in torchvision's layout, with a tap behind each."""

    def __init__(self) -> None:
        layers = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        )
        super().__init__(layers, [1, 4, 7, 9, 11], least=31)


class Lpips(nn.Module):
    """The measure.

    Args:
        network: What looks.
        linear: The weight of each channel of each feature: [1, C, 1, 1] each.
    """

    def __init__(self, network: Tapped, linear: list[Tensor]) -> None:
        super().__init__()
        self.network, self.linear = network.requires_grad_(False).eval(), nn.ParameterList(linear)
        self.linear.requires_grad_(False)

    def distance(self, shown: Tensor, reference: Tensor) -> Tensor:
        """Of float32 [B, 3, H, W] in [0, 1]: [B]. Raises ValueError where the pictures are too small."""
        total = torch.zeros(len(shown), device=shown.device)
        for a, b, weight in zip(self.network(shown), self.network(reference), self.linear, strict=True):
            apart = (self._direction(a) - self._direction(b)).square()
            total = total + (weight * apart).sum(1).mean((1, 2))
        return total

    @staticmethod
    def _direction(feature: Tensor) -> Tensor:
        return feature / (feature.square().sum(1, keepdim=True).sqrt() + 1e-10)

    @torch.no_grad()
    def __call__(self, shown: npt.ArrayLike, reference: npt.ArrayLike) -> float:
        """Distance of two pictures [H, W, 3], uint8 or in [0, 1]: 0 for equal ones.

        Raises:
            ValueError: Not two pictures of one size, or smaller than 31 x 31 (AlexNet) or 16 x 16 (VGG-16).
        """
        a, b = (
            torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None]
            for x in map(np.atleast_3d, unit_pair(shown, reference))
        )
        return float(self.distance(a, b)[0])


def load_lpips(network: Path | str, linear: Path | str) -> Lpips:
    """LPIPS from two files of weights; which network it is shows in its first layer.

    Raises:
        UserError: A file cannot be read, is something else, or the two do not go together.
    """
    network, linear = Path(network), Path(linear)
    state = read_weights(network, "the network of LPIPS", NETWORK_FROM)
    first = state.get("features.0.weight")
    looks = AlexNet() if first is not None and first.shape[-1] == 11 else VGG(VGG16_BLOCKS, VGG16_TAPS)
    load_layers(looks, state, network, NETWORK_FROM)
    fitted = read_weights(linear, "the linear layers of LPIPS", LINEAR_FROM)
    channels = [layer.out_channels for layer in looks.features.children() if isinstance(layer, nn.Conv2d)]
    if not isinstance(looks, AlexNet):
        channels = [width for width, _ in VGG16_BLOCKS]
    weights = [fitted.get(f"lin{place}.model.1.weight") for place in range(len(channels))]
    if any(w is None or w.shape != (1, c, 1, 1) for w, c in zip(weights, channels, strict=True)):
        raise UserError(f"{linear} does not fit the network {network}; {LINEAR_FROM}")
    return Lpips(looks, [w.float() for w in weights if w is not None])
