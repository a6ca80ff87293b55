"""Sources of samples that are made of photographs, of rendered scenes in their place, or of brackets. See `sources`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ..engines.errors import UserError
from .source_base import MULTIPLE, FilesSource, Opened

if TYPE_CHECKING:
    from .data.hdr_frames import HdrSettings
    from .data.photos import Photos
    from .data.unprocess import Unprocessing


class _PhotosSource(FilesSource):
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller photographs are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""
    options: dict[str, Any] = Field({})
    """what else is told of the camera and the light, such as exposure, gain_error, motion_rate or defocus_rate"""

    def photographs(self, folder: Path, camera: Unprocessing, seed: int, held_out: bool) -> Photos:
        """Samples of those of a folder that are taken. Raises UserError."""
        from .data.photos import Photos, find_photos

        return Photos(folder, camera, self.chosen(find_photos(folder), held_out), **self.drawing(seed, held_out))

    def drawing(self, seed: int, held_out: bool) -> dict[str, Any]:
        """How pieces are drawn from files, as `photos.Photos` takes it."""
        return {
            "crop": self.crop,
            "augment": not held_out,
            "repeats": self.repeats,
            "downscale": self.downscale,
            "multiple": MULTIPLE,
            "seed": seed,
            "cache_bytes": self.cache_mb * 1_000_000,
        }


class PhotosSource(_PhotosSource):
    """Photographs, made into raw frames."""

    LATER = ("target", "calibrated")

    source: Literal["photos"]
    """photographs, turned back into the raw frames that a camera would have taken"""
    folder: Path
    """folder of photographs (JPEG, PNG), and the folders in it"""
    noise: str = "rhid"
    """the camera whose noise they get: rhid (a high-speed camera, as measured), camera (an ordinary one) or none"""
    target: Literal["picture", "classic"] = "picture"
    """what samples are to become: the photographs; or what the classic engine makes of the frames with their gains and
    matrix, to try training without pairs where the truth is known"""
    calibrated: bool = True
    """false: the colours of the camera are not known, and frames come with the identity for a matrix, which the classic
    engine is given too; photographs as targets stay what they are"""

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation. Raises UserError: no photographs, or an unknown option."""
        from .data.rendering import LessKnown
        from .data.splits import manifest_hash
        from .data.unprocess import make_unprocessing

        camera = make_unprocessing(self.noise, **self.options)
        photos = self.photographs(self.folder, camera, seed, held_out)
        about = f"{len(photos.files)} photographs of {self.folder.name}, as raw frames with noise of {self.noise}"
        about += "" if self.calibrated else " of a camera of unknown colours"
        about += ", with pictures of the classic engine" if self.classic else ""
        less = self.classic or not self.calibrated
        samples = LessKnown(photos, classic=self.classic, calibrated=self.calibrated) if less else photos
        return Opened(samples, self.fingerprint(seed, manifest_hash(photos.files)), about)

    @property
    def classic(self) -> bool:
        """See `Source.classic`."""
        return self.target == "classic"


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


def _check_scenes(source: CamerasSource | PicturesSource | HdrSource) -> None:
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


class HdrSource(_PhotosSource):
    """Scenes whose range no exposure holds, as frames, with tone-mapped pictures of all of their light."""

    source: Literal["hdr"]
    """frames of which highlights are white, with tone-mapped pictures that show these too: of photographs, whose light
    is extended, of exposure brackets, or of rendered scenes"""
    folder: Path | None = None
    """folder of photographs (JPEG, PNG), and the folders in it; null, without brackets, renders scenes, for which no
    data is needed"""
    brackets: Path | None = None
    """in place of photographs: folder that holds a folder for each scene, with pictures of it at different exposures
    (PNG, JPEG, TIFF of 8 or 16 bits; exposure times from their EXIF, or from exposures.json or exposures.txt beside
    them) or a radiance file (.hdr); their light is not extended"""
    operator: Literal["mertens", "reinhard", "drago", "local_laplacian", "none"] = "mertens"
    """the tone mapping of the pictures: mertens (exposure fusion), reinhard, drago, local_laplacian, or none (what is
    above white is white)"""
    tone: dict[str, Any] = Field({})
    """what else is told of the tone mapping, such as stops of mertens or beta of local_laplacian"""
    merge: Literal["debevec", "robertson"] = "debevec"
    """with brackets: the method that merges them"""
    response: Literal["srgb", "linear", "estimated"] = "srgb"
    """with brackets: how their pictures show light; estimated is for pictures of a camera with a tone curve of its
    own"""
    align: bool = False
    """with brackets: undo shifts of the camera by whole pixels"""
    most_moved: Annotated[float, Field(ge=0, le=1)] = 0.03
    """with brackets: share of what two pictures both show well that may differ in them; where more does, the scene
    moves and is refused"""
    noise: str = "rhid"
    """the camera whose noise the frames get: rhid (a high-speed camera, as measured), camera (an ordinary one) or
    none; conversion has the depth of the option bits, which is 10 where it is not told"""
    scenes: Annotated[int, Field(ge=1, le=10_000)] = 96
    """without a folder and brackets: how many scenes differ; an epoch has repeats times as many samples"""
    options: dict[str, Any] = Field({})
    """what else is told: of the frame (bits, clipped: range of the share that is white, exposure_stops, anchor), the
    light (extend, knee, highlight_stops, uneven_rate, spark_rate, lamp_rate and others) and the camera (colours,
    gain_error, motion_rate, defocus_rate, full_well)"""

    @model_validator(mode="after")
    def _fitting_settings(self) -> HdrSource:
        problems = []
        if self.folder and self.brackets:
            problems.append("folder and brackets both say where scenes come from; set one of them to null")
        for check in (lambda: None if self.brackets else _check_scenes(self), self._settings):
            try:
                check()
            except (ValueError, UserError) as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _settings(self) -> HdrSettings:
        """Raises UserError: an unknown option, or a value out of range."""
        from .data.hdr_frames import make_hdr

        options = self.options if self.brackets is None else {**self.options, "extend": False}
        return make_hdr(self.noise, self.operator, self.tone, **options)

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation. Raises UserError: no such files."""
        from .data.hdr_frames import HdrFrames

        settings = self._settings()
        scenes, what, facts = self._scenes(seed, held_out)
        about = f"{what}, as frames with noise of {self.noise}, pictures tone-mapped by {self.operator}"
        return Opened(HdrFrames(scenes, settings, seed=seed), self.fingerprint(seed, *facts), about)

    def _scenes(self, seed: int, held_out: bool) -> tuple[Any, str, list[str]]:
        """What scenes are drawn from, what they are, and what their files are known by."""
        from .data.bracket_merge import Merging
        from .data.brackets import Brackets, find_brackets
        from .data.hdr_frames import SceneLight
        from .data.pictures import PLAIN
        from .data.splits import manifest_hash

        if self.brackets:
            merging = Merging(self.merge, self.response, self.align, self.most_moved)
            chosen = self.chosen(find_brackets(self.brackets), held_out)
            photos = Brackets(self.brackets, merging, chosen, **self.drawing(seed, held_out))
            return photos, f"{len(chosen)} scenes of {self.brackets.name}", [manifest_hash(chosen)]
        if self.folder:
            photos = self.photographs(self.folder, PLAIN, seed, held_out)
            return photos, f"{len(photos.files)} photographs of {self.folder.name}", [manifest_hash(photos.files)]
        return (
            SceneLight(self.scenes * self.repeats, self.crop or 0, scenes=self.scenes, seed=seed),
            "rendered scenes",
            [],
        )
