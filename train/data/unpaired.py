"""Frames and photographs that do not belong together, side by side.

A sample of frames is given a photograph of anything, as large as its picture. Which one follows from seed, epoch and
index alone, by an order of its own, so that neither side tells anything of the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
from torch import Tensor

from ...engines.errors import UserError, reason
from .photos import PhotoFile, Photos, find_photos
from .pictures import PLAIN, ScenePhotos
from .raw_pair import Picture
from .sampling import SeededSamples
from .scenes import EDGE
from .splits import manifest_hash

_COLOURLESS = 2
"""Codes of 255 by which the colours of a photograph differ at most where it counts as grey."""

_LOOKED_AT = 64
"""Edge in pixels that photographs are made smaller to before their colours are looked at."""

_COUNTED = 600
"""Edge in pixels that photographs are made smaller to before their colours are counted: some times as long as that at
which they are (`losses.histogram.EDGE`), and large files are decoded much faster."""

_ORDER = 3
"""Sets the order of the photographs apart from all other chance of the same seed."""


def coloured(files: Sequence[PhotoFile]) -> tuple[list[PhotoFile], list[PhotoFile]]:
    """Photographs with colours, and those that are grey, from which a network would learn to take colours away.

    Raises:
        UserError: One cannot be read.
    """
    found: tuple[list[PhotoFile], list[PhotoFile]] = ([], [])
    for file in files:
        found[_is_grey(file.path)].append(file)
    return found


def _is_grey(path: Path) -> bool:
    with _told_if_unread(path):
        return _looks_grey(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _looks_grey(path: Path, changed: int) -> bool:
    """Of a file that was last changed then. A PNG has to be decoded whole, and folders are looked at more than once."""
    with PIL.Image.open(path) as image:
        if image.mode in ("1", "L", "LA"):
            return True
        image.draft("RGB", (_LOOKED_AT, _LOOKED_AT))
        small = np.asarray(image.convert("RGB").resize((_LOOKED_AT, _LOOKED_AT)), np.int16)
    return int((small.max(2) - small.min(2)).max()) <= _COLOURLESS


class Photographs(Photos):
    """Pieces of photographs, and nothing that a camera would make of them. Arguments as of `Photos`."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`target`, float32 [3, crop, crop], sRGB in [0, 1]. Raises as `Photos.photo`."""
        return {"target": self.photo(index)[0].float() / 255}


class Pieces(NamedTuple):
    """Pictures for frames to be put beside.

    Attributes:
        pictures: Samples whose `target` they are.
        manifest: Of their files, as of `splits.manifest_hash`.
        about: What they are, for the model card.
    """

    pictures: Any
    manifest: str
    about: str


class Colours(NamedTuple):
    """Of photographs, for `metrics.LikenessMeter`.

    Attributes:
        mean: Their `metrics.mean_histogram`, float64.
        manifest: Of their files, as of `splits.manifest_hash`.
        about: What they are.
    """

    mean: npt.NDArray[np.float64]
    manifest: str
    about: str


def colours_of(folder: Path) -> Colours:
    """The colours of photographs, of which each counts the same.

    Args:
        folder: Of photographs (JPEG, PNG), and the folders in it; grey ones are left out.

    Raises:
        UserError: No photographs with colours, or one that cannot be read.
    """
    from ..metrics.histogram import mean_histogram

    files, about = _with_colours(folder)
    return Colours(mean_histogram(_small(file.path) for file in files), manifest_hash(files), about)


def _with_colours(folder: Path) -> tuple[list[PhotoFile], str]:
    """Its photographs but for grey ones, and what they are."""
    files, grey = coloured(find_photos(folder))
    if not files:
        raise UserError(f"all {len(grey)} photographs of {folder} are grey; give some with colours")
    left = f" ({len(grey)} grey ones left out)" if grey else ""
    return files, f"{len(files)} photographs of {folder.name}{left}"


def _small(path: Path) -> Picture:
    with _told_if_unread(path), PIL.Image.open(path) as image:
        image.draft("RGB", (_COUNTED, _COUNTED))
        picture = image.convert("RGB")
        picture.thumbnail((_COUNTED, _COUNTED), PIL.Image.Resampling.HAMMING)
        return np.asarray(picture)


@contextlib.contextmanager
def _told_if_unread(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}; copy it again, or remove it") from error


def open_photographs(folder: Path | None, crop: int, count: int, downscale: float | None, seed: int) -> Pieces:
    """As many pieces as there are frames, or more.

    Args:
        folder: Of photographs, of which grey ones are left out; None renders scenes.
        crop: Edge of the pieces in pixels.
        count: Of frames.
        downscale: See `photos.read_photo`.
        seed: Of everything drawn.

    Raises:
        UserError: No photographs with colours.
    """
    if folder is None:
        if crop > EDGE:
            raise UserError(f"rendered scenes give pieces of up to {EDGE}, not {crop}: name a folder of photographs")
        return Pieces(ScenePhotos(count, crop, seed=seed), "scenes", "rendered scenes")
    files, about = _with_colours(folder)
    repeats = -(-count // len(files))
    photos = Photographs(folder, PLAIN, files, crop=crop, repeats=repeats, downscale=downscale, seed=seed)
    return Pieces(photos, manifest_hash(files), about)


class Unpaired(SeededSamples):
    """Samples of frames with `photo`, float32 [3, 2h, 2w], sRGB in [0, 1].

    Args:
        frames: Samples (`sources.SampleSet`).
        pictures: Of `open_photographs`, at least as many.
        seed: Of the order of the pictures.
    """

    def __init__(self, frames: Any, pictures: Any, seed: int) -> None:
        super().__init__(len(frames), seed)
        self._frames, self._pictures = frames, pictures
        self._order: tuple[int, list[int]] = (-1, [])  # of an epoch

    def set_epoch(self, epoch: int) -> None:
        """See `SeededSamples.set_epoch`; of both sides as well."""
        self._frames.set_epoch(epoch)
        self._pictures.set_epoch(epoch)
        super().set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample. Raises IndexError: there is none. UserError: as frames and photographs do."""
        index = self._checked(index)
        epoch = int(self._epoch)
        if self._order[0] != epoch:
            chance = np.random.default_rng([self._seed, _ORDER, epoch])
            self._order = epoch, chance.permutation(len(self._pictures)).tolist()
        return {**self._frames[index], "photo": self._pictures[self._order[1][index]]["target"]}
