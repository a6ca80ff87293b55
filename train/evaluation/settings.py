"""EvalConfig: what `isp-eval` measures, as a file in `configs/eval` says it and `--set` changes it.

The docstring under each field is its help; `isp-eval --settings` lists them. Unknown keys are refused; all problems
are reported at once. A new kind of set is a class here, in the union `AnySet`, and what opens it in `opening`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from ...engines.errors import UserError
from ...engines.settings import Settings, make_settings, read_yaml
from ..config import described, set_value
from ..source_base import RAWS

if TYPE_CHECKING:
    from ..data.hdr_frames import HdrSettings
    from ..data.unprocess import Unprocessing

T = TypeVar("T")

Phase = Literal["RGGB", "GRBG", "GBRG", "BGGR"]
Gains = tuple[float, float, float]
Matrix = tuple[Gains, Gains, Gains]

STEADY: dict[str, Any] = {"colours": "simulated", "motion_rate": 0.0, "defocus_rate": 0.0}
"""What frames that are made are like unless options say otherwise: of one camera, and sharp."""


def _told(make: Callable[..., T], *values: Any, **options: Any) -> T:
    """What `make` gives; its UserError as pydantic wants it."""
    try:
        return make(*values, **options)
    except UserError as error:
        raise ValueError(str(error)) from error


class _Set(Settings):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=60)]
    """what it is called in tables, unlike any other"""
    shown: Annotated[int, Field(ge=0)] = 2
    """how many of its frames the page shows"""


class _Chosen(_Set):
    limit: Annotated[int, Field(ge=1)] | None = None
    """how many frames are taken, evenly from all; null takes all"""
    listed: Path | None = None
    """text file with the names of those to take, one on a line; null takes all"""


class _Listed(_Chosen):
    protocol: Literal["plain", "colour", "flow"] = "plain"
    """what is taken out before pictures are scored: plain (nothing), colour (an affine map of colours for each picture,
    for references of another exposure and look), flow (displacements, for references of another camera)"""


class _Taken(_Set):
    gain_db: float = 0.0
    """the camera's gain in dB, for frames of which nothing tells it; models that are told the gain need it"""
    exposure_us: Annotated[float, Field(ge=0)] = 0.0
    """exposure in microseconds, for frames of which nothing tells it; 0 where it is not known"""


class _Made(_Set):
    noise: str = "rhid"
    """the camera whose noise the frames get: rhid (a high-speed camera, as measured), camera (an ordinary one), none"""
    options: dict[str, Any] = Field({})
    """what else is told of the camera and the light, such as exposure, gain_error or colours; one camera (simulated),
    without blur, unless said otherwise"""

    @model_validator(mode="after")
    def _one_matrix(self) -> _Made:
        from ..data.cameras import COLOURS

        if len(COLOURS[_told(self.unprocessing).colours]) > 1:
            raise ValueError("an engine has one colour matrix: set options.colours to simulated or srgb")
        return self

    def unprocessing(self) -> Unprocessing:
        """How pictures become frames. Raises UserError: an unknown option."""
        from ..data.unprocess import make_unprocessing

        return make_unprocessing(self.noise, **{**STEADY, **self._usual(), **self.options})

    def _usual(self) -> dict[str, Any]:
        return {}


class _Pieces(_Made, _Listed):
    cfa: Phase | Literal["all"] = "RGGB"
    """filter array of the frames; all takes each picture with every one of the four, and says how far they differ"""
    crop: Annotated[int, Field(ge=32, multiple_of=2)] = 512
    """edge of the frames in pixels, from the middle of the pictures"""
    calibrated: bool = True
    """false: the colours of the camera are not known, and engines are given the identity for a matrix; references stay
    what they are"""


class PhotosSet(_Pieces):
    """Photographs, made into raw frames."""

    kind: Literal["photos"]
    """photographs, turned back into the raw frames of one camera; the reference is the photograph as it was exposed"""
    folder: Path
    """folder of photographs (JPEG, PNG), and the folders in it"""
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller they are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""


class ScenesSet(_Pieces):
    """Rendered scenes: no data is needed."""

    kind: Literal["scenes"]
    """rendered scenes, made into raw frames as photographs are"""
    limit: Annotated[int, Field(ge=1)] | None = 8
    """how many scenes; null takes 100"""


class HdrSet(_Pieces):
    """Scenes with more range than one exposure holds."""

    kind: Literal["hdr"]
    """photographs or rendered scenes as HDR scenes, exposed so that some of their light is clipped; the reference is
    what tone mapping makes of all of it, and the light itself is what TMQI compares pictures with"""
    folder: Path | None = None
    """folder of photographs (JPEG, PNG), and the folders in it; null renders scenes"""
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller photographs are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""
    limit: Annotated[int, Field(ge=1)] | None = 8
    """how many scenes, evenly from all photographs; null takes all, or 100 rendered ones"""
    crop: Annotated[int, Field(ge=32, multiple_of=2)] = 384
    """edge of the frames in pixels, from the middle of the pictures; TMQI needs 161 and up"""
    operator: Literal["mertens", "reinhard", "drago", "local_laplacian", "none"] = "mertens"
    """the tone mapping of the reference: mertens (exposure fusion), reinhard, drago, local_laplacian, or none (what is
    above white is white)"""
    tone: dict[str, Any] = Field({})
    """what else is told of the tone mapping, such as stops and exposures of mertens"""
    options: dict[str, Any] = Field({})
    """what else is told of frames and scenes, such as bits (10), clipped, exposure_stops, anchor, highlight_stops or
    lamp_rate; one camera (simulated), without blur, unless said otherwise"""

    def hdr(self) -> HdrSettings:
        """How scenes become frames. Raises UserError: an unknown option, or a value out of range."""
        from ..data.hdr_frames import make_hdr

        return make_hdr(self.noise, self.operator, self.tone, **{**STEADY, **self.options})

    def unprocessing(self) -> Unprocessing:
        """The camera. Raises UserError: as `hdr`."""
        return self.hdr().camera


class CamerasSet(_Listed):
    """Photographs as frames of a camera of which all is known."""

    kind: Literal["cameras", "inverse"]
    """photographs as frames of a camera of which all is known, with the pictures that it would have made: cameras
    scores pictures of the frames, inverse scores frames of the pictures, and frames over pictures back to frames"""
    camera: Path
    """profile of the camera, such as configs/cameras/track.yaml"""
    folder: Path
    """folder of photographs (JPEG, PNG), and the folders in it"""
    crop: Annotated[int, Field(ge=96, multiple_of=4)] = 480
    """edge of the frames in pixels, from the middle of the pictures"""
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller photographs are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""
    untold: bool = False
    """models are not told exposure, sensitivity, aperture and focal length"""


class _RawFrames(_Chosen, _Taken):
    data_set: str
    """name of the data set"""
    root: Path
    """folder that holds it"""
    options: dict[str, Any] = Field({})
    """what else its reader takes, such as split or sets"""
    hold_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """share of the scenes that training held out, which are taken; null takes all"""
    white_balance: Literal["auto"] | Gains = "auto"
    """gains of the frames: auto (what the data set tells, else what an engine finds in the frame), or three"""
    colour_matrix: Matrix | None = None
    """3x3 matrix, camera RGB to linear sRGB; null is the identity"""

    @model_validator(mode="after")
    def _one_choice(self) -> _RawFrames:
        if self.listed and self.hold_out:
            raise ValueError("listed and hold_out both choose what is taken; set one of them to null")
        return self


class PairsSet(_RawFrames, _Listed):
    """Raw frames with the pictures that they should give."""

    kind: Literal["pairs"]
    """raw frames with pictures, of one of the data sets that isp-train --data-sets lists"""

    @model_validator(mode="after")
    def _with_pictures(self) -> PairsSet:
        if self.data_set == RAWS:
            raise ValueError(f"{RAWS} has no pictures to score against; its frames are for sets of the kind unpaired")
        return self


class UnpairedSet(_RawFrames):
    """Raw frames whose pictures nobody knows."""

    kind: Literal["unpaired"]
    """raw frames of one of the data sets that isp-train --data-sets lists, whose own pictures, if any, do not count:
    whether the colours of pictures are those of photographs, and whether they show what the classic engine does"""
    photographs: Path
    """folder of photographs (JPEG, PNG) of anything, and the folders in it, that pictures are to look like; grey ones
    are left out"""


class ChartSet(_Taken):
    """Frames of a ColorChecker Classic."""

    kind: Literal["chart"]
    """raw frames of a colour chart: how far its 24 colours are off (CIEDE2000)"""
    charts: Path
    """where the patches are: JSON, {FILE: {patches: [{index: 1 to 24, polygon_xy: four corners}, ...]}}"""
    folder: Path | None = None
    """what the names of the files in it are relative to; null is the folder of that file"""
    format: str
    """PFNC name of the frames' pixel format, such as BayerRG8"""
    black: Annotated[float, Field(ge=0)] = 0.0
    """black level in digital numbers"""
    white: Annotated[float, Field(gt=0)] | None = None
    """white level in digital numbers; null is the format's highest value"""
    white_balance: Literal["chart", "auto"] | Gains = "chart"
    """gains of the frames: chart (its neutral patches become grey), auto (what an engine finds in the frame), or
    three"""
    colour_matrix: Matrix | None = None
    """3x3 matrix, camera RGB to linear sRGB; null is the identity"""


class _Still(_Made):
    cfa: Phase = "RGGB"
    """filter array of the frames"""

    def _usual(self) -> dict[str, Any]:
        return {"exposure": (1.0, 1.0)}


class EdgeSet(_Still):
    """A slanted edge."""

    kind: Literal["edge"]
    """a slanted edge, rendered and made into raw frames: at which frequency half of its contrast is left (MTF50)"""
    size: Annotated[int, Field(ge=64, le=1024, multiple_of=2)] = 192
    """edge of the frames in pixels"""
    degrees: Annotated[float, Field(ge=2, le=20)] = 5.0
    """how the edge leans, from the columns and then from the rows"""
    sigma: Annotated[float, Field(gt=0, le=5)] = 0.5
    """its blur in pixels (standard deviation)"""
    dark: Annotated[float, Field(ge=0, le=1)] = 0.1
    """linear light on one side"""
    bright: Annotated[float, Field(ge=0, le=1)] = 0.6
    """linear light on the other side"""
    frames: Annotated[int, Field(ge=1, le=1000)] = 8
    """frames of each direction, which differ in noise; the mean of their pictures is measured"""

    @model_validator(mode="after")
    def _contrast(self) -> EdgeSet:
        from ..metrics.edge import LEAST_CONTRAST

        if self.bright - self.dark < 2 * LEAST_CONTRAST:
            raise ValueError(f"bright must be above dark by {2 * LEAST_CONTRAST:g} or more")
        return self


class FlickerSet(_Still):
    """A scene that stands still."""

    kind: Literal["flicker"]
    """a still scene with noise that is drawn anew for each frame: how much pictures change from frame to frame; where
    its light changes, how much they differ among frames of equal light, and how far the mean colour jumps"""
    photo: Path | None = None
    """the photograph; null renders a scene"""
    crop: Annotated[int, Field(ge=32, multiple_of=2)] = 256
    """edge of the frames in pixels, from the middle of the picture"""
    frames: Annotated[int, Field(ge=2, le=10_000)] = 100
    """how many"""
    light_stops: Annotated[float, Field(ge=0, le=12)] = 0.0
    """how far the light goes up and down over the frames, in stops from the darkest to the brightest; 0 keeps it"""
    light_period: Annotated[int, Field(ge=8, multiple_of=4)] = 48
    """frames in which the light goes up, down and back once"""
    shown: Annotated[int, Field(ge=0)] = 1
    """how many of its frames the page shows"""

    @model_validator(mode="after")
    def _whole_cycle(self) -> FlickerSet:
        if self.light_stops and self.frames < self.light_period:
            raise ValueError(
                f"{self.frames} frames are no whole cycle of the light, in which it comes back; give frames of "
                f"light_period ({self.light_period}) or more"
            )
        return self


AnySet = Annotated[
    PhotosSet | ScenesSet | HdrSet | CamerasSet | PairsSet | UnpairedSet | ChartSet | EdgeSet | FlickerSet,
    Field(discriminator="kind"),
]
"""An entry under `sets`: `kind` says which."""

Tuned = Annotated[PhotosSet | ScenesSet, Field(discriminator="kind")]
"""What a baseline may be tuned on."""

KINDS = (PhotosSet, ScenesSet, HdrSet, CamerasSet, PairsSet, UnpairedSet, ChartSet, EdgeSet, FlickerSet)
"""The members of the union."""


class EvalConfig(Settings):
    """What is measured."""

    sets: Annotated[list[AnySet], Field(min_length=1)]
    """sets of frames, each measured by itself"""
    tune: Tuned | None = None
    """frames on which --tune-nlm finds the baseline; none of those that are measured should be among them"""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """of everything drawn"""

    @field_validator("sets")
    @classmethod
    def _names(cls, sets: list[AnySet]) -> list[AnySet]:
        twice = [name for name, count in Counter(each.name for each in sets).items() if count > 1]
        if twice:
            raise ValueError(f"two sets have the name {twice[0]!r}; give each its own")
        return sets


def read_config(path: Path, changes: Sequence[str] = ()) -> EvalConfig:
    """What is measured, with changes.

    Args:
        path: YAML file.
        changes: "sets.0.limit=4": the names of nested settings and places in lists.

    Raises:
        UserError: The file cannot be read, or what is wrong with it, all of it in one line.
    """
    values = read_yaml(path)
    for change in changes:
        set_value(values, change)
    return make_settings(EvalConfig, values, "isp-eval --settings")


def describe_settings() -> list[str]:
    """A line for each setting: its name, what it does and its default."""
    return described(EvalConfig, KINDS, "kind", "sets.N")
