"""Where an aligned reference can be trusted, by the phases of what a network sees, and the difference there: MisISP's
L_pha.

Source: Chen, Liu, Jin et al., "Learning Deep ISP for High-Speed Cameras", the code released with it (MisISP). After a
reference has been moved onto a frame, some of it still lies wrong. Block by block the reference is compared with what
the mapper (`models.misisp`) makes of the frame, which is in place for certain: both blocks are seen by VGG-19, each
channel is Fourier-transformed, and the cosine between the two vectors of all phases says how well structure agrees in
place, whatever its contrast. Blocks below a threshold are not learned from.

What the sources say, and what is followed: blocks are 32 pixels wide by default in the released class, but the folders
of its real runs are named after 64 ("vpc64-0.20" for RHID, "vpc64-0.10" for ZRR). The class's 32 is the default here,
and `RHID_BLOCK` is for that data. As released, each block is cut out before it is seen, so that nothing of its
neighbours comes in, and what is left right and below of whole blocks is not kept. The cosine is that of angles as
numbers in (-pi, pi], so it takes pi and -pi + 0.01 for far apart; as released, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from .basic import checked, checked_mask

BLOCK = 32
"""Edge of a block in pixels: default of the released class."""

RHID_BLOCK = 64
"""Edge of a block in pixels in the published runs on RHID."""

THRESHOLD = 0.2
"""Similarity from which a block is kept: default of the released class, and of the published runs on RHID."""

DEPTH = "conv3_1"
"""Of the features."""

_SMALL = 1e-6
"""Added to the count of kept pixels, as released: where none is kept the loss is 0."""


def phase_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between the phases of features: 1 for equal ones, near 0 for unrelated ones.

    Args:
        a, b: float [N, C, h, w].

    Returns:
        [N], float32, or float64 of float64. 0 where all phases of one are 0, as of black.

    Raises:
        ValueError: Other shapes.
    """
    with torch.autocast(a.device.type, enabled=False):
        return cosine_similarity(*(_phases(x).flatten(1) for x in checked(a, b)), dim=1)


def _phases(features: Tensor) -> Tensor:
    spectrum = torch.fft.fft2(features)
    imaginary = spectrum.imag.clone()
    # Where the transform of real values is real, rounding or the sign of a zero would choose between pi and -pi.
    rows, columns = ([0] if size % 2 else [0, size // 2] for size in features.shape[2:])
    for row in rows:
        imaginary[..., row, columns] = 0.0
    return torch.atan2(imaginary, spectrum.real)


class PhaseMask(nn.Module):
    """Which blocks of an aligned reference agree with a frame.

    Args:
        features: sRGB [N, 3, h, w] to features by name, such as `features.FeatureMaps`.
        block: Edge of the blocks, in pixels.
        threshold: Similarity from which a block is kept, in [-1, 1].
        depth: Which of the features.
        at_once: Blocks that are looked at together: what bounds memory.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        features: Callable[[Tensor], dict[str, Tensor]],
        block: int = BLOCK,
        threshold: float = THRESHOLD,
        depth: str = DEPTH,
        at_once: int = 64,
    ) -> None:
        super().__init__()
        for name, value in ("block", block), ("at_once", at_once):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
        if not -1 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold!r}; a cosine lies in [-1, 1]")
        self.features, self.depth = features, depth
        self.block, self.threshold, self.at_once = block, threshold, at_once

    @torch.no_grad()
    def similarity(self, shown: Tensor, reference: Tensor) -> Tensor:
        """How well each whole block agrees.

        Args:
            shown: float [B, 3, H, W], sRGB in [0, 1]: what the mapper makes of a frame.
            reference: The aligned reference, of the same shape.

        Returns:
            float [B, H // block, W // block], in [-1, 1].

        Raises:
            ValueError: Other shapes, smaller than a block, or blocks that the network cannot see.
        """
        a, b = checked(shown, reference, least=self.block)
        rows, columns = a.shape[2] // self.block, a.shape[3] // self.block
        pieces = zip(*(self._cut(x, rows, columns).split(self.at_once) for x in (a, b)), strict=True)
        found = [phase_similarity(*(self.features(blocks)[self.depth].to(a) for blocks in pair)) for pair in pieces]
        return torch.cat(found).view(-1, rows, columns)

    def forward(self, shown: Tensor, reference: Tensor) -> Tensor:
        """1 in the blocks that are kept, 0 elsewhere: float32 [B, 1, H, W]. Arguments and errors as of `similarity`."""
        kept = (self.similarity(shown, reference) >= self.threshold).float()
        mask = torch.zeros(shown.shape[0], 1, *shown.shape[2:], device=shown.device)
        whole = kept.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)
        mask[:, 0, : whole.shape[1], : whole.shape[2]] = whole
        return mask

    def _cut(self, picture: Tensor, rows: int, columns: int) -> Tensor:
        """[B, 3, H, W] to its blocks [B * rows * columns, 3, block, block]."""
        n = self.block
        tiles = picture[:, :, : rows * n, : columns * n].reshape(-1, 3, rows, n, columns, n)
        return tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, n, n)


Over = Literal["pixels", "values", "picture"]

_COUNTS: dict[str, Callable[[Tensor, Tensor], Tensor | float]] = {
    "pixels": lambda mask, difference: mask.sum() + _SMALL,
    "values": lambda mask, difference: mask.sum() * difference.shape[1] + _SMALL,
    "picture": lambda mask, difference: math.prod(difference.shape),
}


class MaskedL1(nn.Module):
    """Absolute difference where a mask says that pictures may be compared: L_pha, with the mask of `PhaseMask`.

    Args:
        over: What the sum of absolute differences is divided by. "pixels" is the released class's: the number of kept
            pixels. The sum has three colours of each, so this is three times the mean over what is kept, which "values"
            gives. "picture" is what the released training computes: the mean over everything, of which all that is not
            kept counts as 0.

    Raises:
        ValueError: Another `over`.
    """

    takes_mask = True

    def __init__(self, over: Over = "pixels") -> None:
        super().__init__()
        if over not in tuple(_COUNTS):
            raise ValueError(f"over is {over!r}; choose one of {', '.join(_COUNTS)}")
        self.over = over

    def forward(self, shown: Tensor, wanted: Tensor, mask: Tensor | None = None) -> Tensor:
        """Of [B, C, H, W], any size; a scalar, 0 where nothing is kept.

        Args:
            shown, wanted: float [B, C, H, W] in [0, 1].
            mask: float [B, 1, H, W]; None keeps everything.

        Raises:
            ValueError: Other shapes.
        """
        a, b = checked(shown, wanted)
        kept = torch.ones_like(a[:, :1]) if mask is None else checked_mask(mask, a)
        difference = (a - b).abs() * kept
        return difference.sum() / _COUNTS[self.over](kept, difference)
