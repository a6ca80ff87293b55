"""Pictures that have no reference: how far their colours are from those of photographs, and whether they still show
what the frame shows. The two pull apart: a grey picture keeps all structure, and a photograph of anything has the best
colours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy.typing as npt
import torch

from ..losses.content import lightness
from .histogram import Floats, histograms_apart, mean_histogram
from .pictures import ssim, unit_pair


class Likeness(NamedTuple):
    """Of a set of pictures.

    Attributes:
        colours: Hellinger distance in [0, 1] of its mean RGB-uv histogram to that of the photographs; smaller is
            better.
        structure: Mean SSIM of lightness to the classic pictures of the same frames, at most 1.
    """

    colours: float
    structure: float

    @property
    def score(self) -> float:
        """Both as one number, at most 1; larger is better."""
        return self.structure * (1 - self.colours)


def lightness_ssim(shown: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Structural similarity of L* of CIELAB, as `pictures.ssim`: 1 for equal pictures, whatever their colours.

    Args:
        shown, reference: sRGB [H, W, 3], uint8 or in [0, 1].

    Raises:
        ValueError: Not two pictures of one size, or smaller than 7 x 7.
    """
    pair = unit_pair(shown, reference)
    if pair[0].ndim != 3:
        raise ValueError(f"lightness is that of pictures [H, W, 3], not {[*pair[0].shape]}")
    return ssim(*(lightness(torch.from_numpy(x).permute(2, 0, 1)[None])[0, 0].numpy() for x in pair))


class LikenessMeter:
    """Measures pictures one by one.

    Args:
        photographs: `mean_histogram` of photographs of anything.
    """

    def __init__(self, photographs: Floats) -> None:
        self._photographs = photographs
        self._colours: list[Floats] = []
        self._structure: list[float] = []

    def add(self, shown: npt.ArrayLike, classic: npt.ArrayLike) -> Likeness:
        """Of one picture.

        Args:
            shown: sRGB [H, W, 3], uint8 or in [0, 1].
            classic: What the classic engine makes of the same frame, likewise.

        Raises:
            ValueError: As `lightness_ssim`.
        """
        structure, colours = lightness_ssim(shown, classic), mean_histogram([shown])
        self._structure.append(structure)
        self._colours.append(colours)
        return Likeness(histograms_apart(colours, self._photographs), structure)

    def result(self) -> Likeness:
        """Of all pictures so far, as one set. Raises ValueError: there are none."""
        count = len(self._structure)
        if not count:
            raise ValueError("nothing was measured")
        return Likeness(histograms_apart(sum(self._colours) / count, self._photographs), sum(self._structure) / count)
