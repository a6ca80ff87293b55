"""Discriminators that an ISP is trained against: pictures that it makes are to look like photographs of anything.

Source: Arhire, Timofte, "Learned Lightweight Smartphone ISP with Unpaired Data" (CVPR workshops 2025), and the code
released with it, whose game is that of R3GAN (Huang et al., NeurIPS 2024): a photograph and a picture that happen to be
at the same place of the batch are compared, and both sides are held by the slopes of the judgement at what it sees. Two
discriminators judge texture, one colour (`sight`, `models.discriminators`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..engines.errors import UserError
from .adversary_settings import TERMS, AdversarySettings
from .models.discriminators import ColourDiscriminator, TextureDiscriminator
from .sight import load_colour, load_texture


class Adversary(nn.Module):
    """The discriminators with what they see, and their optimiser.

    Args:
        settings: How.
        edge: Of the pictures that are judged, in pixels.
        seed: Of the first weights.

    Raises:
        UserError: A file cannot be read, or pictures are too small for what is to see them.
    """

    def __init__(self, settings: AdversarySettings, edge: int, seed: int) -> None:
        super().__init__()
        self.weights = {name: float(settings.weights.get(name, 0.0)) for name in TERMS if settings.weights.get(name)}
        self._settings = settings
        looks, sees_colour = bool(self.weights.keys() - {"colour"}), "colour" in self.weights
        self._texture = load_texture(settings.texture) if looks and settings.texture else None
        self._colour = load_colour(settings.colour) if sees_colour else None
        torch.manual_seed(seed)
        try:
            with torch.no_grad():
                seen = self.see(torch.zeros(1, 3, edge, edge))
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"adversary: pictures of {edge} pixels cannot be judged: {error}; choose a larger crop"
            ) from error
        self.judges = nn.ModuleDict({name: _judge(name, features) for name, features in seen.items()})
        self.optimiser = torch.optim.Adam(self.judges.parameters(), settings.lr, betas=settings.betas)

    def see(self, pictures: Tensor) -> dict[str, Tensor]:
        """Features by term, of sRGB [B, 3, H, W] in [0, 1]; slopes reach the pictures."""
        seen: dict[str, Tensor] = {}
        if self._texture is not None:
            seen |= dict(zip(TERMS, self._texture(pictures), strict=False))
        if self._colour is not None:
            seen["colour"] = self._colour(pictures)[0]
        return {name: seen[name] for name in self.weights}

    def terms(self, made: Tensor, photographs: Tensor) -> dict[str, Tensor]:
        """What an ISP makes small: by term, a scalar that is lower the more its pictures look real beside photographs.

        Args:
            made, photographs: float32 [B, 3, H, W], sRGB.
        """
        self.judges.requires_grad_(False)  # `update` alone is about their weights
        with torch.no_grad():
            real = {name: self.judges[name](features) for name, features in self.see(photographs).items()}
        return {name: softplus(real[name] - self.judges[name](seen)).mean() for name, seen in self.see(made).items()}

    def due(self, step: int) -> bool:
        """Whether the discriminators take a step after this one of the ISP."""
        return step % self._settings.every == 0

    def update(self, made: Tensor, photographs: Tensor) -> dict[str, Tensor]:
        """A step of the discriminators. Arguments as of `terms`, without slopes.

        Returns:
            By "judge_" and the term, the loss without the penalty: log 2 where nothing is told apart, 0 where all is.
        """
        with torch.no_grad():
            real, fake = self.see(photographs), self.see(made)
        told = {}
        self.judges.requires_grad_(True)
        self.optimiser.zero_grad()
        for name, judge in self.judges.items():
            seen = [features[name].detach().requires_grad_(True) for features in (real, fake)]
            verdicts = [judge(features) for features in seen]
            told[name] = softplus(verdicts[1] - verdicts[0]).mean()
            penalty = sum(_squared_slope(*each) for each in zip(verdicts, seen, strict=True))
            (told[name] + 5 * self._settings.penalty * penalty).backward()
            torch.nn.utils.clip_grad_norm_(judge.parameters(), self._settings.clip)
        self.optimiser.step()
        return {f"judge_{name}": value.detach() for name, value in told.items()}

    def state(self) -> dict[str, Any]:
        """For a checkpoint: what `restore` takes."""
        return {"judges": self.judges.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where another adversary stood."""
        self.judges.load_state_dict(state["judges"])
        self.optimiser.load_state_dict(state["optimiser"])


def _judge(name: str, features: Tensor) -> nn.Module:
    if name == "colour":
        return ColourDiscriminator(features.shape[1] if features.ndim == 4 else features.shape[2])
    return TextureDiscriminator(*features.shape[1:])


def _squared_slope(verdict: Tensor, seen: Tensor) -> Tensor:
    """Mean over the batch of the squared length of the slope of a judgement at what it is of."""
    (slope,) = torch.autograd.grad(verdict.sum(), seen, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()


def balanced(terms: Mapping[str, tuple[float, Tensor]], picture: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """A sum whose slope at the weights of a network is the sum of the slopes of the terms, each brought to length 1
    before its own weight, so that no term drowns another whatever its scale.

    Args:
        terms: By name, the weight and the value, a scalar with a graph that leads to `picture`.
        picture: What the network made.
        weights: Of the network.

    Returns:
        A scalar, whose value is the plain weighted sum.
    """
    used = [weight for weight in weights if weight.requires_grad]
    sum_of_slopes, value = torch.zeros_like(picture), torch.zeros((), device=picture.device)
    for share, term in terms.values():
        (slope,) = torch.autograd.grad(term, picture, retain_graph=True)
        parts = torch.autograd.grad(picture, used, slope, retain_graph=True, allow_unused=True)
        length = torch.stack([part.float().square().sum() for part in parts if part is not None]).sum().sqrt()
        sum_of_slopes += share / (length + _SHORTEST) * slope
        value = value + share * term.detach()
    told = (picture * sum_of_slopes.detach()).sum()
    return told - told.detach() + value


_SHORTEST = 1e-8
"""Added to the length of a slope, as published."""
