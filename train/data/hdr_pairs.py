"""The data set of "RAW to Tone-mapped HDR Camera ISP": mosaics of ZRR with tone-mapped pictures (Erbas and Celebi).

    ROOT/train/raw/0.png ...            448 x 448, 10 bits in a grey PNG of 16, RGGB
    ROOT/train/groundtruth/0.jpg ...    448 x 448, RGB; JPEG or PNG
    ROOT/test/raw, ROOT/test/groundtruth

Published code divides the mosaics by 4 * 255 and takes no black level off. `test/full_resolution` has no pictures and
is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .raw_pair import JPEG, PNG, Layout, PairFiles, RawPair, make_pair, read_mosaic, read_picture
from .splits import known_split

SPLITS = ("train", "test")

_BLACK, _WHITE = 0, 4 * 255
_LAYOUT = Layout(
    "the data set of RAW to Tone-mapped HDR Camera ISP",
    "train/raw/*.png with train/groundtruth/*.jpg or *.png, and test likewise",
)


def how_to_get() -> str:
    """Where the data set is and how to unpack it."""
    return (
        "RAW to Tone-mapped HDR Camera ISP: its authors, Erbas and Celebi, give it on request only "
        "(https://github.com/korayerbas/raw_to_tonemappedHDR). Unpack it into one folder, which then holds train/ and "
        "test/. No licence of the data is known, and its mosaics are a part of Zurich RAW to RGB: ask both before "
        "weights trained on it are passed on."
    )


@dataclass(frozen=True)
class HdrPairs:
    """The data set in `root`; `split` is one of `SPLITS`."""

    root: Path
    split: str = "train"

    def files(self) -> list[PairFiles]:
        """Its pairs. Raises UserError: another layout, or files without a partner."""
        split = known_split(self.split, SPLITS, _LAYOUT.title)
        raw, target = (_LAYOUT.folder(self.root, f"{split}/{name}") for name in ("raw", "groundtruth"))
        partners = _LAYOUT.partners(raw, target, PNG, (*JPEG, *PNG))
        return [PairFiles(stem, *paths, group=stem) for stem, paths in partners.items()]

    def load(self, files: PairFiles) -> RawPair:
        """A pair, without gains. Raises UserError: a damaged file, or sizes that differ."""
        samples, fmt = read_mosaic(files.raw, format="BayerRG10", black=_BLACK, white=_WHITE)
        return make_pair(files, samples, fmt, read_picture(files.target))
