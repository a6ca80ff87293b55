"""A plain folder of raw frames with pictures: one's own camera.

    ROOT/raw/NAME.raw | .bin | .png | .npy | .dng
    ROOT/rgb/NAME.png | .jpg
    ROOT/mask/NAME.png     grey, 8 bits: how much each place of the picture counts, 255 for all of it; may be missing
    ROOT/pairs.json        {"NAME": {"group": SCENE, "gains": [R, G, B], "exposure_us": E, "gain_db": G}, ...}:
                           what else is known of each, iso, f_number and focal_length_mm too; "matrix" is the camera's
                           colours after white balance to linear sRGB, nine numbers; all of it may be missing

`engines.raw_files` says how `.raw`, `.bin`, `.png` and `.npy` tell their format: `NAME.raw.yaml` beside each file, or
one line for all of them, as in `format=BayerRG12&width=1280&height=1024&black=64`. A DNG knows its own (package rawpy).
What is known of the camera may stand there too; what pairs.json says comes first.
Masks and pairs.json are what `isp-align` writes; pairs.json with all that is known, `isp-invert`.
"""

from __future__ import annotations

import io
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import yaml

from ...engines.bayer import RawFormat
from ...engines.colour import invertible_matrix
from ...engines.errors import UserError, reason
from ...engines.inputs import CAMERA
from ...engines.white_balance import checked_gains
from ..files import write_whole
from .dng import SUFFIXES as DNG
from .dng import read_dng
from .raw_pair import (
    JPEG,
    PNG,
    Gains,
    Layout,
    Mask,
    Matrix,
    PairFiles,
    Picture,
    RawPair,
    Samples,
    make_pair,
    read_frame,
    read_picture,
)

RAW = (".raw", ".bin", ".png", ".npy", *DNG)

NOTES = "pairs.json"
"""What else is known of the pairs."""

_PNG_EFFORT = 1
"""Of zlib: noise is hardly smaller with more, and takes ten times as long."""


def how_to_get() -> str:
    """How to lay out frames and pictures of one's own."""
    return (
        "A folder of your own: frames in raw/ (NAME.raw, .bin, .png, .npy with NAME.raw.yaml beside them, or "
        "NAME.dng), pictures in rgb/ (NAME.png or .jpg), of the same size and lying on the frames pixel for pixel: "
        "isp-align makes that of pictures of another camera."
    )


@dataclass(frozen=True)
class PairFolder:
    """Pairs in `root`.

    Attributes:
        root: The folder.
        raw, rgb, mask: Where in it frames, pictures and masks are; without a folder of masks, each place counts.
        keys: What the frames are, in the form of a query (see the module); "" where sidecars tell, or for DNG.
        group: How many characters of a name tell the scene (pairs of one scene are not torn apart); 0 for all of them.
            What pairs.json says of a pair comes first.
        split: A folder in `root`, such as train or val, that is laid out so; "" where `root` itself is.
        apart: Pictures need not lie on the frames, nor be as large: what `isp-align` begins with.
    """

    root: Path
    raw: str = "raw"
    rgb: str = "rgb"
    mask: str = "mask"
    keys: str = ""
    group: int = 0
    split: str = ""
    apart: bool = False

    def files(self) -> list[PairFiles]:
        """Its pairs. Raises UserError: another layout, or files without a partner."""
        layout = Layout("a folder of pairs", f"{self.raw}/NAME{'|'.join(RAW)} with {self.rgb}/NAME.png|.jpg")
        raw, target = layout.folder(self._base, self.raw), layout.folder(self._base, self.rgb)
        partners = layout.partners(raw, target, RAW, (*PNG, *JPEG))
        masks = self._masks(layout, partners)
        notes, noted = self._notes()
        return [
            PairFiles(
                stem,
                *paths,
                group=notes.get(stem, {}).get("group", stem[: self.group or None]),
                extra=(*sidecar(paths[0]), *masks.get(stem, ()), *noted),
            )
            for stem, paths in partners.items()
        ]

    def load(self, files: PairFiles) -> RawPair:
        """A pair. Raises UserError: a damaged file, sizes that differ, or frames of an unknown format."""
        target = read_picture(files.target)
        samples, fmt, gains, told = read_raw(files.raw, self.keys)
        note = {**told, **self._notes()[0].get(files.name, {})}
        mask = self._base / self.mask / f"{files.name}.png"
        pair = make_pair(
            files,
            samples,
            fmt,
            target,
            checked_gains(note["gains"]) if "gains" in note else gains,
            mask=_read_mask(mask, samples) if mask in files.extra else None,
            apart=self.apart,
        )
        return replace(pair, matrix=self._matrix(note, files), **{name: note.get(name) for name in CAMERA})

    @property
    def _base(self) -> Path:
        return self.root / self.split

    def _masks(self, layout: Layout, partners: Mapping[str, Any]) -> dict[str, tuple[Path, ...]]:
        """The mask of each pair: all of them have one or none has, so that none is lost unnoticed."""
        folder = self._base / self.mask
        if self.apart or not folder.is_dir():
            return {}
        masks = layout.by_stem(folder, PNG)
        if strays := sorted(partners.keys() ^ masks.keys()):
            raise UserError(
                f"{folder} and the frames do not go together, the first that has no partner is {strays[0]}: each "
                "frame has a mask, or none has and there is no such folder"
            )
        return {stem: (path,) for stem, path in masks.items()}

    def _matrix(self, note: Mapping[str, Any], files: PairFiles) -> Matrix | None:
        if "matrix" not in note:
            return None
        try:
            return invertible_matrix(note["matrix"])
        except UserError as error:
            raise UserError(f"the matrix of {files.name} in {self._base / NOTES}: {error}") from error

    def _notes(self) -> tuple[dict[str, dict[str, Any]], tuple[Path, ...]]:
        """What else is known of the pairs, and the file that tells."""
        path = self._base / NOTES
        if not path.is_file():
            return {}, ()
        return _read_notes(path, path.stat().st_mtime_ns), (path,)


def sidecar(path: Path) -> tuple[Path, ...]:
    """The file that tells what a raw frame is, if there is one."""
    beside = path.with_name(f"{path.name}.yaml")
    return (beside,) if beside.is_file() else ()


class RawFrame(NamedTuple):
    """A raw frame as it lies in a file.

    Attributes:
        samples, raw_format, gains: See `raw_pair.RawPair`.
        told: What it tells of `engines.inputs.CAMERA`.
    """

    samples: Samples
    raw_format: RawFormat
    gains: Gains | None
    told: dict[str, float]


def read_raw(path: Path, keys: str = "", part: int | None = None) -> RawFrame:
    """The one frame of a file, whatever its kind.

    Args:
        path: One of `RAW`.
        keys: What it is, in the form of a query (see the module); "" where a sidecar tells, or for DNG.
        part: Which of the frames of a file that holds several.

    Raises:
        UserError: The file is damaged, not what was said, or holds several frames.
    """
    if path.suffix.lower() in DNG:
        samples, fmt, gains = read_dng(path)
        return RawFrame(samples, fmt, gains, {})
    samples, fmt, told = read_frame(path, part=part, **_parsed(keys))
    return RawFrame(samples, fmt, None, told)


def _parsed(keys: str) -> dict[str, str]:
    try:
        return dict(urllib.parse.parse_qsl(keys, strict_parsing=True) if keys else [])
    except ValueError as error:
        raise UserError(f"{keys!r} does not say what the frames are: write format=BayerRG12&black=64") from error


@lru_cache(maxsize=8)
def _read_notes(path: Path, changed: int) -> dict[str, dict[str, Any]]:
    """The notes of a file that was last changed then; each pair that is read asks for them."""
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    kinds: dict[str, Any] = {"group": str, "gains": list, "matrix": list, **dict.fromkeys(CAMERA, (int, float))}
    if not isinstance(notes, dict) or not all(
        isinstance(note, dict) and all(isinstance(value, kinds.get(key, ())) for key, value in note.items())
        for note in notes.values()
    ):
        raise UserError(
            f'{path} is not as it should be: it maps names to {{"group": SCENE, "gains": [R, G, B], "exposure_us": E, '
            '"gain_db": G}'
        )
    return notes


def _read_mask(path: Path, samples: Samples) -> Mask:
    try:
        with PIL.Image.open(path) as image:
            mode, mask = image.mode, np.array(image)  # a copy: torch wants to be able to write
    except (OSError, SyntaxError, ValueError) as error:  # PIL reports a broken chunk as SyntaxError
        raise UserError(f"{path} cannot be read: {reason(error)}; copy it again") from error
    if mode != "L" or mask.shape != samples.shape:
        height, width = samples.shape
        raise UserError(f"{path} is no mask: it must be grey, of 8 bits and {width}x{height} as its frame")
    return mask


# ---- writing -----------------------------------------------------------------------------------------------


def write_frame(path: Path, samples: Samples, fmt: RawFormat) -> None:
    """Write a frame as grey PNG, NAME.png, and its sidecar.

    Args:
        path: The PNG; its folder is made if need be.
        samples: uint16 [H, W], DN of the format.
        fmt: Of the samples; how it packs them is not kept.

    Raises:
        UserError: It cannot be written.
    """
    for name, content in encode_frame(path.name, samples, fmt).items():
        write_whole(path.with_name(name), content, "the frame")


def encode_frame(
    name: str, samples: Samples, fmt: RawFormat, camera: Mapping[str, float] | None = None
) -> dict[str, bytes]:
    """The files of a frame: a grey PNG of that name, and its sidecar, which tells what is known of the `camera`, by the
    names of `engines.inputs.CAMERA`. See `write_frame`."""
    keys: dict[str, Any] = {"format": fmt.pixel_format.rstrip("p")}
    keys |= {"black": int(fmt.black_level), "white": int(fmt.white_level), **(camera or {})}
    return {
        name: encode_png(samples.astype(np.uint8) if fmt.depth == 8 else samples),
        f"{name}.yaml": yaml.safe_dump(keys).encode(),
    }


def write_picture(path: Path, picture: Picture | Mask) -> None:
    """Write a picture, uint8 [H, W, 3], or a mask, uint8 [H, W], as PNG. Raises UserError: it cannot be written."""
    write_whole(path, encode_png(picture), "the picture")


def encode_png(values: npt.NDArray[Any]) -> bytes:
    """A PNG of uint8 [H, W, 3], uint8 [H, W] or uint16 [H, W]."""
    written = io.BytesIO()
    PIL.Image.fromarray(values).save(written, "PNG", compress_level=_PNG_EFFORT)
    return written.getvalue()
