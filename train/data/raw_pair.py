"""A raw frame with the picture it should give, and what the readers of paired data sets share.

A reader is a small object for one data set in the layout it is published in: `files` lists its pairs, `load` decodes
one of them. Reading is cheap to start: nothing is decoded before `load`.
"""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image

from ...engines.bayer import RawFormat
from ...engines.errors import UserError, reason
from ...engines.inputs import CAMERA
from ...engines.raw_files import RawFrames, load_raw

Samples = npt.NDArray[np.uint16]
Picture = npt.NDArray[np.uint8]
Gains = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]

PNG, JPEG = (".png",), (".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class RawPair:
    """A decoded pair.

    Attributes:
        name: Which pair of its data set.
        samples: uint16 [H, W], DN of the format.
        raw_format: Of the samples; Bayer.
        target: uint8 [H, W, 3], sRGB, pixel for pixel over the samples.
        gains: float32 [3], the white balance that the data set tells, green 1; None where it tells none.
        mask: uint8 [H, W], how much each place of the target counts, 255 for all of it; None where each counts.
        exposure_us: The exposure that the data set tells, in microseconds; None where it tells none.
        gain_db: The camera's gain that the data set tells, in dB; None where it tells none.
        iso, f_number, focal_length_mm: Sensitivity, f-number and focal length in millimetres, likewise.
        matrix: float32 [3, 3], the camera's colours after white balance to linear sRGB, that the data set tells; None
            where it tells none.
    """

    name: str
    samples: Samples
    raw_format: RawFormat
    target: Picture
    gains: Gains | None = None
    mask: Mask | None = None
    exposure_us: float | None = None
    gain_db: float | None = None
    iso: float | None = None
    f_number: float | None = None
    focal_length_mm: float | None = None
    matrix: Matrix | None = None

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self.samples.nbytes + self.target.nbytes + (0 if self.mask is None else self.mask.nbytes)

    def camera(self, otherwise: Sequence[float] = ()) -> tuple[float, ...]:
        """What is known of the camera; those given where the data set tells none. See `camera_row`."""
        return camera_row({name: getattr(self, name) for name in CAMERA}, otherwise)


def camera_row(told: Mapping[str, float | None], otherwise: Sequence[float] = ()) -> tuple[float, ...]:
    """What is known of the camera, the columns of `engines.inputs.CAMERA`; what is not known is 0.

    Args:
        told: By the names of the columns; None is not told.
        otherwise: What holds where nothing is told, for all columns or the first ones.
    """
    given = dict(zip(CAMERA, otherwise, strict=False))
    known = {**dict.fromkeys(CAMERA, 0.0), **given, **{key: value for key, value in told.items() if value is not None}}
    return tuple(float(known[name]) for name in CAMERA)


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair.

    Attributes:
        name: Unlike any other of the data set.
        raw: The raw frame.
        target: The picture.
        group: Equal for pairs that show the same scene and must not be torn apart between training and validation.
        extra: What else is read for it.
        part: Which of the pieces that the two files are cut into, from 0; None for all of them.
    """

    name: str
    raw: Path
    target: Path
    group: str
    extra: tuple[Path, ...] = ()
    part: int | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return self.raw, self.target, *self.extra


class PairReader(Protocol):
    """A data set on disk."""

    def files(self) -> list[PairFiles]:
        """Its pairs, in a fixed order, at least one. Raises UserError: the folder is not laid out as expected."""
        ...

    def load(self, files: PairFiles) -> RawPair:
        """Decode a pair. Raises UserError: a file is damaged, or the two do not go together."""
        ...


# ---- folders -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What a data set is called and how its folders must look, for the sentence about a folder that does not."""

    title: str
    tree: str

    def folder(self, root: Path, name: str) -> Path:
        """The folder `name` below `root`. Raises UserError: it is not there."""
        if not (root / name).is_dir():
            raise self.missing(root, name)
        return root / name

    def missing(self, root: Path, name: str) -> UserError:
        """What to raise where the folder `name` below `root` is not there."""
        if not root.is_dir():
            return UserError(f"there is no folder {root}: give the one that holds {self.title} ({self.tree})")
        return UserError(f"{root} has no folder {name}: {self.title} is expected to be laid out as {self.tree}")

    def partners(
        self,
        raw: Path,
        target: Path,
        raw_suffixes: Sequence[str],
        target_suffixes: Sequence[str],
        *,
        one_to_one: bool = True,
    ) -> dict[str, tuple[Path, Path]]:
        """Frames and pictures of the same stem; with `one_to_one` there may be no picture without a frame either.

        Raises:
            UserError: A folder is empty, or a file has no partner.
        """
        frames, pictures = self.by_stem(raw, raw_suffixes), self.by_stem(target, target_suffixes)
        _no_strays(raw, frames, target, pictures)
        if one_to_one:
            _no_strays(target, pictures, raw, frames)
        return {stem: (path, pictures[stem]) for stem, path in sorted(frames.items())}

    def by_stem(self, folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
        """The files of a folder that have one of these endings, by name without it.

        Raises:
            UserError: There is none, or two have the same name.
        """
        found: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in suffixes or path.name.startswith("."):
                continue
            if path.stem in found:
                raise UserError(f"{folder} holds both {found[path.stem].name} and {path.name}: remove one of the two")
            found[path.stem] = path
        if not found:
            endings = " or ".join(f"*{suffix}" for suffix in suffixes)
            raise UserError(f"{folder} holds no {endings}: {self.title} is expected to be laid out as {self.tree}")
        return found


def _no_strays(folder: Path, files: Mapping[str, Path], other: Path, partners: Mapping[str, Path]) -> None:
    strays = [path.name for stem, path in files.items() if stem not in partners]
    if strays:
        raise UserError(
            f"{len(strays)} of {len(files)} files in {folder} have no partner of the same name in {other}, the "
            f"first is {strays[0]}: unpack both again, or remove what is left over"
        )


# ---- files -------------------------------------------------------------------------------------------------


def read_frame(path: Path, *, part: int | None = None, **keys: Any) -> tuple[Samples, RawFormat, dict[str, float]]:
    """A frame of a file: samples uint16 [H, W], their format, and what it tells of `engines.inputs.CAMERA`.

    Args:
        path: See `engines.raw_files`.
        part: Which of its frames; None for a file that has one.
        keys: What is known of its samples (format, black, white, width, height) and of the camera (exposure_us,
            gain_db, iso, f_number, focal_length_mm); what is needed and not here, a sidecar must tell.

    Raises:
        UserError: The file is damaged, not what was said, or holds several frames.
    """
    spec = f"{path}?{urllib.parse.urlencode(keys)}" if keys else str(path)
    if part is not None and path.suffix.lower() == ".npy":
        facts, frame = _facts_of(spec, _states(path)), open_array(path)[part]
    else:
        frames = load_raw(spec)
        if part is None and len(frames.samples) != 1:
            raise UserError(f"{path} holds {len(frames.samples)} frames, but one is wanted: check its width and height")
        facts, frame = _facts(frames), frames.samples[part or 0]
    if frame.dtype.itemsize == 1 and facts.raw_format.depth > 8:  # an array: other files are refused before
        name = facts.raw_format.pixel_format
        raise UserError(f"{path} has samples of 8 bits, which are not {name}: correct the format")
    told = dict(zip(CAMERA, facts.camera[part or 0].tolist(), strict=True))
    known = {name: value for name, value in told.items() if not math.isnan(value)}
    return frame.astype(np.uint16), facts.raw_format, known


def open_array(path: Path) -> npt.NDArray[Any]:
    """The array in a file, of which nothing is read but what is looked at. Raises UserError: it cannot be read."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}; copy it again") from error
    if not isinstance(found, np.ndarray):  # several arrays, whatever the file is called
        found.close()
        raise UserError(f"{path} is an archive of arrays (npz), not one array; save the frames with numpy.save")
    return found


class _Facts(NamedTuple):
    """What is known of the frames of a file: their format, and float32 [frames, 5], the columns of `CAMERA`."""

    raw_format: RawFormat
    camera: npt.NDArray[np.float32]


def _facts(frames: RawFrames) -> _Facts:
    return _Facts(frames.raw_format, np.concatenate([frames.camera, frames.optics], axis=1))


@lru_cache(maxsize=64)
def _facts_of(spec: str, states: tuple[tuple[int, int], ...]) -> _Facts:
    """Of a file in these states. It is read and checked whole, but once, not again for each of its frames."""
    return _facts(load_raw(spec))


def _states(path: Path) -> tuple[tuple[int, int], ...]:
    """When a file and its sidecar were changed last, and their sizes."""
    beside = path.with_name(f"{path.name}.yaml")
    found = [each.stat() for each in (path, beside) if each.is_file()]
    return tuple((state.st_mtime_ns, state.st_size) for state in found)


def read_mosaic(path: Path, **keys: Any) -> tuple[Samples, RawFormat]:
    """`read_frame` without what it tells of the camera."""
    return read_frame(path, **keys)[:2]


def read_picture(path: Path) -> Picture:
    """An RGB picture, uint8 [H, W, 3], as its pixels are stored: a camera's note on orientation is not followed.

    Raises:
        UserError: The file is damaged or no RGB picture.
    """
    try:
        with PIL.Image.open(path) as image:
            if image.mode != "RGB":
                raise UserError(f"{path} is a picture of mode {image.mode}: the target of a pair is RGB of 8 bits")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # PIL reports a broken chunk as SyntaxError
        raise UserError(f"{path} cannot be read: {reason(error)}; copy it again") from error


def make_pair(
    files: PairFiles,
    samples: Samples,
    raw_format: RawFormat,
    target: Picture,
    gains: Gains | None = None,
    *,
    mask: Mask | None = None,
    apart: bool = False,
) -> RawPair:
    """Put a pair together.

    Args:
        files, samples, raw_format, target, gains, mask: See `RawPair`.
        apart: The target need not lie over the frame, nor be as large: it is still to be aligned.

    Raises:
        UserError: The two differ in size, or the frame has no colours.
    """
    if raw_format.cfa == "MONO":
        raise UserError(f"{files.raw} holds {raw_format.pixel_format}, which has no colours; give Bayer frames")
    if samples.shape != target.shape[:2] and not apart:
        height, width = samples.shape
        raise UserError(
            f"{files.raw} is {width}x{height}, but its picture {files.target} is {target.shape[1]}x{target.shape[0]}: "
            "the two of a pair must lie on each other pixel for pixel"
        )
    return RawPair(files.name, samples, raw_format, target, gains, mask)


def one_black(samples: Samples, blacks: npt.ArrayLike, white: float) -> tuple[Samples, float, float]:
    """Bring the four sites of a mosaic to one black level, the lowest, because a `RawFormat` has but one.

    Args:
        samples: uint16 [H, W].
        blacks: [2, 2], the black level of each site, in DN.
        white: The level of saturation, in DN.

    Returns:
        Samples, black level and white level: the lowest that any of the sites now saturates at.
    """
    levels = np.asarray(blacks, np.float64)
    steps = np.rint(levels - levels.min()).astype(np.uint16)
    if not steps.any():
        return samples, float(levels.min()), white
    shifted = samples.copy()
    for (y, x), step in np.ndenumerate(steps):
        site = shifted[y::2, x::2]
        site[:] = np.maximum(site, step) - step
    return shifted, float(levels.min()), white - float(steps.max())
