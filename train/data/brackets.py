"""Folders of exposure brackets, and of radiance files, as light of scenes.

    ROOT/SCENE/*.png *.jpg *.tif       pictures of one still scene at different exposures, 8 or 16 bits
    ROOT/SCENE/exposures.json          their exposure times: {"1.png": 0.004, "2.png": "1/60", ...}, in seconds
    ROOT/SCENE/exposures.txt           or lines such as: 1.png 0.004
    ROOT/SCENE/*.hdr *.exr             radiance that was merged elsewhere; these may lie in ROOT itself, too

Without either list the exposure times are those of the EXIF.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...engines.errors import UserError, reason
from ..curves import LUMA
from ..protocols import opencv
from .bracket_merge import Merging, Shown, merged
from .exif import picture_exposure_us
from .photos import PhotoFile, Photos
from .raw_pair import JPEG, PNG, Picture
from .tonemap import Light

PICTURES = (*PNG, *JPEG, ".tif", ".tiff")
RADIANCE = (".hdr", ".exr")
LISTS = ("exposures.json", "exposures.txt")

_KEY = 0.18
"""What the geometric mean of the luminance of a radiance file, whose scale is not known, is brought to."""

_WHAT = "reading brackets"


@dataclass(frozen=True)
class BracketScene(PhotoFile):
    """A scene on disk.

    Attributes:
        name: Its folder's, below the root; of a radiance file the file's.
        path: The folder, or the radiance file.
        files: Its pictures, or the radiance file alone.
        lists: What else is read for it.
    """

    files: tuple[Path, ...] = ()
    lists: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of its files."""
        return *self.files, *self.lists

    @property
    def group(self) -> str:
        """What lies in one folder shows one scene."""
        return self.name.rpartition("/")[0] if self.is_radiance and "/" in self.name else self.name

    @property
    def is_radiance(self) -> bool:
        """There is nothing to merge."""
        return self.path in self.files


def find_brackets(root: Path) -> list[BracketScene]:
    """All scenes of a folder, by name. Nothing is decoded.

    Raises:
        UserError: No such folder, no scenes in it, or pictures that lie in none.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: give one that holds a folder of pictures for each scene")
    loose = _files(root, PICTURES)
    if loose:
        raise UserError(
            f"{root} holds pictures itself, such as {loose[0].name}: each bracket is a folder of its own in it, such "
            f"as {root.name}/scene/{loose[0].name}"
        )
    scenes = _radiance_scenes(root, root)
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        pictures = _files(folder, PICTURES)
        if pictures:
            lists = tuple(folder / name for name in LISTS if (folder / name).is_file())
            scenes.append(BracketScene(folder.name, folder, tuple(pictures), lists))
        scenes += _radiance_scenes(folder, root)
    if not scenes:
        endings = ", ".join(f"*{suffix}" for suffix in (*PICTURES, *RADIANCE))
        raise UserError(f"{root} holds no brackets: folders with {endings} are looked for in it")
    return scenes


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def _radiance_scenes(folder: Path, root: Path) -> list[BracketScene]:
    return [BracketScene(path.relative_to(root).as_posix(), path, (path,)) for path in _files(folder, RADIANCE)]


def read_scene(scene: BracketScene, merging: Merging | None = None) -> Light:
    """The light of a scene.

    Args:
        scene: Of `find_brackets`.
        merging: None is `Merging()`.

    Returns:
        float32 [H, W, 3], linear, 0 or more: 1 is the white of the middle exposure of a bracket; radiance files are
        brought to a geometric mean of 0.18.

    Raises:
        UserError: A file is damaged, exposure times are missing, or as `bracket_merge.merged` raises.
    """
    if scene.is_radiance:
        return _read_radiance(scene.path)
    seconds = exposure_times(scene)
    shown = [Shown(path.name, seconds[path.name], _read_codes(path)) for path in scene.files]
    return merged(f"the bracket {scene.path}", shown, merging)


# ---- exposure times ----------------------------------------------------------------------------------------


def exposure_times(scene: BracketScene) -> dict[str, float]:
    """Exposure times in seconds by the names of the pictures. Raises UserError: one is missing, or wrong."""
    told = _listed(scene.lists[0]) if scene.lists else {path.name: _of_exif(path) for path in scene.files}
    missing = [path.name for path in scene.files if told.get(path.name) is None]
    if missing:
        where = scene.lists[0] if scene.lists else "the EXIF"
        raise UserError(
            f"the bracket {scene.path} has no exposure time for {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
            + f": {where} tells none; write {scene.path / LISTS[0]} with "
            + json.dumps({missing[0]: 0.004})
            + ", in seconds, for all pictures"
        )
    names = {path.name for path in scene.files}
    for name in told:
        if name not in names:
            raise UserError(f"{scene.lists[0]} names {name}, which is not there: correct the name, or take it out")
    return {name: value for name, value in told.items() if value is not None}


def _of_exif(path: Path) -> float | None:
    told = picture_exposure_us(path)
    return None if told is None else told / 1e6


def _listed(path: Path) -> dict[str, float | None]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            entries = json.loads(text)
            pairs = list(entries.items()) if isinstance(entries, dict) else None
        else:
            lines = [line.strip() for line in text.splitlines()]
            pairs = [line.rsplit(maxsplit=1) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    if pairs is None or any(len(pair) != 2 for pair in pairs):
        kind = '{"1.png": 0.004, ...}' if path.suffix == ".json" else "a file and its seconds on each line"
        raise UserError(f"{path} is not as it should be: it is {kind}")
    return {name: _seconds(path, name, value) for name, value in pairs}


def _seconds(path: Path, name: str, value: Any) -> float:
    """Of a number, or a text such as 1/60. Raises UserError: it is none above 0."""
    try:
        seconds = float(Fraction(value)) if isinstance(value, (str, int, float)) and value is not True else 0.0
    except (ValueError, ZeroDivisionError, OverflowError):
        seconds = 0.0
    if seconds <= 0:
        raise UserError(
            f"{path} gives {name} an exposure time of {value!r}: it is a number of seconds above 0, or 1/60"
        )
    return seconds


# ---- files -------------------------------------------------------------------------------------------------


def _decoded(path: Path) -> npt.NDArray[Any]:
    """[H, W, 3], red first, of any depth. Raises UserError: the file is damaged, or of a kind that is not read."""
    cv2 = opencv(_WHAT)
    try:
        values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        raise _unreadable(path, reason(error)) from error
    if values is None:
        raise _unreadable(path, "it is damaged, or none of its kind")
    if values.ndim == 2:
        values = values[..., None]
    colours = values[..., [2, 1, 0]] if values.shape[2] >= 3 else values[..., [0, 0, 0]]
    return np.ascontiguousarray(colours)


def _unreadable(path: Path, why: str) -> UserError:
    if path.suffix.lower() == ".exr":
        return UserError(
            f"{path} cannot be read: this OpenCV reads no OpenEXR, which has to be built in and allowed by "
            "OPENCV_IO_ENABLE_OPENEXR=1, or the file is damaged; convert it to .hdr"
        )
    return UserError(f"{path} cannot be read: {why}; copy it again")


def _read_codes(path: Path) -> npt.NDArray[Any]:
    codes = _decoded(path)
    if codes.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path} has samples of {codes.dtype}: pictures of a bracket have 8 or 16 bits")
    return codes


def _read_radiance(path: Path) -> Light:
    light = _decoded(path).astype(np.float32)
    if not np.isfinite(light).all():
        raise UserError(f"{path} has samples that are infinite or NaN: write it again without them")
    light = np.maximum(light, 0)  # colours outside sRGB
    luminance = light @ np.array(LUMA, np.float32)
    lit = luminance[luminance > 0]
    if not lit.size:
        raise UserError(f"{path} is all black: there is no light to show; leave it out")
    return light * np.float32(_KEY / np.exp(np.log(lit.astype(np.float64)).mean()))


class Brackets(Photos):
    """Light of brackets and radiance files, in place of photographs: pieces of it by seed, epoch and index."""

    def __init__(
        self, root: Path, merging: Merging | None = None, files: Sequence[BracketScene] | None = None, **options: Any
    ) -> None:
        """Nothing is read yet.

        Args:
            root: See `find_brackets`.
            merging: How brackets are merged; None is `Merging()`.
            files: Which of its scenes; None for all.
            options: crop, augment, repeats, downscale (None is 1), multiple, seed and cache_bytes of `Photos`.

        Raises:
            UserError: No scenes, or a value out of range.
        """
        super().__init__(root, files=find_brackets(root) if files is None else files, **options)
        self._merging = merging or Merging()

    def photo(self, index: int) -> tuple[Tensor, torch.Generator]:
        """Light of a scene, or of a piece of one, float32 [3, H, W], and chance for the rest of the sample.

        Raises:
            IndexError: There is no such sample.
            UserError: As `read_scene` raises, or the scene is smaller than a piece.
        """
        return super().photo(index)

    def _read(self, index: int) -> Picture:
        """float32, though: `Photos` asks for no more than its shape."""
        kept = self._cache.get(index)
        if kept is None:
            light = read_scene(cast(BracketScene, self._files[index]), self._merging)
            kept = cast(Picture, light if self._downscale in (None, 1) else self._smaller(light))
            self._cache.put(index, kept, kept.nbytes)
        return kept

    def _smaller(self, light: Light) -> Light:
        cv2, (height, width) = opencv(_WHAT), light.shape[:2]
        size = [max(1, round(edge / (self._downscale or 1))) for edge in (width, height)]
        return cv2.resize(light, size, interpolation=cv2.INTER_AREA)
