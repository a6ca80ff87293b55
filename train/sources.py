"""Where samples come from: the `source` of an entry under `data` in a recipe, each with settings of its own.

A new source is a class here, or in `photo_sources`, in the union `AnySource`. Samples are dicts of tensors: `planes`
float32 [4, h, w] (R, Gr, Gb, B of an RGGB mosaic, black 0, white 1, not white balanced), `gains` float32 [3] (of R, G,
B, green 1), `target` float32 [3, 2h, 2w] (sRGB in [0, 1]), `matrix` float32 [3, 3] (the camera's colours after white
balance to linear sRGB) and `camera` float32 [5] (the columns of `engines.inputs.CAMERA`; what is not known is 0, as
engines have it). Beside photographs (an adversary) they have `photo`, as `target`, which does not belong to them. Those
for networks of the form "rgb" have `input` float32 [3, H, W] (sRGB) in place of planes and gains. Some have a `mask`
float32 [1, 2h, 2w] in [0, 1], how much each place of the target counts; beside them the others count everywhere.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from .photo_sources import CamerasSource, HdrSource, PhotosSource, PicturesSource
from .source_base import MULTIPLE, RAWS, FilesSource, Opened, SampleSet, Source

if TYPE_CHECKING:
    from torch import Tensor

    from .config import TrainConfig


_PHOTOGRAPHS = 104_729
"""What is added to the seed for photographs beside frames: other scenes than those of the frames."""


class ScenesSource(Source):
    """Rendered scenes: no data is needed."""

    source: Literal["scenes"]
    """rendered scenes; the target is what the classic engine makes of them without noise"""
    count: Annotated[int, Field(ge=1)] = 2048
    """samples of an epoch"""
    crop: Annotated[int, Field(ge=32, le=352, multiple_of=8)] = 128
    """edge of a sample in mosaic pixels"""
    scenes: Annotated[int, Field(ge=1, le=10_000)] = 96
    """how many scenes differ; each takes 1.5 MB in every process that draws"""

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation."""
        from .data.scenes import Scenes

        samples = Scenes(self.count, self.crop, scenes=self.scenes, seed=seed)
        return Opened(samples, self.fingerprint(seed), "rendered scenes")


class PairsSource(FilesSource):
    """Raw frames with the pictures that they should give."""

    LATER = ("target",)

    source: Literal["pairs"]
    """raw frames with pictures, of one of the data sets that isp-train --data-sets lists"""
    data_set: str
    """name of the data set"""
    root: Path
    """folder that holds it"""
    options: dict[str, Any] = Field({})
    """what else its reader takes, such as split or sets"""
    target: Literal["picture", "classic"] = "picture"
    """what samples are to become: the pictures of the data set; or what the classic engine makes of the frames with
    their gains, for training without pairs, as for raws in any case"""
    white_balance: Literal["camera", "grey_world"] | tuple[float, float, float] = "camera"
    """gains that go with the frames: camera (what the data set tells, else the grey world), grey_world, or three"""
    gain_db: float = 0.0
    """the camera's gain in dB, for frames of which the data set tells none"""
    exposure_us: Annotated[float, Field(ge=0)] = 0.0
    """exposure in microseconds, for frames of which the data set tells none; 0 where it is not known"""

    def open(self, seed: int, *, held_out: bool) -> Opened:
        """Ready to draw from; `held_out` for validation. Raises UserError: no such data, or another layout."""
        from .data.pairs import RawPairs
        from .data.readers import open_data_set
        from .data.splits import manifest_hash

        reader = open_data_set(self.data_set, self.root, **self.options)
        files = self.chosen(reader.files(), held_out)
        samples = RawPairs(
            reader,
            files,
            crop=self.crop,
            augment=not held_out,
            repeats=self.repeats,
            white_balance=self.white_balance,
            camera=(self.exposure_us, self.gain_db),
            classic=self.classic,
            multiple=MULTIPLE,
            seed=seed,
            cache_bytes=self.cache_mb * 1_000_000,
        )
        about = f"{len(files)} pairs of {self.data_set}"
        if self.data_set == RAWS:
            about = f"{len(files)} frames of {self.root.name}"
        about += ", with pictures of the classic engine" if self.classic else ""
        return Opened(samples, self.fingerprint(seed, manifest_hash(files)), about)

    @property
    def classic(self) -> bool:
        """See `Source.classic`."""
        return self.target == "classic" or self.data_set == RAWS


AnySource = Annotated[
    ScenesSource | PhotosSource | CamerasSource | PicturesSource | HdrSource | PairsSource,
    Field(discriminator="source"),
]
"""An entry under `data`: `source` says which."""

SOURCES = (ScenesSource, PhotosSource, CamerasSource, PicturesSource, HdrSource, PairsSource)
"""The members of the union."""


class _Mixed:
    """Several sets as one."""

    def __init__(self, sets: Sequence[SampleSet]) -> None:
        self._sets, self._ends = list(sets), list(accumulate(len(samples) for samples in sets))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = bisect_right(self._ends, index)
        return self._sets[which][index - (self._ends[which - 1] if which else 0)]

    def set_epoch(self, epoch: int) -> None:
        for samples in self._sets:
            samples.set_epoch(epoch)


def beside_photographs(frames: Opened, config: TrainConfig) -> Opened:
    """Samples of a recipe with an adversary, each with a photograph that does not belong to it. Raises UserError."""
    from .data.unpaired import Unpaired, open_photographs

    settings, crop, seed = config.adversary, config.data.train[0].crop, config.seed + _PHOTOGRAPHS
    if settings is None or crop is None:
        raise ValueError("the recipe has no adversary, or its samples no size")
    beside = open_photographs(settings.photographs, crop, len(frames.samples), settings.downscale, seed)
    manifest = hashlib.sha256(f"{frames.manifest}\n{beside.manifest}".encode()).hexdigest()
    about = f"{frames.about}; against {beside.about}"
    return Opened(Unpaired(frames.samples, beside.pictures, seed), manifest, about)


def open_sources(sources: Sequence[AnySource], seed: int, *, held_out: bool) -> Opened:
    """All of them, mixed. Equal sources differ in what they draw. What is held out is the same for every seed, so that
    runs are measured on the same samples.

    Raises:
        UserError: The data of one is not there, or not laid out as it should.
    """
    from .metrics import HELD_OUT_SEED

    seed = HELD_OUT_SEED if held_out else seed
    opened = [source.open(seed + 7919 * place, held_out=held_out) for place, source in enumerate(sources)]
    manifest = hashlib.sha256("\n".join(each.manifest for each in opened).encode()).hexdigest()
    return Opened(_Mixed([each.samples for each in opened]), manifest, "; ".join(each.about for each in opened))
