"""What a network sees in a picture at half, a quarter and an eighth of its size: one interface for two networks.

The depths have the names of the convolutions of VGG-19 that MisISP's losses look at (`losses.phase`,
`losses.amplitude`). Either VGG-19 sees the picture, with weights of a file that the user brings, or a network of ours
that was trained as an auto-encoder of clean pictures: its encoder has layers of the same three sizes, with fewer
channels and behind a rectifier, where the published ones are taken before it. That these can stand in is our choice,
for want of weights that may be shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor, nn

from ..engines.errors import UserError
from .checkpoint import load_checkpoint
from .curves import linear_from_srgb
from .models import Output, form_of
from .models.lwisp import LWISP
from .vgg import VGG19, VGG19_TAPS, checked_state, load_layers, load_vgg19, read_values

DEPTHS = {"conv2_2": 2, "conv3_1": 4, "conv4_2": 8}
"""Names to how much smaller than the picture the features are, each way."""

WHERE_FROM = (
    "give a checkpoint of the form clean, which `isp-train configs/train/lwisp-teacher.yaml` makes, or the state dict "
    "of torchvision's vgg19, which `torch.save(torchvision.models.vgg19(weights='DEFAULT').state_dict(), FILE)` writes "
    "on a machine with torchvision"
)

_DARKEST = 1e-6
"""Light below which the clean encoder sees no difference: the slope of the square root at 0 has no end."""


class CleanEncoder(nn.Module):
    """The first layers of an auto-encoder of clean pictures: `c1`, `c2`, `c3` of LW-ISP in the form "clean".

    Args:
        network: The auto-encoder.
        output: What it was trained to give, which tells what it sees: for "srgb" the picture, for "linear" the square
            root of its light, as in `models.core.CleanModule` for a camera that has the colours of sRGB.
        taps: Keys of `DEPTHS`, in any order.
    """

    def __init__(self, network: LWISP, output: Output, taps: Sequence[str]) -> None:
        super().__init__()
        stages = {
            "conv2_2": nn.Sequential(network.fold, network.c0, network.c1),
            "conv3_1": nn.Sequential(network.p1, network.c2),
            "conv4_2": nn.Sequential(network.p2, network.c3),
        }
        names = list(stages)
        deepest = max(names.index(tap) for tap in taps)
        self.stages = nn.ModuleDict({name: stages[name] for name in names[: deepest + 1]})
        self.output, self.taps = output, set(taps)
        self.least = 2 * DEPTHS[names[deepest]]  # what padding by reflection needs

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Features of sRGB [B, 3, H, W] in [0, 1], H and W even and at least `least`, from the shallowest on.

        Raises:
            ValueError: Smaller, odd, or not of three channels.
        """
        sizes = picture.shape[2:]
        if picture.ndim != 4 or picture.shape[1] != 3 or min(sizes) < self.least or any(size % 2 for size in sizes):
            raise ValueError(
                f"the clean encoder sees [B, 3, H, W] of at least {self.least} x {self.least} pixels, H and W even, "
                f"not {[*picture.shape]}"
            )
        x, seen = picture, []
        if self.output == "linear":
            x = linear_from_srgb(picture).clamp(_DARKEST, 1.0).sqrt()
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.taps:
                seen.append(x)
        return seen


class FeatureMaps(nn.Module):
    """Features by name. The encoder stays as it is, in evaluation mode; slopes reach the picture only.

    Args:
        encoder: sRGB [B, 3, H, W] in [0, 1] to a list of features, from the shallowest on.
        depths: Keys of `DEPTHS`, one for each of the features, in any order.
    """

    def __init__(self, encoder: nn.Module, depths: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.depths = tuple(sorted(depths, key=list(DEPTHS).index))

    def train(self, mode: bool = True) -> FeatureMaps:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        """Features [B, C, h, w] by depth, h and w being H and W divided by `DEPTHS` and rounded down.

        Args:
            picture: float [B, 3, H, W], sRGB in [0, 1]; it may run in autocast.

        Raises:
            ValueError: A picture that the encoder cannot see: too small, or of odd size for the clean encoder.
        """
        return dict(zip(self.depths, self.encoder(picture), strict=True))


def load_features(path: Path | str, depths: Sequence[str] = tuple(DEPTHS)) -> FeatureMaps:
    """Features by the network in a file, which tells itself which of the two it is.

    Args:
        path: The weights of VGG-19 in torchvision's layout, or a checkpoint of ours of the form "clean".
        depths: Keys of `DEPTHS`; what lies behind the deepest is not kept.

    Raises:
        UserError: The file cannot be read, or holds another network.
        ValueError: No depths, or one that there is not.
    """
    if isinstance(depths, str) or not depths or not all(depth in tuple(DEPTHS) for depth in depths):
        raise ValueError(f"depths are {depths!r}; give a list of some of {', '.join(DEPTHS)}")
    depths, path = tuple(dict.fromkeys(depths)), Path(path)
    values = read_seeing(path, WHERE_FROM)
    if is_checkpoint(values):
        return FeatureMaps(_clean_encoder(path, depths), depths)
    network = VGG19(depths)
    load_layers(network, checked_state(values, path, WHERE_FROM), path, WHERE_FROM)
    return FeatureMaps(network, depths)


def load_encoder(path: Path | str, taps: Sequence[str] | None = None) -> nn.Module:
    """What gives a list of features of a picture, for `losses.Perceptual`: the network in a file.

    Args:
        path: As of `load_features`.
        taps: Where features are taken: of VGG-19 see `vgg.VGG`, None takes the end of each block; of a checkpoint keys
            of `DEPTHS`, None takes all.

    Raises:
        UserError: The file cannot be read, or holds another network.
        ValueError: No such taps.
    """
    if is_checkpoint(read_seeing(Path(path), WHERE_FROM)):
        return load_features(path, tuple(DEPTHS) if taps is None else taps).encoder
    return load_vgg19(path, VGG19_TAPS if taps is None else taps)


def read_seeing(path: Path, hint: str) -> Any:
    """What the file of a network that sees pictures holds: see `is_checkpoint`.

    Args:
        path: The file.
        hint: Where to get one.

    Raises:
        UserError: There is none, it cannot be read, or it is a model core.
    """
    if path.suffix.lower() == ".onnx":
        raise UserError(f"{path} is a model core, which develops raw frames and sees no pictures; {hint}")
    return read_values(path, "the network for features", hint)


def is_checkpoint(values: Any) -> TypeGuard[dict[str, Any]]:
    """Whether these are of a checkpoint of ours, and not a state dict."""
    return isinstance(values, dict) and isinstance(values.get("model"), str)


def _clean_encoder(path: Path, depths: Sequence[str]) -> CleanEncoder:
    checkpoint = load_checkpoint(path)
    if form_of(checkpoint.network) != "clean":
        raise UserError(f"{path} holds a network of the form {form_of(checkpoint.network)}; {WHERE_FROM}")
    if not isinstance(checkpoint.network, LWISP):
        raise UserError(f"{path} holds {checkpoint.model}, which has no layer at half the size; train lwisp or lwisp-s")
    return CleanEncoder(checkpoint.network, checkpoint.output, depths)
