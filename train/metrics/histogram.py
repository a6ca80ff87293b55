"""How far apart the colours of pictures are, wherever they lie: of two pictures, or of two sets of pictures that need
not show the same. What is compared are the histograms of `losses.histogram`, in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from ..losses.histogram import EDGE, Histogram, hellinger
from .pictures import unit

Floats = npt.NDArray[np.float64]


def histogram_distance(shown: npt.ArrayLike, wanted: npt.ArrayLike, edge: int | None = EDGE) -> float:
    """Hellinger distance between the RGB-uv histograms of two pictures: 0 for equal ones, 1 where no colour is shared.

    Args:
        shown, wanted: sRGB [H, W, 3], uint8 or in [0, 1]; their sizes may differ.
        edge: Larger pictures are brought to edge x edge pixels, as by the loss; None takes every pixel.

    Raises:
        ValueError: Not such pictures, or no such edge.
    """
    return histograms_apart(*(mean_histogram([picture], edge) for picture in (shown, wanted)))


def mean_histogram(pictures: Iterable[npt.ArrayLike], edge: int | None = EDGE) -> Floats:
    """The colours of a set: the mean of the RGB-uv histograms of its pictures, in which all count the same.

    Args:
        pictures, edge: As of `histogram_distance`.

    Returns:
        [3, bins, bins], whose sum is 1; see `losses.rgb_uv_histogram`.

    Raises:
        ValueError: There are no pictures, or one is none.
    """
    count, whole, loss = 0, np.zeros(()), Histogram(edge=edge)
    for picture in pictures:
        values = unit(picture)
        if values.ndim != 3:
            raise ValueError(f"colours are counted of pictures [H, W, 3], not {[*values.shape]}")
        tensor = torch.from_numpy(values).permute(2, 0, 1)[None]
        with _one_thread():
            count, whole = count + 1, whole + loss.histogram(tensor)[0].numpy()
    if not count:
        raise ValueError("a mean histogram is one of pictures; give one at least")
    return whole / count


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The steps of a histogram are so short that threads wait for each other: 20 ms in one were up to 1 s in two that
    had to share their processors with others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def histograms_apart(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Hellinger distance between two of `mean_histogram`, in [0, 1].

    Raises:
        ValueError: Their shapes differ.
    """
    first, second = (np.asarray(x, np.float64) for x in (a, b))
    if first.shape != second.shape:
        raise ValueError(f"histograms of one shape are compared, not {[*first.shape]} and {[*second.shape]}")
    return float(hellinger(*(torch.from_numpy(x)[None] for x in (first, second))))
