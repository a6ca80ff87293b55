"""`isp-calibrate colour`: white balance and colour matrix from a frame with a ColorChecker Classic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat, pack
from ...engines.chart import NEUTRAL, PATCHES, REFERENCE_LAB, light_score, patch_light, read_charts
from ...engines.cie import Floats
from ...engines.errors import UserError
from ...engines.quality import classic_pictures
from ...engines.white_balance import checked_gains
from .finder import chart_at, find_chart
from .frames import Taken
from .matrix import differences, fit_matrix
from .measure import MOST_CLIPPED, cells_of, patch_means

Picture = npt.NDArray[np.uint8]

_GREYS = np.arange(19, 23)  # not the white one, which may be clipped, nor the black one, which is mostly noise
_MOST_LOST = 6
_LEAST_LIGHT = 0.03  # of the brightest patch, in the white level
_MOST_VEIL = 0.03


@dataclass(frozen=True, eq=False)
class ColourResult:
    """What the chart says.

    Attributes:
        corners: Of the patches, [24, 4, 2] (x, y) in pixels.
        usable: Which patches are not clipped, [24].
        white_balance: Gains of R, G, B, green 1.
        matrix: Balanced camera RGB to linear sRGB, [3, 3].
        before, after: CIEDE2000 of the patches in the pictures of the classic engine, [24], with white balance alone
            and with the matrix.
        veil: Light that lies over all patches, as haze and flare do, in parts of white.
        without_veil: Mean CIEDE2000 after, of what is left of the patches without it; None where that was not asked.
        gain: What the pictures' light is multiplied by to be as bright as the references.
        pictures: Of the classic engine, before and after.
    """

    corners: Floats
    usable: npt.NDArray[np.bool_]
    white_balance: Floats
    matrix: Floats
    before: Floats
    after: Floats
    veil: float
    without_veil: float | None
    gain: float
    pictures: tuple[Picture, Picture]

    def mean(self, each: Floats) -> float:
        """Of the usable patches."""
        return float(each[self.usable].mean())

    def worst(self, each: Floats) -> tuple[str, float]:
        """Of the usable patches."""
        place = int(np.where(self.usable, each, -1).argmax())
        return PATCHES[place], float(each[place])


def corners_of(taken: Taken, charts: Path | None, centres: Sequence[float] | None) -> Floats:
    """Where the patches are: as a file of charts says, as the user says, or as they are found.

    Raises:
        UserError: The file says nothing of the frame, the points bound no chart, or no chart is found.
    """
    if charts is not None:
        return _charted(charts, taken.paths[0])
    if centres is not None:
        return chart_at(centres)
    return find_chart(cells_of(taken.samples, taken.raw_format))


def calibrate_colour(taken: Taken, corners: Floats, *, haze: bool = False) -> ColourResult:
    """White balance and matrix under which the chart has its colours.

    Args:
        taken: The frame.
        corners: Of the patches, [24, 4, 2] (x, y) in pixels.
        haze: Whether both are fitted to what is left of the patches without the light that lies over all of them.

    Raises:
        UserError: The chart is not all in the frame, clipped, or too dark.
    """
    try:
        means, clipped = patch_means(cells_of(taken.samples, taken.raw_format), corners)
    except ValueError as error:
        raise UserError(f"the chart cannot be measured: {error}") from error
    usable = clipped < MOST_CLIPPED
    _require_measurable(means, usable)
    veil = _veil(means, usable)
    if haze:
        means = means - veil.offset
    greys = means[_GREYS[usable[_GREYS]]].sum(0)
    if greys.min() <= 0:
        raise UserError("the grey patches of the chart are black in one colour: mend the black level, or light it more")
    gains = checked_gains(tuple((greys[1] / greys).tolist())).astype(np.float64)
    matrix = fit_matrix(means * gains, usable)
    matrix = np.round(matrix, 4)
    matrix[np.diag_indices(3)] += 1 - matrix.sum(1)
    matrix, gains = np.round(matrix, 4), np.round(gains, 4)  # as few digits as a file should have
    raw = pack(taken.samples[0], taken.raw_format)
    pictures = [_developed(raw, taken.raw_format, gains, of) for of in (np.eye(3), matrix)]
    before, after = (light_score(patch_light(picture, corners), usable) for picture in pictures)
    return ColourResult(
        corners,
        usable,
        gains,
        matrix,
        before.each,
        after.each,
        float((veil.offset / veil.white).mean()),
        float(differences(means * gains, matrix, usable)[usable].mean()) if haze else None,
        after.gain,
        (pictures[0], pictures[1]),
    )


def report(result: ColourResult) -> Iterator[str]:
    """Lines for the terminal."""
    yield f"{'patch':16} before  after"
    for name, first, last, good in zip(PATCHES, result.before, result.after, result.usable, strict=True):
        yield f"{name:16} {first:6.2f} {last:6.2f}" + ("" if good else "  clipped, left out")
    named = " ".join(f"{gain:.3f}" for gain in result.white_balance)
    yield f"white balance    {named}"
    for place, row in enumerate(result.matrix):
        yield f"{'' if place else 'colour matrix':16} " + " ".join(f"{entry:7.3f}" for entry in row)
    (name_1, worst_1), (name_2, worst_2) = result.worst(result.before), result.worst(result.after)
    yield (
        f"CIEDE2000        mean {result.mean(result.before):.2f} before, {result.mean(result.after):.2f} after; "
        f"worst {worst_1:.2f} ({name_1}) before, {worst_2:.2f} ({name_2}) after"
    )
    if result.without_veil is not None:
        yield f"without haze     mean {result.without_veil:.2f} after"
    elif result.veil > _MOST_VEIL:
        yield (
            f"note: {result.veil:.0%} of white lies over the whole chart as haze or flare does, which no matrix takes "
            "away: shade the lens, or mend the black level, and take another, or leave it out of the fit (--haze)"
        )


def _charted(path: Path, frame: Path) -> Floats:
    charts = read_charts(path)
    named = [name for name in charts if (path.parent / name).resolve() == frame.resolve()]
    named = named or [name for name in charts if Path(name).name == frame.name]
    if len(named) != 1:
        raise UserError(f"{path} does not say where the chart is in {frame}; leave it out, or give --corners")
    return charts[named[0]]


def _require_measurable(means: Floats, usable: npt.NDArray[np.bool_]) -> None:
    lost = [PATCHES[place] for place in np.flatnonzero(~usable)]
    if len(lost) > _MOST_LOST or np.count_nonzero(usable[_GREYS]) < 2:
        raise UserError(f"{len(lost)} of 24 patches are clipped ({', '.join(lost)}): take the chart with less exposure")
    if means.max() < _LEAST_LIGHT:
        raise UserError(
            f"the chart is too dark: its brightest patch is at {max(0.0, means.max()):.1%} of the white level; take it "
            "with more light or exposure"
        )


def _developed(raw: npt.NDArray[np.uint8], fmt: RawFormat, gains: Floats, matrix: Floats) -> Picture:
    return classic_pictures([raw], fmt, gains.astype(np.float32)[None], matrix.astype(np.float32))[0]


class _Veil(NamedTuple):
    offset: Floats
    white: Floats


def _veil(means: Floats, usable: npt.NDArray[np.bool_]) -> _Veil:
    """What lines through the neutral patches, one for each colour, say of no light and of white: [3] each, no light as
    0 where it is below."""
    greys = np.arange(24)[NEUTRAL][usable[NEUTRAL]]
    wanted = ((REFERENCE_LAB[greys, 0] + 16) / 116) ** 3
    slope, offset = np.polyfit(wanted, means[greys], 1, w=1 / (0.05 + wanted))
    return _Veil(np.maximum(offset, 0), slope + offset)
