"""A folder of raw frames of which there are no pictures: what unpaired training begins with.

    ROOT/**/NAME.raw | .bin | .png | .npy | .dng        ROOT/SPLIT/**/NAME... for `split`

`engines.raw_files` says how they tell their format. Frames of several cameras may lie together: each is read as what it
is, with its own filter array and levels. An array (.npy) of several frames, as `isp-stream --snap` writes it, counts as
so many. `pairs.RawPairs` gives each what the classic engine makes of it in place of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...engines.errors import UserError
from ...engines.inputs import CAMERA
from .folder import RAW, read_raw, sidecar
from .raw_pair import PairFiles, RawPair, make_pair, open_array


def how_to_get() -> str:
    """How to lay out raw frames of one's own."""
    return (
        "A folder of raw frames without pictures, and the folders in it: NAME.raw, .bin, .png or .npy with "
        "NAME.raw.yaml beside them (width: 1280, height: 1024, format: BayerRG12, black: 64, white: 4095; and "
        "exposure_us and gain_db, where known), or NAME.dng; isp-stream --snap writes such files. split names one of "
        "the folders, such as train. For training against photographs (adversary): the picture of each is the classic "
        "engine's."
    )


@dataclass(frozen=True)
class RawFolder:
    """Frames in `root`.

    Attributes:
        root: The folder.
        keys: What the frames are, in the form of a query, as of `folder.PairFolder`; "" where sidecars tell, or for
            DNG.
        group: How many characters of a name tell the scene; 0 for all of them. Frames of one array are one scene.
        split: Name of a folder in `root`, of which alone the frames are taken, such as train; "" takes all.
    """

    root: Path
    keys: str = ""
    group: int = 0
    split: str = ""

    def files(self) -> list[PairFiles]:
        """Its frames. Raises UserError: there are none, or an array cannot be read."""
        if not self.root.is_dir():
            raise UserError(f"there is no folder {self.root}: give one with raw frames")
        if Path(self.split).name != self.split or self.split == "..":
            raise UserError(f"split is {self.split!r}: give the name of a folder in {self.root}, such as train")
        folder = self.root / self.split
        if not folder.is_dir():
            raise UserError(f"{self.root} has no folder {self.split}: set options.split to one that it has, or to ''")
        found = [
            PairFiles(
                f"{path.relative_to(self.root)}{'' if part is None else f' {part}'}",
                path,
                path,
                path.stem[: self.group or None],
                extra=sidecar(path),
                part=part,
            )
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in RAW and path.is_file() and not path.name.startswith(".")
            for part in _parts(path)
        ]
        if not found:
            raise UserError(f"{folder} holds no raw frames: {', '.join(f'*{end}' for end in RAW)} are looked for")
        return found

    def load(self, files: PairFiles) -> RawPair:
        """A frame, whose picture is black. Raises UserError: a damaged file, or one of an unknown format."""
        frame = read_raw(files.raw, self.keys, files.part)
        nothing = np.broadcast_to(np.zeros(3, np.uint8), (*frame.samples.shape, 3))  # takes no memory
        pair = make_pair(files, frame.samples, frame.raw_format, nothing, frame.gains)
        return replace(pair, **{name: frame.told.get(name) for name in CAMERA})


def _parts(path: Path) -> Iterator[int | None]:
    """Of an array of several frames, all; None for a file that is one frame."""
    if path.suffix.lower() != ".npy":
        yield None
        return
    shape = open_array(path).shape
    if len(shape) == 3:
        yield from range(shape[0])
    else:
        yield None
