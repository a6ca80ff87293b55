"""Distances of what a network sees in two pictures.

The network is VGG-19 with weights of a file that the user brings (nothing is downloaded), or any encoder that returns
a list of features, such as that of an auto-encoder of clean pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .basic import checked, positive


def _unit(a: Tensor, b: Tensor) -> Tensor:
    # shorter features than 1e-3 are not brought to length 1: the slope there would have no end
    difference = normalize(a, dim=1, eps=1e-3) - normalize(b, dim=1, eps=1e-3)
    return difference.square().sum(1).mean()


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"unit": _unit, "l1": _l1, "mse": _mse}
"""Of features: squared, after those of each place have been brought to length 1; absolute; or squared."""


class Perceptual(nn.Module):
    """Mean over the features of their distance. The encoder stays as it is; slopes reach the picture only.

    Args:
        encoder: Pictures [B, C, H, W] to a list of features [B, F, h, w]; it may run in autocast.
        distance: "unit", that of LW-ISP's published training (an unweighted LPIPS), "l1", or "mse", that of the HDR
            network's.
        weights: Of the features; None counts each as 1.

    Raises:
        ValueError: No such distance, or weights that are not positive.
    """

    def __init__(
        self,
        encoder: nn.Module,
        distance: Literal["unit", "l1", "mse"] = "unit",
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if distance not in tuple(DISTANCES):
            raise ValueError(f"distance is {distance!r}; choose one of {', '.join(DISTANCES)}")
        self.encoder = encoder.requires_grad_(False).eval()
        self.distance = DISTANCES[distance]
        self.weights = None if weights is None else [positive("a weight of a feature", weight) for weight in weights]

    def train(self, mode: bool = True) -> Perceptual:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, shown: Tensor, wanted: Tensor) -> Tensor:
        """Of [B, C, H, W] as large as the encoder asks; a scalar.

        Raises:
            ValueError: Other shapes, or as many weights as there are not features.
        """
        a, b = checked(shown, wanted)
        with torch.no_grad():
            goals = self.encoder(b)
        pairs = list(zip(self.encoder(a), goals, strict=True))
        weights = self.weights or [1.0] * len(pairs)
        if len(weights) != len(pairs):
            raise ValueError(f"there are {len(weights)} weights for {len(pairs)} features; give one for each")
        distances = [w * self.distance(x.to(a), y.to(a)) for w, (x, y) in zip(weights, pairs, strict=True)]
        return torch.stack(distances).sum() / sum(weights)
