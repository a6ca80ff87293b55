"""What frames are recorded into: one interface for every format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from .hdf import Contents, HdfWriter


class Sink(Protocol):
    """A recording that is being written. Raises OSError from every method where the disk is full or fails.

    Attributes:
        path: The file or folder.
    """

    path: Path

    @property
    def counts(self) -> dict[str, int]:
        """Frames that are whole in it, by kind."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of those frames."""
        ...

    def room(self, kind: str) -> int:
        """Most frames that `write` takes at once; at least 1."""
        ...

    def write(self, kind: str, pieces: Sequence[memoryview], rows: npt.NDArray[Any]) -> None:
        """Takes frames, out of memory that may be overwritten meanwhile: they count only once committed."""
        ...

    def commit(self, kind: str, rows: npt.NDArray[Any]) -> None:
        """The first of the frames that were written count: as many as there are rows."""
        ...

    def event(self, row: npt.NDArray[Any]) -> None:
        """Notes an EVENT [1]."""
        ...

    def finish(self) -> None:
        """Completes and closes it."""
        ...

    def abandon(self) -> None:
        """Closes it as it is, readable up to the last frame that was committed. Never raises."""
        ...

    def discard(self) -> None:
        """Closes and removes it. Never raises."""
        ...


def open_sink(
    form: str,
    path: Path,
    contents: Contents,
    expected: dict[str, int],
    *,
    endless: bool,
    fps: float,
    record_fps: float,
) -> Sink:
    """Begins a recording.

    Args:
        form: h5, dng or mp4.
        path: Without an ending.
        contents: What it is of.
        expected: Frames that are expected, by kind.
        endless: Whether there may be any number of them.
        fps: The camera's frame rate, 0 where it is not known.
        record_fps: Most frames a second of an MP4; 0 sets no limit.

    Raises:
        OSError: It cannot be made, or the disk has no room for what is expected.
    """
    if form == "dng":
        from .dng import DngWriter

        return DngWriter(path, contents)
    if form == "mp4":
        from .mp4 import Mp4Writer

        return Mp4Writer(path.with_name(path.name + ".mp4"), contents, fps=fps, record_fps=record_fps)
    return HdfWriter(path.with_name(path.name + ".h5"), contents, expected, endless=endless)
