"""The recording file: names, tables and limits. `docs/recording.md` describes the same for other readers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engines.errors import UserError

FORMAT = "ispeed-recording"
VERSION = 1
PAGE = 4096  # frames and tables begin at multiples of it, so that they can be written past the page cache

#: One row of /raw_frames. Times are ns; `grabbed_ns` is CLOCK_MONOTONIC, plus `realtime_offset_ns` it is Unix time.
#: `offset` is where the frame was written in the file, for one whose index a killed writer left half done.
RAW_FRAME = np.dtype(
    [
        ("frame_id", "<u8"),
        ("device_timestamp", "<u8"),
        ("grabbed_ns", "<i8"),
        ("realtime_offset_ns", "<i8"),
        ("segment", "<u4"),
        ("flags", "<u4"),
        ("exposure_us", "<f8"),
        ("gain_db", "<f8"),
        ("offset", "<u8"),
    ]
)

#: One row of /srgb_frames.
SRGB_FRAME = np.dtype(
    [
        *RAW_FRAME.descr,
        ("sequence", "<u8"),
        ("wb_r", "<f4"),
        ("wb_g", "<f4"),
        ("wb_b", "<f4"),
        ("developed_ns", "<i8"),
        ("published_ns", "<i8"),
    ]
)

#: One row of /events. `time_ns` is CLOCK_MONOTONIC, `frame_id` the newest frame at that time.
EVENT = np.dtype([("time_ns", "<i8"), ("kind", "S32"), ("frame_id", "<u8"), ("text", "S200")])

#: Rows per chunk of a table: whole pages each.
TABLE_ROWS = {"raw_frames": 1024, "srgb_frames": 1024, "events": 512}

MAX_JSON = 16 << 20  # bytes of a JSON attribute
MAX_TEXT = 1 << 12  # bytes of any other text
MAX_FRAMES = 1 << 40


def require_h5py() -> Any:
    """The package h5py. Raises UserError where it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("recordings need h5py: pip install 'ispeed[record]'") from error
    return h5py


PIECE = 60_000
"""Bytes of text that one attribute holds; what is longer goes on in NAME.1, NAME.2, ... (HDF5 allows 64 KiB)."""


def put_text(attributes: Any, name: str, text: str) -> None:
    """Writes a text as attributes of fixed length. Texts of variable length lie in the file's global heap, and where
    that is damaged the HDF5 library does not come back."""
    h5py = require_h5py()
    data = text.encode()
    for number, first in enumerate(range(0, len(data) or 1, PIECE)):
        piece = data[first : first + PIECE] or b"\0"
        kind = h5py.string_dtype("utf-8", len(piece))
        attributes.create(f"{name}.{number}" if number else name, np.bytes_(piece), dtype=kind)


def pages(size: int) -> int:
    """`size` rounded up to whole pages."""
    return -(-size // PAGE) * PAGE
