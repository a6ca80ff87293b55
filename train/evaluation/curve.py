"""The baseline of tone mapping: the classic engine, and behind it the one curve for all places and pictures of a set
that comes closest to the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .developers import CURVE, BehindDeveloper, Developer, Skipped
from .frames import Frame, Matrix, Picture
from .opening import open_set
from .settings import AnySet, CamerasSet, HdrSet, PairsSet, PhotosSet, ScenesSet

Codes = npt.NDArray[np.uint8]

FITTED = 8
"""Frames that a curve is fitted on."""

_OTHER_SEED = 7919
"""What is added to the seed of an evaluation for the frames that a curve is fitted on."""

_SCORED = (PhotosSet, ScenesSet, HdrSet, CamerasSet, PairsSet)


class CurveDeveloper(BehindDeveloper):
    """Something, and a monotone curve of 256 codes behind it, the same for all three colours. See `Developer`.

    The curve is the best in the sense of least squares, and so of PSNR over all pictures together. It is fitted for
    each set on frames of the same kind that are drawn with another seed: other light, exposure and noise, though some
    of the photographs are the same. Sets that are not drawn (pairs) are fitted on some of the frames that are measured.
    Both make the baseline stronger, if anything.

    Args:
        base: What makes the pictures.
    """

    def __init__(self, base: Developer) -> None:
        super().__init__(base, CURVE)
        self._curve: Codes | None = None
        self._fitted: dict[str, Any] = {}

    def fit(self, settings: AnySet, seed: int, most: int | None = None) -> None:
        """Fit the curve for a set, before its frames are developed; `most` limits the frames that are looked at.

        Raises:
            UserError: Data are missing, or the base cannot develop such frames.
        """
        self._curve = None
        if not isinstance(settings, _SCORED) or settings.kind == "inverse" or settings.protocol != "plain":
            return
        other = settings if isinstance(settings, PairsSet) else settings.model_copy(update={"limit": FITTED})
        frames = open_set(other, seed + _OTHER_SEED)
        sums, counts, seen = np.zeros(256), np.zeros(256), 0
        for frame in frames.frames(frames.phases[0], min(FITTED, most or FITTED)):
            if frame.reference is None:
                continue
            self._base.prepare(frame, frames.matrix if frame.matrix is None else frame.matrix)
            codes = self._base.develop(frame).ravel()
            sums += np.bincount(codes, frame.reference.ravel(), 256)
            counts += np.bincount(codes, minlength=256)
            seen += 1
        if seen:
            self._curve = best_curve(sums, counts)
            self._fitted[settings.name] = {"frames": seen, "seed": seed + _OTHER_SEED, "codes": self._curve.tolist()}

    def prepare(self, frame: Frame, matrix: Matrix | None) -> None:
        """See `Developer.prepare`. Raises Skipped: no curve was fitted for the set."""
        if self._curve is None:
            raise Skipped("a curve is fitted where pictures are scored against references, by the protocol plain")
        super().prepare(frame, matrix)

    def develop(self, frame: Frame) -> Picture:
        """See `Developer.develop`."""
        if self._curve is None:
            raise RuntimeError("no curve is fitted")
        return self._curve[self._base.develop(frame)]

    def facts(self) -> dict[str, Any]:
        """See `Developer.facts`: those of the base, and the curve of each set, with what it was fitted on."""
        return self._base.facts() | {"curves": self._fitted}


def best_curve(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> Codes:
    """The monotone curve with the least squared distance to what is wanted: isotonic regression, by pooling adjacent
    violators.

    Args:
        sums: Of each of the codes, [256], the sum of the codes that are wanted where it is shown.
        counts: How often it is shown, at least one of them.

    Returns:
        uint8 [256]; codes that are never shown lie between their neighbours.
    """
    pools: list[list[float]] = []  # sum, count, and how many codes
    shown = np.flatnonzero(counts)
    for code in shown:
        pools.append([float(sums[code]), float(counts[code]), 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    values = np.repeat([total / count for total, count, _ in pools], [int(codes) for *_, codes in pools])
    return np.rint(np.interp(np.arange(256), shown, values)).clip(0, 255).astype(np.uint8)
