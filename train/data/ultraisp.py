"""Fujifilm UltraISP: a phone sensor's mosaics with a medium-format camera's pictures, of the Mobile AI challenges.

    ROOT/train/mediatek_raw/0.png ...    256 x 256, 10 bits in a grey PNG of 16, RGGB
    ROOT/train/fujifilm/0.png ...        256 x 256, RGB
    ROOT/val, ROOT/test                  likewise; the challenge kept the pictures of its test to itself

The folder of mosaics is called `mediatek_raw_normal` where those with less and more exposure lie beside it; these two
are not read. Black levels differ by site; they are those that published code takes off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...engines.bayer import RawFormat
from .raw_pair import PNG, Layout, PairFiles, RawPair, make_pair, one_black, read_mosaic, read_picture
from .splits import known_split

SPLITS = ("train", "val", "test")

_BLACKS = ((58, 61), (60, 62))
_WHITE = 1023
_LAYOUT = Layout("Fujifilm UltraISP", "train/mediatek_raw/*.png with train/fujifilm/*.png, and val and test likewise")


def how_to_get() -> str:
    """Where the data set is and how to unpack it."""
    return (
        "Fujifilm UltraISP: of the Learned Smartphone ISP challenges of the Mobile AI workshops "
        "(https://competitions.codalab.org/competitions/28054, after registration). Unpack training, validation and "
        "test data into train/, val/ and test/ of one folder. No licence of the data was found: ask the organisers "
        "before weights trained on it are passed on."
    )


@dataclass(frozen=True)
class UltraIsp:
    """The data set in `root`; `split` is one of `SPLITS`."""

    root: Path
    split: str = "train"

    def files(self) -> list[PairFiles]:
        """Its pairs. Raises UserError: another layout, or files without a partner."""
        split = known_split(self.split, SPLITS, _LAYOUT.title)
        normal = f"{split}/mediatek_raw_normal"
        raw = _LAYOUT.folder(self.root, normal if (self.root / normal).is_dir() else f"{split}/mediatek_raw")
        partners = _LAYOUT.partners(raw, _LAYOUT.folder(self.root, f"{split}/fujifilm"), PNG, PNG)
        return [PairFiles(stem, *paths, group=stem) for stem, paths in partners.items()]

    def load(self, files: PairFiles) -> RawPair:
        """A pair, without gains. Raises UserError: a damaged file, or sizes that differ."""
        samples, fmt = read_mosaic(files.raw, format="BayerRG10")
        samples, black, white = one_black(samples, _BLACKS, _WHITE)
        levelled = RawFormat(fmt.width, fmt.height, fmt.pixel_format, black, white)
        return make_pair(files, samples, levelled, read_picture(files.target))
