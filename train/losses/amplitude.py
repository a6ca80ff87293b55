"""How alike pictures are in what they hold, wherever it lies: MisISP's L_amp.

Source: Chen, Liu, Jin et al., "Learning Deep ISP for High-Speed Cameras", the code and the recipes released with it
(MisISP). Features of VGG-19 are Fourier-transformed, and the amplitudes are compared as distributions, by the sliced
Wasserstein distance: a fixed set of random filters is run over them, and the sorted answers are compared. Amplitudes
do not know of shifts, so this asks for texture and contrast of the reference where alignment failed. Seen features may
also be those of our clean encoder (`features`), which are of other size: the weight below is for those of VGG-19.

The published weight is 1e-4, with crops of 256 pixels. The transform is not normalised, as released, so amplitudes and
with them the loss grow with crops: about by the edge for texture, and by the area for what is even.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils.checkpoint import checkpoint

from .basic import checked, checked_mask

DEPTHS = ("conv2_2", "conv4_2")
"""Of the features, each of weight 1."""

FILTERS, SIZE = 256, 5
"""How many random filters, and their edge in values."""

_LOOK = 64
"""Edge of the picture by which the channels of the features are found out, in pixels."""


def random_filters(count: int, channels: int, size: int, seed: int) -> Tensor:
    """Directions drawn evenly: float32 [count, channels, size, size], each of length 1, the same ones for a seed."""
    drawn = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]


def sliced_wasserstein(a: Tensor, b: Tensor, filters: Tensor, at_once: int | None = None) -> Tensor:
    """Mean over the filters of the distance between the distributions of their answers (Wasserstein-1).

    Args:
        a: float [B, C, h, w].
        b: Of the same shape; without slopes.
        filters: [N, C, k, k], run over both in steps of 1 and without padding.
        at_once: Filters that are run together; their answers are then not kept but computed anew for the slopes, which
            takes longer and bounds memory. None runs all of them together.

    Returns:
        A scalar.
    """
    goal = b.detach()
    if at_once is None or at_once >= len(filters):
        return _apart(a, goal, filters) / len(filters)
    parts = [
        checkpoint(_apart, a, goal, group, use_reentrant=False, preserve_rng_state=False)
        for group in filters.split(at_once)
    ]
    return torch.stack(parts).sum() / len(filters)  # pyright: ignore[reportArgumentType]: they are tensors


def _apart(a: Tensor, b: Tensor, filters: Tensor) -> Tensor:
    """Sum over the filters, mean over pictures and places."""
    answers = [conv2d(x, filters).flatten(2).sort(dim=-1).values for x in (a, b)]
    return (answers[0] - answers[1]).abs().mean((0, 2)).sum()


class Amplitude(nn.Module):
    """The loss. The encoder stays as it is; slopes reach the picture that is shown only.

    Args:
        encoder: sRGB [B, 3, H, W] in [0, 1] to features, by name or as a list, such as `features.FeatureMaps` of
            `DEPTHS`; it may run in autocast.
        filters: How many random filters.
        size: Their edge.
        seed: What they are drawn from.
        at_once: See `sliced_wasserstein`.

    Raises:
        ValueError: A value out of range.
    """

    takes_mask = True

    def __init__(
        self, encoder: nn.Module, filters: int = FILTERS, size: int = SIZE, seed: int = 0, at_once: int | None = None
    ) -> None:
        super().__init__()
        for name, value in ("filters", filters), ("size", size), ("at_once", 1 if at_once is None else at_once):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed is {seed!r}; give a whole number")
        self.encoder = encoder.requires_grad_(False).eval()
        self.size, self.at_once = size, at_once
        with torch.no_grad():
            looked = self._features(torch.zeros(1, 3, _LOOK, _LOOK))
        for place, features in enumerate(looked):
            drawn = random_filters(filters, features.shape[1], size, seed + place)
            self.register_buffer(f"filters_{place}", drawn, persistent=False)

    def train(self, mode: bool = True) -> Amplitude:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, shown: Tensor, wanted: Tensor, mask: Tensor | None = None) -> Tensor:
        """The sum over the features; a scalar.

        Args:
            shown, wanted: float [B, 3, H, W] in [0, 1], so large that the filters fit into the features.
            mask: float [B, 1, H, W] that both are multiplied by; None takes all of them. The released code takes what
                is in the frame and not hidden here, and leaves out the phase mask, which is for `phase.MaskedL1`.

        Raises:
            ValueError: Other shapes, or smaller ones.
        """
        a, b = checked(shown, wanted)
        if mask is not None:
            kept = checked_mask(mask, a)
            a, b = a * kept, b * kept
        with torch.no_grad():
            goals = self._features(b)
        pairs = [(x.to(a), y.to(a)) for x, y in zip(self._features(a), goals, strict=True)]
        with torch.autocast(a.device.type, enabled=False):
            distances = [self._distance(place, x, y) for place, (x, y) in enumerate(pairs)]
        return torch.stack(distances).sum()

    def _distance(self, place: int, a: Tensor, b: Tensor) -> Tensor:
        if min(a.shape[2:]) < self.size:
            raise ValueError(
                f"features of {a.shape[2]} x {a.shape[3]} are smaller than filters of {self.size}; give larger pictures"
            )
        filters = self.get_buffer(f"filters_{place}").to(a)
        return sliced_wasserstein(torch.fft.fft2(a).abs(), torch.fft.fft2(b).abs(), filters, self.at_once)

    def _features(self, picture: Tensor) -> list[Tensor]:
        return _listed(self.encoder(picture))


def _listed(features: Mapping[str, Tensor] | Iterable[Tensor]) -> list[Tensor]:
    return list(features.values() if isinstance(features, Mapping) else features)
