"""What is measured in pictures, by the kind of set: numbers by name, None where there is no such number."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...engines.chart import chart_score
from ..metrics.edge import mtf50
from ..metrics.flicker import ChangingLightMeter, Flicker, FlickerMeter
from ..metrics.histogram import Floats
from ..metrics.likeness import LikenessMeter
from ..metrics.lpips import Lpips
from ..metrics.no_reference import Quality
from ..metrics.noise import flat_blocks, flat_noise
from ..protocols import PROTOCOLS, Aligned, measured
from .frames import Frame, Picture
from .settings import AnySet, ChartSet, EdgeSet, FlickerSet, HdrSet, UnpairedSet

Measures = dict[str, float | None]


class Meter(Protocol):
    """Measures the pictures of one developer, frame by frame.

    Attributes:
        notes: What could not be measured, a sentence each.
    """

    notes: list[str]

    def add(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        """Measure a picture; `guide` is the classic engine's. Returns what the picture has by itself, maybe nothing."""
        ...

    def result(self) -> Measures:
        """Of all pictures so far."""
        ...


def make_meter(
    settings: AnySet,
    lpips: Lpips | None = None,
    quality: Mapping[str, Quality] | None = None,
    photographs: Floats | None = None,
) -> Meter:
    """What measures pictures of such a set.

    Args:
        settings: The set.
        lpips: Measured besides where there are references.
        quality: By name, measured besides where pictures are scored, or compared with photographs.
        photographs: Of sets of the kind unpaired: their `mean_histogram`.
    """
    if isinstance(settings, UnpairedSet):
        if photographs is None:
            raise ValueError("pictures without references are compared with photographs; give their colours")
        return _Likenesses(photographs, quality or {})
    if isinstance(settings, EdgeSet):
        return _Edge()
    if isinstance(settings, FlickerSet):
        return _ChangingLight() if settings.light_stops else _Flicker()
    if isinstance(settings, ChartSet):
        return _Chart()
    return (_HdrScores if isinstance(settings, HdrSet) else _Scores)(settings.protocol, lpips, quality or {})


def means(rows: Sequence[Measures]) -> Measures:
    """The mean of each measure over the rows that have it."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name] += [] if value is None else [value]
    return {name: float(np.mean(found)) if found else None for name, found in values.items()}


class _Each:
    """A mean over pictures that are measured one by one."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._rows: list[Measures] = []

    def add(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        """See `Meter.add`."""
        try:
            row = self._measured(frame, picture, guide)
        except ValueError as error:  # the picture shows nothing that can be measured
            self.notes.append(f"{frame.name}: {error}")
            row = {}
        self._rows.append(row)
        return row

    def result(self) -> Measures:
        """See `Meter.result`."""
        return means(self._rows)

    def _measured(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        raise NotImplementedError


class _Looks(_Each):
    """Besides, how good pictures look by themselves."""

    def __init__(self, quality: Mapping[str, Quality]) -> None:
        super().__init__()
        self._quality = quality

    def _looks(self, frame: Frame, picture: Picture) -> Measures:
        """By itself, without a reference."""
        row: Measures = {}
        for name, quality in self._quality.items():
            try:
                row[name] = quality(picture)
            except ValueError as error:
                self.notes.append(f"{frame.name}: {error}")
                row[name] = None
        return row


class _Scores(_Looks):
    """How close pictures are to their references, and the noise that is left where those are flat."""

    def __init__(self, protocol: str, lpips: Lpips | None, quality: Mapping[str, Quality]) -> None:
        super().__init__(quality)
        self._align, self._lpips = PROTOCOLS[protocol], lpips

    def _measured(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        if frame.reference is None:
            raise ValueError("there is no reference")
        pair = self._align(picture, frame.reference, guide)
        score = measured(pair, self._lpips)
        row: Measures = {"psnr": score.psnr, "ssim": score.ssim, "ms_ssim": score.ms_ssim, "lpips": score.lpips}
        if pair.counts is not None:
            row["counted"] = score.counted
        row = {name: value for name, value in row.items() if value is not None}
        return row | self._noise(frame, pair) | self._looks(frame, picture)

    def _noise(self, frame: Frame, pair: Aligned) -> Measures:
        try:
            left = flat_noise(pair.shown, flat_blocks(pair.reference))
        except ValueError as error:
            self.notes.append(f"{frame.name}: {error}")
            return {"noise_luma": None, "noise_chroma": None}
        return {"noise_luma": left.luma, "noise_chroma": left.chroma}


class _HdrScores(_Scores):
    """These, and what tells how a scene's range is shown."""

    def _measured(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        from .hdr import measured_hdr

        return super()._measured(frame, picture, guide) | measured_hdr(frame, picture)


class _Likenesses(_Looks):
    """How far the colours of pictures are from those of photographs, and whether they show what classic ones do."""

    def __init__(self, photographs: Floats, quality: Mapping[str, Quality]) -> None:
        super().__init__(quality)
        self._meter = LikenessMeter(photographs)

    def _measured(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        return self._meter.add(picture, guide)._asdict() | self._looks(frame, picture)

    def result(self) -> Measures:
        """See `Meter.result`: the colours are those of the whole set, and not the mean over its pictures."""
        found = super().result()
        return found | self._meter.result()._asdict() if any(self._rows) else found


class _Chart(_Each):
    """How far the colours of charts are off."""

    def _measured(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        if frame.corners is None:
            raise ValueError("there is no chart")
        score = chart_score(picture, frame.corners)
        return {"ciede2000": score.mean, "ciede2000_worst": score.worst[1]}


class _Edge:
    """Sharpness of the mean picture of each scene: noise would pass for detail."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._sums: dict[str, npt.NDArray[Any]] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)

    def add(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        """See `Meter.add`: one picture has nothing by itself."""
        self._sums[frame.scene] = self._sums.get(frame.scene, 0) + picture.astype(np.float64)
        self._counts[frame.scene] += 1
        return {}

    def result(self) -> Measures:
        """See `Meter.result`: of each direction, and their mean."""
        found = {f"mtf50_{scene}": self._sharpness(scene) for scene in self._sums}
        values = [value for value in found.values() if value is not None]
        return {"mtf50": float(np.mean(values)) if len(values) == len(found) else None, **found}

    def _sharpness(self, scene: str) -> float | None:
        try:
            return mtf50(self._sums[scene] / self._counts[scene] / 255)
        except ValueError as error:
            self.notes.append(f"{scene}: {error}")
            return None


class _Flicker:
    """What changes from frame to frame."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._meter = FlickerMeter()

    def add(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        """See `Meter.add`: one picture has nothing by itself."""
        self._meter.add(picture)
        return {}

    def result(self) -> Measures:
        """See `Meter.result`."""
        return _flickering(self._meter.result())


class _ChangingLight:
    """What changes among frames of equal light, and jumps from one light to the next."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._meter = ChangingLightMeter()

    def add(self, frame: Frame, picture: Picture, guide: Picture) -> Measures:
        """See `Meter.add`: one picture has nothing by itself."""
        self._meter.add(picture, frame.light)
        return {}

    def result(self) -> Measures:
        """See `Meter.result`."""
        flicker = self._meter.result()
        return _flickering(flicker) | {"flicker_jump": flicker.jump}


def _flickering(flicker: Flicker) -> Measures:
    return {"flicker_colour": flicker.colour, "flicker_edges": flicker.edges, "flicker_pixels": flicker.pixels}


def spread(rows: Sequence[Measures], name: str) -> float | None:
    """How far a measure differs among rows: the largest less the smallest."""
    values = [row.get(name) for row in rows]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return max(known) - min(known) if len(known) == len(rows) and known else None
