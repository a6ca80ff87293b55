"""A loss by name, and the weighted sum that a recipe asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...engines.errors import UserError
from .basic import L1, Charbonnier, Gradient, positive
from .colour import BlurredColour, ColourAngle
from .ms_ssim import MsSsim
from .perceptual import VGG19_TAPS, Perceptual, load_vgg19


def _perceptual(
    file: str | None = None,
    taps: Sequence[str] = VGG19_TAPS,
    distance: str = "unit",
    weights: Sequence[float] | None = None,
    *,
    encoder: nn.Module | None = None,
) -> nn.Module:
    if file is None and encoder is None:
        raise ValueError(
            "file is missing; give the path of the weights of VGG-19, or train with an encoder of your own"
        )
    network = load_vgg19(file, taps) if file is not None else encoder
    return Perceptual(network, distance, weights)  # pyright: ignore[reportArgumentType]


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "l1": L1,
    "charbonnier": Charbonnier,
    "gradient": Gradient,
    "ms_ssim": MsSsim,
    "perceptual": _perceptual,
    "colour": BlurredColour,
    "colour_angle": ColourAngle,
}
"""Each takes its options by name and gives a module of (shown, wanted), float [B, 3, H, W] in [0, 1]."""


class WeightedLoss(nn.Module):
    """A weighted sum of losses.

    Args:
        parts: By name.
        weights: Of the same names.
    """

    def __init__(self, parts: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.parts, self.weights = nn.ModuleDict(parts), dict(weights)

    def forward(self, shown: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and each loss before its weight and without a graph, for the log. Raises what the parts raise."""
        values = {name: part(shown, wanted) for name, part in self.parts.items()}
        total = sum(self.weights[name] * value for name, value in values.items())
        return total, {name: value.detach() for name, value in values.items()}  # pyright: ignore[reportReturnType]


def make_loss(terms: Mapping[str, Any], *, encoder: nn.Module | None = None) -> WeightedLoss:
    """The loss of a recipe.

    Args:
        terms: A name of `LOSSES` to its weight, or to its weight with options:
            {"charbonnier": 1, "perceptual": {"weight": 0.05, "file": "vgg19.pth"}}.
        encoder: For "perceptual" where no file of VGG-19 is named.

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
    known = {key: p for key, p in inspect.signature(LOSSES[name]).parameters.items() if p.kind is not p.KEYWORD_ONLY}
    unknown = [str(key) for key in options if key not in known]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; it takes {', '.join(['weight', *known])}")
    if name == "perceptual":
        options["encoder"] = encoder
    return weight, LOSSES[name](**options)
