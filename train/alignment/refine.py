"""Displacements made exact: least squares on structure, held together by smoothness.

Each place asks for a change of displacement by its gradients, as in Lucas and Kanade (1981). The demands of a cell of
8 x 8 pixels are summed, weighed by how far its noise lets them be believed, and solved for together with a prior that
bends little: second differences cost, so that shifts, turns and slopes are free (after Trobin et al. 2008), and cost
less the larger they are, so that depth may jump. Flat areas therefore follow their surroundings, and noise, that of a
high-speed camera above all, averages out over as many cells as the bending allows.

The weights below were chosen on photographs with known displacements, with and without jumps of depth: see
tests/train/alignment/test_flow.py for what they reach.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..protocols import opencv

Floats = npt.NDArray[np.float32]
Channels = Sequence[Floats]
"""Maps [h, w] of one picture that are compared with those of another, place for place."""

CELL = 8
"""Edge of a cell, in pixels of the picture."""

STIFFNESS = 100.0
"""Cost of bending: of a squared second difference of 1 pixel between cells, in units of squared noise."""

JUMP = 0.05
"""Second difference, in pixels, from which bending costs ever less."""

LEAST_NOISE = 0.03
"""Variance of differences, in units of `structure`, that is never believed to be less: interpolation errs, too."""

ROUNDS = 3
"""How often pictures are compared anew; with several levels of blur, the later rounds take the last of them."""

_WINDOW = 9
"""Edge of the window in which a mismatch is told from noise, in pixels."""

_MISMATCH = 4.0
"""Squared difference, in units of the usual one, that halves what a place counts."""

_STEPS, _CLOSE = 60, 1e-5
"""Most steps of the solver, and the part of the first residual that ends it."""


def refine(moving: Sequence[Channels], fixed: Sequence[Channels], flow: Floats, scale: int = 1) -> Floats:
    """A better displacement.

    Args:
        moving, fixed: Of the two pictures, one entry for each level, the most blurred first: channels, float32 [h, w],
            all of one size. What brightness and colour they have must be alike, as of `structure.structure`.
        flow: float32 [H, W, 2], (x, y) in pixels of the picture, from places of `fixed` to those of `moving`.
        scale: How much smaller the channels are than the picture: H = scale * h, roughly.

    Returns:
        float32 [H, W, 2].
    """
    cv2 = opencv("alignment")
    size = fixed[0][0].shape[::-1]
    cells = max(2, round(size[0] * scale / CELL)), max(2, round(size[1] * scale / CELL))
    moved_gradients = noise_of(fixed[-1]) > noise_of(moving[-1])  # those of noise would pass for structure
    here = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    bent = cv2.resize(here, cells, interpolation=cv2.INTER_AREA)
    for number in range(ROUNDS):
        level = min(number, len(fixed) - 1)
        wanted, sure = _demands(moving[level], fixed[level], here, cells, scale, moved_gradients)
        bent = _solve(wanted, sure, bent)
        here = _spread(bent, size)
    return _spread(bent, flow.shape[1::-1])


def _spread(bent: Floats, size: tuple[int, int]) -> Floats:
    """The displacements of cells at all pixels: float32 [height, width, 2], for `size` = (width, height). Beyond the
    middles of the outermost cells slopes go on."""
    cv2 = opencv("alignment")
    wider = np.pad(bent, ((_EDGE, _EDGE), (_EDGE, _EDGE), (0, 0)), mode="reflect", reflect_type="odd")
    x, y = (cells / pixels for cells, pixels in zip(bent.shape[1::-1], size, strict=True))
    to_cells = np.array([[x, 0, (x - 1) / 2 + _EDGE], [0, y, (y - 1) / 2 + _EDGE]])
    return cv2.warpAffine(wider, to_cells, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)


_EDGE = 2
"""Cells that bicubic interpolation looks at beyond the outermost ones."""


def noise_of(channels: Channels) -> float:
    """How much neighbours differ beyond what their own neighbours do: large for noise, small for structure."""
    cv2 = opencv("alignment")
    return float(np.mean([np.median(np.abs(cv2.Laplacian(channel, cv2.CV_32F))) for channel in channels]))


def _demands(
    moving: Channels, fixed: Channels, flow: Floats, cells: tuple[int, int], scale: int, moved_gradients: bool
) -> tuple[Floats, Floats]:
    """What the cells ask for: the vectors [h, w, 2] and the matrices (xx, xy, yy) [h, w, 3] of their equations."""
    cv2 = opencv("alignment")
    height, width = flow.shape[:2]
    to_x, to_y = places((flow / scale).astype(np.float32))
    moved = [cv2.remap(each, to_x, to_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for each in moving]
    away = [cv2.subtract(a, b) for a, b in zip(moved, fixed, strict=True)]
    weight = _weight(away)
    weight *= (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    sums = np.zeros((cells[1], cells[0], 5), np.float32)
    for a, b, off in zip(moved, fixed, away, strict=True):
        seen = a if moved_gradients else b
        x, y = (cv2.Scharr(seen, cv2.CV_32F, *way, scale=1 / (32 * scale)) for way in ((1, 0), (0, 1)))
        left = cv2.multiply(x, flow[..., 0]) + cv2.multiply(y, flow[..., 1]) - off
        weighed_x, weighed_y = cv2.multiply(x, weight), cv2.multiply(y, weight)
        for place, (one, other) in enumerate(
            ((weighed_x, left), (weighed_y, left), (weighed_x, x), (weighed_x, y), (weighed_y, y))
        ):
            sums[..., place] += cv2.resize(cv2.multiply(one, other), cells, interpolation=cv2.INTER_AREA)
    sums *= np.float32(height * width / (cells[0] * cells[1] * len(fixed)))
    return sums[..., :2], sums[..., 2:]


def _weight(away: Channels) -> Floats:
    """How far each place can be believed: by the variance of all differences, and by what lies around it."""
    cv2 = opencv("alignment")
    error = np.mean([each * each for each in away], axis=0) if len(away) > 1 else away[0] * away[0]
    usual = np.float32(max(float(np.median(error[::2, ::2])), LEAST_NOISE))
    around = cv2.blur(error, (_WINDOW, _WINDOW))
    return 1 / (usual + around * np.float32(1 / _MISMATCH))


def places(flow: Floats) -> tuple[Floats, Floats]:
    """Where each place is displaced to by a flow [H, W, 2]: columns and rows, float32 [H, W] each."""
    height, width = flow.shape[:2]
    return (
        flow[..., 0] + np.arange(width, dtype=np.float32),
        flow[..., 1] + np.arange(height, dtype=np.float32)[:, None],
    )


# ---- smoothness --------------------------------------------------------------------------------------------


def _solve(wanted: Floats, sure: Floats, start: Floats) -> Floats:
    """The displacements of cells [h, w, 2] that do best by their demands and bend little: conjugate gradients."""
    costs = _bending_costs(start)

    def applied(v: Floats) -> Floats:
        given = _unbent(v, costs)
        given[..., 0] += sure[..., 0] * v[..., 0] + sure[..., 1] * v[..., 1]
        given[..., 1] += sure[..., 1] * v[..., 0] + sure[..., 2] * v[..., 1]
        return given

    # the demands of each cell by itself, with what is usual of smoothness: 6 along rows and columns, 4 across
    usual = np.float32(sum(share * cost.mean() for share, cost in zip((6, 6, 4), costs, strict=True)))
    xx, xy, yy = sure[..., 0] + usual, sure[..., 1], sure[..., 2] + usual
    share = np.reciprocal(xx * yy - xy * xy)

    def nearly(r: Floats) -> Floats:
        x, y = r[..., 0], r[..., 1]
        return np.stack([share * (yy * x - xy * y), share * (xx * y - xy * x)], axis=-1).astype(np.float32, copy=False)

    found = start.astype(np.float32)
    rest = wanted - applied(found)
    way = nearly(rest)
    length = first = float(np.vdot(rest, way))
    for _ in range(_STEPS):
        if length <= _CLOSE * first:
            break
        asked = applied(way)
        step = np.float32(length / float(np.vdot(way, asked)))
        found += step * way
        rest -= step * asked
        better = nearly(rest)
        before, length = length, float(np.vdot(rest, better))
        way = better + np.float32(length / before) * way
    return found


def _bends(v: Floats) -> tuple[Floats, Floats, Floats]:
    """Second differences along rows, along columns and across."""
    along, down = np.diff(v, axis=1), np.diff(v, axis=0)
    return np.diff(along, axis=1), np.diff(down, axis=0), np.diff(along, axis=0)


def _bending_costs(v: Floats) -> list[Floats]:
    """What each second difference costs, and less for those of a jump; those across count twice."""
    return [
        np.float32(times * STIFFNESS) / np.sqrt(1 + (bend * bend).sum(-1, keepdims=True) / np.float32(JUMP**2))
        for times, bend in zip((1, 1, 2), _bends(v), strict=True)
    ]


def _unbent(v: Floats, costs: Sequence[Floats]) -> Floats:
    """The slope of half the cost of bending."""
    slope = np.zeros_like(v)
    row, column, across = (bend * cost for bend, cost in zip(_bends(v), costs, strict=True))
    slope[:, 2:] += row
    slope[:, 1:-1] -= 2 * row
    slope[:, :-2] += row
    slope[2:] += column
    slope[1:-1] -= 2 * column
    slope[:-2] += column
    slope[1:, 1:] += across
    slope[1:, :-1] -= across
    slope[:-1, 1:] -= across
    slope[:-1, :-1] += across
    return slope
