"""Sets that are scored against references: photographs and rendered scenes made into frames, and pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ...engines.bayer import pack
from ...engines.inputs import CAMERA
from ..data.cfa import PHASES
from ..data.known_camera import draw_shot, take
from ..data.photos import find_photos, read_photo
from ..data.profile import read_profile
from ..data.raw_pair import RawPair
from ..data.readers import open_data_set
from ..data.splits import hold_out, read_split
from ..data.unpaired import colours_of
from ..data.unprocess import draw
from .frames import (
    Bytes,
    Frame,
    FrameSet,
    Gains,
    Picture,
    engine_gains,
    generator,
    in_16_bits,
    matrix_of,
    middle,
    rendered,
    taken,
    to_picture,
    to_tensor,
    usable_gains,
)
from .settings import (
    AnySet,
    CamerasSet,
    ChartSet,
    EdgeSet,
    FlickerSet,
    HdrSet,
    PairsSet,
    PhotosSet,
    ScenesSet,
    UnpairedSet,
)
from .targets import ChartFrames, EdgeFrames, FlickerFrames

T = TypeVar("T")

MOST_SCENES = 100
"""Of a set of rendered scenes without a limit."""

_DRAWN, _NOISE = 0, 1
"""What is drawn: each from chance of its own."""


def open_set(settings: AnySet, seed: int) -> FrameSet:
    """What makes the frames. Raises UserError: data are missing, or are not laid out as they should."""
    if isinstance(settings, ChartSet):
        return ChartFrames(settings)
    if isinstance(settings, EdgeSet):
        return EdgeFrames(settings, seed)
    if isinstance(settings, FlickerSet):
        return FlickerFrames(settings, seed)
    if isinstance(settings, HdrSet):
        from .hdr import HdrSceneFrames

        return HdrSceneFrames(settings, seed)
    if isinstance(settings, CamerasSet):
        return KnownCameraFrames(settings, seed)
    if isinstance(settings, UnpairedSet):
        return UnpairedFrames(settings)
    return PairFrames(settings) if isinstance(settings, PairsSet) else PictureFrames(settings, seed)


class PhotoOrScene(NamedTuple):
    """What a frame is made of: a photograph, or a scene that is rendered, which has no path."""

    name: str
    path: Path | None


class PictureFrames:
    """Photographs, or rendered scenes, as raw frames of 16 bits. See `FrameSet`."""

    def __init__(self, settings: PhotosSet | ScenesSet | HdrSet, seed: int) -> None:
        """Nothing is decoded yet. Raises UserError: no photographs, or a list that names others."""
        self._settings, self._seed = settings, seed
        self.phases = PHASES if settings.cfa == "all" else (settings.cfa,)
        self._unprocessing = settings.unprocessing()
        drawn = draw(self._unprocessing, 1, generator(seed))
        self.matrix = matrix_of(drawn) if settings.calibrated else None  # one for all: see `settings`
        self._photos = evenly(self._found(), settings.limit)

    def frames(self, phase: str, most: int | None = None) -> Iterator[Frame]:
        """See `FrameSet.frames`. What is drawn is the same in all phases, but for noise, which falls on other samples.

        Raises:
            UserError: A photograph is damaged, or smaller than a frame.
        """
        for number, photo in enumerate(self._photos[:most]):
            drawn = draw(self._unprocessing, 1, generator(self._seed, _DRAWN, number))
            noise = generator(self._seed, _NOISE, number)
            picture = to_tensor(self._picture(number, photo))
            yield taken(picture, drawn, self._unprocessing, noise, phase, photo.name)

    def _found(self) -> list[PhotoOrScene]:
        settings = self._settings
        if isinstance(settings, ScenesSet) or settings.folder is None:
            return [PhotoOrScene(f"scene {number}", None) for number in range(settings.limit or MOST_SCENES)]
        photos = find_photos(settings.folder)
        chosen = read_split(settings.listed, photos) if settings.listed else photos
        return [PhotoOrScene(photo.name, photo.path) for photo in chosen]

    def _picture(self, number: int, photo: PhotoOrScene) -> Picture:
        edge = self._settings.crop
        if photo.path is None:
            return rendered(edge, self._seed, number)
        downscale = None if isinstance(self._settings, ScenesSet) else self._settings.downscale
        return middle(read_photo(photo.path, downscale), edge, str(photo.path))


def evenly(things: Sequence[T], limit: int | None) -> list[T]:
    """All, or so many of them, as far from each other as can be."""
    if limit is None or limit >= len(things):
        return list(things)
    return [things[int((k + 0.5) * len(things) / limit)] for k in range(limit)]


class KnownCameraFrames:
    """Photographs as frames of a camera of which all is known, each with the picture that this camera would have made.
    See `FrameSet`."""

    def __init__(self, settings: CamerasSet, seed: int) -> None:
        """Nothing is decoded yet. Raises UserError: no photographs, or the profile is wrong."""
        self._settings, self._seed = settings, seed
        self._profile = read_profile(settings.camera)
        self.phases = ("RGGB",)  # in which pictures and planes are of one size for networks in either direction
        self.matrix = np.array(self._profile.colour_matrix, np.float32)
        photos = find_photos(settings.folder)
        self._photos = evenly(read_split(settings.listed, photos) if settings.listed else photos, settings.limit)

    def frames(self, phase: str, most: int | None = None) -> Iterator[Frame]:
        """See `FrameSet.frames`. Raises UserError: a photograph is damaged, or smaller than a frame."""
        settings, profile = self._settings, self._profile
        for number, photo in enumerate(self._photos[:most]):
            picture = middle(read_photo(photo.path, settings.downscale), settings.crop, str(photo.path))
            shot = draw_shot(profile, generator(self._seed, _DRAWN, number))
            sample = take(to_tensor(picture)[0], profile, shot, generator(self._seed, _NOISE, number), phase)
            raw, fmt = in_16_bits(sample["mosaic"], phase)
            camera = (0.0,) * len(CAMERA) if settings.untold else tuple(sample["camera"].tolist())
            reference = to_picture(sample["target"][None])
            gains = sample["gains"].numpy()
            yield Frame(photo.name, raw, fmt, gains, reference, camera=camera, samples=sample["planes"])


class PairFrames:
    """Raw frames as they were taken, with their pictures. See `FrameSet`."""

    phases = ("",)

    def __init__(self, settings: PairsSet | UnpairedSet) -> None:
        """Nothing is decoded yet. Raises UserError: no such data set, or another layout."""
        self._settings = settings
        self._reader = open_data_set(settings.data_set, settings.root, **settings.options)
        self._gains = None if settings.white_balance == "auto" else usable_gains(settings.white_balance)
        self.matrix = None if settings.colour_matrix is None else np.array(settings.colour_matrix, np.float32)
        files = self._reader.files()
        if settings.listed:
            files = read_split(settings.listed, files)
        elif settings.hold_out:
            files = hold_out(files, settings.hold_out)[1]
        self._files = evenly(files, settings.limit)

    def frames(self, phase: str = "", most: int | None = None) -> Iterator[Frame]:
        """See `FrameSet.frames`. Raises UserError: a file is damaged."""
        for files in self._files[:most]:
            pair = self._reader.load(files)
            raw = pack(pair.samples, pair.raw_format)
            told = pair.camera((self._settings.exposure_us, self._settings.gain_db))
            matrix = pair.matrix if self.matrix is None else None
            gains, reference = self._gains_of(pair, raw), self._reference(pair)
            yield Frame(pair.name, raw, pair.raw_format, gains, reference, camera=told, matrix=matrix)

    def _reference(self, pair: RawPair) -> Picture | None:
        return pair.target

    def _gains_of(self, pair: RawPair, raw: Bytes) -> Gains:
        if self._gains is not None:
            return self._gains
        if pair.gains is not None:
            return usable_gains(pair.gains)
        return engine_gains(raw, pair.raw_format)


class UnpairedFrames(PairFrames):
    """Raw frames as they were taken, without their pictures. See `FrameSet`.

    Attributes:
        photographs: What their pictures are to look like.
    """

    def __init__(self, settings: UnpairedSet) -> None:
        """The photographs are decoded. Raises UserError: as `PairFrames`, or there are no photographs with colours."""
        super().__init__(settings)
        self.photographs = colours_of(settings.photographs)

    def _reference(self, pair: RawPair) -> None:
        return None
