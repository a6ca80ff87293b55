"""Colours of a ColorChecker Classic in a picture against what its maker measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .cie import ciede2000, lab_from_linear, light, luminance
from .errors import UserError

Floats = npt.NDArray[np.float64]

PATCHES = (
    *("dark skin", "light skin", "blue sky", "foliage", "blue flower", "bluish green"),
    *("orange", "purplish blue", "moderate red", "purple", "yellow green", "orange yellow"),
    *("blue", "green", "red", "yellow", "magenta", "cyan"),
    *("white", "neutral 8", "neutral 6.5", "neutral 5", "neutral 3.5", "black"),
)

NEUTRAL = slice(18, 24)

REFERENCE_LAB = np.array(
    [
        *([37.54, 14.37, 14.92], [64.66, 19.27, 17.50], [49.32, -3.82, -22.54]),
        *([43.46, -12.74, 22.72], [54.94, 9.61, -24.79], [70.48, -32.26, -0.37]),
        *([62.73, 35.83, 56.50], [39.43, 10.75, -45.17], [50.57, 48.64, 16.67]),
        *([30.10, 22.54, -20.87], [71.77, -24.13, 58.19], [71.51, 18.24, 67.37]),
        *([28.37, 15.42, -49.80], [54.38, -39.72, 32.27], [42.43, 51.05, 28.62]),
        *([81.80, 2.67, 80.41], [50.63, 51.28, -14.12], [49.57, -29.71, -28.32]),
        *([95.19, -1.03, 2.93], [81.29, -0.57, 0.44], [66.89, -0.75, -0.06]),
        *([50.76, -0.13, 0.14], [35.63, -0.46, -0.48], [20.64, 0.07, -0.46]),
    ]
)
"""CIELAB under D50 of charts made from November 2014 on, as X-Rite publishes them; row by row, dark skin first."""


@dataclass(frozen=True, eq=False)
class ChartScore:
    """How far the colours of a chart are off.

    Attributes:
        each: CIEDE2000 of the 24 patches, in the order of `PATCHES`.
        gain: What the linear light was multiplied by so that the neutral patches are as bright as they should be.
    """

    each: Floats
    gain: float

    @property
    def mean(self) -> float:
        """Over the patches."""
        return float(self.each.mean())

    @property
    def worst(self) -> tuple[str, float]:
        """The patch that is furthest off."""
        return PATCHES[int(self.each.argmax())], float(self.each.max())


def read_charts(path: Path) -> dict[str, Floats]:
    """Corners of the patches by picture, [24, 4, 2] (x, y) in pixels, from a `charts.json`.

    The file holds {picture: {"patches": [{"index": 1 to 24, "polygon_xy": [[x, y], ...]}, ...]}}.

    Raises:
        UserError: It cannot be read, or holds something else.
    """
    try:
        charts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = {name: {p["index"]: p["polygon_xy"] for p in chart["patches"]} for name, chart in charts.items()}
        corners = {name: np.array([patches[k] for k in range(1, 25)], np.float64) for name, patches in found.items()}
    except OSError as error:
        raise UserError(f"cannot read the charts {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} describes no charts; each picture needs patches 1 to 24 with their corners") from error
    for name, chart in corners.items():
        if chart.shape != (24, 4, 2) or not np.isfinite(chart).all():
            raise UserError(f"{path} gives patches of {name} that have not four corners each; mend the file")
    return corners


def chart_score(picture: npt.ArrayLike, corners: npt.ArrayLike) -> ChartScore:
    """Measure a chart. Brightness is no fault: one gain for all patches is fitted to the neutral ones first.

    Args:
        picture: sRGB [H, W, 3], uint8 or in [0, 1].
        corners: Of the 24 patches in the pixels of the picture, [24, 4, 2] (x, y), convex.

    Raises:
        ValueError: Another shape, a patch without pixels or not all in the picture, or black neutral patches.
    """
    return light_score(patch_light(picture, corners))


def light_score(means: npt.ArrayLike, usable: npt.ArrayLike | None = None) -> ChartScore:
    """The same of the mean linear light of the patches.

    Args:
        means: [24, 3].
        usable: Of which patches the neutral ones are taken for the gain, bool [24]; None for all.

    Raises:
        ValueError: The neutral patches are black, or none is usable.
    """
    measured = np.asarray(means, np.float64)
    greys = np.arange(24)[NEUTRAL]
    if usable is not None:
        greys = greys[np.asarray(usable, bool)[NEUTRAL]]
    wanted = ((REFERENCE_LAB[greys, 0] + 16) / 116) ** 3  # all neutrals are above the straight part of L*
    shown = luminance(measured[greys])
    if not shown.any():
        raise ValueError("the neutral patches are black; the corners lie elsewhere, or the picture is empty")
    gain = float(shown @ wanted / (shown @ shown))
    return ChartScore(ciede2000(lab_from_linear(gain * measured), REFERENCE_LAB), gain)


def patch_light(picture: npt.ArrayLike, corners: npt.ArrayLike) -> Floats:
    """Mean linear light of each patch, [N, 3]; arguments and errors as of `chart_score`, for any number of patches."""
    values = np.asarray(picture)
    if values.ndim != 3 or values.shape[2] != 3:
        raise ValueError(f"a chart is in a picture [H, W, 3], not {[*values.shape]}")
    whole = values.dtype == np.uint8
    if not whole and not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"a picture is uint8, or floating point in [0, 1], not {values.dtype}")
    patches = (values[at][inside] for at, inside in patch_pixels(values.shape, corners))
    return np.stack([light(pixels / 255.0 if whole else pixels).mean(0) for pixels in patches])


def patch_pixels(
    shape: Sequence[int], corners: npt.ArrayLike
) -> Iterator[tuple[tuple[slice, slice], npt.NDArray[np.bool_]]]:
    """Where the patches lie in a picture: of each the rectangle around it, and which pixels of that are inside.

    Args:
        shape: Height and width of the picture first.
        corners: [N, 4, 2] (x, y), convex.

    Raises:
        ValueError: Another shape, or a patch without pixels or not all in the picture.
    """
    polygons = np.asarray(corners, np.float64)
    if polygons.ndim != 3 or polygons.shape[1:] != (4, 2):
        raise ValueError(f"a chart is patches [N, 4, 2], not {[*polygons.shape]}")
    for place, polygon in enumerate(polygons):
        left, top = np.ceil(polygon.min(0)).astype(int)
        right, bottom = np.floor(polygon.max(0)).astype(int) + 1
        if min(left, top) < 0 or right > shape[1] or bottom > shape[0]:
            raise ValueError(f"patch {place + 1} of the chart reaches out of the picture; give corners in its pixels")
        y, x = np.mgrid[top:bottom, left:right]
        inside = _inside(x, y, polygon)
        if not inside.any():
            raise ValueError(f"patch {place + 1} of the chart holds no pixel; give corners in pixels of the picture")
        yield (slice(top, bottom), slice(left, right)), inside


def _inside(x: npt.NDArray[np.int_], y: npt.NDArray[np.int_], polygon: Floats) -> npt.NDArray[np.bool_]:
    """Which of the pixels have their centre in a convex polygon [N, 2], whichever way round it goes."""
    following = np.roll(polygon, -1, axis=0)
    sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for (ax, ay), (bx, by) in zip(polygon, following, strict=True)]
    return (np.min(sides, axis=0) >= 0) | (np.max(sides, axis=0) <= 0)
