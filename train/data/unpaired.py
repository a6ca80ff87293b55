"""Frames and photographs that do not belong together, side by side.

A sample of frames is given a photograph of anything, as large as its picture. Which one follows from seed, epoch and
index alone, by an order of its own, so that neither side tells anything of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from ...engines.errors import UserError
from .photos import PhotoFile, Photos, find_photos
from .pictures import PLAIN
from .sampling import SeededSamples

_COLOURLESS = 2
"""Codes of 255 by which the colours of a photograph differ at most where it counts as grey."""

_LOOKED_AT = 64
"""Edge in pixels that photographs are made smaller to before their colours are looked at."""

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
    try:
        with PIL.Image.open(path) as image:
            if image.mode in ("1", "L", "LA"):
                return True
            image.draft("RGB", (_LOOKED_AT, _LOOKED_AT))
            small = np.asarray(image.convert("RGB").resize((_LOOKED_AT, _LOOKED_AT)), np.int16)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read: {error}; copy it again, or remove it") from error
    return int((small.max(2) - small.min(2)).max()) <= _COLOURLESS


class Unpaired(SeededSamples):
    """Samples of frames with `photo`, float32 [3, 2h, 2w], sRGB in [0, 1].

    Args:
        samples: Of frames (`sources`).
        folder: Of photographs; grey ones are left out.
        crop: Edge of the samples in mosaic pixels.
        downscale: See `photos.read_photo`.
        seed: Of what is drawn of the photographs.

    Attributes:
        grey: Photographs that were left out.
        files: Those that are taken.

    Raises:
        UserError: No photographs with colours.
    """

    def __init__(self, samples: Any, folder: Path, crop: int, *, downscale: float | None = None, seed: int = 0) -> None:
        super().__init__(len(samples), seed)
        self.files, self.grey = coloured(find_photos(folder))
        if not self.files:
            raise UserError(f"all {len(self.grey)} photographs of {folder} are grey; give some with colours")
        self._samples = samples
        repeats = -(-len(samples) // len(self.files))
        self._photos = Photos(
            folder, PLAIN, self.files, crop=crop, repeats=repeats, downscale=downscale, seed=seed + _ORDER
        )

    def set_epoch(self, epoch: int) -> None:
        """See `SeededSamples.set_epoch`; of frames and photographs as well."""
        self._samples.set_epoch(epoch)
        self._photos.set_epoch(epoch)
        super().set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample. Raises IndexError: there is none. UserError: as frames and photographs do."""
        index = self._checked(index)
        order = np.random.default_rng([self._seed, _ORDER, int(self._epoch)]).permutation(len(self._photos))
        photo, _ = self._photos.photo(int(order[index]))
        return {**self._samples[index], "photo": photo.float() / 255}
