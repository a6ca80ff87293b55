"""Where samples come from: the `source` of an entry under `data` in a recipe, each with settings of its own.

A new source is a class here, in the union `AnySource`. Samples are dicts of tensors: `planes` float32 [4, h, w] (R, Gr,
Gb, B of an RGGB mosaic, black 0, white 1, not white balanced), `gains` float32 [3] (of R, G, B, green 1), `target`
float32 [3, 2h, 2w] (sRGB in [0, 1]), `matrix` float32 [3, 3] (the camera's colours after white balance to linear sRGB)
and `camera` float32 [5] (the columns of `engines.inputs.CAMERA`; what is not known is 0, as engines have it). Those
for networks of the form "rgb" have `input` float32 [3, H, W] (sRGB) in place of planes and gains. Some have a `mask`
float32 [1, 2h, 2w] in [0, 1], how much each place of the target counts; beside them the others count everywhere.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field, model_validator

from ..engines.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from .data.photos import Photos
    from .data.splits import Grouped
    from .data.unprocess import Unprocessing

G = TypeVar("G", bound="Grouped")

_MULTIPLE = 32
"""What the sizes of whole frames are divisible by: the most that any of the networks asks for."""


class SampleSet(Protocol):
    """Samples by index. What is drawn follows from seed, epoch and index, whichever process draws it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...

    def set_epoch(self, epoch: int) -> None:
        """Draw other samples from now on, the same ones for the same epoch."""
        ...


@dataclass(frozen=True)
class Opened:
    """A source that is ready.

    Attributes:
        samples: What it gives.
        manifest: SHA-256 in hex of what they are made from: it changes with the files.
        about: What it is, for the model card.
    """

    samples: SampleSet
    manifest: str
    about: str


class _Source(Settings):
    def fingerprint(self, *facts: object) -> str:
        """SHA-256 in hex of these settings and some facts."""
        return hashlib.sha256(repr((self.model_dump(mode="json"), facts)).encode()).hexdigest()


class _FilesSource(_Source):
    listed: Path | None = None
    """text file with the names of those to take, one on a line; null takes all"""
    hold_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """share of the scenes that is held out, where there is no split: training takes the others, validation these; null
    takes all for either"""
    crop: Annotated[int, Field(ge=8, multiple_of=8)] | None = 256
    """edge of a sample in mosaic pixels; null takes all of a frame, for validation"""
    repeats: Annotated[int, Field(ge=1)] = 1
    """samples of each frame and epoch"""
    cache_mb: Annotated[int, Field(ge=0)] = 1024
    """memory for what was decoded, in MB, all workers together"""

    @model_validator(mode="after")
    def _one_choice(self) -> _FilesSource:
        if self.listed and self.hold_out:
            raise ValueError("listed and hold_out both choose what is taken; set one of them to null")
        return self

    def chosen(self, files: list[G], held_out: bool) -> list[G]:
        """Those of the files that are taken. Raises UserError."""
        from .data.splits import hold_out, read_split

        if self.listed:
            return read_split(self.listed, files)
        return hold_out(files, self.hold_out)[held_out] if self.hold_out else files


class ScenesSource(_Source):
    """Rendered scenes: no data is needed."""

    source: Literal["scenes"]
    """rendered scenes; the target is what the classic engine makes of them without noise"""
    count: Annotated[int, Field(ge=1)] = 2048
    """samples of an epoch"""
    crop: Annotated[int, Field(ge=32, le=352, multiple_of=8)] = 128
    """edge of a sample in mosaic pixels"""
    scenes: Annotated[int, Field(ge=1, le=10_000)] = 96
    """how many scenes differ; each takes 1.5 MB in every process that draws"""

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation."""
        from .data.scenes import Scenes

        samples = Scenes(self.count, self.crop, scenes=self.scenes, seed=seed)
        return Opened(samples, self.fingerprint(seed), "rendered scenes")


class _PhotosSource(_FilesSource):
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller photographs are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""
    options: dict[str, Any] = Field({})
    """what else is told of the camera and the light, such as exposure, gain_error, motion_rate or defocus_rate"""

    def photographs(self, folder: Path, camera: Unprocessing, seed: int, held_out: bool) -> Photos:
        """Samples of those of a folder that are taken. Raises UserError."""
        from .data.photos import Photos, find_photos

        return Photos(
            folder,
            camera,
            self.chosen(find_photos(folder), held_out),
            crop=self.crop,
            augment=not held_out,
            repeats=self.repeats,
            downscale=self.downscale,
            multiple=_MULTIPLE,
            seed=seed,
            cache_bytes=self.cache_mb * 1_000_000,
        )


class PhotosSource(_PhotosSource):
    """Photographs, made into raw frames."""

    source: Literal["photos"]
    """photographs, turned back into the raw frames that a camera would have taken"""
    folder: Path
    """folder of photographs (JPEG, PNG), and the folders in it"""
    noise: str = "rhid"
    """the camera whose noise they get: rhid (a high-speed camera, as measured), camera (an ordinary one) or none"""

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation. Raises UserError: no photographs, or an unknown option."""
        from .data.splits import manifest_hash
        from .data.unprocess import make_unprocessing

        camera = make_unprocessing(self.noise, **self.options)
        samples = self.photographs(self.folder, camera, seed, held_out)
        about = f"{len(samples.files)} photographs of {self.folder.name}, as raw frames with noise of {self.noise}"
        return Opened(samples, self.fingerprint(seed, manifest_hash(samples.files)), about)


class CamerasSource(_PhotosSource):
    """Photographs, or rendered scenes, made into frames of cameras whose own pictures follow from their parameters."""

    source: Literal["cameras"]
    """photographs as frames of cameras of which all is known, with the pictures these would have made: for paramisp"""
    cameras: Annotated[list[Path], Field(min_length=1)]
    """profiles of the cameras, such as configs/cameras/track.yaml; each frame is of one of them"""
    folder: Path | None = None
    """folder of photographs (JPEG, PNG), and the folders in it; null renders scenes, for which no data is needed"""
    scenes: Annotated[int, Field(ge=1, le=10_000)] = 96
    """without a folder: how many scenes differ; an epoch has repeats times as many samples"""

    @model_validator(mode="after")
    def _fitting_scenes(self) -> CamerasSource:
        _check_scenes(self)
        if self.options:
            raise ValueError("options are of no use here: the profiles say all that is known of the cameras")
        return self

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation. Raises UserError: no photographs, or a profile is wrong."""
        from .data.known_camera import KnownFrames, ScenePieces
        from .data.pictures import PLAIN
        from .data.profile import read_profile
        from .data.splits import manifest_hash

        profiles = [read_profile(path) for path in self.cameras]
        if self.folder:
            photos = self.photographs(self.folder, PLAIN, seed, held_out)
            what, facts = f"{len(photos.files)} photographs of {self.folder.name}", [manifest_hash(photos.files)]
        else:
            photos = ScenePieces(self.scenes * self.repeats, self.crop or 0, scenes=self.scenes, seed=seed)
            what, facts = "rendered scenes", []
        samples = KnownFrames(photos, profiles, whole=self.crop is None, seed=seed)
        facts += [repr(profile.model_dump(mode="json")) for profile in profiles]
        about = f"{what}, as frames of {', '.join(profile.name for profile in profiles)}"
        return Opened(samples, self.fingerprint(seed, *facts), about)


def _check_scenes(source: CamerasSource | PicturesSource) -> None:
    """Raises ValueError: there is no folder, and other settings ask for one."""
    from .data.scenes import EDGE

    if source.folder is None and (source.listed or source.hold_out):
        raise ValueError("listed and hold_out choose among photographs; name their folder")
    if source.folder is None and (source.crop is None or source.crop > EDGE):
        raise ValueError(f"crop is {source.crop}, but a scene has no more than {EDGE} pixels; choose a smaller one")


class PicturesSource(_PhotosSource):
    """Photographs, or rendered scenes, made into pictures that a camera took in noise or in little light."""

    source: Literal["pictures"]
    """pictures with noise, or in little light, and what they should be: for networks of the form rgb"""
    task: Literal["denoise", "enhance"]
    """denoise: pictures as bright as they should be, with noise; enhance: dark pictures with noise"""
    folder: Path | None = None
    """folder of photographs (JPEG, PNG), and the folders in it; null renders scenes, for which no data is needed"""
    noise: str = "camera"
    """the camera whose noise they get: rhid (a high-speed camera, as measured), camera (an ordinary one) or none"""
    scenes: Annotated[int, Field(ge=1, le=10_000)] = 96
    """without a folder: how many scenes differ; an epoch has repeats times as many samples"""

    @model_validator(mode="after")
    def _fitting_scenes(self) -> PicturesSource:
        _check_scenes(self)
        return self

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation. Raises UserError: no photographs, or an unknown option."""
        from .data.pictures import PLAIN, Pictures, ScenePhotos, make_degradation
        from .data.splits import manifest_hash

        degradation = make_degradation(self.task, self.noise, **self.options)
        if self.folder:
            photos = self.photographs(self.folder, PLAIN, seed, held_out)
            what, facts = f"{len(photos.files)} photographs of {self.folder.name}", [manifest_hash(photos.files)]
        else:
            photos = ScenePhotos(self.scenes * self.repeats, self.crop or 0, scenes=self.scenes, seed=seed)
            what, facts = "rendered scenes", []
        about = f"{what}, with noise of {self.noise}" + (" in little light" if self.task == "enhance" else "")
        return Opened(Pictures(photos, degradation, seed=seed), self.fingerprint(seed, *facts), about)


class PairsSource(_FilesSource):
    """Raw frames with the pictures that they should give."""

    source: Literal["pairs"]
    """raw frames with pictures, of one of the data sets that isp-train --data-sets lists"""
    data_set: str
    """name of the data set"""
    root: Path
    """folder that holds it"""
    options: dict[str, Any] = Field({})
    """what else its reader takes, such as split or sets"""
    white_balance: Literal["camera", "grey_world"] | tuple[float, float, float] = "camera"
    """gains that go with the frames: camera (what the data set tells, else the grey world), grey_world, or three"""
    gain_db: float = 0.0
    """the camera's gain in dB, for frames of which the data set tells none"""
    exposure_us: Annotated[float, Field(ge=0)] = 0.0
    """exposure in microseconds, for frames of which the data set tells none; 0 where it is not known"""

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation. Raises UserError: no such data, or another layout."""
        from .data.pairs import RawPairs
        from .data.readers import open_data_set
        from .data.splits import manifest_hash

        reader = open_data_set(self.data_set, self.root, **self.options)
        files = self.chosen(reader.files(), held_out)
        samples = RawPairs(
            reader,
            files,
            crop=self.crop,
            augment=not held_out,
            repeats=self.repeats,
            white_balance=self.white_balance,
            camera=(self.exposure_us, self.gain_db),
            multiple=_MULTIPLE,
            seed=seed,
            cache_bytes=self.cache_mb * 1_000_000,
        )
        return Opened(samples, self.fingerprint(seed, manifest_hash(files)), f"{len(files)} pairs of {self.data_set}")


AnySource = Annotated[
    ScenesSource | PhotosSource | CamerasSource | PicturesSource | PairsSource, Field(discriminator="source")
]
"""An entry under `data`: `source` says which."""

SOURCES = (ScenesSource, PhotosSource, CamerasSource, PicturesSource, PairsSource)
"""The members of the union."""


class _Mixed:
    """Several sets as one."""

    def __init__(self, sets: Sequence[SampleSet]) -> None:
        self._sets, self._ends = list(sets), list(accumulate(len(samples) for samples in sets))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = bisect_right(self._ends, index)
        return self._sets[which][index - (self._ends[which - 1] if which else 0)]

    def set_epoch(self, epoch: int) -> None:
        for samples in self._sets:
            samples.set_epoch(epoch)


def open_sources(sources: Sequence[AnySource], seed: int, *, held_out: bool) -> Opened:
    """All of them, mixed. Equal sources differ in what they draw. What is held out is the same for every seed, so that
    runs are measured on the same samples.

    Raises:
        UserError: The data of one is not there, or not laid out as it should.
    """
    from .metrics import HELD_OUT_SEED

    seed = HELD_OUT_SEED if held_out else seed
    opened = [source.open(seed + 7919 * place, held_out=held_out) for place, source in enumerate(sources)]
    manifest = hashlib.sha256("\n".join(each.manifest for each in opened).encode()).hexdigest()
    return Opened(_Mixed([each.samples for each in opened]), manifest, "; ".join(each.about for each in opened))
