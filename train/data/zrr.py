"""Zurich RAW to RGB (ZRR): a phone's mosaics with a reflex camera's pictures (Ignatov et al., arXiv 2002.05509).

    ROOT/train/huawei_raw/0.png ...    448 x 448, 10 bits in a grey PNG of 16, RGGB
    ROOT/train/canon/0.jpg ...         448 x 448, RGB
    ROOT/test/huawei_raw, ROOT/test/canon

The two were cut out and matched by their authors, yet stay some pixels apart. `full_resolution` has no pictures and is
not read. The mosaics carry no levels and no white balance: 63 and 1020 are what published code takes off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .raw_pair import JPEG, PNG, Layout, PairFiles, RawPair, make_pair, read_mosaic, read_picture
from .splits import known_split

SPLITS = ("train", "test")

_BLACK, _WHITE = 63, 1020
_LAYOUT = Layout("Zurich RAW to RGB", "train/huawei_raw/*.png with train/canon/*.jpg, and test likewise")


def how_to_get() -> str:
    """Where the data set is and how to unpack it."""
    return (
        "Zurich RAW to RGB (22 GB): http://people.ee.ethz.ch/~ihnatova/pynet.html#dataset. Unpack it into one folder, "
        "which then holds train/, test/ and full_resolution/. No licence of the data was found; the authors' code is "
        "CC BY-NC-SA 4.0, for academic research only: ask them before weights trained on it are passed on."
    )


@dataclass(frozen=True)
class Zrr:
    """The data set in `root`; `split` is one of `SPLITS`."""

    root: Path
    split: str = "train"

    def files(self) -> list[PairFiles]:
        """Its pairs. Raises UserError: another layout, or files without a partner."""
        split = known_split(self.split, SPLITS, _LAYOUT.title)
        raw, target = (_LAYOUT.folder(self.root, f"{split}/{name}") for name in ("huawei_raw", "canon"))
        partners = _LAYOUT.partners(raw, target, PNG, JPEG)
        return [PairFiles(stem, *paths, group=stem) for stem, paths in partners.items()]

    def load(self, files: PairFiles) -> RawPair:
        """A pair, without gains. Raises UserError: a damaged file, or sizes that differ."""
        samples, fmt = read_mosaic(files.raw, format="BayerRG10", black=_BLACK, white=_WHITE)
        return make_pair(files, samples, fmt, read_picture(files.target))
