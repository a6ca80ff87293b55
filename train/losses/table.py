"""A loss by name, and the weighted sum that a recipe asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...engines.errors import UserError
from ..features import load_encoder, load_features
from .amplitude import DEPTHS, Amplitude
from .basic import L1, MSE, Charbonnier, Gradient, equal_outside, positive
from .chroma import Chroma
from .colour import BlurredColour, ColourAngle
from .content import EDGE, Content, Lightness, Variation
from .histogram import Histogram
from .ms_ssim import MsSsim
from .perceptual import Perceptual
from .phase import MaskedL1

_SEE = "a checkpoint of the form clean, or of the weights of VGG-19"


def _perceptual(
    file: str | None = None,
    taps: Sequence[str] | None = None,
    distance: str = "unit",
    weights: Sequence[float] | None = None,
    *,
    encoder: nn.Module | None = None,
) -> nn.Module:
    sees = _network(file, encoder, lambda path: load_encoder(path, taps), _SEE)
    return Perceptual(sees, distance, weights)  # pyright: ignore[reportArgumentType]


def _content(
    file: str | None = None,
    taps: Sequence[str] | None = None,
    edge: int | None = EDGE,
    *,
    encoder: nn.Module | None = None,
) -> nn.Module:
    return Content(_network(file, encoder, lambda path: load_encoder(path, taps), _SEE), edge)


def _amplitude(
    file: str | None = None,
    depths: Sequence[str] = DEPTHS,
    filters: int = 256,
    size: int = 5,
    seed: int = 0,
    at_once: int | None = None,
    *,
    encoder: nn.Module | None = None,
) -> nn.Module:
    sees = _network(file, encoder, lambda path: load_features(path, depths), _SEE)
    return Amplitude(sees, filters, size, seed, at_once)


def _network(file: str | None, encoder: nn.Module | None, load: Callable[[str], Any], of: str) -> Any:
    """What sees pictures for a loss: the network in the file, else the encoder that is given. Raises ValueError."""
    if file is not None:
        return load(file)
    if encoder is None:
        raise ValueError(f"file is missing; give the path of {of}")
    return encoder


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "l1": L1,
    "charbonnier": Charbonnier,
    "mse": MSE,
    "gradient": Gradient,
    "ms_ssim": MsSsim,
    "perceptual": _perceptual,
    "colour": BlurredColour,
    "colour_angle": ColourAngle,
    "histogram": Histogram,
    "content": _content,
    "lightness": Lightness,
    "chroma": Chroma,
    "variation": Variation,
    "phase": MaskedL1,
    "amplitude": _amplitude,
}
"""Each takes its options by name and gives a module of (shown, wanted), float [B, 3, H, W] in [0, 1]. One that says
`takes_mask` takes a mask [B, 1, H, W] as well."""


class WeightedLoss(nn.Module):
    """A weighted sum of losses.

    Where samples have a mask, losses that say `takes_mask` are given it, and for the others the pictures are made equal
    outside of it: such a loss is then a mean over whole pictures in which the rest counts as right.

    Args:
        parts: By name.
        weights: Of the same names.
    """

    def __init__(self, parts: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.parts, self.weights = nn.ModuleDict(parts), dict(weights)

    def forward(self, shown: Tensor, wanted: Tensor, mask: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and each loss before its weight and without a graph, for the log. Raises what the parts raise.

        Args:
            shown, wanted: float [B, 3, H, W] in [0, 1].
            mask: float [B, 1, H, W], 1 where they may be compared; None compares everywhere.
        """
        values = self.values(shown, wanted, mask)
        total = sum(self.weights[name] * value for name, value in values.items())
        return total, {name: value.detach() for name, value in values.items()}  # pyright: ignore[reportReturnType]

    def values(self, shown: Tensor, wanted: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Each loss before its weight, with its graph; as `forward` otherwise."""
        inside = shown if mask is None else equal_outside(shown, wanted, mask)
        return {
            name: part(shown, wanted, mask) if getattr(part, "takes_mask", False) else part(inside, wanted)
            for name, part in self.parts.items()
        }


def make_loss(terms: Mapping[str, Any], *, encoder: nn.Module | None = None) -> WeightedLoss:
    """The loss of a recipe.

    Args:
        terms: A name of `LOSSES` to its weight, or to its weight with options:
            {"charbonnier": 1, "perceptual": {"weight": 0.05, "file": "vgg19.pth"}}.
        encoder: For "perceptual" and "amplitude" where no file is named.

    Raises:
        UserError: Unknown names or options, weights that are not positive, or a file that cannot be used; all of
            them in one sentence.
    """
    if not terms:
        raise UserError(f"no loss is asked for; give weights of some of {', '.join(LOSSES)}")
    parts, weights, problems = {}, {}, []
    for name, asked in terms.items():
        try:
            weights[name], parts[name] = _make(name, asked, encoder)
        except (ValueError, TypeError, UserError) as error:  # TypeError: a number where a list or a path belongs
            problems.append(f"{name}: {error}")
    if problems:
        raise UserError(f"the loss cannot be made: {'; '.join(problems)}")
    return WeightedLoss(parts, weights)


def _make(name: str, asked: Any, encoder: nn.Module | None) -> tuple[float, nn.Module]:
    if name not in LOSSES:
        raise ValueError(f"there is no such loss, choose among {', '.join(LOSSES)}")
    options = dict(asked) if isinstance(asked, Mapping) else {"weight": asked}
    weight = positive("weight", options.pop("weight", 1.0))
    takes = inspect.signature(LOSSES[name]).parameters
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD
    known = [key for key, parameter in takes.items() if parameter.kind is named]
    unknown = [str(key) for key in options if key not in known]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; it takes {', '.join(['weight', *known])}")
    if "encoder" in takes:
        options["encoder"] = encoder
    return weight, LOSSES[name](**options)
