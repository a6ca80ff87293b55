"""What is made of developed frames. A sink is the side of the process that the user started, a writer a worker's side.

Nothing has its name before it is whole, and what has its name is never done again:

    png, tiff   a file for each frame, written under another name and renamed
    mp4         a segment for each chunk, encoded by the worker (`film`); put together when all are there
    h5          a file that has its full size from the beginning, in which workers write each frame at its place, and a
                list of those that are written (`recorded`)
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...engines.files import write_whole
from ..footage import Footage
from .job import Job

Picture = npt.NDArray[np.uint8]
"""uint8 [height, width, 3], sRGB."""

PART = ".part"
PARTS = ".isp-develop"
"""Folder, in that of the output, of what is not whole yet."""

FRAMES_TABLE = "frames.csv"


class Writer(Protocol):
    """Writes pictures of one job, in a worker."""

    def begin(self, positions: Sequence[int], places: Sequence[int]) -> None:
        """Pictures of these positions follow, in this order. places: see `Sink.places`."""
        ...

    def put(self, position: int, picture: Picture) -> None:
        """Takes a picture; its memory may change afterwards."""
        ...

    def end(self) -> None:
        """Returns when all that was put is where it belongs."""
        ...


class Sink(ABC):
    """Looks after what is made of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.folder = job.folder

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Names, in the folder, of what is made when all is done, in order."""

    @abstractmethod
    def done(self) -> npt.NDArray[np.bool_]:
        """Which positions need not be developed (any more): bool [count]."""

    def open(self, footage: Footage) -> None:
        """Gets ready, once, in a folder that may hold what an earlier run left. Raises UserError."""
        self.clear_parts()

    def chunks(self, done: npt.NDArray[np.bool_], size: int) -> list[list[int]]:
        """What is to be developed: positions, in pieces of that size or of what is made."""
        missing = np.flatnonzero(~done).tolist()
        return [missing[start : start + size] for start in range(0, len(missing), size)]

    def places(self, positions: Sequence[int]) -> Sequence[int]:
        """What a worker must know, beside its job, to write these."""
        return ()

    def note(self, positions: Sequence[int]) -> None:
        """A worker has written these."""
        return

    def conclude(self) -> None:
        """All positions are done: gives what is made its name."""
        return

    def close(self) -> None:
        """Ends; removes what workers that were killed left behind."""
        self.clear_parts()

    def clear_parts(self) -> None:
        """Removes files that a worker had begun."""
        for folder in (self.folder, self.folder / PARTS):
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") and entry.name.endswith(PART):
                        os.unlink(entry.path)

    def remove(self) -> None:
        """Removes all that was made of the job."""
        for name in self.names():
            (self.folder / name).unlink(missing_ok=True)
        parts = self.folder / PARTS
        if parts.is_dir():
            for path in parts.iterdir():
                path.unlink()
            parts.rmdir()


class FilesSink(Sink):
    """A file for each frame, named by its number in the footage, and a table of what is known of the frames."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._suffix = job.format

    def names(self) -> Iterable[str]:
        """See `Sink.names`."""
        yield FRAMES_TABLE
        for position in range(self.job.count):
            yield _name(self.job, position)

    def done(self) -> npt.NDArray[np.bool_]:
        """See `Sink.done`. An empty file, as a power failure may leave, is not done."""
        with os.scandir(self.folder) as entries:
            there = {e.name for e in entries if e.name.endswith(self._suffix) and e.is_file() and e.stat().st_size}
        return np.array([_name(self.job, position) in there for position in range(self.job.count)], np.bool_)

    def open(self, footage: Footage) -> None:
        """See `Sink.open`."""
        super().open(footage)
        write_frames_table(self.job, footage)


class FilesWriter:
    """See `FilesSink` and `Writer`."""

    def __init__(self, job: Job) -> None:
        from PIL import Image

        self._job, self._image = job, Image
        self._options: dict[str, Any] = {"format": "PNG", "compress_level": 1} if job.format == "png" else {}
        self._options = self._options or {"format": "TIFF"}

    def begin(self, positions: Sequence[int], places: Sequence[int]) -> None:
        """See `Writer.begin`."""

    def put(self, position: int, picture: Picture) -> None:
        """See `Writer.put`."""
        path = self._job.folder / _name(self._job, position)
        part = path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}{PART}")
        try:
            self._image.fromarray(picture).save(part, **self._options)
            part.replace(path)
        finally:
            with suppress(OSError):
                part.unlink()

    def end(self) -> None:
        """See `Writer.end`."""


def write_frames_table(job: Job, footage: Footage) -> None:
    """frames.csv: what is known of each frame that is developed. Raises UserError."""
    columns = ("frame_id", "device_timestamp", "exposure_us", "gain_db")
    lines = ["frame," + ",".join(columns)]
    for position in range(job.count):
        index = job.index(position)
        row = footage.frames[index]
        values = ("" if value != value else f"{value:.10g}" for value in (row["exposure_us"], row["gain_db"]))
        lines.append(f"{index},{row['frame_id']},{row['device_timestamp']}," + ",".join(values))
    write_whole(job.folder / FRAMES_TABLE, ("\n".join(lines) + "\n").encode(), "the table")


def make_sink(job: Job) -> Sink:
    """The sink for the job's format. Raises UserError: a package that it needs is not installed."""
    if job.format == "mp4":
        from .film import FilmSink

        return FilmSink(job)
    if job.format == "h5":
        from .recorded import RecordedSink

        return RecordedSink(job)
    return FilesSink(job)


def make_writer(job: Job) -> Writer:
    """The writer for the job's format. Raises UserError: a package that it needs is not installed."""
    if job.format == "mp4":
        from .film import FilmWriter

        return FilmWriter(job)
    if job.format == "h5":
        from .recorded import RecordedWriter

        return RecordedWriter(job)
    return FilesWriter(job)


def _name(job: Job, position: int) -> str:
    return f"{job.index(position):08d}.{job.format}"


def put_in_place(part: Path, path: Path) -> None:
    """Gives a file its name, once it is on the disk: else a power failure may leave the name with nothing in it.

    Raises OSError.
    """
    fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    part.replace(path)


def parts_folder(folder: Path) -> Path:
    """The folder of what is not whole yet, made where it is missing."""
    parts = folder / PARTS
    parts.mkdir(exist_ok=True)
    return parts
