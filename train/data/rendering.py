"""What the classic engine makes of a raw frame: the picture of frames that have none, or whose own is not to be
learned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...engines.bayer import RawFormat, pack
from ...engines.quality import grey_world
from ...engines.reference import classic_reference
from .raw_pair import Gains, Matrix, PairFiles, PairReader, Picture, RawPair, Samples


def classic_picture(
    samples: Samples, fmt: RawFormat, gains: Gains | None = None, matrix: Matrix | None = None
) -> Picture:
    """Levels, white balance, demosaic, colour matrix and the sRGB curve.

    Args:
        samples: uint16 [H, W], DN of the format.
        fmt: Of the samples.
        gains: float32 [3], white balance of R, G, B; None is the grey world of the frame.
        matrix: float32 [3, 3], camera RGB after white balance to linear sRGB; None is the identity.

    Returns:
        uint8 [H, W, 3], sRGB.
    """
    balance = grey_world(samples, fmt) if gains is None else gains
    return classic_reference(pack(samples, fmt), fmt, balance.tolist(), matrix)


@dataclass(frozen=True)
class ClassicPictures:
    """A data set of pairs whose pictures are the classic engine's: what lies beside the frames is not looked at.

    Attributes:
        reader: Of the data set.
    """

    reader: PairReader

    def files(self) -> list[PairFiles]:
        """As of the reader."""
        return self.reader.files()

    def load(self, files: PairFiles) -> RawPair:
        """As of the reader."""
        pair = self.reader.load(files)
        picture = classic_picture(pair.samples, pair.raw_format, pair.gains, pair.matrix)
        return replace(pair, target=picture, mask=None)
