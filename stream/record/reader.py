"""Reading recordings: `open_recording("run.h5")`.

Nothing in a file is trusted: every number and text is checked before it is used, links out of the file are not
followed, and whatever the HDF5 library makes of a broken file becomes one sentence.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from ...engines.errors import UserError, reason
from .layout import EVENT, FORMAT, MAX_FRAMES, MAX_JSON, MAX_TEXT, PIECE, RAW_FRAME, SRGB_FRAME, VERSION, require_h5py

_JSON = ("settings", "geometry", "calibration", "engine")
_MOST_CHUNK = 64 << 20  # bytes, of which the HDF5 library takes a whole one into memory
_TEXTS = ("stream_id", "serial", "model", "vendor", "created", "reason")


def open_recording(path: Path | str) -> Recording:
    """Opens a recording for reading.

    Raises:
        UserError: There is no such file, it is no recording, it is damaged, or h5py is not installed.
    """
    return Recording(path)


class Recording:
    """A recording, open for reading. A context manager; one thread uses it.

    Attributes:
        path: The file.
        raw_format: Format of the raw frames; None where there are none.
        raw_frames: RAW_FRAME [raw_count], what is known of each raw frame.
        srgb_frames: SRGB_FRAME [srgb_count], likewise of each sRGB frame.
        srgb_size: (width, height) of the sRGB frames in pixels; (0, 0) where there are none.
        events: EVENT [n]: triggers, begin and end with the reason, losses, oldest first.
        geometry, settings, calibration, engine: What the camera delivered, what isp-stream was told, white balance,
            colour matrix, defects and flat field, and the engine of the sRGB frames; empty where the file does not
            tell.
        texts: stream_id, serial, model, vendor, created (ISO 8601) and reason; empty where the file does not tell.
        camera: Index of the camera.
        complete: False for a recording whose writer was killed or that is still written: it then ends with the last
            frame that was whole when it was opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._fd = -1
        self._file: Any = None
        h5py = require_h5py()
        if not self.path.is_file():
            raise UserError(f"there is no recording {self.path}: give the path of a file of isp-stream --record")
        try:
            self._open(h5py)
        except UserError:
            self.close()
            raise
        except Exception as error:  # of a broken file the HDF5 library raises whatever it likes
            self.close()
            raise UserError(_unreadable(self.path, error)) from error

    def _open(self, h5py: Any) -> None:
        if not h5py.is_hdf5(self.path):
            raise UserError(f"{self.path} is no recording: it is no HDF5 file, or its beginning is damaged")
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._file = h5py.File(self.path, "r")
        attributes = _Attributes(self.path, self._file.attrs)
        if attributes.text("format") != FORMAT:
            raise UserError(f"{self.path} is an HDF5 file, but no recording of isp-stream")
        if (version := attributes.number("version", 0, 1 << 31)) != VERSION:
            raise UserError(f"{self.path} is a recording of version {version:g}, this ispeed reads {VERSION}")
        self.complete = bool(attributes.number("complete", 0, 1))
        self.camera = int(attributes.number("camera", 0, 1 << 31))
        self.texts = {name: attributes.text(name) for name in _TEXTS}
        self.settings, self.geometry, self.calibration, self.engine = map(attributes.json, _JSON)
        self._raw, self._srgb = self._dataset("raw", 2), self._dataset("srgb", 4)
        self.raw_format = None if self._raw is None else self._format(self._raw)
        self.srgb_size = (0, 0) if self._srgb is None else self._size(self._srgb)
        if self._raw is None and self._srgb is None:
            raise UserError(f"{self.path} holds no frames: it is no recording of isp-stream")
        self.raw_frames = self._frames(self._raw, "raw_frames", RAW_FRAME)
        self.srgb_frames = self._frames(self._srgb, "srgb_frames", SRGB_FRAME)
        self.events = self._table("events", EVENT)
        self.events = self.events[: _filled(self.events["time_ns"])]
        self._places: dict[str, npt.NDArray[np.int64] | None] = {}  # filled as they are asked for

    @property
    def raw_count(self) -> int:
        """How many raw frames there are."""
        return len(self.raw_frames)

    @property
    def srgb_count(self) -> int:
        """How many sRGB frames there are."""
        return len(self.srgb_frames)

    def read_raw(self, index: int, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Raw frame `index`, the bytes as they came: uint8 [payload_size], into `out` where given.

        Raises IndexError beyond the last frame, UserError where the file is damaged.
        """
        if self.raw_format is None or not 0 <= index < self.raw_count:
            raise IndexError(f"{self.path} has {self.raw_count} raw frames, there is no frame {index}")
        return self._read(self._raw, "raw", index, out, (self.raw_format.payload_size,))

    def read_srgb(self, index: int, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """sRGB frame `index`, uint8 [height, width, 3], into `out` where given. Raises as `read_raw` does."""
        if not 0 <= index < self.srgb_count:
            raise IndexError(f"{self.path} has {self.srgb_count} sRGB frames, there is no frame {index}")
        width, height = self.srgb_size
        return self._read(self._srgb, "srgb", index, out, (height, width, 3))

    def close(self) -> None:
        """Closes the file. Harmless when repeated."""
        if self._file is not None:
            with suppress(Exception):  # of a broken file
                self._file.close()
            self._file = self._raw = self._srgb = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Recording {self.path}: {self.raw_count} raw and {self.srgb_count} sRGB frames>"

    # -- inside -------------------------------------------------------------------------------------------------

    def _read(
        self, dataset: Any, name: str, index: int, out: npt.NDArray[np.uint8] | None, shape: tuple[int, ...]
    ) -> npt.NDArray[np.uint8]:
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out must be a contiguous uint8 array of shape {shape}")
        try:
            # Straight from the file: several times faster than through the library, and other threads may run.
            places = self._places_of(dataset, name)
            if places is None:
                dataset.read_direct(out[None], np.s_[index : index + 1])
                return out
            place = int(places[index])
            if place > 0 and os.preadv(self._fd, [out.data], place) == out.nbytes:
                return out
        except Exception as error:  # of a broken file the HDF5 library raises whatever it likes
            raise UserError(_unreadable(self.path, error)) from error
        raise UserError(f"frame {index} of {self.path} is not in the file: it is damaged or cut off")

    def _places_of(self, dataset: Any, name: str) -> npt.NDArray[np.int64] | None:
        """Where each frame lies in the file; None where the library has to read them."""
        if name not in self._places:
            rows = self.raw_frames if name == "raw" else self.srgb_frames
            places = None
            if _is_plain(dataset):
                try:
                    places = frame_places(dataset, len(rows))
                except (RuntimeError, OSError):  # an index that a killed writer left half done
                    places = rows["offset"].astype(np.int64)
            self._places[name] = places
        return self._places[name]

    def _dataset(self, name: str, dimensions: int) -> Any:
        """A dataset of uint8 frames in this very file, or None."""
        h5py = require_h5py()
        dataset = _member(self._file, name, self.path)
        if dataset is None:
            return None
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype != np.uint8 or dataset.ndim != dimensions:
            raise UserError(f"{self.path} is damaged: /{name} is no array of frames")
        if dataset.is_virtual or dataset.external or len(dataset) > MAX_FRAMES:
            raise UserError(f"{self.path} is damaged: the frames of /{name} are not in it")
        piece = math.prod(dataset.chunks or (0,))
        if piece > max(math.prod(dataset.shape[1:]), _MOST_CHUNK):
            raise UserError(
                f"{self.path} keeps the frames of /{name} in pieces of {piece >> 20} MiB, which are "
                f"read whole: write it anew in pieces of up to {_MOST_CHUNK >> 20} MiB, as h5repack does"
            )
        return dataset

    def _format(self, dataset: Any) -> RawFormat:
        attributes = _Attributes(self.path, dataset.attrs)
        width, height = (int(attributes.number(name, 1, 1 << 16)) for name in ("width", "height"))
        black, white = (attributes.number(name, 0, 1 << 16) for name in ("black_level", "white_level"))
        try:
            fmt = RawFormat(width, height, attributes.text("pixel_format"), black, white)
        except UserError as error:
            raise UserError(f"{self.path} is damaged: {error}") from error
        if dataset.shape[1] != fmt.payload_size:
            raise UserError(
                f"{self.path} is damaged: its raw frames have {dataset.shape[1]} bytes, {fmt.width}x{fmt.height} "
                f"{fmt.pixel_format} has {fmt.payload_size}"
            )
        return fmt

    def _size(self, dataset: Any) -> tuple[int, int]:
        _, height, width, channels = dataset.shape
        if channels != 3 or not 0 < width < 1 << 16 or not 0 < height < 1 << 16:
            raise UserError(f"{self.path} is damaged: its sRGB frames have the shape {dataset.shape[1:]}")
        return width, height

    def _table(self, name: str, dtype: np.dtype) -> npt.NDArray[Any]:
        h5py = require_h5py()
        table = _member(self._file, name, self.path)
        if table is None:
            return np.empty(0, dtype)
        if not isinstance(table, h5py.Dataset) or table.ndim != 1 or table.dtype.names is None:
            raise UserError(f"{self.path} is damaged: /{name} is no table")
        if not _is_fixed(table.id.get_type()):
            raise UserError(f"{self.path} is damaged: /{name} has a column of a variable length, which is not read")
        if table.is_virtual or table.external or not _is_stored(table, os.fstat(self._fd).st_size):
            raise UserError(f"{self.path} is damaged: the rows of /{name} are not in it")
        if missing := set(dtype.names or ()) - set(table.dtype.names) - {"offset"}:
            raise UserError(f"{self.path} is damaged: /{name} has no column {min(missing)}")
        if table.dtype == dtype:
            return table[:]
        known = [column for column in dtype.names or () if column in table.dtype.names]
        rows = table.fields(known)[:]  # of a later version, with more columns
        out = np.zeros(len(rows), dtype)
        for column in known:
            out[column] = rows[column]
        return out

    def _frames(self, dataset: Any, name: str, dtype: np.dtype) -> npt.NDArray[Any]:
        rows = self._table(name, dtype)
        if dataset is None:
            return rows[:0]
        if self.complete and len(rows) != len(dataset):
            raise UserError(f"{self.path} is damaged: it has {len(dataset)} frames and {len(rows)} rows in /{name}")
        rows = rows[: len(dataset)]
        # A row is written after its frame; so of a writer that was killed, those that are filled have whole frames.
        return rows if self.complete else rows[: _filled(rows["grabbed_ns"])]


class _Attributes:
    """Attributes of one object, each checked."""

    def __init__(self, path: Path, attributes: Any) -> None:
        self._path, self._attributes = path, attributes

    def _get(self, name: str, limit: int) -> Any:
        if name not in self._attributes:
            return None
        held = self._attributes.get_id(name)
        if not _is_fixed(held.get_type()):  # see `layout.put_text`
            raise UserError(
                f"{self._path}: its attribute {name!r} has a variable length, which is not read (a damaged one can "
                "hang the HDF5 library): write text as numpy.bytes_(text)"
            )
        if held.shape not in ((), (1,)) or held.dtype.itemsize > limit:
            raise UserError(f"{self._path} is damaged: its attribute {name!r} is too long")
        value = self._attributes[name]
        return value.item() if isinstance(value, (np.ndarray, np.generic)) else value

    def text(self, name: str, limit: int = MAX_TEXT) -> str:
        """A text; empty where there is none."""
        value = self._get(name, limit)
        if value is None:
            return ""
        for number in range(1, limit // PIECE + 1) if isinstance(value, bytes) else ():
            if not isinstance(piece := self._get(f"{name}.{number}", limit), bytes):
                break
            value += piece
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if not isinstance(value, str) or len(value) > limit:
            raise UserError(f"{self._path} is damaged: its attribute {name!r} is no text, or too long")
        return value

    def number(self, name: str, least: float, most: float) -> float:
        """A number within bounds."""
        value = self._get(name, 16)
        if not isinstance(value, (bool, int, float)) or not least <= value <= most:
            raise UserError(f"{self._path} is damaged: its attribute {name!r} is missing or out of range")
        return value

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object; empty where there is none."""
        text = self.text(name, MAX_JSON)
        try:
            value = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self._path} is damaged: its attribute {name!r} is no JSON") from error
        if not isinstance(value, dict):
            raise UserError(f"{self._path} is damaged: its attribute {name!r} is no JSON object")
        return value


def _member(file: Any, name: str, path: Path) -> Any:
    h5py = require_h5py()
    link = file.get(name, getlink=True)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):  # a link may lead into any file of the reader
        raise UserError(f"{path} is damaged: /{name} is a link to elsewhere")
    return file[name]


def _is_plain(dataset: Any) -> bool:
    """Whether every frame lies in the file as it is, in a piece."""
    if dataset.chunks != (1, *dataset.shape[1:]):
        return False
    return dataset.id.get_create_plist().get_nfilters() == 0


def frame_places(dataset: Any, count: int) -> npt.NDArray[np.int64]:
    """Byte offset in the file of each of the first `count` frames, -1 where one is not in it."""
    places = np.full(count, -1, np.int64)

    def note(chunk: Any) -> None:
        if 0 <= chunk.chunk_offset[0] < len(places):
            places[chunk.chunk_offset[0]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return places


def _is_fixed(kind: Any) -> bool:
    """Whether values of an HDF5 type lie where the type says, and not in the file's global heap or behind a reference.

    Where the heap is damaged the HDF5 library does not come back, so nothing of the kind is to be read.
    """
    types = require_h5py().h5t
    sort = kind.get_class()
    if sort == types.COMPOUND:
        return all(_is_fixed(kind.get_member_type(index)) for index in range(kind.get_nmembers()))
    if sort in (types.ARRAY, types.ENUM):
        return _is_fixed(kind.get_super())
    return sort in (types.INTEGER, types.FLOAT) or (sort == types.STRING and not kind.is_variable_str())


def _is_stored(table: Any, size: int) -> bool:
    """Whether the rows are in the file, of `size` bytes: a few bytes may claim any number of rows that are not.

    So may the index: for a chunk that is large by its word, memory is taken before the file is looked at.
    """
    needed = len(table) * table.dtype.itemsize
    if table.chunks is None:
        return needed <= min(size, table.id.get_storage_size())
    if needed > size or table.id.get_create_plist().get_nfilters():
        return False
    chunk_bytes, stored = table.chunks[0] * table.dtype.itemsize, 0

    def note(chunk: Any) -> None:
        nonlocal stored
        is_in_it = chunk.size == chunk_bytes and chunk.byte_offset + chunk.size <= size
        stored = stored + chunk_bytes if is_in_it else -math.inf

    table.id.chunk_iter(note)
    return needed <= stored


def _filled(column: npt.NDArray[Any]) -> int:
    """Rows before the first that is empty."""
    empty = np.flatnonzero(column == 0)
    return int(empty[0]) if len(empty) else len(column)


def _unreadable(path: Path, error: Exception) -> str:
    text = reason(error)
    if isinstance(error, BlockingIOError) or "unable to lock file" in text:
        return f"{path} is being written: wait until the recording has ended"
    return f"{path} cannot be read: {text[:200]}"
