"""One pair, from two cameras' files to a frame with a reference that lies on it, a mask, and a record of how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.quality import grey_world
from ...engines.white_balance import HIGHEST_GAIN, LOWEST_GAIN
from ..data.raw_pair import Gains, RawPair, Samples
from . import checks
from .flow import Flow
from .look import Look, developed, mapped, matched
from .mask import agreement, alike, consistent, in_phase, inside, warp
from .refine import places
from .register import MULTIPLE, Region, Registration, common, project, reduced, register
from .settings import AlignSettings

if TYPE_CHECKING:
    from ..losses.phase import PhaseMask

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95, "largest": 1.0}
"""Of the lengths of displacements, for the record."""

BINS, LONGEST = 32, 16.0
"""Of the histogram of these lengths: how many, up to so many pixels; what is longer counts in the last."""


@dataclass(eq=False)
class Record:
    """What became of a pair, for the record: `facts` are JSON values."""

    name: str
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class AlignedPair:
    """A pair whose reference lies on its frame, H x W pixels.

    Attributes:
        samples: uint16 [H, W], DN of the format.
        raw_format: Of the samples.
        reference: uint8 [H, W, 3], sRGB.
        mask: bool [H, W], where the reference can be relied on.
        shown: uint8 [H, W, 3], the frame in the look of the reference; developed where references take its colours.
        before: uint8 [H, W, 3], the reference before flow, in its own colours.
        flow: float32 [H, W, 2], in pixels.
        pair: What was given: its name, and what the data set tells of it.
        region: What was cut out of the frame.
        record: How it came about.
    """

    samples: Samples
    raw_format: RawFormat
    reference: Picture
    mask: Bools
    shown: Picture
    before: Picture
    flow: Floats
    pair: RawPair
    region: Region
    record: Record


class Aligner:
    """Aligns pairs, one at a time or several in threads.

    Args:
        settings: How.
        flow: What finds displacements.
        look: A trained mapper; None develops and matches colours (see `look`).
        phases: Tells which blocks count; None counts all.
        step: Called between the steps of a pair; what it raises ends the work.
    """

    def __init__(
        self,
        settings: AlignSettings,
        flow: Flow,
        look: Look | None = None,
        phases: PhaseMask | None = None,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._flow, self._look, self._phases, self._step = settings, flow, look, phases, step

    def align(self, pair: RawPair, record: Record | None = None) -> AlignedPair:
        """Align a pair; what is found on the way goes into the record.

        Raises:
            Refused: Nothing should be learned from it.
        """
        record = record or Record(pair.name)
        gains = _gains(pair)
        picture = developed(pair.samples, pair.raw_format, gains)
        checks.check_shown(picture, "the frame")
        checks.check_shown(pair.target, "the reference")
        self._step()
        registration = self._register(picture, pair, record)
        height, width = pair.samples.shape
        source, homography = reduced(pair.target, registration.homography, height, width)
        region = common(homography, height, width, source.shape[:2])
        if region is None:
            raise checks.Refused(f"frame and reference have no part of {MULTIPLE}x{MULTIPLE} pixels in common")
        record.facts["region"] = list(region)
        return self._align(pair, gains, picture, region, _Reference(source, homography, region), record)

    def _register(self, picture: Picture, pair: RawPair, record: Record) -> Registration:
        settings = self._settings
        if settings.registered == "yes" and pair.target.shape != picture.shape:
            frame, reference = (f"{shape[1]}x{shape[0]}" for shape in (picture.shape, pair.target.shape))
            raise checks.Refused(f"frame and reference are said to be registered, but are {frame} and {reference}")
        found = register(picture, pair.target, least=settings.least_inliers, registered=settings.registered)
        record.facts |= {
            "homography": found.homography.tolist(),
            "matches": found.matches,
            "inliers": found.inliers,
            "grid_kept": found.kept,
        }
        if not found.usable:
            raise checks.unregistered(found.matches, found.inliers, settings.least_inliers)
        self._step()
        return found

    def _align(
        self, pair: RawPair, gains: Gains, picture: Picture, region: Region, source: _Reference, record: Record
    ) -> AlignedPair:
        settings = self._settings
        fmt = _of_region(pair.raw_format, region)
        samples = np.ascontiguousarray(region.of(pair.samples))
        before = source.at(np.zeros((region.height, region.width, 2), np.float32))
        checks.check_phase(samples, fmt, gains, before)
        seen = region.of(picture) if self._look is None else mapped(self._look, samples, fmt, gains, before)
        shown = matched(seen, before) if self._look is None else seen
        self._step()
        there = self._flow(before, shown)
        self._step()
        back = self._flow(shown, before)
        self._step()
        reference = source.at(there)
        shown = matched(seen, reference) if self._look is None else seen
        counts = source.inside(there) & consistent(there, back, settings.consistency, settings.miss)
        record.facts |= {"in_frame_and_consistent": float(counts.mean())}
        counts &= alike(shown, reference)
        if self._phases is not None:
            self._step()
            kept = in_phase(self._phases, shown, reference)
            record.facts |= {"in_phase": float(kept.mean())}
            counts &= kept
        agrees = agreement(shown, reference, counts)
        record.facts |= {"valid": float(counts.mean()), "agreement": agrees, "flow": _statistics(there, counts)}
        checks.check_valid(agrees, float(counts.mean()), settings.least_agreement, settings.least_valid)
        if settings.colours == "frame":
            shown = region.of(picture).astype(np.float32) * np.float32(1 / 255)
            reference = _codes(matched(reference, region.of(picture)))
        codes = _codes(shown)
        return AlignedPair(samples, fmt, reference, counts, codes, before, there, pair, region, record)


@dataclass(frozen=True, eq=False)
class _Reference:
    """A reference, and how places of a region of the frame come to those of it."""

    picture: Picture
    homography: npt.NDArray[np.float64]
    region: Region

    def at(self, flow: Floats) -> Picture:
        """What lies at the places of the region, displaced by a flow [H, W, 2]: one interpolation for all."""
        return warp(self.picture, *self._places(flow))

    def inside(self, flow: Floats) -> Bools:
        return inside(*self._places(flow), *self.picture.shape[:2])

    def _places(self, flow: Floats) -> tuple[Floats, Floats]:
        x, y = places(flow)
        return project(self.homography, x + np.float32(self.region.left), y + np.float32(self.region.top))


def _of_region(fmt: RawFormat, region: Region) -> RawFormat:
    """The format of a region of a frame, whose samples have 16 bits in memory (8 for formats of 8 bits)."""
    return RawFormat(region.width, region.height, fmt.pixel_format.rstrip("p"), fmt.black_level, fmt.white_level)


def _gains(pair: RawPair) -> Gains:
    """White balance, as in training: what the data set tells, else the grey world of the whole frame."""
    return grey_world(pair.samples, pair.raw_format) if pair.gains is None else usable(pair.gains)


def usable(gains: Gains) -> Gains:
    """Gains that a data set tells, as engines limit them: float32 [3]."""
    return np.clip(gains, LOWEST_GAIN, HIGHEST_GAIN)


def _codes(picture: Floats) -> Picture:
    return np.rint(picture * 255).astype(np.uint8)


def _statistics(flow: Floats, counts: Bools) -> dict[str, Any]:
    """Lengths of the displacements of the places that count, in pixels."""
    lengths = np.hypot(flow[..., 0], flow[..., 1])[counts]
    if not lengths.size:
        return {}
    values = np.quantile(lengths, list(QUANTILES.values()))
    bars, _ = np.histogram(np.minimum(lengths, np.nextafter(LONGEST, 0)), BINS, (0, LONGEST))
    mean = flow[counts].mean(axis=0)
    return {
        **{name: float(value) for name, value in zip(QUANTILES, values, strict=True)},
        "mean": [float(value) for value in mean],
        "histogram": (bars / lengths.size).round(6).tolist(),
    }
