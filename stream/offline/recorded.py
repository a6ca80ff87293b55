"""A recording of sRGB frames (.h5), in which workers write frames in any order, without the HDF5 library.

The file is made with room for every frame, and its tables, before the first is developed; its structure never changes
again, so nobody that is killed can leave it broken. Workers write the pixels of a frame at its place. Which frames are
written stands in a list beside it. The file gets its name when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.errors import UserError, reason
from ..footage import Footage
from ..record.layout import EVENT, FORMAT, RAW_FRAME, SRGB_FRAME, VERSION, put_text, require_h5py
from ..record.reader import frame_places
from .job import Job, RunFailed
from .sinks import PARTS, Picture, Sink, parts_folder

_DONE = "done"  # the list: 8 bytes a frame


class RecordedSink(Sink):
    """See `Sink`."""

    def __init__(self, job: Job) -> None:
        """Raises UserError: h5py is not installed."""
        super().__init__(job)
        self._h5py = require_h5py()
        self._path = self.folder / f"{job.stem}-srgb.h5"
        self._part, self._list = _part(job), self.folder / PARTS / _DONE
        self._places: list[int] = []

    def names(self) -> Iterable[str]:
        """See `Sink.names`."""
        return (self._path.name,)

    def done(self) -> npt.NDArray[np.bool_]:
        """See `Sink.done`."""
        if self._path.is_file():
            return np.ones(self.job.count, np.bool_)
        done = np.zeros(self.job.count, np.bool_)
        if self._part.is_file() and self._list.is_file():
            data = self._list.read_bytes()
            listed = np.frombuffer(data[: len(data) // 8 * 8], "<u8")
            done[listed[listed < self.job.count]] = True
        return done

    def open(self, footage: Footage) -> None:
        """See `Sink.open`."""
        super().open(footage)
        if self._path.is_file():
            return
        parts_folder(self.folder)
        try:
            if not self._part.is_file():
                self._list.write_bytes(b"")
                self._create(footage)
            with self._h5py.File(self._part, "r") as file:
                self._places = frame_places(file["srgb"], self.job.count).tolist()
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self._path} cannot be made: {reason(error)}") from error

    def places(self, positions: Sequence[int]) -> Sequence[int]:
        """See `Sink.places`: where in the file they lie."""
        return [self._places[position] for position in positions]

    def note(self, positions: Sequence[int]) -> None:
        """See `Sink.note`."""
        try:
            with self._list.open("ab") as file:
                file.write(np.array(positions, "<u8").tobytes())
        except OSError as error:
            raise RunFailed(
                f"cannot write {self._list}: {reason(error)}; mend that, and run the same command again"
            ) from error

    def conclude(self) -> None:
        """See `Sink.conclude`."""
        if not self._path.is_file():
            os.replace(self._part, self._path)
        self._list.unlink(missing_ok=True)

    def close(self) -> None:
        """See `Sink.close`."""
        super().close()
        with suppress(OSError):  # there is something in it
            (self.folder / PARTS).rmdir()

    def _create(self, footage: Footage) -> None:
        """The file, with all but the pixels. No time stands in it, so that it is the same whenever it is made."""
        h5py, job = self._h5py, self.job
        fmt = RawFormat.from_json(job.raw_format)
        size, free = job.count * fmt.height * fmt.width * 3, shutil.disk_usage(self.folder).free
        if size > free:
            raise OSError(f"it takes {size >> 20} MiB, and {free >> 20} MiB of the disk are free")
        new = self._part.with_name(f".{self._part.name}.part")
        with h5py.File(new, "w", libver=("v108", "v108")) as file:
            described = _described(job, footage)
            texts = {name: json.dumps(described[name]) for name in ("geometry", "settings", "calibration", "engine")}
            for name, value in {**_attributes(job, footage), **texts}.items():
                if isinstance(value, str):
                    put_text(file.attrs, name, value)
                else:
                    file.attrs[name] = value
            shape = (job.count, fmt.height, fmt.width, 3)
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_chunk((1, *shape[1:]))
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)
            h5py.h5d.create(file.id, b"srgb", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple(shape), layout).close()
            file["srgb_frames"] = _rows(job, footage, frame_places(file["srgb"], job.count))
            file["events"] = np.empty(0, EVENT)
        fd = os.open(new, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, os.fstat(fd).st_size)  # a disk that cannot hold it is full now
            os.fsync(fd)
        except OSError as error:
            os.unlink(new)
            raise OSError(error.errno, f"the disk cannot hold it ({reason(error)})") from error
        finally:
            os.close(fd)
        os.replace(new, self._part)


class RecordedWriter:
    """See `Writer`."""

    def __init__(self, job: Job) -> None:
        self._path = _part(job)
        self._fd = -1
        self._places: dict[int, int] = {}

    def begin(self, positions: Sequence[int], places: Sequence[int]) -> None:
        """See `Writer.begin`."""
        self._places = dict(zip(positions, places, strict=True))
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)

    def put(self, position: int, picture: Picture) -> None:
        """See `Writer.put`."""
        data, at = picture.data.cast("B"), self._places[position]
        while data:
            written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written

    def end(self) -> None:
        """See `Writer.end`."""
        os.fdatasync(self._fd)  # before it stands in the list: another node may look next


def _part(job: Job) -> Path:
    return job.folder / PARTS / "srgb.h5"


def _attributes(job: Job, footage: Footage) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "stream_id": "0" * 16,
        "camera": 0,
        "serial": footage.about.serial,
        "model": footage.about.model,
        "vendor": "",
        "created": footage.about.created,
        "reason": f"developed from {footage.path.name}",
        "complete": True,
    }


def _described(job: Job, footage: Footage) -> dict[str, dict[str, Any]]:
    calibration = {name: getattr(job, name) for name in ("white_balance", "colour_matrix", "defects", "flat_field")}
    return {
        "geometry": {**job.raw_format, "fps": footage.fps},
        "settings": {"first": job.first, "step": job.step},
        "calibration": calibration,
        "engine": {"name": job.engine, "engine_id": job.engine_id, "precision": job.precision},
    }


def _rows(job: Job, footage: Footage, places: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    taken = footage.frames[[job.index(position) for position in range(job.count)]]
    rows = np.zeros(job.count, SRGB_FRAME)
    for name in RAW_FRAME.names or ():
        rows[name] = places if name == "offset" else taken[name]  # that of the footage is of another file
    rows["sequence"] = np.arange(job.count)
    for name, gain in zip(("wb_r", "wb_g", "wb_b"), job.white_balance or (1, 1, 1), strict=True):
        rows[name] = gain
    return rows
