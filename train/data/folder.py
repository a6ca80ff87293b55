"""A plain folder of raw frames with pictures: one's own camera.

    ROOT/raw/NAME.raw | .bin | .png | .npy | .dng
    ROOT/rgb/NAME.png | .jpg

`engines.raw_files` says how `.raw`, `.bin`, `.png` and `.npy` tell their format: `NAME.raw.yaml` beside each file, or
one line for all of them, as in `format=BayerRG12&width=1280&height=1024&black=64`. A DNG knows its own (package rawpy).
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from ...engines.errors import UserError
from .dng import SUFFIXES as DNG
from .dng import read_dng
from .raw_pair import JPEG, PNG, Layout, PairFiles, RawPair, make_pair, read_mosaic, read_picture

RAW = (".raw", ".bin", ".png", ".npy", *DNG)


def how_to_get() -> str:
    """How to lay out frames and pictures of one's own."""
    return (
        "A folder of your own: frames in raw/ (NAME.raw, .bin, .png, .npy with NAME.raw.yaml beside them, or "
        "NAME.dng), pictures in rgb/ (NAME.png or .jpg), of the same size and lying on the frames pixel for pixel."
    )


@dataclass(frozen=True)
class PairFolder:
    """Pairs in `root`.

    Attributes:
        root: The folder.
        raw, rgb: Where in it frames and pictures are.
        keys: What the frames are, in the form of a query (see the module); "" where sidecars tell, or for DNG.
        group: How many characters of a name tell the scene (pairs of one scene are not torn apart); 0 for all of them.
    """

    root: Path
    raw: str = "raw"
    rgb: str = "rgb"
    keys: str = ""
    group: int = 0

    def files(self) -> list[PairFiles]:
        """Its pairs. Raises UserError: another layout, or files without a partner."""
        layout = Layout("a folder of pairs", f"{self.raw}/NAME{'|'.join(RAW)} with {self.rgb}/NAME.png|.jpg")
        raw, target = layout.folder(self.root, self.raw), layout.folder(self.root, self.rgb)
        partners = layout.partners(raw, target, RAW, (*PNG, *JPEG))
        return [
            PairFiles(stem, *paths, group=stem[: self.group or None], extra=_sidecar(paths[0]))
            for stem, paths in partners.items()
        ]

    def load(self, files: PairFiles) -> RawPair:
        """A pair. Raises UserError: a damaged file, sizes that differ, or frames of an unknown format."""
        target = read_picture(files.target)
        if files.raw.suffix.lower() in DNG:
            samples, fmt, gains = read_dng(files.raw)
            return make_pair(files, samples, fmt, target, gains)
        samples, fmt = read_mosaic(files.raw, **self._keys())
        return make_pair(files, samples, fmt, target)

    def _keys(self) -> dict[str, str]:
        try:
            pairs = urllib.parse.parse_qsl(self.keys, strict_parsing=True) if self.keys else []
        except ValueError as error:
            raise UserError(
                f"{self.keys!r} does not say what the frames are: write format=BayerRG12&black=64"
            ) from error
        return dict(pairs)


def _sidecar(path: Path) -> tuple[Path, ...]:
    sidecar = path.with_name(f"{path.name}.yaml")
    return (sidecar,) if sidecar.is_file() else ()
