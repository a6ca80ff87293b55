"""Trace: each frame's five time stamps, as JSON that chrome://tracing and Perfetto show."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from ..engines.errors import UserError

MOST_FRAMES = 200_000
_STAGES = ("camera to grab", "wait for develop", "develop", "wait for publish")


class Trace:
    """Keeps the stamps of the last 200,000 frames in fixed memory; `write` writes them.

    Raises UserError where the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("w")
        except OSError as error:
            raise UserError(f"cannot write the trace {path}: {error.strerror}") from error
        self._row = struct.Struct("<6q")
        self._data = bytearray(self._row.size * MOST_FRAMES)
        self._count = 0

    def add(self, sequence: int, stamps: tuple[int, ...]) -> None:
        """Keeps one frame: device, grabbed, develop start, developed, published; ns."""
        self._row.pack_into(self._data, self._count % MOST_FRAMES * self._row.size, sequence, *stamps)
        self._count += 1

    def write(self, device_clock_is_host: bool) -> None:
        """Writes one row (tid) a stage, with one complete event ("X") a frame. Raises UserError where that fails."""
        kept = memoryview(self._data)[: min(self._count, MOST_FRAMES) * self._row.size]
        try:
            with self._file as out:
                self._write_events(out, sorted(self._row.iter_unpack(kept)), device_clock_is_host)
        except OSError as error:
            raise UserError(f"the trace {self._path} could not be written: {error.strerror}") from error

    @staticmethod
    def _write_events(out: TextIO, rows: list[tuple[int, ...]], device_clock_is_host: bool) -> None:
        out.write('{"displayTimeUnit":"ms","traceEvents":[')
        for tid, name in enumerate(_STAGES):
            event = {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
            out.write(("," if tid else "") + "\n" + json.dumps(event))
        for sequence, *stamps in rows:
            for tid, (start, end) in enumerate(pairwise(stamps)):
                if tid or device_clock_is_host:
                    name = f"{_STAGES[tid]} {sequence}"
                    event = {
                        "ph": "X",
                        "pid": 1,
                        "tid": tid,
                        "name": name,
                        "ts": start / 1e3,
                        "dur": (end - start) / 1e3,
                    }
                    out.write(",\n" + json.dumps(event))
        out.write("\n]}\n")
