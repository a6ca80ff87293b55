"""Exposure brackets: several pictures of one still scene, merged into its light, or refused because they show two.

Merging is that of OpenCV (Debevec and Malik 1997; Robertson et al. 2003). It takes 8 bits; pictures of 16 bits whose
response is known are brought to 8 bits by the curve of sRGB, of which each exposure of a bracket needs no more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from ...engines.errors import UserError
from ..curves import light_of_codes, srgb_from_linear
from ..protocols import opencv
from .tonemap import Light

Merge = Literal["debevec", "robertson"]
Response = Literal["srgb", "linear", "estimated"]
MERGES: tuple[Merge, ...] = get_args(Merge)
RESPONSES: tuple[Response, ...] = get_args(Response)

Codes = npt.NDArray[Any]
"""A picture, uint8 or uint16 [H, W, 3], red first."""

_WHAT = "merging brackets"

_WELL = (20, 235)
"""Codes of 8 bits between which a place is well exposed, the limits included."""

_BLACK, _WHITE = 2, 253
"""Codes of 8 bits up to which a picture is all black, and from which on it is all white."""

_BURNT = 250
"""Code of 8 bits from which on a place counts as burnt out."""

_STILL = 0.25
"""In stops: by how much a place of a still scene may differ between two pictures in any case."""

_NOISE_SPREADS, _MOST_STILL = 4.0, 0.6
"""More than `_STILL` is noise up to so many standard deviations of the differences, but never more stops than these."""

_MOST_RESPONSE = 1e4
"""Light of a code over that of the middle code: no camera's response is as steep."""

_MOST_OFF = 0.7
"""In stops: by how much the pictures as a whole may be off their exposure times."""

_SPREAD_OF_MEDIAN = 1.4826
"""Standard deviation over the median of absolute differences, of the normal distribution."""

_BLUR = 5
"""Edge in pixels of what is averaged before places are compared, so that noise and sharpness count less."""

_LEAST_COMMON = 0.01
"""Share of places well exposed in both of two pictures below which they cannot be compared."""

_MOST_SHIFT_BITS, _LEAST_EDGE = 5, 16
"""The binary logarithm of the largest shift in pixels that is looked for, and the edge that a picture has at least when
it was halved as often."""


@dataclass(frozen=True)
class Merging:
    """How brackets are merged.

    Attributes:
        merge: One of `MERGES`.
        response: Of pictures to light: "srgb"; "linear"; or "estimated" from each bracket.
        align: Shifts of the camera by whole pixels are undone first.
        most_moved: Share of the places well exposed in two neighbours that may differ in them, 0 to 1.
    """

    merge: Merge = "debevec"
    response: Response = "srgb"
    align: bool = False
    most_moved: float = 0.03

    def __post_init__(self) -> None:
        for name, known in (("merge", MERGES), ("response", RESPONSES)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}: it is one of {', '.join(known)}")
        if not 0 <= self.most_moved <= 1:
            raise UserError(f"most_moved is {self.most_moved!r}: it is a share of a picture, from 0 to 1")


class Shown(NamedTuple):
    """A picture of a bracket: what it is called in messages, its exposure time in seconds, and itself."""

    name: str
    seconds: float
    codes: Codes


def merged(scene: str, shown: Sequence[Shown], settings: Merging | None = None) -> Light:
    """The light of a scene.

    Args:
        scene: What it is called in messages.
        shown: Two pictures or more of it, in any order.
        settings: None is `Merging()`.

    Returns:
        float32 [H, W, 3], linear, 0 or more; 1 is the white of the middle one of the pictures by exposure. Smaller
        than the pictures by the shifts that were undone.

    Raises:
        UserError: In one sentence, which picture of which scene is wrong: fewer than two, exposure times equal or not
            above 0, sizes that differ, all black or white, the scene moved; or OpenCV is not installed.
    """
    settings = settings or Merging()
    ordered = _checked(scene, shown)
    ordered, curve = _of_8_bits(ordered, settings.response)
    if settings.align:
        ordered = _aligned(ordered)
    times = np.array([each.seconds for each in ordered], np.float32)
    codes = [np.ascontiguousarray(each.codes) for each in ordered]
    if curve is None:
        curve = _estimated(scene, codes, times)
    _check_still(scene, ordered, curve, settings)
    cv2 = opencv(_WHAT)
    merge = cv2.createMergeDebevec() if settings.merge == "debevec" else cv2.createMergeRobertson()
    light = merge.process(codes, times, np.ascontiguousarray(curve[:, None]))
    return np.maximum(_with_ends(light, codes, times, curve) * (times[len(times) // 2] / curve[-1].mean()), 0)


def _with_ends(light: Light, codes: list[Codes], times: npt.NDArray[np.float32], curve: Light) -> Light:
    """With what one picture alone shows taken from that: highlights that are burnt out in all but the shortest
    exposure, and shadows that are black in all but the longest. OpenCV's merging lets all others count as well, which
    makes the brightest places of a scene darker than others."""
    for alone, others in ((0, codes[1] >= _BURNT), (-1, codes[-2] <= _BLACK)):
        own = np.stack([curve[codes[alone][..., colour], colour] for colour in range(3)], -1) / times[alone]
        light = np.where(others, own, light)
    return light


def _checked(scene: str, shown: Sequence[Shown]) -> list[Shown]:
    """By exposure time, the shortest first. Raises UserError: they are no bracket."""
    if len(shown) < 2:
        raise UserError(f"{scene} has {len(shown)} picture(s): a bracket has two or more, at different exposure times")
    for each in shown:
        if not (math.isfinite(each.seconds) and each.seconds > 0):
            raise UserError(f"{each.name} of {scene} has an exposure time of {each.seconds:g} s: it is above 0")
        _check_content(scene, each)
    ordered = sorted(shown, key=lambda each: each.seconds)
    for one, other in itertools.pairwise(ordered):
        if one.seconds * 1.001 >= other.seconds:
            raise UserError(
                f"{one.name} and {other.name} of {scene} have the same exposure time, {one.seconds:g} s: correct the "
                "times, or leave one of the two out"
            )
    first, kind = shown[0], shown[0].codes.dtype
    for each in shown[1:]:
        if each.codes.shape != first.codes.shape or each.codes.dtype != kind:
            raise UserError(
                f"{each.name} of {scene} is {_size(each.codes)}, but {first.name} is {_size(first.codes)}: all of a "
                "bracket are of one size and depth"
            )
    return ordered


def _size(codes: Codes) -> str:
    return f"{codes.shape[1]}x{codes.shape[0]} of {8 * codes.dtype.itemsize} bits"


def _check_content(scene: str, shown: Shown) -> None:
    unit = 257 if shown.codes.dtype == np.uint16 else 1
    low, high = int(shown.codes.min()), int(shown.codes.max())
    for what, wrong, way in (("black", high <= _BLACK * unit, "longer"), ("white", low >= _WHITE * unit, "shorter")):
        if wrong:
            raise UserError(
                f"{shown.name} of {scene} is all {what} and tells nothing of the scene: leave it out, or take it "
                f"with a {way} exposure"
            )


# ---- response ----------------------------------------------------------------------------------------------


def _of_8_bits(shown: list[Shown], response: Response) -> tuple[list[Shown], Light | None]:
    """Pictures of 8 bits, and what light their codes stand for, float32 [256, 3]; None where that is not known."""
    if shown[0].codes.dtype == np.uint16:
        shown = [each._replace(codes=_fewer_bits(each.codes, response)) for each in shown]
        response = "srgb" if response == "linear" else response
    if response == "estimated":
        return shown, None
    codes = torch.arange(256, dtype=torch.uint8)
    values = (light_of_codes(codes) if response == "srgb" else codes / 255).numpy().copy()
    values[0] = values[1] / 2  # black is not no light: Debevec's takes logarithms
    return shown, np.repeat(values[:, None], 3, 1).astype(np.float32)


def _fewer_bits(codes: Codes, response: Response) -> npt.NDArray[np.uint8]:
    share = codes.astype(np.float32) / 65535
    if response == "linear":
        share = srgb_from_linear(torch.from_numpy(share)).numpy()
    return np.rint(share * 255).astype(np.uint8)


def _estimated(scene: str, codes: list[Codes], times: npt.NDArray[np.float32]) -> Light:
    """What light codes stand for, float32 [256, 3], of Debevec's method. Raises UserError: it cannot be told."""
    curve = opencv(_WHAT).createCalibrateDebevec().process(codes, times)[:, 0]
    possible = bool(np.isfinite(curve).all()) and 0 < curve.min() <= curve.max() < _MOST_RESPONSE
    if not possible or not (np.diff(curve[_WELL[0] : _WELL[1] : 16].mean(1)) > 0).all():
        raise UserError(
            f"the response of the camera cannot be estimated from {scene}: set response to srgb or linear, or take "
            "more pictures of a scene with more tones"
        )
    return np.asarray(curve, np.float32)


# ---- shifts and motion -------------------------------------------------------------------------------------


def _shifts(shown: list[Shown]) -> list[tuple[int, int]]:
    """Of each picture, how far it has to be moved across and down to lie over the middle one."""
    cv2 = opencv(_WHAT)
    halvings = int(math.log2(max(1.0, min(shown[0].codes.shape[:2]) / _LEAST_EDGE)))
    align = cv2.createAlignMTB(min(_MOST_SHIFT_BITS, halvings))
    grey = [cv2.cvtColor(np.ascontiguousarray(each.codes), cv2.COLOR_RGB2GRAY) for each in shown]
    middle = grey[len(grey) // 2]
    found = [align.calculateShift(middle, each) for each in grey]
    return [(int(across), int(down)) for across, down in found]


def _aligned(shown: list[Shown]) -> list[Shown]:
    """Moved by whole pixels to lie over each other, without the borders that not all of them have."""
    shifts = _shifts(shown)
    height, width = shown[0].codes.shape[:2]
    left, top = (max(0, *(shift[axis] for shift in shifts)) for axis in (0, 1))
    right, bottom = (min(0, *(shift[axis] for shift in shifts)) for axis in (0, 1))
    return [
        each._replace(codes=each.codes[top - down : height + bottom - down, left - across : width + right - across])
        for each, (across, down) in zip(shown, shifts, strict=True)
    ]


def _check_still(scene: str, shown: list[Shown], curve: Light, settings: Merging) -> None:
    """Raises UserError: two neighbours differ by more than noise, or are off their exposure times."""
    for one, other in itertools.pairwise(shown):
        found = _compared(one, other, curve)
        if found is None:
            continue
        differ, common, offset = found
        if abs(offset) > _MOST_OFF:
            raise UserError(
                f"{other.name} of {scene} is {abs(offset):.1f} stops {'brighter' if offset > 0 else 'darker'} than "
                f"{one.name} and their exposure times tell: correct the times, or the response ({', '.join(RESPONSES)})"
            )
        moved = differ.sum() / common
        if moved > settings.most_moved:
            raise UserError(
                f"{scene} moves: {one.name} and {other.name} differ over {moved:.0%} of what both show well, most of "
                f"it {_where(differ)}; {_advice(shown, settings)}"
            )


def _compared(one: Shown, other: Shown, curve: Light) -> tuple[npt.NDArray[np.bool_], int, float] | None:
    """Where two pictures differ, [H, W], how many places both show well, and by how many stops the second is brighter
    than it should be; None where too few are well exposed in both."""
    cv2 = opencv(_WHAT)
    light, well = [], np.ones(one.codes.shape[:2], bool)
    for each in (one, other):
        colours = np.stack([curve[each.codes[..., colour], colour] for colour in range(3)], -1).sum(-1)
        light.append(cv2.blur(colours / np.float32(each.seconds), (_BLUR, _BLUR)))
        right = ((each.codes >= _WELL[0]) & (each.codes <= _WELL[1])).all(2)
        well &= cv2.erode(right.astype(np.uint8), np.ones((_BLUR, _BLUR), np.uint8)).astype(bool)
    common = int(well.sum())
    if common < max(1, _LEAST_COMMON * well.size):
        return None
    stops = np.log2(light[1] / light[0])
    offset = float(np.median(stops[well]))
    away = np.abs(stops - offset)
    noise = _SPREAD_OF_MEDIAN * float(np.median(away[well]))
    return well & (away > min(max(_STILL, _NOISE_SPREADS * noise), _MOST_STILL)), common, offset


def _where(differ: npt.NDArray[np.bool_]) -> str:
    """The box around the largest connected part of what differs."""
    _, _, boxes, _ = opencv(_WHAT).connectedComponentsWithStats(differ.astype(np.uint8))
    left, top, width, height, _ = (int(value) for value in boxes[1:][np.argmax(boxes[1:, -1])])
    return f"in columns {left} to {left + width - 1}, rows {top} to {top + height - 1}"


def _advice(shown: list[Shown], settings: Merging) -> str:
    most = max(abs(step) for shift in _shifts(shown) for step in shift)
    if most and not settings.align:
        return f"the camera seems to have moved by up to {most} pixels, which align: true undoes; or leave it out"
    return "merging is for still scenes: leave it out, or leave out the pictures that moved"
