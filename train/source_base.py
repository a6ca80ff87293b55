"""What all sources of samples share: what they give, and how a recipe chooses among files. See `sources`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, TypeVar

from pydantic import Field, model_validator

from ..engines.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from .data.splits import Grouped

G = TypeVar("G", bound="Grouped")

MULTIPLE = 32
"""What the sizes of whole frames are divisible by: the most that any of the networks asks for."""

RAWS = "raws"
"""The data set whose frames have no pictures."""


class SampleSet(Protocol):
    """Samples by index. What is drawn follows from seed, epoch and index, whichever process draws it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...

    def set_epoch(self, epoch: int) -> None:
        """Draw other samples from now on, the same ones for the same epoch."""
        ...


@dataclass(frozen=True)
class Opened:
    """A source that is ready.

    Attributes:
        samples: What it gives.
        manifest: SHA-256 in hex of what they are made from: it changes with the files.
        about: What it is, for the model card.
    """

    samples: SampleSet
    manifest: str
    about: str


class Source(Settings):
    """An entry under `data`."""

    LATER: ClassVar[tuple[str, ...]] = ()
    """settings that came later than others: at their defaults they are no part of the fingerprint, which so stays what
    it was before"""

    @property
    def classic(self) -> bool:
        """Targets are what the classic engine makes of the very frames, which measures no quality."""
        return False

    def fingerprint(self, *facts: object) -> str:
        """SHA-256 in hex of these settings and some facts."""
        fields = type(self).model_fields
        usual = {name for name in self.LATER if getattr(self, name) == fields[name].default}
        told = self.model_dump(mode="json", exclude=usual)
        return hashlib.sha256(repr((told, facts)).encode()).hexdigest()


class FilesSource(Source):
    """One that takes samples from files."""

    listed: Path | None = None
    """text file with the names of those to take, one on a line; null takes all"""
    hold_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """share of the scenes that is held out, where there is no split: training takes the others, validation these; null
    takes all for either"""
    crop: Annotated[int, Field(ge=8, multiple_of=8)] | None = 256
    """edge of a sample in mosaic pixels; null takes all of a frame, for validation"""
    repeats: Annotated[int, Field(ge=1)] = 1
    """samples of each frame and epoch"""
    cache_mb: Annotated[int, Field(ge=0)] = 1024
    """memory for what was decoded, in MB, all workers together"""

    @model_validator(mode="after")
    def _one_choice(self) -> FilesSource:
        if self.listed and self.hold_out:
            raise ValueError("listed and hold_out both choose what is taken; set one of them to null")
        return self

    def chosen(self, files: list[G], held_out: bool) -> list[G]:
        """Those of the files that are taken. Raises UserError."""
        from .data.splits import hold_out, read_split

        if self.listed:
            return read_split(self.listed, files)
        return hold_out(files, self.hold_out)[held_out] if self.hold_out else files
