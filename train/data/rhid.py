"""RHID: a high-speed camera's frames with a reflex camera's pictures (Chen, Liu, Jin et al., the MisISP repository).

Three layouts hold it. `SPLIT` is train or val, `setK` one of six exposures of the same scenes, which may be missing:

    ROOT/SPLIT/raw_512/setK/*.raw    ROOT/SPLIT/DL_rafts_512/DL/*.png    pictures warped onto the frames
                                     ROOT/SPLIT/DL_512/*.png             pictures as cut out
    ROOT/SPLIT/raw/setK/*.raw        ROOT/SPLIT/rgb/*.png
    ROOT/Revealer/setK/*.raw         ROOT/Canon/*.png                    the repository's demo, without a split

A frame is headerless, 12 bits in uint16 little-endian, RGGB, black 0, white 4095, and as large as its picture. The
camera has white-balanced it digitally, by gains that differ from scene to scene and were not kept. The first of the
layouts is that of the authors' own recipes: their archive was not at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...engines.errors import UserError
from .raw_pair import PNG, Layout, PairFiles, RawPair, make_pair, read_mosaic, read_picture
from .splits import known_split

SPLITS = ("train", "val")

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
        split: One of `SPLITS`; the demo has none and gives all its pairs to either.
        sets: Which exposures ("set4"); empty for all that are there.
        aligned: Take the pictures that were warped onto the frames, where both are there.
    """

    root: Path
    split: str = "train"
    sets: tuple[str, ...] = ()
    aligned: bool = True

    def files(self) -> list[PairFiles]:
        """Its pairs; scenes are groups. Raises UserError: another layout, or frames without a picture."""
        raw, target = self._folders()
        found = []
        for prefix, folder in self._set_folders(raw):
            partners = _LAYOUT.partners(folder, target, _RAW, PNG, one_to_one=False)
            found += [PairFiles(prefix + stem, *both, group=stem.split("_")[0]) for stem, both in partners.items()]
        return found

    def load(self, files: PairFiles) -> RawPair:
        """A pair, without gains. Raises UserError: a damaged file, or a frame of another size than its picture."""
        target = read_picture(files.target)
        height, width = target.shape[:2]
        samples, fmt = read_mosaic(files.raw, format="BayerRG12", width=width, height=height)
        return make_pair(files, samples, fmt, target)

    def _folders(self) -> tuple[Path, Path]:
        split = known_split(self.split, SPLITS, _LAYOUT.title)
        pictures = ("DL_rafts_512/DL", "DL_512") if self.aligned else ("DL_512", "DL_rafts_512/DL")
        for raw, targets in ((f"{split}/raw_512", pictures), (f"{split}/raw", ("rgb",)), ("Revealer", ("Canon",))):
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
