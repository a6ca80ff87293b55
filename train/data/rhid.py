"""RHID: a high-speed camera's frames with a reflex camera's pictures (Chen, Liu, Jin et al., the MisISP repository).

Several layouts hold it. `SPLIT` is train or val, `setK` one of six exposures of the same scenes, which share their
pictures; sets may be missing, or not be told apart:

    ROOT/SPLIT/raw_512/setK/*.raw       ROOT/SPLIT/DL_rafts_512/DL/*.png       pictures warped onto the frames
                                        ROOT/SPLIT/DL_512/*.png                pictures as cut out
    ROOT/SPLIT/raw_1536_512/setK/*.raw  ROOT/SPLIT/DL_rafts_1536_512/DL/*.png, ROOT/SPLIT/DL_1536_512/*.png
    ROOT/SPLIT/raw_1536/setK/*.raw      ROOT/SPLIT/DL_rafts_1536/DL/*.png, ROOT/SPLIT/DL_1536/*.png    before cutting
    ROOT/SPLIT/raw/setK/*.raw           ROOT/SPLIT/rgb/*.png
    ROOT/raw/setK/*.raw                 ROOT/rgb/*.png                         without a split
    ROOT/Revealer/setK/*.raw            ROOT/Canon/*.png                       the repository's demo, without a split

A list ROOT/train.txt or ROOT/val.txt, if there is one, says what of it belongs to the split: a line names a scene
(2066), a piece of it (2066_9) or a frame (set4/2066_9).

A frame is headerless, 12 bits in uint16 little-endian, RGGB, black 0, white 4095, and as large as its picture. Frames
of 1536 x 1536 are cut in nine, NAME_1 to NAME_9 row by row, as are those that the others were cut from. The camera has
white-balanced it digitally, by gains that differ from scene to scene and were not kept.

The sets are noise levels, which published code gives the network as numbers from 0 to 1 (`SETS`). Which gains they
stand for is not known. Here a noise level of 1 is `GAIN_DB`: then set4, whose noise is measured
(docs/results/noise.md), gets the gain that frames with the same noise get when they are made of photographs
(`noise.gain_db`), and a network of `noise: {gain_db: [0, 32]}` is told the published numbers.

The names of the first two layouts are those in the authors' own recipes, those of the third follow from them: their
archive was not at hand. That pieces are counted row by row is an inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL.Image

from ...engines.errors import UserError, reason
from .raw_pair import PNG, Layout, PairFiles, RawPair, make_pair, read_mosaic, read_picture
from .splits import known_split, read_names

SPLITS = ("train", "val")

SETS = {"set1": 0.0, "set2": 0.5, "set3": 0.625, "set4": 0.75, "set5": 0.875, "set6": 1.0}
"""The noise level of each set."""

GAIN_DB = 32.0
"""Gain in dB that stands for a noise level of 1: 0.75 of it are the 24 dB at which a camera of 10,000 electrons has the
shot noise of set4, 1.56e-3."""

WHOLE, PIECE = 1536, 512
"""Edges of frames that are cut and of the pieces that they are cut into, in pixels."""

PIECES = (WHOLE // PIECE) ** 2
"""Of such a frame."""

_RAW = (".raw",)
_LAYOUT = Layout(
    "RHID",
    "SPLIT/raw_512/setK/*.raw with SPLIT/DL_rafts_512/DL/*.png or SPLIT/DL_512/*.png, or SPLIT/raw/*.raw with "
    "SPLIT/rgb/*.png, or Revealer/setK/*.raw with Canon/*.png",
)


def how_to_get() -> str:
    """Where the data set is and how to unpack it."""
    return (
        "RHID: https://github.com/TIANLE233/MisISP has ten pairs in its demo folder (give that folder), under the MIT "
        "licence of the repository, and says where the whole set is; unpack it into one folder, which then holds "
        "train/ and val/."
    )


@dataclass(frozen=True)
class Rhid:
    """The data set in `root`.

    Attributes:
        root: The folder.
        split: One of `SPLITS`; without folders or lists for them, all pairs belong to either.
        sets: Which exposures ("set4"); empty for all that are there.
        aligned: Take the pictures that were warped onto the frames, where both are there.
    """

    root: Path
    split: str = "train"
    sets: tuple[str, ...] = ()
    aligned: bool = True

    def files(self) -> list[PairFiles]:
        """Its pairs; scenes are groups. Raises UserError: another layout, frames without a picture, or a list that
        names what is not there."""
        raw, target = self._folders()
        found: list[PairFiles] = []
        for prefix, folder in self._set_folders(raw):
            partners = _LAYOUT.partners(folder, target, _RAW, PNG, one_to_one=False)
            found += [PairFiles(prefix + stem, *both, group=_scene(stem)) for stem, both in partners.items()]
        return self._listed(_cut(found))

    def load(self, files: PairFiles) -> RawPair:
        """A pair, without white balance, with the gain in dB of its set.

        Raises:
            UserError: A damaged file, or a frame of another size than its picture.
        """
        target = read_picture(files.target)
        height, width = target.shape[:2]
        samples, fmt = read_mosaic(files.raw, format="BayerRG12", width=width, height=height)
        pair = make_pair(files, samples, fmt, target)
        level = SETS.get(files.raw.parent.name)
        pair = pair if level is None else replace(pair, gain_db=GAIN_DB * level)
        return pair if files.part is None else _piece(pair, files.part)

    def _folders(self) -> tuple[Path, Path]:
        split = known_split(self.split, SPLITS, _LAYOUT.title)
        cut = ("512", "1536_512", "1536")
        layouts = [(f"{split}/raw_{size}", _pictures(size, self.aligned)) for size in cut]
        layouts += [(f"{split}/raw", ("rgb",)), ("raw", ("rgb",)), ("Revealer", ("Canon",))]
        for raw, targets in layouts:
            if not (self.root / raw).is_dir():
                continue
            base = (self.root / raw).parent
            there = [name for name in targets if (base / name).is_dir()]
            return self.root / raw, _LAYOUT.folder(base, (there or targets)[0])
        raise _LAYOUT.missing(self.root, f"{split}/raw_512")

    def _set_folders(self, raw: Path) -> list[tuple[str, Path]]:
        """What the names of the pairs begin with, and where the frames are."""
        there = sorted(path.name for path in raw.glob("set*") if path.is_dir())
        missing = [name for name in self.sets if name not in there]
        if missing:
            raise UserError(
                f"{raw} has no folder {missing[0]}: there {'is ' + ', '.join(there) if there else 'is none'}"
            )
        return [(f"{name}/", raw / name) for name in self.sets or there] or [("", raw)]

    def _listed(self, found: list[PairFiles]) -> list[PairFiles]:
        """Those that the list of the split names, if there is one."""
        path = self.root / f"{self.split}.txt"
        if not path.is_file():
            return found
        names = set(read_names(path))
        for name in sorted(names):
            if not any(name in _names(files) for files in found):
                raise UserError(f"{path} names {name}, which is not there: a line is like {_names(found[0])[0]}")
        return [files for files in found if names.intersection(_names(files))]


def _pictures(size: str, aligned: bool) -> tuple[str, ...]:
    """Folders of pictures, the first that is there counts."""
    return (f"DL_rafts_{size}/DL", f"DL_{size}")[:: 1 if aligned else -1]


def _scene(stem: str) -> str:
    return stem.partition("_")[0]


def _names(files: PairFiles) -> tuple[str, ...]:
    """What a list may call a pair: the frame, the piece in all sets, the scene."""
    return files.name, files.name.rpartition("/")[2], files.group


def _cut(found: Sequence[PairFiles]) -> list[PairFiles]:
    """A pair for each piece, where pictures are not cut yet; all of a layout are of one size."""
    try:
        with PIL.Image.open(found[0].target) as image:
            whole = image.size == (WHOLE, WHOLE)
    except OSError as error:
        raise UserError(f"{found[0].target} cannot be read: {reason(error)}; copy it again") from error
    if not whole:
        return list(found)
    return [replace(files, name=f"{files.name}_{part + 1}", part=part) for files in found for part in range(PIECES)]


def _piece(pair: RawPair, part: int) -> RawPair:
    """One of the pieces, as copies: what is kept of a frame is no more than the piece."""
    if pair.samples.shape != (WHOLE, WHOLE):
        height, width = pair.samples.shape
        raise UserError(f"{pair.name} is {width}x{height}, but the first one {WHOLE}x{WHOLE}: all must be of one size")
    top, left = (place * PIECE for place in divmod(part, WHOLE // PIECE))
    place = slice(top, top + PIECE), slice(left, left + PIECE)
    fmt = replace(pair.raw_format, width=PIECE, height=PIECE)
    return replace(pair, samples=pair.samples[place].copy(), raw_format=fmt, target=pair.target[place].copy())
