"""Recordings from arrays in memory."""

from __future__ import annotations

import math
import mmap
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from .hdf import Contents, HdfWriter
from .layout import RAW_FRAME, SRGB_FRAME, pages

_AT_ONCE = 64  # frames


def write_recording(
    path: Path,
    raw_format: RawFormat | None,
    frames: npt.ArrayLike | None,
    *,
    raw_frames: npt.NDArray[Any] | None = None,
    srgb: npt.ArrayLike | None = None,
    srgb_frames: npt.NDArray[Any] | None = None,
    geometry: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    calibration: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    serial: str = "",
    fps: float = 100.0,
    complete: bool = True,
) -> Path:
    """Writes a recording in one go, from arrays in memory; for tests and converters. Returns `path`.

    Args:
        path: The file; one that is there is replaced.
        raw_format: Format of `frames`; None without raw frames.
        frames: uint8 [N, payload_size].
        raw_frames: RAW_FRAME [N]; made up where not given, with ids from 1 and times at `fps`.
        srgb: uint8 [M, height, width, 3].
        srgb_frames: SRGB_FRAME [M]; made up likewise.
        geometry, settings, calibration, engine: Dicts of JSON values.
        serial: The camera's serial number.
        fps: Frames a second, for what is made up.
        complete: False leaves the file as a writer that was killed would.
    """
    texts = {"stream_id": "0" * 16, "serial": serial, "model": "", "vendor": "", "reason": "written"}
    texts["created"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    parts = {"geometry": geometry, "settings": settings, "calibration": calibration, "engine": engine}
    contents = Contents(texts=texts, parts={name: part or {} for name, part in parts.items()})
    arrays: dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]] = {}
    if frames is not None and raw_format is not None:
        contents.raw_format = raw_format
        array = np.asarray(frames, np.uint8).reshape(-1, raw_format.payload_size)
        arrays["raw"] = array, _made_up(len(array), fps, RAW_FRAME) if raw_frames is None else raw_frames
    if srgb is not None:
        array = np.asarray(srgb, np.uint8)
        contents.srgb_size = (array.shape[2], array.shape[1])
        arrays["srgb"] = array, _made_up(len(array), fps, SRGB_FRAME) if srgb_frames is None else srgb_frames
    path.unlink(missing_ok=True)
    writer = HdfWriter(path, contents, {kind: len(array) for kind, (array, _) in arrays.items()})
    try:
        for kind, (array, rows) in arrays.items():
            _put(writer, kind, array.reshape(len(array), math.prod(array.shape[1:])), rows)
        if complete:
            writer.finish()
    finally:
        writer.abandon()
    return path


def _put(writer: HdfWriter, kind: str, array: npt.NDArray[np.uint8], rows: npt.NDArray[Any]) -> None:
    if not len(array):
        return
    stride = pages(array.shape[1])
    buffer = mmap.mmap(-1, stride * _AT_ONCE)  # begins at a page, which an array does not
    view = np.frombuffer(buffer, np.uint8).reshape(_AT_ONCE, stride)
    memory = memoryview(buffer)
    pieces = [memory[i * stride : (i + 1) * stride] for i in range(_AT_ONCE)]
    for first in range(0, len(array), _AT_ONCE):
        some = array[first : first + _AT_ONCE]
        view[: len(some), : array.shape[1]] = some
        writer.write(kind, pieces[: len(some)])
        writer.commit(kind, rows[first : first + _AT_ONCE].copy())


def _made_up(count: int, fps: float, dtype: np.dtype) -> npt.NDArray[Any]:
    rows = np.zeros(count, dtype)
    rows["frame_id"] = np.arange(1, count + 1)
    rows["device_timestamp"] = rows["grabbed_ns"] = 1 + np.arange(count) * 1e9 // fps
    rows["realtime_offset_ns"] = time.time_ns() - time.monotonic_ns()
    rows["segment"] = 1
    rows["exposure_us"] = rows["gain_db"] = np.nan
    if "sequence" in (dtype.names or ()):
        rows["sequence"] = np.arange(count)
        rows["wb_r"] = rows["wb_g"] = rows["wb_b"] = 1
    return rows
