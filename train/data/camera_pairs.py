"""Raw frames of ordinary cameras with the pictures that the cameras made of them, and what their EXIF tells.

    ROOT/raw/NAME.dng | .nef | .arw ...    or all in ROOT itself
    ROOT/rgb/NAME.jpg | .png
    ROOT/exif.json, ROOT/raw/NAME.json     what exiftool tells; may be missing, see `exif`

Filter array, levels, white balance and colours are those of the raw file, as LibRaw reads them (package rawpy).
Exposure, sensitivity, aperture and focal length are those of the EXIF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...engines.bayer import RawFormat
from ...engines.colour import is_invertible
from ...engines.errors import UserError
from .dng import CAMERA_SUFFIXES, CameraRaw, read_camera_raw
from .exif import WRITES_LIST, Told, listed_exif, read_exif, read_model, sidecar_exif
from .raw_pair import JPEG, PNG, Layout, Matrix, PairFiles, Picture, RawPair, Samples, make_pair, read_picture

LIST = "exif.json"
"""What exiftool tells of all files."""

MOST_MARGIN = 64
"""By how many pixels of a row or column a frame and the camera's picture may differ: cameras leave out a margin that
they need for demosaicing, of some 8 to 30."""

_LAYOUT = Layout(
    "a folder of a camera's frames and pictures", "raw/NAME.dng|.nef|... with rgb/NAME.jpg|.png, or all in one folder"
)


def how_to_get() -> str:
    """How to lay out frames and pictures of one's own."""
    return (
        "A folder of your own, from a camera that writes RAW and JPEG (in sRGB): frames in raw/ (NAME.dng, .nef, .cr2, "
        ".arw ...), the camera's pictures in rgb/ (NAME.jpg or .png), or all in one folder. Exposure time, ISO, "
        "f-number and focal length are read from their EXIF, or from exif.json in the folder, which "
        f"{WRITES_LIST} writes (https://exiftool.org); what is missing is not known."
    )


@dataclass(frozen=True)
class CameraPairs:
    """Pairs in `root`.

    Attributes:
        root: The folder.
        camera: Only frames of this model, as EXIF names it, with or without the maker, in any case; "" for all.
        split: A folder in `root`, such as train or val, that is laid out so; "" where `root` itself is.
        group: How many characters of a name tell the scene (pairs of one scene are not torn apart); 0 for all of them.
    """

    root: Path
    camera: str = ""
    split: str = ""
    group: int = 0

    def files(self) -> list[PairFiles]:
        """Its pairs.

        Raises:
            UserError: Another layout, files without a partner, a list that names none of them, no frame of the camera,
                or EXIF that cannot be read.
        """
        base = self.root / self.split
        apart = (base / "raw").is_dir()
        raw, target = (_LAYOUT.folder(base, name if apart else "") for name in ("raw", "rgb"))
        partners = _LAYOUT.partners(raw, target, CAMERA_SUFFIXES, (*JPEG, *PNG))
        files = [
            PairFiles(stem, *paths, group=stem[: self.group or None], extra=(*self._lists(), *_sidecar(paths[0])))
            for stem, paths in partners.items()
        ]
        for path in self._lists():
            if not any(listed_exif(path, (each.raw, each.target)) for each in files):
                raise UserError(f"{path} names no file of {base}: write it again, in that folder, with {WRITES_LIST}")
        return self._of_camera(files) if self.camera else files

    def load(self, files: PairFiles) -> RawPair:
        """A pair.

        Raises:
            UserError: A damaged file, sizes that differ, a sensor without a Bayer filter, no colour matrix or one that
                cannot be inverted, or EXIF that no camera has.
        """
        taken = read_exif(files.raw, files.target, _notes(files))
        raw = read_camera_raw(files.raw)
        matrix = _checked_matrix(files, raw)
        samples, fmt, target = _same_area(files, raw, read_picture(files.target))
        pair = make_pair(files, samples, fmt, target, raw.gains)
        return replace(pair, matrix=matrix, **asdict(taken))

    def _lists(self) -> tuple[Path, ...]:
        """The list of the split, and else that of all."""
        paths = (self.root / self.split / LIST, self.root / LIST)
        return tuple(path for path in paths if path.is_file())[:1]

    def _of_camera(self, files: Sequence[PairFiles]) -> list[PairFiles]:
        models = {each.name: read_model(each.raw, each.target, _notes(each)) for each in files}
        chosen = [each for each in files if _is_model(self.camera, *models[each.name])]
        if not chosen:
            there = ", ".join(sorted({" ".join(names).strip() for names in models.values()} - {""}))
            raise UserError(
                f"{self.root / self.split} has no frames of the camera {self.camera!r}: "
                + (f"choose one of {there}" if there else "no file tells its camera, leave the option out")
            )
        return chosen


def _sidecar(raw: Path) -> tuple[Path, ...]:
    path = raw.with_suffix(".json")
    return (path,) if path.is_file() else ()


def _notes(files: PairFiles) -> list[Told]:
    """What counts before the EXIF of the files."""
    notes: list[Told] = []
    for path in files.extra:
        notes += listed_exif(path, (files.raw, files.target)) if path.name == LIST else [sidecar_exif(path)]
    return notes


def _is_model(wanted: str, make: str, model: str) -> bool:
    """Whether a camera is called so: NIKON D7000 of NIKON CORPORATION is also D7000 and nikon corporation d7000."""
    wanted, make, model = (" ".join(text.casefold().split()) for text in (wanted, make, model))
    brand = make.partition(" ")[0]
    own = model.removeprefix(brand).strip() or model
    return bool(model) and wanted in (model, own, f"{make} {model}", f"{make} {own}", f"{brand} {own}")


def _checked_matrix(files: PairFiles, raw: CameraRaw) -> Matrix:
    """Camera RGB after white balance to linear sRGB: float32 [3, 3]. Raises UserError: none, or of no use."""
    matrix = raw.srgb_from_camera
    if matrix is None:
        raise UserError(
            f"{files.raw} has no colour matrix, and LibRaw knows none of its camera: convert it to DNG with a "
            "converter that knows the camera, or leave it out"
        )
    if not is_invertible(matrix):
        numbers = " ".join(f"{value:.4g}" for value in matrix.ravel())
        raise UserError(
            f"the colour matrix of {files.raw} cannot be inverted (camera to sRGB is {numbers}): correct its "
            "ColorMatrix tags, or leave the file out"
        )
    return matrix.astype(np.float32)


def _same_area(files: PairFiles, raw: CameraRaw, picture: Picture) -> tuple[Samples, RawFormat, Picture]:
    """Frame and picture without the margin that one of them has more, the same on either side.

    Raises:
        UserError: They differ by more than `MOST_MARGIN`.
    """
    sizes = np.array([raw.samples.shape, picture.shape[:2]])
    if np.ptp(sizes, axis=0).max() > MOST_MARGIN:
        (height, width), (rows, columns) = sizes.tolist()
        turned = np.ptp([sizes[0], sizes[1, ::-1]], axis=0).max() <= MOST_MARGIN
        raise UserError(
            f"{files.raw} is {width}x{height}, but its picture {files.target} is {columns}x{rows}: "
            + ("it was turned after it was taken, " if turned else "it was made smaller or cut, ")
            + "give the camera's own"
        )
    height, width = sizes.min(0).tolist()
    (top, left), (up, aside) = ((sizes - sizes.min(0)) // 2).tolist()
    fmt = raw.raw_format
    row = "".join(fmt.cfa[top % 2 * 2 + (left + x) % 2] for x in range(2))
    cut = RawFormat(width, height, f"Bayer{row}16", fmt.black_level, fmt.white_level)
    samples = np.ascontiguousarray(raw.samples[top : top + height, left : left + width])
    return samples, cut, np.ascontiguousarray(picture[up : up + height, aside : aside + width])
