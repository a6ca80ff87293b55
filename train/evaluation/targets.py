"""Sets that are measured without scores: charts, slanted edges, and scenes that stand still."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...engines.bayer import RawFormat, pack, unpack
from ...engines.chart import patch_light, read_charts
from ...engines.errors import UserError
from ...engines.reference import srgb_curve
from ..curves import linear_from_srgb, srgb_from_linear
from ..data.photos import read_photo
from ..data.raw_pair import camera_row, read_frame
from ..data.unprocess import draw
from ..metrics.edge import slanted_edge
from ..metrics.flicker import changing_light
from .frames import (
    Bytes,
    Frame,
    Gains,
    engine_gains,
    generator,
    matrix_of,
    middle,
    rendered,
    taken,
    to_tensor,
    usable_gains,
)
from .settings import ChartSet, EdgeSet, FlickerSet

GREYS = slice(19, 23)
"""Neutral patches that white balance is taken from: not the white one, which may be clipped, nor the black one."""


class ChartFrames:
    """Raw frames of charts. See `FrameSet`."""

    phases = ("",)

    def __init__(self, settings: ChartSet) -> None:
        """Raises UserError: what says where the patches are cannot be read, or names no frames."""
        self._settings = settings
        self._charts = read_charts(settings.charts)
        if not self._charts:
            raise UserError(f"{settings.charts} names no frames of charts; give one that does")
        self.matrix = None if settings.colour_matrix is None else np.array(settings.colour_matrix, np.float32)

    def frames(self, phase: str = "", most: int | None = None) -> Iterator[Frame]:
        """See `FrameSet.frames`. Raises UserError: a frame is missing or damaged, or a chart is not in it."""
        settings = self._settings
        folder = settings.charts.parent if settings.folder is None else settings.folder
        for name, corners in list(self._charts.items())[:most]:
            samples, fmt, told = read_frame(folder / name, format=settings.format)
            fmt = RawFormat(fmt.width, fmt.height, fmt.pixel_format, settings.black, settings.white)
            if fmt.cfa == "MONO":
                raise UserError(f"{folder / name} holds {fmt.pixel_format}, which has no colours; give Bayer frames")
            raw = pack(samples, fmt)
            camera = camera_row(told, (settings.exposure_us, settings.gain_db))
            yield Frame(name, raw, fmt, self._gains(name, raw, fmt, corners), corners=corners, camera=camera)

    def _gains(self, name: str, raw: Bytes, fmt: RawFormat, corners: npt.NDArray[np.float64]) -> Gains:
        wanted = self._settings.white_balance
        if not isinstance(wanted, str):
            return usable_gains(wanted)
        if wanted == "auto":
            return engine_gains(raw, fmt)
        try:
            return chart_gains(raw, fmt, corners)
        except ValueError as error:
            raise UserError(f"the chart of {name} cannot be used: {error}") from error


def chart_gains(raw: Bytes, fmt: RawFormat, corners: npt.NDArray[np.float64]) -> Gains:
    """Gains under which the neutral patches of a chart are grey: float32 [3].

    Args:
        raw, fmt: The frame.
        corners: Of its 24 patches, [24, 4, 2] (x, y) in its pixels.

    Raises:
        ValueError: The patches do not lie in the frame.
        UserError: The gains are out of range.
    """
    light = np.clip((unpack(raw, fmt) - fmt.black_level) / (fmt.white_level - fmt.black_level), 0, 1)
    height, width = (size // 2 * 2 for size in light.shape)
    cells = np.zeros((height // 2, width // 2, 3))
    for place, colour in enumerate(fmt.cfa):
        site = light[place // 2 : height : 2, place % 2 : width : 2]
        cells[..., "RGB".index(colour)] += site / fmt.cfa.count(colour)
    # cells lie at the middle of four pixels; `patch_light` looks at display values
    means = patch_light(srgb_curve(cells), (corners - 0.5) / 2)[GREYS].sum(0)
    if not means.all():
        raise ValueError("its neutral patches are black")
    return usable_gains(means[1] / means)


class EdgeFrames:
    """A slanted edge along the columns and along the rows, with other noise in every frame. See `FrameSet`."""

    def __init__(self, settings: EdgeSet, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self.phases = (settings.cfa,)
        self._unprocessing = settings.unprocessing()
        self._drawn = draw(self._unprocessing, 1, generator(seed))
        self.matrix = matrix_of(self._drawn)

    def frames(self, phase: str, most: int | None = None) -> Iterator[Frame]:
        """See `FrameSet.frames`; `most` is of each direction."""
        settings = self._settings
        edge = slanted_edge(
            *(settings.size, settings.size),
            degrees=settings.degrees,
            sigma=settings.sigma,
            dark=settings.dark,
            bright=settings.bright,
        )
        for turned, (scene, light) in enumerate({"upright": edge, "level": edge.T}.items()):
            grey = srgb_from_linear(torch.from_numpy(np.ascontiguousarray(light)).float())
            photo = grey.expand(1, 3, *grey.shape)
            for number in range(min(settings.frames, most or settings.frames)):
                noise = generator(self._seed, turned, number)
                yield taken(photo, self._drawn, self._unprocessing, noise, phase, f"{scene} {number}", scene)


class FlickerFrames:
    """A scene that stands still, with other noise in every frame, and other light if that is asked for. See
    `FrameSet`."""

    def __init__(self, settings: FlickerSet, seed: int) -> None:
        """Raises UserError: the photograph is missing, damaged, or too small."""
        self._settings, self._seed = settings, seed
        self.phases = (settings.cfa,)
        self._unprocessing = settings.unprocessing()
        self._drawn = draw(self._unprocessing, 1, generator(seed))
        self.matrix = matrix_of(self._drawn)
        if settings.photo is None:
            picture = rendered(settings.crop, seed)
        else:
            picture = middle(read_photo(settings.photo), settings.crop, str(settings.photo))
        self._photo = to_tensor(picture)

    def frames(self, phase: str, most: int | None = None) -> Iterator[Frame]:
        """See `FrameSet.frames`."""
        settings = self._settings
        count = min(settings.frames, most or settings.frames)
        lights = changing_light(count, settings.light_period, settings.light_stops)
        for number, stops in enumerate(lights):
            noise, scene = generator(self._seed, number), f"still {stops:+.3f}" if settings.light_stops else "still"
            photo = self._lit(stops)
            frame = taken(photo, self._drawn, self._unprocessing, noise, phase, f"frame {number}", scene)
            yield replace(frame, light=stops)

    def _lit(self, stops: float) -> Tensor:
        """The picture in other light: white becomes grey in less of it, as exposures of photographs do not have it."""
        if not stops:
            return self._photo
        return srgb_from_linear((linear_from_srgb(self._photo) * 2.0**stops).clamp(max=1.0))
