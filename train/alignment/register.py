"""How two pictures of one scene lie, coarsely: for cameras that differ in resolution, field of view and rotation.

Features that both have (SIFT, Lowe 2004) give a homography, found among wrong matches by MAGSAC++ (Barath et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..protocols import opencv
from .mask import inside
from .structure import grey

Floats = npt.NDArray[np.float32]
Homography = npt.NDArray[np.float64]
"""[3, 3], from (x, y, 1) in pixels of the frame to those of the reference."""

Picture = npt.NDArray[np.uint8]
Registered = Literal["auto", "yes", "no"]

MULTIPLE = 32
"""What width and height of what is cut out are divisible by."""

PIXELS = 800_000
"""To which pictures are made smaller for features."""

FEATURES = 3000
"""Of each picture at most, the strongest."""

RATIO = 0.8
"""How much farther than the best the second best match must be (Lowe's number: 0.8 = best / second)."""

REACH = 3.0
"""Pixels of the smaller pictures by which matches may miss a homography."""

NEAR = 12.0
"""Pixels: corners of pictures of equal size that move no farther are left to flow."""

_STEP = 8
"""Edge of the cells of which the part that both see is made up, in pixels; even, so that the CFA phase stays."""

_BLUR = 0.8
"""Against noise, in pixels of the smaller pictures."""

_TILES, _CLIP = 8, 3.0
"""Of tone equalisation: tiles along each side, and its limit of contrast."""

_SKEW = 4.0
"""How much the scale may differ between corners, in area: what two cameras at one scene do not exceed."""


class Region(NamedTuple):
    """A piece of a frame: first row and column, even, and rows and columns, divisible by `MULTIPLE`."""

    top: int
    left: int
    height: int
    width: int

    def of(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of [H, W, ...]."""
        return frame[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, eq=False)
class Registration:
    """How a reference lies under a frame.

    Attributes:
        homography: See `Homography`; the identity where the grid is kept.
        matches: Features that were found in both, right or wrong; 0 where none were looked for.
        inliers: Those that the homography explains.
        kept: Frame and reference share their grid already, and what is left is for flow.
        usable: The two can be laid on each other.
    """

    homography: Homography
    matches: int = 0
    inliers: int = 0
    kept: bool = False
    usable: bool = True


def register(shown: Picture, reference: Picture, *, least: int, registered: Registered = "auto") -> Registration:
    """Find how they lie.

    Args:
        shown: uint8 [H, W, 3], sRGB, the frame as developed.
        reference: uint8 [h, w, 3], sRGB.
        least: Inliers that a homography needs.
        registered: "yes" takes them for registered, which needs equal sizes; "auto" does so for equal sizes if a
            homography moves no corner farther than `NEAR`, or none is found; "no" always applies a homography.

    Raises:
        ValueError: "yes", and sizes that differ.
    """
    same = shown.shape == reference.shape
    if registered == "yes":
        if not same:
            raise ValueError(f"registered pictures are of one size, not {[*shown.shape]} and {[*reference.shape]}")
        return Registration(np.eye(3), kept=True)
    found = _matched(shown, reference)
    usable = found.inliers >= least and _plausible(found.homography, *shown.shape[:2])
    if registered == "auto" and same and (not usable or _moved(found, *shown.shape[:2]) <= NEAR):
        return replace(found, homography=np.eye(3), kept=True)
    return replace(found, usable=usable)


def reduced(reference: Picture, homography: Homography, height: int, width: int) -> tuple[Picture, Homography]:
    """A reference of about the frame's resolution, so that none of its detail turns into false patterns, and the
    homography to it. References that are no finer than the frame stay as they are.

    Args:
        reference: uint8 [h, w, 3].
        homography: See `Homography`.
        height, width: Of the frame.
    """
    cv2 = opencv("alignment")
    finer = float(np.sqrt(_areas(homography, height, width).mean()))
    size = [max(1, round(length / finer)) for length in reference.shape[1::-1]]
    if finer <= 1.05 or min(size) < 2:  # less than a pixel in twenty is not worth another interpolation
        return reference, homography
    small = cv2.resize(reference, size, interpolation=cv2.INTER_AREA)
    x, y = (new / old for new, old in zip(size, reference.shape[1::-1], strict=True))
    # pixels lie at the middle of their areas
    scaled = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    return small, scaled @ homography


def project(homography: Homography, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Where places of the frame lie in the reference: columns and rows, float32, as `x` and `y`."""
    if np.array_equal(homography, np.eye(3)):
        return x, y
    (a, b, c), (d, e, f), (g, h, i) = homography
    depth = g * x + h * y + i
    return ((a * x + b * y + c) / depth).astype(np.float32), ((d * x + e * y + f) / depth).astype(np.float32)


def common(homography: Homography, height: int, width: int, seen: tuple[int, int]) -> Region | None:
    """The largest piece of a frame that a reference shows too.

    Args:
        homography: See `Homography`.
        height, width: Of the frame.
        seen: Rows and columns of the reference.

    Returns:
        The piece; None where there is none of `MULTIPLE` x `MULTIPLE`.
    """
    rows, columns = height // _STEP, width // _STEP
    y, x = np.mgrid[: rows + 1, : columns + 1].astype(np.float32) * _STEP
    # corners of cells; the last lie one pixel outside of theirs
    there = inside(*project(homography, np.minimum(x, width - 1), np.minimum(y, height - 1)), *seen)
    cells = there[:-1, :-1] & there[1:, :-1] & there[:-1, 1:] & there[1:, 1:]
    best = _largest(cells, MULTIPLE // _STEP)
    return None if best is None else Region(*(_STEP * value for value in best))


def _largest(cells: npt.NDArray[np.bool_], multiple: int) -> tuple[int, int, int, int] | None:
    """Top, left, rows and columns of the largest rectangle of true cells whose sides are divisible by `multiple`."""
    best, size = None, 0
    depths = np.zeros(cells.shape[1], int)  # true cells from each place upwards
    for row, line in enumerate(cells):
        depths = np.where(line, depths + 1, 0)
        for rows in range(multiple, int(depths.max()) + 1, multiple):
            deep = np.concatenate([[False], depths >= rows, [False]])
            edges = np.flatnonzero(deep[1:] != deep[:-1])
            starts, lengths = edges[::2], (edges[1::2] - edges[::2]) // multiple * multiple
            longest = int(lengths.argmax()) if len(lengths) else 0
            if len(lengths) and lengths[longest] * rows > size:
                size = int(lengths[longest] * rows)
                best = row - rows + 1, int(starts[longest]), rows, int(lengths[longest])
    return best


# ---- features ----------------------------------------------------------------------------------------------


def _matched(shown: Picture, reference: Picture) -> Registration:
    """The homography that most matches of features agree on; without inliers where there is none."""
    cv2 = opencv("alignment")
    (first, first_marks), (second, second_marks) = _features(shown), _features(reference)
    if min(len(first), len(second)) < 4:
        return Registration(np.eye(3))
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first_marks, second_marks, k=2)
    good = [best for best, next_best in pairs if best.distance < RATIO * next_best.distance]
    if len(good) < 4:
        return Registration(np.eye(3), len(good))
    start, end = first[[match.queryIdx for match in good]], second[[match.trainIdx for match in good]]
    reach = REACH * max(1.0, _shrink(reference.shape[:2]))
    homography, agree = cv2.findHomography(start, end, cv2.USAC_MAGSAC, reach, maxIters=5000, confidence=0.9999)
    if homography is None:
        return Registration(np.eye(3), len(good))
    return Registration(homography.astype(np.float64), len(good), int(agree.sum()))


def _features(picture: Picture) -> tuple[Floats, Floats]:
    """Places (x, y) in pixels of the picture, [N, 2], and descriptions [N, 128]."""
    cv2 = opencv("alignment")
    times = _shrink(picture.shape[:2])
    values = grey(picture)
    size = [max(1, round(length / times)) for length in values.shape[::-1]]
    if times > 1:
        values = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    codes = np.rint(cv2.GaussianBlur(values, (0, 0), _BLUR) * 255).astype(np.uint8)
    codes = cv2.createCLAHE(_CLIP, (_TILES, _TILES)).apply(codes)
    points, marks = cv2.SIFT_create(FEATURES).detectAndCompute(codes, None)
    if not points:
        return np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)
    ratio = np.array(values.shape[::-1]) / picture.shape[1::-1]
    found = np.array([point.pt for point in points])
    return ((found + 0.5) / ratio - 0.5).astype(np.float32), marks


def _shrink(size: tuple[int, ...]) -> float:
    """How much smaller a picture is made for features, each way."""
    return max(1.0, float(np.sqrt(size[0] * size[1] / PIXELS)))


def _corners(height: int, width: int) -> tuple[Floats, Floats]:
    x = np.array([0, width - 1, width - 1, 0], np.float32)
    y = np.array([0, 0, height - 1, height - 1], np.float32)
    return x, y


def _moved(found: Registration, height: int, width: int) -> float:
    """How far a homography moves the corner that it moves most, in pixels."""
    x, y = _corners(height, width)
    to_x, to_y = project(found.homography, x, y)
    return float(np.hypot(to_x - x, to_y - y).max())


def _areas(homography: Homography, height: int, width: int) -> npt.NDArray[np.float64]:
    """What a pixel at each corner of the frame, and at its middle, covers in the reference, in pixels; negative where
    it is mirrored."""
    x, y = _corners(height, width)
    x, y = np.append(x, (width - 1) / 2), np.append(y, (height - 1) / 2)
    depth = homography[2, 0] * x + homography[2, 1] * y + homography[2, 2]
    return np.linalg.det(homography) / depth**3


def _plausible(homography: Homography, height: int, width: int) -> bool:
    """Whether two cameras that look at one scene from nearly the same place could lie so."""
    areas = _areas(homography, height, width)
    return bool(np.isfinite(areas).all() and areas.min() > 0 and areas.max() < _SKEW * areas.min())
