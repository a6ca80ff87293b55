"""`isp-calibrate dark`, `flat` and `grey`: the sensor itself, and the light, without a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...engines.cie import Floats
from ...engines.errors import UserError
from ...engines.flat_field import SITES, site_names
from ...engines.white_balance import CLIPPED, checked_gains
from .flat import FittedField, fit_flat_field
from .frames import Taken
from .measure import MOST_CLIPPED, cells_of
from .outliers import local_level, outliers, sites, spread

FEWEST_FRAMES = 4

LEAST_HOT = 2.0
"""DN that a pixel must be brighter or darker than its surroundings in the dark to count as a defect."""

LEAST_ODD = 0.1
"""The same under even light, in parts of the surroundings."""

_MOST_DARK = 0.25  # of the range, beyond which nobody's black level is
_LEAST_LIGHT = 0.05
_MOST_UNEVEN = 0.25

Defects = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class DarkResult:
    """What frames without light say.

    Attributes:
        black_level: Mean of the four sites, DN, to hundredths.
        sites: Mean of each by its colour, R, Gr, Gb, B, DN.
        read_noise: Standard deviation over time of a typical pixel, DN.
        pattern: Standard deviation of the pixels' means from each other, DN, what is left of the noise over time taken
            off.
        cut_off: Part of the samples that are 0.
        defects: (x, y) of pixels that are brighter, darker or noisier than others.
    """

    black_level: float
    sites: dict[str, float]
    read_noise: float
    pattern: float
    cut_off: float
    defects: Defects


def calibrate_dark(taken: Taken) -> DarkResult:
    """Black level, read noise and defects of frames that were taken with the cap on.

    Raises:
        UserError: There are too few frames, or light fell on them.
    """
    _require_several(taken)
    fmt, frames = taken.raw_format, len(taken.samples)
    mean, variance = _moments(taken)
    level = float(np.median(mean))
    if level > _MOST_DARK * fmt.white_level:
        raise UserError(f"these frames are not dark, at {level:.0f} DN in the median: put the cap on, and take others")
    deviation = np.empty_like(mean)
    for row, column, site in sites(mean):
        deviation[row::2, column::2] = site - local_level(site)
    what = "take frames with the cap on, all with one exposure and gain"
    found = set(outliers(deviation, LEAST_HOT, what))
    noise = np.sqrt(variance)
    typical = float(np.median(noise))
    found |= set(outliers(noise - typical, max(LEAST_HOT, 4 * typical), what))
    good = np.ones(mean.shape, bool)
    for x, y in found:
        good[y, x] = False
    levels = [float(site[use].mean()) for (_, _, site), (_, _, use) in zip(sites(mean), sites(good), strict=True)]
    read_noise = float(np.sqrt(variance[good].mean()))
    pattern = float(np.sqrt(max(0.0, spread(deviation[good]) ** 2 - read_noise**2 / frames)))
    cut_off = float(np.mean(taken.samples == 0))
    names = site_names(fmt)
    named = {name: round(levels[names.index(name)], 2) for name in SITES}
    return DarkResult(round(float(np.mean(levels)), 2), named, read_noise, pattern, cut_off, _in_order(found))


def report_dark(result: DarkResult) -> Iterator[str]:
    """Lines for the terminal."""
    each = ", ".join(f"{name} {level:.2f}" for name, level in result.sites.items())
    yield f"black level      {result.black_level:.2f} DN ({each})"
    yield f"read noise       {result.read_noise:.2f} DN, fixed pattern {result.pattern:.2f} DN"
    yield f"defect pixels    {len(result.defects)}{_listed(result.defects)}"
    if result.cut_off > MOST_CLIPPED:
        yield (
            f"note: {result.cut_off:.0%} of the samples are 0, so the noise is cut off and the black level too high: "
            "raise the camera's BlackLevel, and take the frames again"
        )


@dataclass(frozen=True, eq=False)
class FlatResult:
    """What frames of an evenly lit surface say.

    Attributes:
        defects: (x, y) of pixels that are brighter or darker than those around them.
        shading: Light in the darkest corner in parts of the brightest place, by colour R, G, B.
        field: What makes up for it.
    """

    defects: Defects
    shading: dict[str, float]
    field: FittedField


def calibrate_flat(taken: Taken) -> FlatResult:
    """Pixels that do not follow the light, and the flat field, of frames of an evenly lit surface.

    Raises:
        UserError: There are too few frames, or they are too dark, clipped, shaded beyond what gains make up for, or
            show something else.
    """
    _require_several(taken)
    fmt = taken.raw_format
    mean = (_moments(taken)[0] - fmt.black_level) / (fmt.white_level - fmt.black_level)
    _require_exposed(taken, float(np.median(mean)))
    ratio = np.empty_like(mean)
    corner: dict[str, list[float]] = {}
    for (row, column, site), colour in zip(sites(mean), fmt.cfa, strict=True):
        level = local_level(site)
        ratio[row::2, column::2] = site / np.maximum(level, 1e-6) - 1
        corners = [float(level[y, x]) for y in (0, -1) for x in (0, -1)]
        corner.setdefault(colour, []).append(min(corners) / float(level.max()))
    if spread(ratio) > _MOST_UNEVEN:
        raise UserError("the surface is not even: show a white wall or a diffuser, out of focus, and nothing else")
    found = outliers(ratio, LEAST_ODD, "show a white wall or a diffuser, out of focus, and nothing else")
    shading = {colour: float(np.mean(corner[colour])) for colour in "RGB"}
    good = np.ones(mean.shape, bool)
    for x, y in found:
        good[y, x] = False
    field = fit_flat_field(mean, good, fmt)
    return FlatResult(found, {colour: round(value, 3) for colour, value in shading.items()}, field)


def report_flat(result: FlatResult) -> Iterator[str]:
    """Lines for the terminal."""
    each = ", ".join(f"{colour} {value:.0%}" for colour, value in result.shading.items())
    yield f"darkest corner   {each} of the brightest place"
    mesh, left = result.field.mesh, result.field.left
    each = ", ".join(f"{colour} {value:.2%}" for colour, value in left.items())
    yield f"flat field       {mesh.shape[1]}x{mesh.shape[2]} gains up to {mesh.max():.2f}; even after it within {each}"
    yield f"defect pixels    {len(result.defects)}{_listed(result.defects)}"


@dataclass(frozen=True, eq=False)
class GreyResult:
    """What a grey card says.

    Attributes:
        area: Where it was looked at: x, y, width and height in pixels.
        white_balance: Gains of R, G, B, green 1.
        light: Mean light of the area by colour R, G, B, in parts of the white level.
        uneven: Standard deviation of the colour over the area, in parts of it: noise, and what is no card.
    """

    area: tuple[int, int, int, int]
    white_balance: Floats
    light: Floats
    uneven: float


def calibrate_grey(taken: Taken, area: Sequence[int] | None) -> GreyResult:
    """Gains under which an area, x, y, width and height in pixels, is grey; None is the middle of the frame.

    Raises:
        UserError: The area is not in the frame, too dark, clipped, or of several colours.
    """
    fmt = taken.raw_format
    x, y, width, height = area or (fmt.width * 3 // 8, fmt.height * 3 // 8, fmt.width // 4, fmt.height // 4)
    if min(x, y) < 0 or min(width, height) < 8 or x + width > fmt.width or y + height > fmt.height:
        raise UserError(
            f"an area of {width}x{height} at {x}, {y} is not all in the frame of {fmt.width}x{fmt.height}, or smaller "
            "than 8x8: give another --area"
        )
    cells = cells_of(taken.samples, fmt)
    at = np.s_[y // 2 : (y + height) // 2, x // 2 : (x + width) // 2]
    if (clipped := float(cells.clipped[at].mean())) > MOST_CLIPPED:
        raise UserError(f"{clipped:.0%} of the area are clipped: take the card with less exposure")
    light = cells.light[at].mean((0, 1))
    if light.max() < _LEAST_LIGHT or light.min() <= 0:
        raise UserError(f"the area is too dark, at {light.max():.1%} of the white level: take the card with more light")
    blocks = _block_means(cells.light[at])
    share = blocks / blocks.sum(-1, keepdims=True)
    uneven = float((share.std((0, 1)) / share.mean((0, 1))).max())
    if uneven > _MOST_UNEVEN:
        raise UserError("the area holds several colours: let the card fill it, or give another --area")
    gains = checked_gains(tuple((light[1] / light).tolist())).astype(np.float64)
    return GreyResult((x, y, width, height), np.round(gains, 4), light, uneven)


def report_grey(result: GreyResult) -> Iterator[str]:
    """Lines for the terminal."""
    x, y, width, height = result.area
    yield f"area             {width}x{height} at {x}, {y}"
    each = ", ".join(f"{colour} {value:.1%}" for colour, value in zip("RGB", result.light, strict=True))
    yield f"light            {each} of the white level, colour even within {result.uneven:.1%}"
    yield f"white balance    {' '.join(f'{gain:.3f}' for gain in result.white_balance)}"


# ---- parts -----------------------------------------------------------------------------------------------------


def _require_several(taken: Taken) -> None:
    if (count := len(taken.samples)) < FEWEST_FRAMES:
        raise UserError(
            f"{count} {'frame is' if count == 1 else 'frames are'} too few to tell pixels from noise: give "
            f"{FEWEST_FRAMES} or more, such as isp-stream --snap takes"
        )


def _require_exposed(taken: Taken, level: float) -> None:
    fmt = taken.raw_format
    high = fmt.black_level + CLIPPED * (fmt.white_level - fmt.black_level)
    if (clipped := float(np.mean(taken.samples >= high))) > MOST_CLIPPED:
        raise UserError(f"{clipped:.0%} of the samples are clipped: take the surface with less exposure")
    if level < _LEAST_LIGHT:
        raise UserError(f"the surface is too dark, at {level:.1%} of the white level: take it with more light")


def _moments(taken: Taken) -> tuple[Floats, Floats]:
    """Mean and variance over time of each pixel, [H, W]; frame by frame, which needs the memory of a few."""
    frames = taken.samples
    mean = frames.mean(0, dtype=np.float64)
    variance = np.zeros_like(mean)
    for frame in frames:
        variance += (frame - mean) ** 2
    return mean, variance / max(1, len(frames) - 1)


def _block_means(light: Floats) -> Floats:
    """Means of 4x4 parts of an area [h, w, 3], so that noise does not count for colour: [4, 4, 3]."""
    rows = [part.mean(0) for part in np.array_split(light, 4, axis=0)]
    return np.stack([np.stack([part.mean(0) for part in np.array_split(row, 4, axis=0)]) for row in rows])


def _in_order(found: set[tuple[int, int]]) -> Defects:
    return sorted(found, key=lambda place: (place[1], place[0]))


def _listed(defects: Defects) -> str:
    shown = ", ".join(f"({x}, {y})" for x, y in defects[:6])
    return f": {shown}{', ...' if len(defects) > 6 else ''}" if defects else ""
