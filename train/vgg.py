"""VGG networks and their kin as what looks at pictures, with weights of files that the user brings (nothing is
downloaded), and how such files are read."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..engines.errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions of each block; a 2 x 2 maximum lies between two blocks."""

VGG19_TAPS = ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")
"""The end of each block."""

WHERE_FROM = (
    "give the state dict of torchvision's vgg19, which "
    "`torch.save(torchvision.models.vgg19(weights='DEFAULT').state_dict(), FILE)` writes on a machine with torchvision"
)


def read_values(path: Path, what: str, hint: str) -> Any:
    """What a file of `torch.save` holds, without running code in it.

    Args:
        path: The file.
        what: Its name in messages.
        hint: Where to get it.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {what} {path} ({error.strerror or error}); {hint}") from error
    with file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(f"{path} is no state dict, and is not opened because it may hold code; {hint}") from error
        except Exception as error:  # torch reports a damaged file by whatever its reader stumbles over
            raise UserError(f"{what} {path} is cut off or damaged; {hint}") from error


def checked_state(values: Any, path: Path, hint: str) -> dict[str, Tensor]:
    """`values` of a file as a state dict. Raises UserError: they are something else."""
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise UserError(f"{path} is no state dict; {hint}")
    return values


def read_weights(path: Path, what: str, hint: str) -> dict[str, Tensor]:
    """A state dict from a file. Arguments as of `read_values`.

    Raises:
        UserError: There is none, it cannot be read, or it is something else.
    """
    return checked_state(read_values(path, what, hint), path, hint)


def load_layers(layers: nn.Module, state: dict[str, Tensor], path: Path, hint: str) -> None:
    """Weights into layers by name; what the state holds besides is not looked at.

    Raises:
        UserError: Names or shapes that the layers need are not there.
    """
    own = layers.state_dict()
    wrong = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    if wrong:
        raise UserError(f"{path} does not fit: {wrong[0]} is missing or of another shape; {hint}")
    layers.load_state_dict({name: state[name] for name in own})


class Tapped(nn.Module):
    """Layers whose results are taken at several places, of pictures normalised as for ImageNet.

    Args:
        features: The layers, in order; those behind the last tap are left out.
        taps: Places in `features`.
        least: Edge of the smallest picture that it can see, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential, taps: Sequence[int], least: int) -> None:
        super().__init__()
        self.taps, self.least = sorted(set(taps)), least
        self.features = nn.Sequential(*list(features)[: self.taps[-1] + 1])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Features of sRGB [B, 3, H, W] in [0, 1], at least `least` wide and high, from the shallowest tap on.

        Raises:
            ValueError: Smaller, or not of three channels.
        """
        if picture.ndim != 4 or picture.shape[1] != 3 or min(picture.shape[2:]) < self.least:
            raise ValueError(
                f"{type(self).__name__} sees [B, 3, H, W] of at least {self.least} x {self.least} pixels, "
                f"not {[*picture.shape]}"
            )
        x, seen = (picture - self.mean) / self.std, []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.taps:
                seen.append(x)
        return seen


class VGG(Tapped):
    """The convolutions of a VGG network (Simonyan, Zisserman 2015) up to the deepest tap, in torchvision's layout.

    Args:
        blocks: `VGG19_BLOCKS`, or those of a sibling.
        taps: Where features are taken, in any order: "conv3_1" before, "relu3_1" behind the rectifier.

    Raises:
        ValueError: No taps, or one that there is not.
    """

    def __init__(self, blocks: Sequence[tuple[int, int]], taps: Sequence[str]) -> None:
        layers, places, inputs = nn.Sequential(), {}, 3
        for block, (channels, count) in enumerate(blocks, 1):
            for number in range(1, count + 1):
                places[f"conv{block}_{number}"] = len(layers)
                layers.append(nn.Conv2d(inputs, channels, 3, padding=1))
                places[f"relu{block}_{number}"] = len(layers)
                layers.append(nn.ReLU())
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        if isinstance(taps, str) or not taps or not all(tap in places for tap in taps):
            raise ValueError(f"taps are {taps!r}; give a list of names from conv1_1 and relu1_1 to {list(places)[-1]}")
        deepest = max(places[tap] for tap in taps)
        halvings = sum(isinstance(layer, nn.MaxPool2d) for layer in list(layers)[:deepest])
        super().__init__(layers, [places[tap] for tap in taps], 2**halvings)


class VGG19(VGG):
    """VGG-19 with random weights, for `load_vgg19` to fill; arguments as of `VGG`."""

    def __init__(self, taps: Sequence[str] = VGG19_TAPS) -> None:
        super().__init__(VGG19_BLOCKS, taps)


def load_vgg19(path: Path | str, taps: Sequence[str] = VGG19_TAPS) -> VGG19:
    """VGG-19 with weights from a file in torchvision's layout ("features.0.weight", ...).

    Raises:
        UserError: The file cannot be read, or is something else.
        ValueError: No such taps.
    """
    network = VGG19(taps)
    load_layers(network, read_weights(Path(path), "the weights of VGG-19", WHERE_FROM), Path(path), WHERE_FROM)
    return network
