"""SIDD, the Smartphone Image Denoising Dataset (Abdelhamed et al., CVPR 2018): five phones' noisy frames with pictures.

    ROOT/SIDD_Medium_Raw/Data/0001_001_S6_00100_00060_3200_L/0001_NOISY_RAW_010.MAT
                                                             0001_METADATA_RAW_010.MAT
    ROOT/SIDD_Medium_Srgb/Data/0001_001_S6_00100_00060_3200_L/0001_GT_SRGB_010.PNG

The scenes may as well all lie in ROOT/Data, or in ROOT itself, and the full set has a folder of each kind of file
(`0001_NOISY_RAW`) in every scene. A pair is a noisy frame with the picture that the authors rendered from the clean
one. The clean frames, and the noisy pictures, are not read.

A frame is a MATLAB 7.3 file (package h5py) that holds `x`, the light with black at 0 and white at 1; it becomes
samples of 16 bits above a pedestal, because noise goes below black. The metadata is an older MATLAB file (package
scipy), of which `AsShotNeutral` gives the white balance. The phone in the scene's name tells the filter array.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from .raw_pair import Gains, Layout, PairFiles, Picture, RawPair, Samples, make_pair, read_picture

CFA = {"GP": "BG", "IP": "RG", "S6": "GR", "N6": "BG", "G4": "BG"}
"""The first two letters of the filter array, as PFNC has them, by phone."""

PEDESTAL = 1 << 12
"""Black level of the samples, in DN of 16 bits."""

_WHITE = (1 << 16) - 1
_SCENE = re.compile(r"(\d{4})_(\d{3})_(GP|IP|S6|N6|G4)_\d{5}_\d{5}_\d{4}_[LNH]", re.IGNORECASE)
_FILE = re.compile(r"(?:\d{4}_)?(NOISY_RAW|METADATA_RAW|GT_SRGB)_(\d{3})\.(?:MAT|PNG)", re.IGNORECASE)
_WHERE = (
    ("SIDD_Medium_Raw/Data", "SIDD_Medium_Srgb/Data"),
    ("SIDD_Small_Raw_Only/Data", "SIDD_Small_sRGB_Only/Data"),
    ("Data", "Data"),
    (".", "."),
)
_LAYOUT = Layout(
    "SIDD",
    "SIDD_Medium_Raw/Data/SCENE/*_NOISY_RAW_*.MAT and *_METADATA_RAW_*.MAT with "
    "SIDD_Medium_Srgb/Data/SCENE/*_GT_SRGB_*.PNG, where SCENE is like 0001_001_S6_00100_00060_3200_L",
)
_SURER = 0.02
"""By how much more a turned picture must be like its frame than one that is not turned."""


def how_to_get() -> str:
    """Where the data set is and how to unpack it."""
    return (
        "SIDD: https://www.eecs.yorku.ca/~kamel/sidd/dataset.php. Unpack both SIDD-Medium Raw-RGB and SIDD-Medium sRGB "
        "into one folder, which then holds SIDD_Medium_Raw/ and SIDD_Medium_Srgb/. Its page has the terms. Reading it "
        "needs two packages more: pip install h5py scipy."
    )


@dataclass(frozen=True)
class Sidd:
    """The data set in `root`. It has no split of its own; scenes (of which there are ten) are groups."""

    root: Path

    def files(self) -> list[PairFiles]:
        """Its pairs. Raises UserError: another layout, or frames without metadata or picture."""
        raw_root, target_root = self._roots()
        scenes = sorted(path for path in raw_root.iterdir() if path.is_dir() and _SCENE.fullmatch(path.name))
        if not scenes:
            raise UserError(f"{raw_root} holds no scenes: {_LAYOUT.title} is expected to be laid out as {_LAYOUT.tree}")
        found = [pair for scene in scenes for pair in _pairs(scene, target_root / scene.name)]
        if not found:
            raise UserError(f"the scenes in {raw_root} hold no *_NOISY_RAW_*.MAT: SIDD is expected as {_LAYOUT.tree}")
        return found

    def load(self, files: PairFiles) -> RawPair:
        """A pair, with gains. Raises UserError: a damaged file, sizes that differ, or a package that is missing."""
        samples, target = _read_frame(files.raw), read_picture(files.target)
        target = _turned(target, samples)
        scene = _SCENE.fullmatch(files.name.split("/")[0])
        if scene is None:
            raise UserError(f"{files.name} is no pair of SIDD: a pair is one of those that `files` lists")
        height, width = samples.shape
        fmt = RawFormat(width, height, f"Bayer{CFA[scene[3].upper()]}16", PEDESTAL)
        return make_pair(files, samples, fmt, target, _read_gains(files.extra[0]))

    def _roots(self) -> tuple[Path, Path]:
        if self.root.is_dir():
            for raw, target in _WHERE:
                if (self.root / raw).is_dir():
                    return self.root / raw, _LAYOUT.folder(self.root, target)
        raise _LAYOUT.missing(self.root, _WHERE[0][0])


def _pairs(raw: Path, target: Path) -> list[PairFiles]:
    """The pairs of a scene, whose frames and pictures may lie in different folders."""
    kinds = _by_kind(raw) | {key: path for key, path in _by_kind(target).items() if key[0] == "GT_SRGB"}
    scene = _SCENE.fullmatch(raw.name)
    pairs = []
    for (kind, number), path in sorted(kinds.items()):
        if kind != "NOISY_RAW" or scene is None:
            continue
        for partner, folder in (("METADATA_RAW", raw), ("GT_SRGB", target)):
            if (partner, number) not in kinds:
                raise UserError(f"{path} has no {partner}_{number} in {folder}: SIDD is expected as {_LAYOUT.tree}")
        extra = (kinds["METADATA_RAW", number],)
        pairs.append(PairFiles(f"{raw.name}/{number}", path, kinds["GT_SRGB", number], scene[2], extra))
    return pairs


def _by_kind(folder: Path) -> dict[tuple[str, str], Path]:
    """Files by kind and number, also those one folder further down, as in the full set."""
    found = {}
    for path in [*folder.glob("*"), *folder.glob("*/*")]:
        if match := _FILE.fullmatch(path.name):
            found[match[1].upper(), match[2]] = path
    return found


# ---- MATLAB files ------------------------------------------------------------------------------------------


def _read_frame(path: Path) -> Samples:
    try:
        import h5py
    except ImportError as error:
        raise UserError("the frames of SIDD are MATLAB 7.3 files; to read them run: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            light = np.asarray(file["x"], np.float32)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no MATLAB 7.3 file with a frame x in it, or is damaged: {error}") from error
    if light.ndim != 2:
        raise UserError(f"{path} holds {light.ndim} dimensions: a frame has two")
    light = np.nan_to_num(light.T, nan=0.0)  # MATLAB stores columns one after the other
    codes = PEDESTAL + light * np.float32(_WHITE - PEDESTAL)
    return np.clip(np.rint(codes), 0, _WHITE).astype(np.uint16)


def _read_gains(path: Path) -> Gains:
    try:
        import scipy.io
    except ImportError as error:
        raise UserError("the metadata of SIDD are MATLAB files; to read them run: pip install scipy") from error
    try:
        metadata: Any = scipy.io.loadmat(path, variable_names=["metadata"], simplify_cells=True)["metadata"]
        neutral = np.asarray(metadata["AsShotNeutral"], np.float64).reshape(3)
    except Exception as error:  # scipy reports a damaged file by whatever its reader stumbles over
        raise UserError(f"{path} holds no metadata with AsShotNeutral, or is damaged; unpack it again") from error
    if not np.all(np.isfinite(neutral)) or neutral.min() <= 0:
        raise UserError(f"{path} has the white balance {neutral.tolist()}: AsShotNeutral must be above 0")
    return (neutral[1] / neutral).astype(np.float32)


# ---- orientation -------------------------------------------------------------------------------------------


def _turned(picture: Picture, samples: Samples) -> Picture:
    """The picture as the frame lies.

    Phones note how they were held, and whether the published pictures follow the note is not said. So the one of the
    eight orientations is taken in which the picture is most like the frame; a picture of which none fits is returned
    as it is.
    """
    best, most = picture, _likeness(picture, samples) + _SURER
    for turns in range(8):
        turned = np.rot90(picture[:, ::-1] if turns >= 4 else picture, turns % 4)
        if turned.shape[:2] == samples.shape and (likeness := _likeness(turned, samples)) > most:
            best, most = turned, likeness
    return np.ascontiguousarray(best)


def _likeness(picture: Picture, samples: Samples) -> float:
    """Correlation of the two, coarsely, from -1 to 1; -2 where the sizes differ."""
    if picture.shape[:2] != samples.shape:
        return -2.0
    height, width = (size // 2 * 2 for size in samples.shape)
    step = max(1, min(height, width) // 128)

    def coarse(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        cells = values[:height, :width].reshape(height // 2, 2, width // 2, 2)[::step, :, ::step]
        flat = cells.mean((1, 3), dtype=np.float64).ravel()
        return flat - flat.mean()

    first, second = coarse(picture[..., 1]), coarse(samples)
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm else 0.0
