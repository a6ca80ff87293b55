"""Photographs as the raw frames of a camera, by ParamISP's inverse network: what `isp-invert` makes.

A photograph is taken for a picture that the camera made. White balance, exposure, sensitivity, aperture and focal
length are drawn from its profile, or given; the network, which is told them, gives the camera's colours at every pixel.
Of these the filter array samples one each; the profile's noise and conversion follow. The folder that comes of it is a
data set of the kind `folder`:

    raw/NAME.png, raw/NAME.png.yaml    the frame, as the simulated camera plays it, and what its samples mean
    rgb/NAME.png                       the photograph
    pairs.json                         photograph, gains, exposure and the others, and colour matrix of each
    invert.json                        how it was made
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from ..engines.bayer import RawFormat
from ..engines.errors import UserError
from ..engines.inputs import CAMERA, POSITIVE
from ..engines.settings import Settings, make_settings
from .checkpoint import Checkpoint, load_checkpoint
from .data.cfa import mosaic
from .data.folder import NOTES, encode_frame, encode_png
from .data.known_camera import Shot, draw_shot, sensor_of
from .data.noise import add_noise
from .data.optics import blur, draw_kernels
from .data.photos import PhotoFile, find_photos, read_photo
from .data.profile import EXPOSURES_US, F_NUMBERS, FOCAL_LENGTHS_MM, ISOS, CameraProfile
from .data.raw_pair import JPEG, PNG, Picture, Samples
from .evaluation.frames import generator, middle, to_tensor
from .evaluation.page import safe
from .folders import WholeFolder
from .models import NETWORKS, BothISPs, InverseISP
from .models.param_net import OPTICS
from .runs import code_version

RECORD = "invert.json"
"""Tells how a folder was made."""

LEAST = 16
"""Edge of a frame in pixels: no camera of ours is smaller."""

DIGITS = 6
"""Significant ones of what is drawn, so that files say exactly what the network was told."""

_MULTIPLE = NETWORKS["paramisp"].multiple


class InvertSettings(Settings):
    """What frames are made, and how. What of the camera is null is drawn for each frame from its profile."""

    count: Annotated[int, Field(ge=1)] | None = None
    """how many photographs are taken, the first by name; null takes all"""
    crop: Annotated[int, Field(ge=LEAST, multiple_of=2)] | None = None
    """edge of the frames in pixels, from the middle of the photographs; null takes all of them, to even sizes"""
    per_photo: Annotated[int, Field(ge=1, le=10_000)] = 1
    """frames of each photograph"""
    downscale: Annotated[float, Field(ge=1)] | None = None
    """how much smaller photographs are made, to be rid of their noise; null is 2 for JPEG and 1 for PNG"""
    motion_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """share of the frames that the camera, or what it saw, moved in; the photographs beside them stay sharp"""
    noise: bool = True
    """whether frames get the camera's noise"""
    exposure_us: Annotated[float, Field(ge=EXPOSURES_US[0], le=EXPOSURES_US[1])] | None = None
    """exposure of all frames in microseconds"""
    iso: Annotated[float, Field(ge=ISOS[0], le=ISOS[1])] | None = None
    """sensitivity of all frames"""
    f_number: Annotated[float, Field(ge=F_NUMBERS[0], le=F_NUMBERS[1])] | None = None
    """f-number of all frames"""
    focal_length_mm: Annotated[float, Field(ge=FOCAL_LENGTHS_MM[0], le=FOCAL_LENGTHS_MM[1])] | None = None
    """focal length of all frames in millimetres"""
    seed: Annotated[int, Field(ge=0)] = 1
    """of everything drawn"""


def make_invert_settings(values: dict[str, Any]) -> InvertSettings:
    """Settings by name. Raises UserError: every problem, in one line."""
    return make_settings(InvertSettings, values, "isp-invert --help")


class RawFrame(NamedTuple):
    """A frame: samples uint16 [H, W], their format, and how it was taken."""

    samples: Samples
    raw_format: RawFormat
    shot: Shot


@dataclass(frozen=True, eq=False)
class Inverter:
    """Makes frames of pictures.

    Attributes:
        network: Pictures to the camera's colours, in evaluation mode.
        profile: The camera.
        settings: What of it is given, and whether there is noise.
    """

    network: InverseISP
    profile: CameraProfile
    settings: InvertSettings

    def frame(self, picture: Picture, *seed: int) -> RawFrame:
        """A frame of a picture, uint8 [H, W, 3] with even sizes, of which all that is drawn follows from the seed.

        Raises:
            UserError: The network gives no numbers, or memory is too small.
        """
        chance = generator(*seed)
        shot = self._shot(chance)
        try:
            colours = self.colours(to_tensor(picture), shot)
        except RuntimeError as error:  # of torch, which has no class of its own for the processor's memory
            if "allocate memory" not in str(error):
                raise
            height, width = picture.shape[:2]
            raise UserError(f"a picture of {width}x{height} does not fit into memory: take less by --crop") from error
        if not bool(torch.isfinite(colours).all()):
            raise UserError("the network gives values that are no numbers: give a checkpoint of a run that went well")
        colours = blur(colours.clamp(min=0.0), draw_kernels(self.settings.motion_rate, 0.0, 1, chance))
        signal = mosaic(colours, self.profile.cfa).clamp(0.0, 1.0)
        return RawFrame(*self._converted(signal, shot, chance), shot)

    @torch.inference_mode()
    def colours(self, picture: Tensor, shot: Shot) -> Tensor:
        """What the camera would give at every pixel, not limited: sRGB [1, 3, H, W] in [0, 1] to float32 of the same
        shape, before white balance, black 0, white 1. Sizes are even, 4 or more."""
        height, width = picture.shape[2:]
        below, right = -height % _MULTIPLE, -width % _MULTIPLE
        told = dict(zip(CAMERA, shot.camera(self.profile.base_iso).tolist(), strict=True))
        optics = torch.tensor([[told[name] for name in OPTICS]])
        matrix = torch.tensor([self.profile.colour_matrix])
        larger = pad(picture, (0, right, 0, below), mode="reflect")
        return self.network(larger, torch.tensor([shot.gains]), matrix, optics)[:, :, :height, :width]

    def _shot(self, chance: torch.Generator) -> Shot:
        drawn = draw_shot(self.profile, chance)
        values = {name: _rounded(getattr(drawn, name)) for name in POSITIVE}
        given = {name: getattr(self.settings, name) for name in POSITIVE}
        values |= {name: value for name, value in given.items() if value is not None}
        red, green, blue = (_rounded(gain) for gain in drawn.gains)
        return drawn._replace(gains=(red, green, blue), **values)

    def _converted(self, signal: Tensor, shot: Shot, chance: torch.Generator) -> tuple[Samples, RawFormat]:
        """A signal [1, H, W] in [0, 1] to whole numbers."""
        profile = self.profile
        black = round(profile.black_level * profile.codes)
        room = profile.codes - black
        if self.settings.noise:
            state = sensor_of(profile, shot, chance)._replace(pedestal=black / room)
            if profile.measured is None:  # rounded once, below: what the sensor rounds to has no black level
                state = state._replace(steps=torch.full((1,), torch.inf))
            signal = add_noise(signal, state, profile.cfa, chance)
        codes = np.rint(black + signal[0].double().numpy() * room).clip(0, profile.codes).astype(np.uint16)
        # whole bytes hold no 14 bits: the white level tells them
        depth = 16 if profile.bits == 14 else profile.bits
        height, width = codes.shape
        return codes, RawFormat(width, height, f"Bayer{profile.cfa[:2]}{depth}", black, profile.codes)


def make_inverter(checkpoint: Checkpoint, path: Path, profile: CameraProfile, settings: InvertSettings) -> Inverter:
    """What makes frames, of a checkpoint that was read from `path`.

    Raises:
        UserError: The checkpoint is of another network.
    """
    network = checkpoint.network
    network = network.back if isinstance(network, BothISPs) else network
    if not isinstance(network, InverseISP):
        raise UserError(
            f"{path} is of {checkpoint.model} in the form {network.form}, which makes no frames of pictures: give a "
            "checkpoint of paramisp in the form inverse or cycle"
        )
    return Inverter(network.eval(), profile, settings)


def invert_photos(
    photos: Sequence[Path],
    network: Path,
    profile: CameraProfile,
    settings: InvertSettings,
    output: Path,
    *,
    replace: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[int, int]:
    """Make frames of photographs.

    Args:
        photos: Files, and folders that are looked through.
        network: Checkpoint of paramisp, of the form inverse or cycle.
        profile: The camera.
        settings: How.
        output: The folder to write, empty or not there.
        replace: Replace it if it holds such frames.
        tell: Is given a line for every frame.

    Returns:
        How many photographs, and how many frames.

    Raises:
        UserError: No such photographs or checkpoint, a photograph is damaged or too small, or the folder cannot be
            written.
    """
    checkpoint = load_checkpoint(network)
    inverter = make_inverter(checkpoint, network, profile, settings)
    files = find_all(photos)[: settings.count]
    names = _names(files, settings.per_photo)
    notes: dict[str, Any] = {}
    with WholeFolder(output, "isp-invert", RECORD, replace=replace) as whole:
        for number, file in enumerate(files):
            picture = _piece(read_photo(file.path, settings.downscale), settings.crop, str(file.path))
            for which, name in enumerate(names[number]):
                frame = inverter.frame(picture, settings.seed, number, which)
                note = note_of(frame.shot, profile, file.name)
                camera = {key: note[key] for key in CAMERA}
                for part, content in encode_frame(f"{name}.png", *frame[:2], camera).items():
                    whole.write(f"raw/{part}", content)
                whole.write(f"rgb/{name}.png", encode_png(picture))
                notes[name] = note
                tell(_line(name, frame))
        whole.write(NOTES, json.dumps(notes, indent=1) + "\n")
        whole.write(RECORD, json.dumps(_record(inverter, checkpoint, network, photos), indent=1) + "\n")
    return len(files), len(notes)


def find_all(photos: Sequence[Path]) -> list[PhotoFile]:
    """Photographs by files and folders. Raises UserError: one is not there, or is none."""
    found: list[PhotoFile] = []
    for path in photos:
        if path.is_dir():
            found += find_photos(path)
        elif not path.is_file():
            raise UserError(f"there is no photograph {path}: give JPEG or PNG files, or folders of them")
        elif path.suffix.lower() not in JPEG + PNG:
            raise UserError(f"{path} is no photograph: give JPEG or PNG files, or folders of them")
        else:
            found.append(PhotoFile(path.name, path))
    return found


def note_of(shot: Shot, profile: CameraProfile, group: str) -> dict[str, Any]:
    """What pairs.json says of a frame of the photograph `group`."""
    camera = {name: _rounded(value) for name, value in zip(CAMERA, shot.camera(profile.base_iso).tolist(), strict=True)}
    camera |= {name: getattr(shot, name) for name in POSITIVE}
    matrix = [value for row in profile.colour_matrix for value in row]
    return {"group": group, "gains": list(shot.gains), **camera, "matrix": matrix}


def _names(files: Sequence[PhotoFile], per_photo: int) -> list[list[str]]:
    """Of the frames of each photograph. Raises UserError: two frames would have the same."""
    stems = [safe(Path(file.name).with_suffix("").as_posix().replace("/", "_")) for file in files]
    names = [[stem] if per_photo == 1 else [f"{stem}_{k + 1}" for k in range(per_photo)] for stem in stems]
    seen: dict[str, PhotoFile] = {}
    for file, each in zip(files, names, strict=True):
        for name in each:
            other = seen.setdefault(name, file)
            if other is not file:
                raise UserError(f"{other.path} and {file.path} would both be written as {name}; rename one of them")
    return names


def _piece(picture: Picture, crop: int | None, where: str) -> Picture:
    """The middle of a photograph, or all of it, cut to even sizes. Raises UserError: it is too small."""
    if crop is not None:
        return middle(picture, crop, where)
    height, width = (size // 2 * 2 for size in picture.shape[:2])
    if min(height, width) < LEAST:
        raise UserError(f"{where} is {width}x{height}, made smaller as asked: a frame has {LEAST}x{LEAST} pixels")
    return picture[:height, :width]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _line(name: str, frame: RawFrame) -> str:
    shot, size = frame.shot, f"{frame.raw_format.width}x{frame.raw_format.height}"
    white = f"white balance {shot.gains[0]:.2f} {shot.gains[2]:.2f}"
    taken = f"{shot.exposure_us:.4g} us, ISO {shot.iso:.0f}, f/{shot.f_number:.3g}, {shot.focal_length_mm:.3g} mm"
    return f"{name}: {size}, {taken}, {white}"


def _record(inverter: Inverter, checkpoint: Checkpoint, path: Path, photos: Sequence[Path]) -> dict[str, Any]:
    digest = ""
    with suppress(OSError):  # it was read before
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "command": "isp-invert",
        "version": code_version(),
        "photos": [str(each) for each in photos],
        "settings": inverter.settings.model_dump(mode="json", include=set(InvertSettings.model_fields)),
        "network": {
            "file": str(path),
            "sha256": digest,
            "model": checkpoint.model,
            **{name: getattr(checkpoint, name) for name in ("options", "run", "data", "licence")},
        },
        "profile": inverter.profile.model_dump(mode="json"),
    }
