"""Finds a ColorChecker Classic in a frame: dark gaps bound its patches, quadrilaterals of one size stand in a grid, and
the colours say which way round it lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.chart import NEUTRAL, REFERENCE_LAB, light_score
from ...engines.cie import Floats, linear_from_lab, luminance
from ...engines.errors import UserError
from .measure import MOST_CLIPPED, Cells, in_pixels, patch_means

COLUMNS, ROWS = 6, 4

HALF_PATCH = 0.22
"""Half of what is measured of a patch, in distances of patches: somewhat more than its inner half."""

PITCH = 1.17
"""Distance of patches in their edges, about: charts are made with gaps of 10 to 20 %."""

MOST_OFF = 12.0
"""Mean CIEDE2000, after the best matrix, above which what looks like a chart is none."""

_FEWEST_QUADS, _FEWEST_GOOD = 8, 12
_BLOCKS = (1 / 60, 1 / 25, 1 / 8)  # windows of the thresholds, in shorter edges of the frame
_OFFSETS = (0, 4, 8)  # how far a patch is above its surroundings, in codes of 8 bits

_Grid = dict[tuple[int, int], Floats]


def find_chart(cells: Cells) -> Floats:
    """Corners of the 24 patches in a frame, [24, 4, 2] (x, y) in pixels of the mosaic.

    Raises:
        UserError: There is no chart, or OpenCV is not installed.
    """
    cv2 = _opencv()
    best, least = None, MOST_OFF
    for grid in _grids(_quads(cv2, _grey(cells))):
        for corners in _placements(cv2, grid):
            off = mismatch(cells, corners)
            if off < least:
                best, least = corners, off
    if best is None:
        raise UserError(
            "no chart of 24 patches was found in the frame: show all of it, in focus and larger than a tenth of the "
            "frame, or say by --corners where it is"
        )
    return best


def chart_at(centres: Sequence[float]) -> Floats:
    """Corners of the 24 patches, [24, 4, 2], from x and y of the centres of dark skin, bluish green, black and white.

    Raises:
        UserError: The four points are no corners of a quadrilateral.
    """
    points = np.array(centres, np.float64).reshape(4, 2)
    ahead, behind = np.roll(points, -1, 0) - points, np.roll(points, 1, 0) - points
    turns = ahead[:, 0] * behind[:, 1] - ahead[:, 1] * behind[:, 0]
    if not (np.all(turns > 1) or np.all(turns < -1)):
        raise UserError(
            "--corners are no corners of a chart: give x and y of the centres of dark skin, bluish green, black and "
            "white, in this order"
        )
    across, down = COLUMNS - 1, ROWS - 1
    grid = np.array([[0, 0], [across, 0], [across, down], [0, down]], np.float64)
    return _patches(_homography(grid, points))


def mismatch(cells: Cells, corners: Floats) -> float:
    """Mean CIEDE2000 of the patches after the best linear matrix, which only a chart makes small; infinite where they
    do not lie in the frame, or too much is clipped."""
    try:
        means, clipped = patch_means(cells, corners)
    except ValueError:
        return np.inf
    good = clipped < MOST_CLIPPED
    if np.count_nonzero(good) < _FEWEST_GOOD:
        return np.inf
    wanted = linear_from_lab(REFERENCE_LAB)
    weights = 1 / (0.05 + luminance(wanted[good, None]))  # about as eyes weigh them
    matrix = np.linalg.lstsq(means[good] * weights, wanted[good] * weights, rcond=None)[0]
    shown = np.maximum(means @ matrix, 0)
    if not luminance(shown[NEUTRAL]).any():
        return np.inf
    return float(light_score(shown).each[good].mean())


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "to find a chart OpenCV is needed: pip install 'ispeed[calibrate]', or say by --corners where it is"
        ) from error
    return cv2


# ---- quadrilaterals: each float64 [4, 2] in cells ---------------------------------------------------------------


def _grey(cells: Cells) -> npt.NDArray[np.uint8]:
    """The brightest colour of each cell, grey-balanced, so that a patch of any colour is above the gaps."""
    balanced = cells.light / np.maximum(cells.light.mean((0, 1)), 1e-6)
    brightest = balanced.max(-1)
    full = max(float(np.quantile(brightest, 0.99)), 1e-6)
    return np.rint(255 * np.sqrt(np.clip(brightest / full, 0, 1))).astype(np.uint8)


def _quads(cv2: Any, grey: npt.NDArray[np.uint8]) -> list[Floats]:
    shorter = min(grey.shape)
    found: list[Floats] = []
    for share in _BLOCKS:
        block = max(3, round(shorter * share)) | 1
        for offset in _OFFSETS:
            way = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
            bright = cv2.adaptiveThreshold(grey, 255, *way, block, offset)
            bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
            outlines, _ = cv2.findContours(bright, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
            quads = (_quad(cv2, outline, shorter) for outline in outlines)
            found += [quad for quad in quads if quad is not None and not _known(quad, found)]
    return found


def _quad(cv2: Any, outline: npt.NDArray[Any], shorter: int) -> Floats | None:
    area = cv2.contourArea(outline)
    if not 60 < area < (shorter / 4) ** 2:
        return None
    corners = cv2.approxPolyDP(outline, 0.1 * cv2.arcLength(outline, True), True)
    if len(corners) != 4 or not cv2.isContourConvex(corners):
        return None
    width, height = cv2.minAreaRect(outline)[1]
    if area < 0.75 * width * height or max(width, height) > 2 * min(width, height):
        return None
    return corners[:, 0].astype(np.float64)


def _known(quad: Floats, found: Sequence[Floats]) -> bool:
    """Whether about the same was found before."""
    return any(
        np.abs(quad.mean(0) - other.mean(0)).max() < 0.2 * _edge(other) and 0.8 < _edge(quad) / _edge(other) < 1.25
        for other in found
    )


def _edge(quad: Floats) -> float:
    return float(np.linalg.norm(np.roll(quad, -1, 0) - quad, axis=1).mean())


# ---- grids of them ---------------------------------------------------------------------------------------------


def _grids(quads: Sequence[Floats]) -> Iterator[_Grid]:
    """Centres by whole-numbered places: what each quadrilateral grows to with others of its size around it."""
    centres = np.array([quad.mean(0) for quad in quads]).reshape(-1, 2)
    edges = np.array([_edge(quad) for quad in quads])
    used: set[int] = set()
    for seed, quad in enumerate(quads):
        if seed in used:
            continue
        grid, members = _grown(seed, quad, centres, edges)
        if len(grid) >= _FEWEST_QUADS:
            used |= members
            yield grid


def _grown(seed: int, quad: Floats, centres: Floats, edges: Floats) -> tuple[_Grid, set[int]]:
    """Neighbours are looked for where the step that led to a quadrilateral leads to from there."""
    along = (quad[1] - quad[0] + quad[2] - quad[3]) / 2 * PITCH
    across = (quad[3] - quad[0] + quad[2] - quad[1]) / 2 * PITCH
    if along[0] * across[1] < along[1] * across[0]:  # as in a picture: x to the right, y down
        across = -across
    grid: _Grid = {(0, 0): centres[seed]}
    members, waiting = {seed}, [((0, 0), seed, along, across)]
    while waiting:
        (x, y), at, right, down = waiting.pop(0)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            place = x + dx, y + dy
            if place in grid:
                continue
            apart = np.linalg.norm(centres - (centres[at] + dx * right + dy * down), axis=1) / edges[at]
            apart[(edges < 0.7 * edges[at]) | (edges > 1.4 * edges[at])] = np.inf
            near = int(apart.argmin())
            if apart[near] > 0.3 or near in members:
                continue
            step = centres[near] - centres[at]
            grid[place] = centres[near]
            members.add(near)
            waiting.append((place, near, dx * step if dx else right, dy * step if dy else down))
    return grid, members


def _placements(cv2: Any, grid: _Grid) -> Iterator[Floats]:
    """Where the patches of a chart would lie, for every way to lay it on a grid: four turns, and shifts."""
    places, centres = np.array(list(grid), np.float64), np.array(list(grid.values()))
    for _ in range(4):
        places = np.stack([-places[:, 1], places[:, 0]], 1)
        low, high = places.min(0).astype(int), places.max(0).astype(int)
        for left in range(min(low[0], high[0] - COLUMNS + 1), max(low[0], high[0] - COLUMNS + 1) + 1):
            for top in range(min(low[1], high[1] - ROWS + 1), max(low[1], high[1] - ROWS + 1) + 1):
                on_chart = places - (left, top)
                inside = np.all((on_chart >= 0) & (on_chart < (COLUMNS, ROWS)), axis=1)
                if np.count_nonzero(inside) < _FEWEST_QUADS:
                    continue
                matrix, _ = cv2.findHomography(on_chart[inside], in_pixels(centres[inside]), cv2.RANSAC, 6.0)
                if matrix is not None:
                    yield _patches(matrix)


def _patches(homography: Floats) -> Floats:
    """Corners of what is measured of the patches, from what brings (column, row) to pixels."""
    column, row = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    centres = np.stack([column, row], -1).reshape(-1, 1, 2)
    around = HALF_PATCH * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    places = np.concatenate([centres + around, np.ones((COLUMNS * ROWS, 4, 1))], -1) @ homography.T
    return places[..., :2] / places[..., 2:]


def _homography(of: Floats, to: Floats) -> Floats:
    """The 3x3 matrix that brings four points [4, 2] to four others, of which no three lie on a line."""
    rows = []
    for (x, y), (u, v) in zip(of, to, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), to.reshape(-1)), 1).reshape(3, 3)
