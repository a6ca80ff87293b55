"""Writing recordings."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.bayer import RawFormat
from .layout import EVENT, FORMAT, RAW_FRAME, SRGB_FRAME, VERSION, require_h5py


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
    """Writes a recording in one go, from arrays in memory; for tests and converters.

    Args:
        path: The file.
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
    h5py = require_h5py()
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        texts = {"stream_id": "0" * 16, "serial": serial, "model": "", "vendor": "", "reason": "written"}
        parts = {"geometry": geometry, "settings": settings, "calibration": calibration, "engine": engine}
        file.attrs.update({"format": FORMAT, "version": VERSION, "camera": 0, "complete": complete, **texts})
        file.attrs.update({name: json.dumps(value or {}) for name, value in parts.items()})
        file.attrs["created"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        if frames is not None and raw_format is not None:
            array = np.asarray(frames, np.uint8).reshape(-1, raw_format.payload_size)
            raw = file.create_dataset("raw", data=array, chunks=(1, raw_format.payload_size), maxshape=(None, None))
            raw.attrs.update(raw_format.to_json())
            file["raw_frames"] = _made_up(len(array), fps, RAW_FRAME) if raw_frames is None else raw_frames
        if srgb is not None:
            array = np.asarray(srgb, np.uint8)
            file.create_dataset("srgb", data=array, chunks=(1, *array.shape[1:]), maxshape=(None, *array.shape[1:]))
            file["srgb_frames"] = _made_up(len(array), fps, SRGB_FRAME) if srgb_frames is None else srgb_frames
        file["events"] = np.empty(0, EVENT)
    return path


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
